"""The classes' part of a scorecard: who is taken for whom, as a figure and as rows, and the pictures least like what was asked.

In: a `LabelAccuracy`, and drawn pictures uint8 [N, C, H, W] with the ids asked [N] and the judge's probabilities [N, K]. Out: PIL images,
and rows for `report.table`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffsteer.data import pixels
from diffsteer.evaluation.labels import LabelAccuracy

NUMBERED = 20  # classes: with more, a number would not fit into its cell
LONGEST = 24  # letters of a name in the figure
LETTER = 6  # pixels of a caption's letter, nearly


def confusion_figure(accuracy: LabelAccuracy, label_names: Sequence[str]) -> Image.Image:
    """The confusion matrix: a row for each class asked, a column for each that the judge knows (2 to 100 look well), shares of rows.

    What is right is blue and what is wrong is red, by the root of its share, so that a few mistakes are seen among many pictures.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = torch.tensor(accuracy.confusion)
    rows = counts.sum(1).nonzero()[:, 0]
    counts = counts[rows]
    shares = counts / counts.sum(1, keepdim=True)  # [rows, K]
    right = rows[:, None] == torch.arange(len(label_names))
    numbered = len(label_names) <= NUMBERED
    cell = 0.52 if numbered else 0.17  # inches
    names = [_short(name) for name in label_names]
    asked = [f"{names[row]} ({count:,})" for row, count in zip(rows.tolist(), counts.sum(1).tolist(), strict=True)]

    figure = Figure(figsize=(max(3.2, cell * len(names)) + 1.8, max(1.0, cell * len(rows)) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for which, colours in ((right, "Blues"), (~right, "Reds")):
        seen = shares.sqrt().masked_fill(~which | (counts == 0), torch.nan)
        axes.imshow(seen.tolist(), cmap=colours, vmin=0, vmax=1.15)
    if numbered:
        _write_shares(axes, shares)
    _write_names(axes, asked, names, 6.5 if not numbered else 9)
    axes.set_xlabel("found by the judge " + ("(% of the row)" if numbered else "(darker: more of the row)"))
    axes.set_ylabel("asked (pictures)")
    of_all = f"{accuracy.value:.1%} ± {accuracy.error:.1%} of {accuracy.count:,}"
    figure.suptitle(f"Found as asked: {of_all}\nreal pictures found right: {accuracy.floor:.1%}", fontsize=10)
    file = io.BytesIO()
    figure.savefig(file, dpi=110, metadata={"Software": None})
    return Image.open(file).convert("RGB")


def worst_pictures(
    drawn: Tensor,
    asked: Tensor,
    probabilities: Tensor,
    label_names: Sequence[str],
    *,
    most: int = 16,
    columns: int = 4,
    invert: bool = False,
) -> Image.Image:
    """The pictures that the judge finds least like the class asked, the least likely first, each with both classes told.

    drawn uint8 [N, C, H, W], asked int64 [N], probabilities [N, K]. `invert` shows black as white.
    """
    likely = probabilities.gather(1, asked[:, None])[:, 0]
    rows = likely.argsort(stable=True)[:most]
    shares, found = probabilities[rows].max(1)
    captions = [
        f"asked {_short(label_names[wanted])}, looks like {_short(label_names[seen])} {share:.0%}"
        for wanted, seen, share in zip(asked[rows].tolist(), found.tolist(), shares.tolist(), strict=True)
    ]
    height, width = drawn.shape[2:]
    scale = max(pixels.legible_scale(height, width), -(-LETTER * max(map(len, captions)) // width))
    title = f"Least like what was asked, {len(rows)} of {len(drawn):,}"
    return pixels.grid(drawn[rows].cpu(), columns=columns, captions=captions, title=title, invert=invert, scale=scale)


def class_rows(accuracy: LabelAccuracy, label_names: Sequence[str]) -> list[dict[str, object]]:
    """A row for each class asked: the share that is right, what it is most often taken for, and how many pictures."""
    rows: list[dict[str, object]] = []
    for one in accuracy.classes:
        place = label_names.index(one.label)
        wrong = [(count, name) for at, (count, name) in enumerate(zip(accuracy.confusion[place], label_names, strict=True)) if at != place]
        count, name = max(wrong, key=lambda pair: pair[0])
        rows.append(
            {
                "asked": one.label,
                "right": f"{one.value:.1%} ± {one.error:.1%}",
                "most often taken for": f"{name} ({count / one.count:.1%})" if count else None,
                "pictures": one.count,
            }
        )
    return rows


def _write_shares(axes: Any, shares: Tensor) -> None:
    for row, line in enumerate(shares.tolist()):
        for column, share in enumerate(line):
            if share:
                said = "<1" if share < 0.005 else f"{100 * share:.0f}"
                axes.text(column, row, said, ha="center", va="center", fontsize=8, color="white" if share > 0.4 else "black")


def _write_names(axes: Any, rows: Sequence[str], columns: Sequence[str], size: float) -> None:
    """Beside rows and under columns, with lines between the cells. Names are no mathematics, whatever signs are in them."""
    axes.set_yticks(range(len(rows)), rows, fontsize=size, parse_math=False)
    axes.set_xticks(range(len(columns)), columns, fontsize=size, parse_math=False)
    if len(columns) > NUMBERED:
        axes.tick_params(axis="x", rotation=90)
    elif max(map(len, columns)) > 3:
        for label in axes.get_xticklabels():
            label.set(rotation=45, rotation_mode="anchor", ha="right")
    axes.set_xticks([place + 0.5 for place in range(len(columns) - 1)], minor=True)
    axes.set_yticks([place + 0.5 for place in range(len(rows) - 1)], minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.6)
    axes.tick_params(which="both", length=0)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1].rstrip()}…"
