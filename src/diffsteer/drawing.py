"""The story of one `diffsteer sample`: an order becomes pictures, and pictures become a grid, a film, arrays, a folder of PNGs or a sweep.

Each PNG holds its recipe, so that it can be drawn again from the picture alone.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffsteer import sweep
from diffsteer.device import find_device
from diffsteer.errors import Mistake
from diffsteer.order import Order, Ready, ready
from diffsteer.placing import find_place, named, write, write_sweep
from diffsteer.progress import steps_bar
from diffsteer.sampling.draw import Drawn, How, Job, draw


@dataclass(frozen=True)
class Written:
    """What was drawn and where it is. losses: of each steer by name, the mean over the pictures at the first step at which it acted and at
    the end."""

    model: str
    paths: tuple[Path, ...]
    jobs: tuple[Job, ...]
    how: How
    label_names: tuple[str, ...]
    notes: tuple[str, ...]
    losses: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        drawn = named(self.jobs, self.label_names)
        files = [str(path) for path in self.paths]
        losses = {name: {"first": first, "last": last} for name, (first, last) in self.losses.items()}
        values = {"model": self.model, "files": files, "pictures": drawn, **self.how.as_dict(), "notes": list(self.notes)}
        return values | ({"losses": losses} if losses else {})

    def lines(self) -> list[str]:
        how = self.how
        guidance = f", label guidance {how.guidance_scale:g}" if how.guidance_scale != 1 else ""
        first = self.paths[0]
        count = f"{len(self.jobs)} picture{'' if len(self.jobs) == 1 else 's'}"
        said = [*self.notes, f"drew     {count} with {how.solver}, {how.steps} steps{guidance}"]
        said += [f"steered  by {name}: mean loss {start:.3g} at first, {end:.3g} at the end" for name, (start, end) in self.losses.items()]
        said += [f"         {path}" for path in self.paths[:4]]
        if len(self.paths) > 4:
            said.append(f"         ... {len(self.paths)} files in all")
        return [*said, self._next(first)]

    def _next(self, first: Path) -> str:
        if first.suffix.lower() != ".png":
            return f"next: diffsteer sample {shlex.quote(self.model)} --out grid.png --film"
        return f"next: diffsteer sample --from {shlex.quote(str(first))} --out again.png --film"


@dataclass(frozen=True)
class Outlook:
    """What would be drawn, without drawing it. `own` is how the model draws when it is not told otherwise."""

    model: str
    jobs: tuple[Job, ...]
    label_names: tuple[str, ...]
    how: dict[str, Any]
    own: dict[str, Any]
    steers: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        differ = [key for key in self.how if self.how[key] != self.own[key]]
        pictures = named(self.jobs, self.label_names)
        return {
            "model": self.model,
            "pictures": pictures,
            **self.how,
            "steer": list(self.steers),
            "differ": differ,
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        names = dict.fromkeys(self.label_names[job.label] for job in self.jobs if job.label is not None)
        said = [*self.notes, f"model    {self.model}", f"pictures {len(self.jobs)}, seeds {self.jobs[0].seed} to {self.jobs[-1].seed}"]
        said += [f"labels   {', '.join(names)}"] if names else []
        said += [f"steer    {steer}" for steer in self.steers]
        for key, value in self.how.items():
            marked = f"   # the model's own: {self.own[key]}" if value != self.own[key] else ""
            said.append(f"{'*' if marked else ' '} {key}: {value}{marked}")
        return said


def sample_to(order: Order, out: str) -> Written:
    """Draws the order and writes it to `out`. Raises Mistake."""
    place = find_place(out, order.settings)
    prepared = ready(order)
    if prepared.settings.sweep is not None:
        return _swept(prepared, place.path, sweep.parse_sweep(prepared.settings.sweep))
    film = prepared.settings.film or place.kind == "film" or (place.kind == "grid" and prepared.shows == "film")
    with steps_bar(_evaluations(prepared)) as watch:
        drawn = _draw(prepared, watch, film)
    paths = tuple(write(prepared, drawn, place))
    notes = (*prepared.notes, *drawn.notes)
    return Written(prepared.model, paths, prepared.jobs, prepared.how, prepared.spec.label_names, notes, drawn.first_and_last())


def free_name(folder: Path) -> str:
    """pictures.png in the folder, or pictures-2.png and so on: where pictures go when nobody said."""
    stems = ("pictures", *(f"pictures-{number}" for number in range(2, 10_000)))
    return str(
        next(folder / f"{stem}.png" for stem in stems if not any(folder.glob(f"{stem}.png")) and not any(folder.glob(f"{stem}-film.*")))
    )


def outlook(order: Order) -> Outlook:
    """What would be drawn. Raises Mistake."""
    prepared = ready(order)
    if prepared.settings.sweep is not None:
        sweep.variants(prepared, sweep.parse_sweep(prepared.settings.sweep))
    how = {**prepared.how.as_dict(), "precision": prepared.settings.precision, "device": prepared.device}
    own = {**How().resolved(prepared.spec).as_dict(), "precision": "fp32", "device": find_device("auto")}
    steers = tuple(f"{steer.name}   ({steer.way}, {steer.scaling}, strength {steer.strength:g})" for steer in prepared.steers)
    return Outlook(prepared.model, prepared.jobs, prepared.spec.label_names, how, own, steers, prepared.notes)


def _swept(prepared: Ready, path: Path, through: sweep.Sweep) -> Written:
    if path.suffix.lower() != ".png":
        raise Mistake(f"--sweep makes one sheet, a PNG: give --out x.png, not {path}.")
    if prepared.settings.film:
        raise Mistake("--sweep makes one sheet of finished pictures; leave --film out beside it.")
    each = sweep.variants(prepared, through)
    with steps_bar(sum(map(_evaluations, each))) as watch:
        drawn = [_draw(one, watch) for one in each]
    write_sweep(prepared, sweep.sheet(prepared, through, drawn), path)
    return Written(prepared.model, (path,), prepared.jobs, prepared.how, prepared.spec.label_names, prepared.notes)


def _draw(prepared: Ready, watch: Callable[[int], None], film: bool = False) -> Drawn:
    return draw(
        prepared.denoiser,
        prepared.jobs,
        prepared.how,
        steers=prepared.steers,
        guide=prepared.guide,
        film=film,
        device=prepared.device,
        batch=prepared.settings.batch_size,
        watch=watch,
    )


def _evaluations(prepared: Ready) -> int:
    """Solver steps over all batches."""
    return -(-len(prepared.jobs) // prepared.settings.batch_size) * int(prepared.how.steps or 1)
