"""Measures of drawn pictures against real ones, each with its error and with what real pictures score: its floor.

In: a judge's features float64 [N, D] and label ids int64 [N]. Out: small frozen results that say what they rest on. Called by `report.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from diffsteer.diffusion.judge import JudgeSpec
from diffsteer.diffusion.seeds import generator_for

SPLITS = 10  # random halves of the real pictures
RESAMPLES = 50  # of the drawn pictures, with replacement


# ---- what a number rests on ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extractor:
    """The judge that looked: an accuracy of `accuracy` on `held_out` pictures of `data` it had not learnt from."""

    architecture: str
    seed: int
    accuracy: float
    held_out: int
    data: str


@dataclass(frozen=True)
class Reference:
    """The real pictures compared with: `count` pictures of `source` (its training split unless it was opened otherwise).

    classes: the classes they were taken from, empty for all. learnt: whether the judge learnt from these very pictures.
    """

    source: str
    count: int
    classes: tuple[str, ...]
    learnt: bool


@dataclass(frozen=True)
class Basis:
    """Who looked, at what, and the seed of the random halves and resamples."""

    extractor: Extractor
    reference: Reference
    seed: int


def extractor_of(spec: JudgeSpec) -> Extractor:
    """A judge as results name it."""
    return Extractor(spec.architecture, spec.seed, spec.accuracy, spec.held_out, spec.data_source)


@dataclass(frozen=True)
class _Result:
    """A value, what real pictures score in the drawn ones' place (`floor`), the standard error of both, and how many were drawn."""

    value: float
    error: float
    floor: float
    floor_error: float
    count: int
    basis: Basis

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


# ---- Frechet distance ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frechet(_Result):
    """The Frechet distance at `count` pictures a side, 0 the best: its mean over random halves of the real ones; `error` by bootstrap.

    floor: other real pictures in place of the drawn ones, at the same count. The distance of few pictures comes out too large, by the
    same for both, so what tells is how far `value` is above `floor`; values at different counts are not to be compared.
    """


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The distance of two sets of features [N, D] and [M, D], each at least two rows, read as Gaussians (Heusel et al. 2017, eq. 6):

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), with A and B the unbiased covariances, in float64. The trace of the root is the sum
    of the singular values of A^(1/2) B^(1/2), each root by eigenvalues: no root of a matrix that is not symmetric is taken.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = covariance(a), covariance(b)
    overlap = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap
    return max(0.0, float(distance))


