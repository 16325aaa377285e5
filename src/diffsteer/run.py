"""The story of one run: data, model, plan, training, and what hangs on it (previews, scores, checkpoints, metrics, figures, trackers).

Everything a resumed run needs is in its folder; running the same command again goes on from the newest checkpoint.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from diffsteer import curves, figures, preparing, previews, runprocess, scoring
from diffsteer.base import Base, kept, kept_evaluations
from diffsteer.config import FinetuneSettings, TrainSettings
from diffsteer.data import pixels
from diffsteer.data.batch import Pictures
from diffsteer.diffusion import networks
from diffsteer.diffusion.denoiser import Denoiser
from diffsteer.diffusion.judge import is_judge, load_judge, save_judge
from diffsteer.errors import Mistake, Stopped
from diffsteer.fitting import Clock, step_and_checkpoint
from diffsteer.processes import Asked, Between, Terminated, first_is_noted
from diffsteer.progress import beside_bars, roughly
from diffsteer.runfolder import Resolved, RunFolder
from diffsteer.sampling.draw import How
from diffsteer.sampling.folder import save_model
from diffsteer.tracking import Trackers
from diffsteer.training.budget import (
    PREVIEWS,
    SCORING,
    Costs,
    end_seconds,
    looks_in,
    previews_in,
    rarer_looks,
    steps_in,
)
from diffsteer.training.checkpoint import load_checkpoint, save_checkpoint
from diffsteer.training.finetune import Adapted
from diffsteer.training.loop import Stepped, Training
from diffsteer.training.lora import has_lora, merged, save_lora
from diffsteer.training.objective import NOISE_BINS
from diffsteer.training.plan import Plan, steps_for_epochs

Say = Callable[[str], None]

# Metrics are written, and the loss looked at, every so many steps: the device is never waited for in between.
FLUSH_EVERY = 20
DEFAULT_EPOCHS = 30


@dataclass(frozen=True)
class Result:
    """What a run leaves: its folder, steps done, and mean losses: of the last hundred steps, and of the steps that begin in each whole
    epoch."""

    out: Path
    steps: int
    loss: float
    epochs: tuple[float, ...]
    seconds: float
    resumed: bool
    already_finished: bool = False


def train(settings: TrainSettings, out: Path, *, say: Say = print, started: float | None = None) -> Result:
    """Trains into the run folder `out`, or goes on with the run that is there. Raises Mistake, Stopped, KeyboardInterrupt (after saving).

    started: when the command began (`time.time()`), which is where a budget counts from.
    """
    now = time.time()
    started = started or now
    folder = RunFolder(out)
    folder.refuse_strangers()
    runprocess.refuse_another(out)
    settings, base = preparing.settle(settings, out)
    begun = folder.exists
    if begun:
        folder.refuse_other_settings(settings)
        if _finished(folder, settings):
            return _result(folder, resumed=False, already_finished=True)
    device = preparing.choose_device(settings)
    accelerator = preparing.make_accelerator(device, settings.precision, settings.track, out / "trackers")
    # No process may write into the folder before all have seen whether it was there.
    accelerator.wait_for_everyone()
    streaming = ("on" if folder.resolved().streamed else "off") if begun and settings.streaming == "auto" else None
    data = preparing.load_data(settings, streaming, accelerator)
    model = preparing.make_model(settings, data, base)
    How().resolved(model.spec)  # a solver that does not exist or fit is said now, not when the training is over
    scoring.check(settings, data, model.spec)
    say = say if accelerator.is_main_process else _silent
    for note in (*data.notes, *model.notes):
        say(note)
    story = _Story(settings, folder, data, model, base, accelerator, say, started, imports=now - started)
    try:
        with runprocess.told_of(out) if accelerator.is_main_process else nullcontext():
            return story.go_on() if begun else story.begin()
    except torch.OutOfMemoryError as error:
        raise Stopped(
            f"The GPU's memory is full at step {story.training.step}. Take a smaller --batch-size, with --accumulate for the same step, "
            "or --precision bf16."
        ) from error
    except RuntimeError as error:
        if accelerator.num_processes > 1 and not isinstance(error, Stopped):
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise Stopped(
                f"Process {accelerator.process_index} of {accelerator.num_processes} could not go on at step {story.training.step}, "
                f"perhaps because another ended ({why}). Run the same command to go on from the newest checkpoint."
            ) from error
        raise
    finally:
        accelerator.end_training()


def outlook(settings: TrainSettings) -> list[str]:
    """What a run with these settings would be: data, shapes, parameters, length. Raises Mistake."""
    settings, base = preparing.settle(settings, None)
    device = preparing.choose_device(settings)
    data = preparing.load_data(settings)
    network, spec, _, notes = preparing.make_model(settings, data, base)
    How().resolved(spec)  # a solver that does not exist or fit is said now, not when the training is over
    scoring.check(settings, data, spec)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    size = settings.batch_size * settings.accumulate
    if settings.budget is not None:
        length = f"a budget of {settings.budget:.0f} s"
    else:
        epochs = settings.epochs or DEFAULT_EPOCHS
        steps = settings.steps or steps_for_epochs(epochs, data.count, size, settings.last_batch)
        length = f"{steps} optimizer steps, {steps * size / data.count:.1f} epochs"
    return [
        *data.notes,
        *notes,
        f"data     {data.source}: {data.count} pictures, {data.height}x{data.width}, {data.channels} channel(s), "
        f"{len(data.label_names)} classes",
        f"network  {type(network).__name__}, {parameters:,} parameters, input padded to multiples of {networks.size_multiple(network)}",
        f"reads    conditioning {spec.conditioning}, predicts {spec.prediction}, process {spec.process.name}",
        f"length   {length}, {size} pictures a step, on {device}",
    ]


class _Story:
    """One run on one process: the loop and what hangs on it."""

    def __init__(
        self,
        settings: TrainSettings,
        folder: RunFolder,
        data: Pictures,
        model: Adapted,
        base: Base | None,
        accelerator: Accelerator,
        say: Say,
        started: float,
        imports: float,
    ) -> None:
        self.settings, self.folder, self.accelerator, self.say = settings, folder, accelerator, say
        self.real = data  # with labels of its own, which may be some of the model's
        self.data = data.relabelled(model.spec.label_names) if model.spec.labelled else data
        self.spec, self.before, self.base = model.spec, model.before, base
        self.started, self.imports = started, imports
        self.scorer: scoring.Scorer | None = None  # the main process's, where the run is scored
        self.look_seconds = 0.0
        length = self._length()
        plan = self._plan(length or 10**9)
        compiled = preparing.compiles(settings, accelerator.device, say)
        teacher = preparing.make_teacher(settings, base, str(accelerator.device))
        self.training = Training(model.network, self.spec, settings, self.data, plan, accelerator, compiled=compiled, teacher=teacher)
        self.main, self.several = accelerator.is_main_process, accelerator.num_processes > 1
        self.trackers, self.clock = Trackers(accelerator, settings, folder.path), Clock(accelerator)
        self.parameters = sum(parameter.numel() for parameter in model.network.parameters())

    # ---- beginning, going on ---------------------------------------------------------------------------------------

    def begin(self) -> Result:
        self._describe()
        self._prepare_scores()
        start, preview_seconds = self._preview_timed()
        if (length := self._length()) is not None:
            steps, looks = length, PREVIEWS
        else:
            steps, looks = self._fitted(preview_seconds, self.settings.preview_every, self.settings.checkpoint_every)
        self._set_plan(steps)
        resolved = self._resolve(steps, looks)
        if self.main:
            self.folder.write(self.settings, resolved)
            self._keep_judge()
            assert start is not None
            pixels.write_png(start, previews.preview_path(self.folder.previews, 0))
        return self._train(resolved, resumed=False)

    def go_on(self) -> Result:
        resolved = self.folder.resolved()
        if resolved.data_fingerprint != self.data.fingerprint:
            raise Mistake(f"The pictures at {self.settings.data} are not those that {self.folder.path} was begun with. Give another --out.")
        newest = self.folder.newest_checkpoint()
        if newest is not None:
            self.training.load(*load_checkpoint(newest))
        done = self.training.step
        self._prepare_scores()
        saved = self.folder.read()["settings"]
        every = {name: getattr(self.settings, name) or getattr(resolved, name) for name in ("preview_every", "checkpoint_every")}
        resolved = replace(resolved, **every)
        if (length := self._length()) is not None:
            resolved = replace(resolved, steps=length)
        elif self.settings.budget is not None and saved.get("budget") != self.settings.budget:
            more, _ = self._fitted(self._preview_timed()[1], resolved.preview_every, resolved.checkpoint_every)
            resolved = replace(resolved, steps=done + more)
        if resolved.steps < done:
            raise Mistake(f"{self.folder.path} has {done} steps already, more than the {resolved.steps} asked for.")
        self._set_plan(resolved.steps)
        resolved = replace(resolved, finished=False, lr_schedule=self._schedule())
        self.accelerator.wait_for_everyone()  # all have read the folder; now it may change
        if self.main:
            self.folder.sweep()
            self.folder.write(self.settings, resolved)
            self._keep_judge()
            self.folder.cut_metrics(done)
            self.folder.cut_scores(done)
            self.folder.cut_previews(done)
            if done == 0 and not (first := previews.preview_path(self.folder.previews, 0)).exists():
                pixels.write_png(self._preview_picture(0), first)
        self.say(f"going on at step {done} of {resolved.steps}")
        return self._train(resolved, resumed=True)

    # ---- the loop --------------------------------------------------------------------------------------------------

    def _train(self, resolved: Resolved, resumed: bool) -> Result:
        self._announce(resolved)
        self.trackers.start()
        seconds = (self.folder.metrics() or [{"seconds": 0.0}])[-1]["seconds"] if resumed else 0.0
        clock = time.perf_counter()
        waiting: list[Stepped] = []

        def elapsed() -> float:
            return seconds + time.perf_counter() - clock

        def flush() -> None:
            self._flush(waiting, elapsed())
            waiting.clear()
            if self.several and self._any(asked.came):
                raise Between

        with first_is_noted() as asked:
            try:
                self._steps(resolved, waiting, flush, elapsed, asked)
            except KeyboardInterrupt as stop:
                if isinstance(stop, Terminated) or (self.several and not isinstance(stop, Between)):
                    raise  # in the middle of a step, or in different ones: nothing that could be saved would be one state
                self._flush(waiting, elapsed())
                self._checkpoint()
                self._save_model()
                self.say(f"\nstopped at step {self.training.step} of {resolved.steps}; run the same command to go on")
                raise
        if self.main:
            self._finish(resolved)
        self.accelerator.wait_for_everyone()
        return _result(self.folder, resumed=resumed) if self.main else Result(self.folder.path, resolved.steps, math.nan, (), 0.0, resumed)

    def _steps(
        self, resolved: Resolved, waiting: list[Stepped], flush: Callable[[], None], elapsed: Callable[[], float], asked: Asked
    ) -> None:
        """Every step that is left, and what is done at some of them. waiting: those whose metrics `flush` is to write."""

        def look(step: int) -> None:
            previewed, scored = step % resolved.preview_every == 0 or step == resolved.steps, self._is_scored(step, resolved)
            if previewed or scored:
                flush()
            with nullcontext() if self.several else asked.at_once():
                if previewed:
                    self._preview(step)
                if scored:
                    self._score(step, elapsed())

        if self.training.step:
            look(self.training.step)  # a run that was stopped where it is to be looked at has that to come
        for stepped in self._with_bar(self.training.run()):
            waiting.append(stepped)
            step = stepped.step
            last = step == resolved.steps
            if len(waiting) == FLUSH_EVERY or last:
                flush()
            look(step)
            if step % resolved.checkpoint_every == 0 or last:
                flush()
                self._checkpoint()

    def _any(self, mine: bool) -> bool:
        """Whether it is so in any of the processes, all of which ask."""
        return bool(self.accelerator.reduce(torch.tensor(float(mine), device=self.accelerator.device), reduction="sum") > 0)

    def _flush(self, waiting: list[Stepped], seconds: float) -> None:
        """Writes the waiting steps' metrics; stops at the first loss that is not finite."""
        if not waiting:
            return
        records = torch.stack([stepped.record for stepped in waiting])
        norms = records[:, 2].clone()
        records = self.accelerator.reduce(records, reduction="sum").cpu().double()
        rows: list[dict[str, Any]] = []
        for stepped, record, norm in zip(waiting, records, norms.tolist(), strict=True):
            sums, counts = record[3 : 3 + NOISE_BINS].tolist(), record[3 + NOISE_BINS :].tolist()
            loss = (record[0] / record[1]).item()
            scaled = self.accelerator.scaler is not None  # fp16: a step whose gradient is too large is left out, and the scale made smaller
            if not (math.isfinite(loss) and (scaled or math.isfinite(norm))):
                self._write_rows(rows)
                raise self._not_finite(stepped.step, "gradient" if math.isfinite(loss) else "loss")
            by_noise = [_short(total / count) if count else None for total, count in zip(sums, counts, strict=True)]
            rows.append(
                {
                    "step": stepped.step,
                    "loss": _short(loss),
                    "loss_by_noise": by_noise,
                    "grad_norm": _short(norm),
                    "lr": stepped.lr,
                    "seconds": round(seconds, 3),
                }
            )
        self._write_rows(rows)

    def _write_rows(self, rows: list[dict[str, Any]]) -> None:
        if self.main and rows:
            self.folder.add_metrics(rows)
        self.trackers.losses(rows)

    def _not_finite(self, step: int, what: str) -> Stopped:
        spans = self.training.plan.spans(step - 1, 0, self.training.plan.pictures(step - 1))
        indices = [i for s in spans for i in self.data.take(self.settings.seed, s.epoch, s.start, s.stop).indices.tolist()]
        shown = ", ".join(self.data.name(i) for i in indices[:8]) + (f" and {len(indices) - 8} more" if len(indices) > 8 else "")
        newest = self.folder.newest_checkpoint()
        good = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
        return Stopped(
            f"The {what} is not finite at step {step}; {good}. Its batch was {shown}. "
            f"Try a smaller --lr (it was {self.settings.lr:g}), --clip 1 or --precision fp32."
        )

    # ---- what is written -------------------------------------------------------------------------------------------

    def _preview(self, step: int) -> None:
        """A preview, unless it is there."""
        path = previews.preview_path(self.folder.previews, step)
        if self.main and not path.exists():
            picture = self._preview_picture(step)
            pixels.write_png(picture, path)
            self.trackers.preview(step, picture)
        self.accelerator.wait_for_everyone()

    def _preview_picture(self, step: int) -> Any:
        """A preview; the first is of the network read as it was before it learnt anything else."""
        spec = self.before if step == 0 else self.spec
        return previews.preview(self.training.network, self.training.ema, spec, self.accelerator.device)

    def _is_scored(self, step: int, resolved: Resolved) -> bool:
        every = self.settings.score_every
        return every is not None and (step % every == 0 or step == resolved.steps)

    def _score(self, step: int, seconds: float) -> None:
        """A line of scores.jsonl, unless it is there."""
        if self.scorer is not None and all(row["step"] != step for row in self.folder.scores()):
            scores = self.scorer.look(self.training.ema or self.training.network)
            how = {"drawn": self.scorer.how.as_dict()}
            self.folder.add_scores({"step": step, "seconds": round(seconds, 3), **how, "scores": scores.to_dict()})
            self.trackers.scores(step, scoring.scalars(scores))
            beside_bars(self.say, f"scores   step {step}: {scoring.in_words(scores)}")
        self.accelerator.wait_for_everyone()

    def _checkpoint(self) -> None:
        if self.main:
            save_checkpoint(self.folder.checkpoint(self.training.step), self.training.tensors(), self.training.state())
            self.folder.prune(self.settings.keep)
        self.accelerator.wait_for_everyone()

    def _save_model(self) -> None:
        if self.main:
            network = self.training.ema or self.training.network
            if has_lora(network):
                assert isinstance(self.settings, FinetuneSettings)
                save_lora(self.folder.path / "lora", network, self.settings.model)
                network = merged(network)
            save_model(self.folder.model, network, self.spec)

    def _finish(self, resolved: Resolved) -> None:
        self._save_model()
        rows = self.folder.metrics()
        curves.write_loss_curve(rows, self.folder.figures / "loss.png", self.settings.loss_ceiling)
        network = (self.training.ema or self.training.network).eval()
        device = str(self.accelerator.device)
        scene = figures.Scene(self.data, Denoiser(network, self.spec, networks.size_multiple(network)), rows, self.settings.seed, device)
        for name in self.settings.figures:
            pixels.write_png(figures.FIGURES[name](scene), self.folder.figures / f"{name}.png")
        previews.write_film(self.folder.previews, resolved.steps)
        if self.base is not None:
            self._keep(self.base, scene.denoiser)
        self.folder.write(self.settings, replace(resolved, finished=True))

    def _keep(self, base: Base, tuned: Denoiser) -> None:
        """kept.json: what the tuned model kept of its base."""
        assert isinstance(self.settings, FinetuneSettings)
        device = str(self.accelerator.device)
        own = self.folder.judge if is_judge(self.folder.judge) else None
        place = self.settings.judge or own
        judge = None if place is None else load_judge(place).to(device)
        found = kept(base.again(device), tuned, judge, device)
        found.write(self.folder.path / "kept.json")
        self.say(f"kept     {found.sentence()}")

    def _prepare_scores(self) -> None:
        """The judge, the real pictures, and how long a look takes, all on the main process."""
        if self.settings.score_every is None:
            return
        device = str(self.accelerator.device)
        if self.main:
            self.scorer = scoring.prepare(self.settings, self.real, self.spec, self.folder.judge, device, self.say)
        seconds = 0.0 if self.scorer is None else self.scorer.seconds(self.training.ema or self.training.network)
        self.look_seconds = self.clock.of_first(seconds)

    def _keep_judge(self) -> None:
        """A judge that was trained for this run stays with it, where `diffsteer evaluate --out RUN/scores` finds it too."""
        if self.scorer is not None and self.scorer.new_judge is not None:
            save_judge(self.folder.judge, self.scorer.new_judge)

    # ---- how long --------------------------------------------------------------------------------------------------

    def _length(self) -> int | None:
        """Optimizer steps asked for; None when a budget says it."""
        settings = self.settings
        if settings.steps is not None:
            return settings.steps
        if settings.budget is not None:
            return None
        size = settings.batch_size * settings.accumulate
        return steps_for_epochs(settings.epochs or DEFAULT_EPOCHS, self.data.count, size, settings.last_batch)

    def _fitted(self, preview: float, preview_every: int | None, checkpoint_every: int | None) -> tuple[int, int]:
        """How many steps fit into what is left of the budget, and how many previews there will be. preview: seconds that one takes."""
        budget = self.settings.budget
        assert budget is not None
        each, checkpoint = step_and_checkpoint(self.training, self.clock, budget, self.folder.path)
        costs = Costs(each, preview, checkpoint, self._figure_seconds(preview) + end_seconds(self.imports), self.look_seconds)
        left, looks = self.clock.shared(budget - (time.time() - self.started)), previews_in(budget, preview)
        steps = steps_in(left, costs, looks, preview_every, checkpoint_every, self.settings.score_every)
        self._warn_of_looks(budget, costs, steps)
        return steps, looks

    def _warn_of_looks(self, budget: float, costs: Costs, steps: int) -> None:
        """Says so where scoring takes much of the budget."""
        every = self.settings.score_every
        share = 0.0 if every is None else looks_in(steps, every) * costs.look / budget
        if every is not None and share > SCORING:
            rarer = rarer_looks(budget, costs, steps, every)
            instead = f"--score-every {rarer} takes {SCORING:.0%}" if rarer else "fewer pictures a look, by --score-count, take less"
            self.say(f"scores   {looks_in(steps, every)} looks take {share:.0%} of the budget; {instead}")

    def _preview_timed(self) -> tuple[Any, float]:
        """A preview, and the seconds that one takes: on a GPU a second one, as the first chooses kernels."""
        for _ in range(2 if self.accelerator.device.type == "cuda" else 1):
            timed = self.clock.timed(lambda: self._preview_picture(self.training.step))
        return timed

    def _figure_seconds(self, preview_seconds: float) -> float:
        """About what the figures cost, and what was kept of a base, in network evaluations against those of a preview."""
        evaluations = {"step-sheet": 8 * 5, "grid-64": 64 * 40, "x-and-x0": 8 * 40, "by-label": 80 * self.spec.steps}
        weights = 2 if self.training.ema is not None else 1
        one = weights * len(previews.preview_jobs(self.spec)) * (previews.PREVIEW.steps or 1)
        last = 0 if self.base is None else kept_evaluations(self.spec)
        return (last + sum(evaluations.get(name, 8) for name in self.settings.figures)) / one * preview_seconds

    def _plan(self, steps: int) -> Plan:
        s = self.settings
        return Plan(self.data.count, s.batch_size, s.accumulate, s.last_batch, steps, s.lr, s.warmup, s.decay)

    def _set_plan(self, steps: int) -> None:
        self.training.plan = self._plan(steps)

    def _resolve(self, steps: int, looks: int) -> Resolved:
        tenth = max(1, round(steps / 10))
        return Resolved(
            steps=steps,
            preview_every=self.settings.preview_every or max(1, -(-steps // looks)),
            checkpoint_every=self.settings.checkpoint_every or tenth,
            data_fingerprint=self.data.fingerprint,
            pictures=self.data.count,
            label_names=tuple(self.data.label_names),
            lr_schedule=self._schedule(),
            streamed=self.data.streamed,
        )

    def _schedule(self) -> str:
        plan = self.training.plan
        warmup = min(plan.warmup, plan.steps // 10)
        return f"{plan.lr:g}, {warmup} steps of warm-up, decay {plan.decay} over {plan.steps} steps"

    # ---- what is said ----------------------------------------------------------------------------------------------

    def _describe(self) -> None:
        spec, settings = self.spec, self.settings
        labels = f"{len(spec.label_names)} labels ({spec.conditioning})" if spec.labelled else "no labels"
        self.say(
            f"data     {self.data.source}: {self.data.count} pictures, {spec.height}x{spec.width}, {spec.channels} channel(s), {labels}"
        )
        self.say(f"model    {settings.network}, {self.parameters:,} parameters; process {settings.process}, predicts {spec.prediction}")

    def _announce(self, resolved: Resolved) -> None:
        size = self.training.plan.step_size
        seen = resolved.steps * size
        where = f"{self.accelerator.device.type}, {self.accelerator.num_processes} process(es), {self.settings.precision}"
        self.say(
            f"plan     {resolved.steps} optimizer steps of {size} pictures ({seen:,} pictures, {seen / self.data.count:.1f} epochs) "
            f"on {where}; learning rate {resolved.lr_schedule}"
        )
        if (every := self.settings.score_every) is not None:
            looks = looks_in(resolved.steps, every) - self.training.step // every
            long = f"about {roughly(self.look_seconds)} a look, {roughly(looks * self.look_seconds)} in all"
            self.say(f"scores   {self.settings.score_count} pictures every {every} steps and at the end; {long}")

    def _with_bar(self, steps: Iterator[Stepped]) -> Iterator[Stepped]:
        quiet = not (self.main and sys.stderr.isatty())
        total = self.training.plan.steps
        return iter(tqdm(steps, total=total, initial=self.training.step, disable=quiet, unit="step", dynamic_ncols=True))


def _finished(folder: RunFolder, settings: TrainSettings) -> bool:
    resolved = folder.resolved()
    if not resolved.finished:
        return False
    size = settings.batch_size * settings.accumulate
    if settings.steps is not None:
        asked = settings.steps
    elif settings.budget is not None:
        asked = resolved.steps if folder.read()["settings"]["budget"] == settings.budget else resolved.steps + 1
    else:
        asked = steps_for_epochs(settings.epochs or DEFAULT_EPOCHS, resolved.pictures, size, settings.last_batch)
    return asked == resolved.steps


def _result(folder: RunFolder, *, resumed: bool, already_finished: bool = False) -> Result:
    rows = folder.metrics()
    losses = [row["loss"] for row in rows]
    settings, pictures = folder.read()["settings"], folder.resolved().pictures
    size = settings["batch_size"] * settings["accumulate"]
    if settings["last_batch"] == "short":  # an epoch's pictures fill whole steps of their own
        pictures = math.ceil(pictures / size) * size
    starts = [-(-epoch * pictures // size) for epoch in range(len(losses) * size // pictures + 1)]  # the first step that begins in each
    epochs = tuple(mean(losses[first:end]) for first, end in pairwise(starts) if end > first)
    return Result(folder.path, rows[-1]["step"], mean(losses[-100:]), epochs, rows[-1]["seconds"], resumed, already_finished)


def _short(value: float) -> float:
    """Seven digits: all that float32 has."""
    return float(f"{value:.7g}")


def _silent(_: str) -> None:
    """Says nothing: processes other than the first."""
