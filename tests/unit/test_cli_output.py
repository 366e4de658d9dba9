"""Text for terminals and pipes: nothing in a name can do anything to them."""

from __future__ import annotations

import json
import unicodedata

import pytest

from rawkm.cli.output import comm, count_of, json_line, plain, table


@pytest.mark.parametrize("text", ["tcp_sendmsg", "name with spaces", "naïve", "日本", "", "a\\b"])
def test_harmless_text_stays(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\x1b]0;title\x07", "a\\x1b]0;title\\x07"),
        ("a\nb\rc\td\0", "a\\x0ab\\x0dc\\x09d\\x00"),
        ("\x7f\x80\x9b31m", "\\x7f\\x80\\x9b31m"),
        ("a\u202eb\u2066c\u200bd", "a\\u202eb\\u2066c\\u200bd"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("\udcff", "\\udcff"),
        ("\ue000\U000e0001\U0010ffff", "\\ue000\\U000e0001\\U0010ffff"),
        ("no\xa0break", "no\\xa0break"),
    ],
)
def test_what_acts_on_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_no_character_gets_through() -> None:
    for code in range(0x11_0000):
        char = chr(code)
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            assert plain(char).isascii()
            assert plain(char).startswith("\\")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"bash\0\0\0\0", "bash"),
        (b"bash\0junk\xff", "bash"),
        (b"exactly16bytes!!", "exactly16bytes!!"),
        (b"\0" * 16, ""),
        (b"\xff\x1b[m\0", "\\xff\\x1b[m"),
        ("ü".encode() + b"\0", "ü"),
        # A name cut in the middle of a character.
        ("ü".encode()[:1], "\\xc3"),
    ],
)
def test_comm(raw: bytes, text: str) -> None:
    assert comm(raw) == text


def test_table() -> None:
    rows = [("tcp_ack", "1,234"), ("a\nb\x1b[m", "5")]
    assert table(("FUNCTION", "COUNT"), rows, right=(1,)) == ("FUNCTION      COUNT\ntcp_ack       1,234\na\\x0ab\\x1b[m      5")
    assert table(("A", "B"), []) == "A  B"
    # Nothing stands behind the last column.
    assert table(("A", "LONG"), [("x", "y")]) == "A  LONG\nx  y"


def test_json_line() -> None:
    row = {"function": "a\nb\x1b\u202e\udcff", "module": None, "count": 1}
    line = json_line(row)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == row
    assert json_line({"a": [1, True]}) == '{"a":[1,true]}'


def test_count_of() -> None:
    assert count_of(1, "function") == "1 function"
    assert count_of(0, "function") == "0 functions"
    assert count_of(1234, "recursion miss") == "1,234 recursion misses"
    assert count_of(1, "child process") == "1 child process"
