"""The real pictures that drawn ones are compared with: which they are, their features, labels and brightness, read once and kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsteer.data.batch import Pictures
from diffsteer.diffusion.judge import Judge
from diffsteer.diffusion.seeds import generator_for
from diffsteer.errors import Mistake
from diffsteer.evaluation import cache
from diffsteer.evaluation.basis import Reference
from diffsteer.evaluation.brightness import picture_brightness
from diffsteer.evaluation.features import FeatureExtractor, judge_labels, told_of

MOST = 10_000  # real pictures looked at, or twice the drawn ones if that is more: beyond, a CPU takes minutes for a third digit
READ = 128  # pictures at a time

Watch = Callable[[int, int], None]  # (batches read, at most so many)


@dataclass(frozen=True)
class Real:
    """What is known of real pictures: features float64 [M, D], and the mean brightness of each, float64 [M].

    labels: int64 [M], the data's own where they were asked for, else the judge's; None without a judge. kept: the file that all this was
    read from, None when the pictures were looked at anew.
    """

    features: Tensor
    labels: Tensor | None
    brightness: Tensor
    reference: Reference
    kept: Path | None = None


def read_real(
    data: Pictures,
    extractor: FeatureExtractor,
    judge: Judge | None,
    asked: Tensor | None = None,
    *,
    drawn: int = 0,
    seed: int = 0,
    split: str = "train",
    keep: bool = False,
    watch: Watch | None = None,
) -> Real:
    """Real pictures at random by `seed`; of the classes among the label ids `asked`, where there are any and the data has labels.

    They are 10,000, or twice as many as are `drawn` if that is more, as far as the data goes. split: what the data was opened as; it is
    told with the numbers. keep: whether what is found is kept in the user's cache folder, and read from there when data, choice and
    network are the same. Mistake when there are fewer than four, and for pictures that the network cannot look at.
    """
    classes = tuple(sorted(set(asked.tolist()))) if asked is not None and data.label_names else None
    choice = _Choice(data, extractor, judge if classes is None else None, classes, max(MOST, 2 * drawn), seed)
    found = cache.read_kept(choice.inputs()) if keep else None
    kept = None if found is None else cache.kept_at(choice.inputs())
    if found is None:
        found = choice.look(watch)
        if keep:
            with suppress(OSError):  # a cache that cannot be written costs time, and nothing else
                cache.keep(choice.inputs(), found)
    learnt = judge is not None and data.fingerprint == judge.spec.data_fingerprint
    count, size = len(found["features"]), (data.height, data.width)
    reference = Reference(data.source, split, count, choice.names, learnt, data.fingerprint, size)
    return Real(found["features"].double(), found.get("labels"), found["brightness"], reference, kept)


@dataclass(frozen=True)
class _Choice:
    """Which pictures, seen by whom. labeller: the judge whose labels they get, None where the data's own will do or there is no judge."""

    data: Pictures
    extractor: FeatureExtractor
    labeller: Judge | None
    classes: tuple[int, ...] | None
    most: int
    seed: int

    def inputs(self) -> dict[str, Any]:
        """All that decides what `look` finds, as plain values."""
        data, extractor = self.data, self.extractor
        return {
            "data": data.fingerprint,
            "shape": [data.channels, data.height, data.width],
            "extractor": [extractor.told.architecture, extractor.told.weights, extractor.device],
            "labeller": None if self.labeller is None else told_of(self.labeller).weights,
            "classes": self.classes,
            "most": self.most,
            "seed": self.seed,
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The classes by name; empty for all."""
        names = self.data.label_names
        return () if self.classes is None or len(self.classes) == len(names) else tuple(names[label] for label in self.classes)

    def look(self, watch: Watch | None) -> dict[str, Tensor]:
        """features float32 [M, D], for networks compute in float32; brightness [M]; labels [M] where any are known."""
        features, brightness, labels = [], [], []
        for read, (pixels, its_labels) in enumerate(self._pictures(), 1):
            features.append(self.extractor.features(pixels).float())
            brightness.append(picture_brightness(pixels))
            if self.labeller is not None:
                labels.append(judge_labels(self.labeller, pixels)[0])
            elif self.classes is not None and its_labels is not None:
                labels.append(its_labels)
            if watch is not None:
                watch(read, math.ceil((self.data.count if self.classes else min(self.most, self.data.count)) / READ))
        count = sum(map(len, brightness))
        if count < 4:
            of = f" of {some_names(self.names)}" if self.names else ""
            raise Mistake(f"{self.data.source} has {count} pictures{of}; a comparison with real pictures needs at least 4.")
        found = {"features": torch.cat(features), "brightness": torch.cat(brightness)}
        return {**found, "labels": torch.cat(labels)} if labels else found

    def _pictures(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """(uint8 [B, C, H, W], labels [B]) on the CPU, `most` in all."""
        left = self.most
        for some in torch.randperm(self.data.count, generator=generator_for(self.seed, "real")).split(READ):
            batch = self.data.at(some.tolist())
            pixels, labels = batch.pixels.cpu(), None if batch.labels is None else batch.labels.cpu()
            if self.classes is not None and labels is not None:
                inside = torch.isin(labels, torch.tensor(self.classes))
                pixels, labels = pixels[inside], labels[inside]
            if len(pixels):
                yield pixels[:left], None if labels is None else labels[:left]
            left -= len(pixels)
            if left <= 0:
                return


def some_names(names: Sequence[str]) -> str:
    """At most five of them, in words."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
