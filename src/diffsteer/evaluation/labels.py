"""Whether pictures are of the class that was asked for, as a judge finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsteer.evaluation.basis import Basis, Result
from diffsteer.evaluation.spread import standard_error


@dataclass(frozen=True)
class ClassAccuracy:
    """How many of the `count` pictures asked to be of `label` are, and the standard error."""

    label: str
    value: float
    error: float
    count: int


@dataclass(frozen=True)
class LabelAccuracy(Result):
    """The share of the `count` drawn pictures that the judge finds to be of the class asked, and its standard error.

    floor: the share of real held-out pictures that the judge tells right: no drawing can be expected to score more.
    classes: those that were asked for, in the order of the labels. confusion: counts, `[asked][found]`.
    """

    classes: tuple[ClassAccuracy, ...]
    confusion: tuple[tuple[int, ...], ...]


def label_accuracy(found: Tensor, asked: Tensor, label_names: Sequence[str], basis: Basis) -> LabelAccuracy:
    """Found ids [N] against the asked ones [N], N > 0, both inside the label names; the basis's extractor is the judge that found them."""
    kinds, judge = len(label_names), basis.extractor
    assert judge is not None and judge.accuracy is not None
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
        floor=judge.accuracy,
        floor_error=standard_error(judge.accuracy * judge.held_out, judge.held_out),
        count=len(asked),
        basis=basis,
        classes=classes,
        confusion=tuple(map(tuple, confusion.tolist())),
    )
