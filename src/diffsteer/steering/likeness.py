"""Losses by a picture of the user's: `reference` (look like it) and `style` (share its texture).

Each maker takes the path of a picture and the canvas and returns a loss (see `contract.py`). The picture is laid on white, turned upright,
scaled to cover the canvas and cropped about its centre; on a grey model it becomes grey. The table in `losses.py` calls these.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from diffsteer.diffusion.seeds import generator_for
from diffsteer.errors import Mistake
from diffsteer.steering.contract import Canvas, Loss, Moment
from diffsteer.steering.embedding import load_embedder, squared_angle
from diffsteer.steering.files import read_picture
from diffsteer.steering.options import above_zero, one_of

# How far off one standard deviation is when `reference` has no tolerance of its own: in values of [0, 1], and in radians.
LIKENESS = {"pixels": 0.05, "low": 0.05, "embedding": 0.2}

STYLE_SIDES = (3, 5, 7, 11)  # of the filters; those fit that are at most half as large as the picture
STYLE_FILTERS = 64  # of each size
STYLE_FLOOR = 0.01  # keeps the relative distance finite for a reference that no filter answers to, such as even grey


def reference(
    value: str, canvas: Canvas, *, by: str = "pixels", factor: int = 4, model: str = "openai/clip-vit-base-patch32", tolerance: float = 0.0
) -> Loss:
    """The picture looks like the one whose path is `value`.

    by: `pixels`, the mean squared difference of all values; `low`, the same after averaging over blocks of factor x factor pixels, so that
    layout and colours are asked for and details are free (the low-pass reference of ILVR, Choi et al. 2021); `embedding`, the squared angle
    between what the CLIP model `model` sees in the two, so that the subject is asked for and its place is free.
    tolerance: the root of it as a standard deviation; 0 means 0.05 for pixels, 0.05 for low, 0.2 (radians) for embedding.
    """
    way = one_of("The way of reference (by)", by, tuple(LIKENESS))
    tolerance = above_zero("The tolerance of reference", tolerance or LIKENESS[way])
    picture = read_picture(value, canvas)[None]
    if way == "embedding":
        return _same_embedding(picture, model, tolerance)
    see = _blocks(factor, canvas) if way == "low" else _as_it_is
    wanted = see(picture)

    def loss(pictures: Tensor, moment: Moment) -> Tensor:
        return (see(pictures) - wanted.to(pictures)).square().mean(dim=(1, 2, 3)) / (2 * tolerance**2)

    return loss


def style(value: str, canvas: Canvas, *, tolerance: float = 0.1) -> Loss:
    """The picture has the texture of the one whose path is `value`, wherever its parts lie.

    Gram matrices (Gatys, Ecker and Bethge 2016) of the answers of fixed random filters in several sizes, one rectified layer; they describe
    texture about as well as a trained network's (Ustyuzhaninov, Brendel, Gatys and Bethge 2016, arXiv:1606.00021), and nothing is
    downloaded. For each size `|G - G_ref|^2 / |G_ref|^2`; the mean over sizes / (2 tolerance^2).
    tolerance: the relative distance of the matrices, as a standard deviation.
    """
    tolerance = above_zero("The tolerance of style", tolerance)
    banks = _filter_banks(canvas)
    picture = read_picture(value, canvas)[None]
    wanted = [_gram(picture, bank) for bank in banks]

    def loss(pictures: Tensor, moment: Moment) -> Tensor:
        distances = [
            (_gram(pictures, bank) - gram.to(pictures)).square().sum(dim=(1, 2)) / (gram.to(pictures).square().sum() + STYLE_FLOOR)
            for bank, gram in zip(banks, wanted, strict=True)
        ]
        return torch.stack(distances).mean(dim=0) / (2 * tolerance**2)

    return loss


# ---- reference -------------------------------------------------------------------------------------------------------


def _blocks(factor: int, canvas: Canvas) -> Callable[[Tensor], Tensor]:
    """Averages over blocks; the last row and column of blocks may be smaller, or overlap, when the size is no multiple."""
    if not 1 <= factor <= min(canvas.height, canvas.width):
        raise Mistake(f"The factor of reference is from 1 to {min(canvas.height, canvas.width)} for this model's pictures, not {factor}.")
    size = (canvas.height // factor, canvas.width // factor)
    return lambda pictures: F.adaptive_avg_pool2d(pictures, size)


def _as_it_is(pictures: Tensor) -> Tensor:
    return pictures


def _same_embedding(picture: Tensor, model: str, tolerance: float) -> Loss:
    embedder = load_embedder(model, picture.device)
    with torch.no_grad():
        wanted = embedder.pictures(picture)  # [1, D]

    def loss(pictures: Tensor, moment: Moment) -> Tensor:
        return squared_angle(embedder.pictures(pictures), wanted) / tolerance**2

    return loss


# ---- style -----------------------------------------------------------------------------------------------------------


def _filter_banks(canvas: Canvas) -> list[Tensor]:
    """Random filters of length 1, [STYLE_FILTERS, C, side, side] for each side that fits: the same on every machine."""
    banks = []
    for side in (side for side in STYLE_SIDES if side == STYLE_SIDES[0] or 2 * side <= min(canvas.height, canvas.width)):
        shape = (STYLE_FILTERS, canvas.channels, side, side)
        filters = torch.randn(shape, generator=generator_for("style", *shape))
        banks.append((filters / filters.flatten(1).norm(dim=1)[:, None, None, None]).to(canvas.device))
    return banks


def _gram(pictures: Tensor, bank: Tensor) -> Tensor:
    """How often two filters answer in the same place, [B, F, F]: the mean over places, so that pictures of other sizes compare."""
    answers = F.relu(F.conv2d(2 * pictures - 1, bank.to(pictures))).flatten(2)  # [B, F, places]
    return answers @ answers.transpose(1, 2) / answers.shape[2]
