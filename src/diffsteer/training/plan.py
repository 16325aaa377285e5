"""The arithmetic of a run: which pictures each optimizer step sees, how many steps there are, and the learning rate at each.

All of it is a function of the step, so that a resumed run goes on exactly where it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Positions [start, stop) of one epoch's order; `offset` is the first one's place in the optimizer step's batch."""

    epoch: int
    start: int
    stop: int
    offset: int


@dataclass(frozen=True)
class Plan:
    """count: pictures in the data. last_batch: `fill` runs on into the next epoch, `short` ends with this one."""

    count: int
    batch_size: int
    accumulate: int
    last_batch: str
    steps: int
    lr: float
    warmup: int
    decay: str

    @property
    def step_size(self) -> int:
        """Pictures an optimizer step sees (fewer in a short last one)."""
        return self.batch_size * self.accumulate

    def pictures(self, step: int) -> int:
        """Pictures of this step (the first is step 0)."""
        if self.last_batch == "fill":
            return self.step_size
        return min(self.step_size, self.count - self._place(step)[1])

    def spans(self, step: int, low: int, high: int) -> list[Span]:
        """Where the pictures [low, high) of this step's batch lie in the epochs' orders."""
        if self.last_batch == "short":
            epoch, first = self._place(step)
            return [Span(epoch, first + low, first + high, low)] if high > low else []
        spans, at = [], step * self.step_size + low
        end = step * self.step_size + high
        while at < end:
            epoch, start = divmod(at, self.count)
            stop = min(self.count, start + end - at)
            spans.append(Span(epoch, start, stop, at - step * self.step_size))
            at += stop - start
        return spans

    def shares(self, step: int, process: int, processes: int) -> list[tuple[int, int]]:
        """The parts [low, high) of this step's batch that a process takes, one a micro-batch; some may be empty."""
        total = self.pictures(step)
        parts = []
        for low in range(0, total, self.batch_size):
            size = min(self.batch_size, total - low)
            parts.append((low + size * process // processes, low + size * (process + 1) // processes))
        return parts

    def lr_at(self, step: int) -> float:
        """The learning rate of this step: a linear rise, then the chosen fall."""
        warmup = min(self.warmup, self.steps // 10)
        rise = min(1.0, (step + 1) / (warmup + 1))
        progress = min(1.0, max(0, step - warmup) / max(1, self.steps - warmup))
        epoch = self._place(step)[0] if self.last_batch == "short" else step * self.step_size // self.count
        falls = {"none": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2, "exponential": 0.9**epoch}
        fall = falls[self.decay]
        return self.lr * rise * fall

    def _place(self, step: int) -> tuple[int, int]:
        """(epoch, first position) of a step whose epochs end short."""
        each = math.ceil(self.count / self.step_size)
        return step // each, step % each * self.step_size


def steps_for_epochs(epochs: int, count: int, step_size: int, last_batch: str) -> int:
    """Optimizer steps that make up this many epochs."""
    if last_batch == "short":
        return epochs * math.ceil(count / step_size)
    return math.ceil(epochs * count / step_size)
