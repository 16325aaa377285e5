"""The kernel distance (KID) of features: a squared distance of two distributions that has no bias, and so tells at few pictures too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsteer.diffusion.seeds import generator_for
from diffsteer.evaluation.basis import Basis, Result
from diffsteer.evaluation.spread import RESAMPLES, SPLITS, averaging, halves, mean_and_spread, repeats, side

ROWS = 128  # of a kernel matrix at a time: its other side may have 10,000 columns, and 128 rows of those fit into a processor's cache


@dataclass(frozen=True)
class Kid(Result):
    """The kernel distance at `count` pictures a side: its mean over random halves of the real ones; `error` by bootstrap.

    It has no bias: pictures like real ones score 0 in the mean, now above and now below, at any count; `floor` shows how far. Values at
    different counts may be compared, those of different extractors not.
    """


def kid(drawn: Tensor, real: Tensor, basis: Basis) -> Kid:
    """Drawn features [N, D] against real ones [M, D], at min(N, M // 2) a side, which must be at least 2."""
    count, size = side(len(drawn), len(real)), drawn.shape[1]
    values, floors = [], []
    to_real, seen = torch.zeros(2, len(drawn), dtype=torch.float64)
    for half in halves(len(drawn), len(real), basis.seed, "kid", repeats(SPLITS, 4 * count**2 * size)):
        mine, reference, other = drawn[half.drawn], real[half.reference], real[half.other]
        within, across = _within(reference), _across(mine, reference)
        values.append(within + _within(mine) - 2 * float(across.mean()))
        floors.append(kernel_distance(other, reference))
        to_real[half.drawn] += across
        seen[half.drawn] += 1
    rows = seen > 0
    error = _bootstrap_error(drawn[rows], to_real[rows] / seen[rows], count, basis.seed)
    error *= averaging(count, len(drawn), len(values))
    floor, floor_error = mean_and_spread(floors)
    return Kid(mean_and_spread(values)[0], error, floor, floor_error, count, basis)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """The unbiased squared MMD of features [N, D] and [M, D], N and M above 1 (Gretton et al. 2012, eq. 3), under the kernel
    (x . y / D + 1)^3 (Binkowski et al. 2018, section 3), in float64.

    Own lines rather than torchmetrics' KernelInceptionDistance, which the tests compare with: that one takes random subsets by torch's
    global generator, and holds whole kernel matrices.
    """
    a, b = a.double(), b.double()
    return _within(a) + _within(b) - 2 * float(_across(a, b).mean())


def _kernel(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the kernel matrix [N, M], `ROWS` at a time: (which, their values)."""
    for start in range(0, len(a), ROWS):
        rows = slice(start, min(start + ROWS, len(a)))
        inner = (a[rows] @ b.T).div_(a.shape[1]).add_(1)
        yield rows, inner.mul_(inner.square())


def _across(a: Tensor, b: Tensor) -> Tensor:
    """For each row of a the mean over all rows of b, [N]."""
    return torch.cat([some.mean(1) for _, some in _kernel(a, b)])


def _within(a: Tensor) -> float:
    """The mean over all pairs of different rows."""
    everything = sum(float(some.sum()) for _, some in _kernel(a, a))
    return (everything - float(_itself(a).sum())) / (len(a) * (len(a) - 1))


def _itself(a: Tensor) -> Tensor:
    """The kernel of every row with itself, [N]."""
    return (a.square().sum(1) / a.shape[1] + 1) ** 3


def _bootstrap_error(drawn: Tensor, to_real: Tensor, count: int, seed: int) -> float:
    """The standard deviation of the distance over resamples, `count` of the drawn rows [N, D] each; to_real: each row's mean kernel with
    the real pictures, [N].

    A resample is how often each row is in it, so that all resamples share the kernel's values. A row is never paired with itself, twice
    though it may be there: that pair would look like two pictures that are the same.
    """
    generator = generator_for(seed, "bootstrap")
    resamples = repeats(RESAMPLES, 2 * len(drawn) ** 2 * drawn.shape[1])
    chosen = [torch.randint(len(drawn), (count,), generator=generator) for _ in range(resamples)]
    times = torch.stack([rows.bincount(minlength=len(drawn)) for rows in chosen], 1).double()  # [N, resamples]
    pairs = torch.zeros(resamples, dtype=torch.float64)
    for rows, some in _kernel(drawn, drawn):
        pairs += (times[rows] * (some @ times)).sum(0)
    squares = times.square()
    of_two = (pairs - squares.T @ _itself(drawn)) / (count**2 - squares.sum(0))
    found = of_two - 2 * (to_real @ times) / count
    return float(found[found.isfinite()].std())  # a resample of few that is all one picture has no pair
