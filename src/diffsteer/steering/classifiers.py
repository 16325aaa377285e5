"""The loss `classifier`: -log p(label | picture), by one of our judges, or by a `transformers` image classifier's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffsteer.diffusion.conditioning import parse_labels
from diffsteer.diffusion.judge import Judge, is_judge, load_judge
from diffsteer.errors import Mistake
from diffsteer.steering.contract import Canvas, Loss, Moment, NoisyLoss

EACH = "each"


def classifier(value: str, canvas: Canvas, *, label: str, noise_aware: bool = False) -> Loss:
    """The picture is of a class: the cross-entropy of `label` (a name or a number; `each` asks the picture of seed s for class s modulo
    their count), which is a negative log-likelihood in nats as it
    stands.

    value: the folder of a judge (`diffsteer judge DATA --out FOLDER`) or of a `transformers` image classifier.
    noise_aware: ask the judge about the noisy picture itself (classifier guidance, Dhariwal & Nichol 2021, section 4.1); the judge must
    have been trained for it (`diffsteer judge --noise-aware`).
    """
    folder = Path(value).expanduser()
    if is_judge(folder):
        return _by_judge(load_judge(folder).to(canvas.device), value, canvas, label, noise_aware)
    if (folder / "config.json").is_file():
        if noise_aware:
            raise Mistake(f"{value} is a transformers classifier, which knows clean pictures only; leave noise-aware out.")
        return _cross_entropy(*_from_transformers(folder, canvas.device), label)
    raise Mistake(
        f"{value} is no classifier: give a folder that `diffsteer judge DATA --out FOLDER` made, or a transformers image classifier's."
    )


def class_names(value: str) -> tuple[str, ...]:
    """The classes of a classifier's folder, as `classifier` numbers them. value: as there; Mistake as there."""
    folder = Path(value).expanduser()
    if is_judge(folder):
        return load_judge(folder).spec.label_names
    return tuple(_from_transformers(folder, "cpu")[1])


def _by_judge(judge: Judge, value: str, canvas: Canvas, label: str, noise_aware: bool) -> Loss:
    spec = judge.spec
    if spec.channels != canvas.channels:
        words = {1: "grey", 3: "colour"}
        raise Mistake(f"The judge {value} reads {words[spec.channels]} pictures, and the model draws in {words[canvas.channels]}.")
    loss = _cross_entropy(judge, spec.label_names, label)
    if not noise_aware:
        return loss
    if not spec.noise_aware:
        raise Mistake(f"The judge {value} knows clean pictures only; train another with diffsteer judge --noise-aware, or leave it out.")
    if (spec.height, spec.width) != (canvas.height, canvas.width):
        raise Mistake(
            f"The judge {value} knows noisy pictures of {spec.height}x{spec.width}, and the model draws {canvas.height}x{canvas.width}."
        )
    wanted = _wanted(spec.label_names, label)

    def of_noisy(x_t: Tensor, moment: Moment) -> Tensor:
        return _nats(judge(x_t, torch.tensor(moment.noise_level)), wanted(moment))

    return NoisyLoss(of_noisy, loss)


def _cross_entropy(logits: Callable[[Tensor], Tensor], names: Sequence[str], label: str) -> Loss:
    wanted = _wanted(names, label)

    def loss(pictures: Tensor, moment: Moment) -> Tensor:
        return _nats(logits(pictures), wanted(moment))

    return loss


def _nats(logits: Tensor, wanted: Tensor) -> Tensor:
    return F.cross_entropy(logits, wanted.to(logits.device), reduction="none")


def asked_ids(names: Sequence[str], label: str, seeds: Sequence[int]) -> Tensor:
    """The class [B] that each of these pictures is asked for. Mistake for a label that is none, or several."""
    if label == EACH:
        return torch.tensor([seed % len(names) for seed in seeds])
    found = parse_labels([label], tuple(names), "The classifier")
    if len(found) != 1:
        raise Mistake(f"The label of classifier is one class, or {EACH}; {label!r} names {len(found)}.")
    return torch.full((len(seeds),), int(found[0]))


def _wanted(names: Sequence[str], label: str) -> Callable[[Moment], Tensor]:
    asked_ids(names, label, [])  # a label that cannot be is said now
    return lambda moment: asked_ids(names, label, moment.seeds)


def _from_transformers(folder: Path, device: torch.device | str) -> tuple[Callable[[Tensor], Tensor], list[str]]:
    """(pictures -> logits, class names) of a `transformers` image classifier's folder; no code in it is run."""
    try:
        from transformers import AutoModelForImageClassification
    except ImportError:
        raise Mistake("A transformers classifier needs transformers: pip install 'diffsteer[clip]'.") from None
    try:
        network = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise Mistake(f"{folder} cannot be read as an image classifier: {' '.join(str(error).split())[:200]}.") from error
    network.requires_grad_(False).eval().to(device)
    mean, spread, size = _preparation(folder, network.config)
    names = [str(network.config.id2label[number]) for number in range(network.config.num_labels)]

    def logits(pictures: Tensor) -> Tensor:
        colour = pictures.expand(-1, len(mean), -1, -1)
        if colour.shape[2:] != size:
            colour = F.interpolate(colour, size, mode="bilinear", antialias=True)
        scaled = (colour - colour.new_tensor(mean)[:, None, None]) / colour.new_tensor(spread)[:, None, None]
        return network(scaled).logits

    return logits, names


def _preparation(folder: Path, config: Any) -> tuple[list[float], list[float], tuple[int, int]]:
    """(mean, standard deviation, (height, width)) that the folder's processor brings pictures to; without one, 0.5, 0.5 and the model's
    size."""
    path = folder / "preprocessor_config.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    channels = getattr(config, "num_channels", 3)
    height, width = _side(values.get("crop_size") or values.get("size") or getattr(config, "image_size", 224))
    return values.get("image_mean", [0.5] * channels), values.get("image_std", [0.5] * channels), (height, width)


def _side(size: Any) -> tuple[int, int]:
    """(height, width) of a size as processors write it: a number, a pair, {height, width} or {shortest_edge}."""
    if isinstance(size, dict):
        size = [size[key] for key in ("height", "width")] if "height" in size else size["shortest_edge"]
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)
