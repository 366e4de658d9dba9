"""Recordings of system calls (``.rkm``): what was sent, what came back, and everything else that a run depended on.

Format, version 1: JSON Lines (RFC 8259, one object to a line, UTF-8, no bytes beyond ASCII), each with its type under "t". A
reader passes over types and keys that it does not know.

``{"t":"head","rkm":1, …}``: the first line. "kind": "run" (a rawkm command; can be verified), "audit" (other programs' calls) or
"calls" (calls without a run, such as a fuzzer's); "argv" (of the command, without its own --record), "tool", "kernel" (release),
"machine", "order" ("little" or "big": of all bytes in the file), "page" (size in bytes), "redacted".

``{"t":"call", …}``: one system call, in the order of their ends. All keys but "name" may be missing, and then mean 0, "" or {}.

    "name"      "bpf", "perf_event_open", "ioctl", "openat", …
    "pid","tid" who made it (process and thread), where that is not the recorded rawkm itself
    "cmd"       of bpf: the command's number as passed (with BPF_COMMON_ATTRS, if so)
    "size"      of bpf: the attr's size as passed
    "attr"      hexadecimal: the attr's bytes as sent, addresses included (bpf, perf_event_open)
    "common"    hexadecimal: of bpf's five-argument form the struct bpf_common_attr as sent; "common_size" as passed
    "args"      the other arguments: name → value (a fd as its number)
    "mem"       pointer's path → CONTENT: what it pointed to before the call; NULL pointers are left out
    "fds"       place → name: what a number stands for: {"link_create.prog_fd": "prog#1", "insns@4": "map#2"}. A place is a field
                of the attr, an argument, or PATH@OFFSET: 32 bits in what the pointer PATH points to
    "after"     hexadecimal: the attr as the kernel left it, where it differs; "common_after" likewise
    "out"       pointer's path → CONTENT: what the call changed in memory: what it holds now
    "ret"       the result; "errno" is not 0 where the call failed, and then "ret" is -1
    "makes"     the name of the fd that is the result: "map#1", "prog#1", "link#1", "btf#1", "event#1", "file#1", …
    "value"     what else came back: the bytes of a read as CONTENT, the names in a directory, …
    "info"      of OBJ_GET_INFO_BY_FD, where the caller said so: the name of the struct, as `rawkm abi show` has it
    "s"         seconds that it took
    "note"      something that the arguments do not show

    Paths are the UAPI's, dotted, from the top of the union; of a struct behind a pointer they go on behind the pointer's own:
    "info.info.map_ids". Those of perf_event_open are of struct perf_event_attr.

``{"t":"seam", …}``: with the same keys, something that is no system call of its own but that the run depended on: an access to
mapped memory ("load", "store", "read"; "begin" and "fill": before and after it was filled), a clock, a signal, a child's end.

``{"t":"blob","id":ID,"size":N, "text"|"hex"|"z":…}``: bytes stored once, before their first use. "text": ASCII; "z":
zlib-compressed, base64.

``{"t":"task","pid":P,"parent":Q,"comm":…}``: of an audit, a process or thread seen for the first time.

``{"t":"end","status":N,"out":CONTENT,"err":CONTENT}``: of a run, its exit status and what it printed. Missing when it was killed.

CONTENT is ``{"hex":…}``, ``{"text":…}`` (ASCII) or ``{"ref":ID}`` for bytes; ``{"strings":[…]}`` for an array of C strings (each
text, or {"hex"}), ``{"strings_ref":ID}`` the same, each ended by a NUL; ``{"error":"EFAULT"}`` for what could not be read;
``{"left_out":N}`` for N bytes left out by --redact. With "at": the address; "size": how long it was, where its end is missing.

Pure: bytes in, bytes out. ``Writer`` writes, ``Reader`` reads; both deal in ``Call``.
"""

from __future__ import annotations

from rawkm.recording.call import Call, Fd, Pointee
from rawkm.recording.header import Header
from rawkm.recording.reader import Reader
from rawkm.recording.writer import Writer

__all__ = ["Call", "Fd", "Header", "Pointee", "Reader", "Writer"]
