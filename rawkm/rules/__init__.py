"""The errno model of bpf(2): what a kernel says to a call, and by which rule.

Pure: no fds, no privileges. `predict()` goes through the checks of the command in the kernel's order and stops at the first
that refuses. The rules are data (`rules()`): fields, errno, first and last kernel, the sentence for people, the kernel's
function. What decides but is not in the call (whether a map has an element, what the verifier says) gives several possible
answers, or `known=False`.

model has the vocabulary, common the checks before the command's own, predict the walk; each other module has the rules of one
kind of command.
"""

from __future__ import annotations

from rawkm.rules.model import Call, Facts, Memory, Obj, Prediction, Rule
from rawkm.rules.predict import predict, rules, suspects

__all__ = ["Call", "Facts", "Memory", "Obj", "Prediction", "Rule", "predict", "rules", "suspects"]
