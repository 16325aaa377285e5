"""Real picture files, made on the spot."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Painter = Callable[..., Image.Image]


@pytest.fixture
def paint() -> Painter:
    """A picture of its own for every seed: `paint(seed, mode="RGB", size=(width, height))`."""

    def painted(seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> Image.Image:
        values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        return Image.fromarray(values).convert(mode)

    return painted


@pytest.fixture
def class_folder(tmp_path: Path, paint: Painter) -> Path:
    """Two classes, `cat` with four pictures and `dog` with three, 16x16 in colour."""
    folder = tmp_path / "pets"
    for name, count in (("cat", 4), ("dog", 3)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            paint(seed=hash_of(name, number)).save(folder / name / f"{number}.png")
    return folder


def hash_of(name: str, number: int) -> int:
    return sum(name.encode()) * 100 + number
