"""The vocabulary of the errno model: a call, what it refers to, a kernel, a rule, a prediction."""

from __future__ import annotations

from struct import Struct

from rawkm.errors import errno_name
from rawkm.uapi.tables import ATTR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Union

    Version = tuple[int, int]
    #: True in the sense of Python: the rule refuses; None: it may, which the call does not say; anything else: it does not.
    Verdict = object
    #: By the attr's fields, the call and the kernel.
    When = Callable[[Any, "Call", "Facts"], Verdict]
    Item = Union["Rule", "Branch"]  # noqa: UP007 (evaluated nowhere, but strings have no |)

CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF, CAP_NET_ADMIN = 21, 38, 39, 12

#: The largest union bpf_attr that is known; longer ones are read up to here.
ATTR_MAX = 168
# The first page is never mapped (mmap_min_addr), and the other half of the address space is the kernel's.
_LOWEST = 0x1000


def always(a: Any, c: Call, k: Facts) -> Verdict:
    """The condition of a rule that holds for every call that gets there."""
    return True


def maybe(a: Any, c: Call, k: Facts) -> Verdict:
    """The condition of a rule about what the call does not show."""
    return None


class Facts:
    """What decides beside the call itself.

    ``version``: (major, minor). ``caps``: the caller's effective set as a bit mask, in the initial user namespace.
    ``attr_size``: sizeof(union bpf_attr). ``config``: CONFIG name without the prefix → "y", "m", "n"; what is missing
    is not known. ``cpus``: possible CPUs. ``nodes``: NUMA nodes. ``unprivileged_bpf_disabled``: the sysctl.
    ``memlock``: bytes left under RLIMIT_MEMLOCK, None for no limit (only before 5.11). ``user_end``: the first address
    that no process has. ``fprobe``: whether kprobe_multi is built in, None when not known. ``common_attrs``: bpf(2)
    takes five arguments.
    """

    __slots__ = (
        "attr_size",
        "caps",
        "config",
        "cpus",
        "fprobe",
        "memlock",
        "nodes",
        "page_size",
        "tables",
        "unprivileged_bpf_disabled",
        "user_end",
        "version",
    )

    def __init__(
        self,
        version: Version,
        *,
        caps: int = (1 << 41) - 1,
        attr_size: int | None = None,
        page_size: int = 4096,
        config: Mapping[str, str] | None = None,
        cpus: int = 1,
        nodes: int = 1,
        unprivileged_bpf_disabled: int = 2,
        memlock: int | None = None,
        user_end: int = 0x7FFF_FFFF_F000,
    ) -> None:
        self.version = version
        self.caps = caps
        self.attr_size = size_of_attr(version) if attr_size is None else attr_size
        self.page_size = page_size
        self.config = dict(config or {})
        self.cpus = cpus
        self.nodes = nodes
        self.unprivileged_bpf_disabled = unprivileged_bpf_disabled
        self.memlock = memlock
        self.user_end = user_end
        self.fprobe = {"y": True, "n": False}.get(self.config.get("FPROBE", ""))
        #: The rules that hold here, by command: predict() fills it in.
        self.tables: dict[int, Table] = {}

    def capable(self, cap: int) -> bool:
        """Whether the caller has it; CAP_SYS_ADMIN stands in for CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, as bpf(2) has it."""
        return bool(self.caps >> cap & 1 or self.caps >> CAP_SYS_ADMIN & 1)

    def __repr__(self) -> str:
        return f"Facts({self.version[0]}.{self.version[1]}, attr_size={self.attr_size}, caps={self.caps:#x})"


# sizeof(union bpf_attr) by the first release that had it.
_ATTR_SIZES: tuple[tuple[Version, int], ...] = (
    ((5, 10), 120),
    ((5, 14), 128),
    ((5, 17), 144),
    ((6, 9), 152),
    ((6, 18), 168),
)


