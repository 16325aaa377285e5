"""Do drawn digits show the label asked for, and do they differ as real ones do?

    diffsteer sample runs/d --labels 0-9 --per-label 100 --out d.npz
    python benchmarks/digits_accuracy.py d.npz

An SVC trained on all 1,797 real digits reads the drawn ones. Variety is the mean distance between two pictures of a class, drawn over real.
The median distance to the nearest real picture, beside the same among the real ones, hints at copying: far below it, pictures are copied.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC


def spread(pictures: np.ndarray) -> float:
    """Mean distance between two different pictures [N, D]."""
    distances = np.sqrt(((pictures[:, None] - pictures[None]) ** 2).sum(-1))
    return float(distances.sum() / (len(pictures) * (len(pictures) - 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("npz", type=Path)
    parser.add_argument("--out", type=Path, help="write the numbers here as JSON")
    given = parser.parse_args()

    data = load_digits()
    real, real_labels = data.data / 16, data.target
    arrays = np.load(given.npz)
    drawn, labels = arrays["arr_0"].reshape(len(arrays["arr_0"]), -1) / 255, arrays["arr_1"]

    read = SVC(gamma=0.5, C=10).fit(real, real_labels).predict(drawn)
    per_class = {str(label): float((read[labels == label] == label).mean()) for label in range(10)}
    ratios = [spread(drawn[labels == label]) / spread(real[real_labels == label]) for label in range(10)]
    copies = ((drawn[:, None] - real[None]) ** 2).sum(-1).min(1) ** 0.5
    gaps = ((real[:, None] - real[None]) ** 2).sum(-1) ** 0.5
    np.fill_diagonal(gaps, np.inf)
    result = {
        "pictures": len(drawn),
        "accuracy": float((read == labels).mean()),
        "accuracy_per_class": per_class,
        "variety_ratio_per_class": {str(label): round(ratio, 3) for label, ratio in enumerate(ratios)},
        "variety_ratio": float(np.mean(ratios)),
        "nearest_real_median": float(np.median(copies)),
        "nearest_real_median_of_real": float(np.median(gaps.min(1))),
    }
    text = json.dumps(result, indent=1)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
