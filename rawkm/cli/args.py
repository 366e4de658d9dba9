"""Options as data, and two parsers made from them.

argparse has the last word: it prints help and errors. But importing and building it costs a third of the time
from exec to attached, so a command line that is plainly right is read by ``quick``; whatever it does not
understand goes to argparse.
"""

from __future__ import annotations

from rawkm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn


class Option:
    """One option.

    ``convert``: text to value, None for a switch; raises ValueError with a sentence for a bad text.
    ``many``: may be given several times, the values are listed. ``choices``: the only texts allowed.
    """

    __slots__ = ("choices", "convert", "default", "dest", "flags", "help", "many", "metavar")

    def __init__(
        self,
        *flags: str,
        help: str,
        convert: Callable[[str], object] | None = None,
        metavar: str | None = None,
        choices: tuple[str, ...] | None = None,
        default: object = None,
        many: bool = False,
    ) -> None:
        self.flags = flags
        self.dest = flags[-1].lstrip("-").replace("-", "_")
        self.help = help
        self.convert = str if choices or many else convert
        self.metavar = metavar
        self.choices = choices
        self.many = many
        self.default = False if self.convert is None else default


class Operand:
    """What stands between the options: one or more (``many``), else one, which may be left out if ``optional``."""

    __slots__ = ("dest", "help", "many", "metavar", "optional")

    def __init__(self, metavar: str, *, dest: str = "", help: str, many: bool = False, optional: bool = False) -> None:
        self.dest = dest or metavar.lower()
        self.metavar = metavar
        self.help = help
        self.many = many
        self.optional = optional


class Args:
    """The values by name, as argparse's Namespace has them."""

    def __init__(self, values: dict[str, object]) -> None:
        self.__dict__.update(values)
        # What stood behind "--"; no option.
        self.command: list[str] = []

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no option {name!r}")


def quick(argv: Sequence[str], options: Sequence[Option], operand: Operand | None) -> Args | None:
    """The values, or None when argparse must look at it."""
    by_flag = {flag: option for option in options for flag in option.flags}
    values: dict[str, object] = {option.dest: [] if option.many else option.default for option in options}
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        option = by_flag.get(word)
        if option is None:
            return None
        if option.convert is None:
            values[option.dest] = True
            continue
        text = next(rest, "-")
        if text.startswith("-") or (option.choices is not None and text not in option.choices):
            return None
        try:
            value = option.convert(text)
        except ValueError:
            return None
        if option.many:
            values[option.dest] = [*_list(values[option.dest]), value]
        else:
            values[option.dest] = value
    if operand is None:
        return None if words else Args(values)
    if (not words and not operand.optional) or (len(words) > 1 and not operand.many):
        return None
    values[operand.dest] = words if operand.many else next(iter(words), None)
    return Args(values)


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def full(
    argv: Sequence[str],
    options: Sequence[Option],
    operand: Operand | None,
    *,
    prog: str,
    description: str,
    epilog: str,
) -> Args:
    """By argparse. Exits with status 0 after printing the help, raises UsageError for what is wrong."""
    parser = new_parser(prog=prog, **texts(description, epilog))
    if operand is not None:
        nargs = "+" if operand.many else "?" if operand.optional else None
        parser.add_argument(operand.dest, nargs=nargs, metavar=operand.metavar, help=operand.help)
    for option in options:
        add(parser, option)
    # Patterns may stand between the options, as ``quick`` has them.
    values = vars(parser.parse_intermixed_args(list(argv)))
    for option in options:
        if option.many and values[option.dest] is None:
            values[option.dest] = []
    return Args(values)


def texts(description: str, epilog: str = "") -> dict[str, Any]:
    """How every parser shows its texts: as they stand."""
    from argparse import RawDescriptionHelpFormatter

    return {
        "description": description,
        "epilog": epilog,
        "formatter_class": RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }


def new_parser(**how: Any) -> ArgumentParser:
    """A parser, to which actions can be added, that raises UsageError for what is wrong."""
    from argparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str) -> NoReturn:
            # argparse would print the usage, too: many lines that hide the one that matters.
            raise UsageError(f"{message} ({self.prog} --help tells more)")

    return Parser(**how)


def add(parser: ArgumentParser, option: Option, *, again: bool = False) -> None:
    """``again``: it may stand before the action, too; where it is not given behind it, that one counts."""
    from argparse import SUPPRESS

    convert = option.convert
    if convert is None:
        default = SUPPRESS if again else False
        parser.add_argument(*option.flags, action="store_true", default=default, help=option.help)
        return

    def checked(text: str) -> object:
        from argparse import ArgumentTypeError

        try:
            return convert(text)
        except ValueError as err:
            raise ArgumentTypeError(str(err)) from None

    parser.add_argument(
        *option.flags,
        type=checked,
        action="append" if option.many else "store",
        metavar=option.metavar,
        choices=option.choices,
        default=SUPPRESS if again else None if option.many else option.default,
        help=option.help,
    )
