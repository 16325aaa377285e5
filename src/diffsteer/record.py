"""What a folder has to show when runs are compared: its settings, how far it came, its losses, its scores.

In: a run folder, or a model folder with scores. Out: a `Record`, which knows of no other. Called by `comparing.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from diffsteer.config import FinetuneSettings, TrainSettings
from diffsteer.errors import Mistake
from diffsteer.runfolder import Resolved, RunFolder
from diffsteer.sampling.draw import How
from diffsteer.training.plan import Plan


class Fact(NamedTuple):
    """Something that numbers rest on. exact: what is compared; words: what is said of it."""

    exact: Hashable
    words: str


# By name. Numbers may be set against each other if all their facts are the same.
Facts = Mapping[str, Fact]


@dataclass(frozen=True)
class Number:
    """A value and its standard error, None where that is not known."""

    value: float
    error: float | None


@dataclass(frozen=True)
class Score:
    """One measure of drawn pictures, what real ones score in their place, and what both rest on."""

    number: Number
    floor: Number
    facts: Facts


@dataclass(frozen=True)
class Scoring:
    """Drawn pictures scored once, by the name of the measure. step: of the training, where that is known; minutes: where it was done in it.

    drawn: how the pictures were drawn, where that is known. It belongs to what is compared, and sets nothing apart.
    """

    scores: Mapping[str, Score]
    drawn: Facts
    step: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Trained:
    """A run: settings by name with what they come to, what its loss measures, and for each optimizer step done its loss and the clock."""

    settings: Mapping[str, Any]
    objective: Facts
    planned: int
    finished: bool
    pictures: int
    losses: tuple[float, ...]
    minutes: tuple[float, ...]

    @property
    def steps(self) -> int:
        return len(self.losses)

    @property
    def rate(self) -> float:
        """Pictures a second, previews and saving included. The clock is read to a thousandth of a second."""
        return self.pictures / max(60 * self.minutes[-1], 1e-3)


@dataclass(frozen=True)
class Record:
    """A folder's. trained: None for a model folder. scorings: those made in training, oldest first. evaluation: by `diffsteer evaluate`."""

    path: Path
    trained: Trained | None
    scorings: tuple[Scoring, ...]
    evaluation: Scoring | None

    def latest(self) -> list[Scoring]:
        """The last scores made in training, and the evaluation's: those of later steps first, the evaluation where they are of the same."""
        found = [scoring for scoring in (self.evaluation, *self.scorings[-1:]) if scoring is not None]
        return sorted(found, key=lambda scoring: math.inf if scoring.step is None else scoring.step, reverse=True)


def read_record(path: Path) -> Record:
    """The record of a run or model folder. Mistake where it is neither, or a model without scores, or its files are not ours."""
    folder = path.expanduser()
    if not folder.is_dir():
        raise Mistake(f"There is no folder {path}; give run folders, which diffsteer train makes, or model folders with scores.")
    run = RunFolder(folder)
    if not run.exists and not (folder / "model_index.json").is_file():
        raise Mistake(f"{path} is neither a run nor a model: it has neither settings.yaml nor model_index.json.")
    scorings, evaluation = _scorings(run), _evaluation(folder / "scores" / "scores.json")
    if not run.exists and not scorings and evaluation is None:
        raise Mistake(f"{path} is a model without scores; diffsteer evaluate {path} DATA --out {path}/scores makes them.")
    return Record(path, _trained(run) if run.exists else None, scorings, evaluation)


# ---- training --------------------------------------------------------------------------------------------------------


def _trained(run: RunFolder) -> Trained:
    settings, resolved = run.told()
    conditioning = settings.resolved_conditioning(bool(resolved.label_names))
    decided = {"prediction": settings.resolved_prediction, "times": settings.resolved_times, "conditioning": conditioning}
    rows = run.metrics()
    return Trained(
        settings={**run.read()["settings"], **settings.model_dump(mode="json"), **decided},
        objective=_objective(settings, resolved, conditioning != "none"),
        planned=resolved.steps,
        finished=resolved.finished,
        pictures=_pictures(settings, resolved, len(rows)),
        losses=tuple(row["loss"] for row in rows),
        minutes=tuple(row["seconds"] / 60 for row in rows),
    )


def _objective(settings: TrainSettings, resolved: Resolved, labelled: bool) -> Facts:
    """What the loss is a mean of (`training/objective.py`): the data, the noise, the target and its weight, and what is kept from the
    network. Told the label it has an easier task, not a better network; with labels or units left out a harder one."""
    read = ["streamed"] if resolved.streamed else []
    read += [f"size {settings.size[0]}x{settings.size[1]}"] if settings.size else []
    data = ", ".join([f"fingerprint {resolved.data_fingerprint[:6]}", *read])
    left_out = settings.label_dropout if labelled else None
    return {
        "data": Fact(resolved.data_fingerprint, f"{settings.data} ({data})"),
        "mirrored pictures": Fact(settings.flip, "half" if settings.flip else "none"),
        "process": _fact(settings.process),
        "noise": _fact(settings.noise),
        "prediction": _fact(settings.resolved_prediction),
        "pixel range": _fact(settings.pixel_range),
        "training times": _times(settings),
        "min-SNR weighting": Fact(settings.min_snr, "none" if settings.min_snr is None else f"gamma {settings.min_snr:g}"),
        "loss": _loss(settings),
        "labels": Fact(left_out, "not told" if left_out is None else f"told ({left_out:.0%} left out)" if left_out else "told"),
        "dropout in the network": _fact(settings.dropout),
    }


