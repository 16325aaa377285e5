"""Features whose answers are known, for tests of measures."""

from __future__ import annotations

import torch
from torch import Tensor

from diffsteer.evaluation.basis import Basis, Extractor, Reference

BASIS = Basis(Extractor("plain", "0" * 64, 0, 0.98, 100, "digits"), Reference("digits", "train", 1000, (), True, "f" * 64, (8, 8)), seed=0)


def normal(count: int, size: int = 6, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale + shift
