"""Built-in data: scikit-learn's 1,797 real handwritten digits of 8x8 pixels, grey (`digits`) or tinted (`digits-color`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from diffsteer.data.decode import Encoded
from diffsteer.data.rows import Source

NAMES = ("digits", "digits-color")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TINTS = {"red": (0.90, 0.20, 0.20), "green": (0.20, 0.80, 0.30), "blue": (0.25, 0.40, 0.95)}
TINT_SPREAD = 0.05
INK_LEVELS = 16  # scikit-learn counts ink from 0 to 16


@dataclass(frozen=True)
class ArrayRows:
    """Pictures that are already pixels: uint8 `[N, H, W]` or `[N, H, W, 3]`."""

    arrays: np.ndarray
    title: str

    def __len__(self) -> int:
        return len(self.arrays)

    def read(self, indices: Sequence[int]) -> list[Encoded]:
        return [self.arrays[index] for index in indices]

    def name(self, index: int) -> str:
        return f"picture {index} of {self.title}"

    def listing(self) -> Iterator[str]:
        yield f"{self.title} {self.arrays.shape} {hashlib.sha256(self.arrays.tobytes()).hexdigest()}"


def open_builtin(name: str) -> Source:
    """`digits` or `digits-color` as a source; the tinted ones carry captions such as "a green three"."""
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    ink = digits.images / INK_LEVELS  # [N, 8, 8] in [0, 1]
    labels = digits.target.astype(np.int64)
    names = tuple(str(digit) for digit in range(10))
    if name == "digits":
        return Source(name, ArrayRows(_levels(ink), name), labels, names)
    tints = [_tint(index) for index in range(len(ink))]
    rows = ArrayRows(_levels(ink[..., None] * np.array([rgb for _, rgb in tints])[:, None, None, :]), name)
    captions = [f"a {color} {WORDS[label]}" for (color, _), label in zip(tints, labels, strict=True)]
    return Source(name, rows, labels, names, captions)


def _levels(ink: np.ndarray) -> np.ndarray:
    return np.floor(ink * 255 + 0.5).astype(np.uint8)


def _tint(index: int) -> tuple[str, np.ndarray]:
    """The tint of one picture, by its index alone: hashed, so that neither machine nor library version moves it."""
    choice, *shifts = np.frombuffer(hashlib.blake2b(f"tint {index}".encode(), digest_size=16).digest(), dtype="<u4")
    color = tuple(TINTS)[int(choice) % len(TINTS)]
    spread = (np.array(shifts, dtype=np.float64) / (2**32 - 1) * 2 - 1) * TINT_SPREAD
    return color, np.array(TINTS[color]) + spread