def size_of_attr(version: Version) -> int:
    """sizeof(union bpf_attr) of a release."""
    return next((size for first, size in reversed(_ATTR_SIZES) if version >= first), _ATTR_SIZES[0][1])


class Obj:
    """What an fd is.

    ``kind``: "map", "prog", "link", "btf", "perf_event", "token", "cgroup", "netns", "dir", "file", … ``type``: the
    MapType, ProgType or link type; None is not known. Of a map: ``key_size``, ``value_size``, ``max_entries``,
    ``flags`` (as at its creation), ``frozen``, ``readable`` and ``writable`` (by the fd), ``spin_lock`` (in its value).
    Of a program: ``attach_type`` (expected), ``attach_btf_id``, ``sleepable``, ``gpl``, ``writes_context``,
    ``context_size`` (up to where it reads its context; None: not known).
    """

    __slots__ = (
        "attach_btf_id",
        "attach_type",
        "context_size",
        "flags",
        "frozen",
        "gpl",
        "key_size",
        "kind",
        "max_entries",
        "readable",
        "sleepable",
        "spin_lock",
        "type",
        "value_size",
        "writable",
        "writes_context",
    )

    def __init__(
        self,
        kind: str,
        type: int | None = None,
        *,
        key_size: int = 0,
        value_size: int = 0,
        max_entries: int = 0,
        flags: int = 0,
        frozen: bool = False,
        readable: bool = True,
        writable: bool = True,
        spin_lock: bool = False,
        attach_type: int = 0,
        attach_btf_id: int = 0,
        sleepable: bool = False,
        gpl: bool = True,
        writes_context: bool = False,
        context_size: int | None = 0,
    ) -> None:
        self.kind = kind
        self.type = type
        self.key_size = key_size
        self.value_size = value_size
        self.max_entries = max_entries
        self.flags = flags
        self.frozen = frozen
        self.readable = readable
        self.writable = writable
        self.spin_lock = spin_lock
        self.attach_type = attach_type
        self.attach_btf_id = attach_btf_id
        self.sleepable = sleepable
        self.gpl = gpl
        self.writes_context = writes_context
        self.context_size = context_size

    def __repr__(self) -> str:
        return f"Obj({self.kind!r}, {self.type})"


class Memory:
    """The memory that a call may refer to.

    ``regions``: (address, bytes, whether it can be written to). ``whole``: the process has nothing else at the
    addresses in question, so that every other one faults; without it, what lies at other addresses is not known.
    """

    __slots__ = ("_regions", "_whole")

    def __init__(self, regions: Iterable[tuple[int, bytes | bytearray | memoryview, bool]] = (), *, whole: bool = False) -> None:
        self._regions = [(start, start + len(data), data, writable) for start, data, writable in regions]
        self._whole = whole

    def readable(self, address: int, size: int, k: Facts) -> bool | None:
        """Whether all of it can be read; None: not known. Nothing at all (size 0) can be read anywhere."""
        return self._is_there(address, size, k, False)

    def writable(self, address: int, size: int, k: Facts) -> bool | None:
        return self._is_there(address, size, k, True)

    def _is_there(self, address: int, size: int, k: Facts, write: bool) -> bool | None:
        if size == 0:
            return True
        end = address + size
        for start, stop, _, writable in self._regions:
            if start <= address and end <= stop:
                return writable or not write
        if address < _LOWEST or end > k.user_end:
            return False
        return False if self._whole else None

    def read(self, address: int, size: int) -> bytes | None:
        """The bytes there, None when they are not known."""
        for start, stop, data, _ in self._regions:
            if start <= address and address + size <= stop:
                return bytes(data[address - start : address - start + size])
        return None

    def text(self, address: int, limit: int) -> bytes | None:
        """The string there without its NUL, cut at ``limit``; None when it is not known or does not end."""
        for start, stop, data, _ in self._regions:
            if start <= address < stop:
                found = bytes(data[address - start : address - start + limit])
                text, nul, _ = found.partition(b"\0")
                return text if nul or len(found) == limit else None
        return None


