"""The kernel's user-space ABI: constants, layouts, and the texts that explain them.

Light, for the hot path: constants (generated), layout, packed (generated). Everything else imports construct:
fields and the definitions elem, prog, link, attach, objects, info, perf, on top of tables (generated); layouts,
their registry; names and annotate, their text forms; codec, from bytes to fields and back, whose functions are
also here; compare, the tables against BTF; show, the tables as text.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rawkm.uapi.codec import Decoded
    from rawkm.uapi.layout import Value


def decode(cmd: int, data: bytes | bytearray | memoryview) -> Decoded:
    """The fields of an attr of bpf(2): an object with .command, .variant, .values and .uncovered.

    ``command`` is the UAPI name without `BPF_`. ``variant`` of LINK_CREATE follows its attach_type
    ("kprobe_multi"); it is "" elsewhere. ``values`` has every member of the command's struct by its dotted path
    from the top of the union, an int or, for an array of characters, bytes; members beyond the data are 0.
    ``uncovered``: offset → bytes that no field covers and that are not zero. `bytes()` of the object gives the
    data back. Layouts are those of Linux 7.2. Raises UsageError for an unknown command.
    """
    from rawkm.uapi import codec

    return codec.decode(cmd, data)


def encode(command: str | int, values: Mapping[str, Value], *, variant: str | None = None, size: int | None = None) -> bytes:
    """The bytes of an attr with these fields, the inverse of decode(); everything else is 0.

    `variant`: None goes by the attach_type among the values. `size`: the struct's by default. Raises UsageError
    for an unknown command, variant or field, a value that does not fit, names of one place with unequal values,
    and a size that cuts off a field that is not 0.
    """
    from rawkm.uapi import codec

    return codec.encode(command, values, variant=variant, size=size)
