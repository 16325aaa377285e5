"""Few steps: a network learns to answer at once, from any noise, what its teacher's path from there would end in.

Two neighbours on one of the teacher's paths must get one answer: consistency distillation (Song et al. 2023, "Consistency models",
algorithm 2), the teacher's label guidance inside its step (Luo et al. 2023, section 4.2), neighbours that come closer as training goes on
(Geng et al. 2024, "Consistency models made easy"). Such a network draws with `ddpm` in a step or two: each step begins with fresh noise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffsteer.diffusion.denoiser import Denoiser
from diffsteer.diffusion.process import Process, broadcast, widest

Teacher = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # (x_t, t [B], label ids [B]) -> x0, without gradients

FIRST, LAST = 0.5, 1 / 32  # how far apart neighbours are at first and at last, as a share of the noisier one's noise share
CLEAN = 0.02  # a noise share below which the teacher's guess is the picture


def gap(progress: float) -> float:
    """How far apart neighbours are when this share of the training is done: from FIRST to LAST, halving at even times."""
    return FIRST * (LAST / FIRST) ** progress


def neighbour(process: Process, t: Tensor, apart: float) -> Tensor:
    """Times [B] whose noise share, sigma / (alpha + sigma), is smaller by the factor 1 - apart."""
    share = noise_share(process, t) * (1 - apart)
    return process.time_of(share / (1 - share)).to(t.dtype)


def noise_share(process: Process, t: Tensor) -> Tensor:
    """sigma / (alpha + sigma), as `widest`, shaped like t."""
    alpha, sigma = process.alpha_sigma(widest(t))
    return sigma / (alpha + sigma)


def losses(denoiser: Denoiser, teacher: Teacher, x0: Tensor, eps: Tensor, t: Tensor, cond: Tensor | None, apart: float) -> Tensor:
    """The loss of each picture [B]: the mean square of what the network's answers at two neighbours differ by. Only the answer at the
    noisier one is asked to change."""
    process = denoiser.spec.process
    x_t = process.add_noise(x0, eps, t)
    with torch.no_grad():
        guess = teacher(x_t, t, cond).clamp(-1, 1)
        before = neighbour(process, t, apart)
        alpha, sigma, alpha_before, sigma_before = (broadcast(each, x_t) for time in (t, before) for each in process.alpha_sigma(time))
        x_before = alpha_before * guess + sigma_before / sigma.clamp_min(1e-6) * (x_t - alpha * guess)
        answer = denoiser(x_before, before, cond)
        target = torch.where(broadcast(noise_share(process, before) < CLEAN, guess), guess, answer)
    return (denoiser(x_t, t, cond) - target).square().flatten(1).mean(1)
