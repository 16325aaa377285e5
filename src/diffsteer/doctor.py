"""The story of one `diffsteer doctor`: what is wrong with a run or a model, how that was seen, and the command that mends the worst of it.

In: a run folder, or a model folder, of which less can be told. Out: a `Diagnosis`. What makes a number a finding stands in
`evaluation/symptoms.py`; here the numbers are gathered: settings and losses are read, a few pictures drawn, the data looked at.
"""

from __future__ import annotations

import copy
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsteer.config import DataSettings, FinetuneSettings, TrainSettings, as_flags, reading_flags
from diffsteer.data.batch import Pictures
from diffsteer.data.images import evenly, load_pictures
from diffsteer.data.pixels import to_signed
from diffsteer.device import find_device
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.seeds import PictureNoise, generator_for
from diffsteer.errors import Mistake
from diffsteer.evaluation import symptoms
from diffsteer.evaluation.copies import BASELINE, find_copies
from diffsteer.evaluation.symptoms import Finding, by_weight
from diffsteer.progress import steps_bar
from diffsteer.runfolder import Resolved, RunFolder
from diffsteer.sampling.draw import How, Job, draw
from diffsteer.sampling.folder import load_model
from diffsteer.sampling.solvers import SOLVERS
from diffsteer.training import objective
from diffsteer.training.checkpoint import load_checkpoint

PICTURES, LEAST = 64, 16  # drawn pictures, and how few they may be where drawing is slow
SECONDS = 20.0  # that drawing may take; LEAST pictures may take three times as long
FINE = How("dpm++2m", 50, "angle")  # ours in as many steps is within 0.01 of exact answers (benchmarks/results/solver-matrix.md)
REAL = 2048  # real pictures that drawn ones are compared with
WATCHED = 256  # real pictures whose losses tell the average of the weights from the weights
COPIES_WORK = 2e11  # differences of values: about ten seconds of a CPU core
NEED_DATA = "range, drift, copies, classes and the average of the weights"  # checks that take the data
Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """What a run folder tells without its model."""

    settings: TrainSettings
    resolved: Resolved
    losses: tuple[float, ...]
    norms: tuple[float, ...]

    @property
    def steps(self) -> int:
        return len(self.losses)

    @property
    def tuned(self) -> bool:
        """Whether it began with a base, which decides much that a training would."""
        return isinstance(self.settings, FinetuneSettings)


@dataclass
class Looks:
    """What was looked at, what was left out and why, and what was found, as the story goes on."""

    at: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    findings: list[Finding | None] = field(default_factory=list)

    def add(self, what: str, *found: Finding | None) -> None:
        self.at.append(what)
        self.findings += found


