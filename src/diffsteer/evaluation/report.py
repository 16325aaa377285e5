"""The scorecard: drawn pictures, what was asked of them, and real pictures -> all measures, as lines, JSON and Markdown.

One `Scores` is the answer to `diffsteer evaluate`; several, a row each, are the table of what a steer gained and what it cost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsteer.data.batch import Pictures
from diffsteer.data.whole import whole_file
from diffsteer.diffusion.judge import Judge
from diffsteer.errors import Mistake
from diffsteer.evaluation.basis import Basis, Extractor, Result
from diffsteer.evaluation.brightness import Brightness, brightness, picture_brightness
from diffsteer.evaluation.features import FeatureExtractor, judge_extractor, judge_labels, told_of
from diffsteer.evaluation.frechet import Frechet, frechet
from diffsteer.evaluation.kid import Kid, kid
from diffsteer.evaluation.labels import LabelAccuracy, label_accuracy
from diffsteer.evaluation.neighbours import neighbours
from diffsteer.evaluation.reference import Real, read_real, some_names
from diffsteer.evaluation.scorecard import class_rows
from diffsteer.evaluation.variety import Variety, variety

WORST = 3


@dataclass(frozen=True)
class Scores:
    """All measures of `count` drawn pictures; None where one cannot be told.

    precision, recall, density, coverage: as in `neighbours.py`, from 12 pictures a side. accuracy: where labels were asked. variety: where
    a class has pictures enough. label_names: the judge's; none without one.
    """

    count: int
    frechet: Frechet
    kid: Kid
    precision: Result | None
    recall: Result | None
    density: Result | None
    coverage: Result | None
    accuracy: LabelAccuracy | None
    variety: Variety | None
    brightness: Brightness
    label_names: tuple[str, ...]
    basis: Basis

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The scores in sentences, one a line; the last ones as in `basis_lines`."""
        return [*_lines(self), *self.basis_lines()]

    def basis_lines(self) -> list[str]:
        """Who looked, and at which real pictures, in sentences, one a line."""
        return list(_basis_lines(self))

    def row(self, name: str, **more: object) -> dict[str, object]:
        """A row of `table`: the measures beside whatever else is known, such as seconds=12.5."""
        accuracy, spread = self.accuracy, self.variety
        return {
            "": name,
            "accuracy": None if accuracy is None else f"{accuracy.value:.1%} ± {accuracy.error:.1%}",
            "Frechet": f"{self.frechet.value:.3g} ± {self.frechet.error:.2g}",
            "floor": f"{self.frechet.floor:.3g}",
            "KID": f"{self.kid.value:.2g} ± {self.kid.error:.1g}",
            "precision": None if self.precision is None else f"{self.precision.value:.2f}",
            "recall": None if self.recall is None else f"{self.recall.value:.2f}",
            "variety": None if spread is None else f"{spread.value:.2f} ± {spread.error:.1g}",
            "pictures": self.count,
            **more,
        }


def score(
    pictures: Tensor,
    asked: Tensor | Sequence[int] | None,
    data: Pictures,
    judge: Judge | None,
    *,
    extractor: FeatureExtractor | None = None,
    real: Real | None = None,
    seed: int = 0,
) -> Scores:
    """The scores of drawn pictures uint8 [N, C, H, W] beside real ones of `data`. It writes nothing.

    asked: the label id [N] that each was drawn for, None where none was. judge: says of what class pictures are, and gives the features
    where there is no `extractor`; one of the two there must be. real: what `read_real` found for the same asked labels, so that scoring
    again and again costs the drawn pictures only; read here where it is None. Drawn pictures are compared with real ones of the classes
    asked for only, so that asking for one class is not held against it; in which proportions they were asked does count. Mistake for
    grey pictures before a judge of colour (or the reverse), for classes that judge and data do not share, and for too few pictures of
    either kind; ValueError for ids that do not fit the pictures.
    """
    ids = checked_ids(asked, len(pictures), data, judge)
    if len(pictures) < 2:
        raise Mistake(f"Scores are told of at least 2 drawn pictures; there {'is 1' if len(pictures) else 'are none'}.")
    if extractor is None:
        assert judge is not None
        extractor = judge_extractor(judge)
    features = extractor.features(pictures)
    if real is None:
        real = read_real(data, extractor, judge, ids, drawn=len(pictures), seed=seed)
    basis = Basis(extractor.told, real.reference, seed)
    near = neighbours(features, real.features, basis)
    found = None if judge is None else judge_labels(judge, pictures)[0]
    accuracy = None
    if judge is not None and found is not None and ids is not None:
        accuracy = label_accuracy(found, ids, judge.spec.label_names, replace(basis, extractor=told_of(judge)))
    labels = found if ids is None else ids
    varied = None if labels is None or real.labels is None else variety(features, labels, real.features, real.labels, basis)
    return Scores(
        count=len(pictures),
        frechet=frechet(features, real.features, basis),
        kid=kid(features, real.features, basis),
        precision=near and near.precision,
        recall=near and near.recall,
        density=near and near.density,
        coverage=near and near.coverage,
        accuracy=accuracy,
        variety=varied,
        brightness=brightness(picture_brightness(pictures), real.brightness, replace(basis, extractor=None)),
        label_names=() if judge is None else judge.spec.label_names,
        basis=basis,
    )


