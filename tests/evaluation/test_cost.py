"""What a drawing costs, measured on work whose cost is known."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from diffsteer.evaluation.cost import measured

MIB = 2**20


HOLDS = """
import json, time, torch
from diffsteer.evaluation.cost import measured

def work():
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    time.sleep(0.1)
    del held
    time.sleep(0.05)
    return "done"

result, cost = measured(work, "cpu")
print(json.dumps([result, cost.seconds, cost.peak_bytes]))
"""


def test_the_result_comes_with_seconds_and_the_most_memory() -> None:
    """In a process of its own: from one as large as that of all tests the system may take back, meanwhile, more than the work holds."""
    told = subprocess.run([sys.executable, "-c", HOLDS], capture_output=True, text=True, check=True).stdout
    result, seconds, peak = json.loads(told)
    assert result == "done" and 0.15 <= seconds < 1
    assert 60 * MIB < peak < 128 * MIB, "what was held in between, though it is gone at the end"


def test_work_that_holds_nothing_costs_little_memory() -> None:
    assert measured(lambda: time.sleep(0.05), "cpu")[1].peak_bytes < 16 * MIB


def test_a_mistake_passes_and_nobody_goes_on_watching() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        measured(lambda: 1 / 0, "cpu")
    assert threading.active_count() == before
