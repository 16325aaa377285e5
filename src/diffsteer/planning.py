"""The story of one `diffsteer plan`: reads the data, measures a few ways to train on it here and now, and proposes one with its forecast.

A way is measured by the real loop on real pictures, a second or two each; which are tried and chosen is decided in `training/choice.py`.
"""

from __future__ import annotations

import gc
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from diffsteer import preparing, previews
from diffsteer.config import DataSettings, PlanSettings, TrainSettings, as_flags, duration
from diffsteer.data.batch import Pictures
from diffsteer.data.decode import Look, look, parse_background
from diffsteer.data.images import evenly, load_pictures
from diffsteer.data.memory import MemoryPictures
from diffsteer.data.pixels import to_signed
from diffsteer.data.reading import read_each
from diffsteer.data.rows import Wanted
from diffsteer.data.shape import LARGEST_KEPT
from diffsteer.data.sources import open_source
from diffsteer.device import find_device, free_memory
from diffsteer.diffusion.denoiser import Denoiser
from diffsteer.diffusion.networks import size_multiple, usual_channels
from diffsteer.evaluation.cost import measured
from diffsteer.recipebook import train_settings
from diffsteer.training.build import build_model
from diffsteer.training.choice import SAVED, Choice, Forecast, Situation, Trial, Way, choose, forecast
from diffsteer.training.loop import Training
from diffsteer.training.plan import Plan

ENDLESS = 10**9  # steps: more than are ever taken
PROBE = 4  # pictures of the first steps, which tell whether whole batches have room and can be waited for
PATIENCE = 4.0  # seconds: where a step would take longer, it is reckoned from PROBE pictures
LONG_ENOUGH, MOST = 1.0, 50  # seconds, or steps, that are timed
HEADERS, COMPARED, RESIZED = 64, 512, 1024  # pictures whose sizes are read; that are compared; with which other sizes are tried


@dataclass(frozen=True)
class Proposal:
    """What a plan says: the data, the machine in words, what was chosen and why, what it will cost, and the settings of that run."""

    data: Pictures
    machine: str
    choice: Choice
    forecast: Forecast
    settings: TrainSettings

    @property
    def command(self) -> str:
        """What starts the run."""
        words = as_flags(self.settings.model_copy(update={"budget": None}))
        assert self.settings.budget is not None
        return shlex.join(
            ["diffsteer", "train", *words, "--budget", duration(self.settings.budget), "--out", _free_folder(self.settings.data)]
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "command": self.command,
            "settings": self.settings.model_dump(mode="json"),
            "forecast": {**asdict(self.forecast), "seconds": sum(self.forecast.seconds.values()), "parts": self.forecast.seconds},
            "reasons": list(self.choice.reasons),
            "measured": [{**asdict(trial), "pictures_a_second": trial.pictures_a_second} for trial in self.choice.trials],
            "machine": self.machine,
        }

    def lines(self) -> Iterator[str]:
        """For a terminal; the last line starts the run."""
        data, ahead, chosen = self.data, self.forecast, self.choice.trial
        yield from data.notes
        kinds = f"{len(data.label_names)} labels" if data.label_names else "no labels"
        yield f"data     {data.source}: {data.count:,} pictures, {data.height}x{data.width}, {data.channels} channel(s), {kinds}"
        yield f"machine  {self.machine}"
        for trial in self.choice.trials:
            way, channels = trial.way, ",".join(map(str, trial.way.channels))
            shown = f"{way.size[0]}x{way.size[1]}, channels {channels}, layers {way.layers}, {way.precision}, batch {way.batch}"
            reckoned = "" if trial.timed == way.batch else f", reckoned from {trial.timed}"
            rate = trial.pictures_a_second
            yield f"measured {rate:{',.0f' if rate >= 10 else '.2g'}} pictures a second ({shown}{reckoned})"
        rises = f"{min(self.settings.warmup, ahead.steps // 10)} steps"
        schedule = f"learning rate {self.settings.lr:g}: rises over {rises}, then falls to 0 at the end, as a cosine does"
        for line in (*self.choice.reasons, schedule):
            yield f"proposal {line}"
        seen = f"{ahead.pictures:,} pictures seen, {ahead.epochs:.1f} epochs"
        memory = f"{ahead.memory / 2**30:.1f} GiB of memory at the peak"
        yield f"forecast {ahead.steps:,} steps, {seen}; {chosen.parameters:,} parameters, {memory}"
        parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in ahead.seconds.items())
        yield f"forecast {sum(ahead.seconds.values()):.0f} s from start to exit: {parts}"
        yield f"next: {self.command}"


