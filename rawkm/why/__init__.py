"""Why the kernel refused a call of bpf(2): which fields it is about, found by making the call again with small changes.

    calls = list(Reader(file).calls())
    print(explain(kernel, calls, refused(calls)[-1]))

scenario re-creates what the call takes (maps, programs, …) from the recording and makes it; changes says what may be tried;
search tries it; answer is what comes of it. The rules of rawkm.rules say which check it was.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.recording import Call
    from rawkm.syscall.kernel import Kernel
    from rawkm.why.answer import Answer

__all__ = ["explain", "refused"]


def refused(calls: Sequence[Call]) -> list[Call]:
    """The calls of bpf(2) that the kernel refused, in their order."""
    return [call for call in calls if call.name == "bpf" and call.errno]


def explain(kernel: Kernel, calls: Sequence[Call], call: Call, *, held: int | None = None) -> Answer:
    """Why ``call``, one of ``calls``, was refused. Makes calls, which leave nothing behind.

    ``held``: the effective capabilities of the process that made it, as a bit mask, where they are known.

    Raises UsageError for a call that was not refused, or is none of bpf(2).
    """
    from rawkm.why.search import Search

    return Search(kernel, calls, call, held).answer()
