"""The story of one `diffsteer evaluate`: a model's pictures scored by a judge, and what a steer gained beside what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diffsteer.config import EvaluateSettings, JudgeSettings
from diffsteer.data import pixels
from diffsteer.data.batch import Pictures
from diffsteer.data.images import load_pictures
from diffsteer.device import find_device
from diffsteer.diffusion.denoiser import Denoiser
from diffsteer.diffusion.judge import Judge, check_place, is_judge, load_judge, save_judge
from diffsteer.errors import Mistake
from diffsteer.evaluation.copies import FEWEST, Copies, copies_sheet, find_copies
from diffsteer.evaluation.cost import Cost, measured
from diffsteer.evaluation.features import judge_labels
from diffsteer.evaluation.inception import inception_extractor
from diffsteer.evaluation.report import Scores, table, write_report
from diffsteer.evaluation.scorecard import confusion_figure, worst_pictures
from diffsteer.evaluation.search import best_factor
from diffsteer.judging import (
    FIRST,
    TOLD_BY,
    Say,
    ids_judged,
    kept_judge,
    labels_left,
    labels_scored,
    new_judge,
    scored_jobs,
    scorer,
    shown_training,
)
from diffsteer.order import canvas_of, how_of, load_guide, read_words
from diffsteer.progress import beside_bars, roughly, steps_bar
from diffsteer.runfolder import RunFolder
from diffsteer.sampling.draw import Drawn, How, Job, draw
from diffsteer.sampling.folder import load_model
from diffsteer.steering.classifiers import EACH, asked_ids, class_names
from diffsteer.steering.gradient import Steer
from diffsteer.steering.losses import build, distinct
from diffsteer.steering.words import Words

UNSTEERED = "unsteered"
SHOWN, LONGEST_TITLE = 64, 48  # pictures of a row's grid, and letters over it
TRIED = 64  # pictures of one trial of a search
TRIED_FROM = 1_000_000  # its seeds are not those that are scored


@dataclass(frozen=True)
class Row:
    """One way of drawing, scored. strength: the factor that a search found, 1 without one."""

    name: str
    scores: Scores
    cost: Cost
    strength: float = 1.0

    def cells(self) -> dict[str, object]:
        """The row of a table."""
        found = {} if self.strength == 1 else {"strength": f"x{self.strength:g}"}
        each = self.cost.seconds / self.scores.count
        return self.scores.row(self.name, **found, **{"ms a picture": round(1000 * each), "MiB": round(self.cost.peak_bytes / 2**20)})

    def to_dict(self) -> dict[str, Any]:
        cost = {"seconds": self.cost.seconds, "peak_bytes": self.cost.peak_bytes}
        return {"name": self.name, "strength": self.strength, **cost, **self.scores.to_dict()}


@dataclass(frozen=True)
class Evaluation:
    """All rows, the unsteered one first, and how they were drawn. copies: among the unsteered ones, where there are enough to tell.

    step: that the run had come to, None for a model without its run, of which nobody knows what it learnt from.
    """

    model: str
    rows: tuple[Row, ...]
    how: How
    copies: Copies | None
    out: Path | None
    step: int | None

    def to_dict(self) -> dict[str, Any]:
        copies = None if self.copies is None else self.copies.to_dict()
        return {
            "model": self.model,
            "step": self.step,
            **self.how.as_dict(),
            "rows": [row.to_dict() for row in self.rows],
            "copies": copies,
        }

    def lines(self) -> list[str]:
        """For people: the scores in sentences, or a table where several ways are compared."""
        copies = [] if self.copies is None else self.copies.lines()
        if copies and self.step is None:
            copies.append("Whether the model learnt from just these pictures is not known: its run is not here. If not, this says little.")
        if len(self.rows) == 1:
            return [*self.rows[0].scores.lines(), *copies]
        return [table([row.cells() for row in self.rows]), "", *self.rows[0].scores.basis_lines(), *copies]


def evaluate(model: str, data: str, settings: EvaluateSettings, out: Path | None = None, say: Say = lambda line: None) -> Evaluation:
    """Draws, scores, and writes scores.json, scores.md and a grid a row into `out`. Raises Mistake."""
    if out is not None and out.is_file():
        raise Mistake(f"{out} is a file; give --out a folder.")
    device = find_device(settings.device)
    denoiser = load_model(model, settings.precision, device)
    how = how_of(settings).resolved(denoiser.spec)
    pictures = _pictures(data, settings, denoiser)
    ways = _ways(settings, denoiser, device)
    extractor = None if settings.extractor == "judge" else inception_extractor(Path(settings.extractor), device)
    judge = None
    if extractor is None or len(pictures.label_names) > 1 or settings.judge or settings.asked or settings.search:
        judge = _judge(settings, pictures, ways, out, device, say)
    asked = _asked(settings, denoiser, judge, ways)
    if settings.search and asked([Job(None, 0)]) is None:
        raise Mistake("--search goes by what the judge reads, so say what the steers ask for: --asked LABEL.")
    guide = None if settings.autoguidance is None else load_guide(settings.autoguidance[0], denoiser, device)
    labels = labels_scored(denoiser.spec, pictures)
    for line in labels_left(denoiser.spec, pictures):
        say(line)
    studio = _Studio(denoiser, labels, how, guide, judge, settings.batch_size, device, say)
    ids = asked(scored_jobs(labels, settings.count))
    scores_of = scorer(pictures, extractor, judge, ids, count=settings.count, split=settings.split, say=say)
    run = _run_of(model)
    rows, copies, learnt = [], None, run is None or run.resolved().data_fingerprint == pictures.fingerprint
    if not learnt:
        say(f"copies   not looked for: these are not the pictures that {model} learnt from, or not as it read them")
    for name, words in ways:
        steers = distinct([build(word, canvas_of(denoiser.spec, device)) for word in words])
        factor = studio.search(steers, asked) if settings.search and steers else 1.0
        drawn, cost = studio.drawn(name, _times(steers, factor), settings.count)
        say(f"drawn    {name}: {cost.seconds:.0f} s")
        rows.append(Row(name, scores_of(drawn), cost, factor))
        if out is not None:
            _draw_row(out / f"{len(rows) - 1:02d}", rows[-1], drawn, ids, judge)
        if not words and learnt and min(settings.count, pictures.count) >= FEWEST:
            copies = find_copies(drawn, pictures, judge, flip=run is not None and bool(run.read()["settings"].get("flip")))
            if out is not None:
                pixels.write_png(copies_sheet(copies, drawn, pictures), out / "copies.png")
    evaluation = Evaluation(model, tuple(rows), how, copies, out, None if run is None else len(run.metrics()))
    if out is not None:
        write_report(out, evaluation.to_dict(), evaluation.lines(), rows[0].scores if len(rows) == 1 else None)
    return evaluation


def outlook(model: str, data: str, settings: EvaluateSettings) -> list[str]:
    """What would be drawn and who would judge it, without drawing. Raises Mistake."""
    device = find_device(settings.device)
    denoiser = load_model(model, settings.precision, device)
    how, pictures, ways = how_of(settings).resolved(denoiser.spec), _pictures(data, settings, denoiser), _ways(settings, denoiser, device)
    guidance = f", label guidance {how.guidance_scale:g}" if how.guidance_scale != 1 else ""
    return [
        f"data     {pictures.source}: {pictures.count} pictures, {len(pictures.label_names)} classes",
        *labels_left(denoiser.spec, pictures),
        f"rows     {', '.join(name for name, _ in ways)}: {settings.count:,} pictures each, {how.solver}, {how.steps} steps{guidance}",
        f"judge    {settings.judge or f'one that is trained on {data}'}",
    ]


def _draw_row(start: Path, row: Row, drawn: torch.Tensor, ids: torch.Tensor | None, judge: Judge | None) -> None:
    """A row's grid, and where classes were asked the confusion matrix and the worst pictures: START.png, START-confusion.png and so on."""
    title = row.name if len(row.name) <= LONGEST_TITLE else f"{row.name[:LONGEST_TITLE]}…"
    pixels.write_png(pixels.grid(drawn[:SHOWN], columns=8, title=title), start.with_suffix(".png"))
    if ids is None or judge is None or row.scores.accuracy is None:
        return
    names = judge.spec.label_names
    pixels.write_png(confusion_figure(row.scores.accuracy, names), start.with_name(f"{start.name}-confusion.png"))
    pixels.write_png(worst_pictures(drawn, ids, judge_labels(judge, drawn)[1], names), start.with_name(f"{start.name}-worst.png"))


