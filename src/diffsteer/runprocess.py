"""Which process trains into a run folder, and how the last one there ended: RUN/process.json.

Whether a run goes on is never stored: it is found out from the process, so a run whose process was killed is not taken for a living one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from diffsteer.data.whole import whole_file
from diffsteer.errors import Mistake

PROCESS_FILE = "process.json"
NICER = 10  # so that drawing goes on beside a training
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


@dataclass(frozen=True)
class RunProcess:
    """born: when it was started, in seconds since 1970, as the system has it; with the pid it names one process. how: it ended, empty while
    it has not said so. why: the error, where there was one."""

    pid: int
    born: float
    how: str = ""
    why: str = ""

    @property
    def alive(self) -> bool:
        return self.process() is not None

    def process(self) -> psutil.Process | None:
        """The process while it lives; another one that was given its number is not it."""
        try:
            found = psutil.Process(self.pid)
            return found if found.create_time() == self.born and found.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


def read(run: Path) -> RunProcess | None:
    """Who trains there, or did so last; None where nobody has said."""
    try:
        return RunProcess(**json.loads((run / PROCESS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def make_way(pid: int) -> None:
    """Lets other processes go before this one."""
    psutil.Process(pid).nice(NICER if os.name == "posix" else psutil.BELOW_NORMAL_PRIORITY_CLASS)


def claim(run: Path, pid: int) -> RunProcess:
    """Writes that this process trains there."""
    process = RunProcess(pid, psutil.Process(pid).create_time())
    _write(run, process)
    return process


def refuse_another(run: Path) -> None:
    """Mistake if a process other than this one trains there."""
    there = read(run)
    if there is not None and there.pid != os.getpid() and there.alive:
        raise Mistake(f"Process {there.pid} is training into {run} at this moment. Wait for it, or end it, or give another --out.")


@contextmanager
def told_of(run: Path) -> Iterator[None]:
    """Around the training of a run: that this process does it, and in the end how it ended."""
    process, how, why = claim(run, os.getpid()), FINISHED, ""
    try:
        yield
    except KeyboardInterrupt:
        how = STOPPED
        raise
    except BaseException as error:
        how, why = FAILED, str(error)
        raise
    finally:
        if (run / "settings.yaml").is_file():
            _write(run, replace(process, how=how, why=why))
        else:  # it ended before there was a run
            (run / PROCESS_FILE).unlink(missing_ok=True)
            if not any(run.iterdir()):
                run.rmdir()


def _write(run: Path, process: RunProcess) -> None:
    with whole_file(run / PROCESS_FILE) as part:
        part.write_text(json.dumps(asdict(process)) + "\n", encoding="utf-8")
