"""Two evaluations instead of eight: `mnist-fast` models tuned by `finetune-few`, and what that costs in quality.

    python benchmarks/time_to_quality.py DATA --out FOLDER
    python benchmarks/few_steps.py DATA --out FOLDER [--seeds 0,1,2] [--set lr=0.002 ...]

Each run of `time_to_quality.py` in FOLDER is tuned by `diffsteer finetune RUN DATA --recipe finetune-few`. Its judge scores 1,000 pictures
of the base as its recipe draws, and of the tuned model in one and in two steps. Writes benchmarks/results/few-steps.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machine
from diffsteer.recipebook import train_settings

TOOL = [sys.executable, "-m", "diffsteer.cli"]
COUNT = 1000


def tuned(base: Path, data: str, run: Path, seed: str, extra: list[str]) -> float:
    """Seconds, start to exit; a run that is there keeps those it took."""
    taken = run.with_suffix(".seconds")
    if not taken.is_file():
        start = time.perf_counter()
        words = ["finetune", str(base), data, "--recipe", "finetune-few", "--seed", seed, *extra, "--out", str(run)]
        subprocess.run([*TOOL, *words], check=True, stdout=subprocess.DEVNULL)
        taken.write_text(str(time.perf_counter() - start))
    return float(taken.read_text())


def scored(run: Path, data: str, judge: Path, steps: int) -> dict[str, Any]:
    words = ["evaluate", str(run), data, "--judge", str(judge), "--count", str(COUNT), "--steps", str(steps), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run([*TOOL, *words], check=True, capture_output=True, text=True).stdout)["rows"][0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True, help="the folder of time_to_quality.py")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", nargs="*", default=[], help="settings beside the recipe, NAME=VALUE")
    given = parser.parse_args()
    extra = [word for one in given.set for word in (f"--{one.split('=')[0]}", one.split("=")[1])]
    own = train_settings("mnist-fast", {}).sample_steps
    rows = []
    for seed in given.seeds.split(","):
        base, run = given.out / f"seed-{seed}", given.out / f"few-{seed}"
        seconds = tuned(base, given.data, run, seed, extra)
        ways = {"base": (base, own), "two": (run, 2), "one": (run, 1)}
        scores = {name: scored(each, given.data, given.out / "judge", steps) for name, (each, steps) in ways.items()}
        rows.append({"seed": int(seed), "seconds": seconds, **scores})
        sys.stderr.write(f"seed {seed}: {seconds:.0f} s, {[round(each['frechet']['value'], 3) for each in scores.values()]}\n")
    names = {"base": f"`mnist-fast`, {own} steps, 8 evaluations", "two": "tuned, 2 evaluations", "one": "tuned, 1 evaluation"}
    took = ", ".join(f"{row['seconds']:.0f}" for row in rows)
    real = rows[0]["base"]
    page = [
        "# Few steps on MNIST",
        "",
        f"`python benchmarks/{Path(__file__).name} DATA --out FOLDER`",
        "",
        f"{COUNT:,} pictures each; seeds {given.seeds}. Tuning took {took} s, start to exit. Real pictures are "
        f"{real['frechet']['floor']:.3g} apart, and read right at {real['accuracy']['floor']:.1%}.",
        "",
        "| drawn by | Frechet distance | over the base's | labels right | ms a picture |",
        "|---|---|---|---|---|",
    ]
    for name, words in names.items():
        far = [row[name]["frechet"]["value"] for row in rows]
        over = [each / row["base"]["frechet"]["value"] for each, row in zip(far, rows, strict=True)]
        right = [row[name]["accuracy"]["value"] for row in rows]
        speed = statistics.median(1000 * row[name]["seconds"] / COUNT for row in rows)
        cells = [", ".join(f"{each:{form}}" for each in values) for values, form in ((far, ".3g"), (over, ".2f"), (right, ".1%"))]
        page.append(f"| {' | '.join([words, *cells, f'{speed:.1f}'])} |")
    machine.write("few-steps", {"set": given.set, "runs": rows}, "\n".join(page))
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
