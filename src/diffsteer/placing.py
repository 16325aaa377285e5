"""Where pictures go and what is written there: a grid, a film, arrays, or a folder of PNGs. Each PNG holds its recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsteer import __version__, figures
from diffsteer.config import PictureRecipe, SampleSettings
from diffsteer.data import pixels
from diffsteer.errors import Mistake
from diffsteer.order import Ready
from diffsteer.picturerecipe import recipe_text
from diffsteer.sampling.draw import Drawn, Job
from diffsteer.steering.losses import with_whole_paths

KINDS = {".png": "grid", ".gif": "film", ".npz": "arrays"}
ON_A_SHEET = 8  # pictures of a film's sheet


@dataclass(frozen=True)
class Place:
    """Where pictures go: a file of a kind, or a folder of PNGs; `film` and `sheet` are what else is written."""

    path: Path
    kind: str  # grid, film, arrays or folder
    film: Path | None
    sheet: Path | None


def find_place(out: str, settings: SampleSettings) -> Place:
    """The place that `out` means. Mistake if it is taken or of an unknown kind."""
    if not out.strip():
        raise Mistake("--out names no file or folder.")
    path = Path(out).expanduser()
    above = next((parent for parent in path.parents if parent.is_file()), None)
    if above is not None:
        raise Mistake(f"{above} is a file, so nothing can be written below it; give --out another place.")
    if out.endswith("/") or not path.suffix or path.is_dir():
        return _folder_place(path, settings)
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise Mistake(f"--out {out}: {path.suffix} is not written; .png is a grid, .gif a film, .npz arrays, no suffix a folder of PNGs.")
    film = path.with_name(f"{path.stem}-film.gif") if settings.film and kind != "film" else None
    sheet = path.with_name(f"{path.stem}-film.png") if settings.film else None
    for taken in (path, film, sheet):
        if taken is not None and taken.exists() and not settings.overwrite:
            raise Mistake(f"{taken} exists already; --overwrite replaces it.")
    return Place(path, kind, film, sheet)


def _folder_place(path: Path, settings: SampleSettings) -> Place:
    if path.is_file():
        raise Mistake(f"{path} is a file; give a folder, or a name that ends in .png, .gif or .npz.")
    if path.is_dir() and any(path.glob("*.png")) and not settings.overwrite:
        raise Mistake(f"{path} holds pictures already; --overwrite replaces those of the same name.")
    return Place(path, "folder", path / "film.gif" if settings.film else None, path / "film.png" if settings.film else None)


def write(ready: Ready, drawn: Drawn, place: Place) -> list[Path]:
    """Writes what was drawn; the files' paths."""
    columns = ready.settings.columns or _columns(ready)
    written = _write_folder(ready, drawn, place.path) if place.kind == "folder" else [place.path]
    if place.kind == "grid":
        image = {"grid": _grid, "picture": _single, "film": _sheet}[ready.shows](ready, drawn, columns)
        pixels.write_png(image, place.path, _recipe(ready, ready.jobs, columns, ready.shows))
    elif place.kind == "arrays":
        labels = torch.tensor([job.label for job in ready.jobs]) if ready.spec.labelled else None
        pixels.write_npz(place.path, drawn.pictures, labels)
    elif place.kind == "film":
        _write_film(ready, drawn, place.path, columns)
    if place.film is not None:
        _write_film(ready, drawn, place.film, columns)
        written.append(place.film)
    if place.sheet is not None:
        pixels.write_png(_sheet(ready, drawn, columns), place.sheet, _recipe(ready, ready.jobs, columns, "film"))
        written.append(place.sheet)
    return written


def write_sweep(ready: Ready, image: Any, path: Path) -> None:
    """Writes the sheet of a sweep."""
    pixels.write_png(image, path, _recipe(ready, ready.jobs, None, "sweep"))


def _write_folder(ready: Ready, drawn: Drawn, place: Path) -> list[Path]:
    written = []
    for index, (picture, job) in enumerate(zip(drawn.pictures, ready.jobs, strict=True)):
        label = "" if job.label is None else f"-{_in_file_name(ready.spec.label_names[job.label])}"
        path = place / f"{index:05d}{label}-seed{job.seed}.png"
        pixels.write_png(_as_shown(ready, picture), path, _recipe(ready, [job], None, "picture"))
        written.append(path)
    return written


