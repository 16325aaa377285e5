"""What the class-conditioned lesson draws after its ten epochs, beside the recipe `mnist-fast`: the same judge, the same labels.

    python benchmarks/time_to_quality.py DATA --out FOLDER
    python benchmarks/lesson_quality.py DATA --out FOLDER [--count 1000] [--many 10000] [--set processes=2]

The lesson's recipe is trained to its end and draws by its 1,000 ancestral steps: hours on a CPU. Both go on where an interrupted command
left off: the run resumes, and every 100 pictures drawn are kept. (On two cores, two processes of one thread each train a little faster than
one of two.) Ours is the first run that `time_to_quality.py` left in FOLDER, with its judge; it draws as many, and then `--many`. Writes
benchmarks/results/lesson-quality.json, .md and .png (80 pictures of each).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

import commands
import machine
from diffsteer.data import pixels
from diffsteer.data.batch import Pictures
from diffsteer.data.images import load_pictures
from diffsteer.diffusion.judge import Judge, load_judge
from diffsteer.evaluation.report import Scores
from diffsteer.judging import ids_judged, scored_jobs, scorer
from diffsteer.recipebook import train_settings
from diffsteer.sampling.draw import How, draw
from diffsteer.sampling.folder import load_model

CHUNK, SHOWN, COLUMNS = 100, 80, 10


def drawn(run: Path, count: int, steps: int | None, keep: Path) -> Tensor:
    """Pictures uint8 [count, 1, H, W], labels in turn, seeds from 0 on, in so many steps of the model's solver; kept in a folder, some at a
    time."""
    model = load_model(str(run))
    keep.mkdir(parents=True, exist_ok=True)
    parts = []
    for first in range(0, count, CHUNK):
        file = keep / f"{first:06d}.pt"
        if not file.is_file():
            jobs = scored_jobs(range(len(model.spec.label_names)), min(CHUNK, count - first), first)
            torch.save(draw(model, jobs, How(steps=steps)).pictures, file)
            sys.stderr.write(f"{run.name}: {first + len(jobs)} of {count}\n")
        parts.append(torch.load(file))
    return torch.cat(parts)


def scored(run: Path, pictures: Tensor, data: Pictures, judge: Judge) -> Scores:
    """Of pictures with labels in turn."""
    spec = load_model(str(run)).spec
    ids = ids_judged(spec, scored_jobs(range(len(spec.label_names)), len(pictures)), judge)
    return scorer(data, None, judge, ids, count=len(pictures), split="train", say=sys.stderr.write)(pictures)


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
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--set", nargs="*", default=[], help="settings of the lesson's run beside its recipe, NAME=VALUE")
    given = parser.parse_args()
    lesson, ours = given.out / "lesson", given.out / "seed-0"
    words = ["train", given.data, "--recipe", "seed-class-conditional", "--figures", "none", "--preview-every", "469", "--out", str(lesson)]
    commands.told(*words, *commands.words_of(given.set))
    data, judge = load_pictures(given.data, need_labels=True), load_judge(given.out / "judge")
    steps = train_settings("mnist-fast", {}).sample_steps
    kinds = [("the lesson's, 10 epochs, 1,000 ancestral steps", lesson, given.count, None), ("`mnist-fast`", ours, given.count, steps)]
    kinds += [("`mnist-fast`", ours, given.many, steps)] if given.many else []
    rows, lines, sheets = [], [], []
    for name, run, count, asked in kinds:
        pictures = drawn(run, count, asked, given.out / f"drawn-{run.name}")
        scores = scored(run, pictures, data, judge)
        rows.append({"run": run.name, "count": count, "scores": scores.to_dict()})
        lines.append(line(name, scores))
        sheets.append(pixels.grid(pictures[:SHOWN], columns=COLUMNS, invert=True))
    page = "\n".join(
        [
            "# The lesson's pictures and ours",
            "",
            f"`python benchmarks/{Path(__file__).name} DATA --out FOLDER --count {given.count} --many {given.many}`",
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
