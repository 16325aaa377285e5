"""What a drawing costs: seconds, and memory above what was in use before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch

Result = TypeVar("Result")
EVERY = 0.005  # seconds between two looks at the memory of a process on the CPU


@dataclass(frozen=True)
class Cost:
    """seconds of wall time; peak_bytes: the most memory above what was in use at the start, of the process (CPU) or of the device
    (CUDA)."""

    seconds: float
    peak_bytes: int


def measured(run: Callable[[], Result], device: str) -> tuple[Result, Cost]:
    """The result of `run()` and what it cost."""
    on_cuda = device.startswith("cuda")
    if on_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_cuda else psutil.Process().memory_info().rss
    with _Watch(not on_cuda) as watch:
        start = time.perf_counter()
        result = run()
        if on_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if on_cuda else watch.peak
    return result, Cost(seconds, max(0, peak - before))


class _Watch:
    """Looks at the memory of this process from a thread."""

    def __init__(self, looks: bool) -> None:
        self.peak, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True) if looks else None

    def __enter__(self) -> _Watch:
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread:
            self._thread.join()

    def _look(self) -> None:
        process = psutil.Process()
        while not self._over.wait(EVERY):
            self.peak = max(self.peak, process.memory_info().rss)
