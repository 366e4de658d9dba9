"""Which functions to trace: patterns in, targets and rejected functions with reasons out."""

from __future__ import annotations

from rawkm.targets.model import Rejected, Target, Targets
from rawkm.targets.patterns import Pattern
from rawkm.targets.resolve import labels, resolve

__all__ = ["Pattern", "Rejected", "Target", "Targets", "labels", "resolve"]
