"""The story of one `diffsteer sample`: an order becomes pictures, and pictures become a grid, a film, arrays or a folder of PNGs.

Each PNG holds its recipe, so that it can be drawn again from the picture alone.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from diffsteer import __version__, figures
from diffsteer.config import PictureRecipe, validated
from diffsteer.data import pixels
from diffsteer.device import find_device
from diffsteer.diffusion.conditioning import parse_seeds
from diffsteer.diffusion.denoiser import PRECISIONS, Denoiser, ModelSpec
from diffsteer.errors import Mistake
from diffsteer.sampling.draw import Drawn, How, Job, draw, jobs_for
from diffsteer.sampling.folder import load_model

RECIPE = "diffsteer"  # the PNG's text key
KINDS = {".png": "grid", ".gif": "film", ".npz": "arrays"}
ON_A_SHEET = 8  # pictures of a film's sheet


@dataclass(frozen=True)
class Order:
    """What the command line (or a caller) asks for; None means the model's own choice. `again` is a PNG to draw again."""

    model: str | None = None
    labels: str | None = None
    per_label: int | None = None
    count: int | None = None
    seeds: str | None = None
    solver: str | None = None
    steps: int | None = None
    spacing: str | None = None
    guidance_scale: float | None = None
    film: bool = False
    columns: int | None = None
    invert: bool = False
    precision: str | None = None
    device: str = "auto"
    batch_size: int = 64
    again: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Written:
    """What was drawn and where it is."""

    model: str
    paths: tuple[Path, ...]
    jobs: tuple[Job, ...]
    how: How
    label_names: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        drawn = _named(self.jobs, self.label_names)
        files = [str(path) for path in self.paths]
        return {"model": self.model, "files": files, "pictures": drawn, **self.how.as_dict(), "notes": list(self.notes)}

    def lines(self) -> list[str]:
        how = self.how
        guidance = f", label guidance {how.guidance_scale:g}" if how.guidance_scale != 1 else ""
        first = self.paths[0]
        count = f"{len(self.jobs)} picture{'' if len(self.jobs) == 1 else 's'}"
        said = [*self.notes, f"drew     {count} with {how.solver}, {how.steps} steps{guidance}"]
        said += [f"         {path}" for path in self.paths[:4]]
        if len(self.paths) > 4:
            said.append(f"         ... {len(self.paths)} files in all")
        if first.suffix.lower() == ".png":
            said.append(
                f"next: diffsteer sample --from {shlex.quote(str(first))} --out again.png draws it again; --film shows it being drawn"
            )
        else:
            said.append(f"next: diffsteer sample {shlex.quote(self.model)} --out grid.png --film shows pictures being drawn")
        return said


