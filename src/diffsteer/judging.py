"""Before pictures are scored: who judges, which pictures are drawn, and the real ones they are set against, looked at once.

Called by `evaluating.py`, and by `scoring.py` for a training's own scores, so that both say the same of the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def scored_jobs(spec: ModelSpec, count: int, first: int = 0) -> list[Job]:
    """The pictures that are scored: labels in turn, seeds from `first` on."""
    kinds = len(spec.label_names)
    return [Job(seed % kinds if spec.labelled else None, seed) for seed in range(first, first + count)]


def labels_judged(spec: ModelSpec, judge: Judge) -> list[int]:
    """For each of the model's labels its id among the judge's. Mistake where the judge does not know one."""
    names = judge.spec.label_names
    unknown = [name for name in spec.label_names if name not in names]
    if unknown:
        raise Mistake(f"The judge does not know the model's class {unknown[0]}; it knows {', '.join(names[:8])}.")
    return [names.index(name) for name in spec.label_names]


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
