"""The ways to attach, each as one measurement needs it: a program of some instructions on some functions."""

from __future__ import annotations

from rawkm import features
from rawkm.link import kprobe_multi, kprobe_session, perf_kprobe, tracefs_kprobe, tracing, tracing_multi
from rawkm.prog import ProgramSpec
from rawkm.uapi.constants import AttachType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rawkm.answer import Answer, Probe
    from rawkm.asm import Item
    from rawkm.bench.candidates import Candidate
    from rawkm.maps import Map
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel

ENTRY, RETURN, BOTH = "entry", "return", "both"


class Attached:
    """What is loaded and attached. ``detach()`` in the order of the attaches; ``close()`` unloads, too."""

    def __init__(self) -> None:
        self.programs: list[Program] = []
        self.links: list[Callable[[], None]] = []
        self.maker: tracefs_kprobe.Maker | None = None

    def detach(self, step: Callable[[], None] = lambda: None) -> None:
        """``step``: called after each, and may raise; ``close()`` does the rest then."""
        links, self.links = self.links[::-1], []
        try:
            while links:
                links.pop()()
                step()
        finally:
            self.links = links[::-1]

    def close(self) -> None:
        self.detach()
        if self.maker is not None:
            self.maker.close()
        while self.programs:
            self.programs.pop().close()

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Mechanism:
    """``name``: as --backend calls it; ``at``: ENTRY, RETURN or BOTH; ``many``: one link takes any number of functions."""

    def __init__(
        self, name: str, at: str, probe: Probe, type: int, attach_type: int = 0, *, many: bool = False, btf: bool = False
    ) -> None:
        self.name = name
        self.at = at
        self.many = many
        self.btf = btf
        self._probe = probe
        self._type = type
        self._attach_type = attach_type

    def __repr__(self) -> str:
        return f"<Mechanism {self.name}>"

    def answer(self, kernel: Kernel) -> Answer:
        """Whether this kernel has it."""
        return features.ask(kernel, self._probe)

    @property
    def loads_each(self) -> bool:
        """Whether a program is loaded for each function, as fentry's are."""
        return self.btf and not self.many

    def load(
        self,
        kernel: Kernel,
        attached: Attached,
        insns: Sequence[Item],
        candidate: Candidate,
        maps: Mapping[str, Map] | None = None,
    ) -> Program:
        """The program, for ``candidate`` or for all functions."""
        id = candidate.id if self.loads_each else 0
        spec = ProgramSpec("rawkm_bench", self._type, attach_type=self._attach_type, attach_btf_id=id, insns=insns)
        attached.programs.append(spec.load(kernel, maps))
        return attached.programs[-1]

    def attach_all(self, attached: Attached, prog: Program, candidates: Sequence[Candidate]) -> None:
        """One link, with a cookie per function. Raises AttachError when the kernel refuses a function, whichever it is."""
        cookies = list(range(len(candidates)))
        if self.btf:
            attached.links.append(tracing_multi.attach(prog, [c.id for c in candidates], cookies=cookies).close)
            return
        addrs = [c.address for c in candidates]
        if self.at == BOTH:
            link = kprobe_session.attach(prog, addrs=addrs, cookies=cookies)
        else:
            link = kprobe_multi.attach(prog, addrs=addrs, cookies=cookies, retprobe=self.at == RETURN)
        attached.links.append(link.close)

    def attacher(self, kernel: Kernel, attached: Attached) -> Callable[[Program, Candidate], None]:
        """What attaches a program to one function; it may raise AttachError."""
        one = self._one(kernel, attached)
        return lambda prog, candidate: attached.links.append(one(prog, candidate))

    def _one(self, kernel: Kernel, attached: Attached) -> Callable[[Program, Candidate], Callable[[], None]]:
        if self.btf:
            return lambda prog, _: tracing.attach(prog).close
        retprobe = self.at == RETURN
        if self._probe is features.tracefs_kprobe:
            maker = attached.maker = tracefs_kprobe.Maker(kernel)
            return lambda prog, candidate: maker.attach(prog, name=candidate.name, retprobe=retprobe).close
        pmu = perf_kprobe.read_pmu(kernel)
        return lambda prog, candidate: perf_kprobe.attach(prog, address=candidate.address, retprobe=retprobe, pmu=pmu).close


_KPROBE, _TRACING = ProgType.KPROBE, ProgType.TRACING

ALL = (
    Mechanism("kprobe-multi", ENTRY, features.kprobe_multi, _KPROBE, AttachType.TRACE_KPROBE_MULTI, many=True),
    Mechanism("kretprobe-multi", RETURN, features.kprobe_multi, _KPROBE, AttachType.TRACE_KPROBE_MULTI, many=True),
    Mechanism("kprobe-session", BOTH, features.kprobe_session, _KPROBE, AttachType.TRACE_KPROBE_SESSION, many=True),
    Mechanism("fentry-multi", ENTRY, features.fentry_multi, _TRACING, AttachType.TRACE_FENTRY_MULTI, many=True, btf=True),
    Mechanism("fexit-multi", RETURN, features.fentry_multi, _TRACING, AttachType.TRACE_FEXIT_MULTI, many=True, btf=True),
    Mechanism("fentry", ENTRY, features.fentry, _TRACING, AttachType.TRACE_FENTRY, btf=True),
    Mechanism("fexit", RETURN, features.fexit, _TRACING, AttachType.TRACE_FEXIT, btf=True),
    Mechanism("kprobe", ENTRY, features.kprobe, _KPROBE),
    Mechanism("kretprobe", RETURN, features.kprobe, _KPROBE),
    Mechanism("tracefs-kprobe", ENTRY, features.tracefs_kprobe, _KPROBE),
)
NAMES = tuple(mechanism.name for mechanism in ALL)
