"""From what was asked of `diffsteer sample` to what will be drawn: every choice made, model and steers loaded. Nothing is drawn here."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from diffsteer.config import DrawSettings, PictureRecipe, SampleSettings
from diffsteer.device import find_device
from diffsteer.diffusion.conditioning import parse_seeds
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.errors import Mistake
from diffsteer.picturerecipe import read_recipe
from diffsteer.sampling.draw import How, Job, jobs_for
from diffsteer.sampling.folder import load_model
from diffsteer.steering.contract import Canvas
from diffsteer.steering.gradient import Steer
from diffsteer.steering.losses import build, distinct
from diffsteer.steering.words import Words, from_mapping, parse

# What `--from` leaves to the one who asks: how it is shown and where it is drawn.
BESIDE_A_RECIPE = frozenset({"columns", "device", "batch_size", "overwrite", "film", "steer"})


@dataclass(frozen=True)
class Order:
    """What the command line, or a caller, asks for. `again` is a PNG to draw again; a model beside it takes the place of the recipe's."""

    model: str | None = None
    settings: SampleSettings = field(default_factory=SampleSettings)
    again: Path | None = None


@dataclass(frozen=True)
class Ready:
    """An order with every choice made; `shows` is what a PNG is to show (as in `PictureRecipe`).

    words and steers: what steers, in words and built. guide: the worse model of autoguidance.
    """

    settings: SampleSettings
    model: str
    denoiser: Denoiser
    jobs: tuple[Job, ...]
    how: How
    device: str
    words: tuple[Words, ...] = ()
    steers: tuple[Steer, ...] = ()
    guide: Denoiser | None = None
    shows: str = "grid"

    @property
    def spec(self) -> ModelSpec:
        return self.denoiser.spec

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user about the model and the networks of its steers."""
        return (*self.denoiser.notes, *(note for steer in self.steers for note in getattr(steer.loss, "notes", ())))


def ready(order: Order, load: Callable[[str, str, str], Denoiser] = load_model) -> Ready:
    """The order with every choice made; `load` finds the denoiser of (model, precision, device). Raises Mistake."""
    recipe = None if order.again is None else read_recipe(order.again)
    if recipe is not None:
        order = _again(order, recipe)
    settings = order.settings
    if order.model is None:
        raise Mistake("Say which model: diffsteer sample MODEL --out pictures.png, or --from a picture made before.")
    device = find_device(settings.device)
    denoiser = load(order.model, settings.precision, device)
    spec = denoiser.spec
    jobs = _jobs_asked(settings, spec) if recipe is None else _jobs_of(recipe, spec, order)
    how = how_of(settings).resolved(spec)
    if settings.invert and spec.channels != 1:
        raise Mistake("--invert shows grey pictures as ink on paper, and this model draws in colour; leave it out.")
    # a picture's steers are words only: a file that they named could name code
    words = tuple(word for text in settings.steer for word in (read_words(text) if recipe is None else [parse(text)]))
    steers = distinct([build(word, canvas_of(spec, device)) for word in words])
    guide = None if settings.autoguidance is None else load_guide(settings.autoguidance[0], denoiser, device)
    shows = recipe.shows if recipe is not None else "grid"
    return Ready(settings, order.model, denoiser, tuple(jobs), how, device, words, steers, guide, shows)


def how_of(settings: DrawSettings) -> How:
    """How the settings want pictures drawn, before the model's own choices are filled in."""
    return How(
        settings.solver,
        settings.steps,
        settings.spacing,
        settings.guidance_scale,
        settings.guidance_interval,
        settings.guidance_rescale,
        settings.dynamic_threshold,
        1.0 if settings.autoguidance is None else settings.autoguidance[1],
    )


def canvas_of(spec: ModelSpec, device: str) -> Canvas:
    """What the model's pictures are, for makers of losses."""
    return Canvas(spec.channels, spec.height, spec.width, spec.label_names, device)


def read_words(text: str) -> list[Words]:
    """The steers of one `--steer`: its words, or those in a YAML file, a mapping or a list of them. Raises Mistake."""
    path = Path(text).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        return [parse(text)]
    if not path.is_file():
        raise Mistake(f"There is no file {text}; a steer in words looks like color=#1ae680.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Mistake(f"{text} is not YAML that can be read: {' '.join(str(error).split())}.") from None
    listed = values if isinstance(values, list) else [values]
    if not listed or not all(isinstance(each, dict) for each in listed):
        raise Mistake(f"{text} should hold steers, each as keys and values that begin with the loss, such as color: '#1ae680'.")
    return [from_mapping(each) for each in listed]


def load_guide(model: str, denoiser: Denoiser, device: str) -> Denoiser:
    """The worse model, which must draw the same kind of picture. Raises Mistake."""
    guide = load_model(model, denoiser.precision, device)
    ours, theirs = denoiser.spec, guide.spec
    if (ours.shape, ours.label_names) != (theirs.shape, theirs.label_names):
        raise Mistake(
            f"--autoguidance {model} draws pictures of another size, other channels or other labels; give an earlier or smaller run."
        )
    return guide


def _jobs_asked(settings: SampleSettings, spec: ModelSpec) -> list[Job]:
    labels = None if settings.labels is None else [piece for piece in settings.labels.split(",") if piece.strip()]
    seeds = None if settings.seeds is None else parse_seeds(settings.seeds)
    return jobs_for(spec, labels, per_label=settings.per_label, count=settings.count, seeds=seeds)


def _again(order: Order, recipe: PictureRecipe) -> Order:
    """The order that draws a recipe. Raises Mistake."""
    given = order.settings
    asked = [name for name in type(given).model_fields if name in given.model_fields_set - BESIDE_A_RECIPE]
    if asked:
        raise Mistake(f"--from draws the picture as it was; leave --{asked[0].replace('_', '-')} out beside it.")
    kept: dict[str, Any] = {name: getattr(recipe, name) for name in type(given).model_fields if name in PictureRecipe.model_fields}
    kept |= {"columns": given.columns or recipe.columns, "steer": _steers_again(order, recipe)}
    return replace(order, model=order.model or recipe.model, settings=given.model_copy(update=kept))


def _steers_again(order: Order, recipe: PictureRecipe) -> Sequence[str]:
    """The recipe's steers; those in files of code must be named again by the one who asks, as a picture must not choose what is run."""
    named = [str(word) for text in order.settings.steer for word in read_words(text)]
    code = [text for text in recipe.steer if parse(text).code]
    if named and not code:
        raise Mistake("--from draws the picture as it was; leave --steer out beside it.")
    if not code:
        return recipe.steer
    if len(named) != len(code) or not all(parse(text).code for text in named):
        raise Mistake(
            f"{order.again} was steered by your own code, which a picture may not start. If you trust it, say so beside --from: "
            + " ".join(f"--steer {shlex.quote(text)}" for text in code)
        )
    yours = iter(named)
    return tuple(next(yours) if text in code else text for text in recipe.steer)


def _jobs_of(recipe: PictureRecipe, spec: ModelSpec, order: Order) -> list[Job]:
    """The pictures of a recipe. Mistake where the model does not have a label."""
    names: list[str | None] = [*spec.label_names] if spec.labelled else [None]
    for picture in recipe.pictures:
        if picture.label not in names:
            shows = "pictures without a label" if picture.label is None else f"the label {picture.label!r}"
            raise Mistake(f"{order.again} shows {shows}, which the model {order.model} does not have.")
    return [Job(None if picture.label is None else names.index(picture.label), picture.seed) for picture in recipe.pictures]
