"""The two parsers of command lines: where the quick one answers, argparse says the same."""

from __future__ import annotations

from types import ModuleType

from hypothesis import given, settings
from hypothesis import strategies as st

from rawkm.cli import count_cmd, list_cmd, options, trace_cmd
from rawkm.cli.args import Args, Option, full, quick
from rawkm.errors import UsageError

COMMANDS: list[ModuleType] = [count_cmd, trace_cmd, list_cmd]

PATTERNS = st.sampled_from(["tcp_*", "vfs_read", "/^a|b$/", "nf:*", "", "two words", "é", "a=b", "5"])
# Right for some options, wrong for others, or wrong for all.
VALUES = st.one_of(
    st.sampled_from(["5", "0.5", "1e3", "0", "-1", "nan", "inf", "1_0", "٣", "64K", "3G", "K", "9" * 13, "9" * 5000]),
    st.sampled_from(["auto", "syms", "ring", "perf", "warn", "error", "none"]),
    st.sampled_from(["", "a b", "--", "-", "--json", "é", "/tmp/ready", "tcp_*"]),
)
JUNK = st.sampled_from(["--nope", "-x", "-5", "-d5", "--duration=5", "--dur", "-aj", "--json=1", "-", "-d", "--deny", "-d ="])


def known(command: ModuleType) -> tuple[Option, ...]:
    return (*command.OPTIONS, *options.COMMON)


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[ModuleType, list[str]]:
    command = draw(st.sampled_from(COMMANDS))
    argv: list[str] = []
    for _ in range(draw(st.integers(0, 7))):
        kind = draw(st.integers(0, 9))
        if kind < 3:
            argv.append(draw(PATTERNS))
        elif kind < 9:
            option = draw(st.sampled_from(known(command)))
            argv.append(draw(st.sampled_from(option.flags)))
            if option.convert is not None:
                right = st.sampled_from(option.choices) if option.choices else VALUES
                argv.append(draw(st.one_of(right, VALUES)))
        else:
            argv.append(draw(JUNK))
    return command, argv


def slowly(command: ModuleType, argv: list[str]) -> Args:
    return full(argv, known(command), options.FUNCTIONS, prog="rawkm x", description="d", epilog="e")


@settings(max_examples=300)
@given(command_lines())
def test_what_the_quick_parser_accepts_argparse_reads_alike(line: tuple[ModuleType, list[str]]) -> None:
    command, argv = line
    fast = quick(argv, known(command), options.FUNCTIONS)
    if fast is not None:
        assert vars(fast) == vars(slowly(command, argv))


@settings(max_examples=300)
@given(command_lines())
def test_argparse_answers_or_says_what_is_wrong_in_a_sentence(line: tuple[ModuleType, list[str]]) -> None:
    command, argv = line
    try:
        values = slowly(command, argv)
    except UsageError as err:
        assert quick(argv, known(command), options.FUNCTIONS) is None
        sentence = str(err).replace("9" * 5000, "")
        assert sentence.endswith("(rawkm x --help tells more)")
        assert len(sentence) < 400
    else:
        assert values.patterns


@st.composite
def right_lines(draw: st.DrawFn) -> tuple[ModuleType, list[str]]:
    command = draw(st.sampled_from(COMMANDS))
    words = [[draw(PATTERNS)] for _ in range(draw(st.integers(1, 3)))]
    for option in draw(st.lists(st.sampled_from(known(command)), max_size=5)):
        flag = draw(st.sampled_from(option.flags))
        if option.convert is None:
            words.append([flag])
        elif option.choices:
            words.append([flag, draw(st.sampled_from(option.choices))])
        else:
            # A number, a size, a name, a share: right for all of them.
            words.append([flag, draw(st.sampled_from(["1", "64", "99"]))])
    return command, [word for pair in draw(st.permutations(words)) for word in pair]


@given(right_lines())
def test_plain_command_lines_never_wait_for_argparse(line: tuple[ModuleType, list[str]]) -> None:
    command, argv = line
    fast = quick(argv, known(command), options.FUNCTIONS)
    assert fast is not None
    assert vars(fast) == vars(slowly(command, argv))
