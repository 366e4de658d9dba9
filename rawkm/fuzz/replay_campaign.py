"""One recorded failure, again: its calls are made, and each must come to what was expected."""

from __future__ import annotations

from rawkm.errors import SyscallError
from rawkm.fuzz import recorded
from rawkm.fuzz.bounds import DISTURBING
from rawkm.fuzz.case import run as run_case
from rawkm.fuzz.findings import Finding
from rawkm.syscall.raw import RawBpf
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rawkm.fuzz.campaign import Campaign
    from rawkm.fuzz.case import Step
    from rawkm.syscall.raw import Address, At, Block


def run(campaign: Campaign, options: Mapping[str, object]) -> None:
    """Makes the calls of the recording in ``options["file"]``. Each difference is reported and counts as unexplained: the failure
    is still there. With a store, all reproducers are written.
    """
    path = str(options["file"])
    try:
        with open(path, "rb") as file:
            case = recorded.read(file)
    except OSError as err:
        raise SyscallError(f"openat({path})", err.errno or 0) from None
    for step in case.steps:
        if step.cmd & ~Cmd.COMMON_ATTRS in DISTURBING:
            campaign.need_owned(f"{step.name}, which this recording makes,")
    campaign.example(case.title)

    def observe(step: Step, result: int, attr: bytes, blocks: Mapping[int, Block | At | Address]) -> None:  # noqa: ARG001
        campaign.call(result >= 0)

    differences = run_case(case, campaign.kernel, RawBpf(), observe)
    for difference in differences:
        campaign.report({"type": "difference", "what": difference.what, "expected": difference.expected, "seen": difference.seen})
    campaign.unexplained = len(differences)
    campaign.extra["reproduced"] = bool(differences)
    if campaign.store is not None:
        first = differences[0] if differences else None
        what, expected, seen = ("replay", "", "") if first is None else (first.what, first.expected, first.seen)
        recording = recorded.record(case, campaign.kernel, RawBpf())
        for kept in campaign.store.keep(Finding(case, what, expected, seen), recording):
            campaign.report({"type": "kept", "file": kept})
