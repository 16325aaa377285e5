"""Any of diffusers' schedulers as a solver, by class name.

In: a scheduler's name, the process the model was trained on, and a number of steps. Out: a solver (same arguments as those in solvers.py)
and the times it evaluates the denoiser at. Sampling calls this for a solver's name that ends in "Scheduler".
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffsteer.diffusion.process import Process
from diffsteer.diffusion.seeds import PictureNoise
from diffsteer.errors import Mistake
from diffsteer.sampling.solvers import Cond, Denoise, Solver, Step, noise_levels, settled


def diffusers_solver(class_name: str, process: Process, steps: int, *, overrides: dict[str, Any] | None = None) -> tuple[Solver, Tensor]:
    """(solver, times) of a diffusers scheduler; `overrides` are options of that class. Two stages make about two times a step."""
    prediction = _prediction(class_name, process)
    as_trained = process if process.name == "edm" else replace(process, sigma_data=1.0)  # elsewhere diffusers' v knows no sigma_data

    def prepared() -> Any:
        return _build(class_name, process, prediction, steps, overrides or {})

    @torch.no_grad()
    def solve(
        denoise: Denoise, x: Tensor, times: Tensor, process: Process, *, cond: Cond = None, noise: PictureNoise | None = None,
        recurrence: int = 1,
    ) -> Iterator[Step]:  # fmt: skip
        scheduler = prepared()  # schedulers remember their last steps: a fresh one each time
        extra: dict[str, Any] = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            if noise is None:
                raise ValueError(f"{class_name} may draw noise: pass noise=, a PictureNoise")
            extra["generator"] = noise.generators  # one a picture: diffusers draws a list one by one
        if process.variance_preserving:
            x = x * scheduler.init_noise_sigma  # some keep x / alpha as their state
        levels = pairwise(noise_levels(times, process))
        for k, (t, theirs, (now, then)) in enumerate(zip(times, scheduler.timesteps, levels, strict=True)):
            # EDM's scaling is the network's input scale here, not a change of state; calling it keeps the scheduler's books.
            scaled = scheduler.scale_model_input(x, theirs) if hasattr(scheduler, "scale_model_input") else x
            before = scaled if process.variance_preserving else x
            x_t, x0 = settled(denoise, before, t, cond, now, then, noise, recurrence)
            if recurrence > 1:  # their state of the new x_t
                x = x_t * (x.norm() / before.norm())
            yield Step(k, float(t), x_t, x0)
            output = as_trained.from_x0(prediction, x0, x_t, t)
            x = scheduler.step(output, theirs, x, return_dict=False, **extra)[0]
        yield Step(len(times), 0.0, x, x)

    return solve, _times(prepared(), process)


def _scheduler_classes() -> dict[str, Any]:
    import diffusers

    return {name: getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Scheduler")}


def _options(scheduler_class: Any) -> set[str]:
    return set(inspect.signature(scheduler_class.__init__).parameters) - {"self"}


def _fits(name: str, scheduler_class: Any, process: Process) -> bool:
    """Whether a scheduler can walk this process from noise to a picture, by its name and its options."""
    options = _options(scheduler_class)
    if "Inverse" in name or "noise_sampler_seed" in options:  # the other way; one seed for all pictures of a batch
        return False
    if process.name == "flow":
        return name.startswith("FlowMatch") or "use_flow_sigmas" in options
    if process.name == "edm":
        return name.startswith("EDM")
    return {"beta_schedule", "trained_betas", "prediction_type"} <= options


def _prediction(class_name: str, process: Process) -> str:
    """What to hand the scheduler. v is exact at any noise and all take it but PNDM, which averages outputs over states: only eps can be."""
    if process.name == "flow":
        return "flow"
    return "eps" if class_name == "PNDMScheduler" else "v"


def _build(class_name: str, process: Process, prediction: str, steps: int, overrides: dict[str, Any]) -> Any:
    """A scheduler with its times set, or a Mistake that says why there is none."""
    classes = _scheduler_classes()
    if class_name not in classes:
        near = difflib.get_close_matches(class_name, classes, n=3) or ["DPMSolverMultistepScheduler"]
        raise Mistake(f"diffusers has no scheduler {class_name!r}; did you mean {' or '.join(near)}?")
    if not _fits(class_name, classes[class_name], process):
        fitting = [name for name, candidate in classes.items() if _fits(name, candidate, process)]
        raise Mistake(f"{class_name} does not fit the process {process.name}; these do: {', '.join(fitting)}")
    options = _options(classes[class_name])
    if unknown := sorted(set(overrides) - options):
        raise Mistake(f"{class_name} has no option {', '.join(unknown)}; it has {', '.join(sorted(options))}")
    config = process.scheduler_config(prediction)
    if process.name == "flow":
        config |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    config = {key: value for key, value in config.items() if key in options}
    try:
        scheduler = classes[class_name].from_config(config | overrides)
        scheduler.set_timesteps(steps)
    except (ValueError, LookupError, NotImplementedError, ImportError) as error:
        raise Mistake(f"diffusers cannot set up {class_name} with {steps} steps and these options: {error!r}; try others") from error
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # else it looks for the first of its rounded timesteps and may find the second
    _check_schedule(class_name, scheduler, process)
    return scheduler


def _check_schedule(class_name: str, scheduler: Any, process: Process) -> None:
    """Some options, and a few classes, change the noise schedule itself: what the model was trained on must stay."""
    same = bool((_times(scheduler, process) <= process.t_max).all())
    if process.variance_preserving:
        alphas = process.alpha_sigma(torch.arange(process.train_steps))[0]
        same = same and torch.allclose(scheduler.alphas_cumprod, alphas**2, atol=1e-4)
    if not same:
        raise Mistake(f"{class_name} with these steps and options leaves the noise schedule of the model's {process.name}; try others")


def _times(scheduler: Any, process: Process) -> Tensor:
    """The process's times of the noise levels that the scheduler computes with, [evaluations] float64.

    Where it has sigmas they are asked: its timesteps may be rounded, and then say something else.
    """
    told = scheduler.timesteps.double().cpu()
    if not hasattr(scheduler, "sigmas"):
        return told
    sigmas = scheduler.sigmas[: len(told)].double().cpu()
    times = 1000 * sigmas if process.name == "flow" else process.time_of(sigmas)
    if hasattr(scheduler, "sigmas_interpol"):  # DPM-Solver-2 evaluates every second time between two of its sigmas
        times[1::2] = told[1::2]
    return times
