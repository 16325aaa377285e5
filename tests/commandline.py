"""What tests of the command line share: how a command ended, and what it left behind. The fixture `diffsteer` in `conftest.py` runs one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence
from PIL.PngImagePlugin import PngInfo

# A training of a second or so.
TINY = ["--channels", "32,32", "--layers", "1", "--batch-size", "32", "--preview-every", "100", "--figures", "data"]


class Ended:
    """How a command line ended: its exit code, and what it said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def last(self) -> str:
        return self.out.splitlines()[-1]

    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        assert self.code == 0 and self.err == "" and self.out.count("\n") == 1, (self.out, self.err)
        return dict(json.loads(self.out))

    def mistake(self) -> str:
        """The sentences on stderr of a command that exits 2."""
        assert self.code == 2 and self.err.startswith("diffsteer: ") and self.err.count("\n") == 1, (self.code, self.err)
        assert "Traceback" not in self.err and len(self.err) < 700
        return self.err


Diffsteer = Callable[..., Ended]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden things too."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def frames_of(path: Path) -> list[np.ndarray]:
    with Image.open(path) as film:
        return [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(film)]


def recipe_of(path: Path) -> dict[str, Any]:
    with Image.open(path) as image:
        return dict(json.loads(image.text["diffsteer"]))


def with_text(path: Path, text: str) -> Path:
    """A PNG that says this of itself."""
    info = PngInfo()
    info.add_text("diffsteer", text)
    Image.new("L", (8, 8)).save(path, pnginfo=info)
    return path
