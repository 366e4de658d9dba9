#!/usr/bin/env python3
"""Text and bytes of a long program, both ways, against LLVM's tools on the same program, in one run.

    python3 tools/bench/asm.py [--runs N] [--count INSTRUCTIONS]

Needs llvm-mc-19 and llvm-objdump-19. Two programs of as many instructions (400,000), of every form that LLVM 19
can say:

    distinct  nearly all of them different, as in no program
    program   a tenth of them different, about as in a large object

For each of them, the medians of

    decode + format   against  llvm-objdump -d
    parse + encode    against  llvm-mc -filetype=obj

in processor time, which for LLVM includes its start, and the ratio. Exits with 1 where one is above 8.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rawkm import asm
from rawkm.asm import Insn
from rawkm.asm.opcodes import CALL, GOTOX, LD_IMM64, LOAD_ACQUIRE, STORE_RELEASE, Form, forms

LIMIT = 8
MC = "llvm-mc-19 -arch=bpfel -mcpu=v4 -filetype=obj"
OBJDUMP = "llvm-objdump-19 -d --mcpu=v4"


def has_spelling(form: Form) -> bool:
    """Whether LLVM 19 has one, without labels."""
    return not (
        (form.opcode == CALL and form.src)
        or form.opcode == GOTOX
        or form.imm in (LOAD_ACQUIRE, STORE_RELEASE)
        or "{sum}" in form.text
        or "{hi}" in form.text
        or "gotol" in form.text
    )


def instruction(form: Form, rng: random.Random) -> Insn:
    imm = rng.randrange(-(1 << 31), 1 << 31) if form.imm is None else form.imm
    if form.opcode == LD_IMM64 and form.hi is None:
        imm += rng.randrange(1 << 32) << 32
    elif form.opcode == LD_IMM64:
        imm &= 0xFFFFFFFF
    return Insn(
        form.opcode,
        dst=rng.randrange(10) if form.dst is None else form.dst,
        src=rng.randrange(10) if form.src is None else form.src,
        off=rng.randrange(-(1 << 15), 1 << 15) if form.off is None else form.off,
        imm=imm,
    )


def disassemble(raw: bytes) -> str:
    return asm.format(asm.decode(raw, byteorder="little"))


def assemble(text: str) -> bytes:
    return asm.encode(asm.parse(text), byteorder="little")


def mine(job: Callable[[], object]) -> float:
    start = time.process_time()
    job()
    return time.process_time() - start


def theirs(command: str) -> float:
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    start = used()
    subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL)
    return used() - start


def compare(what: str, job: Callable[[], object], command: str, runs: int) -> bool:
    pairs = [(mine(job), theirs(command)) for _ in range(runs)]
    ours, llvm = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    print(f"  {what:16} {ours:6.2f} s   {command.split()[0]:16} {llvm:6.2f} s   ratio {ours / llvm:5.2f}")
    return ours <= LIMIT * llvm


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", type=int, default=400_000)
    args = parser.parse_args()
    rng = random.Random(1)
    spelled = [form for form in forms() if has_spelling(form)]
    distinct = [instruction(rng.choice(spelled), rng) for _ in range(args.count)]
    few = distinct[: args.count // 10]
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "t.s"), Path(folder, "t.o")
        for name, program in (("distinct", distinct), ("program", [rng.choice(few) for _ in range(args.count)])):
            raw, text = asm.encode(program, byteorder="little"), asm.format(program)
            source.write_text(text)
            subprocess.run([*MC.split(), str(source), "-o", str(out)], check=True)
            assert raw in out.read_bytes(), "llvm-mc makes other bytes"
            print(f"{name}: {len(program)} instructions, {len(set(program))} of them different")
            fine &= compare("decode + format", partial(disassemble, raw), f"{OBJDUMP} {out}", args.runs)
            fine &= compare("parse + encode", partial(assemble, text), f"{MC} {source} -o {out}", args.runs)
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
