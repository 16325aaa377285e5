"""A run killed at any moment and started again by the same command ends with the same files, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffsteer.cli import run

OUTSIDE = [sys.executable, "-m", "diffsteer.cli"]
COMMAND = ["train", "digits", "--channels", "32,32", "--layers", "1", "--batch-size", "32"]
COMMAND += ["--preview-every", "100", "--figures", "data,by-label"]


def command(out: Path, steps: int, every: int) -> list[str]:
    return [*COMMAND, "--steps", str(steps), "--checkpoint-every", str(every), "--out", str(out)]


def files(run: Path) -> dict[str, bytes]:
    """Every file of a run, hidden ones too, but for who trained it; metrics without their times."""
    found = {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    del found["process.json"]
    rows = [json.loads(line) for line in found.pop("metrics.jsonl").splitlines()]
    assert all(row.pop("seconds") >= 0 for row in rows)
    found["metrics.jsonl without times"] = json.dumps(rows).encode()
    return found


def killed_then_finished(out: Path, steps: int, every: int, kills: int, chance: random.Random, longest: float) -> int:
    """Kills the command `kills` times, at random moments after training has begun, then lets it finish; how many kills struck."""
    struck = 0
    while struck < kills:
        process = subprocess.Popen([*OUTSIDE, *command(out, steps, every)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = (out / "metrics.jsonl").stat().st_size if (out / "metrics.jsonl").exists() else 0
        while process.poll() is None and not _begun(out, before):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, longest))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        struck += 1
    assert run(command(out, steps, every)) == 0
    return struck


def _begun(out: Path, size_before: int) -> bool:
    """Whether this process has trained: the metrics have changed since it started."""
    metrics = out / "metrics.jsonl"
    return metrics.exists() and metrics.stat().st_size != size_before


def test_a_kill_leaves_no_trace(tmp_path: Path) -> None:
    assert run(command(tmp_path / "straight", 30, 10)) == 0
    assert killed_then_finished(tmp_path / "killed", 30, 10, kills=1, chance=random.Random(1), longest=0.3) == 1
    straight, killed = files(tmp_path / "straight"), files(tmp_path / "killed")
    assert straight.keys() == killed.keys()
    assert [name for name in straight if straight[name] != killed[name]] == []


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(tmp_path: Path) -> None:
    assert run(command(tmp_path / "straight", 400, 20)) == 0
    kills, attempt = 0, 0
    while kills < 20:
        attempt += 1
        out = tmp_path / f"killed{attempt}"
        kills += killed_then_finished(out, 400, 20, kills=1, chance=random.Random(attempt), longest=8.0)
        straight, killed = files(tmp_path / "straight"), files(out)
        assert straight.keys() == killed.keys()
        assert [name for name in straight if straight[name] != killed[name]] == []
