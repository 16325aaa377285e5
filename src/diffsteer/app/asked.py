"""What a person asked for on the page, made definite: settings as `diffsteer sample` has them, and the command line and the Python lines
that do the same. Nothing of Gradio here, and nothing is drawn.

The page's values come from outside: each is looked at here, and then by `SampleSettings`, as the command line's are.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffsteer.app.commission import About
from diffsteer.app.uploads import Upload
from diffsteer.app.words import Said
from diffsteer.config import SampleSettings, validated
from diffsteer.steering.words import Words, parse

BATCH = 16  # pictures a turn; written into the command line where it matters, as a picture may differ by one grey level in another batch
LONGEST_SENTENCE = 200
COUNTS = (1, 2, 4, 8, 16, 64)
MIRRORS = ("left-right", "up-down")
LIKE = ("low", "pixels")
SWEEPS = {"strength": "0,0.5,1,2,4", "guidance-scale": "1,1.5,2,4", "steps": "2,4,8,16,32", "solver": "ddim,dpm++2m,unipc"}


@dataclass(frozen=True)
class Limits:
    """What one job may be. seconds: the longest that it may be forecast to take."""

    pictures: int = 64
    steps: int = 250
    seconds: float = 300.0

    @property
    def counts(self) -> tuple[int, ...]:
        """Counts of pictures that the page offers."""
        return tuple(count for count in COUNTS if count <= self.pictures)

    def most_of(self, count: int) -> int:
        """The largest of those up to `count`."""
        return max(each for each in self.counts if each <= count)

    def first_steps(self, about: About) -> int:
        """The steps that the page opens with: the model's own, as far as a job may have them."""
        return min(about.own_steps, self.steps)


@dataclass(frozen=True)
class Sources:
    """What steers are made of beside the page's values. clip: what sentences are read by, and own: losses by name, each as (what is found
    from here, what its owner would write). upload: the person's picture. folder: where a painted mask is written."""

    clip: tuple[str, str] | None
    own: Mapping[str, tuple[str, str]]
    upload: Upload | None
    folder: Path


@dataclass(frozen=True)
class Steers:
    """Steers in words. real: with the files that are read here; told: with the names that the person knows them by."""

    real: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A job, definite. settings: as it is drawn here; told: the same with the person's names of files. evaluations: steps of pictures."""

    settings: SampleSettings
    told: SampleSettings
    pictures: int
    evaluations: int


def asked(values: Mapping[str, Any], about: About, steers: Steers, limits: Limits, sweep: str | None = None) -> Asked:
    """The page's values (labels, each, seed, solver, steps, guidance) as a job. Raises Said, Mistake."""
    labels = _labels(values.get("labels"), about)
    each, first = _whole(values, "each", "draw.count"), _whole(values, "seed", "draw.seed")
    steps = _steps(values, about, limits)
    swept, _, through = (sweep or "").partition("=")
    columns = through.split(",")
    each_column = each * (len(labels) or len(about.labels) or 1)
    count = each_column * len(columns)
    if not 1 <= count <= limits.pictures:
        raise Said("wrong.pictures", count=count, most=limits.pictures)
    given: dict[str, Any] = {"seeds": str(first) if each == 1 else f"{first}-{first + each - 1}"}
    if labels:
        given["labels"] = ",".join(map(_as_flag_value, labels, [about.labels] * len(labels)))
    solver = values.get("solver") or ""
    if solver:
        if solver not in about.spacings:
            raise Said("wrong.unknown")
        given["solver"] = solver
    if solver or steps != about.own_steps:
        given["steps"] = steps
    if about.guidance:
        scale = _number(values, "guidance", "draw.guidance")
        if scale != about.own_guidance:
            given["guidance_scale"] = scale
    if each_column > BATCH:
        given["batch_size"] = BATCH
    if sweep is not None:
        given["sweep"] = sweep
    settings = validated(SampleSettings, {**given, "steer": steers.real}, "the settings")
    told = validated(SampleSettings, {**given, "steer": steers.told}, "the settings")
    evaluations = each_column * (sum(map(int, columns)) if swept == "steps" else steps * len(columns))
    return Asked(settings, told, count, evaluations)


