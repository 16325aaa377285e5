"""The loss `clip`: the picture looks like what a text says, or like another picture, as a network that knows both sees it.

`clip` takes the prompts and the canvas and returns a loss (see `contract.py`); the table in `losses.py` calls it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from diffsteer.data.decode import Background, decode, in_channels
from diffsteer.errors import Mistake
from diffsteer.steering.contract import Canvas, Moment
from diffsteer.steering.cutouts import Cutter, cutter
from diffsteer.steering.encoders import Embedder, held, load_embedder

__all__ = ["ClipLoss", "Embedder", "Prompt", "clip", "clip_seed", "load_embedder", "parse_prompts", "squared_angle"]

BETWEEN = "|"  # prompts
WEIGHS = "::"  # text before, weight after
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")  # a prompt that ends so is a picture's path
DEFAULT = "openai/clip-vit-base-patch32"
WHITE = Background((255, 255, 255))


class Prompt(NamedTuple):
    """A text, or a picture's path. A negative weight asks for the contrary."""

    text: str
    weight: float = 1.0

    @property
    def is_picture(self) -> bool:
        return self.text.lower().endswith(PICTURES)


@dataclass(frozen=True)
class ClipLoss:
    """`sum_p |w_p| * mean over cutouts of the squared angle to prompt p / tolerance`, [B]; see `clip`.

    targets: unit vectors [P, D], those of negative weights turned round. weights: [P], their sizes. notes: what the user should know.
    """

    embedder: Embedder
    cut: Cutter
    targets: Tensor
    weights: Tensor
    tolerance: float

    @property
    def notes(self) -> tuple[str, ...]:
        return self.embedder.notes

    def __call__(self, pictures: Tensor, moment: Moment) -> Tensor:
        cutouts = self.cut(held(pictures), moment.seeds, moment.call)  # [B, cuts, C, size, size]
        seen = self.embedder.pictures(cutouts.flatten(0, 1)).unflatten(0, cutouts.shape[:2])  # [B, cuts, D]
        away = squared_angle(seen[:, :, None], self.targets.to(seen)).mean(1)  # [B, P]
        return (away * self.weights.to(seen)).sum(1) / self.tolerance


def clip(
    value: str,
    canvas: Canvas,
    *,
    model: str = DEFAULT,
    cuts: int = 4,
    crops: str = "mixed",
    tolerance: float = 0.0,
) -> ClipLoss:
    """The picture looks like `value`: a text, the path of a picture, or several joined by `|`, each with a weight after `::`, else 1, as in
    "a red rose::2|blurry::-1" or "a cat|photo.jpg::0.5". A weight is what a strength would be, were each prompt a steer of its own.

    Half the squared great-circle angle between the two unit vectors, as in the course, averaged over cutouts. A negative weight measures
    from the opposite point instead, so that no loss falls below 0: "away from blurry" is "towards what is least like blurry".

    model: a folder or Hub id of transformers' CLIP or SigLIP, or `open_clip:NAME/TAG`. cuts: cutouts of a picture, new ones at each call.
    crops: how they are cut, `mixed`, `whole`, `shifts` or `seed`; `cutouts.py` has the table.
    tolerance: the loss that costs one nat; 0 means the network's own temperature, 0.01 for CLIP: it was trained to read differences of
    cosines, divided by that, as differences of log-likelihood, and far from both ends half a squared angle runs as minus the cosine does.
    Mistake for prompts, options or a model that cannot be.
    """
    prompts = parse_prompts(value)
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise Mistake(f"The tolerance of clip is a number above 0, or 0 for the network's own; {tolerance:g} was given.")
    found = [_read(prompt.text) if prompt.is_picture else None for prompt in prompts]  # before a network is loaded
    embedder = load_embedder(model, canvas.device)
    cut = cutter(embedder.size, cuts=cuts, crops=crops)
    vectors = [
        embedder.text([prompt.text]) if picture is None else _seen(embedder, picture.to(canvas.device))
        for prompt, picture in zip(prompts, found, strict=True)
    ]
    weights = torch.tensor([prompt.weight for prompt in prompts], device=canvas.device)
    targets = torch.cat(vectors) * weights.sign()[:, None]
    return ClipLoss(embedder, cut, targets, weights.abs(), tolerance or embedder.temperature)


def clip_seed(value: str, canvas: Canvas, *, model: str = DEFAULT, cuts: int = 4) -> ClipLoss:
    """The course's own loss: half the squared angle, averaged over its cutouts, with no tolerance.

    The course averages over its batch of 4 as well, so its scale 8 is the strength 2 here. Its cell does not bring pictures from [-1, 1]
    to [0, 1], and cuts the whole batch alike; here the network sees what it was trained to see, and each picture has its own cutouts.
    """
    return clip(value, canvas, model=model, cuts=cuts, crops="seed", tolerance=1.0)


def squared_angle(a: Tensor, b: Tensor) -> Tensor:
    """Half the squared angle between unit vectors [..., D], 0 to pi^2 / 2: `2 * arcsin(|a - b| / 2)^2`, in a form whose slope stays finite
    where they are opposite (Kahan's, by atan2)."""
    return 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1)).square()


def parse_prompts(value: str) -> list[Prompt]:
    """ "a red rose::2|blurry::-1" -> prompts with weights. Mistake when one is empty, or a weight is no number or 0."""
    if not value.strip():
        raise Mistake('clip needs a text or the path of a picture, such as clip="a red rose" or clip=photo.jpg.')
    return [_parsed(piece, value) for piece in value.split(BETWEEN)]


def with_pictures_renamed(value: str, rename: Callable[[str], str]) -> str:
    """The same prompts, with other paths for those that are pictures'."""
    return BETWEEN.join(_renamed(piece, rename) for piece in value.split(BETWEEN))


def _renamed(piece: str, rename: Callable[[str], str]) -> str:
    text, weighed, weight = piece.rpartition(WEIGHS)
    path = (text if weighed else piece).strip()
    return f"{rename(path)}{weighed}{weight if weighed else ''}" if Prompt(path).is_picture else piece


def _parsed(piece: str, value: str) -> Prompt:
    text, weighed, weight = piece.rpartition(WEIGHS)
    text = (text if weighed else piece).strip()
    if not text:
        raise Mistake(f'A prompt in "{value}" is empty; prompts are joined by {BETWEEN}, as in "a red rose|a garden{WEIGHS}0.5".')
    try:
        number = float(weight) if weighed else 1.0
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number == 0:
        there = weight.strip() or "nothing"
        raise Mistake(f'After {WEIGHS} stands the weight of a prompt, a number other than 0; in "{piece.strip()}" there is {there}.')
    return Prompt(text, number)


def _read(path: str) -> Tensor:
    """The picture at a path, [1, 3, H, W] in [0, 1], transparent parts on white. Mistake when it is missing or no picture."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise Mistake(f"There is no picture {path!r}; a prompt with such an ending is the path of a picture.")
    try:
        array = in_channels(decode(file, WHITE), 3)
    except Exception as error:  # a decoder raises nearly anything at a damaged file
        raise Mistake(f"{path} is not a picture that can be read ({error}).") from error
    return torch.tensor(array, dtype=torch.float32)[None] / 255


@torch.no_grad()
def _seen(embedder: Embedder, picture: Tensor) -> Tensor:
    return embedder.pictures(picture)
