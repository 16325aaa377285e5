"""The drawing process: loads the model once, and draws what comes through the pipe, a batch a turn. `studio.py` is the other end."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsteer import sweep
from diffsteer.app.commission import About, Commission, Picture, Shown
from diffsteer.data import pixels
from diffsteer.device import find_device
from diffsteer.errors import Mistake, Stopped
from diffsteer.order import Order, Ready, ready
from diffsteer.placing import Place, write, write_sweep
from diffsteer.sampling.draw import Drawn, How, draw, joined
from diffsteer.sampling.folder import load_model
from diffsteer.sampling.solvers import SOLVERS, Step
from diffsteer.steering.embedding import load_embedder, parse_prompts
from diffsteer.steering.words import parse

BETWEEN = 0.5  # seconds between two looks at a drawing on its way
NOT_OFFERED = "seed-004"  # for comparison only

load = lru_cache(maxsize=2)(load_model)


class _Halted(Exception):
    """The job was asked to stop."""


def work(pipe: Connection, model: str, device: str, clip: str | None) -> None:
    """Says hello, then draws until the pipe is closed."""
    try:
        hello: tuple[str, Any] = ("ready", about(model, device, clip))
    except (Mistake, Stopped) as error:
        hello = ("mistake", str(error))
    jobs: dict[str, Iterator[Any]] = {}
    try:
        pipe.send(hello)
        while hello[0] == "ready":  # without a model there is nothing to wait for
            message = pipe.recv()
            if message[0] == "turn":
                _, token, commission = message
                job = jobs.setdefault(token, drawing(pipe, model, device, commission))
                if (ended := _turn(job)) is not None:
                    del jobs[token]
                pipe.send(ended or ("over", None))
            elif message[0] == "drop":
                jobs.pop(message[1], None)
    except (EOFError, ConnectionError):
        return


def about(model: str, device: str, clip: str | None) -> About:
    """Loads what is needed. Raises Mistake."""
    found = find_device(device)
    if clip is not None:
        load_embedder(clip, found)
    denoiser = load(model, "fp32", found)
    spec, own = denoiser.spec, How().resolved(denoiser.spec)
    solvers = [name for name, each in SOLVERS.items() if spec.process.name in each.processes and name != NOT_OFFERED]
    return About(
        labels=spec.label_names if spec.labelled else (),
        channels=spec.channels,
        height=spec.height,
        width=spec.width,
        guidance=spec.labelled and spec.null_class,
        spacings={name: How(name).resolved(spec).spacing for name in dict.fromkeys([*solvers, str(own.solver)])},
        own_solver=str(own.solver),
        own_steps=int(own.steps or 1),
        own_guidance=float(own.guidance_scale or 1.0),
        own_interval=spec.guidance_interval,
        device=found,
        notes=denoiser.notes,
    )


def _turn(job: Iterator[Any]) -> tuple[str, Any] | None:
    """One batch of a job; how it ended, or None where there is more."""
    try:
        next(job)
        return None
    except (StopIteration, _Halted):
        return ("done", None)
    except Mistake as error:
        return ("mistake", str(error))
    except (EOFError, ConnectionError):  # the pipe's, and not a full disk's
        raise
    except Exception:  # the next job is not to suffer for it
        return ("broke", traceback.format_exc())


# ---- one drawing -----------------------------------------------------------------------------------------------------


def drawing(pipe: Connection, model: str, device: str, commission: Commission) -> Iterator[None]:
    """Draws a commission, a batch for each `next`; what there is to see goes through the pipe. Raises Mistake, _Halted."""
    settings = commission.settings.model_copy(update={"device": device})
    _sentences_only(settings.steer)
    prepared = ready(Order(model, settings), load)
    # A PNG's recipe names pictures as the person does: our copies will be gone.
    prepared = replace(prepared, words=tuple(map(parse, commission.told)), model=commission.model)
    through = None if settings.sweep is None else sweep.parse_sweep(settings.sweep)
    each = [prepared] if through is None else sweep.variants(prepared, through)
    batches = [prepared.jobs[first : first + settings.batch_size] for first in range(0, len(prepared.jobs), settings.batch_size)]
    watch = _Watch(pipe, commission.folder, sum(len(batches) * int(one.how.steps or 1) for one in each), settings.invert)
    watch.show(notes=prepared.notes)
    drawn = []
    for one in each:
        parts = []
        for jobs in batches:
            parts.append(
                draw(one.denoiser, jobs, one.how, steers=one.steers, film=True, device=one.device, batch=len(jobs), look=watch.look)
            )
            watch.batch_done(int(one.how.steps or 1))
            if through is None:
                watch.show(pictures=(*watch.shown.pictures, *_pictures(replace(one, jobs=jobs), parts[-1], commission.folder, len(parts))))
            yield
        drawn.append(joined(parts))
    if through is not None:
        path = commission.folder / "sheet.png"
        write_sweep(prepared, sweep.sheet(prepared, through, drawn), path)
        watch.show(sheet=str(path), files={"png": str(path)})
        return
    notes = tuple(dict.fromkeys((*prepared.notes, *drawn[0].notes)))
    watch.show(files=_files(prepared, drawn[0], commission.folder), notes=notes)


def _sentences_only(steer: Sequence[str]) -> None:
    """A sentence that ends like a picture's name would be read as that file. Raises Mistake."""
    for words in map(parse, steer):
        if words.name == "clip" and any(prompt.is_picture for prompt in parse_prompts(str(words.value))):
            raise Mistake(f"{words.value!r} ends like the name of a picture file; here a sentence is asked for.")


