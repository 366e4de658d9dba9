"""Every offset, size and constant, against the C headers and against kernels' own BTF.

The headers: the system's, and the newest kernel's ($RAWKM_UAPI_HEADERS, or what tools/vm has of 7.2). The
kernels: the running one, and those whose BTF files $RAWKM_BTF_FILES lists, separated by colons. A field that
a header or kernel does not have yet is listed (run with -rA), not wrong; a field that it has must agree.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rawkm.btf import ENUM, ENUM64, Btf
from rawkm.errors import BTFError
from rawkm.uapi import constants, layouts, names, tables
from rawkm.uapi.constants import PerfAttrFlag
from rawkm.uapi.fields import Definition, Member, c_name

ROOT = Path(__file__).resolve().parents[2]
RUNNING = Path("/sys/kernel/btf/vmlinux")
BTF_FILES = [RUNNING, *(Path(p) for p in os.environ.get("RAWKM_BTF_FILES", "").split(":") if p)]
FLAGS_OFFSET = 40  # of the word of bit-fields in perf_event_attr


def c_type(definition: Definition) -> str:
    if definition.cmd >= 0:
        return "union bpf_attr"
    return f"struct {c_name(definition.command)}"


def fields() -> list[tuple[Definition, Member, str, str]]:
    """Each field under each of its names, with their first kernel, but for two words that are bit-fields in C."""
    return [
        (definition, member, path, since)
        for definition in layouts.DEFINITIONS
        for member in definition.members
        for path, since in ((member.path, member.since), *member.also.items())
        if member.role.kind != "hole" and not is_bit_fields(definition, member)
    ]


def is_bit_fields(definition: Definition, member: Member) -> bool:
    return (definition.command, member.path) in (("perf_event_attr", "flags"), ("prog_info", "gpl_compatible"))


# -- C -------------------------------------------------------------------------------------------------------


def newest_headers() -> Path:
    path = Path(os.environ.get("RAWKM_UAPI_HEADERS", ""))
    if path == Path():
        command = [str(ROOT / "tools" / "vm"), "path", "-k", "7.2", "headers"]
        path = Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])
    found = [p for p in (path, path / "include", path / "usr" / "include") if (p / "linux" / "bpf.h").is_file()]
    assert found, path
    return found[0]


def version(include: Path) -> list[int]:
    """[major, minor] of the kernel that the headers are of."""
    code = re.findall(r"LINUX_VERSION_CODE (\d+)", (include / "linux" / "version.h").read_text())
    return [int(code[0]) >> 16, int(code[0]) >> 8 & 0xFF]


def compile_c(scratch: Path, lines: dict[str, str], include: Path | None) -> tuple[dict[str, list[int]], list[str]]:
    """Run one printf per key; what each printed, and the keys whose line the compiler did not take."""
    triplet = subprocess.run(["cc", "-dumpmachine"], check=True, capture_output=True, text=True).stdout.strip()
    flags = [] if include is None else [f"-I{include}", f"-I{include / triplet.replace('-pc-', '-')}"]
    source, binary = scratch / "show.c", scratch / "show"
    missing: list[str] = []
    for _ in range(3):
        head = [
            "#include <stddef.h>\n#include <stdio.h>\n#include <string.h>",
            "#include <linux/bpf.h>\n#include <linux/perf_event.h>",
            "int main(void) {",
        ]
        body = [f'#line {n} "keys"\n{lines[key]}' for n, key in enumerate(lines, 1) if key not in missing]
        source.write_text("\n".join([*head, *body, "return 0; }"]))
        command = ["cc", "-w", "-fmax-errors=0", *flags, "-o", str(binary), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        keys = list(lines)
        unknown = r"^keys:(\d+):(?:\d+:)? error: .*(?:no member named|undefined type|incomplete type)"
        bad = {keys[int(n) - 1] for n in re.findall(unknown, done.stderr, re.M)}
        assert bad, done.stderr
        missing += sorted(bad)
    printed = subprocess.run([str(binary)], check=True, capture_output=True, text=True).stdout
    found = {}
    for line in printed.splitlines():
        key, *numbers = line.split()
        found[key] = [int(number, 0) for number in numbers]
    return found, missing


@pytest.mark.parametrize("which", ["system", "newest"])
def test_against_c(which: str, tmp_path: Path) -> None:
    include = newest_headers() if which == "newest" else None
    lines = {}
    for definition, _, path, _ in fields():
        t = c_type(definition)
        key = f"{definition.name}:{path}"
        lines[key] = f'printf("{key} %zu %zu\\n", offsetof({t}, {path}), sizeof((({t} *)0)->{path}));'
    for name in names.members(PerfAttrFlag):
        lines[f"flag:{name}"] = (
            f"{{ struct perf_event_attr a; memset(&a, 0, sizeof a); a.{name} = ~0ULL; "
            f'printf("flag:{name} %#llx\\n", *(unsigned long long *)((char *)&a + {FLAGS_OFFSET})); }}'
        )
    lines["gpl_compatible"] = (
        "{ struct bpf_prog_info i; memset(&i, 0, sizeof i); i.gpl_compatible = 1; "
        'printf("gpl_compatible %u\\n", *(unsigned *)((char *)&i + 84)); }'
    )
    for name in layouts.STRUCTS:
        struct = c_name(name)
        lines[f"sizeof:{struct}"] = f'printf("sizeof:{struct} %zu\\n", sizeof(struct {struct}));'
    found, missing = compile_c(tmp_path, lines, include)
    print(f"not in these headers: {missing}")
    if include is not None:
        assert not missing
        # Debian may have a newer kernel by now than the tables were made from: its structs can have grown.
        later = version(include) > [int(part) for part in tables.KERNEL.split(".")[:2]]
        for name in layouts.STRUCTS:
            (size,), ours = found[f"sizeof:{c_name(name)}"], layouts.named(name).size
            assert size == ours or (later and size > ours), name
    assert len(missing) < len(lines) / 3
    for definition, member, path, _ in fields():
        key = f"{definition.name}:{path}"
        assert key in missing or found[key] == [member.offset, member.size], key
    for name, mask in names.members(PerfAttrFlag).items():
        assert f"flag:{name}" in missing or found[f"flag:{name}"] == [mask], name
    assert found["gpl_compatible"][0] != 0
    assert layouts.named("prog_info").offset("gpl_compatible") == (84, 4)


# -- BTF -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=BTF_FILES, ids=lambda path: str(path).strip("/").replace("/", "-"))
def btf(request: pytest.FixtureRequest) -> Btf:
    return Btf(Path(request.param).read_bytes())


def btf_struct(definition: Definition) -> str:
    return c_type(definition).split()[1]


def all_members(btf: Btf) -> dict[str, dict[str, tuple[int, int]]]:
    """C tag → members; none of a struct that the kernel does not have."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for name in {btf_struct(definition) for definition in layouts.DEFINITIONS}:
        try:
            found[name] = btf.flatten(name)
        except BTFError:
            assert name == "bpf_common_attr"
            found[name] = {}
    return found


