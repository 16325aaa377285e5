"""A budget's arithmetic: what is reserved and what is done add up to the budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffsteer.training.budget import CHECKPOINTS, FEWEST_STEPS, Costs, end_seconds, previews_in, steps_in, steps_to_time

seconds = st.floats(0.001, 20)


@given(st.floats(500, 5000), st.builds(Costs, seconds, st.floats(0.001, 5), st.floats(0.001, 5), seconds), st.integers(1, 10))
def test_the_steps_and_all_else_fill_what_is_left(left: float, costs: Costs, previews: int) -> None:
    steps = steps_in(left, costs, previews)
    spent = steps * costs.step + previews * costs.preview + CHECKPOINTS * costs.checkpoint + costs.end
    if steps > FEWEST_STEPS:
        assert left - costs.step - 1e-6 <= spent <= left + 1e-6


@given(
    st.floats(500, 5000),
    st.builds(Costs, seconds, st.floats(0.001, 5), st.floats(0.001, 5), seconds),
    st.integers(1, 50),
    st.integers(1, 50),
)
def test_previews_and_checkpoints_of_the_users_number_are_reserved_too(left: float, costs: Costs, shown: int, saved: int) -> None:
    steps = steps_in(left, costs, 10, preview_every=shown, checkpoint_every=saved)
    spent = steps * costs.step + steps // shown * costs.preview + steps // saved * costs.checkpoint + costs.end
    assert steps == FEWEST_STEPS or left - costs.step - 2 * (costs.preview + costs.checkpoint) <= spent <= left + 1e-6


def test_when_nothing_is_left_a_few_steps_are_made() -> None:
    assert steps_in(-5.0, Costs(1.0, 1.0, 1.0, 1.0), 10) == FEWEST_STEPS


@pytest.mark.parametrize(("preview", "count"), [(0.0, 10), (0.1, 10), (0.5, 10), (1.0, 6), (6.0, 1), (100.0, 1)])
def test_previews_take_a_tenth_of_the_budget_at_most(preview: float, count: int) -> None:
    assert previews_in(60.0, preview) == count


@given(st.floats(10, 1e6), st.floats(1e-4, 100))
def test_timing_takes_a_small_part_of_the_budget(budget: float, step: float) -> None:
    timed = steps_to_time(budget, step)
    assert 4 <= timed <= 200
    assert timed == 4 or timed * step <= min(60.0, 0.04 * budget) + 1e-9


def test_a_machine_that_starts_slowly_ends_slowly() -> None:
    assert end_seconds(0.0) == end_seconds(1.0) == 1.0
    assert end_seconds(20.0) > 3 * end_seconds(1.0)
