"""Scores in training: the same pictures drawn again and again with the weights of the moment, and scored beside real ones.

In: the run's settings, its data and how its network is read. Out: `Scores` of each look. A look draws by generators of its own, so it
touches nothing that the run computes. Called by `run.py`, which writes the scores down; `diffsteer compare` reads them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from diffsteer.config import TrainSettings
from diffsteer.data.batch import Pictures
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.judge import Judge, load_judge
from diffsteer.diffusion.networks import size_multiple
from diffsteer.errors import Mistake
from diffsteer.evaluation.features import judge_labels
from diffsteer.evaluation.report import Scores, checked_ids
from diffsteer.judging import FIRST, TOLD_BY, Say, ids_judged, kept_judge, labels_left, labels_scored, new_judge, scored_jobs, scorer
from diffsteer.progress import steps_bar
from diffsteer.sampling.draw import BATCH, How, draw
from diffsteer.training.budget import judge_seconds

Made = TypeVar("Made")


@dataclass(frozen=True)
class Scorer:
    """What every look of a run shares: its pictures, how they are drawn and scored. new_judge: the one trained for it, if one was."""

    spec: ModelSpec
    labels: dict[int, int]
    count: int
    device: str
    scores: Callable[[Tensor], Scores]
    new_judge: Judge | None

    @property
    def how(self) -> How:
        """The model's own solver, steps and guidance."""
        return How().resolved(self.spec)

    def look(self, network: nn.Module) -> Scores:
        """The scores of what this network draws, as `how` says."""
        return self.scores(self._drawn(network, self.count))

    def seconds(self, network: nn.Module) -> float:
        """About how long a look takes, from a few pictures drawn, and as many scored as a look has."""
        few = min(FIRST, self.count)
        pictures, seconds = _timed(lambda: self._drawn(network, few))
        if few < self.count and seconds < TOLD_BY:
            few = min(BATCH, self.count)
            pictures, seconds = _timed(lambda: self._drawn(network, few))
        as_many = pictures.repeat(-(-self.count // few), 1, 1, 1)[: self.count]
        return seconds * self.count / few + _timed(lambda: self.scores(as_many))[1]

    def _drawn(self, network: nn.Module, count: int) -> Tensor:
        """Pictures uint8 [count, C, H, W]; the network is left in the mode that it was in."""
        how, training = self.how, network.training
        network.eval()
        with steps_bar(-(-count // BATCH) * int(how.steps or 1), "scores") as watch:
            denoiser = Denoiser(network, self.spec, size_multiple(network))
            drawn = draw(denoiser, scored_jobs(self.labels, count), how, device=self.device, watch=watch)
        network.train(training)
        return drawn.pictures


def check(settings: TrainSettings, data: Pictures, spec: ModelSpec) -> None:
    """Mistake where this run cannot be scored as it is asked, found out before anything takes time."""
    if settings.score_every is None:
        return
    if settings.judge is not None:
        judge = load_judge(settings.judge)
        judge_labels(judge, torch.zeros(1, data.channels, data.height, data.width, dtype=torch.uint8))
        asked = ids_judged(spec, scored_jobs(labels_scored(spec, data), settings.score_count), judge)
        checked_ids(asked, settings.score_count, data, judge)
    elif len(data.label_names) < 2:
        has = f"one class only, {data.label_names[0]}" if data.label_names else "no labels"
        raise Mistake(
            f"--score-every needs a judge, and none can be trained on {data.source}, which has {has}; "
            "give --judge FOLDER, one that diffsteer judge made of other pictures, or leave --score-every out."
        )


def prepare(settings: TrainSettings, data: Pictures, spec: ModelSpec, kept: Path, device: str, say: Say) -> Scorer:
    """Judge and real pictures made ready. kept: where an earlier part of the run may have left its judge. Raises Mistake."""
    known = kept_judge(kept, data, "plain") if settings.judge is None else load_judge(settings.judge)
    new = None
    if known is None:
        seconds = None if settings.budget is None else judge_seconds(settings.budget)
        new = new_judge(data, "plain", say, seconds=seconds, device=device)
    judge = (known or new).to(device)  # type: ignore[union-attr]
    labels = labels_scored(spec, data)
    for line in labels_left(spec, data):
        say(line)
    ids = ids_judged(spec, scored_jobs(labels, settings.score_count), judge)
    scores = scorer(data, None, judge, ids, count=settings.score_count, split=settings.split, say=say)
    return Scorer(spec, labels, settings.score_count, device, scores, new)


def in_words(scores: Scores) -> str:
    """The chief measures, for a line."""
    right, far = scores.accuracy, scores.frechet
    labels = "" if right is None else f"labels right {right.value:.1%} ± {right.error:.1%} (real {right.floor:.1%}), "
    return f"{labels}Frechet distance {far.value:.3g} ± {far.error:.2g} (real {far.floor:.3g})"


def scalars(scores: Scores) -> dict[str, float]:
    """The value of each measure, by its name."""
    return {kind: each["value"] for kind, each in scores.to_dict().items() if isinstance(each, dict) and "value" in each}


def _timed(work: Callable[[], Made]) -> tuple[Made, float]:
    """What the work makes, and the seconds it takes."""
    first = time.perf_counter()
    made = work()
    return made, time.perf_counter() - first
