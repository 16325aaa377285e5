"""Precision, recall, density and coverage: whether drawn pictures lie among real ones, and real ones among the drawn.

A picture's ball reaches to its k-th nearest neighbour of its own kind; to lie among pictures is to lie in one of their balls.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffsteer.diffusion.seeds import generator_for
from diffsteer.evaluation.basis import Basis, Result
from diffsteer.evaluation.spread import RESAMPLES, SPLITS, averaging, halves, mean_and_spread, repeats, side

K_PRECISION, K_DENSITY = 3, 5  # as in the papers
FEWEST = 2 * (K_DENSITY + 1)  # pictures a side: half of them still have so many neighbours
ROWS = 128  # of a matrix of distances at a time
SAME = 1e-10  # of the mean square of features: nearer than that, squared, is the same picture, seen in another batch


class Shares(NamedTuple):
    """precision: the share of drawn pictures that lie in a real one's ball of k = 3; recall: of real ones in a drawn one's (Kynkaanniemi
    et al. 2019, eq. 1). density: in how many real balls of k = 5 a drawn picture lies, over k, 1 being what real ones do (Naeem et al.
    2020, eq. 4); coverage: the share of real balls of k = 5 with a drawn picture inside (eq. 5)."""

    precision: float
    recall: float
    density: float
    coverage: float


class Neighbours(NamedTuple):
    """What `Shares` says, each with what other real pictures score at the same count (`floor`); all depend on the count.

    A value is the mean over random halves of the real pictures. Its error is the spread over random halves of the drawn ones, without
    replacement: a picture that is there twice would be its own neighbour. For a mean that is its standard error (Shao & Wu 1989); for
    coverage near 1, which fewer pictures change more, it is two to three times too large.
    """

    precision: Result
    recall: Result
    density: Result
    coverage: Result


def neighbours(drawn: Tensor, real: Tensor, basis: Basis) -> Neighbours | None:
    """Drawn features [N, D] against real ones [M, D] at min(N, M // 2) a side; None where that is below 12: too few for a neighbourhood."""
    count, work = side(len(drawn), len(real)), drawn.shape[1] * side(len(drawn), len(real)) ** 2
    if count < FEWEST:
        return None
    splits = list(halves(len(drawn), len(real), basis.seed, "neighbours", repeats(SPLITS, 5 * work)))
    references = [Balls.of(real[half.reference]) for half in splits]
    values = [shares(Balls.of(drawn[half.drawn]), reference) for half, reference in zip(splits, references, strict=True)]
    floors = [shares(Balls.of(real[half.other]), reference) for half, reference in zip(splits, references, strict=True)]
    generator, resampled = generator_for(basis.seed, "neighbours", "resamples"), []
    for _ in range(repeats(RESAMPLES, len(splits) * work)):
        some = Balls.of(drawn[torch.randperm(len(drawn), generator=generator)[: count // 2]])
        resampled.append(torch.tensor([shares(some, reference) for reference in references], dtype=torch.float64).mean(0))
    # Half of all spreads as all would; half of `count` among more spreads wider, by this root.
    errors = torch.stack(resampled).std(0) / math.sqrt(2 - count / len(drawn)) * averaging(count, len(drawn), len(splits))
    return Neighbours(*map(_result, zip(*values, strict=True), errors.tolist(), zip(*floors, strict=True), [count] * 4, [basis] * 4))


def _result(values: Sequence[float], error: float, floors: Sequence[float], count: int, basis: Basis) -> Result:
    return Result(mean_and_spread(values)[0], error, *mean_and_spread(floors), count, basis)


class Balls(NamedTuple):
    """Features [N, D], and the squared distances [N] to the third and to the fifth nearest of the others."""

    centres: Tensor
    third: Tensor
    fifth: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Balls:
        """N above 5."""
        # The nearest of all is the picture itself.
        nearest = torch.cat([some.topk(K_DENSITY + 1, largest=False).values for _, some in squared_distances(features, features)])
        return cls(features, nearest[:, K_PRECISION], nearest[:, K_DENSITY])


def shares(drawn: Balls, real: Balls) -> Shares:
    """Of any counts, both sides at least 6."""
    among = torch.zeros(len(drawn.centres), dtype=torch.bool)
    inside = recalled = covered = 0
    for rows, squared in squared_distances(real.centres, drawn.centres):
        among |= (squared <= real.third[rows, None]).any(0)
        in_ball = (squared <= real.fifth[rows, None]).sum(1)
        inside += int(in_ball.sum())
        covered += int((in_ball > 0).sum())
        recalled += int((squared <= drawn.third).any(1).sum())
    density, count = inside / (K_DENSITY * len(among)), len(real.centres)
    return Shares(float(among.double().mean()), recalled / count, density, covered / count)


def squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the squared distances [N, M] of features [N, D] and [M, D], 128 at a time: (which, their values), float64.

    The same picture is at distance 0 however its features were rounded.
    """
    middle = b.mean(0)  # distances stay, and fewer digits are lost
    a, b = a.double() - middle, b.double() - middle
    lengths_a, lengths_b = a.square().sum(1), b.square().sum(1)
    least = SAME * float(lengths_b.mean())
    for start in range(0, len(a), ROWS):
        rows = slice(start, min(start + ROWS, len(a)))
        squared = (a[rows] @ b.T).mul_(-2).add_(lengths_a[rows, None]).add_(lengths_b)
        yield rows, squared.masked_fill_(squared < least, 0)
