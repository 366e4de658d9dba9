"""Kernel modules for the guest: chosen by name, with what they depend on.

Debian's packages carry no modules.dep (depmod runs when they are installed), so the dependencies and aliases
are read from the modules' own ``.modinfo`` section, as depmod does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .elf import sections

# Loaded at boot, where they are not built in: the guest's only ways to the host.
AT_BOOT = ("virtio_pci", "virtio_console")

# There for the asking: by modprobe, or by themselves when the kernel needs them (ip link add, mount, tc, …).
ON_DEMAND = (
    # devices and file systems
    "veth", "dummy", "loop", "overlay", "tun", "bridge", "br_netfilter", "macvlan", "8021q",
    # tunnels
    "vxlan", "geneve", "ipip", "sit", "ip_gre", "ip6_gre", "ip6_tunnel", "wireguard",
    # traffic control
    "sch_ingress", "sch_netem", "sch_htb", "cls_bpf", "cls_matchall", "cls_u32", "cls_flower", "act_bpf",
    "act_gact", "act_mirred", "act_skbedit",
    # netfilter
    "nf_tables", "nft_ct", "nft_nat", "nft_masq", "nft_chain_nat", "nft_reject_inet", "nft_log", "nft_compat",
    "nf_conntrack", "nf_conntrack_netlink", "nfnetlink_log", "nfnetlink_queue",
    "ip_tables", "ip6_tables", "iptable_filter", "iptable_nat", "iptable_mangle", "iptable_raw",
    "xt_conntrack", "xt_MASQUERADE", "xt_tcpudp", "xt_mark",
    # diagnosis by netlink
    "inet_diag", "tcp_diag", "udp_diag", "unix_diag", "packet_diag", "netlink_diag", "nlmon",
    # protocols
    "sctp", "vsock_loopback", "tls", "tcp_bbr",
)  # fmt: skip


@dataclass(frozen=True)
class Module:
    """One module: its path below /lib/modules/RELEASE (as uncompressed), what it needs, its aliases."""

    path: str
    data: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def module_name(path: str) -> str:
    """A module's name from its file name: underscores only, no suffixes."""
    return path.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def modinfo(data: bytes) -> list[tuple[str, str]]:
    """The key=value pairs of a module's .modinfo section, in order."""
    pairs = []
    for item in sections(data).get(".modinfo", b"").split(b"\0"):
        key, separator, value = item.decode(errors="replace").partition("=")
        if separator:
            pairs.append((key, value))
    return pairs


def parse(path: str, data: bytes) -> Module:
    """A Module from its file."""
    depends: list[str] = []
    aliases = []
    for key, value in modinfo(data):
        if key == "depends":
            depends += [name.replace("-", "_") for name in value.split(",") if name]
        elif key == "softdep" and value.startswith("pre:"):
            # "pre: a b post: c": only wished for, so a missing one does no harm.
            depends += [n.replace("-", "_") for n in value.removeprefix("pre:").split("post:")[0].split()]
        elif key == "alias":
            aliases.append(value)
    return Module(path, data, tuple(depends), tuple(aliases))


def closure(wanted: Iterable[str], load: Callable[[str], Module | None]) -> dict[str, Module]:
    """The wanted modules and their dependencies, each after what it needs.

    *load* gives a module by name, or None where the kernel has no such module (it is built in, or not there).
    """
    ordered: dict[str, Module] = {}
    visiting: set[str] = set()

    def visit(name: str) -> None:
        if name in ordered or name in visiting:
            return
        visiting.add(name)
        module = load(name)
        if module:
            for other in module.depends:
                visit(other)
            ordered[name] = module

    for name in wanted:
        visit(name)
    return ordered


def modules_dep(chosen: dict[str, Module]) -> str:
    """modules.dep(5): each module and everything it needs, nearest first, as modprobe expects."""
    lines = []
    for name, module in chosen.items():
        needs = list(closure([name], chosen.get))[:-1]
        lines.append(f"{module.path}: {' '.join(chosen[n].path for n in reversed(needs))}".rstrip())
    return "\n".join(lines) + "\n"


def modules_alias(chosen: dict[str, Module]) -> str:
    """modules.alias: which module answers to which alias."""
    return "".join(f"alias {alias} {name}\n" for name, module in chosen.items() for alias in module.aliases)