def plan(data: str, settings: PlanSettings, started: float) -> Proposal:
    """Measures and proposes. started: when the command began (`time.time()`). Raises Mistake."""
    imports = time.time() - started
    device = find_device(settings.device)
    preparing.check_precision(settings.precision, device)
    options = settings.model_dump(include=set(DataSettings.model_fields))
    first = time.perf_counter()
    pictures = load_pictures(data, **options)
    loading = time.perf_counter() - first
    situation = Situation(
        budget=settings.budget,
        imports=imports,
        loading=loading,
        pictures=pictures.count,
        size=(pictures.height, pictures.width),
        finest=_finest(data, settings, pictures),
        sized=settings.size is not None,
        precisions=_precisions(device) if settings.precision == "auto" else (settings.precision,),
        memory=free_memory(device),
        mirrored=_mirrored(pictures),
        compiles=device == "cuda" and preparing.has_compiler(),
    )
    base = train_settings(None, {**options, "data": data, "device": settings.device, "budget": settings.budget})
    choice = choose(situation, _Bench(pictures, base, device))
    chosen = _settings(base, pictures, choice.trial.way, flip=choice.flip, compile=choice.compile)
    return Proposal(pictures, _machine(device), choice, forecast(situation, choice.trial), chosen)


# ---- measuring -------------------------------------------------------------------------------------------------------


class _Bench:
    """Measures a way to train on these pictures: what `choose` asks."""

    def __init__(self, data: Pictures, base: TrainSettings, device: str) -> None:
        self.data, self.base, self.device = data, base, device

    def __call__(self, way: Way) -> Trial:
        gc.collect()  # networks that accelerate has prepared hold on to themselves
        settings = _settings(self.base, self.data, way)
        data = self.data if way.size == (self.data.height, self.data.width) else _resized(self.data, settings, way.size)
        network, spec = build_model(settings, data)
        length = Plan(data.count, way.batch, 1, settings.last_batch, ENDLESS, settings.lr, settings.warmup, settings.decay)
        training = Training(network, spec, settings, data, length, preparing.make_accelerator(self.device, way.precision))
        batch, before = min(PROBE, way.batch), _used_memory(self.device)
        step, cost = measured(lambda: _seconds_a_step(training, batch), self.device)
        times = way.batch / batch
        if times > 1 and step * times < PATIENCE and cost.peak_bytes * times < free_memory(self.device):
            times, batch, before = 1.0, way.batch, _used_memory(self.device)
            step, cost = measured(lambda: _seconds_a_step(training, batch), self.device)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        # While it times its steps, a run keeps a second copy of weights, average and Adam's state.
        memory = before + cost.peak_bytes * times + SAVED * parameters
        return Trial(way, step * times, _preview_seconds(training, batch), int(memory), parameters, batch)


def _seconds_a_step(training: Training, batch: int) -> float:
    """The mean time of an optimizer step, after those that choose kernels."""
    training.plan = replace(training.plan, batch_size=batch)
    with closing(training.run()) as steps:
        for _ in range(training.warm_up):
            next(steps)
        _wait(training)
        first, taken = time.perf_counter(), 0
        while taken < 2 or (taken < MOST and time.perf_counter() - first < LONG_ENOUGH):
            next(steps)
            taken += 1
        _wait(training)
        return (time.perf_counter() - first) / taken


def _preview_seconds(training: Training, batch: int) -> float:
    """How long a preview takes, from single evaluations of the network and of its average."""
    spec, device, jobs = training.spec, training.accelerator.device, len(previews.preview_jobs(training.spec))
    few = min(batch, jobs)
    x = torch.randn(few, *spec.shape, device=device)
    labels = torch.zeros(few, dtype=torch.int64, device=device) if spec.labelled else None
    seconds = 0.0
    for network in (training.network, training.ema):
        if network is None:
            continue
        denoiser = Denoiser(network.eval(), spec, size_multiple(network))
        for _ in range(2):  # the first chooses kernels
            _wait(training)
            first = time.perf_counter()
            with torch.no_grad():
                denoiser(x, spec.process.t_max / 2, labels)
            _wait(training)
            once = time.perf_counter() - first
        seconds += once * jobs / few * (previews.PREVIEW.steps or 1)
    return seconds


