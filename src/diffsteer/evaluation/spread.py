"""How far numbers spread: random halves of the real pictures for a value and its floor, resamples of the drawn ones for its error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffsteer.diffusion.seeds import generator_for

SPLITS = 10  # random halves of the real pictures
RESAMPLES = 50  # of the drawn pictures
LEAST = 4  # repeats of a measure that is dear: an error from 4 of them is itself known to about 40 %
WORK = 1.5e10  # multiplications up to which a measure is repeated as often as it would be: a few seconds of a CPU core


class Half(NamedTuple):
    """Row numbers, `count` each: drawn pictures, the real ones they are compared with, and other real ones in the drawn ones' place."""

    drawn: Tensor
    reference: Tensor
    other: Tensor


def side(drawn: int, real: int) -> int:
    """Pictures a side: all that are drawn, at most half of the real ones."""
    return min(drawn, real // 2)


def halves(drawn: int, real: int, seed: int, purpose: str, splits: int = SPLITS) -> Iterator[Half]:
    """`splits` random choices of `side(drawn, real)` pictures a side; reference and other share none. A function of (seed, purpose)."""
    count = side(drawn, real)
    for split in range(splits):
        generator = generator_for(seed, purpose, split)
        mine = torch.randperm(drawn, generator=generator)[:count]
        order = torch.randperm(real, generator=generator)
        yield Half(mine, order[:count], order[count : 2 * count])


def repeats(most: int, work: float) -> int:
    """How often to repeat what takes `work` multiplications: `most` times, fewer where that is dear, at least `LEAST` times.

    A function of sizes alone: the same pictures have the same scores on every machine.
    """
    return max(LEAST, min(most, int(WORK / work)))


def bootstrap_spread(measure: Callable[[Tensor], float], rows: int, count: int, seed: int, resamples: int = RESAMPLES) -> float:
    """The standard deviation of `measure` over resamples: `count` of `rows` row numbers, drawn with replacement, int64 [count]."""
    generator = generator_for(seed, "bootstrap")
    return mean_and_spread([measure(torch.randint(rows, (count,), generator=generator)) for _ in range(resamples)])[1]


def averaging(count: int, drawn: int, splits: int) -> float:
    """The standard error of a mean over `splits` random choices of `count` among `drawn` pictures, over that of one choice.

    Two choices share a part f = count / drawn of their pictures, so what they measure correlates by f (exactly so for a mean), and the
    mean of k of them has the variance f + (1 - f) / k: 1 where all the drawn are taken.
    """
    share = count / drawn
    return math.sqrt(share + (1 - share) / splits)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (unbiased variance) of at least two numbers."""
    numbers = torch.tensor(values, dtype=torch.float64)
    return float(numbers.mean()), float(numbers.std())


def standard_error(hits: float, count: int) -> float:
    """Of a share of `count`, sqrt(p (1 - p) / count). p is (hits + 1/2) / (count + 1), so that all right is not without error."""
    share = (hits + 0.5) / (count + 1)
    return math.sqrt(share * (1 - share) / count)
