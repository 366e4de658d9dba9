"""Options and their texts: what is read, what is refused and in which words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rawkm.cli import count_cmd, options, trace_cmd
from rawkm.cli.args import Args, Option, full, quick
from rawkm.errors import UsageError

KNOWN = (*trace_cmd.OPTIONS, *options.COMMON)


def slowly(*argv: str) -> Args:
    return full(argv, KNOWN, options.FUNCTIONS, prog="rawkm trace", description="", epilog="")


def quickly(*argv: str) -> Args:
    values = quick(argv, KNOWN, options.FUNCTIONS)
    assert values is not None
    return values


@pytest.mark.parametrize("read", [quickly, slowly])
def test_values(read: Callable[..., Args]) -> None:
    args = read("tcp_*", "-d", "1.5", "udp_*", "--deny", "a", "--deny", "b", "--by", "syms", "--json", "-n", "7")
    assert args.patterns == ["tcp_*", "udp_*"]
    assert (args.duration, args.deny, args.by, args.json, args.limit) == (1.5, ["a", "b"], "syms", True, 7)
    assert (args.all, args.pid, args.missing, args.buffer, args.explain) == (
        False,
        None,
        "warn",
        "ring",
        False,
    )
    assert args.command == []
    with pytest.raises(AttributeError, match="interval"):
        _ = args.interval


@pytest.mark.parametrize("read", [quickly, slowly])
def test_the_last_of_an_option_counts(read: Callable[..., Args]) -> None:
    assert read("x", "-d", "1", "--duration", "2").duration == 2.0


@pytest.mark.parametrize(
    "argv",
    [
        ["tcp_*", "-d5"],
        ["tcp_*", "--duration=5"],
        ["-aj", "tcp_*"],
        ["tcp_*", "--buffer=perf"],
    ],
)
def test_what_only_argparse_understands_is_left_to_it(argv: list[str]) -> None:
    assert quick(argv, KNOWN, options.FUNCTIONS) is None


def test_forms_of_argparse() -> None:
    assert slowly("tcp_*", "-d5", "--deny=x", "--buffer=perf").duration == 5.0
    assert slowly("tcp_*", "-ad", "5").all


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "PATTERN"),
        (["-d", "5"], "PATTERN"),
        (["x", "-d"], "-d/--duration"),
        (["x", "-d", "soon"], "'soon' is no number of seconds above 0"),
        (["x", "-d", "0"], "'0' is no number of seconds above 0"),
        (["x", "-d", "-1"], "-d/--duration"),
        (["x", "--by", "magic"], "magic"),
        (["x", "--nope"], "--nope"),
        (["x", "--dur", "5"], "--dur"),
        (["x", "--json=yes"], "--json"),
        (["x", "-n", "0"], "'0' is no whole number above 0"),
        (["x", "-n", "1.5"], "'1.5' is no whole number above 0"),
        (["x", "-p", "4194305"], "'4194305' is no process id"),
        (["x", "-p", "self"], "'self' is no process id"),
        (["x", "--buffer-size", "3G"], "'3G' is no size"),
        (["x", "--buffer-size", "-1K"], "--buffer-size"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(argv: list[str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        slowly(*argv)
    sentence = str(caught.value)
    assert words in sentence
    assert sentence.endswith("(rawkm trace --help tells more)")
    assert "\n" not in sentence
    assert quick(argv, KNOWN, options.FUNCTIONS) is None


def test_a_command_without_patterns() -> None:
    assert quick([], options.COMMON, None) is not None
    assert quick(["tcp_*"], options.COMMON, None) is None
    with pytest.raises(UsageError, match=r"unrecognized arguments: tcp_\*"):
        full(["tcp_*"], options.COMMON, None, prog="rawkm doctor", description="", epilog="")


# -- texts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "value"), [("5", 5.0), ("0.25", 0.25), ("1e3", 1000.0), (" 2 ", 2.0)])
def test_seconds(text: str, value: float) -> None:
    assert options.seconds(text) == value


@pytest.mark.parametrize("text", ["", "0", "-5", "nan", "inf", "-inf", "1e10", "5s", "1,5"])
def test_no_seconds(text: str) -> None:
    with pytest.raises(ValueError, match="no number of seconds"):
        options.seconds(text)


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("007", 7), ("999999999999", 999999999999)])
def test_positive(text: str, value: int) -> None:
    assert options.positive(text) == value


# The last is longer than int() takes, and its own complaint is about int().
@pytest.mark.parametrize("text", ["", "0", "-1", "+1", "1.0", "1_000", "0x10", "²", "٣", "1" * 13, "1" * 5000])
def test_no_positive_number(text: str) -> None:
    for convert, words in (
        (options.positive, "no whole number"),
        (options.pid, "no process id"),
        (options.size, "no size"),
    ):
        with pytest.raises(ValueError, match=words):
            convert(text)


def test_pid() -> None:
    assert options.pid("4194304") == 1 << 22
    with pytest.raises(ValueError, match="no process id"):
        options.pid("4194305")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4096", 4096),
        ("64K", 1 << 16),
        ("64k", 1 << 16),
        ("16M", 1 << 24),
        ("2G", 1 << 31),
        ("2147483648", 1 << 31),
    ],
)
def test_size(text: str, value: int) -> None:
    assert options.size(text) == value


@pytest.mark.parametrize("text", ["K", "0K", "3G", "2147483649", "1T", "1KB", "1.5M", "-1K", "999999999999G"])
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        options.size(text)


# -- what options mean together ------------------------------------------------------------------------------


def test_patterns_are_taken_once() -> None:
    assert [p.text for p in options.patterns(quickly("b", "a", "b"))] == ["b", "a"]


def test_deny_list() -> None:
    deny = options.deny_list(quickly("x", "--deny", "tcp_*", "--unsafe"))
    assert deny.reason(b"tcp_ack") == "denied by --deny"
    assert deny.reason(b"rcu_idle") is None
    assert options.deny_list(quickly("x")).reason(b"rcu_idle")


def test_scope() -> None:
    args = quickly("x", "-p", "1")
    options.check_scope(args)
    args.command = ["true"]
    with pytest.raises(UsageError, match="exclude each other"):
        options.check_scope(args)
    args = quickly("x", "-a")
    with pytest.raises(UsageError, match="goes with a COMMAND"):
        options.check_scope(args)
    args.command = ["true"]
    options.check_scope(args)


def test_options_of_all_commands_have_help_and_their_own_flags() -> None:
    for command in (count_cmd, trace_cmd):
        known: tuple[Option, ...] = (*command.OPTIONS, *options.COMMON)
        flags = [flag for option in known for flag in option.flags]
        assert len(set(flags)) == len(flags)
        assert all(option.help and (option.convert is None or option.choices or option.metavar) for option in known)
