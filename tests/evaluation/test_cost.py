"""What a drawing costs, measured on work whose cost is known."""

from __future__ import annotations

import gc
import threading
import time

import pytest
import torch

from diffsteer.evaluation.cost import measured

MIB = 2**20


def test_the_result_comes_with_seconds_and_the_most_memory() -> None:
    def work() -> str:
        held = torch.ones(64 * MIB, dtype=torch.uint8)
        time.sleep(0.1)
        del held
        time.sleep(0.05)
        return "done"

    gc.collect()  # or other tests' garbage, given back in between, is taken off
    result, cost = measured(work, "cpu")
    assert result == "done" and 0.15 <= cost.seconds < 1
    assert 60 * MIB < cost.peak_bytes < 128 * MIB, "what was held in between, though it is gone at the end"


def test_work_that_holds_nothing_costs_little_memory() -> None:
    assert measured(lambda: time.sleep(0.05), "cpu")[1].peak_bytes < 16 * MIB


def test_a_mistake_passes_and_nobody_goes_on_watching() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        measured(lambda: 1 / 0, "cpu")
    assert threading.active_count() == before