@dataclass(frozen=True)
class Outlook:
    """What would be drawn, without drawing it. `own` is how the model draws when it is not told otherwise."""

    model: str
    jobs: tuple[Job, ...]
    label_names: tuple[str, ...]
    how: dict[str, Any]
    own: dict[str, Any]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        differ = [key for key in self.how if self.how[key] != self.own[key]]
        return {
            "model": self.model,
            "pictures": _named(self.jobs, self.label_names),
            **self.how,
            "differ": differ,
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        names = dict.fromkeys(self.label_names[job.label] for job in self.jobs if job.label is not None)
        said = [*self.notes, f"model    {self.model}", f"pictures {len(self.jobs)}, seeds {self.jobs[0].seed} to {self.jobs[-1].seed}"]
        said += [f"labels   {', '.join(names)}"] if names else []
        for key, value in self.how.items():
            marked = f"   # the model's own: {self.own[key]}" if value != self.own[key] else ""
            said.append(f"{'*' if marked else ' '} {key}: {value}{marked}")
        return said


@dataclass(frozen=True)
class _Place:
    """Where pictures go: a file of a kind, or a folder of PNGs; `film` and `sheet` are what else is written."""

    path: Path
    kind: str  # grid, film, arrays or folder
    film: Path | None
    sheet: Path | None


@dataclass(frozen=True)
class _Ready:
    """An order with every choice made; `shows` is what a PNG is to show (as in `PictureRecipe`)."""

    order: Order
    model: str
    denoiser: Denoiser
    jobs: tuple[Job, ...]
    how: How
    device: str
    precision: str
    shows: str

    @property
    def spec(self) -> ModelSpec:
        return self.denoiser.spec


def sample_to(order: Order, out: str) -> Written:
    """Draws the order and writes it to `out`. Raises Mistake."""
    place = _place(out, order)
    ready = _ready(order)
    drawn = _draw(ready, film=order.film or place.kind == "film" or (place.kind == "grid" and ready.shows == "film"))
    return Written(ready.model, tuple(_write(ready, drawn, place)), ready.jobs, ready.how, ready.spec.label_names, ready.denoiser.notes)


def free_name(folder: Path) -> str:
    """pictures.png in the folder, or pictures-2.png and so on: where pictures go when nobody said."""
    stems = ("pictures", *(f"pictures-{number}" for number in range(2, 10_000)))
    return str(
        next(folder / f"{stem}.png" for stem in stems if not any(folder.glob(f"{stem}.png")) and not any(folder.glob(f"{stem}-film.*")))
    )


def outlook(order: Order) -> Outlook:
    """What would be drawn. Raises Mistake."""
    ready = _ready(order)
    how = {**ready.how.as_dict(), "precision": ready.precision, "device": ready.device}
    own = {**How().resolved(ready.spec).as_dict(), "precision": "fp32", "device": find_device("auto")}
    return Outlook(ready.model, ready.jobs, ready.spec.label_names, how, own, ready.denoiser.notes)


def _ready(order: Order) -> _Ready:
    for flag, value in (("--steps", order.steps), ("--columns", order.columns), ("--batch-size", order.batch_size)):
        if value is not None and value < 1:
            raise Mistake(f"{flag} should be at least 1; {value} was given.")
    recipe = None if order.again is None else _recipe_of(order.again)
    if recipe is not None:
        order = _again(order, recipe)
    if order.model is None:
        raise Mistake("Say which model: diffsteer sample MODEL --out pictures.png, or --from a picture made before.")
    precision = order.precision or "fp32"
    if precision not in PRECISIONS:
        raise Mistake(f"--precision is one of {', '.join(PRECISIONS)}; {precision!r} was given.")
    device = find_device(order.device)
    denoiser = load_model(order.model, precision, device)
    jobs = _jobs_asked(order, denoiser.spec) if recipe is None else _jobs_of(recipe, denoiser.spec, order)
    how = How(order.solver, order.steps, order.spacing, order.guidance_scale).resolved(denoiser.spec)
    if order.invert and denoiser.spec.channels != 1:
        raise Mistake("--invert shows grey pictures as ink on paper, and this model draws in colour; leave it out.")
    return _Ready(order, order.model, denoiser, tuple(jobs), how, device, precision, recipe.shows if recipe is not None else "grid")


def _jobs_asked(order: Order, spec: ModelSpec) -> list[Job]:
    labels = None if order.labels is None else [piece for piece in order.labels.split(",") if piece.strip()]
    seeds = None if order.seeds is None else parse_seeds(order.seeds)
    return jobs_for(spec, labels, per_label=order.per_label, count=order.count, seeds=seeds)


def _draw(ready: _Ready, film: bool) -> Drawn:
    batches = -(-len(ready.jobs) // ready.order.batch_size)
    total = batches * int(ready.how.steps or 1)
    with tqdm(total=total, disable=not sys.stderr.isatty(), unit="step", dynamic_ncols=True) as bar:
        return draw(
            ready.denoiser,
            ready.jobs,
            ready.how,
            film=film,
            device=ready.device,
            batch=ready.order.batch_size,
            watch=lambda step: _advance(bar, step),
        )


def _advance(bar: tqdm, step: int) -> None:
    """One more network step; a solver's first item is the start, before any."""
    bar.update(1 if step else 0)


# ---- writing ---------------------------------------------------------------------------------------------------------


def _place(out: str, order: Order) -> _Place:
    """The place that `out` means. Mistake if it is taken or of an unknown kind."""
    if not out.strip():
        raise Mistake("--out names no file or folder.")
    path = Path(out).expanduser()
    above = next((parent for parent in path.parents if parent.is_file()), None)
    if above is not None:
        raise Mistake(f"{above} is a file, so nothing can be written below it; give --out another place.")
    if out.endswith("/") or not path.suffix or path.is_dir():
        return _folder_place(path, order)
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise Mistake(f"--out {out}: {path.suffix} is not written; .png is a grid, .gif a film, .npz arrays, no suffix a folder of PNGs.")
    film = path.with_name(f"{path.stem}-film.gif") if order.film and kind != "film" else None
    sheet = path.with_name(f"{path.stem}-film.png") if order.film else None
    for taken in (path, film, sheet):
        if taken is not None and taken.exists() and not order.overwrite:
            raise Mistake(f"{taken} exists already; --overwrite replaces it.")
    return _Place(path, kind, film, sheet)


def _folder_place(path: Path, order: Order) -> _Place:
    if path.is_file():
        raise Mistake(f"{path} is a file; give a folder, or a name that ends in .png, .gif or .npz.")
    if path.is_dir() and any(path.glob("*.png")) and not order.overwrite:
        raise Mistake(f"{path} holds pictures already; --overwrite replaces those of the same name.")
    return _Place(path, "folder", path / "film.gif" if order.film else None, path / "film.png" if order.film else None)


def _write(ready: _Ready, drawn: Drawn, place: _Place) -> list[Path]:
    columns = ready.order.columns or _columns(ready)
    written = _write_folder(ready, drawn, place.path) if place.kind == "folder" else [place.path]
    if place.kind == "grid":
        image = {"grid": _grid, "picture": _single, "film": _sheet}[ready.shows](ready, drawn, columns)
        pixels.write_png(image, place.path, {RECIPE: _recipe(ready, ready.jobs, columns, ready.shows)})
    elif place.kind == "arrays":
        labels = torch.tensor([job.label for job in ready.jobs]) if ready.spec.labelled else None
        pixels.write_npz(place.path, drawn.pictures, labels)
    elif place.kind == "film":
        _write_film(ready, drawn, place.path, columns)
    if place.film is not None:
        _write_film(ready, drawn, place.film, columns)
        written.append(place.film)
    if place.sheet is not None:
        pixels.write_png(_sheet(ready, drawn, columns), place.sheet, {RECIPE: _recipe(ready, ready.jobs, columns, "film")})
        written.append(place.sheet)
    return written


def _write_folder(ready: _Ready, drawn: Drawn, place: Path) -> list[Path]:
    written = []
    for index, (picture, job) in enumerate(zip(drawn.pictures, ready.jobs, strict=True)):
        label = "" if job.label is None else f"-{_in_file_name(ready.spec.label_names[job.label])}"
        path = place / f"{index:05d}{label}-seed{job.seed}.png"
        pixels.write_png(_as_shown(ready, picture), path, {RECIPE: _recipe(ready, [job], None, "picture")})
        written.append(path)
    return written


def _as_shown(ready: _Ready, picture: Tensor) -> Any:
    return pixels.to_pil(255 - picture if ready.order.invert else picture)


def _single(ready: _Ready, drawn: Drawn, columns: int) -> Any:
    """The one picture of a recipe from a folder of PNGs, as it was there."""
    return _as_shown(ready, drawn.pictures[0])


def _sheet(ready: _Ready, drawn: Drawn, columns: int) -> Any:
    """x beside the predicted picture at chosen steps, of the first pictures."""
    assert drawn.x_t is not None and drawn.x0 is not None
    steps = figures.chosen_steps(len(drawn.x_t) - 1)
    return figures.film_sheet(drawn.x_t[:, :ON_A_SHEET], drawn.x0[:, :ON_A_SHEET], steps, invert=ready.order.invert)


def _write_film(ready: _Ready, drawn: Drawn, path: Path, columns: int) -> None:
    assert drawn.x_t is not None and drawn.x0 is not None
    pixels.write_gif(figures.film_frames(drawn.x_t, drawn.x0, columns=columns, invert=ready.order.invert), path)


def _columns(ready: _Ready) -> int:
    """A row a label when every label has as many pictures; else about a square."""
    jobs = ready.jobs
    runs = _runs([job.label for job in jobs])
    if ready.spec.labelled and len(set(runs)) == 1 and 1 < runs[0] <= 32:
        return runs[0]
    return min(len(jobs), max(1, round(len(jobs) ** 0.5)), 32) if len(jobs) > 8 else len(jobs)


def _runs(labels: Sequence[int | None]) -> list[int]:
    """Lengths of the runs of equal labels."""
    lengths: list[int] = []
    for index, label in enumerate(labels):
        if index and label == labels[index - 1]:
            lengths[-1] += 1
        else:
            lengths.append(1)
    return lengths


def _grid(ready: _Ready, drawn: Drawn, columns: int) -> Any:
    """The grid, with label names beside its rows where a row is of one label, else under its pictures."""
    names = ready.spec.label_names
    labels = [job.label for job in ready.jobs]
    if not ready.spec.labelled:
        return pixels.grid(drawn.pictures, columns=columns, invert=ready.order.invert)
    rows = [labels[first : first + columns] for first in range(0, len(labels), columns)]
    if all(len(set(row)) == 1 for row in rows):
        beside = [names[row[0]] if not index or row[0] != rows[index - 1][0] else "" for index, row in enumerate(rows)]  # type: ignore[index]
        return pixels.grid(drawn.pictures, columns=columns, row_labels=beside, invert=ready.order.invert)
    return pixels.grid(drawn.pictures, columns=columns, captions=[names[i] for i in labels if i is not None], invert=ready.order.invert)


# ---- recipes in pictures ---------------------------------------------------------------------------------------------


def _recipe(ready: _Ready, jobs: Sequence[Job], columns: int | None, shows: str) -> str:
    """What draws these pictures again, as JSON."""
    recipe = PictureRecipe(
        version=__version__,
        model=str(_absolute(ready.model)),
        shows=shows,  # type: ignore[arg-type]
        **ready.how.as_dict(),
        steer=(),
        precision=ready.precision,  # type: ignore[arg-type]
        invert=ready.order.invert,
        columns=columns,
        pictures=_named(jobs, ready.spec.label_names),  # type: ignore[arg-type]
    )
    return json.dumps(recipe.model_dump(mode="json"), ensure_ascii=False)


def _named(jobs: Sequence[Job], names: Sequence[str]) -> list[dict[str, Any]]:
    return [{"label": None if job.label is None else names[job.label], "seed": job.seed} for job in jobs]


def _absolute(model: str) -> Path | str:
    path = Path(model).expanduser()
    return path.resolve() if path.exists() else model


def _recipe_of(path: Path) -> PictureRecipe:
    """The recipe in a PNG. Raises Mistake."""
    text = pixels.read_png_text(path).get(RECIPE)
    if text is None:
        raise Mistake(f"{path} holds no recipe: it was not made by diffsteer sample, or was saved again by a program that drops it.")
    try:
        values = json.loads(text)
        recipe: PictureRecipe = validated(PictureRecipe, values, "the recipe")
    except (ValueError, TypeError, AttributeError) as error:
        why = str(error) if isinstance(error, Mistake) else "It is no list of settings."
        raise Mistake(f"The recipe in {path} cannot be read by diffsteer {__version__}. {why}") from None
    return recipe


def _again(order: Order, recipe: PictureRecipe) -> Order:
    """The order that draws a recipe; a model given beside it takes the place of the recipe's. Raises Mistake."""
    names = ("labels", "per_label", "count", "seeds", "solver", "steps", "spacing", "guidance_scale", "precision")
    asked = [name for name in names if getattr(order, name) is not None] + ["invert"] * order.invert
    if asked:
        raise Mistake(f"--from draws the picture as it was; leave --{asked[0].replace('_', '-')} out beside it.")
    return replace(
        order,
        model=order.model or recipe.model,
        solver=recipe.solver,
        steps=recipe.steps,
        spacing=recipe.spacing,
        guidance_scale=recipe.guidance_scale,
        precision=recipe.precision,
        invert=recipe.invert,
        columns=order.columns or recipe.columns,
    )


def _jobs_of(recipe: PictureRecipe, spec: ModelSpec, order: Order) -> list[Job]:
    """The pictures of a recipe. Mistake where the model does not have a label."""
    names: list[str | None] = [*spec.label_names] if spec.labelled else [None]
    for picture in recipe.pictures:
        if picture.label not in names:
            shows = "pictures without a label" if picture.label is None else f"the label {picture.label!r}"
            raise Mistake(f"{order.again} shows {shows}, which the model {order.model} does not have.")
    return [Job(None if picture.label is None else names.index(picture.label), picture.seed) for picture in recipe.pictures]


def _in_file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text)
