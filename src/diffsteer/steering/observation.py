"""Losses that are linear observations, y = A u + noise: known pixels, a blurred or a smaller picture.

Such a steer is solved for: with C = Cov[x0 | x_t] the posterior mean is x0 + C A^T (r^2 I + A C A^T)^-1 (y - A x0) (PiGDM, Song et al.
2023, eq. 8, with the network's own covariance, as in TMPD, Boys et al. 2024), by a few conjugate-gradient steps. Every product with C is
one gradient through the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsteer.steering.contract import Moment

STEPS = 5  # conjugate-gradient steps: two bring a mask's residual down a hundredfold, a blur's small eigenvalues take more
ENOUGH = 1e-4  # of the first residual


@dataclass(frozen=True)
class Observation:
    """y = A u + tolerance * noise, for pictures u in [0, 1]; as a loss, |A u - y|^2 / (2 tolerance^2).

    apply: A, linear, [B, C, H, W] -> [B, ...]; differentiable. target: y, [...] or [B, ...].
    known: values that must come back as they are, (a mask [1 or C, H, W] of bools, a picture [C, H, W] in [0, 1]), or None.
    steps: conjugate-gradient steps.
    """

    apply: Callable[[Tensor], Tensor]
    target: Tensor
    tolerance: float
    known: tuple[Tensor, Tensor] | None = None
    steps: int = STEPS

    def __call__(self, pictures: Tensor, moment: Moment) -> Tensor:
        return self.residual(pictures).flatten(1).square().sum(1) / (2 * self.tolerance**2)

    def residual(self, pictures: Tensor) -> Tensor:
        """y - A u."""
        return self.target.to(pictures) - self.apply(pictures)

    def transposed(self, like: Tensor, w: Tensor) -> Tensor:
        """A^T w, shaped as `like` [B, C, H, W]: the gradient of <A u, w>, as A is linear."""
        with torch.enable_grad():
            u = torch.zeros_like(like, requires_grad=True)
            return torch.autograd.grad(self.apply(u), u, w)[0]

    def restored(self, x0: Tensor) -> Tensor:
        """x0 in [-1, 1] with the known values put back."""
        if self.known is None:
            return x0
        where, picture = self.known
        return torch.where(where.to(x0.device), picture.to(x0) * 2 - 1, x0)


def solved(observation: Observation, x0: Tensor, covariance: Callable[[Tensor], Tensor], strength: float) -> Tensor:
    """The move of x0 [B, C, H, W] to its posterior mean; strength divides the noise's variance. `covariance` multiplies by C."""
    u = (x0 + 1) / 2  # half of x0, so a quarter of its covariance
    noise = observation.tolerance**2 / strength

    def spread(w: Tensor) -> Tensor:
        """C A^T w, in the units of u."""
        return covariance(observation.transposed(u, w)) / 4

    def system(w: Tensor) -> Tensor:
        return noise * w + observation.apply(spread(w))

    w = _conjugate_gradient(system, observation.residual(u).detach(), observation.steps)
    return 2 * spread(w)


def _conjugate_gradient(system: Callable[[Tensor], Tensor], b: Tensor, steps: int) -> Tensor:
    """w with system(w) about b, each picture [B, ...] on its own (Hestenes & Stiefel 1952).

    A network's Jacobian is not quite symmetric, nor always positive: a picture stops where its curvature is not positive.
    """
    w, rest = torch.zeros_like(b), b
    direction, size = rest, _dot(rest, rest)
    enough = ENOUGH**2 * size
    going = size > 0
    for _ in range(steps):
        image = system(direction)
        curvature = _dot(direction, image)
        going = going & (curvature > 0) & (size > enough)
        if not going.any():
            break
        length = torch.where(going, size / curvature.where(going, torch.ones_like(curvature)), 0.0)
        w = w + _each(length, b) * direction
        rest = rest - _each(length, b) * image
        before, size = size, _dot(rest, rest)
        direction = rest + _each(size / before.clamp_min(1e-30), b) * direction
    return w


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _each(value: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, 1, ...]."""
    return value.reshape(-1, *(1,) * (like.ndim - 1))
