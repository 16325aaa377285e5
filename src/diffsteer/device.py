"""Where torch computes: the device that the user's word means."""

from __future__ import annotations

import torch

from diffsteer.errors import Mistake

DEVICES = ("auto", "cpu", "cuda", "mps")


def find_device(wanted: str) -> str:
    """`cuda`, `mps` or `cpu`: the one named, or for `auto` the fastest there is. Raises Mistake."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, available in there.items() if available)
    if wanted not in there:
        raise Mistake(f"--device is one of {', '.join(DEVICES)}; {wanted!r} was given.")
    if not there[wanted]:
        usable = ", ".join(name for name, available in there.items() if available)
        raise Mistake(f"--device {wanted}: this machine has none that torch can use; there is {usable}.")
    return wanted
