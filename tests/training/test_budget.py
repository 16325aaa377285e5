"""A budget's arithmetic: what is reserved and what is done add up to the budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffsteer.training.budget import (
    CHECKPOINTS,
    FEWEST_STEPS,
    SCORING,
    Costs,
    end_seconds,
    judge_seconds,
    looks_in,
    previews_in,
    rarer_looks,
    steps_in,
    steps_to_time,
)

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


@given(
    st.floats(500, 5000),
    st.builds(Costs, seconds, st.floats(0.001, 5), st.floats(0.001, 5), seconds, st.floats(0.001, 30)),
    st.integers(1, 500),
)
def test_looks_that_score_are_reserved_too_the_last_one_as_well(left: float, costs: Costs, every: int) -> None:
    steps = steps_in(left, costs, 10, score_every=every)
    spent = steps * costs.step + looks_in(steps, every) * costs.look + 10 * costs.preview + CHECKPOINTS * costs.checkpoint + costs.end
    assert steps == FEWEST_STEPS or left - costs.step - 2 * costs.look - 1e-6 <= spent <= left + 1e-6


@pytest.mark.parametrize(("steps", "every", "looks"), [(10, 5, 2), (11, 5, 3), (4, 5, 1), (5, 5, 1)])
def test_the_last_step_is_always_looked_at(steps: int, every: int, looks: int) -> None:
    assert looks_in(steps, every) == looks


@given(st.floats(60, 5000), st.floats(0.001, 2), st.floats(0.01, 400), st.integers(1, 500))
def test_looks_as_rare_as_is_proposed_take_a_tenth_of_the_budget(budget: float, step: float, look: float, every: int) -> None:
    costs, tenth = Costs(step, 0.0, 0.0, 0.0, look), SCORING * budget

    def looking(every: int) -> float:
        return look * looks_in(steps_in(budget, costs, 0, score_every=every), every)

    steps = steps_in(budget, costs, 0, score_every=every)
    proposed = rarer_looks(budget, costs, steps, every)
    if proposed is None:
        assert looking(every) <= tenth or look > tenth
    else:
        assert proposed > every and looking(proposed) <= tenth + look
        assert steps == FEWEST_STEPS or looking(proposed - 1) >= tenth - 3 * look, "and it is no rarer than that needs"


def test_a_judge_takes_a_small_part_of_the_budget() -> None:
    assert [judge_seconds(budget) for budget in (60, 1200, 7200)] == [3, 60, 60]


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
