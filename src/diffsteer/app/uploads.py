"""Pictures from people: looked at before they are decoded. In: the path of an upload. Out: what is safe to hand on, or `Said` why not."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diffsteer.app.words import Said
from diffsteer.config import PictureRecipe
from diffsteer.data.decode import Background, decode
from diffsteer.errors import Mistake

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_PIXELS = 4_000_000
LONGEST_NAME = 80


@dataclass(frozen=True)
class Upload:
    """A picture that may be decoded: its file, the name its owner gave it, its size."""

    path: Path
    name: str
    width: int
    height: int


def checked(path: str | Path, most_bytes: int) -> Upload:
    """The upload at `path`, by its header only: a picture of a known kind, and not too large to decode. Raises Said."""
    path = Path(path)
    size = path.stat().st_size
    if size > most_bytes:
        raise Said("upload.bytes", size=f"{size / 1e6:.1f}", most=f"{most_bytes / 1e6:.0f}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of our own limit, which is lower, is told below
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise Said("upload.no_picture", name=named(path)) from None
    if width * height > MOST_PIXELS:
        raise Said("upload.pixels", width=width, height=height, most=MOST_PIXELS // 1_000_000)
    return Upload(path, named(path), width, height)


def thumbnail(upload: Upload, width: int, height: int) -> Image.Image:
    """The picture as a model of that size will see it: upright, on white, scaled to cover and cropped about its centre. Raises Said."""
    try:
        return Image.fromarray(decode(upload.path, Background((255, 255, 255)), (height, width)))
    except Exception:  # a decoder raises nearly anything at a damaged file
        raise Said("upload.no_picture", name=upload.name) from None


def recipe_in(upload: Upload) -> PictureRecipe:
    """The recipe that a PNG of ours holds. Raises Said."""
    from diffsteer.picturerecipe import read_recipe  # loads torch, which the page otherwise does without

    try:
        return read_recipe(upload.path)
    except Mistake:
        raise Said("upload.no_recipe", name=upload.name) from None


def named(path: Path) -> str:
    """A file's name as it can be shown and written behind a flag: plain letters, digits, . _ and -, not too long."""
    stem = "".join(c if c.isalnum() or c in "._-" else "_" for c in path.stem).strip(".") or "picture"
    return f"{stem[:LONGEST_NAME]}{path.suffix.lower()[:8]}"