def _run_of(model: str) -> RunFolder | None:
    """The run that MODEL is, or whose model folder it is."""
    path = Path(model).expanduser()
    here, above = RunFolder(path), RunFolder(path.resolve().parent)
    return here if here.exists else above if above.exists and above.model == path.resolve() else None


def make_judge(data: str, settings: JudgeSettings, out: Path) -> Judge:
    """Trains a judge on labelled pictures and writes its folder. Raises Mistake."""
    check_place(out)
    device = find_device(settings.device)
    if settings.through and settings.noise_aware:
        raise Mistake("--noise-aware learns noisy pictures, --through what a model makes of them; give one of the two.")
    through = None if settings.through is None else load_model(settings.through, "fp32", device)
    options = settings.model_dump(include={"size", "image_column", "label_column", "split", "background", "skip_broken"})
    if through is not None:
        options["size"] = (through.spec.height, through.spec.width)
    pictures = load_pictures(data, need_labels=True, **options)
    if through is not None:
        _same_channels(data, pictures, through)
    judge = shown_training(
        pictures,
        architecture=settings.architecture,
        seed=settings.seed,
        seconds=settings.budget,
        noise_aware=settings.noise_aware,
        through=through,
        through_name=settings.through or "",
        device=device,
    )
    save_judge(out, judge)
    return judge


