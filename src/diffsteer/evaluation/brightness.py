"""How bright pictures are, one by one: drift to grey or to black shows here even where the mean of all is right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsteer.evaluation.basis import Basis, Result
from diffsteer.evaluation.spread import averaging, bootstrap_spread, halves, mean_and_spread, side

SOME = 64  # pictures at a time


@dataclass(frozen=True)
class Brightness(Result):
    """The 1-Wasserstein distance between the mean brightnesses of drawn and of real pictures: how far each would have to be moved, in the
    mean, 0 the best; the mean over random halves of the real ones, `error` by bootstrap, `floor` of other real ones. No network looks.

    mean, spread: of the drawn pictures' mean brightnesses, 0 black and 1 white (spread is the standard deviation from picture to
    picture); real_mean, real_spread: of the real ones'. Pictures that all drift to one grey keep the mean, and lose the spread.
    """

    mean: float
    spread: float
    real_mean: float
    real_spread: float


def brightness(drawn: Tensor, real: Tensor, basis: Basis) -> Brightness:
    """Mean brightnesses [N] and [M], float64, of drawn and of real pictures; min(N, M // 2) must be at least 2."""
    count = side(len(drawn), len(real))
    values, floors = [], []
    for half in halves(len(drawn), len(real), basis.seed, "brightness"):
        values.append(wasserstein(drawn[half.drawn], real[half.reference]))
        floors.append(wasserstein(real[half.other], real[half.reference]))
    error = bootstrap_spread(lambda rows: wasserstein(drawn[rows], real[half.reference]), len(drawn), count, basis.seed)
    error *= averaging(count, len(drawn), len(values))
    floor, floor_error = mean_and_spread(floors)
    moments = (*mean_and_spread(drawn.tolist()), *mean_and_spread(real.tolist()))
    return Brightness(mean_and_spread(values)[0], error, floor, floor_error, count, basis, *moments)


def wasserstein(a: Tensor, b: Tensor) -> float:
    """The 1-Wasserstein distance of two samples [N] of as many numbers: in one dimension, of those in order."""
    return float((a.sort().values - b.sort().values).abs().mean())


def picture_brightness(pictures: Tensor) -> Tensor:
    """The mean of each picture's values, [N] float64, 0 black and 1 white, of pictures uint8 [N, C, H, W]."""
    return picture_means(pictures).mean(1) / 255


def picture_means(pictures: Tensor) -> Tensor:
    """The mean of each picture's values by channel, [N, C] float64, 0 to 255; some pictures at a time, for float64 takes eight times
    their memory."""
    return torch.cat([some.double().mean((2, 3)) for some in pictures.split(SOME)])