NOWHERE = Memory()


class Call:
    """One call of bpf(2).

    ``attr``: the bytes at the attr's address, as many as there are (``size`` may promise more: what lies behind
    faults). None: the address itself is bad. ``fds``: every open fd, by number; a number that is not in it is not open.
    ``memory``: what pointers point to.
    """

    __slots__ = ("attr", "cmd", "fds", "memory", "raw", "size")

    def __init__(
        self,
        cmd: int,
        attr: bytes | bytearray | None,
        *,
        size: int | None = None,
        fds: Mapping[int, Obj] | None = None,
        memory: Memory = NOWHERE,
    ) -> None:
        self.cmd = cmd
        self.attr = attr
        self.size = (0 if attr is None else len(attr)) if size is None else size
        self.fds = fds if fds is not None else {}
        self.memory = memory
        #: The attr as the kernel has copied it, padded with zeros: set by predict().
        self.raw = b""

    def __repr__(self) -> str:
        return f"Call({self.cmd}, {bytes(self.attr or b'').hex()}, size={self.size})"


class Rule:
    """One check of the kernel.

    ``name``: unique ("map_create.key_size"); ``command``: of bpf(2), "" for every one. ``fields``: what the check looks
    at, UAPI paths. ``errno``: what the kernel answers, several where the call does not decide (0: it accepts); None:
    what follows is beyond the model. ``since`` and ``until``: the first and the last release that has the check,
    inclusive. ``text``: the rule for people, as what must hold. ``source``: the kernel's function. ``unseen``: why no
    test can show it.
    """

    __slots__ = (
        "command",
        "errno",
        "errnos",
        "fields",
        "name",
        "prediction",
        "since",
        "source",
        "text",
        "unseen",
        "until",
        "when",
    )

    def __init__(
        self,
        name: str,
        fields: str,
        errno: int | tuple[int, ...] | None,
        text: str,
        source: str,
        when: When,
        *,
        since: Version = (0, 0),
        until: Version = (99, 0),
        unseen: str = "",
    ) -> None:
        self.name = name
        self.command = name.partition(".")[0].upper() if "." in name else ""
        self.fields = tuple(fields.split())
        self.errno = errno
        self.errnos = frozenset() if errno is None else frozenset((errno,) if isinstance(errno, int) else errno)
        self.text = text
        self.source = source
        self.when = when
        self.since = since
        self.until = until
        self.unseen = unseen
        self.prediction = Prediction(self.errnos, (self,), known=errno is not None)

    def since_at_least(self, first: Version) -> Rule:
        """The rule of something that came with a release."""
        if self.since >= first:
            return self
        return Rule(
            self.name,
            " ".join(self.fields),
            self.errno,
            self.text,
            self.source,
            self.when,
            since=first,
            until=self.until,
            unseen=self.unseen,
        )

    def holds_for(self, version: Version) -> bool:
        return self.since <= version <= self.until

    def __repr__(self) -> str:
        return f"<Rule {self.name}: {self.errno}>"


class Branch:
    """Rules that follow for some calls only: ``select`` gives a key, and the rules of that key are looked at next.

    A key without rules goes by ``default``, which may be empty: then the rules behind the Branch are next. ``form``:
    the fields that these rules are about, where they are other ones than the table's.
    """

    __slots__ = ("cases", "default", "form", "select")

    def __init__(
        self,
        select: Callable[[Any, Call, Facts], object],
        cases: Mapping[object, Sequence[Item]],
        default: Sequence[Item] = (),
        *,
        form: Form | None = None,
    ) -> None:
        self.select = select
        self.cases = dict(cases)
        self.default = tuple(default)
        self.form = form


def read_as(form: Form, items: Sequence[Item]) -> Branch:
    """Rules about other fields than the table's: those of one variant."""
    return Branch(_only, {None: items}, form=form)


def _only(a: Any, c: Call, k: Facts) -> object:
    return None


