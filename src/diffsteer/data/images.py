"""All sources of pictures, one way in: DATA as the user named it -> uint8 pictures with labels, captions, names and notes.

Data that cannot be trained on stops here with a Mistake; data that is merely odd goes on with a sentence in `notes`. Called before
training, evaluation and planning; `check.py` tells the same story without stopping.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from diffsteer.data.batch import Batch, Pictures
from diffsteer.data.decode import Background, Encoded, Look, decode, look, parse_background
from diffsteer.data.memory import decode_all, in_memory
from diffsteer.data.reading import Unreadable, read_each, unreadable_mistake
from diffsteer.data.rows import HOLE, Source, Wanted, named
from diffsteer.data.shape import Shape, choose_shape, shape_notes, too_small, too_small_mistake
from diffsteer.data.sources import open_source
from diffsteer.data.stream import from_disk
from diffsteer.device import free_memory
from diffsteer.errors import Mistake

__all__ = ["Batch", "Pictures", "load_pictures"]

SAMPLE = 2048  # pictures looked at before deciding to stream, and all that is looked at when streaming
SHARE_OF_MEMORY = 0.5  # data larger than this share of the free memory is streamed
REPAIR = "Repair or remove them, or go on without them by --skip-broken."


def load_pictures(
    data: str,
    *,
    size: tuple[int, int] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | None = None,
    split: str = "train",
    background: str = "white",
    skip_broken: bool = False,
    streaming: Literal["auto", "on", "off"] = "auto",
    need_labels: bool = False,
    processes: int = 1,
) -> Pictures:
    """The pictures DATA names, in memory or streamed from disk.

    `size` is (height, width). `processes` of this machine load the same, each for itself. Mistake when nothing is found, a picture cannot
    be read (unless `skip_broken`), a picture is under 8 pixels a side, `need_labels` and a label is missing, the network is needed and
    not there, or an option does not fit the data.
    """
    behind = parse_background(background)
    source = open_source(data, Wanted(split, image_column, label_column, caption_column))
    source = settle_labels(source, need_labels)
    if streaming == "on" or (streaming == "auto" and _outgrows_memory(source, size, behind, processes)):
        return _streamed(source, size, behind, skip_broken)
    return _loaded(source, size, behind, skip_broken)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` indices spread evenly over `count`, first and last included."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def settle_labels(source: Source, need_labels: bool) -> Source:
    """Labels without holes, or none. Mistake when they are needed and are missing for some or all."""
    if source.labels is None:
        if need_labels:
            raise Mistake(
                f"{source.data} has no labels, and the model is to be conditioned on them. "
                "Put the pictures into one sub-folder per class, name a column with --label-column, or use --conditioning none."
            )
        return source
    holes = np.flatnonzero(source.labels == HOLE).tolist()
    if not holes:
        return source.noting(*_class_notes(source))
    which = (
        f"{len(holes):,} of {source.count:,} pictures have no label: {named([source.rows.name(hole) for hole in holes[:5]], len(holes))}"
    )
    if need_labels:
        raise Mistake(f"{which}. Give each of them a label, or use --conditioning none.")
    return source.without_labels().noting(f"{which}; labels are left out.")


def _look_at(source: Source, indices: Sequence[int], behind: Background) -> list[Look | Unreadable]:
    """The headers of these pictures, in order."""
    return list(read_each(source.rows, indices, lambda _, encoded: look(encoded, behind)))


def _class_notes(source: Source) -> Iterator[str]:
    for number, one, several in ((0, "has no picture", "have no picture"), (1, "has only one picture", "have only one picture each")):
        names = [name for name, count in zip(source.label_names, source.class_counts, strict=True) if count == number]
        if names:
            yield f"{'The class' if len(names) == 1 else 'The classes'} {named(names)} {one if len(names) == 1 else several}."


def _outgrows_memory(source: Source, size: tuple[int, int] | None, behind: Background, processes: int) -> bool:
    good = _readable(_look_at(source, evenly(source.count, SAMPLE), behind))
    if not good:
        return False
    shape = choose_shape(good, size)
    each = source.count * shape.channels * shape.height * shape.width
    return each * processes > SHARE_OF_MEMORY * free_memory("cpu")


def _loaded(source: Source, size: tuple[int, int] | None, behind: Background, skip_broken: bool) -> Pictures:
    looks = _look_at(source, range(source.count), behind)
    shape = _settled_shape(source, range(source.count), looks, size)
    pixels, broken = decode_all(source.rows, shape, behind)
    if broken:
        source, kept = _without(source, broken, skip_broken)
        pixels, looks = pixels[kept], [looks[index] for index in kept]
    return in_memory(source.noting(*shape_notes(_readable(looks), shape, size is not None)), pixels)


def _streamed(source: Source, size: tuple[int, int] | None, behind: Background, skip_broken: bool) -> Pictures:
    if skip_broken:  # nothing but reading every picture tells which to skip
        broken = _broken(source, behind)
        source = _without(source, broken, skip_broken)[0] if broken else source
    sample = evenly(source.count, SAMPLE)
    looks = _look_at(source, sample, behind)
    shape = _settled_shape(source, sample, looks, size)
    source = source.noting(
        *shape_notes(_readable(looks), shape, size is not None),
        f"Streaming: the pictures stay on disk; what is said of them comes from {len(sample):,} of {source.count:,}.",
    )
    return from_disk(source, sample, shape, behind)


def _broken(source: Source, behind: Background) -> list[Unreadable]:
    def try_it(_: int, encoded: Encoded) -> None:
        decode(encoded, behind)

    results = read_each(source.rows, range(source.count), try_it)
    return [result for result in results if isinstance(result, Unreadable)]


def _settled_shape(source: Source, indices: Sequence[int], looks: Sequence[Look | Unreadable], size: tuple[int, int] | None) -> Shape:
    good = [(index, found) for index, found in zip(indices, looks, strict=True) if isinstance(found, Look)]
    if not good:
        raise unreadable_mistake(
            source.rows, [found for found in looks if isinstance(found, Unreadable)], "There is nothing left to learn from."
        )
    tiny = too_small([found for _, found in good])
    if tiny:
        raise too_small_mistake([source.rows.name(good[place][0]) for place in tiny], [good[place][1] for place in tiny])
    return choose_shape([found for _, found in good], size)


def _readable(looks: Sequence[Look | Unreadable]) -> list[Look]:
    return [found for found in looks if isinstance(found, Look)]


def _without(source: Source, broken: Sequence[Unreadable], skip_broken: bool) -> tuple[Source, list[int]]:
    """The source without its broken pictures and the indices kept. Mistake when that was not allowed, or leaves nothing."""
    if not skip_broken:
        raise unreadable_mistake(source.rows, broken, REPAIR)
    gone = {one.index for one in broken}
    kept = [index for index in range(source.count) if index not in gone]
    if not kept:
        raise unreadable_mistake(source.rows, broken, "There is nothing left to learn from.")
    which = named([f"{source.rows.name(one.index)} ({one.reason})" for one in broken])
    return source.keep(kept).noting(f"Skipped {len(broken):,} of {source.count:,} pictures that cannot be read: {which}."), kept
