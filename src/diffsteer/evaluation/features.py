"""What a judge sees in pictures: uint8 pictures -> features and labels. Called by `report.py`, and by whoever measures in another way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from diffsteer.diffusion.judge import Judge
from diffsteer.errors import Mistake

BATCH = 256


def judge_features(judge: Judge, pictures: Tensor, batch: int = BATCH) -> Tensor:
    """Features float64 [N, 64] on the CPU, of pictures uint8 [N, C, H, W] of any size.

    Mistake when grey pictures meet a judge of colour ones, or the reverse.
    """
    return torch.cat(list(_answers(judge, judge.features, pictures, batch)))


def judge_labels(judge: Judge, pictures: Tensor, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    """(label ids int64 [N], probabilities float64 [N, K]) on the CPU, of pictures uint8 [N, C, H, W]. Mistake as in `judge_features`."""
    probabilities = torch.cat(list(_answers(judge, judge, pictures, batch))).softmax(1)
    return probabilities.argmax(1), probabilities


@torch.no_grad()
def _answers(judge: Judge, ask: Callable[[Tensor], Tensor], pictures: Tensor, batch: int) -> Iterator[Tensor]:
    words, spec = {1: "grey", 3: "colour"}, judge.spec
    if pictures.shape[1] != spec.channels:
        raise Mistake(
            f"The judge knows {words[spec.channels]} pictures, and these are {words.get(pictures.shape[1], 'neither grey nor colour')}; "
            "train a judge on pictures like them."
        )
    device = judge.head.weight.device
    for some in pictures.split(batch):
        yield ask(some.to(device, torch.float32) / 255).cpu().double()
