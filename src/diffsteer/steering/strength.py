"""How far a loss moves x0 at each noise level, so that a strength means the same everywhere.

`bayes` is what Bayes' rule gives for the target p(x0) * exp(-strength * loss): the gradient in x0 times the covariance of x0 given x_t. The
other scalings are the course's ("Possible guidance scaling schedules"): weights on a step that moves x_t and keeps the noise estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffsteer.diffusion.process import Process


class Level(NamedTuple):
    """One noise level, in Python's own floats: x_t = alpha * x0 + sigma * eps."""

    alpha: float
    sigma: float

    @property
    def size(self) -> float:
        return math.hypot(self.alpha, self.sigma)

    @property
    def noise_level(self) -> float:
        """sigma / sqrt(alpha^2 + sigma^2): 0 clean, 1 noise; sqrt(1 - alpha_bar) where variance is preserved."""
        return self.sigma / self.size

    @property
    def alpha_bar(self) -> float:
        """alphas_cumprod of the variance-preserving process at the same signal-to-noise ratio."""
        return (self.alpha / self.size) ** 2

    def prior_covariance(self, variance: float) -> float:
        """Cov[x0 | x_t] per value if the data were Gaussian with this variance: sigma^2 v / (alpha^2 v + sigma^2). At most v."""
        return self.sigma**2 * variance / (self.alpha**2 * variance + self.sigma**2)


CLEAN = Level(1.0, 0.0)


def level_at(process: Process, t: Tensor | float) -> Level:
    """The noise level of a time of the process."""
    alpha, sigma = process.alpha_sigma(torch.as_tensor(t, dtype=torch.float64).flatten()[0])
    return Level(float(alpha), float(sigma))


# The course's weights on the gradient that moves x_t, by the level's alpha_bar. Its colour cell has none, so `seed` there is 1. Its CLIP
# cell means the root of alpha_bar but indexes the table by the number of the step: `seed` there is `indexed_by_step`.
SCALINGS: dict[str, Callable[[float], float]] = {
    "seed": lambda alpha_bar: 1.0,
    "none": lambda alpha_bar: 1.0,
    "alpha_bar": lambda alpha_bar: alpha_bar,
    "sqrt_alpha_bar": lambda alpha_bar: math.sqrt(alpha_bar),
    "sqrt_one_minus_alpha_bar": lambda alpha_bar: math.sqrt(1 - alpha_bar),
}
BAYES = "bayes"


def indexed_by_step(process: Process, step: int) -> float:
    """The course's CLIP cell as it runs: `alphas_cumprod[i].sqrt()` with i the number of the step, 1.000 to 0.985 in 50 steps."""
    return math.sqrt(level_at(process, float(step)).alpha_bar)
