"""The trainings of the page: what is offered, their command lines and processes, and how far each run is. No Gradio, no torch.

A training is `diffsteer train` (or `finetune`) in a process of its own, which outlives the page and the app. What is shown of it is read
from its run folder, so a run that was started at the command line is shown alike.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from diffsteer import runprocess
from diffsteer.app.desk import Job
from diffsteer.app.words import Said
from diffsteer.config import DataSettings, PlanSettings, TrainSettings, as_flags, duration, parse_duration, settings_kind, validated
from diffsteer.errors import Mistake
from diffsteer.recipebook import finetune_settings, train_settings
from diffsteer.runfolder import LOG_FILE, Resolved, RunFolder

BUILT_IN = ("digits", "digits-color")
# How a training may begin, as the page offers it; what is not one of these names a recipe.
PLAN, PLAIN, FINETUNE = "plan", "plain", "finetune"
RECIPES = ("digits", "mnist-fast")
OWN = ("size", "batch_size", "lr", "seed")  # settings that may be given beside those
LEAST_PLANNED = 60.0  # seconds: a shorter budget is over before a plan of it is made
NAME = re.compile(r"[a-zA-Z0-9][\w.-]{0,63}")
POINTS = 400  # of a curve
TAIL, LINES = 16_384, 30  # bytes and lines of a log that are shown
NICER = 10  # so that drawing goes on beside a training

STARTING, RUNNING, STOPPING, FINISHED, STOPPED, FAILED, LOST = "starting", "running", "stopping", "finished", "stopped", "failed", "lost"
ALIVE = (STARTING, RUNNING, STOPPING)


@dataclass(frozen=True)
class Looked:
    """What was found out before a training. report: as `diffsteer check --json` has it. sheet: its picture. plan: as `diffsteer plan
    --json` has it; None where none was asked for. wrong: why one of them could not be made."""

    data: str
    budget: str = ""
    report: Mapping[str, Any] | None = None
    sheet: str | None = None
    plan: Mapping[str, Any] | None = None
    wrong: str = ""

    @property
    def fit(self) -> bool:
        """Whether the data can be trained on."""
        return self.report is not None and bool(self.report["ok"])


@dataclass(frozen=True)
class Card:
    """How far a run is. left: seconds, None where that is not known. curve: (step, mean loss there). previews: (step, file), oldest first.
    why: its error. tail: the end of its log. command: what starts or resumes it."""

    name: str
    state: str
    step: int = 0
    steps: int = 0
    loss: float | None = None
    seconds: float = 0.0
    left: float | None = None
    curve: tuple[tuple[int, float], ...] = ()
    previews: tuple[tuple[int, Path], ...] = ()
    why: str = ""
    tail: str = ""
    command: str = ""
    has_model: bool = False
    resumes: bool = False


@dataclass(frozen=True)
class Compared:
    """What `diffsteer compare` made of some runs. page: its compare.md. figure: its compare.png, where there is one. wrong: why not."""

    command: str
    page: str = ""
    figure: str | None = None
    wrong: str = ""


@dataclass
class _Rows:
    """metrics.jsonl, of which only what is new is read at each look."""

    file: Path
    offset: int = 0
    inode: int = 0
    rows: list[tuple[int, float, float]] = field(default_factory=list)  # step, loss, seconds

    def read(self) -> list[tuple[int, float, float]]:
        try:
            found = self.file.stat()
        except OSError:
            return []
        if found.st_ino != self.inode or found.st_size < self.offset:  # a resumed run has written it anew
            self.offset, self.inode, self.rows = 0, found.st_ino, []
        with self.file.open("rb") as opened:
            opened.seek(self.offset)
            whole = opened.read().rpartition(b"\n")[0]
        if whole:
            self.offset += len(whole) + 1
            for line in map(json.loads, whole.splitlines()):
                self.rows.append((line["step"], line["loss"], line["seconds"]))
        return self.rows


class Trainer:
    """runs: the folder of run folders. data: what may be trained on, besides what is built in. Both as they were named on the command line,
    in the folder `home`. allowed: whether anything may be started from the page."""

    def __init__(self, runs: str, data: Sequence[str], device: str, home: Path, allowed: bool) -> None:
        self.runs, self.device, self.home, self.allowed = runs, device, home, allowed
        self.data = (*BUILT_IN, *data)
        self.folder = home / runs
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping: set[str] = set()
        self._rows: dict[str, _Rows] = {}
        self._lock = threading.Lock()

    # ---- before --------------------------------------------------------------------------------------------------------

    def look(self, values: Mapping[str, Any], folder: Path) -> Job:
        """A job for the desk: reads the data and, where one is asked for, makes a plan. Yields `Looked`. Raises Said, Mistake."""
        self._refuse()
        data, budget = self._data(values), _budget(values)
        options = _own(values, DataSettings)
        validated(DataSettings, options, "the settings")
        check = ["check", data, *_flags(options), "--out", str(folder), "--json"]
        planned = values.get("start") == PLAN and bool(budget) and (parse_duration(budget) or 0) >= LEAST_PLANNED
        device = [] if self.device == "auto" else ["--device", self.device]
        plan = ["plan", data, *_flags(_own(values, PlanSettings)), *device, "--budget", budget, "--json"] if planned else []

        def walk(stopping: threading.Event) -> Iterator[Looked]:
            code, out, err = self._run(check, stopping)
            if code is None:
                return
            report = _json(out)
            sheet = folder / "sheet.png"
            looked = Looked(data, budget, report, str(sheet) if sheet.exists() else None, wrong=_sentence(err) if code else "")
            yield looked
            if not plan or not looked.fit:
                return
            code, out, err = self._run(plan, stopping)
            if code is not None:
                yield Looked(data, budget, report, looked.sheet, _json(out), _sentence(err) if code else "")

        return walk

    def words(self, values: Mapping[str, Any], looked: Looked | None, model: str) -> list[str]:
        """The command line that these values ask for; model: what may be fine-tuned. Raises Said, Mistake."""
        data, budget, name = self._data(values), _budget(values), self._new_name(values)
        start, own = str(values.get("start")), _own(values, TrainSettings)
        length = ["--budget", budget] if budget else []
        device = [] if self.device == "auto" else ["--device", self.device]
        out = ["--out", f"{self.runs}/{name}"]
        given = {**own, **({"budget": budget} if budget else {}), "data": data}
        if start == FINETUNE:
            finetune_settings(None, {**given, "model": model})
            return ["finetune", model, data, *_flags(own), *device, *length, *out]
        if start in RECIPES:
            train_settings(start, given)
            return ["train", data, "--recipe", start, *_flags(own), *device, *length, *out]
        if start not in (PLAN, PLAIN):
            raise Said("wrong.unknown")
        plan = looked.plan if looked is not None and looked.data == data and looked.budget == budget and start == PLAN else None
        if plan is None:
            train_settings(None, given)
            return ["train", data, *_flags(own), *device, *length, *out]
        proposed: TrainSettings = validated(TrainSettings, {**plan["settings"], **own, "data": data, "budget": None}, "the plan")
        return ["train", *as_flags(proposed), *length, *out]

    # ---- processes -----------------------------------------------------------------------------------------------------

    def start(self, values: Mapping[str, Any], looked: Looked | None, model: str) -> str:
        """Starts a training; its run's name. Raises Said, Mistake."""
        self._refuse()
        words = self.words(values, looked, model)
        name = Path(words[-1]).name
        self._begin(name, words)
        return name

    def resume(self, name: str) -> None:
        """Goes on with a run that was stopped or broke off. Raises Said, Mistake."""
        self._refuse()
        self._begin(name, self._words_of(self._run_folder(name)))

    def stop(self, name: str) -> None:
        """Asks a run to save and end; asked a second time, it is ended at once. Raises Said."""
        self._refuse()
        there = runprocess.read(self._run_folder(name).path)
        process = None if there is None else there.process()
        if process is None:
            return
        if name in self._stopping:
            for each in (*process.children(recursive=True), process):
                each.kill()
        else:
            self._stopping.add(name)
            process.terminate()

    def _begin(self, name: str, words: list[str]) -> None:
        with self._lock:
            busy = self.busy()
            if busy is not None:
                raise Said("wrong.training", name=busy)
            folder = self.folder / name
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / LOG_FILE).open("ab") as log:
                log.write(f"$ {shlex.join(['diffsteer', *words])}\n".encode())
                log.flush()
                process = subprocess.Popen(
                    [sys.executable, "-u", "-m", "diffsteer.cli", *words], cwd=self.home, stdin=subprocess.DEVNULL, stdout=log,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            runprocess.claim(folder, process.pid)
            if name in self._started:
                self._started[name].wait()  # it has ended, as this run is not busy
            psutil.Process(process.pid).nice(NICER if os.name == "posix" else psutil.BELOW_NORMAL_PRIORITY_CLASS)
            self._started[name] = process
            self._stopping.discard(name)

    def _run(self, words: list[str], stopping: threading.Event) -> tuple[int | None, str, str]:
        """Exit code, output and errors of a command; no code where it was stopped."""
        process = subprocess.Popen(
            [sys.executable, "-m", "diffsteer.cli", *words], cwd=self.home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, encoding="utf-8",
        )  # fmt: skip
        while True:
            try:
                out, err = process.communicate(timeout=0.2)
                return process.returncode, out, err
            except subprocess.TimeoutExpired:
                if stopping.is_set():
                    process.kill()
                    process.communicate()
                    return None, "", ""

    # ---- how far it is -------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The runs, newest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]
        runs = [path for path in found if (path / "settings.yaml").is_file() or (path / LOG_FILE).is_file()]
        return [path.name for path in sorted(runs, key=_age, reverse=True)]

    def busy(self) -> str | None:
        """The run that is being trained."""
        return next((name for name in self.names() if self._state(RunFolder(self.folder / name), None)[0] in ALIVE), None)

    def card(self, name: str) -> Card:
        """How far a run is. Raises Said for one that is not there."""
        run = self._run_folder(name)
        resolved = _resolved(run)
        state, why = self._state(run, resolved)
        rows = self._rows.setdefault(name, _Rows(run.metrics_file)).read()
        step, loss, seconds = rows[-1] if rows else (0, None, 0.0)
        steps = 0 if resolved is None else resolved.steps
        return Card(
            name, state, step, steps, loss, seconds,
            left=seconds / step * (steps - step) if step and state == RUNNING else None,
            curve=_thinned(rows),
            previews=tuple((int(path.stem.removeprefix("step-")), path) for path in sorted(run.previews.glob("step-*.png"))),
            why=why,
            tail=_tail(run.path / LOG_FILE),
            command=self._command(run),
            has_model=(run.model / "model_index.json").is_file(),
            resumes=resolved is not None and state not in (*ALIVE, FINISHED),
        )  # fmt: skip

    def copied(self, picture: Path, place: Path) -> str:
        """A copy of a run's picture in a folder that the page serves; that of a resumed run may be another one of the same name."""
        copy = place / f"{picture.parent.parent.name}-{picture.stem}-{picture.stat().st_mtime_ns}.png"
        if not copy.exists():
            shutil.copyfile(picture, copy)
        return str(copy)

    def compared(self, names: Sequence[str], folder: Path) -> Job:
        """A job for the desk: compares runs. Yields `Compared`. Raises Said."""
        if len(names) < 2:
            raise Said("wrong.two_runs")
        words = ["compare", *map(self.place_of, names)]

        def walk(stopping: threading.Event) -> Iterator[Compared]:
            code, _, err = self._run([*words, "--out", str(folder)], stopping)
            command = shlex.join(["diffsteer", *words])
            if code:
                yield Compared(command, wrong=_sentence(err))
            elif code == 0:
                text, figure = (folder / "compare.md").read_text(encoding="utf-8"), folder / "compare.png"
                parts = (part for part in text.split("\n\n")[1:] if not part.startswith("!["))  # its title and its figure stand elsewhere
                yield Compared(command, "\n\n".join(parts), str(figure) if figure.exists() else None)

        return walk

    def place_of(self, name: str) -> str:
        """The run as a command line names it. Raises Said."""
        self._run_folder(name)
        return f"{self.runs}/{name}"

    def _state(self, run: RunFolder, resolved: Resolved | None) -> tuple[str, str]:
        """The state of a run and, where it failed, why."""
        self._reap(run.path.name)
        there = runprocess.read(run.path)
        if there is not None and there.alive:
            return (STOPPING if run.path.name in self._stopping else RUNNING if run.exists else STARTING), ""
        if there is not None and there.how == runprocess.FAILED:
            return FAILED, there.why
        resolved = resolved or _resolved(run)
        if resolved is not None and resolved.finished:
            return FINISHED, ""
        if there is not None and not there.how:
            last = (_tail(run.path / LOG_FILE).splitlines() or [""])[-1]
            return LOST, "" if last.startswith("$ ") else last
        return STOPPED, ""

    def _reap(self, name: str) -> None:
        started = self._started.get(name)
        if started is not None and started.poll() is not None:
            del self._started[name]
            self._stopping.discard(name)

    def _run_folder(self, name: object) -> RunFolder:
        if not isinstance(name, str) or name not in self.names():
            raise Said("wrong.run")
        return RunFolder(self.folder / name)

    def _command(self, run: RunFolder) -> str:
        """What starts this run, or goes on with it."""
        first = next(iter(_tail(run.path / LOG_FILE, first=True).splitlines()), "")
        if first.startswith("$ "):
            return first[2:]
        return shlex.join(["diffsteer", *self._words_of(run)]) if run.exists else ""

    def _words_of(self, run: RunFolder) -> list[str]:
        """The command line that goes on with a run. Raises Said, Mistake."""
        if not run.exists:
            raise Said("wrong.not_begun")
        saved = run.read()["settings"]
        kind = settings_kind(saved)
        settings: TrainSettings = validated(kind, {key: saved[key] for key in kind.model_fields if key in saved}, str(run.settings_file))
        length = [] if settings.budget is None else ["--budget", duration(settings.budget)]
        flags = as_flags(settings.model_copy(update={"budget": None}))
        return [settings.command, *flags, *length, "--out", f"{self.runs}/{run.path.name}"]

    # ---- what the page may ask for ---------------------------------------------------------------------------------------

    def _refuse(self) -> None:
        if not self.allowed:
            raise Said("train.off")

    def _data(self, values: Mapping[str, Any]) -> str:
        if values.get("data") not in self.data:
            raise Said("wrong.unknown")
        return str(values["data"])

    def _new_name(self, values: Mapping[str, Any]) -> str:
        name = str(values.get("name") or "").strip() or self.free_name(self._data(values))
        if not NAME.fullmatch(name):
            raise Said("wrong.name")
        if RunFolder(self.folder / name).exists:
            raise Said("wrong.taken", name=name)
        return name

    def free_name(self, data: str) -> str:
        """A name for a run on this data that no run has."""
        stem = re.sub(r"[^\w.-]+", "-", Path(data).stem).strip("-.")[:40] or "run"
        names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
        return next(name for name in names if not RunFolder(self.folder / name).exists)


def _budget(values: Mapping[str, Any]) -> str:
    """The time that was asked for, as the command line has it; empty for the run's own length. Raises Said."""
    given = str(values.get("budget") or "").strip()
    try:
        seconds = parse_duration(given) if given else None
    except ValueError:
        raise Said("wrong.time") from None
    return "" if seconds is None else duration(seconds)


def _own(values: Mapping[str, Any], kind: type[DataSettings]) -> dict[str, Any]:
    """The settings of the fold More that were given and that this command knows."""
    return {key: values[key] for key in OWN if key in kind.model_fields and values.get(key) not in (None, "")}


def _flags(given: Mapping[str, Any]) -> list[str]:
    return [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", f"{value}")]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _sentence(err: str) -> str:
    """What a command said went wrong."""
    return (err.strip().splitlines() or [""])[-1].removeprefix("diffsteer: ")


def _resolved(run: RunFolder) -> Resolved | None:
    try:
        return run.resolved()
    except (Mistake, OSError, KeyError, TypeError):
        return None


def _age(run: Path) -> float:
    return max(path.stat().st_mtime for path in (run, run / "settings.yaml", run / LOG_FILE) if path.exists())


def _thinned(rows: Sequence[tuple[int, float, float]]) -> tuple[tuple[int, float], ...]:
    """At most POINTS of a curve, each the mean of so many losses in a row."""
    size = max(1, -(-len(rows) // POINTS))
    groups = (rows[first : first + size] for first in range(0, len(rows), size))
    return tuple((group[-1][0], sum(loss for _, loss, _ in group) / len(group)) for group in groups)


def _tail(file: Path, first: bool = False) -> str:
    """The last lines of a log (or its first), without what was drawn over."""
    try:
        with file.open("rb") as opened:
            if not first:
                opened.seek(max(0, file.stat().st_size - TAIL))
            text = opened.read(TAIL).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join(line for line in (lines[:1] if first else lines[-LINES:]) if line.strip())
