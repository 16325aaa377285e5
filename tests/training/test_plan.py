"""The arithmetic of a run: every picture once an epoch, whatever the split; the learning rate's shape."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffsteer.training.plan import Plan, steps_for_epochs


def plan(count: int, batch: int, accumulate: int = 1, last: str = "fill", steps: int = 100, warmup: int = 0, decay: str = "none") -> Plan:
    return Plan(count, batch, accumulate, last, steps, 1e-3, warmup, decay)


def positions(of: Plan, step: int, low: int, high: int) -> list[tuple[int, int]]:
    return [(span.epoch, place) for span in of.spans(step, low, high) for place in range(span.start, span.stop)]


def test_the_lessons_epoch_has_469_steps_and_a_last_batch_of_96() -> None:
    lesson = plan(60_000, 128, last="short")
    assert steps_for_epochs(10, 60_000, 128, "short") == 4690
    assert [lesson.pictures(step) for step in (0, 467, 468, 469)] == [128, 128, 96, 128]


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 4), st.sampled_from(["fill", "short"]), st.integers(1, 4))
def test_every_picture_is_seen_once_an_epoch_by_one_process(count: int, batch: int, accumulate: int, last: str, processes: int) -> None:
    made = plan(count, batch, accumulate, last)
    steps = steps_for_epochs(2, count, made.step_size, last)
    seen = []
    for step in range(steps):
        shares = [made.shares(step, process, processes) for process in range(processes)]
        assert len({len(parts) for parts in shares}) == 1, "all processes take part in every micro-batch"
        for parts in shares:
            for low, high in parts:
                seen += positions(made, step, low, high)
    assert len(seen) == len(set(seen))
    assert {(epoch, place) for epoch in range(2) for place in range(count)} <= set(seen)


def test_a_full_batch_runs_on_into_the_next_epoch() -> None:
    assert positions(plan(5, 4), 1, 0, 4) == [(0, 4), (1, 0), (1, 1), (1, 2)]
    assert positions(plan(3, 8), 0, 0, 8) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]


def test_spans_tell_where_they_lie_in_the_batch() -> None:
    assert [(span.offset, span.stop - span.start) for span in plan(5, 4).spans(1, 0, 4)] == [(0, 1), (1, 3)]


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    made = plan(100, 10, steps=200, warmup=10, decay="cosine")
    rates = [made.lr_at(step) for step in range(200)]
    assert rates[0] == pytest.approx(1e-3 / 11)
    assert max(rates) == pytest.approx(1e-3) == rates[10]
    assert rates[105] == pytest.approx(5e-4, rel=0.01)
    assert rates[-1] < 1e-6
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_linear_fall_is_a_line_and_none_is_flat() -> None:
    line = plan(100, 10, steps=100, decay="linear")
    assert [line.lr_at(step) for step in (0, 50, 75)] == pytest.approx([1e-3, 5e-4, 2.5e-4])
    assert {plan(100, 10).lr_at(step) for step in range(100)} == {1e-3}
    for last, each in (("fill", 10), ("short", 10)):
        falls = plan(100, 10, last=last, decay="exponential")
        assert [falls.lr_at(step) for step in (0, each - 1, each, 3 * each)] == pytest.approx([1e-3, 1e-3, 9e-4, 1e-3 * 0.9**3])


def test_warm_up_takes_a_tenth_of_a_short_run_at_most() -> None:
    assert plan(100, 10, steps=20, warmup=100).lr_at(2) == 1e-3