def _as_shown(ready: Ready, picture: Tensor) -> Any:
    return pixels.to_pil(255 - picture if ready.settings.invert else picture)


def _single(ready: Ready, drawn: Drawn, columns: int) -> Any:
    """The one picture of a recipe from a folder of PNGs, as it was there."""
    return _as_shown(ready, drawn.pictures[0])


def _sheet(ready: Ready, drawn: Drawn, columns: int) -> Any:
    """x beside the predicted picture at chosen steps, of the first pictures."""
    assert drawn.x_t is not None and drawn.x0 is not None
    steps = figures.chosen_steps(len(drawn.x_t) - 1)
    losses = torch.stack(list(drawn.losses.values())).sum(0) if drawn.losses else None
    return figures.film_sheet(drawn.x_t[:, :ON_A_SHEET], drawn.x0[:, :ON_A_SHEET], steps, losses=losses, invert=ready.settings.invert)


def _write_film(ready: Ready, drawn: Drawn, path: Path, columns: int) -> None:
    assert drawn.x_t is not None and drawn.x0 is not None
    frames = figures.film_frames(drawn.x_t, drawn.x0, columns=columns, losses=_mean_losses(drawn), invert=ready.settings.invert)
    pixels.write_gif(frames, path)


def _mean_losses(drawn: Drawn) -> list[str] | None:
    """For each step, the mean of each steer's loss in words; None where nothing steered."""
    if not drawn.losses:
        return None
    means = {name: losses.mean(1).tolist() for name, losses in drawn.losses.items()}
    return [", ".join(f"{name} {values[step]:.3g}" for name, values in means.items()) for step in range(len(next(iter(means.values()))))]


def _columns(ready: Ready) -> int:
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


def _grid(ready: Ready, drawn: Drawn, columns: int) -> Any:
    """The grid, with label names beside its rows where a row is of one label, else under its pictures."""
    names = ready.spec.label_names
    labels = [job.label for job in ready.jobs]
    if not ready.spec.labelled:
        return pixels.grid(drawn.pictures, columns=columns, invert=ready.settings.invert)
    rows = [labels[first : first + columns] for first in range(0, len(labels), columns)]
    if all(len(set(row)) == 1 for row in rows):
        beside = [names[row[0]] if not index or row[0] != rows[index - 1][0] else "" for index, row in enumerate(rows)]  # type: ignore[index]
        return pixels.grid(drawn.pictures, columns=columns, row_labels=beside, invert=ready.settings.invert)
    return pixels.grid(drawn.pictures, columns=columns, captions=[names[i] for i in labels if i is not None], invert=ready.settings.invert)


# ---- recipes in pictures --------------------------------------------------------------------------------------------


def _recipe(ready: Ready, jobs: Sequence[Job], columns: int | None, shows: str) -> dict[str, str]:
    """What draws these pictures again, as a PNG's text."""
    settings = ready.settings
    how = {key: value for key, value in ready.how.as_dict().items() if key != "autoguidance_scale"}
    autoguidance = settings.autoguidance and (str(_absolute(settings.autoguidance[0])), settings.autoguidance[1])
    recipe = PictureRecipe(
        version=__version__,
        model=str(_absolute(ready.model)),
        shows=shows,
        **how,
        autoguidance=autoguidance,
        steer=tuple(str(with_whole_paths(words)) for words in ready.words),
        precision=settings.precision,
        invert=settings.invert,
        sweep=settings.sweep if shows == "sweep" else None,
        columns=columns,
        pictures=named(jobs, ready.spec.label_names),
    )
    return recipe_text(recipe)


def named(jobs: Sequence[Job], names: Sequence[str]) -> list[dict[str, Any]]:
    return [{"label": None if job.label is None else names[job.label], "seed": job.seed} for job in jobs]


def _absolute(model: str) -> Path | str:
    path = Path(model).expanduser()
    return path.resolve() if path.exists() else model


def _in_file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text)