def test_fields_against_btf(btf: Btf) -> None:
    members = all_members(btf)
    missing, wrong = [], []
    for definition, member, path, since in fields():
        found = members[btf_struct(definition)].get(path)
        if found is None:
            missing.append(f"{definition.name}:{path} ({since})")
        elif found != (member.offset, member.size):
            wrong.append(f"{definition.name}:{path} is at {found}")
    print(f"not in this kernel: {missing}")
    assert not wrong
    assert len(missing) < len(fields()) / 3


def test_what_is_missing_is_newer_than_the_running_kernel() -> None:
    """`since` against the running kernel: a field of an older release has to be there.

    The other direction is not checked: distributions bring fields to older kernels.
    """
    btf = Btf(RUNNING.read_bytes())
    release = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    members = all_members(btf)
    for definition, _, path, since in fields():
        if path not in members[btf_struct(definition)]:
            assert release < tuple(map(int, since.split("."))), f"{definition.name}:{path}"


def test_bit_fields_against_btf(btf: Btf) -> None:
    missing = []
    for name, mask in names.members(PerfAttrFlag).items():
        try:
            place = btf.member("perf_event_attr", name)
        except BTFError:
            missing.append(name)
            continue
        at = place.bit_offset - FLAGS_OFFSET * 8
        low = at if sys.byteorder == "little" else 64 - at - place.bits
        assert mask == ((1 << place.bits) - 1) << low, name
    print(f"not in this kernel: {missing}")
    assert len(missing) < 12
    place = btf.member("bpf_prog_info", "gpl_compatible")
    assert (place.bit_offset, place.bits) == (84 * 8, 1)


def test_no_field_is_forgotten(btf: Btf) -> None:
    """What the kernel has and no definition describes: another command's, or newer than ours."""
    ours: dict[str, set[str]] = {}
    for definition in layouts.DEFINITIONS:
        known = ours.setdefault(btf_struct(definition), set(names.members(PerfAttrFlag)))
        known.update(definition.fields, (alias for alias, _ in definition.aliases))
    unknown = {f"{struct}.{path}" for struct, known in ours.items() for path in all_members(btf)[struct] if path not in known}
    # Reserved bits; bit-fields of words that have a name.
    others = re.compile(r"perf_event_attr\.(__reserved_\d|aux_(start_paused|pause|resume))|perf_event_mmap_page\.cap_\w+")
    left = {path for path in unknown if not others.fullmatch(path)}
    print(f"beyond our definitions: {sorted(left)}")
    assert not left


def test_constants_against_btf(btf: Btf) -> None:
    """Every enumerator that the kernel has has the value that was generated."""
    # Before ENUM64 (6.0) a value of more than 32 bits came out as anything.
    wide = {n: v for id in btf.of_kind(ENUM64) for n, v in btf.enum_values(id).items()}
    narrow = wide | {n: v for id in btf.of_kind(ENUM) for n, v in btf.enum_values(id).items()}
    checked = 0
    for namespace in vars(constants).values():
        if isinstance(namespace, type):
            for name, value in names.members(namespace).items():
                kernel = wide if value >> 32 else narrow
                if name in kernel:
                    assert kernel[name] & (1 << 64) - 1 == value, name
                    checked += 1
    assert checked > 400
    for name in ("BPF_LINK_CREATE", "BPF_MAP_TYPE_RINGBUF", "BPF_TRACE_FENTRY", "BPF_FUNC_ringbuf_output", "PERF_RECORD_SAMPLE"):
        assert name in narrow
