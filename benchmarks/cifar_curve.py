"""Quality against minutes: the recipe `cifar10-fast` at several lengths, each of which ends with a rate of 0.

    python benchmarks/cifar_curve.py ../shared/data/cifar10 --out FOLDER [--steps 500,3000] [--seeds 0,1,2] [--judge FOLDER]

Each run is the whole command `diffsteer train DATA --recipe cifar10-fast --steps N --seed SEED`; the longest are looked at eight times on
their way. One judge of DATA, trained first, scores 1,000 pictures of each. Nothing else should run meanwhile. Writes
benchmarks/results/cifar-curve.json, .md, and pictures: the longest runs' scores over their minutes, and what the first of them draws.
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


def line(steps: int, runs: list[dict[str, Any]]) -> str:
    """The runs of one length, a seed each, beside one another."""
    right, far, copies = ([run["scores"][name] for run in runs] for name in ("accuracy", "frechet", "copies"))
    cells = [
        [f"{run['minutes']:.1f}" for run in runs],
        [f"{each['value']:.1%} ± {each['error']:.1%}" for each in right],
        [f"{each['value']:.3g} ± {each['error']:.2g}" for each in far],
        [f"{each['rate']:.1%}" for each in copies],
    ]
    return f"| {steps:,} | {' | '.join(', '.join(each) for each in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True, help="folder for the judge and the runs")
    parser.add_argument("--steps", default="500,3000")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--judge", type=Path, help="default: one is trained")
    given = parser.parse_args()
    judge = commands.judge(given.data, given.judge or given.out / "judge")
    lengths, seeds = sorted(map(int, given.steps.split(","))), given.seeds.split(",")
    looked_at = ["--score-every", str(lengths[-1] // LOOKS), "--score-count", str(LOOK_COUNT), "--judge", str(judge)]
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for steps in lengths:
            run = given.out / f"steps-{steps}-seed-{seed}"
            words = ["train", given.data, "--recipe", "cifar10-fast", "--steps", str(steps), "--seed", seed, "--out", str(run)]
            minutes = commands.seconds(run.with_suffix(".seconds"), *words, *(looked_at if steps == lengths[-1] else [])) / 60
            rows.append({"steps": steps, "seed": int(seed), "minutes": minutes, "scores": commands.scores(run, given.data, judge)})
            sys.stderr.write(line(steps, rows[-1:]) + "\n")
    longest = [given.out / f"steps-{lengths[-1]}-seed-{seed}" for seed in seeds]
    commands.told("compare", *map(str, longest), "--out", str(given.out / "comparison"))
    commands.told("sample", str(longest[0]), "--per-label", "8", "--out", str(given.out / "drawn.png"))
    last = rows[-1]["scores"]
    looks = [[json.loads(text) for text in (run / "scores.jsonl").read_text().splitlines()] for run in longest]
    page = "\n".join(
        [
            "# Quality against minutes on CIFAR-10",
            "",
            f"`python benchmarks/{Path(__file__).name} DATA --out FOLDER`",
            "",
            f"{commands.COUNT:,} pictures of each run; seeds {given.seeds}, side by side. The judge reads "
            f"{last['accuracy']['floor']:.1%} of real pictures right; the Frechet distance of real pictures from real ones at that count "
            f"is {last['frechet']['floor']:.3g}, in the judge's features. Of the longest runs' minutes {LOOKS} looks at {LOOK_COUNT} "
            "pictures are a part.",
            "",
            "| steps | minutes, start to exit | labels right | Frechet distance | copies |",
            "|---|---|---|---|---|",
            *(line(steps, [row for row in rows if row["steps"] == steps]) for steps in lengths),
            "",
            "The longest on their way:",
            "",
            "![scores over minutes](cifar-curve.png)",
            "",
            "What the first of them draws, a class a row:",
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
