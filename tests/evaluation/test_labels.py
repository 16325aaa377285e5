"""Accuracy counted by hand and by the binomial; variety against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from diffsteer.evaluation.labels import label_accuracy
from diffsteer.evaluation.spread import standard_error
from diffsteer.evaluation.variety import pair_distance, variety
from evaluation.features import BASIS, normal

# ---- labels ----------------------------------------------------------------------------------------------------------


def test_accuracy_is_counted_by_hand() -> None:
    asked, found = torch.tensor([0, 0, 0, 2, 2]), torch.tensor([0, 1, 0, 2, 0])
    scored = label_accuracy(found, asked, ("a", "b", "c"), BASIS)
    assert scored.value == 3 / 5 and scored.count == 5
    assert scored.confusion == ((2, 1, 0), (0, 0, 0), (1, 0, 1))
    assert [(one.label, one.value, one.count) for one in scored.classes] == [("a", 2 / 3, 3), ("c", 1 / 2, 2)]
    assert scored.floor == 0.98


def test_the_standard_error_is_the_binomials() -> None:
    assert standard_error(900, 1000) == pytest.approx(math.sqrt(0.9 * 0.1 / 1000), rel=0.01)
    shares = torch.distributions.Binomial(200, torch.tensor(0.8)).sample((20_000,)) / 200
    assert standard_error(160, 200) == pytest.approx(shares.std().item(), rel=0.05)
    assert 0 < standard_error(100, 100) < 0.01


# ---- variety ---------------------------------------------------------------------------------------------------------


def test_the_pair_distance_is_that_of_all_pairs() -> None:
    x = normal(30)
    pairs = torch.pdist(x)
    assert pair_distance(x) == pytest.approx(pairs.square().mean().sqrt().item())


def test_half_as_far_apart_is_half_the_variety() -> None:
    real, labels = normal(400), torch.arange(400) % 2
    centres = torch.tensor([[0.0], [50.0]]).double()  # how far classes lie apart has no part in it
    scored = variety(real * 0.5 + centres[labels], labels, real + centres[labels], labels, BASIS)
    assert scored is not None
    assert scored.value == pytest.approx(0.5) and scored.classes == 2 and scored.count == 400
    assert scored.floor == pytest.approx(1, abs=0.05)


def test_one_picture_again_and_again_has_no_variety() -> None:
    drawn = normal(1).expand(20, -1)
    scored = variety(drawn, torch.zeros(20, dtype=torch.int64), normal(100), torch.zeros(100, dtype=torch.int64), BASIS)
    assert scored is not None and scored.value == 0 and scored.error == 0


def test_the_error_of_variety_is_what_other_drawings_differ_by() -> None:
    real, ones = normal(5000), torch.zeros(5000, dtype=torch.int64)
    scored = [variety(normal(50, seed=seed), ones[:50], real, ones, BASIS) for seed in range(20, 50)]
    values = torch.tensor([one.value for one in scored if one is not None])
    assert scored[0] is not None and scored[0].error == pytest.approx(values.std().item(), rel=0.5)


def test_classes_with_too_few_pictures_are_left_out() -> None:
    drawn, real = normal(5), normal(103)
    labels, real_labels = torch.tensor([0, 0, 1, 2, 2]), torch.cat([torch.zeros(100), torch.full((3,), 2)]).long()
    scored = variety(drawn, labels, real, real_labels, BASIS)
    assert scored is not None and (scored.classes, scored.count) == (1, 2)
    assert variety(drawn[2:], labels[2:], real, real_labels, BASIS) is None
