"""What a container must be given, from what it lacks."""

from __future__ import annotations

from rawkm.doctor.grants import Facts, Grants, default_container, needed
from rawkm.host import caps

BOTH = 1 << caps.CAP_BPF | 1 << caps.CAP_PERFMON


def options(grants: Grants) -> list[str]:
    return [option for option, _ in grants.reasons]


def test_nothing_is_missing() -> None:
    grants = needed(Facts(mask=BOTH))
    assert not grants
    assert (grants.docker(), grants.kubernetes(), grants.missing, grants.notes) == ("", "", [], [])


def test_a_default_container() -> None:
    """No more than it takes: no CAP_SYS_ADMIN, no other user, no other profile."""
    grants = needed(default_container(last_cap=40, paranoid=3, restricted=True, needs_perf=False))
    assert grants.docker() == (
        "docker run --cap-add BPF --cap-add PERFMON --cap-add SYSLOG -v /sys/kernel/tracing:/sys/kernel/tracing:ro IMAGE"
    )
    assert grants.kubernetes().splitlines() == [
        "spec:",
        "  containers:",
        "  - name: rawkm",
        "    securityContext:",
        "      capabilities:",
        "        add: [BPF, PERFMON, SYSLOG]",
        "    volumeMounts:",
        "    - name: tracefs",
        "      mountPath: /sys/kernel/tracing",
        "      readOnly: true",
        "  volumes:",
        "  - name: tracefs",
        "    hostPath: {path: /sys/kernel/tracing}",
    ]
    assert not grants.seccomp and not grants.user and not grants.unconfined


def test_one_capability_at_a_time() -> None:
    assert options(needed(Facts(mask=1 << caps.CAP_BPF))) == ["--cap-add PERFMON"]
    assert options(needed(Facts(mask=1 << caps.CAP_PERFMON))) == ["--cap-add BPF"]
    assert options(needed(Facts(mask=1 << caps.CAP_SYS_ADMIN))) == []
    assert options(needed(Facts(mask=BOTH, needs_addresses=True))) == ["--cap-add SYSLOG"]
    assert options(needed(Facts(mask=BOTH | 1 << caps.CAP_SYSLOG, needs_addresses=True))) == []


def test_another_user() -> None:
    """In a container capabilities reach user 0 only, to whom tracefs belongs; elsewhere there is a capability for it."""
    facts = Facts(mask=0, uid=1000, needs_list=True)
    assert options(needed(facts)) == ["--cap-add BPF", "--cap-add PERFMON", "--user 0"]
    assert "runAsUser: 0" in needed(facts).kubernetes()
    assert [name for name, _ in needed(facts, container=False).missing] == ["CAP_BPF", "CAP_PERFMON", "CAP_DAC_READ_SEARCH"]
    held = Facts(mask=BOTH | 1 << caps.CAP_DAC_READ_SEARCH, uid=1000, needs_list=True, tracefs=False)
    assert options(needed(held)) == ["-v /sys/kernel/tracing:/sys/kernel/tracing:ro"]


def test_before_cap_bpf() -> None:
    assert options(needed(Facts(mask=0, last_cap=37))) == ["--cap-add SYS_ADMIN"]


def test_perf_events_where_they_are_needed() -> None:
    """Debian's paranoid level 3 takes CAP_SYS_ADMIN, or a sysctl on the host."""
    grants = needed(Facts(mask=BOTH, paranoid=3, needs_perf=True))
    assert options(grants) == ["--cap-add SYS_ADMIN"]
    assert [what for what, _ in grants.host] == ["sysctl kernel.perf_event_paranoid=2"]
    assert options(needed(Facts(mask=BOTH, paranoid=2, needs_perf=True))) == []
    assert options(needed(Facts(mask=BOTH, paranoid=3))) == []


def test_seccomp() -> None:
    """A filter that refuses though the capabilities are there must go; else the capabilities may be enough."""
    grants = needed(Facts(mask=BOTH, blocked=["bpf"]))
    assert options(grants) == ["--security-opt seccomp=unconfined"]
    assert "seccompProfile" in grants.kubernetes()
    grants = needed(Facts(mask=0, blocked=["bpf", "perf_event_open", "fsconfig"]))
    assert options(grants) == ["--cap-add BPF", "--cap-add PERFMON"]
    assert len(grants.notes) == 1 and "bpf and perf_event_open" in grants.notes[0]
    assert options(needed(Facts(mask=BOTH, blocked=["fsconfig"]))) == []


def test_user_namespace() -> None:
    """What is held in it does not count."""
    grants = needed(Facts(mask=(1 << 41) - 1, user_namespace=True))
    assert options(grants) == ["--cap-add BPF", "--cap-add PERFMON", "--userns=host"]
    assert "hostUsers: true" in grants.kubernetes()
    assert grants.notes


def test_writing_tracefs() -> None:
    grants = needed(Facts(mask=BOTH, needs_write=True, tracefs=False, label="docker-default (enforce)"))
    assert options(grants) == ["-v /sys/kernel/tracing:/sys/kernel/tracing", "--security-opt apparmor=unconfined"]
    assert "readOnly" not in grants.kubernetes()
    assert "appArmorProfile" in grants.kubernetes()


def test_security_modules_where_they_can_be_in_the_way() -> None:
    assert options(needed(Facts(mask=BOTH, label="docker-default (enforce)"))) == []
    forbidden = needed(Facts(mask=BOTH, label="docker-default (enforce)", forbidden=True))
    assert options(forbidden) == ["--security-opt apparmor=unconfined"]
    selinux = needed(Facts(mask=BOTH, label="system_u:system_r:container_t:s0:c1,c2", forbidden=True))
    assert options(selinux) == ["--security-opt label=disable"]
    assert "appArmor" not in selinux.kubernetes()


def test_locked_memory_and_lockdown() -> None:
    assert options(needed(Facts(mask=BOTH, needs_memlock=True))) == ["--ulimit memlock=-1"]
    assert needed(Facts(mask=BOTH, lockdown="integrity")).notes == []
    (note,) = needed(Facts(mask=BOTH, lockdown="confidentiality")).notes
    assert "reboot" in note
