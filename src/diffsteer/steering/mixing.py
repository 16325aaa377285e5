"""Steers that mix a denoiser's own answers, each a denoiser made from a denoiser: clipping, and label guidance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DenoiserLike = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def clipped(denoiser: DenoiserLike) -> DenoiserLike:
    """x0 held in [-1, 1], where all pictures are."""

    def clipped_denoiser(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return denoiser(x_t, t, cond).clamp(-1, 1)

    return clipped_denoiser


def label_guided(denoiser: DenoiserLike, scale: float, null_id: int) -> DenoiserLike:
    """Classifier-free guidance (Ho & Salimans 2022): `uncond + scale * (cond - uncond)` in x0, as one doubled batch; 1 is off.

    The model must have been trained with label dropout, so that it knows the class `null_id`.
    """
    if scale == 1:
        return denoiser

    def guided_denoiser(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        if cond is None:
            raise ValueError("label guidance needs labels")
        times = torch.as_tensor(t, dtype=torch.float32, device=x_t.device).expand(x_t.shape[0])
        labels = torch.cat([torch.full_like(cond, null_id), cond])
        uncond, conditional = denoiser(torch.cat([x_t, x_t]), torch.cat([times, times]), labels).chunk(2)
        return uncond + scale * (conditional - uncond)

    return guided_denoiser
