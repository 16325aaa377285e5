"""The losses by name, and from words to a steer. A loss is one function and one line in this table.

The command line, YAML and the library all come through `build`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from diffsteer.errors import Mistake
from diffsteer.steering import classifiers, colors, embedding, likeness, operators, shapes, user
from diffsteer.steering.contract import Canvas, Loss
from diffsteer.steering.gradient import WAYS, Steer, unused_options
from diffsteer.steering.options import one_of
from diffsteer.steering.presets import PRESETS
from diffsteer.steering.strength import BAYES, SCALINGS
from diffsteer.steering.words import Words

Maker = Callable[..., Loss]
COURSE_SIDE = 256  # the course steers pictures of this size


@dataclass(frozen=True)
class Entry:
    """A loss's maker `(value, canvas, *, options) -> Loss`, an example of its words, and what goes with it when it is not said.

    value: what stands for a value that is not given; None where one is needed. steer: defaults of `Steer`. strength: of the canvas.
    paths: which of "value" and the options name files; "prompts" is a value that may, as clip's.
    """

    make: Maker
    says: str
    example: str
    value: str | None = None
    steer: Mapping[str, Any] = field(default_factory=dict)
    strength: Callable[[Canvas], float] = lambda canvas: 1.0
    paths: tuple[str, ...] = ()


def _course_force(canvas: Canvas) -> float:
    """Scale 40 and a mean over 8 pictures of 256 x 256: the same force on each pixel of another size."""
    return 40 / 8 * canvas.height * canvas.width / COURSE_SIDE**2


# What a picture shows is decided while x0 is a blur of several answers. There `covariance` takes the spread between them for the spread
# of one, and holds back: losses that choose between answers (a class, a sentence) go by `exact`.
LOSSES: dict[str, Entry] = {
    "color": Entry(colors.color, "lit pixels come near a colour, dark ones stay", "color=#1ae680"),
    "mean-color": Entry(colors.mean_color, "the picture's mean colour", "mean-color=turquoise"),
    "hue": Entry(colors.hue, "the hue of lit pixels, whatever their light", "hue=orange"),
    "color-seed": Entry(
        colors.color_seed,
        "the course's colour experiment, as its cell runs",
        "color-seed",
        value="0.1,0.9,0.5",
        steer={"way": "shortcut", "scaling": "seed"},
        strength=_course_force,
    ),
    "clip": Entry(
        embedding.clip,
        "a sentence or a picture, by what CLIP sees",
        '"clip=red rose:8"',
        steer={"way": "exact"},
        paths=("prompts", "model"),
    ),
    "clip-seed": Entry(
        embedding.clip_seed,
        "the course's CLIP experiment, as its cell runs",
        "clip-seed",
        value="Red Rose (still life), red flower painting",
        steer={"way": "shortcut", "scaling": "seed", "cell": "clip"},
        strength=lambda canvas: 8 / 4,
        paths=("prompts", "model"),
    ),
    "classifier": Entry(
        classifiers.classifier,
        "a class, as a classifier reads it",
        "classifier=judges/digits,label=3",
        steer={"way": "exact"},
        paths=("value",),
    ),
    "reference": Entry(
        likeness.reference, "like a picture: its pixels, layout or subject", "reference=photo.png,by=low", paths=("value", "model")
    ),
    "style": Entry(likeness.style, "the texture of a picture, late", "style=cloth.png", steer={"window": (0.0, 0.6)}, paths=("value",)),
    "mask": Entry(
        operators.mask, "paint where the mask is white, keep the rest", "mask=hole.png,picture=photo.png", paths=("value", "picture")
    ),
    "operator": Entry(
        operators.operator, "from a smaller, blurred or grey picture", "operator=downsample,factor=4,picture=low.png", paths=("picture",)
    ),
    "symmetry": Entry(shapes.symmetry, "left like right, or up like down", "symmetry", value="left-right"),
    "brightness": Entry(shapes.brightness, "the mean brightness, 0 to 1", "brightness=0.4"),
    "smoothness": Entry(shapes.smoothness, "no grain", "smoothness", value=""),
}


def build(words: Words, canvas: Canvas) -> Steer:
    """The steer that words ask for. Raises Mistake."""
    entry = _entry(words)
    options = {key.replace("-", "_"): value for key, value in words.options.items()}  # noise-aware is noise_aware, as among flags
    ours = {key: value for key, value in options.items() if key in ENGINE}
    theirs = {key: value for key, value in options.items() if key not in ENGINE}
    if words.code and words.value is not None:
        raise Mistake(f"--steer {words.name} takes no value; {words.value!r} was given. Give the function's parameter a default instead.")
    value = words.name if words.code else entry.value if words.value is None else words.value
    if value is None:
        raise Mistake(f"--steer {words.name} needs a value, for example --steer {entry.example}.")
    loss = entry.make(value, canvas, **_converted(words.name, theirs, entry.make))
    strength = entry.strength(canvas) if words.strength is None else words.strength
    return make_steer(loss, str(words), strength, _engine_options(words.name, ours), entry.steer)


def make_steer(loss: Loss, name: str, strength: float, options: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Steer:
    """A steer with the engine's options as they are in Python, `preset` among them; a preset goes over the loss's defaults, and options
    go over both. Raises Mistake."""
    given, options = tuple(options), dict(options)
    for key in options.keys() - ENGINE.keys():
        raise Mistake(_no_option(name, key, ENGINE))
    preset = options.pop("preset", None)
    method = PRESETS[one_of("The preset of a steer", preset, tuple(PRESETS))] if preset else {}
    chosen = {**(defaults or {}), **method, **options}
    if chosen.get("scaling", BAYES) != BAYES:
        chosen.setdefault("way", "shortcut")
    try:
        steer = Steer(loss, name, strength, **chosen)
    except ValueError as error:
        raise Mistake(f"--steer {name}: {error}.") from None
    why, idle = unused_options(steer)
    without = [key for key in given if key in idle]
    if without:
        raise Mistake(f"--steer {name}: {without[0]} has no effect, since {why}. Leave it out.")
    return steer


def with_whole_paths(words: Words) -> Words:
    """The same words with the files they name as whole paths, so that they mean the same in another folder."""
    if words.code:
        file, _, function = words.name.rpartition(":")
        return replace(words, name=f"{_whole(file)}:{function}")
    paths = _entry(words).paths
    value = words.value
    if value is not None:
        value = embedding.with_pictures_renamed(value, _whole) if "prompts" in paths else _whole(value) if "value" in paths else value
    return replace(words, value=value, options={key: _whole(text) if key in paths else text for key, text in words.options.items()})


def _whole(text: str) -> str:
    path = Path(text).expanduser()
    return str(path.resolve()) if path.exists() else text


def distinct(steers: Sequence[Steer]) -> tuple[Steer, ...]:
    """The same steers; those of one name are numbered, as losses are told by name."""
    names = [steer.name for steer in steers]
    return tuple(
        replace(steer, name=f"{steer.name} ({names[: place + 1].count(steer.name)})") if names.count(steer.name) > 1 else steer
        for place, steer in enumerate(steers)
    )


def _entry(words: Words) -> Entry:
    if words.code:
        return Entry(user.from_file, "your own loss", "my_losses.py:redness:0.5")
    if words.name not in LOSSES:
        near = get_close_matches(words.name, LOSSES, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise Mistake(
            f"There is no loss {words.name!r} to steer by. {hint}There are {', '.join(LOSSES)}, and your own as my_losses.py:function."
        )
    return LOSSES[words.name]


# ---- options ---------------------------------------------------------------------------------------------------------


def _number(what: str, text: str, kind: type[int] | type[float]) -> Any:
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not math.isfinite(number):
        raise Mistake(f"{what} should be a {'whole ' if kind is int else ''}number; {text!r} was given.")
    return number


def _count(what: str, text: str) -> int:
    number: int = _number(what, text, int)
    if number < 0:
        raise Mistake(f"{what} should be at least 0; {text} was given.")
    return number


def _switch(what: str, text: str) -> bool:
    return one_of(what, text, ("on", "off")) == "on"


def _window(what: str, text: str) -> tuple[float, float]:
    ends = text.split("-")
    low, high = (_number(what, end, float) for end in ends) if len(ends) == 2 else (1.0, 0.0)
    if not 0 <= low < high <= 1:
        raise Mistake(f"{what} is two noise levels from 0 (clean) to 1 (noise), such as 0.2-1.0; {text!r} was given.")
    return low, high


# Options that every steer has: how each is read.
ENGINE: dict[str, Callable[[str, str], Any]] = {
    "way": lambda what, text: one_of(what, text, WAYS),
    "scaling": lambda what, text: one_of(what, text, (BAYES, *SCALINGS)),
    "window": _window,
    "preset": lambda what, text: one_of(what, text, tuple(PRESETS)),
    "copies": _count,
    "spread": lambda what, text: _number(what, text, float),
    "inner": _count,
    "recurrence": lambda what, text: max(1, _count(what, text)),
    "most": lambda what, text: _number(what, text, float),
    "checkpoint": _switch,
}


def _engine_options(name: str, given: Mapping[str, str]) -> dict[str, Any]:
    return {key: ENGINE[key](f"The {key} of {name}", text) for key, text in given.items()}


def _converted(name: str, given: Mapping[str, str], make: Maker) -> dict[str, Any]:
    """Options as the maker's annotations have them. Mistake for one that it does not know, and for one it needs."""
    known = {key: each for key, each in inspect.signature(make).parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}
    kinds = get_type_hints(make)
    for key in given:
        if key not in known:
            raise Mistake(_no_option(name, key, [*known, *ENGINE]))
    for key, each in known.items():
        if each.default is inspect.Parameter.empty and key not in given:
            raise Mistake(f"--steer {name} needs {key}=..., for example --steer {LOSSES[name].example}.")
    return {key: _as_kind(f"The {key} of {name}", text, kinds[key]) for key, text in given.items()}


def _no_option(name: str, given: str, there: Iterable[str]) -> str:
    near = get_close_matches(given, list(there), n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    return f"--steer {name} has no option {given!r}. {hint}It has {', '.join(there)}."


def _as_kind(what: str, text: str, kind: Any) -> Any:
    if kind is bool:
        return _switch(what, text)
    return _number(what, text, kind) if kind in (int, float) else text
