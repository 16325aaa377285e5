"""The Frechet distance of features: how far mean and covariance of drawn pictures lie from those of real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffsteer.evaluation.basis import Basis, Result
from diffsteer.evaluation.spread import RESAMPLES, SPLITS, averaging, bootstrap_spread, halves, mean_and_spread, repeats, side


@dataclass(frozen=True)
class Frechet(Result):
    """The Frechet distance at `count` pictures a side, 0 the best: its mean over random halves of the real ones; `error` by bootstrap.

    floor: other real pictures in place of the drawn ones, at the same count. The distance of few pictures comes out too large, by the
    same for both, so what tells is how far `value` is above `floor`; values at different counts are not to be compared.
    """


def frechet(drawn: Tensor, real: Tensor, basis: Basis) -> Frechet:
    """Drawn features [N, D] against real ones [M, D], at min(N, M // 2) a side, which must be at least 2."""
    count = side(len(drawn), len(real))
    work = 20 * min(count, drawn.shape[1]) ** 3  # of the singular values
    values, floors = [], []
    for half in halves(len(drawn), len(real), basis.seed, "frechet", repeats(SPLITS, work)):
        reference = _moments(real[half.reference])
        values.append(_distance(_moments(drawn[half.drawn]), reference))
        floors.append(_distance(_moments(real[half.other]), reference))
    error = bootstrap_spread(
        lambda rows: _distance(_moments(drawn[rows]), reference), len(drawn), count, basis.seed, repeats(RESAMPLES, work)
    )
    floor, floor_error = mean_and_spread(floors)
    error *= averaging(count, len(drawn), len(values))
    return Frechet(mean_and_spread(values)[0], error, floor, floor_error, count, basis)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The distance of two sets of features [N, D] and [M, D], each at least two rows, read as Gaussians (Heusel et al. 2017, eq. 6):

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), with A and B the unbiased covariances, in float64. With any factors of
    A = F^T F and B = G^T G, the trace of the root is the sum of the singular values of F G^T: no root of a matrix that is not symmetric
    is taken, and N below D costs N^3 rather than D^3. torchmetrics' FrechetInceptionDistance, which the tests compare with, keeps no
    features, and so could give no error.
    """
    return _distance(_moments(a.double()), _moments(b.double()))


class _Moments(NamedTuple):
    """mean [D], trace of the covariance, and a factor F [min(N, D), D] of the covariance F^T F."""

    mean: Tensor
    trace: Tensor
    factor: Tensor


def _moments(features: Tensor) -> _Moments:
    mean = features.mean(0)
    rows = (features - mean) / (len(features) - 1) ** 0.5
    return _Moments(mean, rows.square().sum(), rows if len(rows) < rows.shape[1] else _root(rows.T @ rows))


def _distance(a: _Moments, b: _Moments) -> float:
    overlap = torch.linalg.svdvals(a.factor @ b.factor.T).sum()
    return max(0.0, float((a.mean - b.mean).square().sum() + a.trace + b.trace - 2 * overlap))


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a symmetric matrix without negative eigenvalues; those of rounding are taken for 0."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
