"""What `make bench` runs: each speed benchmark in a process of its own, one after another, and one table of all their ratios.

    python benchmarks/suite.py [--full] [--out benchmarks/results] [--data mnist] [--environments FOLDER]

Small unless --full, which takes more rounds, compiles, and with --data trains `mnist-fast` as well (time_to_quality.py). The peers are
measured where --environments says their environments are (peers.py). --out keeps the table and what each part wrote. Nothing else should
run meanwhile. Exit status 1 if a part failed; the others are measured all the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from timing import Spread, line, table

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A script, its words, and the JSON that it leaves."""

    script: str
    words: list[str]
    result: Path


def parts(given: argparse.Namespace, folder: Path) -> Iterator[Part]:
    """The parts in their order; all write into the folder."""

    def in_folder(script: str, name: str, small: list[str], full: list[str]) -> Part:
        return Part(script, [*(full if given.full else small), "--out", str(folder)], folder / f"{name}.json")

    yield in_folder("loop_overhead.py", "loop-overhead", [], ["--rounds", "40", "--compiled"])
    yield in_folder("sampling_speed.py", "sampling-speed", [], ["--rounds", "20", "--lesson-steps", "100"])
    if given.environments:
        peers = ["--environments", given.environments]
        peers += ["--diffusers-script", given.diffusers_script] if given.diffusers_script else []
        yield in_folder("peers.py", "peers", peers, [*peers, "--rounds", "5"])
    yield in_folder("solver_matrix.py", "solver-matrix", [], [])
    if given.full and given.data:
        words = [given.data, "--out", str(folder / "time-to-quality-runs"), "--results", str(folder)]
        yield Part("time_to_quality.py", words, folder / "time-to-quality.json")


def lines_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The table's lines that a part's JSON has to offer."""
    if "ratios" in result:
        return result["ratios"]
    if "runs" in result:
        ratios = [run["ratio"] for run in result["runs"]]
        return [line("training: the lesson's ten epochs over `mnist-fast`, start to exit", Spread.of(ratios))]
    passed = [result[whose]["passed"] / result[whose]["cells"] for whose in ("ours", "diffusers")]
    return [line("solvers: share of cells passed, ours over diffusers' schedulers", Spread.of([passed[0] / passed[1]]))]


def run(part: Part) -> list[dict[str, Any]] | None:
    """The part's lines, or None if it failed, which is said."""
    start = time.perf_counter()
    told = subprocess.run(
        [sys.executable, str(HERE / part.script), *part.words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - start
    if told.returncode:
        sys.stderr.write(f"{part.script} failed after {seconds:.0f} s:\n{told.stderr}\n")
        return None
    sys.stderr.write(f"{part.script}: {seconds:.0f} s\n")
    return lines_of(json.loads(part.result.read_text(encoding="utf-8")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--data", help="MNIST, for time_to_quality.py")
    parser.add_argument("--environments", help="folder of the peers' environments, for peers.py")
    parser.add_argument("--diffusers-script", help="train_unconditional.py, for peers.py")
    parser.add_argument("--out", type=Path, help="folder for suite.json and .md and for what each part writes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        told = [run(part) for part in parts(given, given.out or Path(place))]
    lines = [one for part in told if part for one in part]
    page = ["# The speed suite", "", f"`python benchmarks/{Path(__file__).name}{' --full' if given.full else ''}`", "", *table(lines)]
    if given.out:
        machine.write("suite", {"full": given.full, "ratios": lines}, "\n".join(page), given.out)
    sys.stdout.write("\n".join(page) + "\n")
    return 1 if None in told else 0


if __name__ == "__main__":
    raise SystemExit(main())
