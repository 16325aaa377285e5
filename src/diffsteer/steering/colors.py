"""Losses about colour: `color`, `color-seed`, `mean-color` and `hue`, and the reading of a colour from text.

Each maker takes a colour and the canvas and returns a loss (see `contract.py`). Pictures are [B, 3, H, W] in [0, 1], unclamped; grey models
have no colour to steer, and are a Mistake. The table in `losses.py` calls these.
"""

from __future__ import annotations

import math
import re
from difflib import get_close_matches

import torch
from PIL import ImageColor
from torch import Tensor

from diffsteer.errors import Mistake
from diffsteer.steering.contract import Canvas, Loss, Moment
from diffsteer.steering.options import above_zero

Color = tuple[float, float, float]  # red, green, blue in [0, 1]

GREY_CHROMA = 0.1  # `hue`: below this chroma (a pure colour has 1) a pixel's hue hardly counts, so that grey has no sudden direction
NO_HUE = 0.02  # a colour of less chroma than this names no hue
BLACK = 1e-6  # stands in for the light of a picture that has none

# The plane of hues: grey is its middle, red its first axis; a pure red, green or blue lies at distance 1, 120 degrees apart.
HUE_PLANE = ((1.0, -0.5, -0.5), (0.0, math.sqrt(3) / 2, -math.sqrt(3) / 2))


