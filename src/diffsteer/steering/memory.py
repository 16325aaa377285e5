"""How many pictures a gradient through the network can be taken for at once, in the memory there is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffsteer.device import free_memory

SHARE = 0.5  # of the free memory: the rest is for the loss's own network, the backward pass and the neighbours


def pictures_that_fit(trial: Callable[[int], object], device: torch.device) -> int:
    """At least 1. `trial(n)` runs the network on n pictures with a gradient; what two keep beyond what one keeps is a picture's share."""
    one, two = kept_bytes(lambda: trial(1)), kept_bytes(lambda: trial(2))
    return max(1, int(SHARE * free_memory(device) / max(1, two - one)))


def kept_bytes(run: Callable[[], object]) -> int:
    """The bytes that autograd keeps for the backward pass of `run()`, each storage once."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        alive = run()  # kept until counted, so that no storage is freed and its place used again
        total = sum(storages.values())
    del alive
    return total
