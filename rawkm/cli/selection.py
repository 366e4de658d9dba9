"""Saying what a selection of functions leaves out."""

from __future__ import annotations

from rawkm.cli.output import count_of
from rawkm.errors import RawkmError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.cli.args import Args
    from rawkm.syscall.kernel import Kernel
    from rawkm.targets import Pattern, Rejected, Targets

# How many names a sentence lists.
_FEW = 4


def left_out(kernel: Kernel, args: Args, targets: Targets, patterns: list[Pattern]) -> list[str]:
    """What is missing, as --missing asks, and what is left alone.

    Raises RawkmError when nothing remains, and for --missing error when anything is missing.
    """
    denied = [r for r in targets.rejected if r.denied]
    if targets.missing and (args.missing != "ignore" or not targets.ok):
        from rawkm.targets.reasons import explain_missing

        explain_missing(kernel, targets, patterns)
    if not targets.ok:
        raise RawkmError(_nothing(targets))
    bad = targets.missing + [r for r in targets.rejected if not r.denied]
    if bad and args.missing == "error":
        raise RawkmError(f"--missing error: {_listed(bad)}")
    remarks: list[str] = []
    if args.missing == "warn":
        remarks += targets.notes if not targets.certain else ()
        if bad:
            remarks.append(f"left out: {_listed(bad)}")
    exact = {pattern.name for pattern in patterns if pattern.exact}
    named = [r for r in denied if r.name in exact]
    if named:
        remarks.append(f"left alone (--unsafe overrides): {_listed(named)}")
    elif denied:
        count = count_of(len(denied), "function")
        remarks.append(f"left alone for safety: {count} (rawkm list shows them, --unsafe overrides)")
    return remarks


def _nothing(targets: Targets) -> str:
    reasons = targets.missing + targets.rejected
    if not reasons:
        return "no function matches"
    return f"no function to attach: {_listed(reasons)}"


def _listed(rejected: list[Rejected]) -> str:
    # Several functions of one name for the same reason are said once.
    texts = list(dict.fromkeys(f"{r.name} ({r.reason})" for r in rejected))
    more = f" and {len(texts) - _FEW:,} more" if len(texts) > _FEW else ""
    return "; ".join(texts[:_FEW]) + more
