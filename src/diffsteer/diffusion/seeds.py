"""Randomness as a function of what it is for: one generator per picture when sampling, one per (seed, purpose, step) when training.

Nothing here touches torch's global generator, so no call reseeds anybody else, and a picture's noise depends on its own seed alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def generator_for(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator that is a function of `parts`, for example (run seed, "noise", step)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest, "little") >> 1)


class PictureNoise:
    """The noise of a batch of pictures, each from its own generator on the CPU, whatever the device.

    Drawing k times gives a picture the same k noises alone or in any batch.
    """

    def __init__(self, generators: Sequence[torch.Generator], shape: tuple[int, ...], kind: str = "gaussian") -> None:
        self.generators, self.shape, self.kind = list(generators), tuple(shape), kind

    @classmethod
    def from_seeds(cls, seeds: Sequence[int], shape: tuple[int, ...], kind: str = "gaussian") -> PictureNoise:
        return cls([torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds], shape, kind)

    def __call__(self, device: torch.device | str = "cpu") -> Tensor:
        """The next noise of every picture: [B, *shape] float32, standard normal or uniform on [-1, 1]."""
        draw = torch.randn if self.kind == "gaussian" else torch.rand
        noise = torch.stack([draw(self.shape, generator=generator, dtype=torch.float32) for generator in self.generators])
        return (noise if self.kind == "gaussian" else noise * 2 - 1).to(device)
