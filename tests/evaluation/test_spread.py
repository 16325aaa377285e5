"""Random halves and resamples: who is in them, and what they tell."""

from __future__ import annotations

import math

import pytest
import torch

from diffsteer.evaluation.brightness import brightness, picture_brightness, wasserstein
from diffsteer.evaluation.spread import LEAST, averaging, bootstrap_spread, halves, mean_and_spread, repeats
from evaluation.features import BASIS, normal


def test_the_bootstrap_finds_the_standard_error_of_a_mean() -> None:
    x = normal(400, 1)
    spread = bootstrap_spread(lambda rows: float(x[rows].mean()), 400, 400, seed=0)
    assert spread == pytest.approx(1 / math.sqrt(400), rel=0.3)


@pytest.mark.parametrize(("drawn", "real", "count"), [(10, 50, 10), (50, 21, 10)])
def test_halves_share_no_real_picture_and_hold_none_twice(drawn: int, real: int, count: int) -> None:
    found = list(halves(drawn, real, 0, "any"))
    assert len(found) == 10
    for half in found:
        assert len(half.drawn) == len(half.drawn.unique()) == count and int(half.drawn.max()) < drawn
        assert len(torch.cat([half.reference, half.other]).unique()) == 2 * count
    assert not torch.equal(found[0].reference, found[1].reference)
    assert all(map(torch.equal, found[3], list(halves(drawn, real, 0, "any"))[3]))


def test_what_is_dear_is_repeated_less_and_never_less_than_a_few_times() -> None:
    assert repeats(50, 1) == 50 and repeats(50, 1e9) == 15 and repeats(50, 1e15) == LEAST


@pytest.mark.parametrize(("count", "drawn", "splits"), [(10, 10, 5), (10, 40, 1), (10, 40, 10), (10, 200, 4)])
def test_the_error_of_a_mean_over_parts_of_the_drawn_is_that_of_one_part_times_averaging(count: int, drawn: int, splits: int) -> None:
    """Of means of normal numbers, over 4,000 drawings."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, drawn, generator=generator, dtype=torch.float64)
    parts = [torch.randperm(drawn, generator=generator)[:count] for _ in range(splits)]
    found = torch.stack([x[:, part].mean(1) for part in parts]).mean(0).std() * math.sqrt(count)
    assert float(found) == pytest.approx(averaging(count, drawn, splits), rel=0.15)


def test_mean_and_spread_are_the_unbiased_ones() -> None:
    assert mean_and_spread([1.0, 2.0, 6.0]) == pytest.approx((3.0, math.sqrt(7)))


# ---- brightness ------------------------------------------------------------------------------------------------------


def test_the_wasserstein_distance_is_the_area_between_the_distribution_functions() -> None:
    a, b = normal(70, 1)[:, 0], normal(70, 1, seed=1, scale=2, shift=1)[:, 0]
    places = torch.cat([a, b]).sort().values
    below = [torch.searchsorted(sample.sort().values, places[:-1], right=True) / 70 for sample in (a, b)]
    assert wasserstein(a, b) == pytest.approx(float(((below[0] - below[1]).abs() * places.diff()).sum()))


def test_a_pictures_brightness_is_the_mean_of_its_values() -> None:
    pictures = torch.stack([torch.zeros(3, 2, 2), torch.full((3, 2, 2), 255.0), torch.arange(12.0).reshape(3, 2, 2)]).to(torch.uint8)
    assert picture_brightness(pictures).tolist() == pytest.approx([0, 1, 5.5 / 255])


def test_drift_to_one_grey_shows_though_the_mean_is_right() -> None:
    real = normal(1000, 1, scale=0.1, shift=0.4)[:, 0]
    drifted, good = (brightness(normal(300, 1, seed=9, scale=scale, shift=0.4)[:, 0], real, BASIS) for scale in (0.02, 0.1))
    assert drifted.mean == pytest.approx(drifted.real_mean, abs=0.01)
    assert drifted.spread == pytest.approx(0.02, rel=0.1) and drifted.real_spread == pytest.approx(0.1, rel=0.1)
    # Between normals of one mean the distance is sqrt(2 / pi) times the difference of their spreads.
    assert drifted.value == pytest.approx(math.sqrt(2 / math.pi) * 0.08, rel=0.1)
    assert drifted.value > drifted.floor + 5 * (drifted.error + drifted.floor_error)
    assert good.value == pytest.approx(good.floor, abs=3 * (good.error + good.floor_error)) and good.count == 300


def test_pictures_that_are_all_darker_lie_apart_by_as_much() -> None:
    real = normal(1000, 1, scale=0.1, shift=0.4)[:, 0]
    assert brightness(real[:500] - 0.2, real, BASIS).value == pytest.approx(0.2, abs=0.02)