@dataclass(frozen=True)
class _Studio:
    """What does not change from row to row."""

    denoiser: Denoiser
    labels: dict[int, int]
    how: How
    guide: Denoiser | None
    judge: Judge | None
    batch: int
    device: str
    say: Say

    def drawn(self, name: str, steers: Sequence[Steer], count: int) -> tuple[torch.Tensor, Cost]:
        """Pictures uint8 [count, C, H, W], and what they cost; says how long it will take once that is known."""
        jobs = scored_jobs(self.labels, count)
        batches = [jobs[:FIRST], *(jobs[at : at + self.batch] for at in range(FIRST, count, self.batch))]
        with steps_bar(len(batches) * int(self.how.steps or 1), name) as watch:
            return measured(lambda: torch.cat(list(self._batches(name, batches, steers, watch))), self.device)

    def _batches(
        self, name: str, batches: Sequence[Sequence[Job]], steers: Sequence[Steer], watch: Callable[[int], None]
    ) -> Iterator[torch.Tensor]:
        told = False
        for done, jobs in enumerate(batches, 1):
            started = time.perf_counter()
            yield self.draw(jobs, steers, watch).pictures
            seconds = time.perf_counter() - started
            left = sum(map(len, batches[done:]))
            if left and not told and (done > 1 or seconds > TOLD_BY):
                beside_bars(self.say, f"drawing  {name}: {left:,} more pictures, about {roughly(left / len(jobs) * seconds)}")
                told = True

    def search(self, steers: Sequence[Steer], asked: _Asked) -> float:
        """The factor of the strengths at which the judge finds what was asked most likely, in the mean of its logarithm."""
        jobs = scored_jobs(self.labels, TRIED, TRIED_FROM)
        ids, judge = asked(jobs), self.judge
        assert ids is not None and judge is not None

        def merit(factor: float) -> float:
            _, shares = judge_labels(judge, self.draw(jobs, _times(steers, factor)).pictures)
            return float(shares[torch.arange(len(ids)), ids].clamp_min(1e-3).log().mean())

        return best_factor(merit)

    def draw(self, jobs: Sequence[Job], steers: Sequence[Steer], watch: Callable[[int], None] | None = None) -> Drawn:
        return draw(self.denoiser, jobs, self.how, steers=steers, guide=self.guide, device=self.device, batch=self.batch, watch=watch)


_Asked = Callable[[Sequence[Job]], "torch.Tensor | None"]


