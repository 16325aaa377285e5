"""How varied drawn pictures of one class are, beside real ones of that class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsteer.diffusion.seeds import generator_for
from diffsteer.evaluation.basis import Basis, Result
from diffsteer.evaluation.spread import SPLITS, bootstrap_spread, mean_and_spread


@dataclass(frozen=True)
class Variety(Result):
    """How far apart drawn pictures of one class are, over how far apart real ones are: 1 is as varied as real, 0 all the same.

    The distance is the root of the mean squared distance of features over all pairs; the ratio is the mean over `classes` classes, each
    with all its real pictures. `error` by bootstrap; `floor` is other real pictures in place of the drawn ones.
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
