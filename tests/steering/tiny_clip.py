"""A tiny CLIP, trained in seconds on the captions of `digits-color`, in a folder that opens by the same path as a real one.

`python tests/steering/tiny_clip.py OUT` makes the folder by hand and tells how well it reads pictures it was not trained on.
"""

from __future__ import annotations

import string
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffsteer.data.builtin import TINTS, WORDS, open_builtin
from diffsteer.diffusion.seeds import generator_for
from diffsteer.steering.cutouts import cutter

COLORS = tuple(TINTS)
SIDE, PATCH, WIDTH, LAYERS, DEPTH = 16, 8, 96, 2, 64  # the pictures' side there, their patches, the towers' width, layers and vectors
LONGEST = 8  # tokens of a text
STEPS, BATCH, RATE = 300, 128, 4e-3
HELD_OUT = 5  # one picture in so many is not trained on

# Every way to say what a picture shows: both, the digit, the colour.
BOTH = tuple(f"a {color} {word}" for color in COLORS for word in WORDS)
DIGIT = tuple(f"a {word}" for word in WORDS)
COLOR = tuple(f"a {color} digit" for color in COLORS)


@dataclass(frozen=True)
class Captioned:
    """Pictures [N, 3, 8, 8] in [0, 1], their colours and digits [N] by number."""

    pictures: Tensor
    colors: Tensor
    digits: Tensor

    def part(self, where: Tensor) -> Captioned:
        return Captioned(self.pictures[where], self.colors[where], self.digits[where])

    def answers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Which of BOTH, DIGIT and COLOR fits each picture."""
        return self.colors * len(WORDS) + self.digits, self.digits, self.colors


def captioned() -> tuple[Captioned, Captioned]:
    """`digits-color`, (for training, held out)."""
    source = open_builtin("digits-color")
    assert source.captions is not None
    pictures = torch.tensor(source.rows.arrays, dtype=torch.float32).permute(0, 3, 1, 2) / 255
    words = [caption.split() for caption in source.captions]
    colors = torch.tensor([COLORS.index(color) for _, color, _ in words])
    digits = torch.tensor([WORDS.index(digit) for *_, digit in words])
    everything = Captioned(pictures, colors, digits)
    out = torch.arange(len(pictures)) % HELD_OUT == 0
    return everything.part(~out), everything.part(out)


def make_tiny_clip(out: Path, *, steps: int = STEPS, seed: int = 0) -> None:
    """Train and save: model and processor, as `from_pretrained` wants them. 0 steps leave the first weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the networks' first weights
        network, tokenizer = _untrained()
    if steps:
        _train(network, tokenizer, steps, seed)
    _save(network, tokenizer, out)