def _times(steers: Sequence[Steer], factor: float) -> list[Steer]:
    return [replace(steer, strength=factor * steer.strength) for steer in steers]


def _ways(settings: EvaluateSettings, denoiser: Denoiser, device: str) -> list[tuple[str, list[Words]]]:
    """(name, steers) of each row. A steer that cannot be is said before anything is drawn."""
    together = [word for text in settings.steer for word in read_words(text)]
    ways = [(UNSTEERED, []), *([(" + ".join(settings.steer), together)] if together else [])]
    ways += [(text, read_words(text)) for text in settings.versus]
    for _, words in ways:
        for word in words:
            build(word, canvas_of(denoiser.spec, device))
    return ways


def _pictures(data: str, settings: EvaluateSettings, denoiser: Denoiser) -> Pictures:
    """The data at the model's size. Mistake where it has other channels."""
    spec = denoiser.spec
    options = settings.model_dump(include={"image_column", "label_column", "split", "background", "skip_broken"})
    real = load_pictures(data, size=(spec.height, spec.width), **options)
    _same_channels(data, real, denoiser)
    return real


def _same_channels(data: str, real: Pictures, denoiser: Denoiser) -> None:
    words, drawn = {1: "grey", 3: "colour"}, denoiser.spec.channels
    if real.channels != drawn:
        raise Mistake(f"{data} is in {words[real.channels]}, and the model draws in {words[drawn]}; give the data it was trained on.")


def _judge(
    settings: EvaluateSettings, real: Pictures, ways: Sequence[tuple[str, list[Words]]], out: Path | None, device: str, say: Say
) -> Judge:
    """The judge that scores: never one that steers."""
    steering = [Path(str(word.value)).expanduser() for _, words in ways for word in words if word.name == "classifier"]
    steering = [folder.resolve() for folder in steering if is_judge(folder)]
    if settings.judge is not None:
        if Path(settings.judge).expanduser().resolve() in steering:
            raise Mistake(f"--judge {settings.judge} steers, so it may not judge; leave --judge out and another is trained.")
        return load_judge(settings.judge).to(device)
    used = {load_judge(folder).spec.architecture for folder in steering}
    architecture = "patches" if "plain" in used else "plain"
    kept = None if out is None or (out / "judge").resolve() in steering else out / "judge"
    if (judge := kept_judge(kept, real, architecture)) is not None:
        return judge.to(device)
    judge = new_judge(real, architecture, say, device=device)
    if kept is not None:
        save_judge(kept, judge)
    return judge


def _asked(settings: EvaluateSettings, denoiser: Denoiser, judge: Judge | None, ways: Sequence[tuple[str, list[Words]]]) -> _Asked:
    """Jobs -> the class that each is asked for, as the judge numbers classes: by the steers, else by the model's own labels."""
    if judge is None:
        return lambda jobs: None
    names = judge.spec.label_names
    if settings.asked is not None:
        turn = _in_turn(names, settings.asked)
    else:
        steers = [word for _, words in ways for word in words if word.name == "classifier"]
        asked = {_in_turn(class_names(str(steer.value)), str(steer.options["label"])) for steer in steers}
        if len(asked) > 1:
            each = sorted(turn[0] if len(turn) == 1 else f"each of {', '.join(turn[:8])}" for turn in asked)
            raise Mistake(f"The steers ask for {', '.join(each)}; say by --asked which of them is scored.")
        turn = next(iter(asked), ())
    if not turn:
        return lambda jobs: ids_judged(denoiser.spec, jobs, judge)
    if unknown := [name for name in turn if name not in names]:
        raise Mistake(
            f"The judge does not know {unknown[0]}, which the steer asks for; it knows {', '.join(names[:8])}. --asked says which of those "
            "is scored."
        )
    return lambda jobs: torch.tensor([names.index(turn[job.seed % len(turn)]) for job in jobs])


def _in_turn(names: tuple[str, ...], label: str) -> tuple[str, ...]:
    """The names of the classes that a label asks for, seed by seed: all of them in turn, or one."""
    return names if label == EACH else (names[int(asked_ids(names, label, [0]))],)
