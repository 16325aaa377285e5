"""Quality against minutes: the recipe `cifar10-fast` at several lengths, each of which ends with a rate of 0.

    python benchmarks/cifar_curve.py ../shared/data/cifar10 --out FOLDER [--steps 500,3000] [--judge FOLDER]

Each run is the whole command `diffsteer train DATA --recipe cifar10-fast --steps N`; the longest is looked at eight times on its way. One
judge of DATA, trained first, scores 1,000 pictures of each. Nothing else should run meanwhile. Writes benchmarks/results/cifar-curve.json,
.md, and pictures: the longest run's scores over its minutes, and what it draws.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machine

TOOL = [sys.executable, "-m", "diffsteer.cli"]
LOOKS, LOOK_COUNT, COUNT = 8, 500, 1000


def told(words: list[str]) -> str:
    return subprocess.run([*TOOL, *words], check=True, capture_output=True, text=True).stdout


def trained(data: str, run: Path, steps: int, looks: list[str]) -> float:
    """Seconds from start to exit; a run that is there keeps those it took."""
    taken = run.with_suffix(".seconds")
    if not taken.is_file():
        start = time.perf_counter()
        told(["train", data, "--recipe", "cifar10-fast", "--steps", str(steps), *looks, "--out", str(run)])
        taken.write_text(str(time.perf_counter() - start))
    return float(taken.read_text())


def scored(data: str, run: Path, judge: Path) -> dict[str, Any]:
    words = ["evaluate", str(run), data, "--judge", str(judge), "--count", str(COUNT), "--out", str(run / "scores")]
    told(words)
    found = json.loads((run / "scores" / "scores.json").read_text())
    return {**found["rows"][0], "copies": found["copies"]}


def line(minutes: float, steps: int, scores: dict[str, Any]) -> str:
    right, far, copies = scores["accuracy"], scores["frechet"], scores["copies"]
    return (
        f"| {minutes:.1f} | {steps:,} | {right['value']:.1%} ± {right['error']:.1%} | {far['value']:.3g} ± {far['error']:.2g} | "
        f"{copies['rate']:.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True, help="folder for the judge and the runs")
    parser.add_argument("--steps", default="500,3000")
    parser.add_argument("--judge", type=Path, help="default: one is trained")
    given = parser.parse_args()
    judge = given.judge or given.out / "judge"
    if not judge.is_dir():
        told(["judge", given.data, "--architecture", "patches", "--seed", "1", "--out", str(judge)])
    lengths = sorted(map(int, given.steps.split(",")))
    rows, lines = [], []
    for steps in lengths:
        longest = steps == lengths[-1]
        often = ["--score-every", str(steps // LOOKS), "--score-count", str(LOOK_COUNT), "--judge", str(judge)]
        run = given.out / f"steps-{steps}"
        minutes = trained(given.data, run, steps, often if longest else []) / 60
        scores = scored(given.data, run, judge)
        rows.append({"steps": steps, "minutes": minutes, "scores": scores})
        lines.append(line(minutes, steps, scores))
        sys.stderr.write(lines[-1] + "\n")
    told(["compare", *(str(given.out / f"steps-{steps}") for steps in lengths), "--out", str(given.out / "comparison")])
    told(["sample", str(run), "--per-label", "8", "--out", str(given.out / "drawn.png")])
    last = rows[-1]["scores"]
    looks = [json.loads(text) for text in (run / "scores.jsonl").read_text().splitlines()]
    page = "\n".join(
        [
            "# Quality against minutes on CIFAR-10",
            "",
            f"`python benchmarks/{Path(__file__).name} DATA --out FOLDER`",
            "",
            f"{COUNT:,} pictures of each run, seed 0. The judge reads {last['accuracy']['floor']:.1%} of real pictures right; the Frechet "
            f"distance of real pictures from real ones at that count is {last['frechet']['floor']:.3g}, in the judge's features. Of the "
            f"longest run's minutes {LOOKS} looks at {LOOK_COUNT} pictures are a part.",
            "",
            "| minutes, start to exit | steps | labels right | Frechet distance | copies |",
            "|---|---|---|---|---|",
            *lines,
            "",
            "The runs on their way:",
            "",
            "![scores over minutes](cifar-curve.png)",
            "",
            "What it draws, a class a row:",
            "",
            "![eighty small colour pictures](cifar-fast.png)",
        ]
    )
    machine.write("cifar-curve", {"runs": rows, "looks": looks}, page)
    shutil.copyfile(given.out / "comparison" / "compare.png", machine.RESULTS / "cifar-curve.png")
    shutil.copyfile(given.out / "drawn.png", machine.RESULTS / "cifar-fast.png")
    sys.stdout.write(page + "\n")


if __name__ == "__main__":
    main()
