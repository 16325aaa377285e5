"""Steers that are linear observations: `mask` (known pixels) and `operator` (a smaller, a blurred or a grey picture).

Each maker takes a value and the canvas and returns an `Observation`, which the engine solves for. The table in `losses.py` calls these.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from diffsteer.errors import Mistake
from diffsteer.steering.contract import Canvas
from diffsteer.steering.files import read_picture
from diffsteer.steering.observation import Observation
from diffsteer.steering.options import above_zero, one_of

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow


def mask(value: str, canvas: Canvas, *, picture: str, tolerance: float = 0.01) -> Observation:
    """Inpainting: the picture's pixels where the mask is black come back exactly; where it is white, the model paints.

    value: the mask's path; like the picture's, it is scaled to cover the canvas and cropped. tolerance: of the known pixels while the
    picture is being drawn, so that what is painted fits them.
    """
    known_picture = read_picture(picture, canvas)
    hole = read_picture(value, canvas._replace(channels=1)) >= 0.5  # [1, H, W]
    keep = ~hole.expand_as(known_picture)
    if not hole.any() or hole.all():
        which = "no white" if not hole.any() else "nothing but white"
        raise Mistake(
            f"The mask {value} has {which} at this model's {canvas.height}x{canvas.width} pixels: white is painted, black is kept."
        )

    def known(pictures: Tensor) -> Tensor:
        return pictures * keep.to(pictures)

    return Observation(known, known(known_picture), above_zero("The tolerance of mask", tolerance), known=(keep, known_picture))


def operator(value: str, canvas: Canvas, *, picture: str, factor: int = 4, radius: float = 1.5, tolerance: float = 0.02) -> Observation:
    """A picture of which only a linear trace is known: its mean over blocks of factor x factor pixels (`downsample`), its blur by a
    Gaussian of `radius` pixels (`blur`), or its luminance (`grey`).

    picture: the path of that trace; for `downsample` already small, or of any size to be made small first. tolerance: its noise, one
    standard deviation in [0, 1].
    """
    kind = one_of("The operator", value, tuple(KINDS))
    apply = KINDS[kind](canvas, factor, radius)
    seen = read_picture(picture, canvas)
    if kind == "grey":
        target = apply(seen[None])[0]
    elif kind == "downsample":
        target = read_picture(picture, canvas._replace(height=canvas.height // factor, width=canvas.width // factor))
    else:
        target = seen
    return Observation(apply, target, above_zero("The tolerance of operator", tolerance))


Apply = Callable[[Tensor], Tensor]


def _downsample(canvas: Canvas, factor: int, radius: float) -> Apply:
    if factor < 2 or canvas.height % factor or canvas.width % factor:
        raise Mistake(f"The factor of downsample should divide the model's {canvas.height}x{canvas.width} pixels; {factor} was given.")
    return lambda pictures: F.avg_pool2d(pictures, factor)


def _blur(canvas: Canvas, factor: int, radius: float) -> Apply:
    radius = above_zero("The radius of blur", radius)
    reach = min(math.ceil(3 * radius), canvas.height - 1, canvas.width - 1)
    weights = torch.exp(-torch.arange(-reach, reach + 1).double().square() / (2 * radius**2))
    weights = weights / weights.sum()

    def apply(pictures: Tensor) -> Tensor:
        line = weights.to(pictures).expand(canvas.channels, 1, -1)
        padded = F.pad(pictures, (reach,) * 4, mode="reflect")
        across = F.conv2d(padded, line[:, :, None, :], groups=canvas.channels)
        return F.conv2d(across, line[:, :, :, None], groups=canvas.channels)

    return apply


def _grey(canvas: Canvas, factor: int, radius: float) -> Apply:
    if canvas.channels != 3:
        raise Mistake("The operator grey asks for the colours of a grey picture, and this model draws in grey.")
    weights = torch.tensor(LUMINANCE)
    return lambda pictures: (pictures * weights.to(pictures)[:, None, None]).sum(1, keepdim=True)


KINDS: dict[str, Callable[[Canvas, int, float], Apply]] = {"downsample": _downsample, "blur": _blur, "grey": _grey}
