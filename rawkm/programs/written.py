"""A program that somebody wrote as a ``.s`` file: from what its directives say to a ProgramSpec."""

from __future__ import annotations

from keyword import kwlist

from rawkm import asm
from rawkm.asm import map_refs
from rawkm.asm.insn import Insn, checked
from rawkm.errors import AssembleError, UsageError
from rawkm.maps import MapSpec
from rawkm.prog import LICENSE, ProgramSpec
from rawkm.uapi.constants import AttachType, MapType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm import Item, MapDecl, Source

# What the first part of .section stands for, where there is no .type: as libbpf reads it.
SECTIONS = {
    "kprobe": (ProgType.KPROBE, 0),
    "kretprobe": (ProgType.KPROBE, 0),
    "kprobe.multi": (ProgType.KPROBE, AttachType.TRACE_KPROBE_MULTI),
    "kretprobe.multi": (ProgType.KPROBE, AttachType.TRACE_KPROBE_MULTI),
    "kprobe.session": (ProgType.KPROBE, AttachType.TRACE_KPROBE_SESSION),
    "raw_tp": (ProgType.RAW_TRACEPOINT, 0),
    "raw_tracepoint": (ProgType.RAW_TRACEPOINT, 0),
    "tp": (ProgType.TRACEPOINT, 0),
    "tracepoint": (ProgType.TRACEPOINT, 0),
    "perf_event": (ProgType.PERF_EVENT, 0),
    "socket": (ProgType.SOCKET_FILTER, 0),
    "tc": (ProgType.SCHED_CLS, 0),
    "xdp": (ProgType.XDP, AttachType.XDP),
}


def program(source: Source, *, type: str = "", attach: str = "", name: str = "") -> ProgramSpec:
    """The program that ``source`` describes. ``type``, ``attach``, ``name``: what counts instead of its directives.

    Raises UsageError for a type that does not exist or is missing, AssembleError for a map that is not declared
    or cannot be.
    """
    section = SECTIONS.get(source.section.partition("/")[0], (0, 0))
    kind = type or source.type
    number = enumerator(ProgType, kind, "program type", ".type or --type") if kind else section[0]
    if not number:
        raise UsageError("the program's type is not known: say it with .type or --type, such as kprobe")
    attached = attach or source.attach
    attach_type = enumerator(AttachType, attached, "attach type", ".attach") if attached else 0
    if not attached and number == section[0]:
        attach_type = section[1]
    return ProgramSpec(
        source.name or name,
        number,
        insns=_with_maps(source),
        attach_type=attach_type,
        license=source.license or LICENSE,
    )


def enumerator(namespace: type, text: str | int, what: str, where: str) -> int:
    """The value of a name as in a file: "percpu_hash", "BPF_MAP_TYPE_PERCPU_HASH", or the number itself."""
    if isinstance(text, int):
        return text
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return int(text)
    prefix: str = namespace._PREFIX  # type: ignore[attr-defined]
    wanted = text.upper().removeprefix(prefix)
    value = vars(namespace).get(wanted)
    if isinstance(value, int) and not wanted.startswith("_"):
        return value
    from difflib import get_close_matches

    known = [name for name, number in vars(namespace).items() if isinstance(number, int) and not name.startswith("_")]
    near = ", ".join(name.lower() for name in get_close_matches(wanted, known))
    raise UsageError(f"there is no {what} {text!r} ({where}){'; near names: ' if near else ''}{near}")


def type_name(number: int) -> str:
    """A program type as a file says it, "" for one without a name."""
    return _short(ProgType, number).lower()


def map_spec(decl: MapDecl) -> MapSpec:
    """The map that a file declares. Raises AssembleError, with its line."""
    try:
        type = enumerator(MapType, decl.type, "map type", ".map")
        return MapSpec(decl.name, type, key=decl.key, value=decl.value, max_entries=decl.max_entries, flags=decl.flags)
    except UsageError as err:
        raise AssembleError(str(err), src_loc=decl.loc) from None


def _with_maps(source: Source) -> list[Item]:
    """The instructions, with the maps that are declared instead of their names."""
    specs = {decl.name: map_spec(decl) for decl in source.maps}
    items: list[Item] = []
    for item in source.insns:
        if not isinstance(item, Insn) or item.symbol is None:
            items.append(item)
            continue
        spec = specs.get(item.symbol_name or "")
        if spec is None:
            raise AssembleError(f"no .map declares {item.symbol_name!r}", src_loc=item.loc)
        items.append(checked(item.opcode, item.dst, item.src, item.off, item.imm, None, spec, False, item.loc, item.comment))
    return items


def script(spec: ProgramSpec) -> str:
    """The program as a Python file that, when it is run, makes the same one and calls it ``spec``."""
    from rawkm.asm.script import elements, imports
    from rawkm.asm.text import with_labels

    maps = {ref.name: ref for ref in map_refs(spec.insns) if isinstance(ref, MapSpec)}
    variables = {name: f"map{number}" for number, name in enumerate(maps)}
    variables.update({name: name for name in maps if name.isidentifier() and name.islower() and name not in _TAKEN})
    lines, used = elements(with_labels(spec.insns), variables)
    made = []
    for name, variable in variables.items():
        m = maps[name]
        numbers = [f"{field}={value}" for field in ("key", "value", "max_entries", "flags") if (value := getattr(m, field))]
        made.append(f"{variable} = rawkm.MapSpec({', '.join([repr(name), _member(MapType, m.type), *numbers])})")
    arguments = [
        f"    {spec.name!r},",
        f"    {_member(ProgType, spec.type)},",
        *([f"    attach_type={_member(AttachType, spec.attach_type)},"] if spec.attach_type else []),
        f"    license={spec.license!r},",
        "    insns=[",
        *(f"    {line}" for line in lines),
        "    ],",
    ]
    parts = ["import rawkm", *imports(used), "", *made, *([""] if made else []), "spec = rawkm.ProgramSpec(", *arguments, ")", ""]
    return "\n".join(parts)


# Names that the file has for something else, as far as they are in small letters.
_TAKEN = {"rawkm", "spec", *asm.__all__, *kwlist}


def _member(namespace: type, value: int) -> str:
    short = _short(namespace, value)
    return f"rawkm.{namespace.__name__}.{short}" if short else str(value)


def _short(namespace: type, value: int) -> str:
    members = vars(namespace).items()
    return next((name for name, number in members if type(number) is int and number == value and name[0] != "_"), "")
