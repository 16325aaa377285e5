"""What is learnt at one training step: the times, the noise, the target and its weight. Pure functions of the draws they are given."""

from __future__ import annotations

import torch
from torch import Tensor

from diffsteer.diffusion.denoiser import Denoiser
from diffsteer.diffusion.process import Process

NOISE_BINS = 4
# Li & He 2025, section 4: the velocity's error is x0's over sigma, and sigma is taken to be at least this.
LEAST_SIGMA = 0.05


def draw_times(process: Process, kind: str, uniform: Tensor, shift: float = 1.0) -> Tensor:
    """Training times [B] from draws on [0, 1) [B].

    uniform: every time alike; whole indices of the table for a variance-preserving process (all of them, the last too).
    logit-normal: Esser et al. 2024, eq. 19 with location 0 and scale 1, of the share of noise.
    edm: Karras et al. 2022, table 1: log sigma normal with mean -1.2 and deviation 1.2 (sigma / alpha here).
    shift: what sigma / alpha is multiplied by then (Esser et al. 2024, section 5.3.2): above 1, times lie nearer to noise.
    """
    if uniform.device.type == "mps" and kind != "uniform":  # which has neither doubles nor this function
        return draw_times(process, kind, uniform.cpu(), shift).to(uniform.device)
    if kind == "uniform":
        times = uniform * (process.train_steps if process.variance_preserving else 1000)
    else:
        normal = torch.special.ndtri(uniform.double().clamp(1e-6, 1 - 1e-6))
        if kind == "logit-normal":
            share = torch.sigmoid(normal)
            times = process.time_of(share / (1 - share))
        else:
            times = process.time_of((normal * 1.2 - 1.2).exp())
    if shift != 1:
        times = process.time_of(process.ratio(times) * shift)
    return (times.floor() if kind == "uniform" and process.variance_preserving else times).float()


def spread_evenly(uniform: Tensor) -> Tensor:
    """Draws on [0, 1) [B] that lie 1 / B apart, from the first of independent ones [B]: each is uniform as before, and together they leave
    no part out, so a step's gradient hangs less on which times it drew (the low-discrepancy sampler of Kingma et al. 2021)."""
    count = len(uniform)
    return (uniform[0] + torch.arange(count, device=uniform.device) / count) % 1


def weights(process: Process, prediction: str, t: Tensor, min_snr: float | None = None, velocity: bool = False) -> Tensor:
    """The weight [B] of each picture's loss: 1; min-SNR-gamma (Hang et al. 2023, section 3.4) in the prediction's own terms; or what makes
    the error of x0 that of the velocity (flow's eps - x0, a cosine's or linear's v): 1 / sigma^2, at most 1 / LEAST_SIGMA^2."""
    if min_snr is None and not velocity:
        return torch.ones_like(t, dtype=torch.float32)
    alpha, sigma = process.alpha_sigma(t)
    if min_snr is None:
        return sigma.clamp_min(LEAST_SIGMA).pow(-2).float()
    snr = (alpha / sigma) ** 2
    per_x0, data = snr.clamp(max=min_snr), process.sigma_data**2
    return {"x0": per_x0, "eps": per_x0 / snr, "v": per_x0 * data / (snr * data + 1)}[prediction].float()


def losses(
    denoiser: Denoiser, x0: Tensor, eps: Tensor, t: Tensor, cond: Tensor | None, min_snr: float | None = None, velocity: bool = False
) -> Tensor:
    """The loss of each picture [B]: the weighted mean square error of the network's answer, in the network's range, float32."""
    spec = denoiser.spec
    x_t = spec.process.add_noise(x0, eps, t)
    error = denoiser.predict(x_t, t, cond) - denoiser.target(x0, eps, t)
    return error.square().flatten(1).mean(1) * weights(spec.process, spec.prediction, t, min_snr, velocity)


def by_noise(process: Process, t: Tensor, loss: Tensor) -> Tensor:
    """Sums and counts of the losses [B] in quarters of the time range: [2, NOISE_BINS]."""
    which = (t / process.t_max * NOISE_BINS).long().clamp(0, NOISE_BINS - 1)
    sums = torch.zeros(2, NOISE_BINS, dtype=torch.float32, device=loss.device)
    return sums.index_add_(1, which, torch.stack([loss.float(), torch.ones_like(loss, dtype=torch.float32)]))
