"""Reads many pictures with several threads, and keeps a list of the broken ones instead of stopping at the first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from diffsteer.data.decode import Encoded
from diffsteer.data.rows import Rows, named
from diffsteer.errors import Mistake

Result = TypeVar("Result")
LARGEST_CHUNK = 256
QUICK_BYTES = 16 * 1024  # below this, threads spend more time waiting for one another than decoding


@dataclass(frozen=True)
class Unreadable:
    """A picture that could not be read, and why."""

    index: int
    reason: str


def read_each(rows: Rows, indices: Sequence[int], each: Callable[[int, Encoded], Result]) -> Iterator[Result | Unreadable]:
    """`each(place, encoded)` for the picture at each place of `indices`, in threads; results in order, Unreadable where it raised."""
    workers = _workers(rows)
    size = max(1, min(LARGEST_CHUNK, len(indices) // (4 * workers)))
    chunks = [range(start, min(start + size, len(indices))) for start in range(0, len(indices), size)]
    with ThreadPoolExecutor(workers) as pool:
        for results in pool.map(_Chunk(rows, indices, each), chunks):
            yield from results


def unreadable_mistake(rows: Rows, broken: Sequence[Unreadable], what_next: str) -> Mistake:
    """The mistake that names up to five broken pictures with the reasons."""
    which = named([f"{rows.name(one.index)} ({one.reason})" for one in broken])
    return Mistake(f"{len(broken):,} of {len(rows):,} pictures cannot be read: {which}. {what_next}")


@dataclass(frozen=True)
class _Chunk(Generic[Result]):
    rows: Rows
    indices: Sequence[int]
    each: Callable[[int, Encoded], Result]

    def __call__(self, places: range) -> list[Result | Unreadable]:
        encoded = self.rows.read([self.indices[place] for place in places])
        return [self._one(place, picture) for place, picture in zip(places, encoded, strict=True)]

    def _one(self, place: int, picture: Encoded) -> Result | Unreadable:
        try:
            return self.each(place, picture)
        except Exception as error:  # a damaged file can make a decoder raise nearly anything, and one file must not hide the others
            return Unreadable(self.indices[place], _reason(error, picture))


def _reason(error: Exception, picture: Encoded) -> str:
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    if (isinstance(picture, Path) and picture.is_file() and picture.stat().st_size == 0) or picture == b"":
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        return "it is not a picture in a known format"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "it is too large to be decoded safely"
    return str(error).split("\n")[0] or type(error).__name__


def _workers(rows: Rows) -> int:
    probe = rows.read(range(min(4, len(rows))))
    quick = all(isinstance(picture, np.ndarray) or (isinstance(picture, bytes) and len(picture) < QUICK_BYTES) for picture in probe)
    return 1 if quick else os.cpu_count() or 1
