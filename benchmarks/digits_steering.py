"""What steers do to coloured digits, told by judges that did not steer.

    diffsteer train digits-color --optimizer adamw --conditioning none --steps 807 --out runs/plain
    diffsteer train digits-color --optimizer adamw --steps 700 --out runs/labelled
    python tests/steering/tiny_clip.py clip
    python benchmarks/digits_steering.py --plain runs/plain --labelled runs/labelled --clip clip

Text and colour on the model without labels, colour on the model with. The digit is read by an SVC of the real grey digits from each pixel's
largest channel, the colour from the mean of the lit pixels' colour, as the nearest of the data's three tints. Writes
benchmarks/results/digits-steering.json and .md.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor

import diffsteer
import machine
from diffsteer.sampling.draw import Job, draw
from diffsteer.steering.colors import parse_color

TINTS = {"red": (0.9, 0.2, 0.2), "green": (0.2, 0.8, 0.3), "blue": (0.25, 0.4, 0.95)}
LIT = 0.25  # of a pixel's largest channel
COLOR = "#1ae680"


class Judges:
    """Read the digit and the colour of pictures uint8 [N, 3, 8, 8]."""

    def __init__(self) -> None:
        real = load_digits()
        self.svc = SVC(gamma=0.5, C=10).fit(real.images.reshape(len(real.images), -1) / 16, real.target)

    def digits(self, pictures: Tensor) -> np.ndarray:
        ink = pictures.amax(1).flatten(1).double() / 255
        return self.svc.predict((ink / ink.amax(1, keepdim=True).clamp_min(0.3)).numpy())  # a tint's brightest is below 1

    def colors(self, pictures: Tensor) -> np.ndarray:
        u = pictures.double() / 255
        light = u.amax(1, keepdim=True)
        mean = (u * light).sum((2, 3)) / light.sum((2, 3)).clamp_min(1e-6)
        mean = mean / mean.amax(1, keepdim=True).clamp_min(1e-6)
        tints = torch.tensor(list(TINTS.values())).double()
        return (mean[:, None] - tints / tints.amax(1, keepdim=True)).abs().sum(2).argmin(1).numpy()


def lit_distance(pictures: Tensor, color: str) -> tuple[float, float]:
    """(mean distance of the lit pixels from the colour, share of lit pixels)."""
    u = pictures.double() / 255
    lit = u.amax(1) > LIT
    away = (u - torch.tensor(parse_color(color)).double()[:, None, None]).abs().mean(1)
    return float(away[lit].mean()), float(lit.double().mean())


def text_rows(model: Any, clip: str, count: int, judges: Judges) -> list[dict[str, Any]]:
    """A row a way of asking: the share of pictures with the right colour, the right digit, and both."""
    jobs = [Job(None, seed) for seed in range(count)]
    ways: dict[str, tuple[list[str], int, str]] = {
        "unsteered (a red three by chance)": ([], 3, "red"),
        "a red three": ([f"clip=a red three,model={clip}"], 3, "red"),
        "a red three, covariance": ([f"clip=a red three,model={clip},way=covariance"], 3, "red"),
        "a red three, shortcut": ([f"clip=a red three,model={clip},way=shortcut"], 3, "red"),
        "a blue seven": ([f"clip=a blue seven,model={clip}"], 7, "blue"),
        "a three, and color=#33cc4d": ([f"clip=a three,model={clip}", "color=#33cc4d"], 3, "green"),
        "a zero, and hue=red": ([f"clip=a zero,model={clip}", "hue=red"], 0, "red"),
    }
    rows = []
    for name, (words, digit, color) in ways.items():
        start = time.perf_counter()
        drawn = draw(model, jobs, steers=diffsteer.steer(model, *words).steers)
        seconds = time.perf_counter() - start
        digits, colors = judges.digits(drawn.pictures) == digit, judges.colors(drawn.pictures) == list(TINTS).index(color)
        shares = {"digit": float(digits.mean()), "color": float(colors.mean()), "both": float((digits & colors).mean())}
        rows.append({"steer": name, "pictures": count, **shares, "ms_a_picture": 1000 * seconds / count})
        sys.stderr.write(f"{rows[-1]}\n")
    return rows


def color_rows(model: Any, judges: Judges) -> list[dict[str, Any]]:
    """100 pictures by label, unsteered and steered by one colour."""
    jobs = [Job(label, seed) for seed, label in enumerate(label for label in range(10) for _ in range(10))]
    rows = []
    for words in ([], [f"color={COLOR}"]):
        pictures = draw(model, jobs, steers=diffsteer.steer(model, *words).steers).pictures
        away, share = lit_distance(pictures, COLOR)
        right = float((judges.digits(pictures) == np.array([job.label for job in jobs])).mean())
        rows.append({"steer": words[0] if words else "unsteered", "distance": away, "lit": share, "digit": right, "pictures": len(jobs)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", required=True, help="a run on digits-color without labels")
    parser.add_argument("--labelled", required=True, help="a run on digits-color with labels")
    parser.add_argument("--clip", required=True, help="the folder that tests/steering/tiny_clip.py made")
    parser.add_argument("--count", type=int, default=100)
    given = parser.parse_args()
    judges = Judges()
    colored = color_rows(diffsteer.load(given.labelled), judges)
    before, after = colored
    told = text_rows(diffsteer.load(given.plain), given.clip, given.count, judges)
    page = ["# Steering coloured digits", "", "```", *(line.strip() for line in str(__doc__).splitlines()[2:6]), "```", ""]
    page += ["| steer | digit right | colour right | both | ms a picture |", "|---|---|---|---|---|"]
    page += [f"| {r['steer']} | {r['digit']:.0%} | {r['color']:.0%} | {r['both']:.0%} | {r['ms_a_picture']:.0f} |" for r in told]
    page += ["", f"{given.count} pictures a row, seeds 0 to {given.count - 1}.", ""]
    page += [f"`--steer color={COLOR}` at its default, on the model with labels, {after['pictures']} pictures:", ""]
    page += ["| | unsteered | steered | change |", "|---|---|---|---|"]
    for key, name in (("distance", "lit pixels' mean distance"), ("lit", "share of lit pixels"), ("digit", "digit right")):
        page.append(f"| {name} | {before[key]:.3f} | {after[key]:.3f} | {after[key] / before[key] - 1:+.0%} |")
    machine.write("digits-steering", {"text": told, "color": colored}, "\n".join(page))
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