def for_each(keys: Iterable[object], *items: Item) -> dict[object, Sequence[Item]]:
    """The same rules for several keys of a Branch."""
    return dict.fromkeys(keys, items)


class Prediction:
    """What the model says of a call.

    ``errnos``: every answer that is possible, 0 for "accepted". ``rules``: the rules that say so, the decisive one
    first; none for a call that passes them all. ``known``: False when the call gets beyond the checks of the model:
    then ``errnos`` are the refusals that are possible before that.
    """

    __slots__ = ("errnos", "known", "rules")

    def __init__(self, errnos: frozenset[int], rules: tuple[Rule, ...] = (), *, known: bool = True) -> None:
        self.errnos = errnos
        self.rules = rules
        self.known = known

    @property
    def rule(self) -> Rule | None:
        return self.rules[0] if self.rules else None

    @property
    def accepted(self) -> bool:
        """Whether the kernel must accept."""
        return self.known and self.errnos == _ACCEPTED

    def allows(self, errno: int) -> bool:
        """Whether the kernel may answer this; 0: it accepts."""
        return not self.known or errno in self.errnos

    def __repr__(self) -> str:
        said = " or ".join("accepted" if e == 0 else errno_name(e) for e in sorted(self.errnos)) or "nothing"
        why = f" by {', '.join(rule.name for rule in self.rules)}" if self.rules else ""
        return f"<{said}{why}{'' if self.known else ', else not known'}>"


_ACCEPTED = frozenset((0,))
PASSED = Prediction(_ACCEPTED)


class Form:
    """Named access to a command's fields: ``unpack`` gives a named tuple of the last parts of the UAPI paths."""

    __slots__ = ("_make", "_struct", "names")

    def __init__(self, *paths: str) -> None:
        """``paths``: of tables.ATTR, in the order of their offsets; what is not named is left out."""
        from collections import namedtuple

        codes = {("u", 4): "I", ("u", 8): "Q", ("s", 4): "i", ("s", 8): "q"}
        places = {path: (offset, size, kind) for group in ATTR for path, offset, size, kind in group}
        form, at, names = "=", 0, []
        for path in paths:
            offset, size, kind = places[path]
            form += f"{offset - at}x" if offset > at else ""
            form += f"{size}s" if kind in "cb" else codes[kind, size]
            at = offset + size
            names.append(path.rpartition(".")[2])
        self._struct = Struct(f"{form}{ATTR_MAX - at}x")
        self.names = tuple(names)
        fields: Any = namedtuple("Fields", names)  # type: ignore[misc]
        self._make: Callable[[tuple[object, ...]], Any] = fields._make

    def unpack(self, raw: bytes) -> Any:
        return self._make(self._struct.unpack(raw))


class Table:
    """The rules of one command, in the kernel's order, and how its fields are read."""

    __slots__ = ("form", "rules")

    def __init__(self, form: Form, rules: Sequence[Item]) -> None:
        self.form = form
        self.rules = tuple(rules)

    def at(self, version: Version) -> Table:
        """The table with the rules of one release only."""
        return Table(self.form, _at(self.rules, version))

    def __iter__(self) -> Iterator[Rule]:
        return _walk(self.rules)


def _at(rules: Sequence[Item], version: Version) -> list[Item]:
    found: list[Item] = []
    for item in rules:
        if isinstance(item, Branch):
            cases = {key: _at(inner, version) for key, inner in item.cases.items()}
            found.append(Branch(item.select, cases, _at(item.default, version), form=item.form))
        elif item.holds_for(version):
            found.append(item)
    return found


def _walk(rules: Sequence[Item]) -> Iterator[Rule]:
    seen: set[int] = set()
    for item in rules:
        if isinstance(item, Branch):
            for inner in (*item.cases.values(), item.default):
                # One list may serve several keys.
                if id(inner) not in seen:
                    seen.add(id(inner))
                    yield from _walk(inner)
        else:
            yield item