def _wait(training: Training) -> None:
    """Until the device has done what it was told."""
    if training.accelerator.device.type == "cuda":
        torch.cuda.synchronize()


def _settings(base: TrainSettings, data: Pictures, way: Way, **more: Any) -> TrainSettings:
    """The run that trains this way; what it would do anyway is left to the defaults."""
    chosen = {"layers": way.layers, "precision": way.precision, "batch_size": way.batch, **more}
    if way.size != (data.height, data.width):
        chosen["size"] = way.size
    if way.channels != usual_channels(*way.size):
        chosen["channels"] = way.channels
    return train_settings(None, {**base.model_dump(), **chosen})


def _resized(data: Pictures, settings: TrainSettings, size: tuple[int, int]) -> Pictures:
    """Pictures of another size to measure with: of data in memory a part, of streamed data all, as a run would read them."""
    if not isinstance(data, MemoryPictures):
        return load_pictures(settings.data, **settings.model_dump(include=set(DataSettings.model_fields)))
    pixels = F.interpolate(data.pixels[:RESIZED].float(), size, mode="area").to(torch.uint8)
    return replace(data, pixels=pixels, labels=None if data.labels is None else data.labels[:RESIZED])


# ---- what the choice depends on --------------------------------------------------------------------------------------


def _finest(data: str, settings: PlanSettings, pictures: Pictures) -> int:
    """The shorter side of most pictures on disk, where they may be larger than they are read."""
    read = min(pictures.height, pictures.width)
    if settings.size is not None or max(pictures.height, pictures.width) < LARGEST_KEPT:
        return read
    source = open_source(data, Wanted(settings.split, settings.image_column, settings.label_column, settings.caption_column))
    behind = parse_background(settings.background)
    looks = read_each(source.rows, evenly(source.count, HEADERS), lambda _, encoded: look(encoded, behind))
    sides = sorted(min(found.height, found.width) for found in looks if isinstance(found, Look))
    return sides[len(sides) // 4] if sides else read


def _mirrored(data: Pictures) -> float:
    """How many times as far from their nearest neighbours (of their class) mirrored pictures are as the pictures themselves."""
    batch = data.at(evenly(data.count, COMPARED))
    pictures, labels = to_signed(batch.pixels), batch.labels

    def nearest(some: Tensor) -> Tensor:
        distances = torch.cdist(some.flatten(1), pictures.flatten(1)).fill_diagonal_(torch.inf)  # no picture is its own neighbour
        if labels is not None:
            distances[labels[:, None] != labels] = torch.inf
        return distances.min(1).values

    plain, mirrored = nearest(pictures), nearest(pictures.flip(-1))
    known = plain.isfinite() & mirrored.isfinite()
    return float(mirrored[known].mean() / plain[known].mean().clamp_min(1e-6)) if known.any() else float("inf")


def _precisions(device: str) -> tuple[str, ...]:
    """Arithmetic worth trying, fp32 first."""
    if device == "cuda":
        return ("fp32", "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16")
    return ("fp32", "bf16") if device == "cpu" else ("fp32",)


def _used_memory(device: str) -> int:
    """Bytes: on the GPU, or of this process."""
    return int(torch.cuda.memory_allocated() if device == "cuda" else psutil.Process().memory_info().rss)


def _machine(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else f"{device}, {torch.get_num_threads()} thread(s)"
    return f"{name}; {free_memory(device) / 2**30:.0f} GiB of memory free"


def _free_folder(data: str) -> str:
    """runs/NAME, or the next name that is not taken."""
    name = re.sub(r"[^\w.-]+", "-", Path(data).stem).strip("-.") or "first"
    return next(place for number in count(1) if not Path(place := f"runs/{name}" + (f"-{number}" if number > 1 else "")).exists())
