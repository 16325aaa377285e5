"""Pictures that stay on disk and are decoded when they are asked for: what `load_pictures` makes of data that does not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from diffsteer.data.batch import Batch, numbers_in
from diffsteer.data.decode import Background
from diffsteer.data.memory import decode_all, moments
from diffsteer.data.order import streamed
from diffsteer.data.reading import unreadable_mistake
from diffsteer.data.rows import Kept, Source
from diffsteer.data.shape import Shape


@dataclass(frozen=True)
class StreamedPictures:
    """`Pictures` on disk. Mean and variance are those of a sample spread evenly over the set."""

    rows_and_labels: Source
    shape: Shape
    background: Background
    fingerprint: str
    mean: float
    variance: float
    streamed: bool = True

    @property
    def source(self) -> str:
        return self.rows_and_labels.data

    @property
    def count(self) -> int:
        return self.rows_and_labels.count

    @property
    def channels(self) -> int:
        return self.shape.channels

    @property
    def height(self) -> int:
        return self.shape.height

    @property
    def width(self) -> int:
        return self.shape.width

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.rows_and_labels.label_names

    @property
    def class_counts(self) -> tuple[int, ...]:
        return self.rows_and_labels.class_counts

    @property
    def captions(self) -> Sequence[str] | None:
        return self.rows_and_labels.captions

    @property
    def notes(self) -> tuple[str, ...]:
        return self.rows_and_labels.notes

    def take(self, seed: int, epoch: int, start: int, stop: int) -> Batch:
        if not 0 <= start <= stop <= self.count:
            raise ValueError(f"Positions {start} to {stop} do not lie in an epoch of {self.count} pictures.")
        return self._decoded(streamed(self.count, seed, epoch, start, stop).tolist())

    def at(self, indices: Sequence[int]) -> Batch:
        wanted = torch.as_tensor(indices, dtype=torch.int64).tolist()
        if wanted and not 0 <= min(wanted) <= max(wanted) < self.count:
            raise IndexError(f"There are {self.count} pictures, numbered from 0; {wanted} reaches beyond.")
        return self._decoded(wanted)

    def name(self, index: int) -> str:
        return self.rows_and_labels.rows.name(index)

    def relabelled(self, names: Sequence[str]) -> StreamedPictures:
        old = self.rows_and_labels
        labels = None if old.labels is None else np.array(numbers_in(names, old.label_names))[old.labels]
        return replace(self, rows_and_labels=replace(old, labels=labels, label_names=tuple(names)))

    def to(self, device: torch.device | str) -> StreamedPictures:
        return self

    def _decoded(self, indices: list[int]) -> Batch:
        """Mistake that names pictures which could be read when the data was opened, or were not looked at, and cannot be read now."""
        rows, labels = Kept(self.rows_and_labels.rows, tuple(indices)), self.rows_and_labels.labels
        pixels, broken = decode_all(rows, self.shape, self.background)
        if broken:
            raise unreadable_mistake(rows, broken, "Repair or remove them, or start again with --skip-broken.")
        chosen = torch.tensor(indices, dtype=torch.int64)
        return Batch(torch.from_numpy(pixels), None if labels is None else torch.from_numpy(labels)[chosen], chosen)


def from_disk(source: Source, sample: Sequence[int], shape: Shape, behind: Background) -> StreamedPictures:
    """The pictures of a source, left where they are; those of `sample` are decoded to know mean and variance, and must be readable."""
    pixels, broken = decode_all(Kept(source.rows, tuple(sample)), shape, behind)
    if broken:
        raise unreadable_mistake(Kept(source.rows, tuple(sample)), broken, "Repair or remove them, or go on without them by --skip-broken.")
    mean, variance = moments(pixels)
    return StreamedPictures(source, shape, behind, _fingerprint(source, shape, behind, pixels), mean, variance)


def _fingerprint(source: Source, shape: Shape, behind: Background, sample: np.ndarray) -> str:
    digest = hashlib.sha256(repr((shape, behind, source.label_names)).encode())
    for line in source.rows.listing():
        digest.update(line.encode() + b"\n")
    digest.update(sample.tobytes())
    if source.labels is not None:
        digest.update(source.labels.astype("<i8").tobytes())
    return digest.hexdigest()
