"""The tree of exceptions: who is whose kind, what they carry, and what they say."""

from __future__ import annotations

import errno

import pytest

from rawkm import errors
from rawkm.errors import (
    AssembleError,
    AttachError,
    Culprit,
    NotSupportedError,
    RawkmError,
    SchemaError,
    SyscallError,
    UsageError,
    VerifierError,
    errno_name,
)

LOG = """\
func#0 @0
0: R1=ctx() R10=fp0
0: (79) r0 = *(u64 *)(r2 +0)
R2 !read_ok
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


@pytest.mark.parametrize("name", errors.__all__)
def test_one_tree(name: str) -> None:
    kind = getattr(errors, name)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        assert issubclass(kind, RawkmError)


def test_kinds() -> None:
    assert issubclass(SyscallError, OSError)
    assert issubclass(VerifierError, SyscallError)
    assert issubclass(AttachError, SyscallError)
    assert issubclass(UsageError, ValueError)
    assert issubclass(SchemaError, UsageError)


@pytest.mark.parametrize(
    ("number", "name"),
    [(errno.ESRCH, "ESRCH"), (errno.EOPNOTSUPP, "EOPNOTSUPP"), (524, "ENOTSUPP"), (4242, "errno 4242")],
)
def test_errno_names(number: int, name: str) -> None:
    assert errno_name(number) == name


def test_syscall_error() -> None:
    err = SyscallError("bpf(BPF_MAP_CREATE)", errno.EPERM, attr=b"abc")
    assert (err.errno, err.call, err.attr, err.attr_after, err.hint) == (errno.EPERM, "bpf(BPF_MAP_CREATE)", b"abc", b"abc", "")
    assert str(err) == "bpf(BPF_MAP_CREATE) was refused with EPERM"
    err.hint = "CAP_BPF is missing"
    assert str(err) == "bpf(BPF_MAP_CREATE) was refused with EPERM: CAP_BPF is missing"
    assert SyscallError("x", 1, attr=b"a", attr_after=b"b").attr_after == b"b"
    assert str(SyscallError("bpf(BPF_X)", 524)) == "bpf(BPF_X) was refused with ENOTSUPP"


def test_syscall_error_is_an_os_error_to_everybody_else() -> None:
    with pytest.raises(OSError, match="EBADF") as caught:
        raise SyscallError("close", errno.EBADF)
    assert caught.value.errno == errno.EBADF


def test_verifier_error_says_what_and_where() -> None:
    text = "r0 = *(u64 *)(r2 + 0x0)"
    err = VerifierError(errno.EACCES, log=LOG, attr=b"x", insn_index=0, insn=text, src_loc=("prog.py", 12))
    assert str(err) == f"prog.py:12: bpf(BPF_PROG_LOAD) was refused with EACCES at instruction 0, {text}: R2 !read_ok"
    assert err.log == LOG
    bare = VerifierError(errno.EINVAL, log="")
    assert str(bare) == "bpf(BPF_PROG_LOAD) was refused with EINVAL"
    assert str(VerifierError(errno.EINVAL, log=LOG, insn_index=0)) == (
        "bpf(BPF_PROG_LOAD) was refused with EINVAL at instruction 0: R2 !read_ok"
    )


def test_a_complaint_of_two_lines() -> None:
    log = LOG.replace("R2 !read_ok", "invalid access to map value, value_size=8 off=8 size=8\nR0 min value is outside")
    assert str(VerifierError(errno.EACCES, log=log)).endswith(
        "EACCES: invalid access to map value, value_size=8 off=8 size=8; R0 min value is outside"
    )


def test_attach_error() -> None:
    culprits = [Culprit("tcp_nope", errno.ESRCH, "no such function")]
    err = AttachError("bpf(BPF_LINK_CREATE)", errno.ESRCH, hint="a name is unknown", backend="kprobe-multi", culprits=culprits)
    assert err.culprits == tuple(culprits)
    assert err.tried == ()
    assert str(culprits[0]) == "tcp_nope: ESRCH, no such function"
    assert repr(culprits[0]) == "Culprit('tcp_nope', ESRCH, 'no such function')"
    assert "ESRCH: a name is unknown" in str(err)


def test_not_supported() -> None:
    err = NotSupportedError("kprobe_multi", "LINK_CREATE → EOPNOTSUPP", help="use another kernel")
    assert str(err) == "kprobe_multi: LINK_CREATE → EOPNOTSUPP; use another kernel"
    assert str(NotSupportedError("f", "e")) == "f: e"


def test_located() -> None:
    assert str(AssembleError("bad", src_loc=("a.py", 3))) == "a.py:3: bad"
    assert str(AssembleError("bad")) == "bad"
