"""What a loss is: what it is given, and what it answers.

The engine in `gradient.py` asks losses; the makers beside it (`colors.py`, `shapes.py`, ...) build them; the table in `losses.py` names
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Moment(NamedTuple):
    """When a loss is asked, for those losses that want to know. Most look at the pictures only.

    seeds: one a picture of this batch; what is random in a loss is drawn by (seed, call), so that a picture does not depend on its batch.
    call: how many times the drawing has asked before, from 0.
    t: the process's time. noise_level: sigma / sqrt(alpha^2 + sigma^2), from 0 (clean) to 1 (noise).
    x_t: the noisy pictures scaled to unit variance, x_t / sqrt(alpha^2 + sigma^2), [B, C, H, W], without a gradient.
    """

    seeds: tuple[int, ...]
    call: int
    t: float
    noise_level: float
    x_t: Tensor


# A loss: pictures [B, C, H, W], float32, in [0, 1] but not clamped -> one number per picture [B], a negative log-likelihood in nats, so
# that the target is p(x0) * exp(-strength * loss(x0)). It must be differentiable, and each number may depend on its own picture only.
Loss = Callable[[Tensor, Moment], Tensor]


class Canvas(NamedTuple):
    """What the pictures will be, for makers of losses: their size, and where tensors belong."""

    channels: int
    height: int
    width: int
    label_names: tuple[str, ...] = ()
    device: torch.device | str = "cpu"


@dataclass(frozen=True)
class NoisyLoss:
    """A loss of the noisy picture itself, such as a noise-aware classifier's: it needs no gradient through the denoiser.

    of_noisy: (x_t / sqrt(alpha^2 + sigma^2) [B, C, H, W], moment) -> [B]. of_clean: the same question about a finished picture.
    """

    of_noisy: Callable[[Tensor, Moment], Tensor]
    of_clean: Loss

    def __call__(self, pictures: Tensor, moment: Moment) -> Tensor:
        return self.of_clean(pictures, moment)
