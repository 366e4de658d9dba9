"""The report of `rawkm doctor`: plain data, as its JSON has it."""

from __future__ import annotations

from rawkm import features
from rawkm.doctor import grants
from rawkm.host import caps, confinement, kconfig, memlock, sysctl
from rawkm.link import tracefs_kprobe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rawkm.features import Answer
    from rawkm.syscall.kernel import Kernel

    Report = dict[str, Any]

# What decides, whatever else may be missing: all of these, and one of those.
_NEEDED = ("bpf maps", "tracing programs")
_MECHANISMS = ("kprobe_multi", "fentry_multi", "fentry", "kprobe", "tracefs_kprobe")
# Ways to attach that open no perf event.
_WITHOUT_PERF = ("kprobe_multi", "fentry_multi", "fentry")


def make(kernel: Kernel) -> Report:
    """Tries everything; what is attached meanwhile is attached to a function that nobody calls. Nothing is left behind."""
    answers = {answer.feature: answer for answer in (features.ask(kernel, probe) for probe in features.ALL)}
    mask = caps.effective(kernel)
    settings = _settings(kernel)
    blocked = confinement.Blocked(kernel, may_bpf=caps.has(mask, caps.CAP_BPF))
    kind, evidence = confinement.container(kernel)
    space = {
        "container": kind or None,
        "evidence": evidence or None,
        "user_namespace": confinement.user_namespace(kernel),
        "seccomp": confinement.seccomp(kernel),
        "blocked": {name: code for name, code in blocked.calls.items() if name not in blocked.unsure},
        "label": confinement.label(kernel) or None,
    }
    given = _grants(kernel, answers, settings, mask, space)
    release, machine = kernel.uname()
    works = {answer.feature for answer in answers.values() if answer.state == features.YES}
    return {
        "type": "doctor",
        "can_trace": works.issuperset(_NEEDED) and not works.isdisjoint(_MECHANISMS),
        "kernel": release,
        "machine": machine,
        "capabilities": [name for cap, name in caps.NAMES.items() if mask >> cap & 1],
        "confinement": space,
        "settings": settings,
        "checks": [
            {"feature": a.feature, "state": a.state, "evidence": a.evidence, "help": a.help or None} for a in answers.values()
        ],
        "grants": given,
        "leftovers": [{"event": one.event, "where": one.where, "pid": one.pid} for one in tracefs_kprobe.leftovers(kernel)],
    }


def _settings(kernel: Kernel) -> dict[str, object]:
    """What else decides; None where it cannot be read."""
    config = kconfig.load(kernel)
    return {
        "kernel.kptr_restrict": sysctl.number(kernel, "kernel/kptr_restrict"),
        "kernel.perf_event_paranoid": sysctl.number(kernel, "kernel/perf_event_paranoid"),
        "kernel.unprivileged_bpf_disabled": sysctl.number(kernel, "kernel/unprivileged_bpf_disabled"),
        "kernel.ftrace_enabled": sysctl.number(kernel, "kernel/ftrace_enabled"),
        "lockdown": sysctl.lockdown(kernel),
        "CONFIG_FPROBE": config.get("FPROBE"),
    }


def _grants(
    kernel: Kernel, answers: dict[str, Answer], settings: dict[str, object], mask: int, space: dict[str, Any]
) -> dict[str, object]:
    """What this process lacks; when it lacks nothing and is in no container, what one on this kernel would."""
    paranoid = settings["kernel.perf_event_paranoid"]
    assert paranoid is None or isinstance(paranoid, int)
    last_cap = sysctl.number(kernel, "kernel/cap_last_cap")
    known = caps.CAP_BPF if last_cap is None else last_cap
    showable = settings["kernel.kptr_restrict"] != 2
    ways = [answers[name].state for name in _WITHOUT_PERF]
    loads = not _forbidden(answers["tracing programs"])
    needs_perf = features.YES not in ways and loads
    # The last resort, where it is a permission that keeps from it.
    needs_write = needs_perf and answers["kprobe"].state != features.YES and _forbidden(answers["tracefs_kprobe"])
    uid = confinement.file_uid(kernel) or 0
    # Who may open tracefs and yet cannot read the list is stopped by something that no option lifts.
    opens = caps.has(mask, caps.CAP_SYS_ADMIN) and (uid == 0 or caps.has(mask, caps.CAP_DAC_READ_SEARCH))
    listed = answers["function list"].state == features.YES
    facts = grants.Facts(
        mask=mask,
        uid=uid,
        last_cap=known,
        user_namespace=space["user_namespace"],
        blocked=list(space["blocked"]),
        label=space["label"] or "",
        lockdown=settings["lockdown"] if isinstance(settings["lockdown"], str) else None,
        paranoid=paranoid,
        tracefs=_tracefs_mounted(kernel),
        needs_list=not listed and not opens,
        needs_addresses=showable and answers["symbol addresses"].state != features.YES,
        needs_perf=needs_perf,
        needs_write=needs_write,
        forbidden=not loads and not caps.missing(mask, caps.CAP_BPF, caps.CAP_PERFMON) and not space["blocked"],
        needs_memlock=_forbidden(answers["bpf maps"]) and caps.has(mask, caps.CAP_BPF) and memlock.limited(kernel) is not None,
    )
    inside = space["container"] is not None
    lacking = grants.needed(facts, container=inside)
    if inside:
        wanted = lacking
    else:
        usual = grants.default_container(last_cap=known, paranoid=paranoid, restricted=showable, needs_perf=needs_perf)
        wanted = grants.needed(usual)
    return {
        "missing": _rows(lacking.reasons + lacking.host if inside else lacking.missing),
        "container": _rows(wanted.reasons + wanted.host),
        "docker": wanted.docker() or None,
        "kubernetes": wanted.kubernetes() or None,
        "notes": lacking.notes,
    }


def _rows(grants: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"grant": grant, "reason": why} for grant, why in grants]


def _forbidden(answer: Answer) -> bool:
    """Whether a permission was missing, so that nothing is known of the kernel itself."""
    return answer.state == features.NO and ("EPERM" in answer.evidence or "EACCES" in answer.evidence)


def _tracefs_mounted(kernel: Kernel) -> bool:
    from rawkm.errors import SyscallError
    from rawkm.host.tracefs import MOUNT_POINTS

    try:
        mounts = kernel.read_file("/proc/self/mounts")
    except SyscallError:
        return False
    return any(b" " + place.encode() + b" tracefs " in mounts for place in MOUNT_POINTS)
