"""What each way of steering does to a Gaussian, exactly: N(0, 1) and y = 1 seen with noise r^2, linear betas, trailing grid, no clipping.

    python benchmarks/steering_gaussian.py

No sampling: every step is affine, so mean and variance are read off particles that start at unit vectors
(tests/steering/gaussians.py). The truth is N(1 / (1 + r^2), r^2 / (1 + r^2)). Writes benchmarks/results/steering-gaussian.json and .md.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "steering"))
from gaussians import observed, steered_walk

import machine
from diffsteer.steering.gradient import WAYS, Steer

STEPS = (20, 50, 100, 1000)
SOLVERS = {"ddpm": "eta 1", "ddim": "eta 0"}
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)


def main() -> None:
    bias = [
        {"way": way, "solver": solver, "steps": steps, "mean": mean, "variance": variance}
        for way in WAYS
        for solver in SOLVERS
        for steps in STEPS
        for mean, variance in [steered_walk([Steer(observed(1.0, 0.25), way=way)], solver, steps)]
    ]
    stiff = [
        {"way": way, "strength": strength, "mean": mean, "variance": variance}
        for way in WAYS
        for strength in STRENGTHS
        for mean, variance in [steered_walk([Steer(observed(1.0, 0.01), way=way, strength=strength)], "ddpm", 50)]
    ]
    page = [
        "# Steering a Gaussian",
        "",
        f"`python benchmarks/{Path(__file__).name}`",
        "",
        "r^2 = 0.25; the truth is mean 0.8, variance 0.2:",
        "",
    ]
    page += [f"| way | | {' | '.join(f'{steps} steps' for steps in STEPS)} |", "|---|---|" + "---|" * len(STEPS)]
    for way in WAYS:
        for solver, eta in SOLVERS.items():
            cells = [f"{one['mean']:.4f} / {one['variance']:.4f}" for one in bias if (one["way"], one["solver"]) == (way, solver)]
            page.append(f"| `{way}` | {eta} | {' | '.join(cells)} |")
    page += ["", "r^2 = 0.01 without clipping, 50 steps, eta 1 (with clipping, the default, nothing leaves [-1, 1]):", ""]
    page += [f"| way | {' | '.join(f'strength {strength:g}' for strength in STRENGTHS)} |", "|---|" + "---|" * len(STRENGTHS)]
    for way in WAYS:
        cells = [f"{one['mean']:.3g} / {one['variance']:.2g}" for one in stiff if one["way"] == way]
        page.append(f"| `{way}` | {' | '.join(cells)} |")
    machine.write("steering-gaussian", {"r2_0.25": bias, "r2_0.01": stiff}, "\n".join(page))
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
