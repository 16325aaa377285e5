"""Steers that mix denoisers' own answers, each a denoiser made from a denoiser: label guidance, autoguidance, clipping and thresholds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsteer.diffusion.denoiser import times_of
from diffsteer.diffusion.process import Process, widest

DenoiserLike = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Mixing:
    """How a model's answers are mixed; the defaults mix nothing.

    guidance_scale: of label guidance, 1 is off. guidance_interval: the noise levels (sigma / sqrt(alpha^2 + sigma^2), 0 clean to 1 noise)
    that it is for. guidance_rescale: the share, 0 to 1, of the guided picture's contrast that is brought back to the unguided one's.
    dynamic_threshold: the share of a picture's values, such as 0.995, whose size sets its range; None holds x0 in [-1, 1].
    autoguidance_scale: how far to go away from the worse model; 1 is off.
    """

    guidance_scale: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    dynamic_threshold: float | None = None
    autoguidance_scale: float = 1.0


def mixed(
    denoiser: DenoiserLike, mixing: Mixing, process: Process, null_id: int, guide: tuple[DenoiserLike, Process] | None = None
) -> DenoiserLike:
    """The denoiser with all of `mixing` but the threshold. guide: a worse model of the same pictures and labels, for autoguidance."""
    guided = label_guided(
        denoiser, mixing.guidance_scale, null_id, process=process, interval=mixing.guidance_interval, rescale=mixing.guidance_rescale
    )
    if guide is None or mixing.autoguidance_scale == 1:
        return guided
    return autoguided(guided, guide[0], mixing.autoguidance_scale, process, guide[1])


def label_guided(
    denoiser: DenoiserLike,
    scale: float,
    null_id: int,
    *,
    process: Process | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
    rescale: float = 0.0,
) -> DenoiserLike:
    """Classifier-free guidance (Ho & Salimans 2022): `uncond + scale * (cond - uncond)` in x0, as one doubled batch; 1 is off.

    A picture outside the interval of noise levels (Kynkaanniemi et al. 2024) is not mixed; where one time is given for all, the batch is
    doubled only inside it. rescale: Lin et al. 2024, eq. 15 and 16, against over-saturation. The model must have been trained with label
    dropout, so that it knows the class `null_id`.
    """
    if scale == 1:
        return denoiser

    def guided_denoiser(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        if cond is None:
            raise ValueError("label guidance needs labels")
        levels = torch.tensor(interval[0]) if process is None else levels_at(process, torch.as_tensor(t))
        inside = (levels >= interval[0]) & (levels <= interval[1])
        if inside.ndim == 0 and not inside:
            return denoiser(x_t, t, cond)
        times = times_of(t, x_t)
        labels = torch.cat([torch.full_like(cond, null_id), cond])
        uncond, conditional = denoiser(torch.cat([x_t, x_t]), torch.cat([times, times]), labels).chunk(2)
        guided = uncond + scale * (conditional - uncond)
        if rescale:
            contrast = [x.flatten(1).std(1)[:, None, None, None] for x in (conditional, guided)]
            guided = rescale * guided * contrast[0] / contrast[1].clamp_min(1e-6) + (1 - rescale) * guided
        # A picture's own time may lie on a GPU: asking there whether all are inside would wait for it, once a training step.
        return guided if inside.ndim == 0 else torch.where(inside.to(x_t.device)[:, None, None, None], guided, conditional)

    return guided_denoiser


def autoguided(denoiser: DenoiserLike, guide: DenoiserLike, scale: float, process: Process, guide_process: Process) -> DenoiserLike:
    """Autoguidance (Karras et al. 2024, eq. 5): `guide + scale * (denoiser - guide)` in x0, away from a worse version of the same model.

    The guide may have another process: it is asked at the time of the same signal-to-noise ratio, x_t brought to its size.
    """

    def guided_denoiser(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        time = torch.as_tensor(t, dtype=torch.float64).flatten()[0]
        their_time = guide_process.time_of(process.ratio(time))
        size, their_size = (torch.hypot(*each.alpha_sigma(at)) for each, at in ((process, time), (guide_process, their_time)))
        worse = guide(x_t * float(their_size / size), their_time, cond)
        return worse + scale * (denoiser(x_t, t, cond) - worse)

    return guided_denoiser


def clipped(denoiser: DenoiserLike) -> DenoiserLike:
    """x0 held in [-1, 1], where all pictures are."""

    def clipped_denoiser(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return denoiser(x_t, t, cond).clamp(-1, 1)

    return clipped_denoiser


def thresholded(denoiser: DenoiserLike, share: float) -> DenoiserLike:
    """Dynamic thresholding (Saharia et al. 2022, section 2.3): each picture is clipped at the `share` quantile of its values' sizes, if
    that is above 1, and divided by it; so strong guidance fades a picture rather than burning it out."""

    def thresholded_denoiser(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        x0 = denoiser(x_t, t, cond)
        sizes = x0.detach().flatten(1).abs()
        # A picture at a time: quantile() takes 2^24 values at most, which 86 colour pictures of 256 pixels exceed.
        limit = torch.stack([each.quantile(share) for each in sizes]).clamp_min(1)[:, None, None, None]
        return x0.clamp(-limit, limit) / limit

    return thresholded_denoiser


def levels_at(process: Process, t: Tensor) -> Tensor:
    """sigma / sqrt(alpha^2 + sigma^2) at times of the process, shaped like them, as `widest`: 0 clean, 1 noise."""
    alpha, sigma = process.alpha_sigma(widest(t))
    return sigma / torch.hypot(alpha, sigma)
