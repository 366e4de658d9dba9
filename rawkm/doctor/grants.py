"""What a container, or a process, must be given so that rawkm can trace in it: computed from what is missing.

Facts on the engines: they drop all capabilities but a few, and mount sysfs read-only and without tracefs. The seccomp profiles of
today (moby, profiles/seccomp/default_linux.go; containerd's and podman's follow it) let bpf(2) pass for CAP_BPF and
perf_event_open(2) for CAP_PERFMON; older ones for CAP_SYS_ADMIN only. Added capabilities reach only user 0: they are not ambient.
The AppArmor profile docker-default (moby, profiles/apparmor/template.go) forbids mounts and writing below /sys, and nothing that
BPF does.
"""

from __future__ import annotations

from rawkm.host import caps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TRACEFS = "/sys/kernel/tracing"
_SECCOMP = ("bpf", "perf_event_open")


class Facts:
    """Where a process stands. ``mask``: its effective capabilities; ``uid``: what counts for files; ``last_cap``: the highest
    capability that the kernel knows; ``blocked``: system calls that seccomp refuses, of those that rawkm tries; ``label``: a
    security module's; ``lockdown``: the level; ``paranoid``: kernel.perf_event_paranoid; ``tracefs``: it is mounted.

    ``needs_list``: the list of functions cannot be read; ``needs_addresses``: symbol addresses are hidden and a capability would
    show them; ``needs_perf``: only perf events are left to attach with; ``needs_write``: only kprobe_events is;
    ``needs_memlock``: maps are refused by RLIMIT_MEMLOCK; ``forbidden``: programs are refused though no capability is missing.
    """

    __slots__ = (
        "blocked",
        "forbidden",
        "label",
        "last_cap",
        "lockdown",
        "mask",
        "needs_addresses",
        "needs_list",
        "needs_memlock",
        "needs_perf",
        "needs_write",
        "paranoid",
        "tracefs",
        "uid",
        "user_namespace",
    )

    def __init__(
        self,
        *,
        mask: int,
        uid: int = 0,
        last_cap: int = caps.CAP_BPF,
        user_namespace: bool = False,
        blocked: Sequence[str] = (),
        label: str = "",
        lockdown: str | None = None,
        paranoid: int | None = None,
        tracefs: bool = True,
        needs_list: bool = False,
        needs_addresses: bool = False,
        needs_perf: bool = False,
        needs_write: bool = False,
        needs_memlock: bool = False,
        forbidden: bool = False,
    ) -> None:
        self.mask = mask
        self.uid = uid
        self.last_cap = last_cap
        self.user_namespace = user_namespace
        self.blocked = tuple(blocked)
        self.label = label
        self.lockdown = lockdown
        self.paranoid = paranoid
        self.tracefs = tracefs
        self.needs_list = needs_list
        self.needs_addresses = needs_addresses
        self.needs_perf = needs_perf
        self.needs_write = needs_write
        self.needs_memlock = needs_memlock
        self.forbidden = forbidden


class Grants:
    """``capabilities``: (name without CAP_, what for); ``options``: (an option of docker run, what for); ``host``: (what to do on
    the host, what for); ``notes``: what no option changes. ``writable``: tracefs is to be mounted for writing.
    """

    __slots__ = ("capabilities", "host", "mount", "notes", "options", "seccomp", "unconfined", "user", "userns", "writable")

    def __init__(self) -> None:
        self.capabilities: list[tuple[str, str]] = []
        self.options: list[tuple[str, str]] = []
        self.host: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.mount = self.writable = self.seccomp = self.unconfined = self.user = self.userns = False

    def __bool__(self) -> bool:
        return bool(self.capabilities or self.options or self.host)

    @property
    def missing(self) -> list[tuple[str, str]]:
        """(capability by its full name, or what to do on the host; what for): for a process that is in no container."""
        return [(f"CAP_{name}", why) for name, why in self.capabilities] + self.host

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """(option of docker run, what for), all of them."""
        return [(f"--cap-add {name}", why) for name, why in self.capabilities] + self.options

    def docker(self) -> str:
        """The command line, "" when nothing is needed."""
        words = [option for option, _ in self.reasons]
        return " ".join(["docker run", *words, "IMAGE"]) if words else ""

    def kubernetes(self) -> str:
        """The part of a pod's manifest, "" when nothing is needed."""
        if not self.reasons:
            return ""
        lines = ["spec:"]
        if self.userns:
            lines.append("  hostUsers: true")
        lines += ["  containers:", "  - name: rawkm"]
        context = []
        if self.user:
            context.append("      runAsUser: 0")
        if self.capabilities:
            names = ", ".join(name for name, _ in self.capabilities)
            context += ["      capabilities:", f"        add: [{names}]"]
        if self.seccomp:
            context += ["      seccompProfile:", "        type: Unconfined"]
        if self.unconfined:
            context += ["      appArmorProfile:", "        type: Unconfined"]
        if context:
            lines += ["    securityContext:", *context]
        if self.mount:
            read_only = [] if self.writable else ["      readOnly: true"]
            lines += ["    volumeMounts:", "    - name: tracefs", f"      mountPath: {TRACEFS}", *read_only]
            lines += ["  volumes:", "  - name: tracefs", f"    hostPath: {{path: {TRACEFS}}}"]
        return "\n".join(lines)