def sweep_of(key: Any, text: Any, limits: Limits) -> str:
    """The words of `--sweep`. Raises Said."""
    if key not in SWEEPS:
        raise Said("wrong.unknown")
    values = [value.strip() for value in str(text or "").split(",") if value.strip()]
    if not values:
        raise Said("wrong.values", example=SWEEPS[key])
    if key == "steps":
        for value in values:
            if not value.isdecimal() or not 1 <= int(value) <= limits.steps:
                raise Said("wrong.steps", most=limits.steps, steps=value[:20])
    return f"{key}={','.join(values)}"


def _labels(chosen: Any, about: About) -> list[str]:
    """The labels that are named; none where all are meant."""
    chosen = [chosen] if isinstance(chosen, str) else list(chosen or ())
    for label in chosen:
        if label not in about.labels:
            raise Said("wrong.label", label=str(label)[:40])
    named = [label for label in about.labels if label in chosen]
    return [] if len(named) == len(about.labels) else named


def _as_flag_value(label: str, labels: Sequence[str]) -> str:
    """The label as a piece of --labels: its name, or its number where the name would be read otherwise."""
    plain = label == label.strip() and "," not in label and label
    return label if plain else str(list(labels).index(label))


def _steps(values: Mapping[str, Any], about: About, limits: Limits) -> int:
    steps = _whole(values, "steps", "draw.steps") if values.get("steps") is not None else limits.first_steps(about)
    if not 1 <= steps <= limits.steps:
        raise Said("wrong.steps", most=limits.steps, steps=steps)
    return steps


def _number(values: Mapping[str, Any], key: str, what: str) -> float:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Said("wrong.number", what=what)
    return float(value)


def _whole(values: Mapping[str, Any], key: str, what: str) -> int:
    number = _number(values, key, what)
    if number != int(number) or number < 0:
        raise Said("wrong.number", what=what)
    return int(number)


# ---- steers ----------------------------------------------------------------------------------------------------------


def steers_of(values: Mapping[str, Any], about: About, sources: Sources) -> Steers:
    """The page's steers (`by` names them) in words; a painted mask is written down. Raises Said, Mistake."""
    pairs = [_steer(str(kind), values, about, sources) for kind in values.get("by") or ()]
    return Steers(tuple(str(real) for real, _ in pairs), tuple(str(told) for _, told in pairs))


def _steer(kind: str, values: Mapping[str, Any], about: About, sources: Sources) -> tuple[Words, Words]:
    """One steer: (with our files, with the person's)."""
    clip, own, upload = sources.clip, sources.own, sources.upload

    def strength(key: str = "") -> float | None:
        number = _number(values, f"{key or kind}_strength", "steer.strength")
        return None if number == 1 else number

    def both(words: Words) -> tuple[Words, Words]:
        return words, words

    if kind in own:
        real, told = own[kind]
        return Words(real, strength=strength("own")), Words(told, strength=strength("own"))
    if kind == "color" and about.channels == 3:
        return both(Words("color", _hex(values.get("color")), strength=strength()))
    if kind == "brightness":
        return both(Words("brightness", f"{_number(values, 'brightness', 'steer.the_brightness'):g}", strength=strength()))
    if kind == "symmetry":
        mirror = values.get("mirror")
        if mirror not in MIRRORS:
            raise Said("wrong.unknown")
        return both(Words("symmetry", None if mirror == MIRRORS[0] else str(mirror), strength=strength()))
    if kind == "clip" and clip is not None:
        sentence = " ".join(str(values.get("sentence") or "").split())
        if not sentence or len(sentence) > LONGEST_SENTENCE:
            raise Said("wrong.sentence", most=LONGEST_SENTENCE)
        return Words("clip", sentence, {"model": clip[0]}, strength()), Words("clip", sentence, {"model": clip[1]}, strength())
    if kind in ("reference", "mask") and upload is None:
        raise Said("wrong.picture")
    if kind == "reference" and upload is not None:
        like = values.get("like")
        if like not in LIKE:
            raise Said("wrong.unknown")
        return Words("reference", str(upload.path), {"by": str(like)}, strength()), Words(
            "reference", upload.name, {"by": str(like)}, strength()
        )
    if kind == "mask" and upload is not None:
        path = write_mask(values.get("mask"), about, sources.folder)
        return Words("mask", str(path), {"picture": str(upload.path)}), Words("mask", path.name, {"picture": upload.name})
    raise Said("wrong.unknown")


