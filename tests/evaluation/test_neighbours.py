"""Precision, recall, density and coverage against the papers' definitions, closed forms and pictures whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffsteer.evaluation import neighbours as module
from diffsteer.evaluation.neighbours import Balls, Shares, neighbours, shares, squared_distances
from evaluation.features import BASIS, normal


def told(drawn: Tensor, real: Tensor) -> Shares:
    return shares(Balls.of(drawn), Balls.of(real))


def by_the_papers(drawn: Tensor, real: Tensor) -> Shares:
    """Kynkaanniemi et al. 2019, equations 1 and 2, at k = 3, and Naeem et al. 2020, equations 4 and 5, at k = 5, a loop a sum."""

    def distance(a: Tensor, b: Tensor) -> float:
        return math.dist(a.tolist(), b.tolist())

    def reach(those: Tensor, at: int, k: int) -> float:
        return sorted(distance(those[at], other) for place, other in enumerate(those) if place != at)[k - 1]

    def in_manifold(one: Tensor, those: Tensor) -> bool:
        return any(distance(one, other) <= reach(those, place, 3) for place, other in enumerate(those))

    inside = [[distance(mine, theirs) <= reach(real, at, 5) for at, theirs in enumerate(real)] for mine in drawn]
    return Shares(
        precision=sum(in_manifold(mine, real) for mine in drawn) / len(drawn),
        recall=sum(in_manifold(theirs, drawn) for theirs in real) / len(real),
        density=sum(map(sum, inside)) / (5 * len(drawn)),
        coverage=sum(any(row[at] for row in inside) for at in range(len(real))) / len(real),
    )


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.5), (0.5, 0.0), (1.0, 1.0)])
def test_they_are_what_the_papers_define(scale: float, shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, real = normal(23, 3, seed=1, scale=scale, shift=shift), normal(19, 3, seed=2)
    theirs = by_the_papers(drawn, real)
    assert 0.1 < min(theirs.precision, theirs.recall, theirs.coverage) < 1
    assert told(drawn, real) == pytest.approx(theirs, abs=1e-12)
    monkeypatch.setattr(module, "ROWS", 7)
    assert told(drawn, real) == pytest.approx(theirs, abs=1e-12)


def test_the_same_pictures_have_all() -> None:
    same = normal(50)
    found = told(same, same.flip(0))
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density > 1  # each lies in the balls of its neighbours and in its own


def test_the_same_picture_in_other_batches_is_the_same_picture() -> None:
    """Networks round otherwise in another batch. Here every real picture is there six times: a ball has no extent but for that."""
    real = normal(8, 64, shift=3).repeat(6, 1)
    rounded = (real * (1 + 1e-7 * normal(48, 64, seed=3))).float().double()
    assert told(rounded[:8].repeat(6, 1), real)[:2] == (1, 1)


def test_pictures_of_another_world_have_nothing() -> None:
    assert told(normal(50), normal(50, seed=1, shift=100)) == (0, 0, 0, 0)


def test_a_dropped_mode_costs_recall_and_coverage_and_not_precision() -> None:
    centres = torch.tensor([[0.0], [40.0]]).double()
    real = normal(400) + centres[torch.arange(400) % 2]
    found, lost = told(normal(400, seed=1) + centres[torch.arange(400) % 2], real), told(normal(400, seed=1), real)
    assert found.precision > 0.8 and lost.precision == pytest.approx(found.precision, abs=0.05)
    assert found.recall > 0.8 and lost.recall == pytest.approx(found.recall / 2, abs=0.06)
    assert found.coverage > 0.9 and lost.coverage == pytest.approx(0.5, abs=0.02)


def test_outliers_cost_precision_and_density_as_many_as_they_are() -> None:
    real, good = normal(400), normal(400, seed=1)
    planted = torch.cat([good[:300], normal(100, seed=2, shift=30)])
    before, after = told(good, real), told(planted, real)
    assert after.precision == pytest.approx(0.75 * before.precision, abs=0.03)
    assert after.density == pytest.approx(0.75 * before.density, abs=0.05)


def test_a_real_outlier_deceives_precision_and_not_density() -> None:
    """Naeem et al. 2020, figure 1: the ball of one real picture far from the others swallows what is drawn anywhere near."""
    real = torch.cat([normal(100), torch.full((1, 6), 40.0).double()])
    drawn = normal(100, seed=1, shift=30)
    found = told(drawn, real)
    assert found.precision == 1 and found.density <= 1 / 5 and found.coverage == 1 / 101


def test_pictures_like_real_ones_score_the_papers_expectation() -> None:
    """Naeem et al. 2020, section 3.3: density 1, and coverage 1 - (N - 1)...(N - k) / ((M + N - 1)...(M + N - k)), in every space."""
    count = 40
    expected = 1 - math.prod((count - step) / (2 * count - step) for step in range(1, 6))
    for size in (2, 64):
        found = [told(normal(count, size, seed=seed), normal(count, size, seed=500 + seed)) for seed in range(100)]
        density, coverage = (torch.tensor([getattr(one, name) for one in found]) for name in ("density", "coverage"))
        assert density.mean().item() == pytest.approx(1, abs=4 * density.std().item() / 10)
        assert coverage.mean().item() == pytest.approx(expected, abs=4 * coverage.std().item() / 10)


def test_squared_distances_are_cdists() -> None:
    a, b = normal(300, 64, shift=50), normal(200, 64, seed=1, shift=50)
    found = torch.cat([some for _, some in squared_distances(a, b)])
    torch.testing.assert_close(found, torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square(), rtol=1e-9, atol=1e-9)


# ---- with errors and floors ------------------------------------------------------------------------------------------


def test_pictures_as_good_as_real_score_their_floor() -> None:
    found = neighbours(normal(200, seed=9), normal(1000), BASIS)
    assert found is not None
    for result in found:
        assert result.count == 200 and 0 < result.error < 0.1 and 0 < result.floor_error < 0.1
        assert result.value == pytest.approx(result.floor, abs=4 * (result.error + result.floor_error))
    assert found.coverage.floor == pytest.approx(1 - 2**-5, abs=0.02)


@pytest.mark.parametrize("real_count", [1000, 80])  # with 80, 40 a side of 60 drawn
def test_errors_are_what_other_drawings_differ_by(real_count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 16)
    real = normal(real_count)
    found = [neighbours(normal(60, seed=seed, shift=0.3), real, BASIS) for seed in range(20, 45)]
    for name, most in (("precision", 1.6), ("recall", 1.6), ("density", 1.6), ("coverage", 3.0)):
        results = [getattr(one, name) for one in found]
        spread = torch.tensor([one.value for one in results]).std().item()
        told_error = torch.tensor([one.error for one in results]).mean().item()
        assert 0.6 < told_error / spread < most, (name, told_error, spread)


def test_too_few_pictures_have_no_neighbourhood() -> None:
    assert neighbours(normal(11, seed=1), normal(100), BASIS) is None
    assert neighbours(normal(100, seed=1), normal(23), BASIS) is None
    assert neighbours(normal(12, seed=1), normal(24), BASIS) is not None


def test_they_are_a_function_of_the_seed() -> None:
    drawn, real = normal(40, seed=9), normal(200)
    assert neighbours(drawn, real, BASIS) == neighbours(drawn, real, BASIS) != neighbours(drawn, real, replace(BASIS, seed=1))
