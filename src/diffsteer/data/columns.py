"""Which column of a table holds the pictures, the labels and the captions, and how label values become class ids.

In: the columns' names and kinds, and what the user named. Out: one choice each, or a Mistake that lists what there is. Called by
`tables.py` and, for metadata files, `folder.py`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from diffsteer.data.rows import HOLE
from diffsteer.errors import Mistake

Kind = Literal["image", "class", "integer", "text", "other"]
LABEL_NAMES = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "fine_label",
    "class_label",
    "class_name",
    "label_name",
    "class_id",
    "label_id",
)
CAPTION_NAMES = ("caption", "captions", "text", "prompt", "description")
FEW_ANYWAY = 50  # so many distinct values are classes even in a small table


@dataclass(frozen=True)
class Column:
    """A column's name and what it holds; `class` is an integer whose names the table knows."""

    name: str
    kind: Kind


def choose_image(columns: Sequence[Column], asked: str | None, data: str) -> str:
    """The image column. Mistake when it is not there, is no picture, or cannot be chosen."""
    images = [column.name for column in columns if column.kind == "image"]
    if asked is not None:
        if find(columns, asked, "image", data).kind != "image":
            raise Mistake(f"The column {asked!r} of {data} holds no pictures. Columns that do: {', '.join(images) or 'none'}.")
        return asked
    if len(images) == 1:
        return images[0]
    if images:
        raise Mistake(f"{data} has several columns of pictures: {', '.join(images)}. Name one, for example --image-column {images[0]}.")
    raise Mistake(f"No column of {data} holds pictures. Its columns: {_listed(columns)}. Give data with an image column (encoded bytes).")


def choose_label(columns: Sequence[Column], asked: str | None, data: str) -> Column | None:
    """The label column, None when the table has none. Mistake when the one asked for is missing or cannot be a label."""
    if asked is not None:
        column = find(columns, asked, "label", data)
        if column.kind not in ("class", "integer", "text"):
            raise Mistake(
                f"The column {asked!r} of {data} cannot be a label: labels are integers or words. Its columns: {_listed(columns)}."
            )
        return column
    by_name = {column.name.lower(): column for column in columns if column.kind in ("class", "integer", "text")}
    for name in LABEL_NAMES:
        if name in by_name:
            return by_name[name]
    classes = [column for column in columns if column.kind == "class"]
    return classes[0] if len(classes) == 1 else None


def choose_caption(
    columns: Sequence[Column], asked: str | None, label: Column | None, data: str, values: Callable[[str], Sequence[Any]]
) -> str | None:
    """The caption column: the one asked for, one named like a caption, or the only one written in words. None when there is none.

    `values` gives a column's values, which are looked at only where names do not tell. Mistake when the one asked for is no text.
    """
    if asked is not None:
        if find(columns, asked, "caption", data).kind != "text":
            raise Mistake(f"The column {asked!r} of {data} is no text. Its columns: {_listed(columns)}.")
        return asked
    texts = [column.name for column in columns if column.kind == "text" and column != label]
    for name in CAPTION_NAMES:
        if name in texts:
            return name
    written = [text for text in texts if _is_free_text(values(text))]
    return written[0] if len(written) == 1 else None


def find(columns: Sequence[Column], asked: str, role: str, data: str) -> Column:
    """The column with this name. Mistake with the nearest names when there is none."""
    for column in columns:
        if column.name == asked:
            return column
    near = difflib.get_close_matches(asked, [column.name for column in columns], n=1)
    hint = f" Did you mean --{role}-column {near[0]}?" if near else ""
    raise Mistake(f"{data} has no column {asked!r}. Its columns: {_listed(columns)}.{hint}")


def class_ids(values: Sequence[Any], column: str, data: str, names: Sequence[str] | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Label values -> (ids int64 `[N]` with HOLE where a value is missing, names by id).

    With `names` the values are ids already. Else names are the distinct values in natural order ("2" before "10"). Mistake for a column
    that has nearly as many values as rows, or ids that have no name.
    """
    missing = [value is None or value == "" or value != value or value in (HOLE, str(HOLE)) for value in values]
    values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    if names is not None:
        return _named_ids(values, missing, names, column, data), tuple(names)
    labels, distinct = numbered([None if gone else str(value) for value, gone in zip(values, missing, strict=True)])
    if len(distinct) > FEW_ANYWAY and len(distinct) * 2 > len(values):
        raise Mistake(
            f"The column {column!r} of {data} has {len(distinct):,} different values in {len(values):,} rows: too many to be classes. "
            "Name another with --label-column, or train with --conditioning none."
        )
    return labels, distinct


def is_whole(value: Any) -> bool:
    """An integer, a truth, or a float that is one or none at all: pandas writes integers with holes as 3.0 and NaN."""
    return isinstance(value, int) or (isinstance(value, float) and (value.is_integer() or value != value))


def numbered(names: Sequence[str | None]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class names, None where one is missing -> (ids int64 `[N]` with HOLE, the distinct names in natural order)."""
    distinct = sorted({name for name in names if name is not None}, key=natural)
    ids = {name: number for number, name in enumerate(distinct)}
    return np.array([HOLE if name is None else ids[name] for name in names], dtype=np.int64), tuple(distinct)


def natural(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key that counts: "2" before "10", "b2" before "B10"."""
    pieces = re.findall(r"\d+|\D+", text)
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece.casefold()) for piece in pieces], text


def _named_ids(values: Sequence[Any], missing: Sequence[bool], names: Sequence[str], column: str, data: str) -> np.ndarray:
    labels = np.array([HOLE if gone else int(value) for value, gone in zip(values, missing, strict=True)], dtype=np.int64)
    if len(labels) and labels.max() >= len(names):
        raise Mistake(f"The column {column!r} of {data} holds the label {labels.max()}, but names only {len(names)} classes.")
    return labels


def _is_free_text(values: Sequence[Any]) -> bool:
    given = [value for value in values if value]
    return sum(" " in value.strip() for value in given) * 2 > len(values)


def _listed(columns: Sequence[Column]) -> str:
    return ", ".join(f"{column.name} ({column.kind})" for column in columns) or "none"
