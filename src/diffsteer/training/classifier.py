"""Judges in training: labelled pictures -> a `Judge` that knows their classes, and how often it is right on pictures it never saw.

AdamW on one cycle of the learning rate, a little label smoothing, and pictures turned, enlarged and shifted a little; never mirrored, for
a mirrored digit is another sign. Called by whatever needs a judge and has none yet.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from diffsteer.data.batch import Pictures, resident
from diffsteer.data.pixels import to_signed
from diffsteer.diffusion.denoiser import Denoiser
from diffsteer.diffusion.judge import Judge, JudgeSpec
from diffsteer.diffusion.seeds import generator_for
from diffsteer.errors import Mistake

BATCH, LR, WEIGHT_DECAY, LABEL_SMOOTHING = 64, 3e-3, 0.05, 0.05
WARM_UP = 0.2  # the share of the steps in which the learning rate rises
LEAST_CYCLE = 6
LEAST_STEPS, LEAST_EPOCHS = 1200, 4  # the default length is whichever is longer; 600 steps cost 900 pictures 3 points of accuracy
TURN, ZOOM, SHIFT = 0.15, 0.1, 0.15  # at most: radians, the logarithm of a factor, halves of a side (2 pixels of 28)
TIMED_STEPS = 5

Watch = Callable[[int, int], None]  # (steps done, steps in all)
Guess = Callable[[Tensor, Tensor, Tensor], Tensor]


def train_judge(
    data: Pictures,
    *,
    architecture: str = "plain",
    seed: int = 0,
    seconds: float | None = None,
    epochs: int | None = None,
    noise_aware: bool = False,
    through: Denoiser | None = None,
    through_name: str = "",
    device: torch.device | str = "cpu",
    held_out_share: float = 0.1,
    watch: Watch | None = None,
) -> Judge:
    """A judge in eval mode, its weights frozen, on `device`.

    A share of the pictures, a function of (seed, count) alone, is held out: the judge never learns from them, and `spec.accuracy` is the
    share of them that it tells right, clean ones also where it is `noise_aware`. Length: `epochs`, or `seconds` (which become steps by
    timing a few, so the judge then depends on the machine's speed), or four epochs and no fewer than 1,200 steps. Otherwise the judge is a
    function of (data, settings, seed) on one CPU with the same threads; torch's global generator is left as it was. `watch` is called
    after each step.

    through: a denoiser of pictures of this size, on the same device; the judge then learns what it makes of noisy pictures, x0(x_t) at
    every noise level, instead of the pictures. A steer asks about just those, and a judge of clean pictures was never asked about a blur
    of several
    answers: p(y | x_t) = judge(x0(x_t)) is classifier guidance (Dhariwal & Nichol 2021) with the denoiser as the first half of the
    classifier. Mistake when the data has no labels, fewer than two classes, or too few pictures; ValueError for settings that
    cannot be.
    """
    if seconds is not None and epochs is not None:
        raise ValueError("a judge is trained for so many seconds or for so many epochs, not both")
    held, learnt = held_out_split(data, seed, held_out_share)
    spec = JudgeSpec(
        architecture=architecture,
        channels=data.channels,
        height=data.height,
        width=data.width,
        label_names=tuple(data.label_names),
        seed=seed,
        noise_aware=noise_aware,
        data_mean=data.mean,
        data_variance=data.variance,
        data_source=data.source,
        data_fingerprint=data.fingerprint,
        through=through_name,
    )
    judge, data = _untrained(spec).to(device), resident(data, device)
    batch = min(len(learnt), BATCH)
    guess = None if through is None else _guesses(through)
    steps = _steps(judge, data, learnt, batch, seconds, epochs, guess)
    _learn(judge, data, learnt, batch, steps, watch, guess)
    judge.requires_grad_(False).eval()
    judge.spec = replace(spec, held_out=len(held), accuracy=accuracy(judge, data, held))
    return judge


def held_out_split(data: Pictures, seed: int, share: float) -> tuple[Tensor, Tensor]:
    """(held out, learnt from): indices int64, at random by (seed, count). Raises as `train_judge` does."""
    if not 0 < share < 1:
        raise ValueError(f"the share to hold out should lie between 0 and 1; {share} was given")
    if not data.label_names:
        raise Mistake(f"{data.source} has no labels, and a judge learns classes; put the pictures into one sub-folder per class.")
    if len(data.label_names) < 2:
        raise Mistake(f"{data.source} has one class only, {data.label_names[0]}; a judge needs at least two to tell apart.")
    held = round(share * data.count)
    if held < 1 or data.count - held < 2:
        raise Mistake(f"{data.source} has {data.count} pictures, too few to hold any out and learn from the rest.")
    order = torch.randperm(data.count, generator=generator_for(seed, "judge held out"))
    return order[:held], order[held:]


@torch.no_grad()
def accuracy(judge: Judge, data: Pictures, indices: Tensor) -> float:
    """The share of these pictures that the judge tells right. `data` lies on the judge's device or is streamed."""
    right = 0
    for some in indices.split(512):
        pixels, labels = _pictures(judge, data, some)
        right += int((judge((to_signed(pixels) + 1) / 2).argmax(1) == labels).sum())
    return right / len(indices)


def _untrained(spec: JudgeSpec) -> Judge:
    with torch.random.fork_rng():
        torch.manual_seed(generator_for(spec.seed, "judge weights").initial_seed())
        return Judge(spec)


def _steps(judge: Judge, data: Pictures, learnt: Tensor, batch: int, seconds: float | None, epochs: int | None, guess: Guess | None) -> int:
    """How many steps to train for."""
    in_epoch = len(learnt) / batch
    if epochs is not None:
        return max(1, round(epochs * in_epoch))
    if seconds is None:
        return max(LEAST_STEPS, math.ceil(LEAST_EPOCHS * in_epoch))
    trial = copy.deepcopy(judge)
    _learn(trial, data, learnt, batch, 1, None, guess)  # the first step of all is slower than the others
    started = time.perf_counter()
    _learn(trial, data, learnt, batch, TIMED_STEPS, None, guess)
    for parameter in trial.parameters():
        parameter.sum().item()  # waits for the device
    return max(1, round(seconds / (time.perf_counter() - started) * TIMED_STEPS))


def _learn(judge: Judge, data: Pictures, learnt: Tensor, batch: int, steps: int, watch: Watch | None, guess: Guess | None) -> None:
    """Trains `judge` in place."""
    judge.train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    # total_steps is one more than is taken: torch's rule is undefined for a cycle of one step, and for one of 1 / WARM_UP.
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=max(steps + 1, LEAST_CYCLE), pct_start=WARM_UP)
    for step, indices in zip(range(steps), _batches(learnt, batch, judge.spec.seed), strict=False):
        pixels, labels = _pictures(judge, data, indices)
        x0 = jittered(to_signed(pixels), judge.spec.seed, step)
        F.cross_entropy(_asked(judge, x0, step, guess), labels, label_smoothing=LABEL_SMOOTHING).backward()
        optimizer.step()
        optimizer.zero_grad()
        cycle.step()
        if watch is not None:
            watch(step + 1, steps)


