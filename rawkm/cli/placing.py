"""A user's own program attached to what --attach chooses: functions or tracepoints."""

from __future__ import annotations

from rawkm.cli.output import note
from rawkm.cli.tracing import Patience, check_targets, interrupted, report_culprits
from rawkm.errors import UsageError
from rawkm.uapi.constants import AttachType, MapType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.cli.args import Args
    from rawkm.handle import Handle
    from rawkm.link.kprobe_multi import KprobeMultiLink
    from rawkm.prog import Program
    from rawkm.stops import Stops
    from rawkm.targets import Target


class Place:
    """Where a program is attached, from ``attach()`` to ``detach()`` or the end of ``with``.

    ``backend``: by which means; ``attached``: to how many; ``names``: those of the functions by address. ``missed`` and
    ``recursion_misses``: hits that did not reach the program, once it is detached, None where the kernel cannot tell.
    """

    def __init__(self, args: Args, prog: Program, patterns: Sequence[str], *, at_return: bool) -> None:
        self._args = args
        self._prog = prog
        self._patterns = list(dict.fromkeys(patterns))
        self._return = at_return
        self._links: list[Handle] = []
        self._multi: KprobeMultiLink | None = None
        self.names: dict[int, str] = {}
        self.backend = ""
        self.attached = 0
        self.missed: int | None = None
        self.recursion_misses: int | None = None

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def attach(self, stops: Stops) -> None:
        """Attaches to all of them, or raises for the first that cannot be; functions that are refused are left out."""
        interrupted(stops)
        if self._prog.spec.type == ProgType.KPROBE:
            self._to_functions(stops)
        elif self._return:
            raise UsageError("--return goes with kprobe programs")
        else:
            self._to_tracepoints()

    def detach(self) -> None:
        """No hits from here on. Asks first what only the program and the link know."""
        misses = self._prog.info()["recursion_misses"]
        self.recursion_misses = misses if isinstance(misses, int) else None
        if self._multi is not None:
            self.missed = self._multi.info().missed
        self._close()

    def _close(self) -> None:
        while self._links:
            self._links.pop().close()

    def _to_tracepoints(self) -> None:
        from rawkm.link import raw_tracepoint, tracepoint

        raw = self._prog.spec.type == ProgType.RAW_TRACEPOINT
        self.backend = "raw tracepoint" if raw else "tracepoint"
        for name in self._patterns:
            # A raw one has no group.
            link = raw_tracepoint.attach(self._prog, name.rpartition(":")[2]) if raw else tracepoint.attach(self._prog, name)
            self._links.append(link)
        self.attached = len(self._links)

    def _to_functions(self, stops: Stops) -> None:
        from rawkm.host.deny import DenyList
        from rawkm.targets import Pattern, resolve

        kernel, args = self._prog.kernel, self._args
        patterns = [Pattern(text) for text in self._patterns]
        ring = any(m.spec.type == MapType.RINGBUF for m in self._prog.maps.values())
        deny = DenyList(args.deny, builtin=not args.unsafe, ring=ring)
        targets = resolve(kernel, patterns, deny=deny, addresses=True)
        remarks = check_targets(kernel, args, targets, patterns)
        session = self._prog.spec.attach_type == AttachType.TRACE_KPROBE_SESSION
        self._multi = self._by_session(targets.ok) if session else self._by_multi(targets.ok, stops)
        self._links.append(self._multi)
        self.names = {target.address: target.label for target in targets.ok if target.address}
        # Only now: if it had failed, what was left out would not matter.
        for remark in remarks:
            note(remark)

    def _by_multi(self, targets: Sequence[Target], stops: Stops) -> KprobeMultiLink:
        from rawkm import backend

        found = backend.attach(self._prog, targets, retprobe=self._return, step=Patience(self._prog.kernel, stops))
        self.backend, self.attached = found.backend, len(found.attached)
        try:
            report_culprits(self._args, found.culprits)
        except BaseException:
            found.link.close()
            raise
        link: KprobeMultiLink = found.link
        return link

    def _by_session(self, targets: Sequence[Target]) -> KprobeMultiLink:
        from rawkm import backend
        from rawkm.link import kprobe_session

        if self._return:
            raise UsageError("a kprobe session is attached at entry and return anyway")
        by = backend.choose(self._prog.kernel, targets, backend.AUTO)
        addrs = [target.address or 0 for target in targets] if by == backend.ADDRS else None
        syms = None if by == backend.ADDRS else [target.name for target in targets]
        self.backend, self.attached = f"kprobe-session ({by})", len(targets)
        return kprobe_session.attach(self._prog, addrs=addrs, syms=syms, cookies=range(len(targets)))
