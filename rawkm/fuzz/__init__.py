"""Fuzzing bpf(2) with hypothesis: strategies, models of what the kernel must say, and campaigns that compare the two.

The strategies need hypothesis (``pip install rawkm[fuzz]``); ``rawkm fuzz`` on the command line runs the campaigns.
"""

from __future__ import annotations

from rawkm.errors import NotSupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from rawkm.fuzz.attr_strategies import attrs as attrs
    from rawkm.fuzz.attr_strategies import calls as calls
    from rawkm.fuzz.prog_strategies import programs as programs
    from rawkm.fuzz.state_machine import machine as machine

__all__ = ["attrs", "calls", "machine", "need_hypothesis", "programs"]

# Name → the module it is from. Those modules import hypothesis, so nothing else here may import them.
_LATER: dict[str, str] = {
    "attrs": "rawkm.fuzz.attr_strategies",
    "calls": "rawkm.fuzz.attr_strategies",
    "machine": "rawkm.fuzz.state_machine",
    "programs": "rawkm.fuzz.prog_strategies",
}


def need_hypothesis() -> ModuleType:
    """The package. Raises NotSupportedError where it is not installed."""
    try:
        import hypothesis
    except ImportError:
        raise NotSupportedError("fuzzing", "the package hypothesis is missing", help="pip install rawkm[fuzz]") from None
    return hypothesis


if not TYPE_CHECKING:  # or every name would be fine with a type checker

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        need_hypothesis()
        import sys

        __import__(_LATER[name])
        found = getattr(sys.modules[_LATER[name]], name)
        globals()[name] = found
        return found
