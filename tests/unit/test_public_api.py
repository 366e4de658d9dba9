"""The public API: these names and no others. Whoever changes one changes it for all who use rawkm."""

from __future__ import annotations

import pytest

import rawkm
import rawkm.asm

RAWKM = """
    AssembleError AttachError AttachType BTFError Batch DisassembleError Helper Kernel KprobeMultiLink
    Map MapFlag MapSpec MapType NotSupportedError PerfBuf ProgType Program ProgramSpec RawkmError RingBuf
    RingCorrupt Schema SchemaError SymbolError SyscallError Target Targets UsageError VerifierError
    attach_kprobe attach_kprobe_multi attach_kprobe_session attach_raw_tracepoint attach_tracepoint
    attach_tracing attach_tracing_multi find_targets open_kernel
"""

ASM = """
    B H W DW Size R0 R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 R11 Reg
    Add Add32 And And32 Arsh Arsh32 Div Div32 Lsh Lsh32 Mod Mod32 Mov Mov32 Mul Mul32 Neg Neg32
    Or Or32 Rsh Rsh32 SDiv SDiv32 SMod SMod32 Sub Sub32 Xor Xor32 bswap to_be to_le
    Ja Gotol JEq JEq32 JGe JGe32 JGt JGt32 JLe JLe32 JLt JLt32 JNe JNe32
    JSGe JSGe32 JSGt JSGt32 JSLe JSLe32 JSLt JSLt32 JSet JSet32 MayGoto call call_sub callx gotox exit_ kfunc
    Helper Label label
    load load_signed load_acquire load_abs load_ind store store_imm store_release ld_imm64
    atomic_add atomic_and atomic_or atomic_xor atomic_xchg atomic_cmpxchg
    map_ptr map_value map_idx map_idx_value func_ptr ksym addr_space_cast
    Insn Item encode decode locate map_refs
    MapDecl Source format format_insn parse parse_file Finding lint
"""


def test_rawkm() -> None:
    assert sorted(rawkm.__all__) == sorted(RAWKM.split())


def test_asm() -> None:
    assert sorted(rawkm.asm.__all__) == sorted(ASM.split())


@pytest.mark.parametrize("name", RAWKM.split())
def test_each_name_is_there(name: str) -> None:
    assert getattr(rawkm, name) is not None


@pytest.mark.parametrize("name", ASM.split())
def test_each_name_of_asm_is_there(name: str) -> None:
    assert getattr(rawkm.asm, name) is not None


def test_other_names_are_not() -> None:
    name = "nosuch"
    with pytest.raises(AttributeError, match="'rawkm' has no attribute 'nosuch'"):
        getattr(rawkm, name)
    with pytest.raises(AttributeError):
        getattr(rawkm.asm, name)


def test_what_is_written_for_type_checkers_is_what_there_is() -> None:
    """``import rawkm`` is lazy: the names are given twice, and must agree."""
    import ast

    with open(rawkm.__file__ or "") as file:
        tree = ast.parse(file.read())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.asname: (node.module.removeprefix("rawkm."), alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
        if alias.asname is not None
    }
    assert typed == rawkm._WHERE
