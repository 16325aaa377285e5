"""The story so far on built-in data: check, train, sample, steer, score. What `diffsteer demo` and `make demo` run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from diffsteer import run
from diffsteer.config import EvaluateSettings, SampleSettings
from diffsteer.data.check import check
from diffsteer.data.images import load_pictures
from diffsteer.diffusion.judge import save_judge
from diffsteer.drawing import sample_to
from diffsteer.errors import Mistake
from diffsteer.evaluating import evaluate
from diffsteer.evaluation.report import Scores
from diffsteer.judging import SEED, shown_training
from diffsteer.order import Order
from diffsteer.recipebook import train_settings


def demo(out: Path, say: Callable[[str], None], started: float) -> None:
    """Checks, trains on and draws the built-in digits into `out`; run again, it goes on where it was. Raises Mistake."""
    if out.is_file():
        raise Mistake(f"{out} is a file; give demo a folder by --out.")
    say("1. diffsteer check digits")
    report = check("digits", out=out / "check")
    for line in report.lines():
        say(f"   {line}")

    say("\n2. diffsteer train digits --recipe digits")
    result = run.train(train_settings("digits", {}), out / "run", say=lambda line: say(f"   {line}"), started=started)
    say(f"   {result.steps} steps, loss {result.loss:.4f}, {result.seconds:.0f} s")

    say("\n3. diffsteer sample: every digit, and how it is drawn")
    run_folder = str(out / "run")
    grid = sample_to(Order(run_folder, SampleSettings(overwrite=True)), str(out / "digits.png"))
    film = sample_to(Order(run_folder, SampleSettings(per_label=4, columns=8, film=True, overwrite=True)), str(out / "drawing.gif"))

    say("\n4. diffsteer sample --labels 0,1,4,6,8 --per-label 1 --steer symmetry --sweep strength=0,0.3,1,3: ever more symmetric")
    steered = SampleSettings(labels="0,1,4,6,8", per_label=1, steer=("symmetry",), sweep="strength=0,0.3,1,3", overwrite=True)
    swept = sample_to(Order(run_folder, steered), str(out / "symmetric.png"))

    say("\n5. diffsteer judge digits, in short, and diffsteer evaluate --count 200: how many are the digit that was asked for?")
    # A sixth of the usual length, so a few seconds, and the same judge on every machine: it is right on 99 of 100.
    save_judge(out / "judge", shown_training(load_pictures("digits"), seed=SEED, epochs=8))
    settings = EvaluateSettings(count=200, judge=str(out / "judge"))
    (row,) = evaluate(run_folder, "digits", settings, out / "scores").rows
    for line in _scorecard(row.scores):
        say(f"   {line}")

    say("\npictures to look at:")
    for path, what in (
        (out / "check" / "sheet.png", "what the model saw"),
        (out / "run" / "previews" / "previews.gif", "the same seeds, from noise to digits, while it learnt"),
        (out / "run" / "figures" / "loss.png", "its loss"),
        (grid.paths[0], "eight of every digit"),
        (film.paths[0], "pictures being drawn"),
        (film.paths[1], "the same, step by step"),
        (swept.paths[0], "steered by a loss"),
        (out / "scores" / "00-confusion.png", "which digits are taken for which"),
    ):
        say(f"   {path}   {what}")
    say(f"\nnext: diffsteer sample {run_folder} --labels 3,7 --per-label 16 --steer brightness=0.45 --out bold.png")


def _scorecard(scores: Scores) -> Iterator[str]:
    right, far, wide = scores.accuracy, scores.frechet, scores.variety
    assert right is not None and wide is not None  # the digits have labels, and each was drawn many times
    judged = f"read by a judge that is right on {right.floor:.1%} of real ones"
    yield f"{right.value:.1%} ± {right.error:.1%} of {right.count} are the digit asked for, {judged}"
    yield f"Frechet distance from real digits {far.value:.2f} ± {far.error:.2f}; as many other real digits are {far.floor:.2f} from them"
    yield f"digits of a kind differ from one another {wide.value:.2f} ± {wide.error:.2f} times as much as real ones do"
