"""The lesson's exercise on some hundred pictures of clothes: other learning rates, batch sizes and lengths, in less time.

    python benchmarks/fashion_exercise.py ../shared/data/fashion900 --out FOLDER [--seeds 0]

Each run is `diffsteer train DATA --recipe fashion-fast` with one setting changed, scored in training by one judge of DATA; `diffsteer
compare` puts them into one table, with a figure of the scores over minutes. The last part is the scorecard of the recipe's own model, with
its copies. Writes benchmarks/results/fashion-exercise.md, .json and .png, fashion-scorecard.md and fashion-drawn.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import commands
import machine

# What is changed, by the run's name. Batches of another size see as many pictures.
RUNS: dict[str, list[str]] = {
    "recipe": [],
    "lr-0.001": ["--lr", "0.001"],
    "lr-0.004": ["--lr", "0.004"],
    "batch-32": ["--batch-size", "32", "--steps", "1000"],
    "batch-128": ["--batch-size", "128", "--steps", "250"],
    "half": ["--steps", "250"],
    "double": ["--steps", "1000"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True, help="folder for the judge and the runs")
    parser.add_argument("--seeds", default="0,1,2", help="the recipe's own run is made with each, the others with the first")
    parser.add_argument("--count", default="500", help="pictures a look")
    given = parser.parse_args()
    judge = commands.judge(given.data, given.out / "judge")
    first, *others = given.seeds.split(",")
    runs = {**RUNS, **{f"seed-{seed}": ["--seed", seed] for seed in others}}
    for name, changed in runs.items():
        steps = int(changed[changed.index("--steps") + 1]) if "--steps" in changed else 500
        looks = ["--score-every", str(steps // 2), "--score-count", given.count, "--judge", str(judge)]
        seed = [] if "--seed" in changed else ["--seed", first]
        commands.told("train", given.data, "--recipe", "fashion-fast", *seed, *changed, *looks, "--out", str(given.out / name))
        sys.stderr.write(f"{name} done\n")
    places = [str(given.out / name) for name in runs]
    commands.told("compare", *places, "--out", str(given.out / "comparison"))
    words = ["evaluate", places[0], given.data, "--judge", str(judge), "--count", "500", "--out", str(given.out / "recipe" / "scores")]
    commands.told(*words)
    copies = json.loads((given.out / "recipe" / "scores" / "scores.json").read_text())["copies"]
    comparison = json.loads((given.out / "comparison" / "compare.json").read_text())
    table = (
        (given.out / "comparison" / "compare.md").read_text().replace("compare.png", "fashion-exercise.png").removeprefix("# Comparison\n")
    )
    held = copies["baseline"]
    page = (
        f"# The exercise on Fashion-MNIST: {comparison['runs'][0]['training']['pictures']:,} pictures seen in a run\n\n"
        f"`python benchmarks/{Path(__file__).name} DATA --out FOLDER`\n\n"
        f"Of {copies['count']:,} pictures by the recipe's model {copies['rate']:.1%} are copies of one of the {copies['train_count']:,} "
        f"it learnt; real pictures, each left out in turn: {held['rate']:.1%}. [Its scorecard](fashion-scorecard.md), "
        f"and what it draws:\n\n![sixty-four small pictures of clothes](fashion-drawn.png)\n{table}"
    )
    changes = {name: " ".join(changed) for name, changed in runs.items()}
    machine.write("fashion-exercise", {"runs": changes, "comparison": comparison, "copies": copies}, page)
    card = (given.out / "recipe" / "scores" / "scores.md").read_text()
    (machine.RESULTS / "fashion-scorecard.md").write_text(machine.without_places(card))
    shutil.copyfile(given.out / "recipe" / "scores" / "00.png", machine.RESULTS / "fashion-drawn.png")
    shutil.copyfile(given.out / "comparison" / "compare.png", machine.RESULTS / "fashion-exercise.png")
    sys.stdout.write(page)


if __name__ == "__main__":
    main()
