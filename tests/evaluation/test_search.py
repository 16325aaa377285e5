"""The search over strength, on merits with a known best."""

from __future__ import annotations

import math

import pytest

from diffsteer.evaluation.search import best_factor


@pytest.mark.parametrize("best", [2.0**k for k in range(-4, 5)])
def test_a_single_peak_is_found_and_nothing_is_tried_twice(best: float) -> None:
    tried: list[float] = []

    def merit(factor: float) -> float:
        tried.append(factor)
        return -abs(math.log2(factor / best))

    assert best_factor(merit) == best
    assert len(set(tried)) == len(tried) <= 4 + 3


@pytest.mark.parametrize(("slope", "end"), [(1.0, 16.0), (-1.0, 1 / 16)])
def test_it_ends_at_its_ends(slope: float, end: float) -> None:
    assert best_factor(lambda factor: slope * factor) == end


def test_of_equals_the_weaker_is_kept() -> None:
    assert best_factor(lambda factor: min(factor, 4.0)) == 4.0
    assert best_factor(lambda factor: 0.0) == 1 / 16
    assert best_factor(lambda factor: float(factor >= 0.5)) == 0.5
