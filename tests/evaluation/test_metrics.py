"""Measures against closed forms, other libraries and pictures whose answer is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from diffsteer.evaluation import metrics
from diffsteer.evaluation.metrics import Basis, Extractor, Reference, frechet, frechet_distance, label_accuracy, variety

BASIS = Basis(Extractor("plain", 0, 0.98, 100, "digits"), Reference("digits", 1000, (), True), seed=0)


def normal(count: int, size: int = 6, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale + shift


def with_moments(mean: Tensor, cov: Tensor, count: int = 500) -> Tensor:
    """Features whose sample mean and unbiased covariance are exactly these."""
    x = normal(count, len(mean), seed=3)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(metrics.covariance(x))).T
    return x @ torch.linalg.cholesky(cov).T + mean


# ---- Frechet distance ------------------------------------------------------------------------------------------------


def test_diagonal_gaussians_have_a_closed_form() -> None:
    """|m1 - m2|^2 + sum (s1 - s2)^2."""
    s1, s2 = torch.tensor([1.0, 2.0, 0.5, 3.0]).double(), torch.tensor([2.0, 2.0, 1.0, 0.1]).double()
    m1, m2 = torch.tensor([0.0, 1.0, 2.0, 3.0]).double(), torch.tensor([1.0, 1.0, 0.0, 3.0]).double()
    found = frechet_distance(with_moments(m1, torch.diag(s1**2)), with_moments(m2, torch.diag(s2**2)))
    assert found == pytest.approx(float((m1 - m2).square().sum() + (s1 - s2).square().sum()), rel=1e-9)


@pytest.mark.parametrize("counts", [(300, 200), (40, 50)])  # the second has fewer rows than features: singular covariances
def test_it_is_the_formula_by_scipys_root(counts: tuple[int, int]) -> None:
    mix = normal(64, 64, seed=5)
    a, b = normal(counts[0], 64, seed=1) @ mix, normal(counts[1], 64, seed=2, scale=1.3, shift=0.4)
    one, two = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    root = np.real(scipy.linalg.sqrtm(one @ two + 1e-12 * np.eye(64)))
    mean = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
    assert frechet_distance(a, b) == pytest.approx(mean + np.trace(one + two - 2 * root), rel=1e-5)


def test_it_is_a_distance() -> None:
    a, b = normal(50), normal(80, seed=1, shift=1)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a)) and frechet_distance(a, b) > 1
    assert frechet_distance(a + 1000, b + 1000) == pytest.approx(frechet_distance(a, b), rel=1e-6)
    assert frechet_distance(a.float(), b.float()) == pytest.approx(frechet_distance(a, b), rel=1e-5)


def test_pictures_as_good_as_real_score_their_floor_at_any_count() -> None:
    real = normal(2000)
    for count in (20, 200):
        scored = frechet(normal(count, seed=9), real, BASIS)
        assert scored.count == count
        assert scored.value == pytest.approx(scored.floor, abs=4 * (scored.error + scored.floor_error))
        assert scored.value > 0.02


def test_both_sides_count_the_same_when_real_ones_are_few() -> None:
    assert frechet(normal(500, seed=9), normal(301), BASIS).count == 150


def test_worse_pictures_score_more_and_the_shift_is_found() -> None:
    """A shift of every feature by d adds d^2 per feature."""
    real = normal(4000)
    scored = frechet(normal(1000, seed=9, shift=0.5), real, BASIS)
    assert scored.value - scored.floor == pytest.approx(6 * 0.25, rel=0.15)
    assert scored.value - scored.floor > 5 * (scored.error + scored.floor_error)


def test_the_halves_of_the_floor_share_no_picture() -> None:
    """No two of these pictures are alike, so halves that shared any would be nearer to one another than halves can be."""
    real = torch.eye(8, dtype=torch.float64) * 10
    assert frechet(real, real, BASIS).floor > 10


def test_the_seed_chooses_the_halves_and_nothing_else_does() -> None:
    drawn, real = normal(100, seed=9), normal(300)
    state = torch.random.get_rng_state()
    assert frechet(drawn, real, BASIS) == frechet(drawn, real, BASIS)
    assert torch.equal(state, torch.random.get_rng_state())
    other = Basis(BASIS.extractor, BASIS.reference, seed=1)
    assert frechet(drawn, real, other).floor != frechet(drawn, real, BASIS).floor


def test_the_bootstrap_finds_the_standard_error_of_a_mean() -> None:
    x = normal(400, 1)
    spread = metrics.bootstrap_spread(lambda rows: float(x[rows].mean()), 400, 400, seed=0)
    assert spread == pytest.approx(1 / math.sqrt(400), rel=0.3)


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_accuracy_is_counted_by_hand() -> None:
    asked, found = torch.tensor([0, 0, 0, 2, 2]), torch.tensor([0, 1, 0, 2, 0])
    scored = label_accuracy(found, asked, ("a", "b", "c"), BASIS)
    assert scored.value == 3 / 5 and scored.count == 5
    assert scored.confusion == ((2, 1, 0), (0, 0, 0), (1, 0, 1))
    assert [(one.label, one.value, one.count) for one in scored.classes] == [("a", 2 / 3, 3), ("c", 1 / 2, 2)]
    assert scored.floor == 0.98


def test_the_standard_error_is_the_binomials() -> None:
    assert metrics.standard_error(900, 1000) == pytest.approx(math.sqrt(0.9 * 0.1 / 1000), rel=0.01)
    shares = torch.distributions.Binomial(200, torch.tensor(0.8)).sample((20_000,)) / 200
    assert metrics.standard_error(160, 200) == pytest.approx(shares.std().item(), rel=0.05)
    assert 0 < metrics.standard_error(100, 100) < 0.01


# ---- variety ---------------------------------------------------------------------------------------------------------


def test_the_pair_distance_is_that_of_all_pairs() -> None:
    x = normal(30)
    pairs = torch.pdist(x)
    assert metrics.pair_distance(x) == pytest.approx(pairs.square().mean().sqrt().item())


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


def test_results_are_plain_values_and_say_what_they_rest_on() -> None:
    values = json.loads(json.dumps(frechet(normal(20, seed=1), normal(60), BASIS).to_dict()))
    assert values["count"] == 20 and {"value", "error", "floor", "floor_error"} <= set(values)
    assert values["basis"]["extractor"] == {"architecture": "plain", "seed": 0, "accuracy": 0.98, "held_out": 100, "data": "digits"}
    assert values["basis"]["reference"]["source"] == "digits" and values["basis"]["seed"] == 0
