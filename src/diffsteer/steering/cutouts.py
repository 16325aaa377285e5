"""Random cutouts of pictures: a network that judges a picture by one fixed view is easily fooled, by many views much less.

In: pictures [B, C, H, W], differentiable. Out: cutouts [B, cuts, C, size, size], square, sized for the network that will see them. All are
made by one batched call of kornia's `warp_affine`. Every random number comes from a generator of (seed, "cutout", call, cut), so that a
picture's cutouts do not depend on its batch. `embedding.py` calls this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from diffsteer.diffusion.seeds import generator_for
from diffsteer.errors import Mistake
from diffsteer.steering.options import one_of

Cutter = Callable[[Tensor, Sequence[int], int], Tensor]

DRAWS = 6  # uniform numbers per cutout, whatever the policy: a new policy draws from the same ones
TILT = math.radians(5)  # the course's rotation
NUDGE = 1 / 16  # of the side: half a pixel at 8x8, about what a digit may move before it is another picture
ZOOM = 0.06
CROP_AREA = 0.64  # the least area of a crop in `mixed`, four fifths of each side: a digit stays whole
SEED_AREA = (0.08, 1.0)  # torchvision's RandomResizedCrop, which the course calls with its defaults
SEED_RATIO = (3 / 4, 4 / 3)


class Boxes(NamedTuple):
    """Rectangles to be cut out, one an entry of each tensor [N]: their centre (x, y) and sides (width, height) in pixels, where the picture
    begins at 0 and ends at its width; the angle by which they are tilted, in radians; -1 where they are mirrored, else 1."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    tilt: Tensor
    mirror: Tensor


# ---- the policies ----------------------------------------------------------------------------------------------------
# Each takes uniform numbers [N, DRAWS] and the pictures' height and width.

Policy = Callable[[Tensor, int, int], Boxes]


def _whole(u: Tensor, height: int, width: int) -> Boxes:
    """The largest square: all of a square picture, and of another a random part that keeps its shape (squashing would not)."""
    side = torch.full_like(u[:, 0], min(height, width))
    return _inside(u, side, side, height, width)


def _shifts(u: Tensor, height: int, width: int) -> Boxes:
    """The whole, nudged, zoomed and tilted a little; where it looks past the edge it sees the edge repeated."""
    box = _whole(u, height, width)
    side = box.width
    zoom = 1 + ZOOM * (2 * u[:, 2] - 1)
    x, y = box.x + NUDGE * side * (2 * u[:, 3] - 1), box.y + NUDGE * side * (2 * u[:, 4] - 1)
    return Boxes(x, y, side * zoom, side * zoom, TILT * (2 * u[:, 5] - 1), box.mirror)


def _crops(u: Tensor, height: int, width: int) -> Boxes:
    """A square part of at least CROP_AREA of the whole, tilted a little."""
    side = min(height, width) * (CROP_AREA + (1 - CROP_AREA) * u[:, 2]).sqrt()
    return _inside(u, side, side, height, width)._replace(tilt=TILT * (2 * u[:, 5] - 1))


def _seed(u: Tensor, height: int, width: int) -> Boxes:
    """The course's cell: a part of 8 to 100 % of the area and of any ratio from 3:4 to 4:3, made square, tilted, mirrored half the time.

    What would stick out of the picture is clipped to it. A tilted part sees what is beside it, where the course fills in black.
    """
    area = height * width * (SEED_AREA[0] + (SEED_AREA[1] - SEED_AREA[0]) * u[:, 2])
    low, high = (math.log(ratio) for ratio in SEED_RATIO)
    ratio = (low + (high - low) * u[:, 3]).exp()
    box = _inside(u, (area * ratio).sqrt().clamp(max=width), (area / ratio).sqrt().clamp(max=height), height, width)
    return box._replace(tilt=TILT * (2 * u[:, 5] - 1), mirror=torch.where(u[:, 4] < 0.5, -1.0, 1.0).to(u))


def _inside(u: Tensor, box_width: Tensor, box_height: Tensor, height: int, width: int) -> Boxes:
    """Upright boxes of these sides, anywhere inside the picture."""
    x = box_width / 2 + u[:, 0] * (width - box_width)
    y = box_height / 2 + u[:, 1] * (height - box_height)
    return Boxes(x, y, box_width, box_height, torch.zeros_like(x), torch.ones_like(x))


