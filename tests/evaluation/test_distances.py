"""Frechet and kernel distance against closed forms, torchmetrics, scipy and pictures whose answer is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from diffsteer.evaluation import kid as kernels
from diffsteer.evaluation.frechet import frechet, frechet_distance
from diffsteer.evaluation.kid import kernel_distance, kid
from evaluation.features import BASIS, normal

OTHER_SEED = replace(BASIS, seed=1)


def covariance(features: Tensor) -> Tensor:
    return features.T.cov()


def with_moments(mean: Tensor, cov: Tensor, count: int = 500) -> Tensor:
    """Features whose sample mean and unbiased covariance are exactly these."""
    x = normal(count, len(mean), seed=3)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(covariance(x))).T
    return x @ torch.linalg.cholesky(cov).T + mean


class Itself(nn.Module):
    """What torchmetrics asks for features: here its "pictures" are features already."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: Tensor) -> Tensor:
        return features


# ---- Frechet distance ------------------------------------------------------------------------------------------------


def test_diagonal_gaussians_have_a_closed_form() -> None:
    """|m1 - m2|^2 + sum (s1 - s2)^2."""
    s1, s2 = torch.tensor([1.0, 2.0, 0.5, 3.0]).double(), torch.tensor([2.0, 2.0, 1.0, 0.1]).double()
    m1, m2 = torch.tensor([0.0, 1.0, 2.0, 3.0]).double(), torch.tensor([1.0, 1.0, 0.0, 3.0]).double()
    found = frechet_distance(with_moments(m1, torch.diag(s1**2)), with_moments(m2, torch.diag(s2**2)))
    assert found == pytest.approx(float((m1 - m2).square().sum() + (s1 - s2).square().sum()), rel=1e-9)


@pytest.mark.parametrize("counts", [(300, 200), (300, 50), (40, 50)])  # fewer rows than features have singular covariances
def test_it_is_the_formula_by_scipys_root(counts: tuple[int, int]) -> None:
    mix = normal(64, 64, seed=5)
    a, b = normal(counts[0], 64, seed=1) @ mix, normal(counts[1], 64, seed=2, scale=1.3, shift=0.4)
    one, two = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    root = np.real(scipy.linalg.sqrtm(one @ two + 1e-12 * np.eye(64)))
    mean = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
    assert frechet_distance(a, b) == pytest.approx(mean + np.trace(one + two - 2 * root), rel=1e-5)


def test_it_is_torchmetrics_frechet_distance() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = normal(300, 16, seed=1) @ normal(16, 16, seed=5), normal(200, 16, seed=2, scale=1.3, shift=0.4)
    theirs = FrechetInceptionDistance(Itself(16), input_img_size=(16,)).set_dtype(torch.float64)
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert frechet_distance(a, b) == pytest.approx(theirs.compute().item(), rel=1e-7)


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
    assert frechet(normal(500, seed=9), normal(301), BASIS).count == kid(normal(500, seed=9), normal(301), BASIS).count == 150


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


# ---- kernel distance -------------------------------------------------------------------------------------------------


def test_it_is_torchmetrics_kernel_distance() -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = normal(150, 16, seed=1), normal(150, 16, seed=2, scale=1.3, shift=0.4)  # more rows than are taken at a time
    with pytest.warns(UserWarning, match="large memory footprint"):
        theirs = KernelInceptionDistance(Itself(16), subsets=1, subset_size=150)  # one subset of all
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert kernel_distance(a, b) == pytest.approx(theirs.compute()[0].item(), rel=1e-9)


def test_it_is_the_sums_over_pairs() -> None:
    a, b = normal(7, seed=1), normal(5, seed=2, shift=0.5)

    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 6 + 1) ** 3)

    within = [sum(kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j) / (len(s) * (len(s) - 1)) for s in (a, b)]
    across = sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))
    assert kernel_distance(a, b) == pytest.approx(sum(within) - 2 * across, rel=1e-12)


def test_it_has_no_bias_at_few_pictures() -> None:
    """The mean of pictures like real ones is 0, at a count at which the Frechet distance is far from it."""
    pairs = [(normal(10, seed=seed), normal(10, seed=1000 + seed)) for seed in range(300)]
    found = torch.tensor([kernel_distance(a, b) for a, b in pairs])
    assert abs(found.mean()) < 3 * found.std() / 300**0.5
    assert torch.tensor([frechet_distance(a, b) for a, b in pairs]).mean() > 2
    scored = kid(normal(50, seed=9), normal(1000), BASIS)
    assert abs(scored.floor) < 2 * scored.floor_error and abs(scored.value) < 3 * (scored.error + scored.floor_error)


