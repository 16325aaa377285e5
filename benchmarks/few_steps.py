"""Two steps in place of the recipe's: `mnist-fast` models tuned by `finetune-few`, and what that costs in quality.

    python benchmarks/time_to_quality.py DATA --out FOLDER
    python benchmarks/few_steps.py DATA --out FOLDER [--seeds 0,1,2] [--set lr=0.002 ...]

Each run of `time_to_quality.py` in FOLDER is tuned by `diffsteer finetune RUN DATA --recipe finetune-few`. Its judge scores 1,000 pictures
of the base as its recipe draws, and of the tuned model in one and in two steps. Writes benchmarks/results/few-steps.json and .md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import commands
import machine
from diffsteer.recipebook import train_settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True, help="the folder of time_to_quality.py")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", nargs="*", default=[], help="settings beside the recipe, NAME=VALUE")
    given = parser.parse_args()
    own = train_settings("mnist-fast", {}).sample_steps
    rows: list[dict[str, Any]] = []
    for seed in given.seeds.split(","):
        base, run = given.out / f"seed-{seed}", given.out / f"few-{seed}"
        words = ["finetune", str(base), given.data, "--recipe", "finetune-few", "--seed", seed, *commands.words_of(given.set)]
        seconds = commands.seconds(run.with_suffix(".seconds"), *words, "--out", str(run))
        ways = {"base": (base, own), "two": (run, 2), "one": (run, 1)}
        scores = {name: commands.scores(each, given.data, given.out / "judge", steps) for name, (each, steps) in ways.items()}
        rows.append({"seed": int(seed), "seconds": seconds, **scores})
        sys.stderr.write(f"seed {seed}: {seconds:.0f} s, {[round(each['frechet']['value'], 3) for each in scores.values()]}\n")
    names = {"base": f"`mnist-fast`, {own} steps", "two": "tuned, 2 steps", "one": "tuned, 1 step"}
    took = ", ".join(f"{row['seconds']:.0f}" for row in rows)
    real = rows[0]["base"]
    page = [
        "# Few steps on MNIST",
        "",
        f"`python benchmarks/{Path(__file__).name} DATA --out FOLDER`",
        "",
        f"{commands.COUNT:,} pictures each; seeds {given.seeds}. Tuning took {took} s, start to exit. Real pictures are "
        f"{real['frechet']['floor']:.3g} apart, and read right at {real['accuracy']['floor']:.1%}.",
        "",
        "| drawn by | Frechet distance | over the base's | labels right | ms a picture |",
        "|---|---|---|---|---|",
    ]
    for name, called in names.items():
        far = [row[name]["frechet"]["value"] for row in rows]
        over = [each / row["base"]["frechet"]["value"] for each, row in zip(far, rows, strict=True)]
        right = [row[name]["accuracy"]["value"] for row in rows]
        speed = statistics.median(1000 * row[name]["seconds"] / commands.COUNT for row in rows)
        cells = [", ".join(f"{each:{form}}" for each in values) for values, form in ((far, ".3g"), (over, ".2f"), (right, ".1%"))]
        page.append(f"| {' | '.join([called, *cells, f'{speed:.1f}'])} |")
    machine.write("few-steps", {"set": given.set, "runs": rows}, "\n".join(page))
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
