"""The story of one `diffsteer sample`: an order becomes pictures, and pictures become a grid, a film, arrays or a folder of PNGs.

Each PNG holds its recipe, so that it can be drawn again from the picture alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from diffsteer import __version__, figures
from diffsteer.data import pixels
from diffsteer.diffusion.conditioning import parse_seeds
from diffsteer.diffusion.denoiser import PRECISIONS, Denoiser, ModelSpec
from diffsteer.errors import Mistake
from diffsteer.sampling.draw import Drawn, How, Job, draw, jobs_for, known_solver
from diffsteer.sampling.folder import find_model, load_model

RECIPE = "diffsteer"  # the PNG's text key


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
    precision: str = "fp32"
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

    def to_dict(self) -> dict[str, Any]:
        jobs = [{"label": None if job.label is None else self.label_names[job.label], "seed": job.seed} for job in self.jobs]
        return {"model": self.model, "files": [str(path) for path in self.paths], "pictures": jobs, **self.how.as_dict()}

    def lines(self) -> list[str]:
        how = self.how
        guidance = f", label guidance {how.guidance_scale:g}" if how.guidance_scale != 1 else ""
        first = self.paths[0]
        said = [f"drew     {len(self.jobs)} pictures with {how.solver}, {how.steps} steps{guidance}"]
        said += [f"         {path}" for path in self.paths[:4]]
        if len(self.paths) > 4:
            said.append(f"         ... {len(self.paths)} files in all")
        if first.suffix == ".png":
            said.append(f"next: diffsteer sample --from {first} --out again.png draws it again; --film shows it being drawn")
        else:
            said.append(f"next: diffsteer sample {self.model} --out grid.png --film shows pictures being drawn")
        return said


@dataclass(frozen=True)
class _Ready:
    """An order with every choice made."""

    order: Order
    model: str
    spec: ModelSpec
    denoiser: Denoiser
    jobs: tuple[Job, ...]
    how: How
    device: str


def sample_to(order: Order, out: str) -> Written:
    """Draws the order and writes it to `out`. Raises Mistake."""
    place = _place(out, order.overwrite)
    ready = _ready(order)
    film = order.film or place.suffix == ".gif"
    drawn = _draw(ready, film)
    return Written(ready.model, tuple(_write(ready, drawn, place)), ready.jobs, ready.how, ready.spec.label_names)


def outlook(order: Order) -> list[str]:
    """What would be drawn, in lines. Raises Mistake."""
    ready = _ready(order)
    names = sorted({ready.spec.label_names[job.label] for job in ready.jobs if job.label is not None})
    said = [f"model    {ready.model}", f"pictures {len(ready.jobs)}, seeds {ready.jobs[0].seed} to {ready.jobs[-1].seed}"]
    said += [f"labels   {', '.join(names)}"] if names else []
    defaults = How().resolved(ready.spec).as_dict()
    for key, value in ready.how.as_dict().items():
        marked = f"   # the model's own: {defaults[key]}" if value != defaults[key] else ""
        said.append(f"{'*' if marked else ' '} {key}: {value}{marked}")
    return [*said, f"  precision: {order.precision}", f"  device: {ready.device}"]


def _ready(order: Order) -> _Ready:
    jobs: list[Job] | None = None
    if order.again is not None:
        order, jobs = _from_picture(order)
    if order.model is None:
        raise Mistake("Say which model: diffsteer sample MODEL --out pictures.png, or --from a picture made before.")
    if order.precision not in PRECISIONS:
        raise Mistake(f"--precision is one of {', '.join(PRECISIONS)}; {order.precision!r} was given.")
    for flag, value in (("--per-label", order.per_label), ("--count", order.count), ("--steps", order.steps), ("--columns", order.columns)):
        if value is not None and value < 1:
            raise Mistake(f"{flag} should be at least 1; {value} was given.")
    if order.solver:
        known_solver(order.solver)
    device = _device(order.device)
    denoiser = load_model(order.model, order.precision, device)
    if jobs is None:
        labels = None if order.labels is None else [piece for piece in order.labels.split(",") if piece.strip()]
        seeds = None if order.seeds is None else parse_seeds(order.seeds)
        jobs = jobs_for(denoiser.spec, labels, per_label=order.per_label, count=order.count, seeds=seeds)
    how = How(order.solver, order.steps, order.spacing, order.guidance_scale).resolved(denoiser.spec)
    return _Ready(order, order.model, denoiser.spec, denoiser, tuple(jobs), how, device)


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


def _place(out: str, overwrite: bool) -> Path:
    """The path that `out` means, refused if it is taken or of an unknown kind."""
    path = Path(out).expanduser()
    if out.endswith("/") or not path.suffix or path.is_dir():
        if path.is_file():
            raise Mistake(f"{path} is a file; give a folder, or a name that ends in .png, .gif or .npz.")
        if path.is_dir() and any(path.glob("*.png")) and not overwrite:
            raise Mistake(f"{path} holds pictures already; --overwrite replaces those of the same name.")
        return path.with_suffix("") if not path.is_dir() else path
    if path.suffix.lower() not in (".png", ".gif", ".npz"):
        raise Mistake(f"--out {out}: {path.suffix} is not written; .png is a grid, .gif a film, .npz arrays, no suffix a folder of PNGs.")
    for taken in (path, *_film_places(path)):
        if taken.exists() and not overwrite:
            raise Mistake(f"{taken} exists already; --overwrite replaces it.")
    return path


def _film_places(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.stem}-film.gif"), path.with_name(f"{path.stem}-film.png")


def _write(ready: _Ready, drawn: Drawn, place: Path) -> list[Path]:
    order, kind = ready.order, place.suffix.lower()
    columns = order.columns or _columns(ready)
    written = []
    if kind == ".png":
        pixels.write_png(_grid(ready, drawn, columns), place, {RECIPE: _recipe(ready, ready.jobs, columns)})
        written.append(place)
    elif kind == ".npz":
        labels = torch.tensor([job.label for job in ready.jobs]) if ready.spec.labelled else None
        pixels.write_npz(place, drawn.pictures, labels)
        written.append(place)
    elif kind == ".gif":
        written.append(_write_film(drawn, place, columns, order.invert))
    else:
        written += _write_folder(ready, drawn, place)
    if order.film and drawn.x_t is not None and drawn.x0 is not None:
        base = place if kind else place / "film.png"
        film, sheet = _film_places(base)
        if kind != ".gif":
            written.append(_write_film(drawn, film, columns, order.invert))
        steps = figures.chosen_steps(len(drawn.x_t) - 1)
        shown = slice(0, 8)
        pixels.write_png(figures.film_sheet(drawn.x_t[:, shown], drawn.x0[:, shown], steps, invert=order.invert), sheet)
        written.append(sheet)
    return written


def _write_folder(ready: _Ready, drawn: Drawn, place: Path) -> list[Path]:
    written = []
    for index, (picture, job) in enumerate(zip(drawn.pictures, ready.jobs, strict=True)):
        label = "" if job.label is None else f"-{_in_file_name(ready.spec.label_names[job.label])}"
        path = place / f"{index:05d}{label}-seed{job.seed}.png"
        image = pixels.to_pil(255 - picture if ready.order.invert and len(picture) == 1 else picture)
        pixels.write_png(image, path, {RECIPE: _recipe(ready, [job], None)})
        written.append(path)
    return written


def _write_film(drawn: Drawn, path: Path, columns: int, invert: bool) -> Path:
    assert drawn.x_t is not None and drawn.x0 is not None
    pixels.write_gif(figures.film_frames(drawn.x_t, drawn.x0, columns=columns, invert=invert), path)
    return path


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


def _recipe(ready: _Ready, jobs: Sequence[Job], columns: int | None) -> str:
    """What draws these pictures again, as JSON."""
    names = ready.spec.label_names
    pictures = [{"label": None if job.label is None else names[job.label], "seed": job.seed} for job in jobs]
    values = {"version": __version__, "model": str(_absolute(ready.model)), **ready.how.as_dict(), "steer": []}
    values |= {"precision": ready.order.precision, "invert": ready.order.invert, "columns": columns, "pictures": pictures}
    return json.dumps(values, ensure_ascii=False)


def _absolute(model: str) -> Path | str:
    path = Path(model).expanduser()
    return path.resolve() if path.exists() else model


def _from_picture(order: Order) -> tuple[Order, list[Job]]:
    """The order and the jobs that a PNG's recipe holds; a model given beside it takes the place of the recipe's."""
    path = order.again
    assert path is not None
    if not path.is_file():
        raise Mistake(f"There is no picture {path}.")
    text = pixels.read_png_text(path).get(RECIPE)
    if text is None:
        raise Mistake(f"{path} holds no recipe: it was not made by diffsteer sample, or was saved again by a program that drops it.")
    asked = [
        name for name in ("labels", "per_label", "count", "seeds", "solver", "steps", "spacing", "guidance_scale") if getattr(order, name)
    ]
    if asked:
        raise Mistake(f"--from draws the picture as it was; leave --{asked[0].replace('_', '-')} out beside it.")
    values = json.loads(text)
    model = order.model or values["model"]
    find_model(model)
    order = replace(
        order,
        model=model,
        solver=values["solver"],
        steps=values["steps"],
        spacing=values["spacing"],
        guidance_scale=values["guidance_scale"],
        precision=values["precision"],
        invert=values["invert"],
        columns=order.columns or values["columns"],
    )
    spec = load_model(model).spec
    names = list(spec.label_names)
    unknown = [each["label"] for each in values["pictures"] if each["label"] is not None and each["label"] not in names]
    if unknown:
        raise Mistake(f"{path} shows the label {unknown[0]!r}, which the model {model} does not have.")
    return order, [Job(None if each["label"] is None else names.index(each["label"]), each["seed"]) for each in values["pictures"]]


def _in_file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text)


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
