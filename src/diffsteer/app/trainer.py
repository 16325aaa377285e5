"""The trainings of the page: what is offered, their command lines, and their processes. No Gradio, no torch.

A training is `diffsteer train` (or `finetune`) in a process of its own, which outlives the page and the app; `runs.py` tells how far it is.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from diffsteer import runprocess
from diffsteer.app.desk import Job
from diffsteer.app.runs import NAME, SAYS, Runs
from diffsteer.app.words import Said
from diffsteer.config import DataSettings, PlanSettings, TrainSettings, as_flags, duration, parse_duration, validated
from diffsteer.recipebook import finetune_settings, train_settings
from diffsteer.runfolder import LOG_FILE, RunFolder

UTF8 = ("-X", "utf8")  # Windows' Python would write a log in the code page of the country
BUILT_IN = ("digits", "digits-color")
# How a training may begin, as the page offers it; what is not one of these names a recipe.
PLAN, PLAIN, FINETUNE = "plan", "plain", "finetune"
RECIPES = ("digits", "mnist-fast")
OWN = ("size", "batch_size", "lr", "seed")  # settings that may be given beside those
LEAST_PLANNED = 60.0  # seconds: a shorter budget is over before a plan of it is made


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
class Compared:
    """What `diffsteer compare` made of some runs. page: its compare.md. figure: its compare.png, where there is one. wrong: why not."""

    command: str
    page: str = ""
    figure: str | None = None
    wrong: str = ""


class Trainer:
    """runs: where they are, and data: what may be trained on besides what is built in; both as they were named on the command line, in the
    folder `home`. allowed: whether anything may be started from the page."""

    def __init__(self, runs: str, data: Sequence[str], device: str, home: Path, allowed: bool) -> None:
        self.runs, self.device, self.home, self.allowed = Runs(runs, home), device, home, allowed
        self.data = (*BUILT_IN, *data)
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    # ---- looking -------------------------------------------------------------------------------------------------------

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
            looked = Looked(data, budget, report, str(sheet) if sheet.exists() else None, wrong=_wrong(code, err))
            yield looked
            if not plan or not looked.fit:
                return
            code, out, err = self._run(plan, stopping)
            if code is not None:
                yield Looked(data, budget, report, looked.sheet, _json(out), _wrong(code, err))

        return walk

    def words(self, values: Mapping[str, Any], looked: Looked | None, model: str) -> list[str]:
        """The command line that these values ask for; model: what may be fine-tuned. Raises Said, Mistake."""
        data, budget, name = self._data(values), _budget(values), self._new_name(values)
        start, own = str(values.get("start")), _own(values, TrainSettings)
        length = ["--budget", budget] if budget else []
        device = [] if self.device == "auto" else ["--device", self.device]
        out = ["--out", f"{self.runs.told}/{name}"]
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

    def compared(self, names: Sequence[str], folder: Path) -> Job:
        """A job for the desk: compares runs. Yields `Compared`. Raises Said."""
        if len(names) < 2:
            raise Said("wrong.two_runs")
        words = ["compare", *map(self.runs.place_of, names)]

        def walk(stopping: threading.Event) -> Iterator[Compared]:
            code, _, err = self._run([*words, "--out", str(folder)], stopping)
            command = shlex.join(["diffsteer", *words])
            if code:
                yield Compared(command, wrong=_wrong(code, err))
            elif code == 0:
                text, figure = (folder / "compare.md").read_text(encoding="utf-8"), folder / "compare.png"
                parts = (part for part in text.split("\n\n")[1:] if not part.startswith("!["))  # its title and its figure stand elsewhere
                yield Compared(command, "\n\n".join(parts), str(figure) if figure.exists() else None)

        return walk

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
        self._begin(name, self.runs.words_of(self.runs.run(name)))

    def stop(self, name: str) -> None:
        """Asks a run to save and end; asked a second time, it is ended at once. Raises Said."""
        self._refuse()
        there = runprocess.read(self.runs.run(name).path)
        process = None if there is None else there.process()
        if process is None:
            return
        if name in self.runs.stopping:
            for each in (*process.children(recursive=True), process):
                each.kill()
        else:
            self.runs.stopping.add(name)
            process.terminate()

    def _begin(self, name: str, words: list[str]) -> None:
        with self._lock:
            busy = self.runs.busy()
            if busy is not None:
                raise Said("wrong.training", name=busy)
            folder = self.runs.folder / name
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / LOG_FILE).open("ab") as log:
                log.write(f"$ {shlex.join(['diffsteer', *words])}\n".encode())
                log.flush()
                process = subprocess.Popen(
                    [sys.executable, *UTF8, "-u", "-m", "diffsteer.cli", *words], cwd=self.home, stdin=subprocess.DEVNULL, stdout=log,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            runprocess.claim(folder, process.pid)
            if name in self._started:
                self._started[name].wait()  # it has ended, as this run is not busy
            runprocess.make_way(process.pid)
            self._started[name] = process
            self.runs.stopping.discard(name)

    def _run(self, words: list[str], stopping: threading.Event) -> tuple[int | None, str, str]:
        """Exit code, output and errors of a command; no code where it was stopped."""
        process = subprocess.Popen(
            [sys.executable, *UTF8, "-m", "diffsteer.cli", *words], cwd=self.home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
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
        if RunFolder(self.runs.folder / name).exists:
            raise Said("wrong.taken", name=name)
        return name

    def free_name(self, data: str) -> str:
        """A name for a run on this data that no run has."""
        stem = re.sub(r"[^\w.-]+", "-", Path(data).stem).strip("-.")[:40] or "run"
        names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
        return next(name for name in names if not RunFolder(self.runs.folder / name).exists)


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


def _wrong(code: int, err: str) -> str:
    """What a command said went wrong; empty for one that ended well."""
    last = (err.strip().splitlines() or [f"It ended with {code} and said nothing; perhaps memory ran out."])[-1]
    return last.removeprefix(SAYS) if code else ""