def test_worse_pictures_have_a_larger_kernel_distance() -> None:
    real = normal(2000)
    scored = [kid(normal(200, seed=9, shift=shift), real, BASIS) for shift in (0, 0.3, 0.6)]
    assert scored[0].value < scored[1].value < scored[2].value
    assert scored[2].value > 5 * (scored[2].error + scored[2].floor_error) and scored[2].floor == scored[0].floor


def test_the_kernel_distances_error_is_what_other_drawings_differ_by() -> None:
    real = normal(2000, shift=1)  # far from 0, a kernel is large, and only its differences tell
    scored = [kid(normal(100, seed=seed, shift=1.5), real, BASIS) for seed in range(20, 60)]
    spread = torch.tensor([one.value for one in scored]).std().item()
    errors = torch.tensor([one.error for one in scored]).mean().item()
    assert errors == pytest.approx(spread, rel=0.4)
    few = [kid(normal(100, seed=seed, shift=1.5), real[:100], BASIS) for seed in range(20, 30)]  # 50 a side, chosen among 100 drawn ones
    assert {one.count for one in few} == {50} and torch.tensor([one.error for one in few]).mean() > errors


@pytest.mark.parametrize("measure", [frechet, kid])
def test_where_real_pictures_are_few_the_error_is_of_the_mean_over_parts_of_the_drawn(measure: type) -> None:
    """400 drawn, 50 a side: a value is a mean over ten parts of them, whose errors are no less than half alike."""
    real = normal(100, 6, shift=1)
    scored = [measure(normal(400, 6, seed=seed, shift=1.5), real, BASIS) for seed in range(20, 44)]
    assert {one.count for one in scored} == {50}
    spread = torch.tensor([one.value for one in scored]).std().item()
    errors = torch.tensor([one.error for one in scored]).mean().item()
    assert 0.6 * spread < errors < 1.8 * spread


def test_a_picture_that_is_there_twice_in_a_resample_is_no_pair() -> None:
    """Pictures far apart: a resample that paired one with itself would find them alike, and its distance would jump from 0 to thousands."""
    drawn, real = torch.eye(12, dtype=torch.float64) * 300, torch.zeros(24, 12, dtype=torch.float64)
    found = kid(drawn, real, BASIS)
    assert found.value == pytest.approx(0, abs=1e-9) and found.error < 1e-6
    assert math.isfinite(kid(drawn[:3], real, BASIS).error), "some of its resamples are one picture three times"


def test_no_more_than_rows_of_a_kernel_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, real = normal(60, seed=9), normal(200)
    whole = kid(drawn, real, BASIS)
    monkeypatch.setattr(kernels, "ROWS", 7)
    parts = kid(drawn, real, BASIS)
    assert parts.value == pytest.approx(whole.value, rel=1e-9) and parts.error == pytest.approx(whole.error, rel=1e-9)


# ---- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [frechet, kid])
def test_the_seed_chooses_the_halves_and_nothing_else_does(measure: type) -> None:
    drawn, real = normal(100, seed=9), normal(300)
    state = torch.random.get_rng_state()
    assert measure(drawn, real, BASIS) == measure(drawn, real, BASIS)
    assert torch.equal(state, torch.random.get_rng_state())
    assert measure(drawn, real, OTHER_SEED).floor != measure(drawn, real, BASIS).floor


@pytest.mark.parametrize("measure", [frechet, kid])
def test_features_wider_than_the_pictures_are_many(measure: type) -> None:
    """As Inception's 2,048 are."""
    scored = measure(normal(30, 200, seed=9, shift=0.5), normal(100, 200), BASIS)
    assert scored.value > scored.floor + 3 * (scored.error + scored.floor_error)


def test_results_are_plain_values_and_say_what_they_rest_on() -> None:
    values = json.loads(json.dumps(frechet(normal(20, seed=1), normal(60), BASIS).to_dict()))
    assert values["count"] == 20 and {"value", "error", "floor", "floor_error"} <= set(values)
    extractor = values["basis"]["extractor"]
    assert extractor == {"architecture": "plain", "weights": "0" * 64, "seed": 0, "accuracy": 0.98, "held_out": 100, "data": "digits"}
    told = {"source": "digits", "split": "train", "count": 1000, "classes": [], "learnt": True, "fingerprint": "f" * 64, "size": [8, 8]}
    assert values["basis"]["reference"] == told
    assert values["basis"]["seed"] == 0
