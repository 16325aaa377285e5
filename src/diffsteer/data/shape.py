"""How many channels and which size the model will see, decided from what the pictures are. Called by `images.py` and `check.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from diffsteer.data.decode import Look
from diffsteer.data.rows import named
from diffsteer.errors import Mistake

SMALLEST = 8  # pixels a side
LARGEST_KEPT = 64  # pixels a side: without --size, larger pictures become 64x64


@dataclass(frozen=True)
class Shape:
    """What one picture is to the model."""

    channels: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


def choose_shape(looks: Sequence[Look], size: tuple[int, int] | None) -> Shape:
    """Colour as soon as one picture is; the size asked for, else the one size all share when both its sides are at most 64, else 64x64.

    `looks` must not be empty. Mistake for a size below 8 pixels a side.
    """
    if size is not None and min(size) < SMALLEST:
        raise Mistake(f"The size {size[0]}x{size[1]} is too small: a picture needs at least {SMALLEST} pixels a side.")
    channels = 3 if any(look.colour for look in looks) else 1
    if size is None:
        first, *others = {(look.height, look.width) for look in looks}
        size = first if not others and max(first) <= LARGEST_KEPT else (LARGEST_KEPT, LARGEST_KEPT)
    return Shape(channels, *size)


def too_small(looks: Sequence[Look]) -> list[int]:
    """Places of pictures that are under 8 pixels a side."""
    return [place for place, look in enumerate(looks) if min(look.height, look.width) < SMALLEST]


def too_small_mistake(names: Sequence[str], looks: Sequence[Look]) -> Mistake:
    """The mistake that names up to five of these pictures with their sizes."""
    which = named([f"{name} ({look.height}x{look.width})" for name, look in zip(names, looks, strict=True)])
    return Mistake(f"Pictures under {SMALLEST} pixels a side cannot be learned from: {which}. Remove them from the data.")


def shape_notes(looks: Sequence[Look], shape: Shape, asked: bool) -> Iterator[str]:
    """Sentences about mixed colour, scaling and enlarging."""
    colour = sum(look.colour for look in looks)
    if 0 < colour < len(looks):
        yield f"Colour and grey are mixed ({colour:,} and {len(looks) - colour:,} pictures): all are treated as colour."
    sizes = Counter((look.height, look.width) for look in looks)
    if set(sizes) != {shape.size} and not asked:
        yield f"Pictures are {sizes_in_words(sizes)}: scaled and cropped about the centre to {shape}; --size changes that."
    smaller = sum(number for (height, width), number in sizes.items() if height < shape.height or width < shape.width)
    if smaller:
        yield f"Enlarged, because smaller than {shape}: {smaller:,} of {len(looks):,} pictures."


def sizes_in_words(sizes: Counter[tuple[int, int]]) -> str:
    """The most common sizes (height x width) with how often each is met."""
    if len(sizes) == 1:
        ((height, width),) = sizes
        return f"{height}x{width}"
    return "of different sizes (" + named([f"{height}x{width}: {number:,}" for (height, width), number in sizes.most_common()]) + ")"
