"""What a job needs of a mechanism, what a mechanism wants of a job, and what an attach came to."""

from __future__ import annotations

from rawkm.errors import NotSupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from rawkm.answer import Answer
    from rawkm.errors import Culprit
    from rawkm.prog import Program
    from rawkm.programs.context import Context
    from rawkm.syscall.kernel import Kernel
    from rawkm.targets import Target

    class Job(Protocol):
        """``cookies``: whether the program that was loaded last asks for them."""

        kernel: Kernel
        targets: Sequence[Target]
        cookies: bool

        def load(self, context: Context, index: int | None = None) -> Program:
            """The job's program for this mechanism; with ``index``, for that target alone. All share the job's maps."""

        def remark(self, text: str) -> None:
            """Something that the user should know before it happens."""

        def unload(self) -> None:
            """Gives back all that was loaded."""

    class Link(Protocol):
        @property
        def kernel(self) -> Kernel: ...
        def missed(self) -> int | None: ...
        def give_up(self) -> int:
            """The fd whose closing detaches: the caller's to close from now on."""

    # Called with (done, total) before each of many steps, (0, 0) where the number is not known; may raise to end it.
    Step = Callable[[int, int], None]


class Unavailable(NotSupportedError):
    """A mechanism that this kernel or container does not have for this job. Another one may do."""

    @classmethod
    def by(cls, answer: Answer) -> Unavailable:
        """As a probe's "no" has it."""
        return cls(f"{answer.feature} does not work here", answer.evidence, help=answer.help)


class Partial(Unavailable):
    """A mechanism that does not have all of the functions. Better than nothing, if no other one has more."""


class Need:
    """``at_return``: run when functions return; ``arguments``: know what they were called with."""

    __slots__ = ("arguments", "at_return")

    def __init__(self, *, at_return: bool = False, arguments: bool = False) -> None:
        self.at_return = at_return
        self.arguments = arguments


# A mechanism that reads registers, asked for arguments at return: why it cannot.
REGISTERS_ARE_GONE = "at return the registers hold no arguments any more"


def no_step(_done: int, _total: int) -> None:
    """Goes on."""


def nothing() -> None:
    """There is nothing more to do."""


class Attachment:
    """Live links and how they came about. ``backend``: "kprobe-multi (addrs)"; ``attached``: the indexes of the targets that are.

    ``culprits``: targets left out because the kernel refused them. ``syscall_ms``: spent in the system calls that attached.
    ``afterwards``: to be done when all links are closed.
    """

    __slots__ = ("_progs", "afterwards", "attached", "backend", "culprits", "links", "syscall_ms")

    def __init__(
        self,
        links: Sequence[Link],
        progs: Sequence[Program],
        backend: str,
        attached: list[int],
        culprits: list[Culprit],
        syscall_ms: float,
    ) -> None:
        self.links = list(links)
        self._progs = progs
        self.backend = backend
        self.attached = attached
        self.culprits = culprits
        self.syscall_ms = syscall_ms
        self.afterwards = nothing

    @property
    def link(self) -> Any:
        """The one link of a mechanism that takes all functions at once."""
        (link,) = self.links
        return link

    def missed(self) -> int | None:
        """Hits that did not reach a program, other than by recursion; None where the kernel does not tell."""
        return _total([link.missed() for link in self.links])

    def recursion_misses(self) -> int | None:
        """Hits that the kernel refused because their CPU was inside a program already; None where it does not tell.

        Kernels that do not tell the one (before Linux 6.7) do not count the other for kprobes: their 0 means nothing.
        """
        return None if self.missed() is None else _total([prog.recursion_misses() for prog in self._progs])

    def close(self, step: Step = no_step) -> None:
        """Detaches, the last first, and of single links several at a time. A second call does nothing."""
        links, self.links = self.links[::-1], []
        afterwards, self.afterwards = self.afterwards, nothing
        try:
            if links:
                links[0].kernel.close_all([link.give_up() for link in links], step)
        finally:
            afterwards()


def _total(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
