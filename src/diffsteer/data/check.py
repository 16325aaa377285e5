"""Preflight: reads every picture once, lists everything that is wrong or odd, and draws a sheet of exactly what the model will see.

In: DATA and the options that training takes. Out: a `CheckReport`, and `sheet.png` in a folder. It never stops at the first broken picture;
what would stop training is in `problems`. Called by the command line and the web app.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffsteer.data.decode import Background, Encoded, Look, decode, look, parse_background
from diffsteer.data.images import evenly, settle_labels
from diffsteer.data.memory import decode_all, duplicate_notes, duplicates
from diffsteer.data.pixels import grid, write_png
from diffsteer.data.reading import Unreadable, read_each
from diffsteer.data.rows import HOLE, Kept, Source, Wanted, named
from diffsteer.data.shape import Shape, choose_shape, shape_notes, too_small, too_small_mistake
from diffsteer.data.sources import open_source
from diffsteer.errors import Mistake

PER_CLASS = 8  # pictures in a row of the sheet
MOST_CLASSES = 10  # rows of the sheet
WITHOUT_CLASSES = 64  # pictures on the sheet of data without classes
PLAIN_MODES = ("L", "RGB")


@dataclass(frozen=True)
class CheckReport:
    """What is in the data. Pictures are named as messages name them; sizes are "height x width"; the rest counts pictures.

    `channels`, `height` and `width` are what the model will see, 0 when no picture can be read. `problems` are sentences that would stop
    training, `notes` sentences it would go on with.
    """

    source: str
    count: int
    unreadable: dict[str, str]  # name -> reason
    tiny: dict[str, str]  # name -> size
    odd_modes: dict[str, tuple[str, ...]]  # mode in Pillow's words -> names
    duplicates: tuple[tuple[str, ...], ...]
    modes: dict[str, int]
    sizes: dict[str, int]  # most common first
    channels: int
    height: int
    width: int
    notes: tuple[str, ...]
    classes: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0
    problems: tuple[str, ...] = ()
    sheet: str | None = None

    @property
    def ok(self) -> bool:
        """Whether training would start on this data."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> list[str]:
        """The report for a terminal, one fact a line, problems last."""
        return list(_lines(self))


@dataclass(frozen=True)
class _Seen:
    """A picture that was read: what its header says, and a digest of its pixels at full size."""

    look: Look
    digest: bytes


def check(
    data: str,
    *,
    size: tuple[int, int] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | None = None,
    split: str = "train",
    background: str = "white",
    skip_broken: bool = False,
    need_labels: bool = False,
    out: Path | None = None,
) -> CheckReport:
    """Read every picture of DATA and report on it; with `out`, write `sheet.png` there (the folder is made only then).

    Mistake when there is nothing to report on: no such data, no pictures, no network, an option that does not fit.
    """
    behind = parse_background(background)
    if out is not None and Path(out).is_file():
        raise Mistake(f"{out} is a file; --out names the folder for the sheet.")
    opened = open_source(data, Wanted(split, image_column, label_column, caption_column))
    results = list(read_each(opened.rows, range(opened.count), lambda _, encoded: _see(encoded, behind)))
    seen = {index: result for index, result in enumerate(results) if isinstance(result, _Seen)}
    broken = [result for result in results if isinstance(result, Unreadable)]
    source, label_problems = _labels(opened, need_labels)
    shape = choose_shape([one.look for one in seen.values()], size) if seen else None
    report = _report(source, seen, broken, shape, asked=size is not None)
    report = replace(
        report,
        classes=dict(zip(opened.label_names, opened.class_counts, strict=True)),
        unlabelled=0 if opened.labels is None else int((opened.labels == HOLE).sum()),
        problems=(*_picture_problems(source, seen, broken, skip_broken), *label_problems),
    )
    if out is None or shape is None:
        return report
    path = Path(out) / "sheet.png"
    write_png(_sheet(source, sorted(seen), shape, behind), path)
    return replace(report, sheet=str(path))


def _see(encoded: Encoded, behind: Background) -> _Seen:
    found = look(encoded, behind)
    pixels = decode(encoded, behind)
    return _Seen(found, hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest())


def _labels(opened: Source, need_labels: bool) -> tuple[Source, tuple[str, ...]]:
    """The source with its labels settled, and the problem there is with them when they are needed."""
    try:
        return settle_labels(opened, need_labels), ()
    except Mistake as mistake:
        return opened.without_labels(), (str(mistake),)


def _report(source: Source, seen: dict[int, _Seen], broken: Sequence[Unreadable], shape: Shape | None, asked: bool) -> CheckReport:
    """What the pictures themselves tell; labels and verdicts are added by the caller."""
    name = source.rows.name
    looks = [one.look for one in seen.values()]
    groups = _duplicates(seen)
    modes = Counter(found.mode for found in looks)
    sizes = Counter((found.height, found.width) for found in looks)
    notes = source.notes + (tuple(shape_notes(looks, shape, asked)) if shape else ()) + duplicate_notes(groups, source.rows)
    return CheckReport(
        source=source.data,
        count=source.count,
        unreadable={name(one.index): one.reason for one in broken},
        tiny={name(index): f"{seen[index].look.height}x{seen[index].look.width}" for index in _tiny(seen)},
        odd_modes={mode: _of_mode(source, seen, mode) for mode in modes if mode not in PLAIN_MODES},
        duplicates=tuple(tuple(name(index) for index in group) for group in groups),
        modes=dict(modes.most_common()),
        sizes={f"{height}x{width}": number for (height, width), number in sizes.most_common()},
        channels=shape.channels if shape else 0,
        height=shape.height if shape else 0,
        width=shape.width if shape else 0,
        notes=notes,
    )


