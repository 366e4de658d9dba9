"""The reader of ELF objects against llvm-objdump, and lint against this kernel's verifier, on compiled programs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from rawkm import asm
from rawkm.asm import Insn, Item
from rawkm.asm.elf import Object
from rawkm.asm.script import script
from rawkm.asm.text import with_labels
from rawkm.errors import RawkmError
from rawkm.maps import MapSpec
from rawkm.prog import ProgramSpec
from rawkm.programs.written import SECTIONS, type_name
from rawkm.syscall import open_kernel
from rawkm.uapi.constants import MapType, ProgType
from tests.oracle.corpus import sections


def objdump(path: Path, *options: str) -> str:
    return subprocess.run(["llvm-objdump-19", *options, str(path)], check=True, capture_output=True, text=True).stdout


def parts(text: str, head: str) -> dict[str, list[str]]:
    """The lines below each heading, by the name in the heading."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if named := re.fullmatch(head, line):
            lines = found.setdefault(named[1], [])
        elif line:
            lines.append(line)
    return found


def test_code_functions_and_relocations(objects: list[Path]) -> None:
    notes = 0
    for path in objects:
        data = path.read_bytes()
        read = Object(data)
        assert [code.raw for code in read.code] == sections(data)
        shown = parts(objdump(path, "-d", "-z", "--no-show-raw-insn"), r"Disassembly of section (.*):")
        relocated = parts(objdump(path, "-r"), r"RELOCATION RECORDS FOR \[(.*)\]:")
        assert [code.name for code in read.code] == list(shown), path
        for code in read.code:
            heads = [re.fullmatch(r"([0-9a-f]{16}) <(.*)>:", line) for line in shown[code.name]]
            theirs = {(int(head[1], 16) // 8, head[2]) for head in heads if head and not head[2].startswith("LBB")}
            # Of several names for one place llvm-objdump shows one.
            assert theirs <= set(code.functions), path
            assert {slot for slot, _ in theirs} == {slot for slot, _ in code.functions}, path
            rows = [line.split() for line in relocated.get(code.name, ()) if line.split()[1] in ("R_BPF_64_64", "R_BPF_64_32")]
            assert {int(row[0], 16) // 8 for row in rows} == set(code.notes), path
            for at, _, value in rows:
                note = code.notes[int(at, 16) // 8]
                # llvm-objdump gives a section and leaves the place in it to the reader.
                assert note == value or value in note, (path, note, value)
            notes += len(rows)
    assert notes > 1500


def test_what_is_shown_of_an_object_is_taken_back(objects: list[Path]) -> None:
    for path in objects:
        for code in Object(path.read_bytes()).code:
            assert asm.encode(asm.parse(code.listing()), byteorder="little") == code.raw
            items = code.items()
            maps = dict.fromkeys(names(items), 0)
            raw = asm.encode(items, maps=maps)
            text = asm.format(items, labels=True, helpers=True)
            assert asm.encode(asm.parse(text), maps=maps) == raw, path


def test_what_is_shown_as_python_makes_the_same(objects: list[Path]) -> None:
    for path in objects[::8]:  # Python takes its time to read long lists
        items = with_labels(Object(path.read_bytes()).code[0].items())
        maps = dict.fromkeys(names(items), 0)
        made: dict[str, object] = {}
        exec(script(items), made)
        assert asm.encode(made["program"], maps=maps) == asm.encode(items, maps=maps), path  # type: ignore[arg-type]


def names(items: list[Item]) -> list[str]:
    """The maps that a program refers to."""
    return [item.symbol_name for item in items if isinstance(item, Insn) and item.symbol_name is not None]


def loadable(read: Object, items: list[Item]) -> list[Item]:
    """The program with a map for each name: data as a loader makes it, any other as a hash of large values."""
    specs: dict[str, MapSpec] = {}
    found: list[Item] = []
    for item in items:
        if isinstance(item, Insn) and item.symbol_name is not None:
            name = item.symbol_name
            if name not in specs:
                short = f"m{len(specs)}"
                size = max(len(read.content(name)), 4096)
                specs[name] = (
                    MapSpec(short, MapType.ARRAY, key=4, value=size, max_entries=1)
                    if name.startswith(".")
                    else MapSpec(short, MapType.HASH, key=4, value=256, max_entries=16)
                )
            item = Insn(item.opcode, dst=item.dst, src=item.src, imm=item.imm, symbol=specs[name])  # noqa: PLW2901
        found.append(item)
    return found


def test_lint_has_no_error_for_what_the_verifier_takes(objects: list[Path]) -> None:
    """As the type that the section names, else as a socket filter."""
    kernel = open_kernel()
    taken = 0
    seen: set[bytes] = set()
    for path in objects:
        read = Object(path.read_bytes())
        for code in read.code:
            items = with_labels(code.items())
            if code.raw in seen or any(isinstance(item, Insn) and item.raw for item in items):
                continue  # a loader has yet to bring another section along
            seen.add(code.raw)
            kind = code.name.partition("/")[0]
            type, attach_type = SECTIONS.get(kind, (ProgType.SOCKET_FILTER, 0))
            program = loadable(read, items)
            try:
                ProgramSpec("corpus", type, attach_type=attach_type, insns=program).load(kernel).close()
            except RawkmError:
                continue
            taken += 1
            wrong = [str(finding) for finding in asm.lint(program, type=type_name(type)) if finding.level == "error"]
            assert not wrong, (path, code.name, wrong)
    print(f"\n{taken} compiled programs that this kernel takes, none of which lint refuses")
    assert taken >= 30
