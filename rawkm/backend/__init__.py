"""Attaching to many targets: ``multi`` by one kprobe_multi link, the others where that is not to be had."""

from __future__ import annotations

from rawkm.backend.model import Attachment, Need
from rawkm.backend.multi import ADDRS, AUTO, SYMS, attach, choose

__all__ = ["ADDRS", "AUTO", "SYMS", "Attachment", "Need", "attach", "choose"]