def _duplicates(seen: dict[int, _Seen]) -> list[list[int]]:
    places = list(seen)
    return [[places[place] for place in group] for group in duplicates([one.digest for one in seen.values()])]


def _tiny(seen: dict[int, _Seen]) -> list[int]:
    places = list(seen)
    return [places[place] for place in too_small([one.look for one in seen.values()])]


def _of_mode(source: Source, seen: dict[int, _Seen], mode: str) -> tuple[str, ...]:
    return tuple(source.rows.name(index) for index, one in seen.items() if one.look.mode == mode)


def _picture_problems(source: Source, seen: dict[int, _Seen], broken: Sequence[Unreadable], skip_broken: bool) -> Iterator[str]:
    if broken and not (skip_broken and seen):
        verb = "picture cannot be read; repair or remove it" if len(broken) == 1 else "pictures cannot be read; repair or remove them"
        yield f"{len(broken):,} {verb}" + (", or go on without by --skip-broken." if seen else ".")
    tiny = _tiny(seen)
    if tiny:
        yield str(too_small_mistake([source.rows.name(index) for index in tiny], [seen[index].look for index in tiny]))


def _sheet(source: Source, readable: Sequence[int], shape: Shape, behind: Background) -> Image.Image:
    """Up to 8 pictures of each of up to 10 classes, a class a row; or 64 pictures of data without classes."""
    title = f"{Path(source.data).name or source.data}: {source.count:,} pictures, {shape} {'grey' if shape.channels == 1 else 'colour'}"
    if source.labels is None:
        chosen = [readable[place] for place in evenly(len(readable), WITHOUT_CLASSES)]
        return grid(_pixels(source, chosen, shape, behind), columns=PER_CLASS, captions=_captions(source, chosen), title=title)
    names = source.label_names
    shown = [label for label in evenly(len(names), MOST_CLASSES) if any(source.labels[index] == label for index in readable)]
    rows = [index for label in shown for index in _row_of(source.labels, label, readable)]
    title += f", {len(shown)} of {len(names)} classes" if len(shown) < len(names) else f", {len(names)} class{'es' * (len(names) != 1)}"
    return grid(
        _pixels(source, rows, shape, behind),
        columns=PER_CLASS,
        row_labels=[names[label] for label in shown],
        captions=_captions(source, rows),
        title=title,
    )


def _row_of(labels: np.ndarray, label: int, readable: Sequence[int]) -> list[int | None]:
    """Eight pictures of one class spread over the data; None for places a small class leaves empty."""
    members = [index for index in readable if labels[index] == label]
    row = [members[place] for place in evenly(len(members), PER_CLASS)]
    return [*row, *[None] * (PER_CLASS - len(row))]


def _pixels(source: Source, chosen: Sequence[int | None], shape: Shape, behind: Background) -> torch.Tensor:
    """The chosen pictures uint8 `[N, C, H, W]`, decoded as for training; empty places are white."""
    pixels = np.full((len(chosen), shape.channels, *shape.size), 255, dtype=np.uint8)
    places = [place for place, index in enumerate(chosen) if index is not None]
    pixels[places] = decode_all(Kept(source.rows, tuple(index for index in chosen if index is not None)), shape, behind)[0]
    return torch.from_numpy(pixels)


def _captions(source: Source, chosen: Sequence[int | None]) -> list[str] | None:
    if source.captions is None:
        return None
    return ["" if index is None else source.captions[index] for index in chosen]


def _lines(report: CheckReport) -> Iterator[str]:
    yield f"{report.source}: {report.count:,} pictures"
    if report.channels:
        yield f"the model will see: {report.height}x{report.width}, {'grey' if report.channels == 1 else 'colour'}"
        yield f"sizes: {_counted(report.sizes)}"
        yield f"modes: {_counted(report.modes)}"
    if report.classes:
        yield f"classes ({len(report.classes):,}): {_counted(report.classes, most=20)}"
    if report.unlabelled:
        yield f"without a label: {report.unlabelled:,}"
    for mode, names in report.odd_modes.items():
        yield f"mode {mode}: {named(names)}"
    for name, reason in report.unreadable.items():
        yield f"cannot be read: {name} ({reason})"
    for name, found in report.tiny.items():
        yield f"too small: {name} ({found})"
    for group in report.duplicates[:10]:
        yield f"the same picture: {' = '.join(group[:5])}"
    if len(report.duplicates) > 10:
        yield f"and {len(report.duplicates) - 10:,} more groups of equal pictures"
    yield from (f"note: {note}" for note in report.notes)
    yield from (f"stops training: {problem}" for problem in report.problems)


def _counted(counts: dict[str, int], most: int = 8) -> str:
    """The first counts, and how many kinds there are beyond."""
    parts = [f"{name} {number:,}" for name, number in list(counts.items())[:most]]
    return ", ".join(parts) + (f" and {len(counts) - most:,} more" if len(counts) > most else "")
