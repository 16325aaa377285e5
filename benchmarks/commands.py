"""diffsteer's commands as a user runs them, each a process of its own: what they print, and how long they take."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COUNT = 1000  # pictures that a score rests on


def told(*words: str) -> str:
    """What `diffsteer WORDS` prints."""
    return subprocess.run([sys.executable, "-m", "diffsteer.cli", *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def seconds(file: Path, *words: str) -> float:
    """Of a command, from start to exit; kept in a file, so that a benchmark goes on after an interruption without running it again."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        told(*words)
        file.write_text(json.dumps(time.perf_counter() - start))
    return float(json.loads(file.read_text()))


def judge(data: str, folder: Path) -> Path:
    """A judge of the data, trained if none is there."""
    if not folder.is_dir():
        told("judge", data, "--architecture", "patches", "--seed", "1", "--out", str(folder))
    return folder


def scores(run: Path, data: str, judge: Path, steps: int | None = None, count: int = COUNT) -> dict[str, Any]:
    """Of a run's pictures, as `diffsteer evaluate` tells them, `copies` among them."""
    asked = [] if steps is None else ["--steps", str(steps)]
    found = json.loads(told("evaluate", str(run), data, "--judge", str(judge), "--count", str(count), *asked, "--json"))
    return {**found["rows"][0], "copies": found["copies"]}


def words_of(settings: list[str]) -> list[str]:
    """`--NAME VALUE` for each NAME=VALUE."""
    return [word for one in settings for word in (f"--{one.split('=')[0]}", one.split("=")[1])]
