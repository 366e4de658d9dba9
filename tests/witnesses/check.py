"""Every rule of this kernel, each by its witness."""

from __future__ import annotations

from rawkm.errors import errno_name
from rawkm.rules import Prediction, Rule, rules

from .calls import MORE, of
from .world import Unavailable, World


class Report:
    """``seen``: the errno that came, by rule; ``wrong``: sentences; ``missing``: objects that this kernel does not give, by rule; ``excused``: why none can be;
    ``more``: (rule, errno) of other answers."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.wrong: list[str] = []
        self.missing: dict[str, str] = {}
        self.excused: dict[str, str] = {}
        self.more: set[tuple[str, int]] = set()


def walk(world: World) -> Report:
    report = Report()
    for rule in rules():
        if not rule.holds_for(world.version) or rule.errno in (None, 0):
            continue
        witness = of(rule)
        if witness is None:
            if rule.unseen:
                report.excused[rule.name] = rule.unseen
            else:
                report.wrong.append(f"{rule.name}: nobody has seen it, and it does not say why")
            continue
        try:
            question = witness(world)
        except Unavailable as err:
            report.missing[rule.name] = str(err)
            continue
        prediction = world.predict(question)
        if _hidden(rule, prediction):
            report.missing[rule.name] = prediction.rule.text if prediction.rule else ""
            continue
        if rule.name not in {r.name for r in prediction.rules}:
            report.wrong.append(f"{rule.name}: the model says {prediction!r}")
            continue
        said = world.ask(question)
        if said in rule.errnos and said:
            report.seen[rule.name] = said
        elif not prediction.allows(said) or not said or isinstance(rule.errno, int):
            report.wrong.append(f"{rule.name}: {_expected(rule)}, but the kernel says {errno_name(said) if said else 'yes'}")
    _more(world, report)
    return report


def _more(world: World, report: Report) -> None:
    by_name = {rule.name: rule for rule in rules()}
    for (name, number), witness in MORE.items():
        if not by_name[name].holds_for(world.version):
            continue
        said = world.ask(witness(world))
        if said == number:
            report.more.add((name, number))
        else:
            report.wrong.append(f"{name}: {errno_name(number)}, but the kernel says {errno_name(said) if said else 'yes'}")


def _expected(rule: Rule) -> str:
    return " or ".join(errno_name(number) for number in sorted(rule.errnos) if number)


def _hidden(rule: Rule, prediction: Prediction) -> bool:
    """Whether this kernel cannot get there: kprobe_multi is built in or not, or its union ends where the command's fields do."""
    first = prediction.rule.name if prediction.rule else ""
    if rule.name == "link_create.fprobe":
        return first != rule.name
    if first == "link_create.fprobe":
        return rule.name.startswith("link_create.kprobe_multi")
    return rule.source == "CHECK_ATTR" and first == "attr_tail"
