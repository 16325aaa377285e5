"""What the parts of a run take, timed on this machine before its first step, so that a budget says how many steps there will be.

What is made of the seconds is arithmetic: `training/budget.py`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator

from diffsteer.training.budget import WARM_UP, steps_to_time
from diffsteer.training.checkpoint import save_checkpoint
from diffsteer.training.loop import Stepped, Training

Made = TypeVar("Made")


@dataclass(frozen=True)
class Clock:
    """Seconds that all processes agree on: what they decide from them, they decide alike. Every process must ask."""

    accelerator: Accelerator

    def shared(self, value: float) -> float:
        """The processes' mean."""
        shared = torch.tensor([value], device=self.accelerator.device, dtype=torch.float32)
        return float(self.accelerator.reduce(shared, reduction="mean").item())

    def of_first(self, value: float) -> float:
        """The main process's; what the others hand in counts for nothing."""
        return self.shared(value * self.accelerator.num_processes * self.accelerator.is_main_process)

    def timed(self, work: Callable[[], Made]) -> tuple[Made | None, float]:
        """What the main process makes of it, and the seconds it takes there."""
        first = time.perf_counter()
        made = work() if self.accelerator.is_main_process else None
        return made, self.of_first(time.perf_counter() - first)

    def a_step(self, steps: Iterator[Stepped], count: int) -> float:
        """The mean time of the next `count` steps, the same number on every process."""
        start = time.perf_counter()
        for _ in islice(steps, count):
            pass
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return self.shared((time.perf_counter() - start) / count)


def step_and_checkpoint(training: Training, clock: Clock, budget: float, run: Path) -> tuple[float, float]:
    """Seconds of an optimizer step and of a checkpoint where the run's own will be. The weights are put back as they were."""
    before = {group: {name: value.clone() for name, value in tensors.items()} for group, tensors in training.tensors().items()}
    state = training.state()
    steps = training.run()
    clock.a_step(steps, 2)  # the first steps warm up, and compile
    each = clock.a_step(steps, WARM_UP - 2)
    each = clock.a_step(steps, steps_to_time(budget, each))
    steps.close()

    def saved_and_removed() -> None:
        trial = run / ".timed.part"
        save_checkpoint(trial, training.tensors(), training.state())
        shutil.rmtree(trial)

    _, checkpoint = clock.timed(saved_and_removed)
    training.load(before, state)
    return each, checkpoint