def _times(settings: TrainSettings) -> Fact:
    """At which noise levels it is learnt, and how often each."""
    kind, shift = settings.resolved_times, settings.time_shift
    return Fact((kind, shift), kind if shift == 1 else f"{kind}, moved by {shift:g}")


def _loss(settings: TrainSettings) -> Fact:
    """What a loss is the error of."""
    if isinstance(settings, FinetuneSettings) and settings.consistency:
        return Fact("consistency", "of neighbours on the base's paths")
    return Fact(settings.resolved_velocity_loss, "of the velocity" if settings.resolved_velocity_loss else "of the prediction")


def _fact(value: Hashable) -> Fact:
    return Fact(value, str(value))


def _pictures(settings: TrainSettings, resolved: Resolved, steps: int) -> int:
    """Pictures seen in so many optimizer steps."""
    s = settings
    plan = Plan(resolved.pictures, s.batch_size, s.accumulate, s.last_batch, resolved.steps, s.lr, s.warmup, s.decay)
    return sum(map(plan.pictures, range(steps)))


# ---- scores ----------------------------------------------------------------------------------------------------------


def _scorings(run: RunFolder) -> tuple[Scoring, ...]:
    """The scorings of a training."""
    try:
        return tuple(_scoring(row["scores"], row.get("drawn", {}), row["step"], row["seconds"] / 60) for row in run.scores())
    except (KeyError, TypeError, AttributeError):
        raise _no_scores(run.scores_file) from None


def _evaluation(file: Path) -> Scoring | None:
    """The unsteered row of an evaluation, which is its first."""
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        how = {each.name: values[each.name] for each in fields(How) if each.name in values}
        return _scoring(values["rows"][0], how, values.get("step"))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise _no_scores(file) from None


def _scoring(values: Mapping[str, Any], how: Mapping[str, Any], step: int | None = None, minutes: float | None = None) -> Scoring:
    """From `Scores.to_dict()`: what has a value, an error and a floor is a measure."""
    measures = {kind: each for kind, each in values.items() if isinstance(each, dict) and {"value", "error", "floor"} <= set(each)}
    scores = {
        kind: Score(Number(each["value"], each["error"]), Number(each["floor"], each["floor_error"]), _measured(kind, each, values))
        for kind, each in measures.items()
    }
    if not scores:
        raise KeyError("no measure")
    return Scoring(scores, {name.replace("_", " "): Fact(json.dumps(value), str(value)) for name, value in how.items()}, step, minutes)


def _no_scores(file: Path) -> Mistake:
    return Mistake(f"{file} does not hold scores as diffsteer writes them; move it away, or make it again with diffsteer evaluate.")


def _measured(kind: str, measure: Mapping[str, Any], values: Mapping[str, Any]) -> Facts:
    """Who looked, with what the pictures were compared, and how many they were; of the variety inside classes, whose classes those are."""
    looked, real = measure["basis"]["extractor"], measure["basis"]["reference"]
    of = [f"split {real['split']}"] if "split" in real else []
    of += [f"{real['size'][0]}x{real['size'][1]}", f"fingerprint {real['fingerprint'][:6]}"] if "fingerprint" in real else []
    of += [f"of {', '.join(real['classes'])} only"] if real["classes"] else []
    of += ["which the judge learnt from"] if real["learnt"] else []
    count, asked = values["count"], values.get("accuracy") is not None
    inside = {"classes": Fact(asked, "as asked for" if asked else "as the judge finds them")} if kind == "variety" else {}
    return {
        "seen by": Fact(json.dumps(looked), _looked(looked) if looked else "no network"),
        "real pictures": Fact(json.dumps(real), ", ".join([f"{real['count']:,} of {real['source']}", *of])),
        "number of drawn pictures": Fact(count, f"{count:,}"),
        **inside,
    }


def _looked(extractor: Mapping[str, Any]) -> str:
    """A judge or another network in words."""
    words = [extractor["architecture"]]
    if extractor["accuracy"] is not None:
        words += [f"seed {extractor['seed']}", f"right on {extractor['accuracy']:.2%} of {extractor['held_out']:,} of {extractor['data']}"]
    return ", ".join([*words, *([f"weights {extractor['weights'][:8]}"] if "weights" in extractor else [])])
