"""The one error of the VM runner: a sentence for the user; the program ends with status 125."""

from __future__ import annotations


class VMError(Exception):
    """Something outside the guest's command went wrong. The text is a full sentence."""