def needed(facts: Facts, *, container: bool = True) -> Grants:
    """What is missing, by the least privilege that will do; in a container, or for a process that is in none."""
    grants = Grants()
    if facts.user_namespace:
        grants.userns = True
        grants.options.append(("--userns=host", "capabilities of another user namespace do not count for tracing"))
        grants.notes.append("rootless engines cannot leave their user namespace: run the engine as root")
    _capabilities(facts, grants)
    _tracefs(facts, grants)
    _seccomp(facts, grants)
    _security_module(facts, grants)
    if facts.needs_memlock:
        grants.options.append(("--ulimit memlock=-1", "before Linux 5.11 maps and programs are charged to RLIMIT_MEMLOCK"))
    if container and facts.uid != 0 and grants.capabilities:
        grants.user = True
        grants.options.append(("--user 0", "added capabilities reach no other user in a container"))
        # To whom tracefs belongs.
        grants.capabilities = [(name, why) for name, why in grants.capabilities if name != "DAC_READ_SEARCH"]
    if facts.lockdown == "confidentiality":
        grants.notes.append("lockdown (confidentiality) forbids kprobes and reading kernel memory; only a reboot lifts it")
    return grants


def _capabilities(facts: Facts, grants: Grants) -> None:
    def lacks(cap: int) -> bool:
        # Those of a user namespace do not count: all are needed outside of it.
        return facts.user_namespace or not caps.has(facts.mask, cap)

    strict = facts.paranoid is not None and facts.paranoid > 2
    lacking = [
        (name, why)
        for cap, name, why in (
            (caps.CAP_BPF, "BPF", "maps and programs"),
            (caps.CAP_PERFMON, "PERFMON", "programs that trace"),
        )
        if lacks(cap)
    ]
    if lacking and facts.last_cap < caps.CAP_BPF:
        lacking = [("SYS_ADMIN", "maps and programs: this kernel has no CAP_BPF yet")]
    elif strict and facts.needs_perf and lacks(caps.CAP_SYS_ADMIN):
        # It stands in for both.
        lacking = [("SYS_ADMIN", f"perf events, as kernel.perf_event_paranoid is {facts.paranoid}; maps and programs, too")]
        grants.host.append(("sysctl kernel.perf_event_paranoid=2", "then BPF and PERFMON do instead of SYS_ADMIN"))
    grants.capabilities += lacking
    if facts.needs_addresses and lacks(caps.CAP_SYSLOG):
        grants.capabilities.append(("SYSLOG", "symbol addresses: functions that share a name, the address table of big counts"))


def _tracefs(facts: Facts, grants: Grants) -> None:
    if facts.needs_list or facts.needs_write:
        if not facts.tracefs:
            grants.mount = True
            grants.writable = facts.needs_write
            mode = "" if facts.needs_write else ":ro"
            why = "to write kprobe_events" if facts.needs_write else "the list of traceable functions"
            grants.options.append((f"-v {TRACEFS}:{TRACEFS}{mode}", why))
        if facts.uid != 0 and not caps.has(facts.mask, caps.CAP_DAC_READ_SEARCH):
            grants.capabilities.append(("DAC_READ_SEARCH", "tracefs belongs to root"))


def _security_module(facts: Facts, grants: Grants) -> None:
    """AppArmor and SELinux, only where they can be what is in the way."""
    if not facts.label or not (facts.needs_write or facts.forbidden):
        return
    what = "writing below /sys" if facts.needs_write else "bpf(2)"
    # An SELinux context is user:role:type:level.
    if ":" in facts.label:
        grants.options.append(("--security-opt label=disable", f"{facts.label} may forbid {what}"))
        return
    grants.unconfined = True
    grants.options.append(("--security-opt apparmor=unconfined", f"{facts.label} may forbid {what}"))


def _seccomp(facts: Facts, grants: Grants) -> None:
    blocked = [name for name in _SECCOMP if name in facts.blocked]
    if not blocked:
        return
    names = " and ".join(blocked)
    if any(name in ("BPF", "PERFMON", "SYS_ADMIN") for name, _ in grants.capabilities):
        grants.notes.append(
            f"the seccomp filter refuses {names} now; today's default profiles let that pass with these capabilities, "
            "older ones take --security-opt seccomp=unconfined"
        )
        return
    grants.seccomp = True
    why = f"the filter refuses {names}; or a profile of your own that lets that pass"
    grants.options.append(("--security-opt seccomp=unconfined", why))


def default_container(*, last_cap: int, paranoid: int | None, restricted: bool, needs_perf: bool) -> Facts:
    """A container with Docker's defaults on this kernel, for who asks from outside. ``restricted``: kptr_restrict is not 2."""
    return Facts(
        mask=0,
        last_cap=last_cap,
        paranoid=paranoid,
        tracefs=False,
        needs_list=True,
        needs_addresses=restricted,
        needs_perf=needs_perf,
    )
