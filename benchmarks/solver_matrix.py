"""How close each solver comes to the truth, in every cell of (process x prediction x solver x steps), with diffusers' schedulers beside.

    python benchmarks/solver_matrix.py

The data is a toy whose exact denoiser is known (tests/sampling/oracles.py); the measure is the Wasserstein-1 distance of the pixels. Each
cell is run with the exact denoiser and with one whose network errs by 2 %. A cell passes if both distances are within its bar. Writes
benchmarks/results/solver-matrix.json and .md.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "sampling"))
from oracles import distance, erring, mixture

from diffsteer.diffusion.process import PREDICTIONS, PROCESSES, Process
from diffsteer.diffusion.seeds import PictureNoise
from diffsteer.sampling.solvers import SOLVERS, SolverSpec, time_grid

STEPS = (5, 10, 20, 50)
ERROR = 0.02
SEED = 0
RESULTS = Path(__file__).parent / "results"


def bar(steps: int, order: int) -> float:
    """The largest distance that passes: loose for few steps, tighter from 20 on and for second order."""
    return 0.15 if steps < 20 else 0.05 if order > 1 else 0.08


@dataclass(frozen=True)
class Cell:
    """W1 with the exact denoiser and with the erring one; infinite where no finite pixels came out."""

    process: str
    prediction: str
    solver: str
    steps: int
    evaluations: int
    bar: float
    exact: float
    erring: float
    failure: str = ""

    @property
    def passed(self) -> bool:
        return max(self.exact, self.erring) <= self.bar


def our_cells(steps_tried: tuple[int, ...] = STEPS, pictures: int = 16, side: int = 32) -> Iterator[Cell]:
    """Every valid cell. `mix` is Euler's method on flow and has no meaning elsewhere; seed-004 samples no data's distribution: left out."""
    for solver, spec in SOLVERS.items():
        if solver == "seed-004":
            continue
        for process in map(Process, spec.processes):
            for steps in steps_tried:
                times = time_grid(process, spec, steps)
                exact = our_distance(spec, process, times, pictures, side, prediction=None)  # the same for every prediction
                for prediction in PREDICTIONS:
                    with_error = our_distance(spec, process, times, pictures, side, prediction)
                    yield Cell(process.name, prediction, solver, steps, spec.evaluations(steps), bar(steps, spec.order), exact, with_error)


def our_distance(spec: SolverSpec, process: Process, times: Tensor, pictures: int, side: int, prediction: str | None) -> float:
    denoise = mixture(process)
    if prediction:
        denoise = erring(denoise, process, prediction, torch.Generator().manual_seed(SEED), ERROR)
    held = (lambda x, t, cond: denoise(x, t, cond).clamp(-1, 1)) if spec.clip else denoise
    noise = PictureNoise.from_seeds(range(pictures), (1, side, side))
    x = noise() * process.start_scale(times[0])
    *_, last = spec.solve(held, x, times, process, noise=noise)
    return distance(last.x0)


# ---- diffusers' schedulers with their default options, driven as its pipelines drive them ----------------------------

FIRST_ORDER = ("DDPM", "DDIM", "EulerDiscrete", "EulerAncestralDiscrete", "FlowMatchEulerDiscrete", "EDMEuler")
WITH_FLOW_SIGMAS = ("DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep", "SASolver")
OF_BETAS = (
    *("DDPM", "DDIM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete"),
    *("KDPM2AncestralDiscrete", *WITH_FLOW_SIGMAS),
)
THEIR_WORDS = {"x0": "sample", "eps": "epsilon", "v": "v_prediction", "flow": "flow_prediction"}


def their_choices(process: str) -> Iterator[tuple[str, str]]:
    """(scheduler, prediction) wherever its documentation offers that prediction for that process."""
    if process == "flow":
        for name in ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", *WITH_FLOW_SIGMAS):
            yield name, "flow"
    elif process == "edm":
        yield from (("EDMEuler", "v"), ("EDMDPMSolverMultistep", "v"), ("EDMDPMSolverMultistep", "x0"))
    else:
        for name in OF_BETAS:
            yield from ((name, prediction) for prediction in ("x0", "eps", "v") if (name, prediction) != ("PNDM", "x0"))


def their_cells(steps_tried: tuple[int, ...] = STEPS, pictures: int = 16, side: int = 32) -> Iterator[Cell]:
    for process in map(Process, PROCESSES):
        for name, prediction in their_choices(process.name):
            for steps in steps_tried:
                runs = [their_run(name, process, prediction, steps, pictures, side, error) for error in (0.0, ERROR)]
                (exact, evaluations, failure), (with_error, _, failure_with_error) = runs
                limit = bar(steps, 1 if name in FIRST_ORDER else 2)
                failure = failure or failure_with_error
                yield Cell(process.name, prediction, name + "Scheduler", steps, evaluations, limit, exact, with_error, failure)


def their_run(name: str, process: Process, prediction: str, steps: int, pictures: int, side: int, error: float) -> tuple[float, int, str]:
    """(distance, evaluations, what went wrong)."""
    count = 0

    def network(x: Tensor, t: Tensor) -> Tensor:
        """What an exact network answers when asked by the scheduler: x as scaled for it, t in the scheduler's word for time."""
        nonlocal count
        count += 1
        if process.name == "edm":  # t is EDM's c_noise, x is scaled by its c_in
            at = process.time_of((4 * t.double()).exp())
            x = x / process.input_scale(at)
        else:
            at = t.double()
        output = process.from_x0(prediction, mixture(process)(x, at, None), x, at)
        return output + error * torch.randn(x.shape, generator=generator)

    generator = torch.Generator().manual_seed(SEED)
    noise = PictureNoise.from_seeds(range(pictures), (1, side, side))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x = their_loop(name, process, prediction, steps, network, noise)
    except Exception as problem:  # a crash is what is being counted
        return math.inf, count, type(problem).__name__
    found = distance(x)
    return found, count, "" if math.isfinite(found) else "not finite"