@dataclass(frozen=True)
class Diagnosis:
    """findings: the worst first. looked_at, left_out: the checks, and why some were not made. command: what to run next."""

    path: Path
    findings: tuple[Finding, ...]
    looked_at: tuple[str, ...]
    left_out: tuple[str, ...]
    command: str

    def lines(self) -> list[str]:
        """For people: a line a finding, then what was looked at."""
        found = [each.line() for each in self.findings] or [f"{self.path}: nothing wrong found."]
        looked = f"{'looked at':11}{', '.join(self.looked_at)}"
        return [*found, looked, *(f"{'left out':11}{each}" for each in self.left_out)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        findings = [each.to_dict() for each in self.findings]
        looks = {"looked_at": list(self.looked_at), "left_out": list(self.left_out)}
        return {"path": str(self.path), "findings": findings, **looks, "next": self.command}


def diagnose(path: Path, say: Say = lambda line: None) -> Diagnosis:
    """Looks at the run or model folder `path`. Raises Mistake where it is neither."""
    folder = path.expanduser()
    run_folder = RunFolder(folder)
    if not run_folder.exists and not (folder / "model_index.json").is_file():
        what = "has neither settings.yaml nor model_index.json" if folder.is_dir() else "is no folder"
        raise Mistake(f"{path} {what}; give a run folder, which diffsteer train makes, or a model folder.")
    looks, run = Looks(), _read_run(run_folder) if run_folder.exists else None
    if run is None:
        looks.left_out.append("losses, and all that is compared with the data: this is a model folder; give its run")
    else:
        look_at_training(run, looks)
    data = None if run is None else _data(run, looks)
    if run is not None and not (run_folder.model / "model_index.json").is_file():
        looks.left_out.append("weights and pictures: there is no model yet")
    else:
        device = find_device("auto")
        denoiser = load_model(str(folder), device=device)
        if data is not None and denoiser.spec.labelled:
            data = data.relabelled(denoiser.spec.label_names)  # a fine-tuned model may number them otherwise
        if run is not None and data is not None:
            _look_at_average(run, run_folder, denoiser, data, device, looks)
        look_at_pictures(denoiser, data, run, device, looks, say)
    found = by_weight(looks.findings)
    command = _command(path, found[0] if found else None, run, known=data is not None)
    return Diagnosis(path, tuple(found), tuple(looks.at), tuple(looks.left_out), command)


# ---- the training ----------------------------------------------------------------------------------------------------


def _read_run(folder: RunFolder) -> Run:
    settings, resolved = folder.told()
    rows = folder.metrics()
    norms = tuple(row["grad_norm"] for row in rows if "grad_norm" in row)
    return Run(settings, resolved, tuple(row["loss"] for row in rows), norms)


def look_at_training(run: Run, looks: Looks) -> None:
    """What settings and losses tell."""
    settings, losses = run.settings, run.losses
    short = symptoms.unfinished(run.steps, run.resolved.steps, run.resolved.finished)
    shrinking = isinstance(settings, FinetuneSettings) and settings.consistency  # such a loss falls with the gap, until the end
    few = None if short or shrinking else symptoms.few_steps(losses, settings.decay == "none")
    looks.add(
        f"{run.steps:,} losses and gradients",
        short,
        few,
        symptoms.bad_losses(losses, run.norms, settings.lr),
        symptoms.spikes(losses, settings.lr, settings.clip),
        symptoms.always_clipped(run.norms, settings.clip),
    )


def _data(run: Run, looks: Looks) -> Pictures | None:
    """The pictures that the run was trained on, where they are still there."""
    try:
        data = load_pictures(run.settings.data, **run.settings.model_dump(include=set(DataSettings.model_fields)))
    except (Mistake, OSError) as error:
        said = str(error).split(". ")[0].rstrip(".")
        looks.left_out.append(f"{NEED_DATA}: the data cannot be loaded ({said})")
        return None
    if data.fingerprint != run.resolved.data_fingerprint:
        looks.left_out.append(f"{NEED_DATA}: {run.settings.data} is not what it was in training")
        return None
    if data.label_names and run.settings.resolved_conditioning(True) != "none":
        counts = data.class_counts
        looks.add(f"{len(counts)} classes", symptoms.thin_classes(data.label_names, counts, run.tuned))
    return data


def _look_at_average(run: Run, folder: RunFolder, average: Denoiser, data: Pictures, device: str, looks: Looks) -> None:
    """The loss of the average of the weights beside that of the weights, which the last checkpoint holds."""
    checkpoint = folder.checkpoint(run.steps)
    if not run.settings.ema or not checkpoint.is_dir():
        return
    own = Denoiser(copy.deepcopy(average.network), average.spec, average.multiple)
    weights = load_checkpoint(checkpoint)[0]["model"]
    if not weights.keys() <= own.network.state_dict().keys():
        return  # LoRA's matrices: the model has their sum with the weights
    own.network.load_state_dict(weights, strict=False)  # what was frozen is in the model
    settings, spec = run.settings, average.spec
    batch = data.at(evenly(data.count, WATCHED))
    count = len(batch.pixels)
    x0, cond = to_signed(batch.pixels.to(device)), batch.labels.to(device) if spec.labelled and batch.labels is not None else None
    eps = PictureNoise.from_seeds(range(count), spec.shape, spec.process.noise)(device)
    order = torch.randperm(count, generator=generator_for("doctor", "times"))
    t = objective.draw_times(spec.process, settings.resolved_times, (order + 0.5) / count, settings.time_shift).to(device)
    with torch.no_grad():
        mine, theirs = (
            objective.losses(each, x0, eps, t, cond, settings.min_snr, settings.resolved_velocity_loss).cpu() for each in (own, average)
        )
    looks.add("the average of the weights", symptoms.stale_average(mine, theirs, run.steps, settings.ema_decay))


# ---- the pictures ----------------------------------------------------------------------------------------------------


def look_at_pictures(denoiser: Denoiser, data: Pictures | None, run: Run | None, device: str, looks: Looks, say: Say) -> None:
    """What the weights and a few drawn pictures tell, beside the data where it is there."""
    weights = {name: tensor for name, tensor in denoiser.network.state_dict().items() if tensor.is_floating_point()}
    broken = symptoms.bad_weights(weights, None if run is None else run.settings.lr)
    looks.add(f"{len(weights)} tensors of weights", broken)
    if broken:
        looks.left_out.append("pictures: with these weights there are none")
        return
    spec, real = denoiser.spec, None if data is None else data.at(evenly(data.count, REAL))
    studio = _Studio(denoiser, None if real is None else real.labels, device)
    how, count, checked = studio.affordable(looks)
    compared = LEAST if checked else 0
    seconds = studio.seconds(how) * count + studio.seconds(FINE) * compared
    finely = f", {compared} of them finely too" if compared else ""
    say(f"drawing    {count} pictures by {how.solver} in {how.steps} steps{finely}: about {max(1, round(seconds))} s")
    own = studio.drawn(how, count)
    looks.add(f"{count} drawn pictures")
    pixels = None if real is None else real.pixels.cpu()
    if compared:
        fine = studio.drawn(FINE, compared)
        better = ("--solver", str(FINE.solver), "--steps", str(FINE.steps), *(["--spacing", str(FINE.spacing)] if spec.spacing else []))
        name = f"{how.solver} in {how.steps} steps" + (f" with {how.spacing} times" if how.spacing else "")
        looks.add("the solver", symptoms.unsuited_solver(own[:compared], fine, pixels, name, better))
    if run is None or data is None or pixels is None:
        return
    guidance, steps = spec.guidance_scale, run.steps
    looks.add("the range of values", symptoms.wrong_range(own, pixels, spec.prediction, spec.pixel_range, guidance, steps, run.tuned))
    looks.add("brightness" if spec.channels == 1 else "colours", symptoms.drift(own, pixels, spec.prediction, guidance, steps))
    _look_for_copies(own, data, run, looks)


def _look_for_copies(own: Tensor, data: Pictures, run: Run, looks: Looks) -> None:
    work = (len(own) + BASELINE) * data.count * data.channels * data.height * data.width
    if data.streamed or work > COPIES_WORK:
        looks.left_out.append(f"copies: {data.count:,} pictures take long to look through; diffsteer evaluate does")
        return
    try:
        copies = find_copies(own, data, flip=run.settings.flip)
    except Mistake as error:
        looks.left_out.append(f"copies: {error}")
        return
    looks.add("copies", symptoms.copying(copies, run.steps, run.tuned))


class _Studio:
    """Draws with one model, and knows how long that takes. labels [M]: of real pictures; drawn ones have the first of them, shuffled."""

    def __init__(self, denoiser: Denoiser, labels: Tensor | None, device: str) -> None:
        self.denoiser, self.device = denoiser, device
        self.each = _seconds_a_call(denoiser, device) / LEAST
        names = denoiser.spec.label_names
        if not denoiser.spec.labelled:
            ids: list[int | None] = [None] * PICTURES
        elif labels is None:
            ids = [index % len(names) for index in range(PICTURES)]
        else:
            chosen = torch.randint(len(labels), (PICTURES,), generator=generator_for("doctor", "labels"))
            ids = [*labels.cpu()[chosen].tolist()]
        self.jobs = [Job(label, seed) for seed, label in enumerate(ids)]

    def affordable(self, looks: Looks) -> tuple[How, int, bool]:
        """How to draw, how many pictures, and whether the solver is to be compared with a fine one."""
        spec = self.denoiser.spec
        how = How().resolved(spec)
        if not spec.feed_time or spec.process.noise != "gaussian" or spec.consistency:
            looks.left_out.append("the solver: the model was not trained to be drawn by others")
            return how, self._count(how), False
        if LEAST * self.seconds(how) <= 3 * SECONDS:
            return how, self._count(how), (how.solver != FINE.solver or (how.steps or 0) < (FINE.steps or 0) or how.spacing is not None)
        took = LEAST * self.seconds(how)
        fine = FINE.resolved(spec)
        looks.left_out.append(f"the solver: {LEAST} pictures by {how.solver} in {how.steps} steps would take {took / 60:.0f} min")
        return fine, self._count(fine), False

    def _count(self, how: How) -> int:
        return min(PICTURES, max(LEAST, int(SECONDS / self.seconds(how))))

    def seconds(self, how: How) -> float:
        """Of one picture."""
        steps = int(how.steps or 1)
        evaluations = SOLVERS[str(how.solver)].evaluations(steps) if how.solver in SOLVERS else steps
        return self.each * evaluations * (2 if self.denoiser.spec.guidance_scale != 1 else 1)

    def drawn(self, how: How, count: int) -> Tensor:
        """Pictures uint8 [count, C, H, W]."""
        with steps_bar(int(how.steps or 1), str(how.solver)) as watch:
            return draw(self.denoiser, self.jobs[:count], how, device=self.device, watch=watch).pictures


def _seconds_a_call(denoiser: Denoiser, device: str) -> float:
    """Of the network, for LEAST pictures: the second call, as the first prepares things."""
    spec: ModelSpec = denoiser.spec
    x = PictureNoise.from_seeds(range(LEAST), spec.shape, spec.process.noise)(device)
    cond = torch.zeros(LEAST, dtype=torch.int64, device=device) if spec.labelled else None
    taken = 0.0
    with torch.no_grad():
        for _ in range(2):
            started = time.perf_counter()
            denoiser(x, 500.0, cond).sum().item()  # waits for the device
            taken = time.perf_counter() - started
    return taken


# ---- what to do ------------------------------------------------------------------------------------------------------


def _command(path: Path, worst: Finding | None, run: Run | None, known: bool) -> str:
    """The command that mends the worst finding, or the one that looks further."""
    if worst is None:
        if run is None or not known:
            return shlex.join(["diffsteer", "sample", str(path), "--out", "pictures.png"])
        read = reading_flags(run.settings.model_dump())
        return shlex.join(["diffsteer", "evaluate", str(path), run.settings.data, *read, "--out", str(path / "scores")])
    if worst.draw:
        return shlex.join(["diffsteer", "sample", str(path), *worst.draw, "--out", "mended.png"])
    if run is None:
        return "diffsteer train DATA --out runs/again"
    if not worst.train and not worst.goes_on:
        return shlex.join(["diffsteer", "check", run.settings.data])
    change: dict[str, Any] = dict(worst.train)
    if "steps" in change:
        change |= {"budget": None, "epochs": None}
    out = path if worst.goes_on else _free(path)
    return shlex.join(["diffsteer", run.settings.command, *as_flags(run.settings.model_copy(update=change)), "--out", str(out)])


def _free(path: Path) -> Path:
    """A name beside this run that is not taken: RUN-2, RUN-3, ..."""
    number = 2
    while path.with_name(f"{path.resolve().name}-{number}").exists():
        number += 1
    return path.with_name(f"{path.resolve().name}-{number}")