def _pictures(prepared: Ready, drawn: Drawn, folder: Path, part: int) -> list[Picture]:
    """Writes one PNG a picture, each with its recipe."""
    paths = write(prepared, drawn, Place(folder / f"part-{part}", "folder", None, None))
    losses = _losses(drawn)
    names = prepared.spec.label_names
    return [
        Picture(str(path), None if job.label is None else names[job.label], job.seed, loss)
        for path, job, loss in zip(paths, prepared.jobs, losses, strict=True)
    ]


def _losses(drawn: Drawn) -> list[tuple[float, float] | None]:
    if not drawn.losses:
        return [None] * len(drawn.jobs)
    total = torch.stack([told.nan_to_num() for told in drawn.losses.values()]).sum(0)  # [steps + 1, N]
    return list(zip(total[0].tolist(), total[-1].tolist(), strict=True))


def _files(prepared: Ready, drawn: Drawn, folder: Path) -> dict[str, str]:
    """The grid, the arrays and the film, as `diffsteer sample` writes them."""
    kinds = {"png": "grid", "npz": "arrays", "gif": "film"}
    for suffix, kind in kinds.items():
        write(prepared, drawn, Place(folder / f"pictures.{suffix}", kind, None, None))
    return {suffix: str(folder / f"pictures.{suffix}") for suffix in kinds}


class _Watch:
    """Looks at a drawing between its steps: is it to stop, and is it time to show it again?"""

    def __init__(self, pipe: Connection, folder: Path, steps: int, invert: bool) -> None:
        self.pipe, self.folder, self.invert = pipe, folder, invert
        self.shown = Shown(steps=steps)
        self.before, self.last = 0, 0.0  # steps of the batches before; when it was last shown

    def look(self, state: Step) -> None:
        """Raises _Halted."""
        if self.pipe.poll():
            self.pipe.recv()  # the only thing said in the middle of a turn is stop
            raise _Halted
        now = time.monotonic()
        if now - self.last < BETWEEN:
            return
        self.last = now
        step = min(self.before + state.step, self.shown.steps)
        self.show(step=step, noisy=self._seen("noisy", step, state.x_t), clean=self._seen("clean", step, state.x0))

    def batch_done(self, steps: int) -> None:
        self.before += steps
        self.show(step=self.before)

    def show(self, **changed: Any) -> None:
        self.shown = replace(self.shown, **changed)
        self.pipe.send(("shown", self.shown))

    def _seen(self, what: str, step: int, x: Tensor) -> str:
        path = self.folder / f"{what}-{step}.png"
        pictures = pixels.to_uint8(x).cpu()
        columns = min(len(pictures), max(4, round(len(pictures) ** 0.5)))
        pixels.write_png(pixels.grid(pictures, columns=columns, invert=self.invert), path)
        return str(path)
