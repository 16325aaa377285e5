"""The run folder: settings.yaml, metrics.jsonl, scores.jsonl, previews/, figures/, checkpoints/, model/. Who writes what, whole or not at
all. Loads no torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from diffsteer.config import RESUME_MAY_CHANGE, TrainSettings, differing, settings_kind, validated
from diffsteer.data.whole import whole_file
from diffsteer.errors import Mistake
from diffsteer.runprocess import PROCESS_FILE

LOG_FILE = "log.txt"  # what a run said that was started from the web page


@dataclass(frozen=True)
class Resolved:
    """What was decided when the run began, besides the settings: it makes a run with a budget a run of so many steps."""

    steps: int
    preview_every: int
    checkpoint_every: int
    data_fingerprint: str
    pictures: int
    label_names: tuple[str, ...]
    lr_schedule: str
    streamed: bool
    finished: bool = False


class RunFolder:
    """A run folder at `path`, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings_file, self.metrics_file = path / "settings.yaml", path / "metrics.jsonl"
        self.scores_file, self.judge = path / "scores.jsonl", path / "scores" / "judge"
        self.previews, self.figures, self.model = path / "previews", path / "figures", path / "model"

    @property
    def exists(self) -> bool:
        return self.settings_file.is_file()

    def refuse_strangers(self) -> None:
        """Mistake if the place is taken by something that is no run folder."""
        if self.path.is_file():
            raise Mistake(f"{self.path} is a file; --out must be a folder, new or of an earlier run.")
        if not self.exists and self.path.is_dir() and any(map(_strange, self.path.iterdir())):
            raise Mistake(f"{self.path} holds something else than a run; give --out a new folder.")

    def refuse_other_settings(self, settings: TrainSettings) -> None:
        """Mistake that names the settings which differ from this run's and would change its numbers."""
        defaults = {name: field.get_default() for name, field in type(settings).model_fields.items()}
        read = self.read()["settings"]
        command = settings_kind(read).command
        if command != settings.command:
            raise Mistake(f"{self.path} was begun by diffsteer {command}; go on with that, or give another --out.")
        saved = {**defaults, **read}  # an older run knows nothing of settings that came later
        if saved.get("base_weights") != getattr(settings, "base_weights", None):
            raise Mistake(f"The weights of {read['model']} are not those that {self.path} was begun with. Give another --out.")
        names = differing(saved, settings.model_dump(mode="json"), RESUME_MAY_CHANGE)
        if names:
            said = ", ".join(f"--{name.replace('_', '-')} (there {saved.get(name)}, now {getattr(settings, name)})" for name in names)
            raise Mistake(f"{self.path} was begun with other settings: {said}. Give the same ones to go on, or another --out.")

    def write(self, settings: TrainSettings, resolved: Resolved) -> None:
        values = {**asdict(resolved), "label_names": list(resolved.label_names)}
        whole = {"settings": settings.model_dump(mode="json"), "resolved": values}
        with whole_file(self.settings_file) as part:
            part.write_text(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), encoding="utf-8")

    def read(self) -> dict[str, Any]:
        """What `write` wrote. Mistake where settings.yaml is somebody else's."""
        try:
            values = yaml.safe_load(self.settings_file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            values = None
        if not isinstance(values, dict) or not {"settings", "resolved"} <= set(values):
            raise Mistake(f"{self.settings_file} is not of a diffsteer run; give --out a new folder.")
        return values

    def resolved(self) -> Resolved:
        values = self.read()["resolved"]
        return Resolved(**{**values, "label_names": tuple(values["label_names"])})

    def told(self) -> tuple[TrainSettings, Resolved]:
        """Its settings, as far as they are known here, and what was decided. Mistake where settings.yaml is somebody else's."""
        try:
            saved, resolved = self.read()["settings"], self.resolved()
            kind = settings_kind(saved)
            known = {key: value for key, value in saved.items() if key in kind.model_fields}
        except (Mistake, KeyError, TypeError, AttributeError):
            raise Mistake(f"{self.settings_file} is not of a diffsteer run.") from None
        return validated(kind, known, str(self.settings_file)), resolved

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step is, or will be."""
        return self.path / "checkpoints" / f"step-{step:08d}"

    def checkpoints(self) -> list[Path]:
        """Those that are there, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*"))

    def newest_checkpoint(self) -> Path | None:
        found = self.checkpoints()
        return found[-1] if found else None

    def prune(self, keep: int) -> None:
        """Deletes all checkpoints but the newest `keep`, and what a killed save left behind."""
        for folder in [*self.checkpoints()[:-keep], *(self.path / "checkpoints").glob(".step-*.part")]:
            shutil.rmtree(folder, ignore_errors=True)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a half-written last line, left by a kill, is no line."""
        return _lines(self.metrics_file)

    def scores(self) -> list[dict[str, Any]]:
        """The lines of scores.jsonl, in the same way."""
        return _lines(self.scores_file)

    def sweep(self) -> None:
        """Removes what a killed process left half-written."""
        for left in [*self.path.glob(".*.part*"), *self.path.glob("*/.*.part*")]:
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)

    def cut_previews(self, step: int) -> None:
        """Drops previews after `step`; they will be drawn again."""
        for path in self.previews.glob("step-*.png"):
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()

    def cut_metrics(self, step: int) -> None:
        """Drops lines after `step`, so that a resumed run's metrics equal an uninterrupted one's."""
        _cut(self.metrics_file, step)

    def cut_scores(self, step: int) -> None:
        """Drops scores after `step`, where there are any."""
        if self.scores_file.is_file():
            _cut(self.scores_file, step)

    def add_metrics(self, rows: Iterable[dict[str, Any]]) -> None:
        _add(self.metrics_file, rows)

    def add_scores(self, row: dict[str, Any]) -> None:
        _add(self.scores_file, [row])


def _strange(entry: Path) -> bool:
    """Whether something in a folder without settings.yaml is not what a run that failed early may leave there."""
    return not entry.name.startswith(".") and entry.name not in (PROCESS_FILE, LOG_FILE)


def _cut(file: Path, step: int) -> None:
    rows = [row for row in _lines(file) if row["step"] <= step]
    with whole_file(file) as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _add(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.writelines(json.dumps(row) + "\n" for row in rows)


def _lines(file: Path) -> list[dict[str, Any]]:
    """Of a .jsonl, as far as they are whole; none where there is no file."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
