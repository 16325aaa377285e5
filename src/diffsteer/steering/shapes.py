"""Losses about the picture as a whole, grey or colour: `symmetry`, `brightness` and `smoothness`.

Each maker takes a word or a number and the canvas and returns a loss (see `contract.py`). The table in `losses.py` calls these.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsteer.errors import Mistake
from diffsteer.steering.contract import Canvas, Loss, Moment
from diffsteer.steering.options import above_zero, one_of

MIRRORS = {"left-right": (3,), "up-down": (2,), "both": (2, 3)}  # dimensions of [B, C, H, W], turned round one at a time
# The kinds of smoothness, each with the tolerance it has when none is given. On 8x8 digits, at strength 1, the mean step falls by a sixth
# and the Laplacian's square by two fifths; three times as strong, and a judge begins to doubt the digits.
STEPS = {"total-variation": 0.01, "laplacian": 0.03}


def symmetry(value: str, canvas: Canvas, *, tolerance: float = 0.05) -> Loss:
    """The picture is like its mirror image: `mean((x - mirrored)^2) / (2 tolerance^2)`, over all values.

    value: `left-right` (also when empty), `up-down`, or `both`, the mean of the two. tolerance: the difference, as a standard deviation.
    """
    mirrors = MIRRORS[one_of("The mirror of symmetry", value or "left-right", tuple(MIRRORS))]
    tolerance = above_zero("The tolerance of symmetry", tolerance)

    def loss(pictures: Tensor, moment: Moment) -> Tensor:
        differences = [(pictures - pictures.flip(mirror)).square().mean(dim=(1, 2, 3)) for mirror in mirrors]
        return torch.stack(differences).mean(dim=0) / (2 * tolerance**2)

    return loss


def brightness(value: str, canvas: Canvas, *, tolerance: float = 0.02) -> Loss:
    """The mean of all of a picture's values comes near a number from 0 (black) to 1 (white): `(mean - value)^2 / (2 tolerance^2)`."""
    wanted = _level(value)
    tolerance = above_zero("The tolerance of brightness", tolerance)

    def loss(pictures: Tensor, moment: Moment) -> Tensor:
        return (pictures.mean(dim=(1, 2, 3)) - wanted).square() / (2 * tolerance**2)

    return loss


def smoothness(value: str, canvas: Canvas, *, tolerance: float = 0.0) -> Loss:
    """Neighbouring pixels are alike.

    value: `total-variation` (also when empty; Rudin, Osher and Fatemi 1992), the mean step |x_p - x_q| to the neighbours below and to the
    right / tolerance: noise goes and edges may stay; or `laplacian`, the mean square of what remains when the mean of its four neighbours
    is taken from a pixel / (2 tolerance^2): edges go as well. tolerance: 0 means 0.01 for total-variation, 0.03 for laplacian.
    """
    kind = one_of("The kind of smoothness", value or "total-variation", tuple(STEPS))
    tolerance = above_zero("The tolerance of smoothness", tolerance or STEPS[kind])

    def total_variation(pictures: Tensor, moment: Moment) -> Tensor:
        down, right = pictures.diff(dim=2).abs(), pictures.diff(dim=3).abs()
        return (down.mean(dim=(1, 2, 3)) + right.mean(dim=(1, 2, 3))) / 2 / tolerance

    def laplacian(pictures: Tensor, moment: Moment) -> Tensor:
        inner = pictures[:, :, 1:-1, 1:-1]
        up_down = pictures[:, :, :-2, 1:-1] + pictures[:, :, 2:, 1:-1]
        left_right = pictures[:, :, 1:-1, :-2] + pictures[:, :, 1:-1, 2:]
        return (inner - (up_down + left_right) / 4).square().mean(dim=(1, 2, 3)) / (2 * tolerance**2)

    return total_variation if kind == "total-variation" else laplacian


def _level(value: str) -> float:
    try:
        level = float(value)
    except ValueError as error:
        raise Mistake(f"brightness takes a number from 0 (black) to 1 (white), such as brightness=0.3; {value!r} is none.") from error
    if not 0 <= level <= 1:
        raise Mistake(f"brightness goes from 0 (black) to 1 (white); {value} was given.")
    return level