def checked_ids(asked: Tensor | Sequence[int] | None, count: int, data: Pictures, judge: Judge | None) -> Tensor | None:
    """The label ids asked for, int64 [count] on the CPU. Raises as `score` does."""
    if asked is None:
        return None
    if judge is None:
        raise ValueError("labels were asked for, and there is no judge to read them")
    ids, names = torch.as_tensor(asked, dtype=torch.int64).cpu(), judge.spec.label_names
    if ids.shape != (count,):
        raise ValueError(f"there are {count} pictures and labels of shape {list(ids.shape)}")
    if count and not 0 <= int(ids.min()) <= int(ids.max()) < len(names):
        raise ValueError(f"label ids go from 0 to {len(names) - 1}; some of those asked for lie outside")
    if data.label_names and data.label_names != names:
        raise Mistake(
            f"The judge knows the classes {some_names(names)}, and {data.source} has {some_names(data.label_names)}; "
            f"train a judge on {data.source}."
        )
    return ids


def write_report(folder: Path, values: Mapping[str, Any], lines: Sequence[str], scores: Scores | None = None) -> None:
    """Writes scores.json and scores.md, each whole: the values, and the lines, with every class where there is one row of scores only."""
    with whole_file(Path(folder) / "scores.json") as beside:
        beside.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with whole_file(Path(folder) / "scores.md") as beside:
        beside.write_text(markdown(lines, scores), encoding="utf-8")


def markdown(lines: Sequence[str], scores: Scores | None = None) -> str:
    """A page: the lines (sentences, or a table as the first), accuracy by class, and the confusion matrix of at most 20 classes."""
    told = "\n".join(lines) if lines[0].startswith("|") else "\n".join(f"- {line}" for line in lines)
    parts = ["# Scores", told]
    if scores is not None and scores.accuracy is not None:
        parts += ["## By class", table(class_rows(scores.accuracy, scores.label_names))]
        if len(scores.label_names) <= 20:
            parts += ["## Asked (down) and found (across)", table(list(_confusion_rows(scores)))]
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table: a column for every key, in the order in which keys first appear. None, or a key left out, is a dash.

    Floats are given with three digits.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[_cell(row.get(key)) for key in columns] for row in rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


# ---- in words --------------------------------------------------------------------------------------------------------


def _lines(scores: Scores) -> Iterator[str]:
    far, kernel, light = scores.frechet, scores.kid, scores.brightness
    yield f"At {far.count:,} pictures a side, and in brackets what other real pictures score in the drawn ones' place:"
    yield f"Frechet distance {_told(far, '.3g')}; KID {_told(kernel, '.2g')}."
    if scores.precision and scores.recall:
        yield f"Precision {_told_share(scores.precision)}, recall {_told_share(scores.recall)}."
    if scores.density and scores.coverage:
        yield f"Density {_told_share(scores.density)}, coverage {_told_share(scores.coverage)}."
    if scores.accuracy is not None:
        right = scores.accuracy
        yield f"Labels right: {right.value:.1%} ± {right.error:.1%} of {right.count:,}; of real pictures {right.floor:.1%}."
        worst = sorted((one for one in right.classes if one.value < 1), key=lambda one: one.value)[:WORST]
        if worst:
            yield f"Worst: {', '.join(f'{one.label} ({one.value:.0%} of {one.count:,})' for one in worst)}."
    if scores.variety is not None:
        wide = scores.variety
        yield f"Variety inside a class: {wide.value:.2f} ± {wide.error:.2g} of real; real against real {wide.floor:.2f}."
    yield (
        f"Brightness of a picture: mean {light.mean:.3f}, spread {light.spread:.3f}; of a real one {light.real_mean:.3f} and "
        f"{light.real_spread:.3f}; apart by {_told(light, '.2g')}."
    )


def _told(result: Result, digits: str) -> str:
    """A value and its error, and in brackets what real pictures score."""
    return f"{result.value:{digits}} ± {_error(result.error)} ({result.floor:{digits}} ± {_error(result.floor_error)})"


def _told_share(result: Result) -> str:
    return f"{result.value:.2f} ± {result.error:.2f} ({result.floor:.2f} ± {result.floor_error:.2f})"


def _error(error: float) -> str:
    return f"{error:.2g}" if error < 100 else f"{error:.0f}"


def _basis_lines(scores: Scores) -> Iterator[str]:
    looked, real = scores.basis.extractor, scores.basis.reference
    judge = scores.accuracy.basis.extractor if scores.accuracy else looked
    for each in dict.fromkeys((looked, judge)):
        assert each is not None
        yield _extractor_line(each)
    of, learnt = f", of {some_names(real.classes)} only" if real.classes else "", ", which the judge learnt from" if real.learnt else ""
    yield f"Real: {real.count:,} pictures of {real.source}, split {real.split}{of}{learnt}. Random choices by seed {scores.basis.seed}."


def _extractor_line(extractor: Extractor) -> str:
    if extractor.accuracy is None:
        return f"Features: {extractor.architecture}, weights {extractor.weights[:8]}."
    held_out = f"{extractor.accuracy:.1%} of {extractor.held_out:,} held-out pictures of {extractor.data}"
    return f"Judge: {extractor.architecture}, seed {extractor.seed}, right on {held_out}."


def _confusion_rows(scores: Scores) -> Iterator[dict[str, object]]:
    assert scores.accuracy is not None
    for name, counts in zip(scores.label_names, scores.accuracy.confusion, strict=True):
        if sum(counts):
            yield {"": name, **dict(zip(scores.label_names, counts, strict=True))}
