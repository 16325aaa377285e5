"""What a number rests on: who looked at which pictures, by which seed, with which error and floor. Every measure gives a `Result`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Extractor:
    """The network that looked: `inception`, or a judge's architecture.

    weights: hex sha256 of all that decides what it sees. The rest is a judge's: it was right on the share `accuracy` of `held_out`
    pictures of `data` that it had not learnt from.
    """

    architecture: str
    weights: str
    seed: int | None = None
    accuracy: float | None = None
    held_out: int = 0
    data: str = ""


@dataclass(frozen=True)
class Reference:
    """The real pictures compared with: `count` of `source`, of its split `split` where it is divided into splits.

    classes: the classes they were taken from, empty for all. learnt: whether the judge learnt from pictures of this very data.
    fingerprint: of all the pictures that they were taken from, as they were read at `size`, (height, width).
    """

    source: str
    split: str
    count: int
    classes: tuple[str, ...]
    learnt: bool
    fingerprint: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Basis:
    """Who looked (None where no network did), at what, and the seed of the random halves and resamples."""

    extractor: Extractor | None
    reference: Reference
    seed: int


@dataclass(frozen=True)
class Result:
    """A value, what real pictures score in the drawn ones' place (`floor`), the standard error of both, and the pictures it rests on.

    count: the drawn pictures; as many real ones stand on the other side, except where a measure says otherwise.
    """

    value: float
    error: float
    floor: float
    floor_error: float
    count: int
    basis: Basis

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
