"""The runs of a folder, and how far each is, as the page shows them. No Gradio, no torch.

All is read from the run folders, so a run that was started at the command line is shown alike.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from diffsteer import runprocess
from diffsteer.app.words import Said
from diffsteer.config import as_flags, duration
from diffsteer.errors import Mistake
from diffsteer.runfolder import LOG_FILE, Resolved, RunFolder

SAYS = "diffsteer: "  # how a command begins to say what is wrong
NAME = re.compile(r"\w[\w.-]{0,63}")
POINTS = 400  # of a curve
TAIL, LINES = 16_384, 30  # bytes and lines of a log that are shown

STARTING, RUNNING, STOPPING, FINISHED, STOPPED, FAILED, LOST = "starting", "running", "stopping", "finished", "stopped", "failed", "lost"
ALIVE = (STARTING, RUNNING, STOPPING)


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
            for line in whole.splitlines():
                with suppress(ValueError, KeyError, TypeError):  # somebody else's
                    told = json.loads(line)
                    self.rows.append((int(told["step"]), float(told["loss"]), float(told["seconds"])))
        return self.rows


class Runs:
    """told: the folder of run folders as it was named on the command line, in the folder `home`. stopping: runs that were asked to end."""

    def __init__(self, told: str, home: Path) -> None:
        self.told, self.folder = told, home / told
        self.stopping: set[str] = set()
        self._rows: dict[str, _Rows] = {}
        self._lock = threading.Lock()  # several people may look at once

    def names(self) -> list[str]:
        """The runs, newest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]
        runs = [path for path in found if (path / "settings.yaml").is_file() or (path / LOG_FILE).is_file()]
        return [path.name for path in sorted(runs, key=_age, reverse=True)]

    def busy(self) -> str | None:
        """The run that is being trained."""
        trained = ((name, runprocess.read(self.folder / name)) for name in self.names())
        return next((name for name, process in trained if process is not None and process.alive), None)

    def card(self, name: str) -> Card:
        """How far a run is. Raises Said for one that is not there."""
        run = self.run(name)
        resolved = _resolved(run)
        state, why = self._state(run, resolved)
        with self._lock:
            rows = list(self._rows.setdefault(name, _Rows(run.metrics_file)).read())
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

    def place_of(self, name: str) -> str:
        """The run as a command line names it. Raises Said."""
        self.run(name)
        return f"{self.told}/{name}"

    def _state(self, run: RunFolder, resolved: Resolved | None) -> tuple[str, str]:
        """The state of a run and, where it failed, why."""
        there = runprocess.read(run.path)
        if there is not None and there.alive:
            return (STOPPING if run.path.name in self.stopping else RUNNING if run.exists else STARTING), ""
        self.stopping.discard(run.path.name)
        if there is not None and there.how == runprocess.FAILED:
            return FAILED, there.why
        if resolved is not None and resolved.finished:
            return FINISHED, ""
        last = (_tail(run.path / LOG_FILE).splitlines() or [""])[-1]
        if resolved is None and last.startswith(SAYS):  # refused before it was a run
            return FAILED, last.removeprefix(SAYS)
        if there is not None and not there.how:
            return LOST, "" if last.startswith("$ ") else last
        return STOPPED, ""

    def run(self, name: object) -> RunFolder:
        """The folder of a run of the list. Raises Said for anything else."""
        if not isinstance(name, str) or name not in self.names():
            raise Said("wrong.run")
        return RunFolder(self.folder / name)

    def _command(self, run: RunFolder) -> str:
        """What starts this run, or goes on with it."""
        first = next(iter(_tail(run.path / LOG_FILE, first=True).splitlines()), "")
        if first.startswith("$ "):
            return first[2:]
        try:
            return shlex.join(["diffsteer", *self.words_of(run)])
        except (Said, Mistake):  # not begun, or somebody else's settings.yaml
            return ""

    def words_of(self, run: RunFolder) -> list[str]:
        """The command line that goes on with a run. Raises Said, Mistake."""
        if not run.exists:
            raise Said("wrong.not_begun")
        settings, _ = run.told()
        length = [] if settings.budget is None else ["--budget", duration(settings.budget)]
        flags = as_flags(settings.model_copy(update={"budget": None}))
        return [settings.command, *flags, *length, "--out", f"{self.told}/{run.path.name}"]


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
