"""What the page's controls are set to from outside: by the steers that it opens with (`--steer`), and by a picture's recipe."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from diffsteer.app.asked import LONGEST_SENTENCE, MIRRORS, Limits
from diffsteer.app.commission import About
from diffsteer.app.words import Said
from diffsteer.config import PictureRecipe
from diffsteer.errors import Mistake
from diffsteer.steering.words import Words, parse

STRONGEST = 8.0  # the end of the page's sliders


def opening(steer: Sequence[str], own: Collection[str], clip: bool, colour: bool) -> dict[str, Any]:
    """The page's values by which these steers are chosen when it opens; none where there are no steers. Raises Mistake.

    own: names of the owner's losses, such as `mine.py:redness`. clip: whether sentences can be read. colour: whether the model draws in it.
    """
    if not steer:
        return {}
    values, left_out = as_controls(list(map(parse, steer)), own, clip, colour)
    if left_out:
        offered = [*(["color=#1ae680"] if colour else []), "brightness=0.4", "symmetry", "symmetry=up-down"]
        offered += [*(["clip=a sentence"] if clip else ["clip (with --clip)"]), *(own or ["functions of your own (with --losses)"])]
        raise Mistake(
            f"--steer {left_out[0]}: the page cannot open with this. It has controls for {', '.join(offered)}: each once, without options, "
            f"strengths from 0 to {STRONGEST:g}, own losses all of one strength."
        )
    return values


def from_recipe(
    recipe: PictureRecipe, model: str, about: About, limits: Limits, own: Collection[str], clip: bool
) -> tuple[dict[str, Any], list[str]]:
    """The page's values that draw a recipe's pictures, and what it holds that the page cannot do, by name. Raises Said."""
    labels = list(dict.fromkeys(picture.label for picture in recipe.pictures if picture.label is not None))
    for label in labels:
        if label not in about.labels:
            raise Said("wrong.label", label=label[:40])
    seeds = [picture.seed for picture in recipe.pictures]
    each = len(recipe.pictures) // max(1, len(labels))
    in_a_row = sorted(set(seeds)) == list(range(min(seeds), min(seeds) + each)) and each in limits.counts
    solver = recipe.solver if recipe.solver in about.spacings else ""
    cannot = {
        "model": Path(recipe.model).name != Path(model).name,
        "seeds": not in_a_row,
        "solver": not solver,
        "steps": recipe.steps > limits.steps,
        "spacing": bool(solver) and recipe.spacing != about.spacings[solver],
        "guidance-scale": recipe.guidance_scale != 1 and not about.guidance,
        "guidance-interval": recipe.guidance_scale != 1 and recipe.guidance_interval != about.own_interval,
        "guidance-rescale": recipe.guidance_rescale != 0,
        "dynamic-threshold": recipe.dynamic_threshold is not None,
        "autoguidance": recipe.autoguidance is not None,
        "precision": recipe.precision != "fp32",
        "invert": recipe.invert,
        "sweep": recipe.sweep is not None,
    }
    values: dict[str, Any] = {"labels": labels, "each": each if in_a_row else 1, "seed": min(seeds), "solver": solver}
    values["steps"] = min(recipe.steps, limits.steps)
    if about.guidance:
        values["guidance"] = recipe.guidance_scale
    steers, others = as_controls(list(map(parse, recipe.steer)), own, clip, about.channels == 3)
    return values | steers, [*(name for name, true in cannot.items() if true), *(words.name for words in others)]


def as_controls(steers: Sequence[Words], own: Collection[str], clip: bool, colour: bool) -> tuple[dict[str, Any], list[Words]]:
    """The page's values that say these steers, and the steers that it has no control for."""
    values: dict[str, Any] = {}
    by: list[str] = []
    left_out: list[Words] = []
    for words in steers:
        kind, set_to = _control(words, own, clip, colour)
        if not kind or kind in by or any(values.get(key, value) != value for key, value in set_to.items()):
            left_out.append(words)
        else:
            by.append(kind)
            values |= set_to
    return {**values, "by": by}, left_out


def _control(words: Words, own: Collection[str], clip: bool, colour: bool) -> tuple[str, dict[str, Any]]:
    """The kind of one steer and its controls' values; no kind where the page cannot say it."""
    value, strength = words.value, 1.0 if words.strength is None else words.strength
    if not 0 <= strength <= STRONGEST:
        return "", {}
    if words.name == "clip" and clip and value and len(value) <= LONGEST_SENTENCE and set(words.options) <= {"model"}:
        return "clip", {"sentence": value, "clip_strength": strength}
    if words.options:
        return "", {}
    if words.code and value is None and file_and_function(words) in own:
        return file_and_function(words), {"own_strength": strength}
    if words.name == "color" and colour and re.fullmatch(r"#[0-9a-fA-F]{6}", value or ""):
        return "color", {"color": value, "color_strength": strength}
    if words.name == "brightness" and re.fullmatch(r"0|1|0?\.\d+|[01]\.0*", value or "") is not None:
        return "brightness", {"brightness": float(str(value)), "brightness_strength": strength}
    if words.name == "symmetry" and value in (None, *MIRRORS):
        return "symmetry", {"mirror": value or MIRRORS[0], "symmetry_strength": strength}
    return "", {}


def file_and_function(words: Words) -> str:
    """`losses/mine.py:redness` -> `mine.py:redness`, as the page calls a loss of its owner's."""
    return words.name.rpartition("/")[2]
