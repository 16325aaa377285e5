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
import sys
from pathlib import Path
from typing import Any

import commands
import machine

LOOKS, LOOK_COUNT = 8, 500


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
    judge = commands.judge(given.data, given.judge or given.out / "judge")
    lengths = sorted(map(int, given.steps.split(",")))
    rows: list[dict[str, Any]] = []
    lines = []
    for steps in lengths:
        longest = steps == lengths[-1]
        often = ["--score-every", str(steps // LOOKS), "--score-count", str(LOOK_COUNT), "--judge", str(judge)]
        run = given.out / f"steps-{steps}"
        words = ["train", given.data, "--recipe", "cifar10-fast", "--steps", str(steps), *(often if longest else []), "--out", str(run)]
        minutes = commands.seconds(run.with_suffix(".seconds"), *words) / 60
        scores = commands.scores(run, given.data, judge)
        rows.append({"steps": steps, "minutes": minutes, "scores": scores})
        lines.append(line(minutes, steps, scores))
        sys.stderr.write(lines[-1] + "\n")
    commands.told("compare", *(str(given.out / f"steps-{steps}") for steps in lengths), "--out", str(given.out / "comparison"))
    commands.told("sample", str(run), "--per-label", "8", "--out", str(given.out / "drawn.png"))
    last = rows[-1]["scores"]
    looks = [json.loads(text) for text in (run / "scores.jsonl").read_text().splitlines()]
    page = "\n".join(
        [
            "# Quality against minutes on CIFAR-10",
            "",
            f"`python benchmarks/{Path(__file__).name} DATA --out FOLDER`",
            "",
            f"{commands.COUNT:,} pictures of each run, seed 0. The judge reads {last['accuracy']['floor']:.1%} of real pictures right; "
            f"the Frechet distance of real pictures from real ones at that count is {last['frechet']['floor']:.3g}, in the judge's "
            f"features. Of the longest run's minutes {LOOKS} looks at {LOOK_COUNT} pictures are a part.",
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
