"""One order drawn at several values of one choice, on one sheet: `diffsteer sample ... --sweep strength=0,0.5,1,2`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from diffsteer.config import SampleSettings, validated
from diffsteer.data import pixels
from diffsteer.errors import Mistake
from diffsteer.order import Ready, how_of
from diffsteer.sampling.draw import Drawn

KEYS = ("strength", "guidance_scale", "guidance_rescale", "dynamic_threshold", "steps", "solver", "spacing")


@dataclass(frozen=True)
class Sweep:
    """What is changed, and through which values."""

    key: str
    values: tuple[str, ...]


def parse_sweep(text: str) -> Sweep:
    """`strength=0,1,2` -> a Sweep. Raises Mistake."""
    key, equal, listed = text.partition("=")
    key = key.strip().replace("-", "_")
    values = tuple(value.strip() for value in listed.split(",") if value.strip())
    if not equal or key not in KEYS or not values:
        words = ", ".join(each.replace("_", "-") for each in KEYS)
        raise Mistake(f"--sweep is a choice and its values, such as strength=0,0.5,1,2; {text!r} was given. The choices are {words}.")
    return Sweep(key, values)


def variants(ready: Ready, sweep: Sweep) -> list[Ready]:
    """The same order at each value. Raises Mistake."""
    if sweep.key == "strength":
        if not ready.steers:
            raise Mistake("--sweep strength goes through strengths of a steer, and there is none: give --steer, for example color=#1ae680.")
        return [_as_strong(ready, _factor(value)) for value in sweep.values]
    return [_with_choice(ready, sweep.key, value) for value in sweep.values]


def sheet(ready: Ready, sweep: Sweep, drawn: Sequence[Drawn]) -> Image.Image:
    """A column a value, a row a picture; under steering the last loss of each, strengths left out, beneath it."""
    across = torch.stack([one.pictures for one in drawn], 1).flatten(0, 1)  # picture by picture, then value by value
    names = ready.spec.label_names
    beside = [f"{'' if job.label is None else names[job.label] + ', '}seed {job.seed}" for job in ready.jobs]
    steered = any(one.losses for one in drawn)
    last = [torch.stack(list(one.losses.values()))[:, -1].sum(0).tolist() for one in drawn] if steered else []  # by value, then picture
    captions = [f"{column[row]:.3g}" for row in range(len(ready.jobs)) for column in last] if steered else None
    return pixels.grid(
        across,
        columns=len(drawn),
        row_labels=beside,
        column_labels=list(sweep.values),
        captions=captions,
        title=sweep.key.replace("_", "-") + ("" if captions is None else ", and the loss of each picture"),
        invert=ready.settings.invert,
    )


def _factor(value: str) -> float:
    try:
        factor = float(value)
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor):
        raise Mistake(f"--sweep strength: {value!r} is no number.")
    return factor


def _as_strong(ready: Ready, factor: float) -> Ready:
    return replace(ready, steers=tuple(replace(steer, strength=factor * steer.strength) for steer in ready.steers))


def _with_choice(ready: Ready, key: str, value: str) -> Ready:
    chosen = validated(SampleSettings, {**ready.settings.model_dump(exclude_unset=True), key: value}, "the settings")
    return replace(ready, settings=chosen, how=how_of(chosen).resolved(ready.spec))
