"""Times that are compared: several loops by turns, so that a machine that speeds up or slows down does so for all of them alike.

A loop is an iterator, one item a unit of work. What is reported is never seconds alone but their ratios, one a round, with their spread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch


@dataclass(frozen=True)
class Spread:
    """The median of some numbers, the least and the most of them, and how many there are."""

    median: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        return cls(statistics.median(numbers), min(numbers), max(numbers), len(numbers))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def told(self) -> str:
        """`1.02 (0.99 to 1.04)`."""
        digits = 3 if self.median < 2 else 1 if self.median < 100 else 0
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f} to {self.most:,.{digits}f})"


def by_turns(
    loops: Mapping[str, Iterator[Any]], rounds: int, each: int | Mapping[str, int] = 1, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of an item of each loop, a number a round; a round is `each` items of every loop, and the next round goes the other way.

    The first `warm_up` items of each are not counted.
    """
    names = list(loops)
    counts = {name: each if isinstance(each, int) else each[name] for name in names}
    for name in names:
        _seconds(loops[name], warm_up)
    told: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else names[::-1]:
            told[name].append(_seconds(loops[name], counts[name]) / counts[name])
    return told


def line(what: str, spread: Spread, aim: str = "") -> dict[str, Any]:
    """A line of a benchmark's table, for its JSON as well. aim: what the ratio should be."""
    return {"what": what, "aim": aim, **spread.as_dict()}


def table(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines in Markdown."""
    rows = ["| ratio | median (least to most) | rounds | aim |", "|---|---|---|---|"]
    for one in lines:
        spread = Spread(one["median"], one["least"], one["most"], one["count"])
        rows.append(f"| {one['what']} | {spread.told} | {spread.count} | {one['aim']} |")
    return rows


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Of two loops' seconds, round by round."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])


def _seconds(loop: Iterator[Any], items: int) -> float:
    """Until so many items are there, the device's queue worked off."""
    start = time.perf_counter()
    if sum(1 for _ in islice(loop, items)) != items:
        raise ValueError("a loop ended before its time was taken")
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
