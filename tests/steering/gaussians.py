"""Data whose denoiser and posteriors are known: a Gaussian, two modes, and smooth Gaussian pictures. Tests and benchmarks share them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from diffsteer.diffusion.process import Process
from diffsteer.sampling.solvers import SOLVERS, Step, time_grid
from diffsteer.steering.contract import Loss
from diffsteer.steering.gradient import Steer, SteeredDenoiser

Denoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]
LINEAR = Process("linear")  # betas 1e-4 to 0.02 over 1,000 steps
MODES, SPREAD = (-0.6, 0.6), 0.1


def unit_gaussian(process: Process, variance: float = 1.0) -> Denoise:
    """E[x0 | x_t] of N(0, variance)."""

    def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        alpha, sigma = process.alpha_sigma(torch.as_tensor(t).double())
        return alpha * variance / (alpha**2 * variance + sigma**2) * x_t

    return denoise


def observed(y: float, r2: float) -> Loss:
    """-log N(y; x0, r2), of x0 in [-1, 1] units."""
    return lambda pictures, moment: ((2 * pictures - 1 - y) ** 2 / (2 * r2)).flatten(1).sum(1)


def affine(solve: Callable[[Tensor, Callable[[Any], Tensor]], Iterator[Step]], draws: int) -> tuple[float, float]:
    """Mean and variance of a solver's end, exactly, when every step is affine in x and in its noises.

    One pixel a particle: one without any noise (the mean), one that starts at 1, and one for each noise drawn, which alone is 1.
    """
    x = torch.zeros(draws + 2, 1, 1, 1, dtype=torch.float64)
    x[1] = 1
    calls = iter(range(draws))

    def noise(device: Any) -> Tensor:
        one = torch.zeros_like(x)
        one[2 + next(calls)] = 1
        return one

    *_, last = solve(x, noise)
    ends = last.x0.flatten()
    return float(ends[0]), float(((ends[1:] - ends[0]) ** 2).sum())


def steered_walk(steers: Sequence[Steer], solver: str, steps: int, clip: bool = False, process: Process = LINEAR) -> tuple[float, float]:
    """Mean and variance of the steered unit Gaussian on the trailing grid."""
    times = time_grid(process, solver, steps, "trailing")
    recurrence = max(steer.recurrence for steer in steers)
    draws = steps * recurrence

    def solve(x: Tensor, noise: Any) -> Iterator[Step]:
        denoiser = SteeredDenoiser(unit_gaussian(process), steers, process, range(len(x)), times=times, clip=clip)
        return SOLVERS[solver].solve(denoiser, x, times, process, noise=noise, recurrence=recurrence)

    return affine(solve, draws)


def two_modes(process: Process) -> Denoise:
    """E[x0 | x_t] of half at -0.6 and half at 0.6, sd 0.1, each value on its own."""

    def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        alpha, sigma = process.alpha_sigma(torch.as_tensor(t).double())
        variance = alpha**2 * SPREAD**2 + sigma**2
        x, modes = x_t.double()[..., None], torch.tensor(MODES, dtype=torch.float64)
        share = (-((x - alpha * modes) ** 2) / (2 * variance)).softmax(-1)
        means = modes + alpha * SPREAD**2 / variance * (x - alpha * modes)
        return (share * means).sum(-1).to(x_t.dtype)

    return denoise


def share_on_the_right(y: float, r: float) -> float:
    """The posterior mass of the right mode after y = x0 + r * noise was seen."""
    left, right = (-((y - mode) ** 2) / (2 * (r**2 + SPREAD**2)) for mode in MODES)
    return 1 / (1 + math.exp(left - right))


class SmoothPictures:
    """Pictures [1, side, side] from a Gaussian whose neighbours go together, in [-1, 1] units; everything in float64."""

    def __init__(self, side: int) -> None:
        self.side, count = side, side * side
        places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).reshape(-1, 2).double()
        apart = (places[:, None] - places[None]).square().sum(-1)
        self.covariance = 0.1 * (torch.exp(-apart / (2 * 1.5**2)) + 0.05 * torch.eye(count, dtype=torch.float64))
        self.mean = torch.linspace(-0.4, 0.4, count, dtype=torch.float64)

    @property
    def variance(self) -> float:
        return float(self.covariance.diag().mean())

    def denoiser(self, process: Process) -> Denoise:
        def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            alpha, sigma = process.alpha_sigma(torch.as_tensor(t).double())
            spread = alpha**2 * self.covariance + sigma**2 * torch.eye(len(self.mean), dtype=torch.float64)
            gain = alpha * torch.linalg.solve(spread, self.covariance)  # symmetric factors that commute
            return (self.mean + (x_t.flatten(1) - alpha * self.mean) @ gain).reshape(x_t.shape)

        return denoise

    def draw(self, seed: int) -> Tensor:
        """One picture [1, side, side] in [0, 1] units."""
        noise = torch.randn(len(self.mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return ((self.mean + torch.linalg.cholesky(self.covariance) @ noise).reshape(1, self.side, self.side) + 1) / 2

    def posterior(self, apply: Callable[[Tensor], Tensor], y: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """Mean [D] and covariance [D, D] of x0 (in [-1, 1]) after y = A u + tolerance * noise."""
        count = len(self.mean)
        unit = torch.eye(count, dtype=torch.float64).reshape(count, 1, self.side, self.side)
        a = apply(unit).flatten(1).T  # [M, D], of u = (x0 + 1) / 2
        precision = torch.linalg.inv(self.covariance)
        covariance = torch.linalg.inv(precision + a.T @ a / 4 / tolerance**2)
        seen = y.flatten() - a @ torch.full((count,), 0.5, dtype=torch.float64)
        return covariance @ (a.T @ seen / 2 / tolerance**2 + precision @ self.mean), covariance


def wasserstein_2(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """Between two Gaussians: |m - n|^2 + tr(S + T - 2 (S^1/2 T S^1/2)^1/2), rooted."""
    root = _root(covariance_a)
    spread = torch.trace(covariance_a + covariance_b - 2 * _root(root @ covariance_b @ root))
    return math.sqrt(max(0.0, float((mean_a - mean_b).square().sum() + spread)))


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
