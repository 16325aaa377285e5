"""What the class-conditioned lesson draws after its ten epochs, beside the recipe `mnist-fast`: the same judge, the same labels.

    python benchmarks/time_to_quality.py DATA --out FOLDER
    python benchmarks/lesson_quality.py DATA --out FOLDER [--many 10000] [--anew] [--set processes=2]

The lesson's thousand pictures are kept, benchmarks/results/lesson-digits.png: its recipe trained to its end (4,690 steps), then 1,000
ancestral steps a picture, seeds 0 to 999 in order, the ten labels in turn. They are hours on a CPU, so they are read; --anew makes
them again and writes that sheet; it goes on where an interrupted command left off: the run resumes, and every 100 pictures drawn are kept.
(On two cores, two processes of one thread each train a little faster than one of two.) Ours is the first run that `time_to_quality.py` left
in FOLDER, with its judge; it draws as many, and then `--many`. Writes benchmarks/results/lesson-quality.json, .md and .png (80 pictures of
each).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import commands
import machine
from diffsteer.data import pixels
from diffsteer.data.batch import Pictures
from diffsteer.data.images import load_pictures
from diffsteer.diffusion.judge import Judge, load_judge
from diffsteer.evaluation.report import Scores
from diffsteer.judging import scorer
from diffsteer.recipebook import train_settings
from diffsteer.sampling.draw import How, Job, draw
from diffsteer.sampling.folder import load_model

CHUNK, SHOWN, COLUMNS = 100, 80, 10
MANY = 10_000  # of ours, after as many as there are of the lesson's
SIDE, ACROSS = 28, 40  # of the lesson's digits: pixels, and how many stand in a row of the sheet
SHEET = machine.RESULTS / "lesson-digits.png"


def lesson_digits(data: str, out: Path, settings: list[str]) -> Tensor:
    """What the lesson's recipe draws at its end, uint8 [1000, 1, 28, 28]; also written as the sheet."""
    run = out / "lesson"
    words = ["train", data, "--recipe", "seed-class-conditional", "--figures", "none", "--preview-every", "469", "--out", str(run)]
    commands.told(*words, *commands.words_of(settings))
    pictures = drawn(run, commands.COUNT, None, out / "drawn-lesson")
    write_sheet(pictures, SHEET)
    return pictures


def write_sheet(pictures: Tensor, file: Path) -> None:
    """uint8 [1000, 1, 28, 28], edge to edge in reading order, losslessly."""
    rows = pictures.reshape(-1, ACROSS, SIDE, SIDE).transpose(1, 2).reshape(-1, ACROSS * SIDE)
    Image.fromarray(rows.numpy()).save(file, optimize=True)


def read_sheet(file: Path) -> Tensor:
    """What `write_sheet` wrote."""
    with Image.open(file) as sheet:
        rows = torch.from_numpy(np.array(sheet))
    return rows.reshape(-1, SIDE, ACROSS, SIDE).transpose(1, 2).reshape(commands.COUNT, 1, SIDE, SIDE)


def drawn(run: Path, count: int, steps: int | None, keep: Path) -> Tensor:
    """Pictures uint8 [count, 1, H, W], labels in turn, seeds from 0 on, in so many steps of the model's solver; kept in a folder, some at a
    time."""
    model = load_model(str(run))
    keep.mkdir(parents=True, exist_ok=True)
    parts = []
    for first in range(0, count, CHUNK):
        file = keep / f"{first:06d}.pt"
        if not file.is_file():
            jobs = [Job(seed % len(model.spec.label_names), seed) for seed in range(first, min(first + CHUNK, count))]
            torch.save(draw(model, jobs, How(steps=steps)).pictures, file)
            sys.stderr.write(f"{run.name}: {first + len(jobs)} of {count}\n")
        parts.append(torch.load(file))
    return torch.cat(parts)


def scored(pictures: Tensor, data: Pictures, judge: Judge) -> Scores:
    """Of pictures with the data's labels in turn."""
    ids = torch.arange(len(pictures)) % len(data.label_names)
    return scorer(data, None, judge, ids, count=len(pictures), split="train", say=lambda said: None)(pictures)


def line(name: str, scores: Scores) -> str:
    right, far, bright = scores.accuracy, scores.frechet, scores.to_dict()["brightness"]
    assert right is not None
    return (
        f"| {name} | {far.count:,} | {right.value:.1%} ± {right.error:.1%} | {far.value:.3g} ± {far.error:.2g} | {far.floor:.3g} "
        f"| {bright['mean']:.3f} ({bright['spread']:.3f}), {bright['real_mean']:.3f} ({bright['real_spread']:.3f}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True, help="the folder of time_to_quality.py")
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--anew", action="store_true", help="train the lesson's recipe and draw its thousand again: hours")
    parser.add_argument("--set", nargs="*", default=[], help="with --anew: settings of the lesson's run beside its recipe, NAME=VALUE")
    given = parser.parse_args()
    ours, steps = given.out / "seed-0", train_settings("mnist-fast", {}).sample_steps
    lesson = lesson_digits(given.data, given.out, given.set) if given.anew else read_sheet(SHEET)
    many = drawn(ours, max(commands.COUNT, given.many), steps, given.out / "drawn-ours")
    kinds = [("the lesson's, 10 epochs, 1,000 ancestral steps", lesson), ("`mnist-fast`", many[: commands.COUNT])]
    kinds += [("`mnist-fast`", many)] if len(many) > commands.COUNT else []
    data, judge = load_pictures(given.data, need_labels=True), load_judge(given.out / "judge")
    rows, lines, sheets = [], [], []
    for name, pictures in kinds:
        scores = scored(pictures, data, judge)
        rows.append({"drawn by": name, "count": len(pictures), "scores": scores.to_dict()})
        lines.append(line(name, scores))
        sheets.append(pixels.grid(pictures[:SHOWN], columns=COLUMNS, invert=True))
    page = "\n".join(
        [
            "# The lesson's pictures and ours",
            "",
            f"`python benchmarks/{Path(__file__).name} DATA --out FOLDER{'' if given.many == MANY else f' --many {given.many}'}`",
            "",
            f"One judge, right on {judge.spec.accuracy:.1%} of held-out digits; one seed each.",
            "",
            "| drawn by | pictures | labels right | Frechet distance | real ones' | brightness (sd), real |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
            "![eighty digits of the lesson's model, and eighty of ours](lesson-quality.png)",
        ]
    )
    titles = ["the lesson: ten epochs, 1,000 steps", f"mnist-fast: {steps} steps"]
    pixels.write_png(pixels.side_by_side(sheets[:2], titles), machine.RESULTS / "lesson-quality.png")
    machine.write("lesson-quality", {"runs": rows}, page)
    sys.stdout.write(page + "\n")


if __name__ == "__main__":
    main()
