"""The scorecard: drawn pictures, what was asked of them, and real pictures -> all measures, as lines, JSON and Markdown.

One `Scores` is the answer to `diffsteer evaluate`; several, a row each, are the table of what a steer gained and what it cost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsteer.data.batch import Pictures
from diffsteer.data.whole import whole_file
from diffsteer.diffusion.judge import Judge
from diffsteer.diffusion.seeds import generator_for
from diffsteer.errors import Mistake
from diffsteer.evaluation.features import judge_features, judge_labels
from diffsteer.evaluation.metrics import Basis, Frechet, LabelAccuracy, Reference, Variety, extractor_of, frechet, label_accuracy, variety

MOST_REAL = 10_000  # real pictures looked at: with more, a judge on a CPU takes minutes for a third digit
WORST = 3


@dataclass(frozen=True)
class Scores:
    """All measures of `count` drawn pictures. `accuracy` is there when labels were asked, `variety` where a class has pictures enough.

    brightness, brightness_floor: the mean of all values of drawn and of real pictures, 0 black and 1 white.
    """

    count: int
    frechet: Frechet
    accuracy: LabelAccuracy | None
    variety: Variety | None
    brightness: float
    brightness_floor: float
    label_names: tuple[str, ...]
    basis: Basis

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The scores in sentences, one a line."""
        return list(_lines(self))

    def row(self, name: str, **more: object) -> dict[str, object]:
        """A row of `table`: the measures beside whatever else is known, such as seconds=12.5."""
        accuracy, spread = self.accuracy, self.variety
        return {
            "": name,
            "accuracy": None if accuracy is None else f"{accuracy.value:.1%} ± {accuracy.error:.1%}",
            "Frechet": f"{self.frechet.value:.3g} ± {self.frechet.error:.2g}",
            "floor": f"{self.frechet.floor:.3g}",
            "variety": None if spread is None else f"{spread.value:.2f} ± {spread.error:.1g}",
            "pictures": self.count,
            **more,
        }


def score(pictures: Tensor, asked: Tensor | Sequence[int] | None, data: Pictures, judge: Judge, *, seed: int = 0) -> Scores:
    """The scores of drawn pictures uint8 [N, C, H, W] beside real ones of `data`, as `judge` sees both.

    asked: the label id [N] that each was drawn for, None where none was. Drawn pictures are compared with real ones of the classes asked
    for only, so that asking for one class is not held against it; in which proportions they were asked does count. Of the real pictures
    at most 10,000 are looked at, at random by `seed`. Mistake for grey pictures before a judge of colour (or the reverse), for classes
    that judge and data do not share, and for too few pictures of either kind; ValueError for ids that do not fit the pictures.
    """
    ids = _ids(asked, len(pictures), judge)
    if len(pictures) < 2:
        raise Mistake(f"Scores are told of at least 2 drawn pictures; there {'is 1' if len(pictures) else 'are none'}.")
    if data.label_names and data.label_names != judge.spec.label_names and ids is not None:
        raise Mistake(
            f"The judge knows the classes {_some(judge.spec.label_names)}, and {data.source} has {_some(data.label_names)}; "
            f"train a judge on {data.source}."
        )
    found, _ = judge_labels(judge, pictures)
    features = judge_features(judge, pictures)
    real = _real(data, judge, ids, seed)
    learnt = data.fingerprint == judge.spec.data_fingerprint
    basis = Basis(extractor_of(judge.spec), Reference(data.source, len(real.features), real.classes, learnt), seed)
    return Scores(
        count=len(pictures),
        frechet=frechet(features, real.features, basis),
        accuracy=None if ids is None else label_accuracy(found, ids, judge.spec.label_names, basis),
        variety=variety(features, found if ids is None else ids, real.features, real.labels, basis),
        brightness=float(pictures.double().mean()) / 255,
        brightness_floor=real.brightness,
        label_names=judge.spec.label_names,
        basis=basis,
    )


def write_report(folder: Path, values: Mapping[str, Any], text: str, scores: Scores | None = None) -> None:
    """Writes scores.json and scores.md, each whole: the values, and the text, with all about one way of drawing where `scores` is it."""
    with whole_file(Path(folder) / "scores.json") as beside:
        beside.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with whole_file(Path(folder) / "scores.md") as beside:
        beside.write_text(markdown(scores) if scores else f"# Scores\n\n{text}\n", encoding="utf-8")


