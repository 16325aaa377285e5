"""Pictures decoded once and kept as one uint8 tensor: what `load_pictures` makes of data that fits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from diffsteer.data.batch import Batch, numbers_in
from diffsteer.data.decode import Background, Encoded, decode, in_channels
from diffsteer.data.order import shuffled
from diffsteer.data.reading import Unreadable, read_each
from diffsteer.data.rows import Rows, Source
from diffsteer.data.shape import Shape


@dataclass(frozen=True)
class MemoryPictures:
    """`Pictures` in memory: `pixels` uint8 `[N, C, H, W]`, `labels` int64 `[N]` or None, on one device."""

    source: str
    pixels: Tensor
    labels: Tensor | None
    label_names: tuple[str, ...]
    captions: Sequence[str] | None
    notes: tuple[str, ...]
    fingerprint: str
    mean: float
    variance: float
    rows: Rows
    streamed: bool = False

    @property
    def count(self) -> int:
        return self.pixels.shape[0]

    @property
    def channels(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[2]

    @property
    def width(self) -> int:
        return self.pixels.shape[3]

    @property
    def class_counts(self) -> tuple[int, ...]:
        return () if self.labels is None else tuple(torch.bincount(self.labels.cpu(), minlength=len(self.label_names)).tolist())

    def take(self, seed: int, epoch: int, start: int, stop: int) -> Batch:
        if not 0 <= start <= stop <= self.count:
            raise ValueError(f"Positions {start} to {stop} do not lie in an epoch of {self.count} pictures.")
        return self._gathered(shuffled(self.count, seed, epoch)[start:stop])

    def at(self, indices: Sequence[int]) -> Batch:
        wanted = torch.as_tensor(indices, dtype=torch.int64)
        if wanted.numel() and not 0 <= int(wanted.min()) <= int(wanted.max()) < self.count:
            raise IndexError(f"There are {self.count} pictures, numbered from 0; {list(indices)} reaches beyond.")
        return self._gathered(wanted)

    def name(self, index: int) -> str:
        return self.rows.name(index)

    def relabelled(self, names: Sequence[str]) -> MemoryPictures:
        places = torch.tensor(numbers_in(names, self.label_names))
        labels = None if self.labels is None else places.to(self.labels.device)[self.labels]
        return replace(self, labels=labels, label_names=tuple(names))

    def to(self, device: torch.device | str) -> MemoryPictures:
        return replace(self, pixels=self.pixels.to(device), labels=None if self.labels is None else self.labels.to(device))

    def _gathered(self, indices: Tensor) -> Batch:
        indices = indices.to(self.pixels.device)
        labels = None if self.labels is None else self.labels.index_select(0, indices)
        return Batch(self.pixels.index_select(0, indices), labels, indices)


def decode_all(rows: Rows, shape: Shape, behind: Background) -> tuple[np.ndarray, list[Unreadable]]:
    """Every picture as uint8 `[N, C, H, W]`, and those that could not be read, whose place is left black."""
    pixels = np.zeros((len(rows), shape.channels, *shape.size), dtype=np.uint8)

    def place_picture(place: int, encoded: Encoded) -> None:
        pixels[place] = in_channels(decode(encoded, behind, shape.size), shape.channels)

    results = read_each(rows, range(len(rows)), place_picture)
    return pixels, [result for result in results if isinstance(result, Unreadable)]


def in_memory(source: Source, pixels: np.ndarray) -> MemoryPictures:
    """The pictures of a source, decoded as uint8 `[N, C, H, W]`, ready to train on."""
    digests = [hashlib.blake2b(picture.tobytes(), digest_size=16).digest() for picture in pixels]
    mean, variance = moments(pixels)
    return MemoryPictures(
        source=source.data,
        pixels=torch.from_numpy(pixels),
        labels=None if source.labels is None else torch.from_numpy(source.labels),
        label_names=source.label_names,
        captions=source.captions,
        notes=source.notes + duplicate_notes(duplicates(digests), source.rows),
        fingerprint=_fingerprint(source, pixels.shape, digests),
        mean=mean,
        variance=variance,
        rows=source.rows,
    )


def duplicates(digests: Sequence[bytes]) -> list[list[int]]:
    """Groups of places that hold the very same picture."""
    places = defaultdict(list)
    for place, digest in enumerate(digests):
        places[digest].append(place)
    return [group for group in places.values() if len(group) > 1]


def duplicate_notes(groups: Sequence[Sequence[int]], rows: Rows) -> tuple[str, ...]:
    """A sentence about pictures that are there more than once; none when there are none."""
    if not groups:
        return ()
    extra = sum(len(group) - 1 for group in groups)
    same = " = ".join(rows.name(place) for place in groups[0][:3])
    return (f"{extra:,} {'picture repeats' if extra == 1 else 'pictures repeat'} another exactly, for example {same}.",)


def moments(pixels: np.ndarray) -> tuple[float, float]:
    """Mean and variance of all uint8 values, in [-1, 1] units. Exact: there are only 256 levels to count."""
    counts = np.zeros(256)
    for start in range(0, len(pixels), 1024):  # counting at once would need eight bytes a value
        counts += np.bincount(pixels[start : start + 1024].ravel(), minlength=256)
    levels = np.arange(256) / 127.5 - 1
    mean = float((counts * levels).sum() / counts.sum())
    return mean, float((counts * (levels - mean) ** 2).sum() / counts.sum())


def _fingerprint(source: Source, shape: tuple[int, ...], digests: Sequence[bytes]) -> str:
    digest = hashlib.sha256(repr((shape, source.label_names)).encode())
    digest.update(b"".join(digests))
    if source.labels is not None:
        digest.update(source.labels.astype("<i8").tobytes())
    for caption in source.captions or ():
        digest.update(caption.encode() + b"\0")
    return digest.hexdigest()
