"""Where torch computes: the device that the user's word means, and the memory it has left."""

from __future__ import annotations

import psutil
import torch

from diffsteer.cgroup import memory_left
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


def free_memory(device: torch.device | str) -> int:
    """Bytes that can be had: of a GPU, with what torch keeps there and does not use; for every other device, of the computer or of the
    container that this runs in, whichever has fewer."""
    device = torch.device(device)
    if device.type != "cuda":
        machine, container = psutil.virtual_memory().available, memory_left()
        return machine if container is None else min(machine, container)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept
