"""`rawkm why` in a guest: the refusals that take kprobe_multi, privileges that are missing, limits."""

from __future__ import annotations

import json
import re
from typing import Any

from rawkm.host.facts import release

from ..lib import Done, nobody, rawkm, root_without

REFUSE = ["python3", "-m", "tests.witnesses.refuse"]
MULTI = release() >= (6, 12)

# kind: (the errno, words of the answer, the change that helps: field and value)
LINKS = {
    "attach_type": (
        "EINVAL",
        r"attach_type must equal the program's expected_attach_type \(47 = BPF_TCX_EGRESS\)",
        "expected_attach_type",
        "42 (BPF_TRACE_KPROBE_MULTI)",
    ),
    "symbol": (
        "ESRCH",
        r"every symbol must be a function that can be traced \('no_such_function' is none\)",
        "syms[2]",
        "left out",
    ),
    "symbols": ("ESRCH", r"\('', 'no_such_function' are none\)", "syms[1, 3]", "left out"),
    "twice": ("ESRCH", "no symbol may stand in the list twice", "syms[2, 3]", "left out"),
    "both": ("EINVAL", "syms and addrs exclude each other", "link_create.kprobe_multi.addrs", "NULL"),
    "cnt": ("EINVAL", "cnt must not be 0", "link_create.kprobe_multi.cnt", "1"),
    "link_flags": ("EINVAL", "flags must be 0", "link_create.flags", "0"),
}
OTHERS = {
    "beyond": ("E2BIG", "newer than this kernel", "byte 500", "0"),
    "inside": ("EINVAL", "behind the command's last field", "byte 40", "0"),
    "closed": ("EBADF", "map_fd must be an open fd", "", ""),
    "kind": ("EINVAL", "map_fd must be the fd of a map", "", ""),
    "key_size": ("EINVAL", "key_size must not be 0", "key_size", "4"),
    "log": ("EINVAL", r"log", "log_level", "1"),
    "map_flags": ("EINVAL", "map_flags has a bit", "map_flags", "BPF_F_MMAPABLE"),
    "info_len": ("E2BIG", "bytes of the info struct beyond", "bytes 290 to 299 of info.info", "0"),
    "prog_flags": ("EINVAL", "prog_flags has a bit", "prog_flags", "0"),
    "verifier": ("EACCES", "the verifier says: R0 !read_ok", "", ""),
}
KINDS = {**(LINKS if MULTI else {}), **OTHERS}


def rows(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]


def test_refused_calls() -> None:
    done = rawkm("why", "--all", "--json", "--", "sh", "-c", f"{' '.join(REFUSE)} {' '.join(KINDS)} >&2", timeout=240)
    found = rows(done)
    assert len(found) == len(KINDS), done
    for (kind, (errno, words, field, now)), answer in zip(KINDS.items(), found, strict=True):
        assert answer["errno"] == errno, (kind, answer)
        assert re.search(words, answer["answer"]), (kind, answer)
        if field:
            first = answer["findings"][0]
            # Where cnt was 0, nobody saw the symbols.
            assert first["accepted"] or (kind == "cnt" and first["errno"] == "ESRCH"), (kind, answer)
            (change,) = first["changes"]
            assert change["field"].endswith(field) and change["now"] == now, (kind, answer)


def test_a_capability_that_is_missing() -> None:
    """To the command alone, or to rawkm as well."""
    load = ["sh", "-c", f"{' '.join(REFUSE)} capable >&2"]
    (answer,) = rows(rawkm("why", "--json", "--", *root_without("perfmon", "sys_admin"), *load, timeout=240))
    assert answer["errno"] == "EPERM"
    assert answer["missing"] == "CAP_PERFMON"
    assert answer["rule"]["name"] == "prog_load.perfmon"
    (answer,) = rows(rawkm("why", "--json", "--", *load, prefix=nobody("bpf"), timeout=240))
    assert answer["rule"]["name"] == "prog_load.perfmon"
    assert "this process does not have CAP_PERFMON" in answer["answer"]


if release() < (5, 11):

    def test_the_limit_of_old_kernels() -> None:
        """RLIMIT_MEMLOCK counts, and is named."""
        command = ["sh", "-c", f"ulimit -l 64; {' '.join(REFUSE)} memlock >&2"]
        (answer,) = rows(rawkm("why", "--json", "--", *command, timeout=240))
        assert answer["errno"] == "EPERM"
        assert "RLIMIT_MEMLOCK" in answer["answer"]
