"""From numbers back to UAPI names, in strace's spelling. Not for the hot path."""

from __future__ import annotations

from functools import cache, lru_cache


@cache
def members(namespace: type) -> dict[str, int]:
    """UAPI name → value of a class of rawkm.uapi.constants, in the order of the header."""
    prefix: str = namespace._PREFIX  # type: ignore[attr-defined]
    spelled: dict[str, str] = getattr(namespace, "_SPELLED", {})
    return {spelled.get(short, prefix + short): value for short, value in vars(namespace).items() if type(value) is int}


@cache
def _by_value(namespace: type) -> dict[int, str]:
    # Of several names for one value the first one counts: aliases for compatibility come later in the
    # headers.
    found: dict[int, str] = {}
    for full, value in members(namespace).items():
        found.setdefault(value, full)
    return found


def name(namespace: type, value: int) -> str:
    """The UAPI name of a value, or "0x63 /* BPF_MAP_TYPE_??? */"."""
    return _by_value(namespace).get(value) or f"{value:#x} {_unknown(namespace)}"


@lru_cache(1024)
def flags(namespace: type, value: int) -> str:
    """The UAPI names of the bits of a value, as "BPF_F_NO_PREALLOC|BPF_F_NUMA_NODE|0x80000000".

    Zero is "0" unless it has a name (BPF_ANY). A mask of several bits is a number: "precise_ip=2".
    """
    if value == 0:
        return _by_value(namespace).get(0, "0")
    found, rest = [], value
    for full, mask in members(namespace).items():
        if not mask & rest:
            continue
        low = mask & -mask
        found.append(full if mask == low else f"{full}={(rest & mask) // low}")
        rest &= ~mask
    if not found:
        return f"{value:#x} {_unknown(namespace)}"
    return "|".join(found + ([f"{rest:#x}"] if rest else []))


def _unknown(namespace: type) -> str:
    prefix: str = namespace._PREFIX  # type: ignore[attr-defined]
    return f"/* {prefix}??? */"
