"""rawkm abi: its command line, its forms, and what it says. The kernel is a directory of files here."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from rawkm.btf.build import Builder
from rawkm.cli import abi_cmd
from rawkm.errors import BTFError, NotSupportedError, SyscallError, UsageError
from rawkm.uapi import layouts, show, tables

ROOT = Path(__file__).resolve().parents[2]


class Files:
    """The calls of a Kernel that `abi` makes."""

    def __init__(self, **files: bytes) -> None:
        self.files = files

    def read_file(self, path: str) -> bytes:
        if path not in self.files:
            raise SyscallError("openat", 2)
        return self.files[path]

    def read_stdin(self) -> bytes:
        return sys.stdin.buffer.read()


def abi(*argv: str, **files: bytes) -> int:
    return abi_cmd.run(abi_cmd.parse(argv), cast(Any, Files(**files)))


def small_kernel(*members: tuple[str, int]) -> bytes:
    """BTF of a kernel with these 4-byte members of union bpf_attr."""
    b = Builder()
    u32 = b.integer("unsigned int", 4)
    inner = b.composite("", 8, [(name, u32, at * 8, 0) for name, at in members])
    b.composite("bpf_attr", 8, [("", inner, 0, 0)], union=True)
    return b.build()


# -- show ----------------------------------------------------------------------------------------------------


def test_show_json_is_every_field_of_the_union(capsys: pytest.CaptureFixture[str]) -> None:
    assert abi("show", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(list(row) == ["command", "variant", "path", "offset", "size", "kind", "since"] for row in rows)
    assert len({(row["command"], row["variant"], row["path"]) for row in rows}) == len(rows)
    assert len({row["command"] for row in rows}) == 39
    places = {path: (offset, size) for group in tables.ATTR for path, offset, size, _ in group}
    assert {row["path"]: (row["offset"], row["size"]) for row in rows} == places
    (cnt,) = [row for row in rows if row["path"] == "link_create.kprobe_multi.cnt"]
    assert cnt == {
        "command": "LINK_CREATE",
        "variant": "kprobe_multi",
        "path": "link_create.kprobe_multi.cnt",
        "offset": 20,
        "size": 4,
        "kind": "count",
        "since": "5.18",
    }


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("MAP_FREEZE", ["map_freeze"]),
        ("bpf_map_freeze", ["map_freeze"]),
        ("22", ["map_freeze"]),
        ("link_create.tcx", ["link_create.tcx"]),
        ("LINK_CREATE.tcx", ["link_create.tcx"]),
        ("LINK_CREATE", [d.name for d in layouts.DEFINITIONS if d.command == "LINK_CREATE"]),
        ("link_info", [d.name for d in layouts.DEFINITIONS if d.command == "link_info"]),
        ("link_info.xdp", ["link_info.xdp"]),
        ("prog_info", ["prog_info"]),
    ],
)
def test_what_show_shows(what: str, found: list[str]) -> None:
    assert [definition.name for definition in show.select(what)] == found


def test_show_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert abi("show", "MAP_FREEZE") == 0
    lines = [line.split(maxsplit=5) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["MAP_FREEZE", "(command", "22):", "32", "bytes"]
    assert lines[2] == ["map_fd", "0", "4", "u32", "5.2", "fd"]
    assert lines[3] == ["(hole)", "4", "4"]
    assert lines[5][5] == "pointer, read: bytes; not of this command: must be 0"
    assert lines[6][:5] == ["next_key", "16", "8", "u64", "5.2"]
    assert lines[6][5] == "the same place as value"
    assert abi("show") == 0
    assert "common_attr, prog_info" in capsys.readouterr().out


def test_show_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert abi("show", "ENABLE_STATS", "--markdown") == 0
    assert capsys.readouterr().out.splitlines() == [
        "### ENABLE_STATS (command 32): 4 bytes",
        "",
        "| field | offset | size | type | since | meaning |",
        "|---|---:|---:|---|---|---|",
        "| enable_stats.type | 0 | 4 | u32 | 5.8 | enum: BPF_STATS_... |",
    ]


def test_show_c_has_the_members_at_their_places(tmp_path: Path) -> None:
    definitions = [*show.select(None), *(d for name in layouts.STRUCTS for d in show.select(name))]
    lines = ["#include <stddef.h>", "#include <linux/types.h>", show.as_c(definitions)]
    for d in definitions:
        tag = ("bpf_attr_" if d.cmd >= 0 else "rawkm_") + d.name.replace(".", "_")
        lines.append(f'_Static_assert(sizeof(struct {tag}) == {d.size}, "{d.name}");')
        for path in d.fields:
            at, size = d.offset(path)
            lines.append(f'_Static_assert(offsetof(struct {tag}, {path}) == {at}, "{d.name} {path}");')
            lines.append(f'_Static_assert(sizeof(((struct {tag} *)0)->{path}) == {size}, "{d.name} {path}");')
    source = tmp_path / "show.c"
    source.write_text("\n".join(lines) + "\n")
    done = subprocess.run(["cc", "-Wall", "-Werror", "-fsyntax-only", str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- check and diff ------------------------------------------------------------------------------------------


def test_check_says_what_is_wrong_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert abi("check", "--btf", "new", new=small_kernel(("map_type", 0), ("key_size", 4))) == 0
    out = capsys.readouterr().out
    assert "  link_create.kprobe_multi.cnt (since Linux 5.18)\n" in out
    assert out.splitlines()[-1].startswith("2 members and 0 enumerators agree; 0 wrong, ")
    assert abi("check", "--btf", "new", new=small_kernel(("map_type", 4), ("key_size", 0))) == 1
    out = capsys.readouterr().out
    assert "wrong, union bpf_attr:\n  map_type: at 0, 4 bytes in rawkm's tables, at 4, 4 bytes in the kernel\n  key_size: " in out


def test_check_json(capsys: pytest.CaptureFixture[str]) -> None:
    files = {"/sys/kernel/btf/vmlinux": small_kernel(("map_type", 0), ("brew", 4))}
    assert abi("check", "--json", **files) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["type"], report["btf"], report["wrong"]) == ("abi_check", "/sys/kernel/btf/vmlinux", 1)
    (wrong,) = [f for f in report["findings"] if f["state"] == "wrong"]
    assert (wrong["name"], wrong["ours"], wrong["theirs"]) == ("key_size", [4, 4], None)
    assert [f["name"] for f in report["findings"] if f["state"] == "newer here"] == ["brew"]


def test_diff_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    files = {"a": small_kernel(("map_type", 0)), "b": small_kernel(("map_type", 4), ("key_size", 0))}
    assert abi("diff", "a", "b", **files) == 0
    assert capsys.readouterr().out.splitlines() == [
        "union bpf_attr:",
        "  ~ map_type at 0, 4 bytes -> at 4, 4 bytes",
        "  + key_size at 0, 4 bytes",
    ]
    assert abi("diff", "b", "a", "--json", **files) == 0
    assert json.loads(capsys.readouterr().out)[1] == {
        "where": "union bpf_attr",
        "name": "key_size",
        "before": [0, 4],
        "after": None,
    }
    assert abi("diff", "a", "a", **files) == 0
    assert capsys.readouterr().out.startswith("no difference")


def test_files_that_are_no_btf() -> None:
    with pytest.raises(BTFError, match="f: not BTF data"):
        abi("check", "--btf", "f", f=b"\x7fELF" + bytes(60))
    with pytest.raises(SyscallError):
        abi("check", "--btf", "nowhere")
    with pytest.raises(NotSupportedError, match=r"the kernel's BTF: .*ENOENT; --btf FILE takes"):
        abi("check")


# -- decode --------------------------------------------------------------------------------------------------

FREEZE = struct.pack("=II", 3, 7)


@pytest.mark.parametrize(
    ("text", "files"),
    [
        (FREEZE.hex(), {}),
        (FREEZE.hex(" "), {}),
        (" ".join(f"0x{byte:02x}," for byte in FREEZE), {}),
        ('"' + "".join(f"\\x{byte:02x}" for byte in FREEZE) + '"', {}),
        ("attr.bin", {"attr.bin": FREEZE}),
        ("attr.txt", {"attr.txt": FREEZE.hex(" ", 4).encode() + b"\n"}),
    ],
)
def test_decode(text: str, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    assert abi("decode", "--cmd", "MAP_FREEZE", text, **files) == 0
    first, *rows, line = capsys.readouterr().out.splitlines()
    assert first == "BPF_MAP_FREEZE: 8 bytes"
    assert rows[0].split() == ["0", *f"{FREEZE[:4].hex(' ')}".split(), "map_fd", "=", "3"]
    assert rows[1].split()[5:8] == ["(hole", "at", "4)"]
    assert line.startswith("{map_fd=3, extra_data=")


def test_decode_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FREEZE)))
    assert abi("decode", "--cmd", "22", "-") == 0
    assert "BPF_MAP_FREEZE: 8 bytes" in capsys.readouterr().out


def test_decode_json(capsys: pytest.CaptureFixture[str]) -> None:
    data = struct.pack("=IIIIIII16s", 2, 4, 8, 3, 0, 0, 0, b"counts").ljust(92, b"\0") + b"\0\7"
    assert abi("decode", "--json", "--cmd", "MAP_CREATE", data.hex()) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["command"], found["variant"], found["size"]) == ("MAP_CREATE", "", 94)
    assert found["values"]["map_name"] == (b"counts" + bytes(10)).hex()
    assert found["uncovered"] == {"93": "07"}


def test_decode_structs(capsys: pytest.CaptureFixture[str]) -> None:
    assert abi("decode", "--cmd", "link_info", struct.pack("=IIII", 8, 3, 4, 0).hex()) == 0
    assert capsys.readouterr().out.startswith("link_info, kprobe_multi: 16 bytes\n")
    assert abi("decode", "--cmd", "LINK_CREATE", "") == 0
    assert capsys.readouterr().out == "BPF_LINK_CREATE, cgroup: 0 bytes\n{}\n"


def test_what_is_decoded_cannot_act_upon_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert abi("decode", "--cmd", "MAP_CREATE", (bytes(28) + b"\x1b[2J\n\x80").hex()) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


# -- the command line ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the following arguments are required"),
        ("frobnicate", "invalid choice: 'frobnicate'"),
        ("show a b", "unrecognized arguments: b"),
        ("show nope", "there is no command 'nope'"),
        ("show LINK_CREAT", "did you mean LINK_CREATE"),
        ("show --json --c", "not allowed with"),
        ("check FILE", "unrecognized arguments"),
        ("diff a", "required: BTF_B"),
        ("decode 00", "required: --cmd"),
        ("decode --cmd NOPE 00", "there is no command 'NOPE'"),
        ("decode --cmd 39 00", "no layout of bpf command 39"),
        ("decode --cmd link_info.nope 00", "no layout is named"),
        ("decode --cm MAP_FREEZE 00", "required: --cmd"),
    ],
)
def test_wrong_usage(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        abi(*line.split())
    assert message in str(caught.value)


@pytest.mark.parametrize("line", ["--explain check", "check --explain"])
def test_the_options_of_all_commands_stand_anywhere(line: str) -> None:
    assert abi_cmd.parse(line.split()).explain is True
    assert abi_cmd.parse(["check"]).explain is False


@pytest.mark.parametrize("action", [[], ["show"], ["check"], ["diff"], ["decode"]])
def test_help(action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        abi_cmd.parse([*action, "--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: {' '.join(['rawkm abi', *action])} ")
    assert "--explain" in out
    assert ("examples:" in out) == (not action)


# -- rules ---------------------------------------------------------------------------------------------------


def test_rules_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert abi("rules", "map_freeze", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    by_name = {row["name"]: row for row in rows}
    assert {row["command"] for row in rows} == {None, "MAP_FREEZE"}
    assert by_name["map_freeze.twice"] == {
        "name": "map_freeze.twice",
        "command": "MAP_FREEZE",
        "fields": ["map_fd"],
        "errno": ["EBUSY"],
        "text": "a map can be frozen once",
        "source": "map_freeze",
        "since": None,
        "until": "6.2",
        "unseen": None,
    }
    assert abi("rules", "22") == 0
    assert "map_freeze.twice" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no command"):
        abi("rules", "MAP_FREEZ")