def accuracies(out: Path) -> dict[str, float]:
    """How often the nearest caption is right for pictures that it was not trained on: of all 30, of the 10 digits, of the 3 colours."""
    from diffsteer.steering.encoders import load_embedder

    embedder, (_, data) = load_embedder(str(out)), captioned()
    seen = embedder.pictures(data.pictures)
    told = {}
    for name, captions, right in zip(("both", "digit", "color"), (BOTH, DIGIT, COLOR), data.answers(), strict=True):
        nearest = (seen @ embedder.text(captions).T).argmax(1)
        told[name] = float((nearest == right).float().mean())
        if name == "both":
            told["digit of both"] = float((nearest % len(WORDS) == data.digits).float().mean())
            told["color of both"] = float((nearest // len(WORDS) == data.colors).float().mean())
    return told


# ---- training --------------------------------------------------------------------------------------------------------


def _train(network: Any, tokenizer: Any, steps: int, seed: int) -> None:
    data, _ = captioned()
    texts = tokenizer([*BOTH, *DIGIT, *COLOR], padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    cuts = cutter(SIDE, cuts=1, crops="shifts"), cutter(SIDE, cuts=2, crops="mixed")
    mean = data.pictures.mean(0)
    for step in range(steps):
        chosen = torch.randint(len(data.pictures), (BATCH,), generator=generator_for(seed, "batch", step))
        batch = data.part(chosen)
        spoiled = _spoiled(batch.pictures, mean, generator_for(seed, "spoil", step))
        views = cuts[step % 2](spoiled, range(step * BATCH, (step + 1) * BATCH), seed)[:, -1]  # shifts and crops in turn
        seen = network.get_image_features(pixel_values=_normalised(views)).pooler_output
        read = network.get_text_features(**texts).pooler_output
        loss = _loss(F.normalize(seen, dim=1), F.normalize(read, dim=1), network.logit_scale.exp(), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _loss(seen: Tensor, read: Tensor, scale: Tensor, batch: Captioned) -> Tensor:
    """Contrastive both ways, over each way of saying it: which caption fits the picture, which pictures of the batch fit the caption."""
    total = seen.new_zeros(())
    texts = read.split([len(BOTH), len(DIGIT), len(COLOR)])
    for vectors, right in zip(texts, batch.answers(), strict=True):
        logits = scale * seen @ vectors.T  # [B, captions]
        fits = F.one_hot(right, len(vectors)).float()
        there = fits.sum(0) > 0
        shares = (fits / fits.sum(0).clamp(min=1)).T[there]
        total = total + F.cross_entropy(logits, right) + F.cross_entropy(logits.T[there], shares) - _entropy(shares)
    return total


def _entropy(shares: Tensor) -> Tensor:
    """What the cross-entropy with `shares` cannot fall below."""
    return torch.special.entr(shares).sum(1).mean()


def _spoiled(pictures: Tensor, mean: Tensor, generator: torch.Generator) -> Tensor:
    """Half of them blurred, drawn towards the mean of all, dimmed and noisy: what a denoiser's early guesses look like."""
    count = len(pictures)
    drawn = torch.rand((6, count, 1, 1, 1), generator=generator)
    noise = torch.randn(pictures.shape, generator=generator)
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    rough = pictures.lerp(blurred, drawn[0])
    rough = rough.lerp(mean, 0.7 * drawn[1]) * (1.2 - 0.5 * drawn[2])
    rough = (rough + 0.25 * drawn[3] * noise).clamp(0, 1)
    return torch.where(drawn[4] < 0.5, rough, pictures)


# ---- the folder ------------------------------------------------------------------------------------------------------


MEAN, STD = (0.17, 0.15, 0.18), (0.27, 0.24, 0.28)  # of digits-color


def _normalised(pictures: Tensor) -> Tensor:
    return (pictures - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _untrained() -> tuple[Any, Any]:
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    vocabulary, merges = _vocabulary()
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LONGEST)
    tower = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4, "projection_dim": DEPTH}
    text = {**tower, "vocab_size": len(vocabulary), "max_position_embeddings": LONGEST, "num_hidden_layers": 1}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    vision = {**tower, "image_size": SIDE, "patch_size": PATCH, "num_hidden_layers": LAYERS}
    return CLIPModel(CLIPConfig(text_config={**text, **ends}, vision_config=vision, projection_dim=DEPTH)), tokenizer


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte pairs that know every word of the captions, and letters for any other."""
    pieces = ["<|startoftext|>", "<|endoftext|>"]
    pieces += [letter + end for letter in string.ascii_lowercase for end in ("", "</w>")]
    merges: list[tuple[str, str]] = []
    for word in ("digit", *COLORS, *WORDS):
        parts = [*word[:-1], word[-1] + "</w>"]
        for pair in merges:  # a tokenizer joins by the oldest pairs first
            parts = _joined(parts, pair)
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            pieces.append(parts[0] + parts[1])
            parts = _joined(parts, merges[-1])
    return {piece: number for number, piece in enumerate(pieces)}, merges


def _joined(parts: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _save(network: Any, tokenizer: Any, out: Path) -> None:
    from transformers import CLIPImageProcessorPil, CLIPProcessor

    square = {"height": SIDE, "width": SIDE}
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square, image_mean=list(MEAN), image_std=list(STD))
    network.eval().save_pretrained(out)
    CLIPProcessor(pictures, tokenizer).save_pretrained(out)


if __name__ == "__main__":
    started = time.perf_counter()
    make_tiny_clip(Path(sys.argv[1]), steps=int(sys.argv[2]) if len(sys.argv) > 2 else STEPS)
    print(f"{time.perf_counter() - started:.1f} s", accuracies(Path(sys.argv[1])))  # noqa: T201