def markdown(scores: Scores) -> str:
    """The scores as a page: sentences, accuracy by class, and the confusion matrix where there are at most 20 classes."""
    parts = ["# Scores", "\n".join(f"- {line}" for line in scores.lines())]
    if scores.accuracy is not None:
        rows = [{"asked": c.label, "right": f"{c.value:.1%} ± {c.error:.1%}", "pictures": c.count} for c in scores.accuracy.classes]
        parts += ["## By class", table(rows)]
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


# ---- the real pictures -----------------------------------------------------------------------------------------------


class _Real(NamedTuple):
    features: Tensor  # [M, 64]
    labels: Tensor  # [M]: the data's own where labels were asked for, else, or where it has none, the judge's
    brightness: float
    classes: tuple[str, ...]  # those they were taken from; none named means all


def _real(data: Pictures, judge: Judge, ids: Tensor | None, seed: int) -> _Real:
    """Real pictures of the classes asked for, at random. Mistake when there are fewer than four."""
    wanted = None if ids is None or not data.label_names else ids.unique()
    kept: list[Tensor] = []
    labels: list[Tensor] = []
    for some in torch.randperm(data.count, generator=generator_for(seed, "real")).split(1024):
        batch = data.at(some.tolist())
        pixels = batch.pixels.cpu()
        if wanted is None or batch.labels is None:
            its_labels = judge_labels(judge, pixels)[0]
        else:
            its_labels = batch.labels.cpu()
            inside = torch.isin(its_labels, wanted)
            pixels, its_labels = pixels[inside], its_labels[inside]
        kept.append(pixels)
        labels.append(its_labels)
        if sum(map(len, kept)) >= MOST_REAL:
            break
    pictures = torch.cat(kept)[:MOST_REAL]
    names = () if wanted is None or len(wanted) == len(data.label_names) else tuple(data.label_names[label] for label in wanted.tolist())
    if len(pictures) < 4:
        of = f" of {_some(names)}" if names else ""
        raise Mistake(f"{data.source} has {len(pictures)} pictures{of}; a comparison with real pictures needs at least 4.")
    return _Real(judge_features(judge, pictures), torch.cat(labels)[:MOST_REAL], float(pictures.double().mean()) / 255, names)


def _ids(asked: Tensor | Sequence[int] | None, count: int, judge: Judge) -> Tensor | None:
    if asked is None:
        return None
    ids = torch.as_tensor(asked, dtype=torch.int64).cpu()
    kinds = len(judge.spec.label_names)
    if ids.shape != (count,):
        raise ValueError(f"there are {count} pictures and labels of shape {list(ids.shape)}")
    if count and not 0 <= int(ids.min()) <= int(ids.max()) < kinds:
        raise ValueError(f"label ids go from 0 to {kinds - 1}; some of those asked for lie outside")
    return ids


# ---- in words --------------------------------------------------------------------------------------------------------


def _lines(scores: Scores) -> Iterator[str]:
    far, basis = scores.frechet, scores.basis
    yield (
        f"Frechet distance {far.value:.3g} ± {far.error:.2g} at {far.count:,} pictures a side; "
        f"real against real {far.floor:.3g} ± {far.floor_error:.2g}."
    )
    if scores.accuracy is not None:
        right = scores.accuracy
        yield f"Labels right: {right.value:.1%} ± {right.error:.1%} of {right.count:,}; of real pictures {right.floor:.1%}."
        worst = sorted((one for one in right.classes if one.value < 1), key=lambda one: one.value)[:WORST]
        if worst:
            yield f"Worst: {', '.join(f'{one.label} ({one.value:.0%} of {one.count:,})' for one in worst)}."
    if scores.variety is not None:
        wide = scores.variety
        yield f"Variety inside a class: {wide.value:.2f} ± {wide.error:.2g} of real; real against real {wide.floor:.2f}."
    yield f"Mean brightness {scores.brightness:.3f}; real {scores.brightness_floor:.3f}."
    seen, real = basis.extractor, basis.reference
    of, learnt = f", of {_some(real.classes)} only" if real.classes else "", ", which the judge learnt from" if real.learnt else ""
    held_out = f"{seen.accuracy:.1%} of {seen.held_out:,} held-out pictures of {seen.data}"
    yield f"Judge: {seen.architecture}, seed {seen.seed}, right on {held_out}."
    yield f"Real: {real.count:,} pictures of {real.source}{of}{learnt}. Halves and resamples by seed {basis.seed}."


def _confusion_rows(scores: Scores) -> Iterator[dict[str, object]]:
    assert scores.accuracy is not None
    for name, counts in zip(scores.label_names, scores.accuracy.confusion, strict=True):
        if sum(counts):
            yield {"": name, **dict(zip(scores.label_names, counts, strict=True))}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
