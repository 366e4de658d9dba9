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


class Args:
    """The values by name, as argparse's Namespace has them."""

    def __init__(self, values: dict[str, object]) -> None:
        self.__dict__.update(values)
        # What stood behind "--"; no option.
        self.command: list[str] = []

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no option {name!r}")


def quick(argv: Sequence[str], options: Sequence[Option], positional: str | None) -> Args | None:
    """The values, or None when argparse must look at it."""
    by_flag = {flag: option for option in options for flag in option.flags}
    values: dict[str, object] = {option.dest: [] if option.many else option.default for option in options}
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if not word.startswith("-"):
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
    if bool(words) != bool(positional):
        return None
    if positional:
        values[positional] = words
    return Args(values)


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def full(
    argv: Sequence[str],
    options: Sequence[Option],
    positional: str | None,
    *,
    prog: str,
    description: str,
    epilog: str,
) -> Args:
    """By argparse. Exits with status 0 after printing the help, raises UsageError for what is wrong."""
    from argparse import ArgumentParser, RawDescriptionHelpFormatter

    class Parser(ArgumentParser):
        def error(self, message: str) -> NoReturn:
            # argparse would print the usage, too: many lines that hide the one that matters.
            raise UsageError(f"{message} ({self.prog} --help tells more)")

    parser = Parser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if positional:
        parser.add_argument(positional, nargs="+", metavar="PATTERN", help="functions to trace")
    for option in options:
        _add(parser, option)
    # Patterns may stand between the options, as ``quick`` has them.
    values = vars(parser.parse_intermixed_args(list(argv)))
    for option in options:
        if option.many and values[option.dest] is None:
            values[option.dest] = []
    return Args(values)


def _add(parser: ArgumentParser, option: Option) -> None:
    convert = option.convert
    if convert is None:
        parser.add_argument(*option.flags, action="store_true", help=option.help)
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
        default=None if option.many else option.default,
        help=option.help,
    )
