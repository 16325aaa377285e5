"""What a network sees in pictures: uint8 pictures -> features, and a judge's labels. Called by `report.py`, and by whoever measures in
another way. Inception as a network that looks is in `inception.py`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsteer.diffusion.judge import Judge
from diffsteer.errors import Mistake
from diffsteer.evaluation.basis import Extractor

BATCH = 256


@dataclass(frozen=True)
class FeatureExtractor:
    """A network that looks: features float64 [N, D] on the CPU, of pictures uint8 [N, C, H, W].

    told: how results name it. device: where it computes, `cpu` or `cuda`; the last digits of features depend on that.
    """

    told: Extractor
    device: str
    features: Callable[[Tensor], Tensor]


def judge_extractor(judge: Judge) -> FeatureExtractor:
    """A judge as what looks. Its answer raises Mistake as in `judge_features`."""
    return FeatureExtractor(told_of(judge), judge.head.weight.device.type, lambda pictures: judge_features(judge, pictures))


def told_of(judge: Judge) -> Extractor:
    """A judge as results name it."""
    spec = judge.spec
    return Extractor(spec.architecture, _fingerprint(judge), spec.seed, spec.accuracy, spec.held_out, spec.data_source)


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


def _fingerprint(judge: Judge) -> str:
    """Hex sha256 of all that decides what a judge sees: its weights, and how pictures are brought to it."""
    spec = judge.spec
    digest = hashlib.sha256(json.dumps([spec.architecture, spec.height, spec.width, spec.data_mean, spec.data_variance]).encode())
    for name, value in sorted(judge.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