def their_loop(
    name: str, process: Process, prediction: str, steps: int, network: Callable[[Tensor, Tensor], Tensor], noise: PictureNoise
) -> Tensor:
    import diffusers

    scheduler_class = getattr(diffusers, name + "Scheduler")
    config = process.scheduler_config(prediction)
    if name in WITH_FLOW_SIGMAS and process.name == "flow":
        config["use_flow_sigmas"] = True
    if not name.startswith("FlowMatch"):
        config["prediction_type"] = THEIR_WORDS[prediction]
    scheduler = scheduler_class.from_config(config)
    scheduler.set_timesteps(steps)
    generators = {"generator": noise.generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    x = noise() * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(scaled, t), t, x, return_dict=False, **generators)[0]
    return x


# ---- the report ------------------------------------------------------------------------------------------------------


def summary(cells: list[Cell]) -> dict[str, Any]:
    failed = [cell for cell in cells if not cell.passed]
    return {
        "cells": len(cells),
        "passed": len(cells) - len(failed),
        "failed": len(failed),
        "crashed": sum(cell.failure not in ("", "not finite") for cell in failed),
        "not_finite": sum(cell.failure == "not finite" for cell in failed),
        "over_the_bar": sum(not cell.failure for cell in failed),
        "over_the_bar_with_error_only": sum(not cell.failure and cell.exact <= cell.bar for cell in failed),
    }


def table(cells: list[Cell]) -> list[str]:
    """A line a solver: for each number of steps the worst distances, exact / erring, of the cells that ran; then crashes and passes."""
    lines = [f"| solver | {' | '.join(f'{steps} steps' for steps in STEPS)} | crashed | passed |", "|---" * (len(STEPS) + 3) + "|"]
    for solver in dict.fromkeys(cell.solver for cell in cells):
        mine = [cell for cell in cells if cell.solver == solver]
        ran = [cell for cell in mine if not cell.failure]
        worst = []
        for steps in STEPS:
            row = [cell for cell in ran if cell.steps == steps]
            worst.append(f"{max(cell.exact for cell in row):.3f} / {max(cell.erring for cell in row):.3f}" if row else "none ran")
        passed = sum(cell.passed for cell in mine)
        lines.append(f"| {solver} | {' | '.join(worst)} | {len(mine) - len(ran)} | {passed} of {len(mine)} |")
    return lines


def choices() -> list[str]:
    lines = ["| solver | grid | starts at sigma / alpha | x0 clipped | evaluations for n steps |", "|---|---|---|---|---|"]
    for name, spec in SOLVERS.items():
        if name != "seed-004":
            evaluations = "2n - 1" if spec.stages == 2 else "n"
            lines.append(f"| {name} | {spec.spacing} | {spec.max_ratio:g} | {'yes' if spec.clip else 'no'} | {evaluations} |")
    return lines


def main() -> None:
    import diffusers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for solver-matrix.json and .md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    ours, theirs = list(our_cells()), list(their_cells())
    about = {
        "machine": f"one CPU thread ({platform.machine()}, {platform.system()}, {os.cpu_count()} cores); no GPU used",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "diffusers": diffusers.__version__},
        "seed": SEED,
        "pixels": 16 * 32 * 32,
        "error_on_network_output": ERROR,
        "bars": {"5 and 10 steps": 0.15, "20 and 50 steps, first order": 0.08, "20 and 50 steps, second order": 0.05},
        "seconds": round(time.perf_counter() - start, 1),
    }
    result = {"about": about, "ours": summary(ours), "diffusers": summary(theirs)}
    cells = {"our_cells": [_plain(cell) for cell in ours], "diffusers_cells": [_plain(cell) for cell in theirs]}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "solver-matrix.json").write_text(json.dumps(result | cells, indent=1) + "\n")
    text = "\n".join(
        [
            "# The solver matrix",
            "",
            "Made by `python benchmarks/solver_matrix.py`; every cell is in `solver-matrix.json`. Wasserstein-1 distance to a toy of known",
            "distribution, the worst over processes and predictions: exact denoiser / 2 % error on the network's output.",
            "",
            *(f"- {key}: {value}" for key, value in about.items()),
            "",
            f"## Ours: {result['ours']['passed']} of {result['ours']['cells']} cells pass",
            "",
            *table(ours),
            "",
            "One choice a solver, the same in every cell:",
            "",
            *choices(),
            "",
            f"## diffusers' schedulers, default options: {result['diffusers']['passed']} of {result['diffusers']['cells']} cells pass",
            "",
            "Failures: {crashed} crash, {not_finite} not finite, {over_the_bar} over the bar, of which {over_the_bar_with_error_only} only"
            " with the error.".format(**result["diffusers"]),
            "",
            *table(theirs),
            "",
        ]
    )
    (given.out / "solver-matrix.md").write_text(text)
    sys.stdout.write(text)


def _plain(cell: Cell) -> dict[str, Any]:
    """A cell as JSON, which knows no infinity."""
    values = {
        key: (None if value == math.inf else round(value, 5) if isinstance(value, float) else value) for key, value in asdict(cell).items()
    }
    return {**values, "passed": cell.passed}


if __name__ == "__main__":
    main()