def _batches(learnt: Tensor, batch: int, seed: int) -> Iterator[Tensor]:
    """Shuffled indices without end, every one once an epoch; an epoch's last pictures share a batch with the next one's first."""
    left, epoch = learnt[:0], 0
    while True:
        if len(left) < batch:
            order = torch.randperm(len(learnt), generator=generator_for(seed, "judge order", epoch))
            left, epoch = torch.cat([left, learnt[order]]), epoch + 1
        yield left[:batch]
        left = left[batch:]


def _asked(judge: Judge, x0: Tensor, step: int, guess: Guess | None) -> Tensor:
    """Logits [B, K] for pictures in [-1, 1]: clean, or at a noise level of their own, as they are (noise-aware) or guessed from it."""
    if not judge.spec.noise_aware and guess is None:
        return judge((x0 + 1) / 2)
    generator = generator_for(judge.spec.seed, "judge noise", step, device=x0.device)
    # Evenly over the angle, as in a cosine schedule: every noise level from 0 to 1, and the clean end is not forgotten.
    angle = torch.rand(len(x0), generator=generator, device=x0.device) * (math.pi / 2)
    eps = torch.randn(x0.shape, generator=generator, device=x0.device)
    if guess is not None:
        return judge((guess(x0, eps, angle) + 1) / 2)
    return judge(angle.cos()[:, None, None, None] * x0 + angle.sin()[:, None, None, None] * eps, angle.sin())


def _guesses(denoiser: Denoiser) -> Guess:
    """(x0 [B, C, H, W] in [-1, 1], eps, angles [B] of sigma / alpha) -> what the denoiser takes x_t for, without labels."""
    spec = denoiser.spec
    if spec.labelled and not spec.null_class:
        raise Mistake(
            "A judge can learn through a model without labels, or one that was trained with label dropout; this one always needs a label."
        )

    @torch.no_grad()
    def guess(x0: Tensor, eps: Tensor, angle: Tensor) -> Tensor:
        t = spec.process.time_of(angle.cpu().double().tan()).clamp(0, spec.process.t_max).to(x0)
        cond = torch.full((len(x0),), spec.null_id, device=x0.device) if spec.labelled else None
        return denoiser(spec.process.add_noise(x0, eps, t), t, cond)

    return guess


def jittered(x0: Tensor, seed: int, step: int) -> Tensor:
    """Pictures [B, C, H, W], each turned, enlarged and shifted a little by (seed, step, row); their edges are drawn out."""
    draws = torch.rand(4, len(x0), generator=generator_for(seed, "judge jitter", step)).mul(2).sub(1).to(x0.device)
    angle, scale = draws[0] * TURN, (draws[1] * ZOOM).exp()
    cos, sin, shift = scale * angle.cos(), scale * angle.sin(), draws[2:] * SHIFT
    maps = torch.stack([torch.stack([cos, -sin, shift[0]], 1), torch.stack([sin, cos, shift[1]], 1)], 1)  # [B, 2, 3]
    return F.grid_sample(x0, F.affine_grid(maps, list(x0.shape), align_corners=False), padding_mode="border", align_corners=False)


def _pictures(judge: Judge, data: Pictures, indices: Tensor) -> tuple[Tensor, Tensor]:
    """(uint8 [B, C, H, W], label ids [B]) on the judge's device."""
    device = judge.head.weight.device
    found = data.at(indices.tolist())
    assert found.labels is not None  # data with label names has labels
    return found.pixels.to(device), found.labels.to(device)