def write_mask(bits: Any, about: About, folder: Path) -> Path:
    """The painted mask, a string of 0 (kept) and 1 (drawn anew) row by row, as mask.png of the model's size. Raises Said."""
    count = about.height * about.width
    bits = bits.partition("|")[0] if isinstance(bits, str) else ""  # behind it stands what was painted over
    if re.fullmatch(f"[01]{{{count}}}", bits) is None or bits.count("1") in (0, count):
        raise Said("wrong.mask")
    image = Image.frombytes("L", (about.width, about.height), bytes(255 * (bit == "1") for bit in bits))
    path = folder / "mask.png"
    image.save(path)
    return path


def preset_mask(form: str, about: About) -> str:
    """A mask of a plain form, as the string that painting gives."""
    height, width = about.height, about.width
    inside = {
        "left": lambda y, x: x < width / 2,
        "right": lambda y, x: x >= width / 2,
        "top": lambda y, x: y < height / 2,
        "bottom": lambda y, x: y >= height / 2,
        "centre": lambda y, x: height / 4 <= y < 3 * height / 4 and width / 4 <= x < 3 * width / 4,
    }.get(form, lambda y, x: False)
    return "".join("1" if inside(y, x) else "0" for y in range(height) for x in range(width))


def _hex(color: Any) -> str:
    """#rrggbb of what a colour picker gives: that, or rgba(26.3, 230, 128, 1)."""
    text = str(color or "").strip()
    found = re.fullmatch(r"rgba?\(\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+)\s*(?:,\s*[\d.]+\s*)?\)", text)
    if found:
        return "#" + "".join(f"{min(255, round(float(level))):02x}" for level in found.groups())
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text) is None:
        raise Said("wrong.unknown")
    return text.lower()


# ---- the same without the page ---------------------------------------------------------------------------------------


def command_line(model: str, settings: SampleSettings, out: str = "pictures.png") -> str:
    """The command that draws these settings."""
    words = ["diffsteer", "sample", model]
    for key in SampleSettings.model_fields:
        value = getattr(settings, key)
        if key not in settings.model_fields_set or value is None or value is False or value in ("", ()):
            continue
        flag = "--" + key.replace("_", "-")
        for each in value if isinstance(value, tuple) else [value]:
            words += [flag, f"{each:g}" if isinstance(each, float) else str(each)]
    return shlex.join([*words, "--out", out])


def python_lines(model: str, settings: SampleSettings, device: str) -> str:
    """The Python that draws these settings."""
    given = settings.model_dump(include=settings.model_fields_set)
    chosen = [f"labels={given['labels'].split(',')!r}"] if "labels" in given else []
    first, _, last = str(given["seeds"]).partition("-")
    chosen.append(f"seeds=range({first}, {int(last or first) + 1})")
    key, _, values = (settings.sweep or "").partition("=")
    key = key.replace("-", "_")
    how = [f"{name}={given[name]!r}" for name in ("solver", "steps", "guidance_scale") if name in given and name != key]
    where = "" if device == "cpu" else f", device={device!r}"
    lines = ["import diffsteer", "", f"model = diffsteer.load({model!r}{where})"]
    steers = [parse(text) for text in settings.steer]
    if not settings.sweep:
        if steers:
            lines.append(f"model = diffsteer.steer(model, {', '.join(repr(str(each)) for each in steers)})")
        lines.append(f"pictures = diffsteer.sample(model, {', '.join([*chosen, *how])})")
        return "\n".join([*lines, 'pictures.grid().save("pictures.png")'])
    shown = ", ".join(repr(value) if key == "solver" else value for value in values.split(","))
    loop = [f"for value in ({shown},):"]
    if key == "strength":
        times = [
            f'{{**{_as_mapping(each)!r}, "strength": value * {each.strength if each.strength is not None else 1:g}}}' for each in steers
        ]
        loop.append(f"    steered = diffsteer.steer(model, {', '.join(times)})")
        loop.append(f"    pictures = diffsteer.sample(steered, {', '.join([*chosen, *how])})")
    else:
        if steers:
            lines.append(f"model = diffsteer.steer(model, {', '.join(repr(str(each)) for each in steers)})")
        loop.append(f"    pictures = diffsteer.sample(model, {', '.join([*chosen, *how, f'{key}=value'])})")
    loop.append(f'    pictures.grid().save(f"{key}-{{value}}.png")')
    return "\n".join([*lines, *loop])


def _as_mapping(words: Words) -> dict[str, Any]:
    return {words.name: words.value, **words.options}