def covariance(features: Tensor) -> Tensor:
    """Unbiased, [D, D], of features [N, D] with N > 1."""
    centred = features - features.mean(0)
    return centred.T @ centred / (len(features) - 1)


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a symmetric matrix without negative eigenvalues; those of rounding are taken for 0."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet(drawn: Tensor, real: Tensor, basis: Basis) -> Frechet:
    """Drawn features [N, D] against real ones [M, D], at min(N, M // 2) a side, which must be at least 2."""
    count = min(len(drawn), len(real) // 2)
    values, floors = [], []
    for split in range(SPLITS):
        generator = generator_for(basis.seed, "frechet", split)
        mine = drawn[torch.randperm(len(drawn), generator=generator)[:count]]
        order = torch.randperm(len(real), generator=generator)
        reference, other = real[order[:count]], real[order[count : 2 * count]]
        values.append(frechet_distance(mine, reference))
        floors.append(frechet_distance(other, reference))
    error = bootstrap_spread(lambda rows: frechet_distance(drawn[rows], reference), len(drawn), count, basis.seed)
    floor, floor_error = mean_and_spread(floors)
    return Frechet(mean_and_spread(values)[0], error, floor, floor_error, count, basis)


# ---- labels ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassAccuracy:
    """How many of the `count` pictures asked to be of `label` are, and the standard error."""

    label: str
    value: float
    error: float
    count: int


@dataclass(frozen=True)
class LabelAccuracy(_Result):
    """The share of pictures that the judge finds to be of the class asked, and its standard error.

    floor: the share of real held-out pictures that the judge tells right: no drawing can be expected to score more.
    classes: those that were asked for, in the order of the labels. confusion: counts, `[asked][found]`.
    """

    classes: tuple[ClassAccuracy, ...]
    confusion: tuple[tuple[int, ...], ...]


def label_accuracy(found: Tensor, asked: Tensor, label_names: Sequence[str], basis: Basis) -> LabelAccuracy:
    """Found ids [N] against the asked ones [N], N > 0, both inside the label names."""
    kinds, extractor = len(label_names), basis.extractor
    confusion = torch.bincount(asked * kinds + found, minlength=kinds * kinds).reshape(kinds, kinds)
    right, counts = confusion.diagonal().tolist(), confusion.sum(1).tolist()
    classes = tuple(
        ClassAccuracy(name, hits / count, standard_error(hits, count), count)
        for name, hits, count in zip(label_names, right, counts, strict=True)
        if count
    )
    return LabelAccuracy(
        value=sum(right) / len(asked),
        error=standard_error(sum(right), len(asked)),
        floor=extractor.accuracy,
        floor_error=standard_error(extractor.accuracy * extractor.held_out, extractor.held_out),
        count=len(asked),
        basis=basis,
        classes=classes,
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def standard_error(hits: float, count: int) -> float:
    """Of a share of `count`, sqrt(p (1 - p) / count). p is (hits + 1/2) / (count + 1), so that all right is not without error."""
    share = (hits + 0.5) / (count + 1)
    return math.sqrt(share * (1 - share) / count)


# ---- variety ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variety(_Result):
    """How far apart drawn pictures of one class are, over how far apart real ones are: 1 is as varied as real, 0 all the same.

    The distance is the root of the mean squared distance of features over all pairs; the ratio is the mean over `classes` classes.
    `error` by bootstrap; `floor` is other real pictures in place of the drawn ones.
    """

    classes: int


def variety(drawn: Tensor, drawn_labels: Tensor, real: Tensor, real_labels: Tensor, basis: Basis) -> Variety | None:
    """Features [N, D] and [M, D] with their label ids. None unless some class has two drawn pictures and four real ones."""
    pairs = [(drawn[drawn_labels == label], real[real_labels == label]) for label in drawn_labels.unique().tolist()]
    pairs = [(mine, theirs) for mine, theirs in pairs if len(mine) > 1 and len(theirs) > 3]
    if not pairs:
        return None
    ratios = [pair_distance(mine) / _apart(theirs) for mine, theirs in pairs]
    errors = [_resampled(mine, basis.seed) / _apart(theirs) for mine, theirs in pairs]
    floors = []
    for split in range(SPLITS):
        generator = generator_for(basis.seed, "variety", split)
        floors.append(sum(_real_ratio(theirs, len(mine), generator) for mine, theirs in pairs) / len(pairs))
    # Classes are resampled apart from one another, so their errors add as squares.
    error = math.hypot(*errors) / len(pairs)
    floor, floor_error = mean_and_spread(floors)
    count = sum(len(mine) for mine, _ in pairs)
    return Variety(sum(ratios) / len(pairs), error, floor, floor_error, count, basis, len(pairs))


def pair_distance(features: Tensor) -> float:
    """The root of the mean squared distance between two different rows of [N, D], N > 1, which is sqrt(2 tr covariance)."""
    return math.sqrt(2 * float(features.var(0).sum()))


def _real_ratio(real: Tensor, count: int, generator: torch.Generator) -> float:
    order = torch.randperm(len(real), generator=generator)
    count = min(count, len(real) // 2)
    return pair_distance(real[order[:count]]) / _apart(real[order[count:]])


def _apart(real: Tensor) -> float:
    return max(pair_distance(real), 1e-12)  # real pictures that are all the same leave nothing to divide by


def _resampled(features: Tensor, seed: int) -> float:
    return bootstrap_spread(lambda rows: pair_distance(features[rows]), len(features), len(features), seed)


# ---- spread ----------------------------------------------------------------------------------------------------------


def bootstrap_spread(measure: Callable[[Tensor], float], rows: int, count: int, seed: int) -> float:
    """The standard deviation of `measure` over resamples: `count` of `rows` row numbers, drawn with replacement, int64 [count]."""
    generator = generator_for(seed, "bootstrap")
    return mean_and_spread([measure(torch.randint(rows, (count,), generator=generator)) for _ in range(RESAMPLES)])[1]


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (unbiased variance) of at least two numbers."""
    numbers = torch.tensor(values, dtype=torch.float64)
    return float(numbers.mean()), float(numbers.std())
