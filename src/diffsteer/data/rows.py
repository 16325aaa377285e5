"""What every kind of DATA is before a picture of it is decoded: rows that can be read, with labels, captions and names.

Made by `builtin.py`, `folder.py`, `idx.py` and `tables.py`; used by `images.py` and `check.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from diffsteer.data.decode import Encoded
from diffsteer.errors import Mistake

HOLE = -1  # the label of a picture that should have one and has none
NAMED_IN_MESSAGES = 5


class Rows(Protocol):
    """Pictures that are not decoded yet."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[Encoded]:
        """The encoded pictures; neighbours are cheapest together."""

    def name(self, index: int) -> str:
        """What a message calls this picture."""

    def listing(self) -> Iterator[str]:
        """Lines that change when the data does: file names with sizes and times, not the pictures themselves."""


@dataclass(frozen=True)
class Source:
    """Rows with what is known about them. `labels` is int64 `[count]`, HOLE where a label is missing; None when the data has no classes."""

    data: str
    rows: Rows
    labels: np.ndarray | None = None
    label_names: tuple[str, ...] = ()
    captions: Sequence[str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.rows)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many pictures have each label; empty without labels."""
        if self.labels is None:
            return ()
        return tuple(np.bincount(self.labels[self.labels != HOLE], minlength=len(self.label_names)).tolist())

    def noting(self, *sentences: str) -> Source:
        return replace(self, notes=self.notes + sentences)

    def without_labels(self) -> Source:
        return replace(self, labels=None, label_names=())

    def keep(self, indices: Sequence[int]) -> Source:
        """Only these pictures, renumbered from 0."""
        return replace(
            self,
            rows=Kept(self.rows, tuple(indices)),
            labels=None if self.labels is None else self.labels[list(indices)],
            captions=None if self.captions is None else [self.captions[index] for index in indices],
        )


@dataclass(frozen=True)
class Kept:
    """Some rows of others, renumbered from 0."""

    rows: Rows
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Sequence[int]) -> list[Encoded]:
        return self.rows.read([self.indices[index] for index in indices])

    def name(self, index: int) -> str:
        return self.rows.name(self.indices[index])

    def listing(self) -> Iterator[str]:
        yield from self.rows.listing()
        yield f"kept {self.indices}"


@dataclass(frozen=True)
class Wanted:
    """What the user asked for by name; None leaves the choice to the data."""

    split: str = "train"
    image_column: str | None = None
    label_column: str | None = None
    caption_column: str | None = None

    def refuse_columns(self, data: str, why: str) -> None:
        """Mistake when a column is asked of data that has none."""
        for option, column in (("image", self.image_column), ("label", self.label_column), ("caption", self.caption_column)):
            if column is not None:
                raise Mistake(f"--{option}-column {column} was given, but {data} {why}; leave the option out.")

    def refuse_split(self, data: str) -> None:
        """Mistake when another split than the usual one is asked of data that is not divided."""
        if self.split != "train":
            raise Mistake(f"The split {self.split!r} was asked for, but {data} is not divided into splits; leave the split out.")


def named(names: Sequence[str], count: int | None = None) -> str:
    """Up to five names for a message, with how many more there are of `count`."""
    more = (len(names) if count is None else count) - min(len(names), NAMED_IN_MESSAGES)
    return ", ".join(names[:NAMED_IN_MESSAGES]) + (f" and {more:,} more" if more > 0 else "")