def parse_color(text: str) -> Color:
    """`#1ae680`, `1ae680`, `#1e8`, `0.1,0.9,0.5` or a CSS name such as `turquoise` -> (red, green, blue) in [0, 1]. Mistake otherwise."""
    word = text.strip().lower()
    if "," in word and "(" not in word:
        return _from_numbers(text)
    if re.fullmatch(r"[0-9a-f]{6}", word):
        word = "#" + word
    name = re.sub(r"[\s_-]", "", word)
    try:
        levels = ImageColor.getrgb(name)
    except ValueError as error:
        near = get_close_matches(name, list(ImageColor.colormap), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise Mistake(f"{text!r} is no colour.{hint} Write it as #1ae680, as 0.1,0.9,0.5 or as a name such as turquoise.") from error
    if len(levels) != 3:
        raise Mistake(f"{text!r} is partly transparent, which a steer cannot use; give red, green and blue alone, such as #1ae680.")
    red, green, blue = (level / 255 for level in levels)
    return red, green, blue


def color(value: str, canvas: Canvas, *, tolerance: float = 0.01) -> Loss:
    """Every lit pixel comes near the colour; a dark background is left alone.

    `sum_p w_p mean_c |x_p - target_c| / sum_p w_p / tolerance`, where w_p, the pixel's light, is its largest channel, at least 0. No
    gradient flows through w, or pixels would go dark to count less. tolerance: the mean distance that costs one nat; while x0 is still a
    dim blur its distances mislead, and with 0.05 a third of the digits-color pictures settled for the wrong one of three colours.
    """
    target = _target("color", value, canvas)
    tolerance = above_zero("The tolerance of color", tolerance)

    def loss(pictures: Tensor, moment: Moment) -> Tensor:
        distance = (pictures - target.to(pictures)).abs().mean(dim=1)  # [B, H, W]
        return _by_light(distance, pictures) / tolerance

    return loss


def color_seed(value: str, canvas: Canvas) -> Loss:
    """The course's own loss: the mean of |x - target| over a picture's values, both in [-1, 1], with no tolerance.

    The course averages over its batch as well, so its scale / batch is the strength here that pulls each value as hard: 40 / 8 = 5 at its
    256x256 pixels. The mean over fewer pixels gives each a larger share, so at HxW pixels it is 5 * H * W / 256^2, which is 0.078 at 32x32.
    """
    target = _target("color-seed", value, canvas)

    def loss(pictures: Tensor, moment: Moment) -> Tensor:
        return 2 * (pictures - target.to(pictures)).abs().mean(dim=(1, 2, 3))

    return loss


def mean_color(value: str, canvas: Canvas, *, tolerance: float = 0.1) -> Loss:
    """The mean colour of the whole picture comes near the colour: `|mean - target|^2 / (2 tolerance^2)`, the square summed over channels.

    tolerance: the distance in colour, as a standard deviation.
    """
    target = _target("mean-color", value, canvas)[0, :, 0, 0]
    tolerance = above_zero("The tolerance of mean-color", tolerance)

    def loss(pictures: Tensor, moment: Moment) -> Tensor:
        away = pictures.mean(dim=(2, 3)) - target.to(pictures)  # [B, 3]
        return away.square().sum(dim=1) / (2 * tolerance**2)

    return loss


def hue(value: str, canvas: Canvas, *, tolerance: float = 0.3) -> Loss:
    """The lit pixels take the colour's hue, however light or pale each of them is: `sum_p w_p (1 - cos a_p) / sum_p w_p / tolerance^2`.

    a_p is the angle in the plane of hues between pixel and colour; w_p, the light, is as in `color`. Near grey the cosine runs smoothly
    through 0, so a grey pixel is drawn towards the hue with a bounded force. A pixel of the opposite hue has to pass through grey.
    tolerance: the angle in radians, as a standard deviation (0.3 is 17 degrees). A colour without hue, such as grey, is a Mistake.
    """
    plane = torch.tensor(HUE_PLANE, device=canvas.device)  # [2, 3]
    wanted = plane @ _target("hue", value, canvas)[0, :, 0, 0]  # [2]
    tolerance = above_zero("The tolerance of hue", tolerance)
    if wanted.norm() < NO_HUE:
        raise Mistake(f"{value!r} is a grey, which has no hue; give a colour such as red, or use color={value} to mean the grey itself.")
    wanted = wanted / wanted.norm()

    def loss(pictures: Tensor, moment: Moment) -> Tensor:
        chroma = torch.einsum("kc,bchw->bkhw", plane.to(pictures), pictures)
        along = torch.einsum("k,bkhw->bhw", wanted.to(pictures), chroma)
        cosine = along / (chroma.square().sum(dim=1) + GREY_CHROMA**2).sqrt()
        return _by_light(1 - cosine, pictures) / tolerance**2

    return loss


def _target(name: str, value: str, canvas: Canvas) -> Tensor:
    """The colour as [1, 3, 1, 1]. Mistake on a grey model."""
    rgb = parse_color(value)
    if canvas.channels == 1:
        raise Mistake(f"{name} steers colour, and this model draws grey pictures; brightness=0.5 steers how light they are.")
    return torch.tensor(rgb, device=canvas.device).view(1, 3, 1, 1)


def _by_light(values: Tensor, pictures: Tensor) -> Tensor:
    """The mean of values [B, H, W] over a picture's pixels, each weighted by its light; 0 for a picture without any. [B]"""
    light = pictures.detach().amax(dim=1).clamp(min=0)  # [B, H, W]
    return (light * values).sum(dim=(1, 2)) / light.sum(dim=(1, 2)).clamp(min=BLACK)


def _from_numbers(text: str) -> Color:
    try:
        red, green, blue = (float(piece) for piece in text.split(","))
    except ValueError as error:
        raise Mistake(f"{text!r} is no colour: three numbers are red, green and blue, such as 0.1,0.9,0.5.") from error
    if all(0 <= value <= 1 for value in (red, green, blue)):
        return red, green, blue
    if all(0 <= value <= 255 for value in (red, green, blue)):
        in_range = ",".join(f"{value / 255:.3g}" for value in (red, green, blue))
        raise Mistake(f"The colour {text} counts to 255; here red, green and blue are from 0 to 1: {in_range}.")
    raise Mistake(f"The colour {text} is out of range: red, green and blue are from 0 to 1, such as 0.1,0.9,0.5.")
