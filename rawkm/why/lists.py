"""Which entries of a list the kernel does not take: the list is halved until they are found."""

from __future__ import annotations

from rawkm.why.scenario import Change, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rawkm.rules import Rule
    from rawkm.uapi.fields import Member
    from rawkm.why.scenario import Scenario

# Runs that a search may take: enough for a few entries among thousands.
_RUNS_MAX = 120
_CULPRITS_MAX = 8
_COOKIES = "link_create.kprobe_multi.cookies"
_PATHS = ("link_create.kprobe_multi.syms", "link_create.kprobe_multi.addrs")
#: The rules that one entry alone can break, and the one about entries that are there twice.
_ONE_BY_ONE = ("kprobe_multi_symbol", "kprobe_multi_address", "kprobe_multi_no_function")
_TWICE = "kprobe_multi_twice"


class List:
    """A list that a call has: ``path``, ``items``."""

    def __init__(self, step: Step, member: Member, items: Sequence[bytes]) -> None:
        self.path = member.path
        # Symbols and addresses have one count.
        self.count = "link_create.kprobe_multi.cnt"
        self.names = step.memory.get(member.path)
        self.items = list(items)

    def only(self, wanted: Sequence[int]) -> Callable[[Step], None]:
        """Makes the list these entries alone; their cookies go along."""

        def apply(draft: Step) -> None:
            chosen = [self.items[i] for i in wanted]
            draft.memory[self.path] = chosen if isinstance(self.names, list) else b"".join(chosen)
            draft.put(self.count, len(wanted))
            cookies = draft.memory.get(_COOKIES)
            if isinstance(cookies, bytes):
                draft.memory[_COOKIES] = b"".join(cookies[8 * i : 8 * i + 8] for i in wanted)

        return apply

    def shown(self, index: int) -> str:
        item = self.items[index]
        return repr(item)[1:] if isinstance(self.names, list) else hex(int.from_bytes(item, "little"))


def of(step: Step) -> List | None:
    """The list of a kprobe_multi link."""
    for path in _PATHS:
        member = step.member(path)
        content = step.memory.get(path) if member is not None and step.number(path) else None
        if member is None or not content:
            continue
        items = content if isinstance(content, list) else [content[i : i + 8] for i in range(0, len(content) & ~7, 8)]
        items = items[: step.number("link_create.kprobe_multi.cnt")]
        if len(items) > 1:
            return List(step, member, items)
    return None


def without_culprits(scenario: Scenario, rules: Sequence[Rule]) -> Change | None:
    """The change that leaves out what these rules refuse; None where they are about something else, or it was not found."""
    names = {rule.name.partition(".")[2] for rule in rules}
    whole = of(scenario.last)
    if whole is None:
        return None
    every = range(len(whole.items))
    if _TWICE in names:
        first = {item: i for i, item in reversed(list(enumerate(whole.items)))}
        culprits = [i for i in every if first[whole.items[i]] != i]
    elif names & set(_ONE_BY_ONE):
        culprits = _search(scenario, whole, list(every))
    else:
        return None
    if not culprits or len(culprits) == len(whole.items):
        return None
    gone = set(culprits)
    numbers = ", ".join(map(str, culprits))
    texts = ", ".join(whole.shown(i) for i in culprits)
    last = len(scenario.steps) - 1
    return Change(last, f"{whole.path}[{numbers}]", texts, "left out", whole.only([i for i in every if i not in gone]))


def _search(scenario: Scenario, whole: List, every: list[int]) -> list[int]:
    culprits: list[int] = []
    todo = [every]
    last = len(scenario.steps) - 1
    start = scenario.runs
    while todo and len(culprits) < _CULPRITS_MAX and scenario.runs - start < _RUNS_MAX:
        part = todo.pop()
        outcome = scenario.run([Change(last, whole.path, "", "", whole.only(part))])
        if outcome.lost or outcome.errno == 0:
            continue
        if len(part) == 1:
            culprits.append(part[0])
        else:
            half = len(part) // 2
            # The first half is looked at first.
            todo += [part[half:], part[:half]]
    return sorted(culprits)
