"""Does a trained model learn new pictures in a quarter of the steps? So many steps from scratch against a quarter of them from a base.

    python benchmarks/finetune_transfer.py DATA_OLD DATA_NEW --out FOLDER [--steps 400] [--base-steps 600] [--seeds 0,1,2] [--write]

The base learns DATA_OLD once. Of DATA_NEW 200 pictures are held out, evenly over its classes; a judge and all runs learn from the others.
Each run draws 200 pictures three times, every label alike, as its model says; their Frechet distance to the held-out ones is taken in the
judge's features, and the judge reads their labels: the mean of the three counts. Training has its command's defaults but for the batch,
fine-tuning those of the recipe finetune-restyle; a third run begins from scratch and is taught as that recipe teaches: it shows what the
base alone is worth. --set changes the training, --finetune the fine-tuning. Finished runs in FOLDER are not made again. --write: into
benchmarks/results/finetune-transfer.json and .md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

import diffsteer
import machine
from diffsteer.data.batch import Pictures
from diffsteer.data.images import load_pictures
from diffsteer.data.pixels import to_pil
from diffsteer.diffusion.judge import Judge, load_judge, save_judge
from diffsteer.diffusion.seeds import generator_for
from diffsteer.evaluation.features import judge_features, judge_labels
from diffsteer.evaluation.frechet import frechet_distance
from diffsteer.recipebook import finetune_settings
from diffsteer.runfolder import RunFolder
from diffsteer.training.classifier import train_judge

HELD, ROUNDS = 200, 3
RECIPE = "finetune-restyle"
TAUGHT = ("lr", "warmup", "batch_size", "accumulate", "time_shift", "even_times", "ema_decay")  # by the recipe, whatever it begins with
KINDS = {"scratch": "scratch", "alike": "scratch, taught as the fine-tuned", "fine-tuned": "fine-tuned"}


def split(data: str, out: Path) -> tuple[Path, Path]:
    """(learnt from, held out): two folders of the data's pictures, one folder per class."""
    learnt, held = out / "learnt", out / "held-out"
    if not held.is_dir():
        pictures = load_pictures(data, need_labels=True)
        each = HELD // len(pictures.label_names)
        left = [each] * len(pictures.label_names)
        for index in torch.randperm(pictures.count, generator=generator_for("held out")).tolist():
            batch = pictures.at([index])
            label = int(batch.labels[0])
            place = (held if left[label] else learnt) / pictures.label_names[label]
            left[label] -= left[label] > 0
            place.mkdir(parents=True, exist_ok=True)
            to_pil(batch.pixels[0]).save(place / f"{index:06d}.png")
    return learnt, held


def judged(learnt: Path, out: Path) -> Judge:
    """The judge of the pictures learnt from, which no run is steered by."""
    if not (out / "judge").is_dir():
        save_judge(out / "judge", train_judge(load_pictures(str(learnt)), architecture="patches", seed=1))
    return load_judge(out / "judge")


def scored(run: Path, judge: Judge, held: Pictures) -> dict[str, float]:
    """Frechet distance to the held-out pictures, and the share of labels that the judge reads as asked: of as many pictures as were held
    out, the mean of three drawings, because two of one model are apart by half of what is to be told."""
    model, names = diffsteer.load(run), held.label_names
    real, each = judge_features(judge, held.at(range(held.count)).pixels), held.count // len(names)
    far, right = [], []
    for first in range(0, ROUNDS * each, each):
        drawn = diffsteer.sample(model, labels=names, seeds=range(first, first + each))
        asked = torch.tensor([judge.spec.label_names.index(label) for label in drawn.labels])
        right.append(float((judge_labels(judge, drawn.pixels)[0] == asked).double().mean()))
        far.append(frechet_distance(judge_features(judge, drawn.pixels), real))
    return {"frechet": statistics.mean(far), "accuracy": statistics.mean(right)}


def in_words(rows: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in rows]
    spread = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.3g} ± {spread:.2g}"


def pairs(words: list[str]) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in (word.split("=", 1) for word in words)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--out", type=Path, required=True, help="folder for the judge and the runs")
    parser.add_argument("--base", help="a model that has learnt DATA_OLD; default: one is trained")
    parser.add_argument("--base-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=400, help="from scratch; fine-tuning has a quarter of them")
    parser.add_argument("--batch-size", type=int, default=64, help="of base and scratch")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", nargs="*", default=[], help="settings of base and scratch beside their defaults, NAME=VALUE")
    parser.add_argument("--finetune", nargs="*", default=[], help="settings of the fine-tuning beside its recipe's, NAME=VALUE")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/finetune-transfer.json and .md")
    given = parser.parse_args()
    learnt, held_out = split(given.new, given.out)
    held, judge = load_pictures(str(held_out)), judged(learnt, given.out)
    quiet: dict[str, Any] = {"figures": "none", "preview_every": given.steps}
    training = {"batch_size": given.batch_size, **pairs(given.set), **quiet}
    base = given.base or str(diffsteer.train(given.old, given.out / "base", steps=given.base_steps, **training).out)
    tuning = {**pairs(given.finetune), **quiet}
    taught = finetune_settings(RECIPE, {"model": base, "data": str(learnt), **tuning})
    alike = {**{key: getattr(taught, key) for key in TAUGHT}, **quiet}
    rows = []
    for seed in map(int, given.seeds.split(",")):
        for kind in KINDS:
            run, steps = given.out / f"{kind}-{seed}", given.steps if kind == "scratch" else given.steps // 4
            if kind == "fine-tuned":
                diffsteer.finetune(base, str(learnt), run, recipe=RECIPE, steps=steps, seed=seed, **tuning)
            else:
                diffsteer.train(str(learnt), run, steps=steps, seed=seed, **(training if kind == "scratch" else alike))
            settings = RunFolder(run).told()[0]
            seen = steps * settings.batch_size * settings.accumulate
            rows.append({"kind": kind, "seed": seed, "steps": steps, "pictures_seen": seen, **scored(run, judge, held)})
            sys.stderr.write(f"{rows[-1]}\n")
    halves = torch.randperm(held.count, generator=generator_for("halves")).chunk(2)
    real = judge_features(judge, held.at(range(held.count)).pixels)
    floor = frechet_distance(real[halves[0]], real[halves[1]])
    page = [
        "# From a trained model in a quarter of the steps",
        "",
        f"`python benchmarks/{Path(__file__).name} DATA_OLD DATA_NEW --out FOLDER`",
        "",
        f"{HELD} pictures held out, {ROUNDS} times as many drawn by each run; mean and deviation over {given.seeds.count(',') + 1} seeds. "
        f"The judge reads {judge.spec.accuracy:.1%} of {judge.spec.held_out} real pictures right; the Frechet distance of two halves of "
        f"the held-out ones, which are fewer and so further apart, is {floor:.3g}.",
        "",
        "| from | steps | pictures seen | Frechet distance | labels read right |",
        "|---|---|---|---|---|",
    ]
    for kind, words in KINDS.items():
        its = [row for row in rows if row["kind"] == kind]
        page.append(
            f"| {words} | {its[0]['steps']} | {its[0]['pictures_seen']:,} | {in_words(its, 'frechet')} | {in_words(its, 'accuracy')} |"
        )
    if given.write:
        options = {"set": given.set, "finetune": given.finetune, "base_steps": given.base_steps}
        machine.write("finetune-transfer", {**options, "floor": floor, "judge": judge.spec.accuracy, "runs": rows}, "\n".join(page))
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
