"""The idx(-gz) files that torchvision keeps in `MNIST/raw`: MNIST, Fashion-MNIST and others of that layout."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from diffsteer.data.builtin import ArrayRows
from diffsteer.data.rows import Source, Wanted
from diffsteer.errors import Mistake

PREFIXES = {"train": "train", "test": "t10k"}
UNSIGNED_BYTES = 8  # the type code of the only idx files that hold pictures or labels


def raw_folder(folder: Path) -> Path | None:
    """Where the idx files are: `folder`, its `raw`, or `X/raw` for its only such sub-folder. None when there are none."""
    places = [folder, folder / "raw", *(place for place in sorted(folder.glob("*/raw")) if place.is_dir())]
    found = [place for place in places if any(place.glob("*-images-idx3-ubyte*"))]
    return found[0] if len(found) == 1 else None


def open_idx(data: str, folder: Path, wanted: Wanted) -> Source:
    """The pictures of one split, with the digits 0, 1, ... as class names. Mistake for a missing or damaged file."""
    wanted.refuse_columns(data, "is made of idx files, which have no columns")
    if wanted.split not in PREFIXES:
        raise Mistake(f"The split {wanted.split!r} was asked for, but idx files have train and test only.")
    prefix = PREFIXES[wanted.split]
    images_file = _file(folder, f"{prefix}-images-idx3-ubyte")
    labels_file = _file(folder, f"{prefix}-labels-idx1-ubyte")
    images, labels = _read(images_file, 3), _read(labels_file, 1).astype(np.int64)
    if len(images) != len(labels):
        raise Mistake(f"{images_file} holds {len(images):,} pictures and {labels_file.name} {len(labels):,} labels; download both again.")
    if not len(images):
        raise Mistake(f"{images_file} holds no pictures.")
    names = tuple(str(number) for number in range(int(labels.max()) + 1))
    return Source(data, ArrayRows(images, images_file.name), labels, names)


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise Mistake(f"{folder} has no {name} or {name}.gz; it holds {', '.join(sorted(path.name for path in folder.iterdir())[:8])}.")


def _read(path: Path, dimensions: int) -> np.ndarray:
    """An idx file as uint8: a header of two zeros, the type, the number of dimensions and each length, then the values."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, found, *shape = struct.unpack_from(f">HBB{dimensions}I", content)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise Mistake(f"{path} cannot be read ({error}); download it again.") from error
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions)
    if (zeros, kind, found) != (0, UNSIGNED_BYTES, dimensions) or len(values) != math.prod(shape):
        raise Mistake(f"{path} is not a whole idx file of {dimensions} dimensions; download it again.")
    return values.reshape(shape)