# The cutouts of a picture follow its policies in turn. Only `seed` mirrors: a mirrored 3 is no 3, and mirrored text cannot be read.
#
# name    what a cutout shows                                                         good for
# mixed   in turn the whole, slightly moved, and a crop of at least 64 % of its area  anything, small pictures too (the default)
# whole   the whole picture, nothing random if it is square                           comparing, one cut, exact repeats
# shifts  the whole, moved by 1/16 of its side, zoomed by 6 %, tilted by 5 degrees    things with a meaning as a whole: digits, faces
# seed    the course's cell: 8 to 100 % of the area, squeezed, tilted, mirrored       large pictures, texture and style
CROPS: dict[str, tuple[Policy, ...]] = {
    "mixed": (_shifts, _crops),
    "whole": (_whole,),
    "shifts": (_shifts,),
    "seed": (_seed,),
}


# ---- the cutting -----------------------------------------------------------------------------------------------------


def cutter(size: int, *, cuts: int = 4, crops: str = "mixed") -> Cutter:
    """`cut(pictures [B, C, H, W], seeds, call) -> [B, cuts, C, size, size]`, differentiable in the pictures; CROPS has the policies.

    seeds: one a picture. call: another number, other cutouts. Bilinear, with the edge repeated outside. Mistake for a policy or a number
    of cuts that cannot be, and where kornia is not installed.
    """
    policies = CROPS[one_of("The cutouts (crops)", crops, tuple(CROPS))]
    if cuts < 1:
        raise Mistake(f"The number of cutouts (cuts) is at least 1; {cuts} was given.")
    try:
        from kornia.geometry.transform import warp_affine
    except ImportError as error:
        raise Mistake("Cutouts need kornia, which is not installed: pip install 'diffsteer[clip]'.") from error

    def cut(pictures: Tensor, seeds: Sequence[int], call: int) -> Tensor:
        assert len(seeds) == len(pictures)
        reduced = _reduced(pictures, size)
        count, _, height, width = reduced.shape
        u = torch.stack([_uniform(seed, call, number) for seed in seeds for number in range(cuts)]).unflatten(0, (count, cuts))
        boxes = [policies[number % len(policies)](u[:, number], height, width) for number in range(cuts)]
        onto = torch.stack([_onto_square(box, size) for box in boxes], dim=1).flatten(0, 1)  # [B * cuts, 2, 3]
        repeated = reduced.repeat_interleave(cuts, 0)
        cutouts = warp_affine(repeated, onto.to(repeated), (size, size), padding_mode="border", align_corners=False)
        return cutouts.unflatten(0, (count, cuts))

    return cut


def _uniform(seed: int, call: int, number: int) -> Tensor:
    return torch.rand(DRAWS, generator=generator_for(seed, "cutout", call, number), dtype=torch.float64)


def _reduced(pictures: Tensor, size: int) -> Tensor:
    """Pictures more than twice as large as their cutouts, made twice as large: bilinear sampling would skip pixels of anything larger."""
    height, width = pictures.shape[-2:]
    factor = 2 * size / min(height, width)
    if factor >= 1:
        return pictures
    smaller = (max(1, round(height * factor)), max(1, round(width * factor)))
    return F.interpolate(pictures, smaller, mode="bilinear", antialias=True, align_corners=False)


def _onto_square(box: Boxes, size: int) -> Tensor:
    """The affine maps [N, 2, 3] that take pixels of the picture to pixels of its cutout, both counted from the centre of the first."""
    cos, sin = box.tilt.cos(), box.tilt.sin()
    across, down = box.mirror * size / box.width, size / box.height
    x, y, middle = box.x - 0.5, box.y - 0.5, (size - 1) / 2
    return torch.stack(
        [
            torch.stack([across * cos, across * sin, middle - across * (cos * x + sin * y)], dim=1),
            torch.stack([-down * sin, down * cos, middle + down * (sin * x - cos * y)], dim=1),
        ],
        dim=1,
    )
