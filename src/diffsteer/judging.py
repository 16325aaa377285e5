"""Before pictures are scored: who judges, which pictures are drawn, and the real ones they are set against, looked at once.

Called by `evaluating.py`, and by `scoring.py` for a training's own scores, so that both say the same of the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsteer.data.batch import Pictures
from diffsteer.diffusion.denoiser import ModelSpec
from diffsteer.diffusion.judge import Judge, is_judge, load_judge
from diffsteer.errors import Mistake
from diffsteer.evaluation.features import FeatureExtractor, judge_extractor
from diffsteer.evaluation.reference import Real, read_real
from diffsteer.evaluation.report import Scores, checked_ids, score
from diffsteer.progress import told_bar
from diffsteer.sampling.draw import Job
from diffsteer.training.classifier import train_judge

SEED = 1  # of a judge that is trained because none was given
FIRST = 8  # pictures that are drawn before it is said how long all will take
TOLD_BY = 5.0  # seconds after which those few tell it; faster ones may have waited for the machine to warm up, and a whole batch tells
Say = Callable[[str], None]


def labels_scored(spec: ModelSpec, data: Pictures) -> dict[int, int]:
    """The model's labels that have real pictures to be scored beside, with how many each has: all, with 1 each, where the data has no
    classes; empty for a model without labels. Mistake where none has."""
    if not spec.labelled:
        return {}
    real = dict(zip(data.label_names, data.class_counts, strict=True)) or dict.fromkeys(spec.label_names, 1)
    both = {label: real[name] for label, name in enumerate(spec.label_names) if real.get(name)}
    if not both:
        raise Mistake(
            f"The model draws {', '.join(spec.label_names[:8])}, and {data.source} has pictures of none of them, but of "
            f"{', '.join(data.label_names[:8])}."
        )
    return both


def labels_left(spec: ModelSpec, data: Pictures) -> list[str]:
    """A line about the model's labels that are not scored; none where all are."""
    scored = labels_scored(spec, data)
    left = [name for label, name in enumerate(spec.label_names) if spec.labelled and label not in scored]
    told = f"labels   {len(left)} of the model's have no pictures in {data.source} and are not scored: {', '.join(left[:8])}"
    return [told] if left else []


def scored_jobs(labels: Mapping[int, int], count: int, first: int = 0) -> list[Job]:
    """The pictures that are scored, seeds from `first` on, in the real ones' shares of these labels (none: without).

    A distance tells the classes' shares too, so equal ones beside data of which nine in ten are of one class would be held against a model
    that draws each class as it is. Each seed has the label that is furthest behind its share, the first of several: in turn, where the
    shares are equal, and the same for every count.
    """
    if not labels:
        return [Job(None, seed) for seed in range(first, first + count)]
    names, real = list(labels), torch.tensor(list(labels.values()))
    given, sooner, jobs = torch.zeros_like(real), torch.arange(len(real)).flip(0), []  # sooner: of those as far behind, the first
    for seed in range(first + count):
        behind = real * (seed + 1) - given * real.sum()  # in pictures, times all real ones
        chosen = int((behind * len(real) + sooner).argmax())
        given[chosen] += 1
        jobs.append(Job(names[chosen], seed))
    return jobs[first:]


def ids_judged(spec: ModelSpec, jobs: Sequence[Job], judge: Judge) -> Tensor | None:
    """The labels [N] that pictures were asked for, by the judge's numbers; None without. Mistake where the judge does not know one."""
    if not spec.labelled:
        return None
    known = {name: place for place, name in enumerate(judge.spec.label_names)}
    asked = [spec.label_names[job.label or 0] for job in jobs]
    unknown = next((name for name in asked if name not in known), None)
    if unknown is not None:
        raise Mistake(f"The judge does not know the model's class {unknown}; it knows {', '.join(judge.spec.label_names[:8])}.")
    return torch.tensor([known[name] for name in asked])


def kept_judge(folder: Path | None, data: Pictures, architecture: str) -> Judge | None:
    """The judge of this folder, if it learnt from this data and is of this architecture."""
    if folder is None or not is_judge(folder):
        return None
    judge = load_judge(folder)
    return judge if (judge.spec.data_fingerprint, judge.spec.architecture) == (data.fingerprint, architecture) else None


def new_judge(data: Pictures, architecture: str, say: Say, **options: Any) -> Judge:
    """A judge trained on this data, told and shown as a bar. options: as of `train_judge`, whose errors it raises."""
    say(f"judge    training a judge on {data.source} ({architecture}); --judge FOLDER takes one made by diffsteer judge")
    return shown_training(data, architecture=architecture, seed=SEED, **options)


def shown_training(data: Pictures, **options: Any) -> Judge:
    """`train_judge`, shown as a bar."""
    with told_bar("judge") as watch:
        return train_judge(data, watch=watch, **options)


def scorer(
    data: Pictures,
    extractor: FeatureExtractor | None,
    judge: Judge | None,
    ids: Tensor | None,
    *,
    count: int,
    split: str,
    say: Say,
) -> Callable[[Tensor], Scores]:
    """Pictures uint8 [count, C, H, W], drawn for the label ids [count] -> their scores; the real pictures are looked at here, once."""
    checked_ids(ids, count, data, judge)
    if extractor is None:
        assert judge is not None
        extractor = judge_extractor(judge)
    with told_bar("real pictures") as watch:
        real = read_real(data, extractor, judge, ids, drawn=count, split=split, keep=True, watch=watch)
    say(_told_of_real(real))
    return lambda drawn: score(drawn, ids, data, judge, extractor=extractor, real=real)


def _told_of_real(real: Real) -> str:
    what = f"real     {real.reference.count:,} pictures of {real.reference.source}"
    return f"{what}, their features read from {real.kept}" if real.kept else f"{what} looked at"
