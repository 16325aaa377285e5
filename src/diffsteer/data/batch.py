"""What every data set becomes: pictures asked for by position in a shuffled epoch, or by index. Written by `memory.py` and `stream.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffsteer.device import free_memory


@dataclass(frozen=True)
class Batch:
    """Pictures uint8 `[B, C, H, W]`, their labels int64 `[B]` when the data has classes, and their indices in the data set, int64 `[B]`."""

    pixels: Tensor
    labels: Tensor | None
    indices: Tensor


def numbers_in(table: Sequence[str], names: Sequence[str]) -> list[int]:
    """The place in `table` of each of the names. KeyError where one is not there."""
    places = {name: place for place, name in enumerate(table)}
    return [places[name] for name in names]


class Pictures(Protocol):
    """A data set ready to train on, in memory or streamed from disk."""

    @property
    def source(self) -> str:
        """As the user named it."""

    @property
    def count(self) -> int: ...

    @property
    def channels(self) -> int:
        """1 for grey data, 3 for colour."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def label_names(self) -> tuple[str, ...]:
        """The class names, label by label; empty when there are no labels."""

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many pictures each class has, label by label; empty when there are no labels."""

    @property
    def captions(self) -> Sequence[str] | None:
        """One text per picture, when there is a text column."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user: what was odd about the data and what was done about it."""

    @property
    def fingerprint(self) -> str:
        """Hex sha256: two data sets with the same one teach the same thing."""

    @property
    def mean(self) -> float:
        """Of all values, in [-1, 1] units."""

    @property
    def variance(self) -> float:
        """Of all values, in [-1, 1] units."""

    @property
    def streamed(self) -> bool:
        """Whether the pictures stay on disk."""

    def take(self, seed: int, epoch: int, start: int, stop: int) -> Batch:
        """Positions [start, stop) of an epoch's shuffled order, which depends on (seed, epoch) alone. ValueError outside [0, count]."""

    def at(self, indices: Sequence[int]) -> Batch:
        """The pictures with these indices, in this order. IndexError outside [0, count)."""

    def name(self, index: int) -> str:
        """A file name, or "row 17 of x.parquet": what a message calls this picture."""

    def relabelled(self, names: Sequence[str]) -> Pictures:
        """The same pictures, their labels numbered in a table of names that holds all of their own. KeyError where it does not."""

    def to(self, device: torch.device | str) -> Pictures:
        """The same data with its tensors on `device`; streamed data returns itself."""


def resident(data: Pictures, device: torch.device | str) -> Pictures:
    """The pictures on the device that learns from them; where they would take more than half of a GPU's free memory, where they are."""
    size = data.count * data.channels * data.height * data.width
    fits = torch.device(device).type != "cuda" or size < free_memory(device) / 2
    return data.to(device) if fits else data
