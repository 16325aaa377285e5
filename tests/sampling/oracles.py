"""Exact denoisers of data whose answer is known, and how far a sample is from that data. Tests and benchmarks share them."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from diffsteer.diffusion.process import Process
from diffsteer.sampling.solvers import Denoise

WEIGHTS, MEANS, SPREAD = (0.8, 0.2), (-0.7, 0.7), 0.1  # the toy: each pixel on its own from 0.8 N(-0.7, 0.1^2) + 0.2 N(0.7, 0.1^2)


def mixture(process: Process) -> Denoise:
    """E[x0 | x_t] of the toy."""

    def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        alpha, sigma = process.alpha_sigma(t)
        x, variance = x_t.double(), alpha**2 * SPREAD**2 + sigma**2
        log_odds = math.log(WEIGHTS[1] / WEIGHTS[0]) + alpha * (MEANS[1] - MEANS[0]) * (x - alpha * sum(MEANS) / 2) / variance
        mean = MEANS[0] + torch.sigmoid(log_odds) * (MEANS[1] - MEANS[0])
        return (mean + alpha * SPREAD**2 / variance * (x - alpha * mean)).to(x_t.dtype)

    return denoise


def gaussian(process: Process, mean: float, spread: float) -> Denoise:
    """E[x0 | x_t] of N(mean, spread^2)."""

    def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        alpha, sigma = process.alpha_sigma(t)
        return mean + alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * (x_t - alpha * mean)

    return denoise


def gaussian_flow_end(process: Process, mean: float, spread: float, x_t: Tensor, t: Tensor) -> Tensor:
    """Where the probability flow ODE takes x_t for N(mean, spread^2): it keeps the distance from the mean, in standard deviations."""
    alpha, sigma = process.alpha_sigma(t)
    return mean + spread * (x_t - alpha * mean) / (alpha**2 * spread**2 + sigma**2).sqrt()


def erring(denoise: Denoise, process: Process, prediction: str, generator: torch.Generator, error: float = 0.02) -> Denoise:
    """The same denoiser out of a network of this prediction whose every output carries white noise."""

    def erring_denoise(x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        output = process.from_x0(prediction, denoise(x_t, t, cond), x_t, t)
        return process.to_x0(prediction, output + error * torch.randn(x_t.shape, generator=generator), x_t, t)

    return erring_denoise


def distance(x: Tensor) -> float:
    """The Wasserstein-1 distance of the pixels from the toy: mean distance of their quantiles. About 0.005 for 16384 perfect pixels."""
    found = x.flatten().double().sort().values
    return float((found - quantiles(len(found))).abs().mean()) if found.isfinite().all() else math.inf


@lru_cache
def quantiles(count: int) -> Tensor:
    """The middles of `count` equal shares of the toy, [count]."""
    grid = torch.linspace(-1.6, 1.6, 200001, dtype=torch.float64)
    below = sum(weight * torch.special.ndtr((grid - mean) / SPREAD) for weight, mean in zip(WEIGHTS, MEANS, strict=True))
    return grid[torch.searchsorted(below, (torch.arange(count, dtype=torch.float64) + 0.5) / count)]
