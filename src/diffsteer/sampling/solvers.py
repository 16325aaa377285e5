"""Solvers: generators that walk from noise to a picture, one item a step.

In: a denoiser `(x_t, t, cond) -> x0`, pure noise of the size `process.start_scale(times[0])`, and the times from `time_grid`. Out: a `Step`
for each time, then the picture. Sampling and the saved pipelines call them; guidance, steering and clipping are denoisers made from
denoisers, so nothing here hears of them. Every update is written in x0, so what a steer does to x0 reaches the noise estimate as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from diffsteer.diffusion.process import PROCESSES, Process

Cond = Tensor | None
Denoise = Callable[[Tensor, Tensor, Cond], Tensor]
DrawNoise = Callable[[torch.device], Tensor]


class Step(NamedTuple):
    """What a solver yields: before step `step` the state is x_t [B, C, H, W] at time t, and the denoiser says x0. Last, the picture."""

    step: int
    t: float
    x_t: Tensor
    x0: Tensor


# ---- the solvers -----------------------------------------------------------------------------------------------------
# Same arguments for all. x [B, C, H, W] float32; times [N] float64, decreasing; the step from the last time lands on alpha 1, sigma 0. The
# denoiser gets its time as a 0-dim float64 tensor on the CPU. Coefficients are Python floats, known before the first step: no step waits
# for the device. `no_grad` round a generator holds only while the generator runs, so callers and steers may use gradients.
# recurrence: how often each step is taken, noise put back between (for steers); more than once needs `noise`.


@torch.no_grad()
def ddim(
    denoise: Denoise, x: Tensor, times: Tensor, process: Process, *, cond: Cond = None, noise: DrawNoise | None = None, recurrence: int = 1
) -> Iterator[Step]:
    """Song et al. 2021, eq. 12 with eta 0: keep the noise estimate, change its size.

    This is also Euler's method in sigma / alpha (Karras et al. 2022), and on flow it is Euler's method in t, whose step over an even grid,
    x <- x * (1 - 1 / (n - i)) + x0 / (n - i), mixes the picture in bit by bit. The three names differ in their grids alone.
    """
    for k, (now, then) in enumerate(pairwise(noise_levels(times, process))):
        x, x0 = settled(denoise, x, times[k], cond, now, then, noise, recurrence)
        yield Step(k, now.t, x, x0)
        keep, gain = _first_order(now, then)
        x = keep * x + gain * x0
    yield Step(len(times), 0.0, x, x)


@torch.no_grad()
def ddpm(
    denoise: Denoise, x: Tensor, times: Tensor, process: Process, *, cond: Cond = None, noise: DrawNoise | None = None, recurrence: int = 1
) -> Iterator[Step]:
    """Ho et al. 2020, eq. 7: draw from q(x_s | x_t, x0) between any two times of any process (the small variance of the two they name).

    With q the ratio of the two noise ratios, the noise of x_s is q parts old and sqrt(1 - q^2) parts new.
    """
    if noise is None:
        raise ValueError("ddpm draws noise at every step: pass noise=, for example a PictureNoise")
    for k, (now, then) in enumerate(pairwise(noise_levels(times, process))):
        x, x0 = settled(denoise, x, times[k], cond, now, then, noise, recurrence)
        yield Step(k, now.t, x, x0)
        q = then.sigma * now.alpha / (now.sigma * then.alpha)
        keep = q * then.sigma / now.sigma
        x = keep * x + (then.alpha - now.alpha * keep) * x0
        if then.sigma:
            x = x + then.sigma * math.sqrt(1 - q**2) * noise(x.device)
    yield Step(len(times), 0.0, x, x)


@torch.no_grad()
def heun(
    denoise: Denoise, x: Tensor, times: Tensor, process: Process, *, cond: Cond = None, noise: DrawNoise | None = None, recurrence: int = 1
) -> Iterator[Step]:
    """The second-order method of Karras et al. 2022, algorithm 1: Euler's step, then again with the mean of the slopes at its two ends.

    Theirs runs along sigma / alpha. Ours runs along its arctangent, the angle of Salimans & Ho 2022, appendix D, in which the slope of x
    (scaled to unit size) is v: bounded at any noise, so five steps stay sane and flow's t = 1000 is no special case. Two evaluations a
    step, one in the last.
    """
    for k, (now, then) in enumerate(pairwise(noise_levels(times, process))):
        x, x0 = settled(denoise, x, times[k], cond, now, then, noise, recurrence)
        yield Step(k, now.t, x, x0)
        keep, gain = _first_order(now, then)
        euler = keep * x + gain * x0
        if then.sigma:
            slope = _angular_slope(now, x, x0) + _angular_slope(then, euler, denoise(euler, times[k + 1], cond))
            x = then.size * (x / now.size + (then.angle - now.angle) / 2 * slope)
        else:
            x = euler
    yield Step(len(times), 0.0, x, x)


@torch.no_grad()
def dpm_plus_plus_2m(
    denoise: Denoise, x: Tensor, times: Tensor, process: Process, *, cond: Cond = None, noise: DrawNoise | None = None, recurrence: int = 1
) -> Iterator[Step]:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2: second order from the x0 of the step before; first order at both ends."""
    before, h = x, math.inf  # x0 of the step before, and how far in log-SNR it went
    for k, (now, then) in enumerate(pairwise(noise_levels(times, process))):
        x, x0 = settled(denoise, x, times[k], cond, now, then, noise, recurrence)
        yield Step(k, now.t, x, x0)
        h_before, h = h, then.log_snr - now.log_snr
        keep, gain = _first_order(now, then)
        d = x0 + h / (2 * h_before) * (x0 - before) if k and then.sigma else x0
        x, before = keep * x + gain * d, x0
    yield Step(len(times), 0.0, x, x)


@torch.no_grad()
def unipc(
    denoise: Denoise, x: Tensor, times: Tensor, process: Process, *, cond: Cond = None, noise: DrawNoise | None = None, recurrence: int = 1
) -> Iterator[Step]:
    """UniPC-2, Zhao et al. 2023, section 3, in its form for data prediction, with B_2(h) = e^h - 1.

    The x0 found at a new state first corrects the step that led there, at no further evaluation, then predicts the next. The predictor is
    dpm++2m's. What is yielded is the state that the denoiser saw, before its correction.
    """
    start, before, slope = x, x, torch.zeros_like(x)  # of the step before: its corrected x, its x0, and the change of x0 per h up to it
    keep, gain, h, h_before = 0.0, 0.0, math.inf, math.inf
    for k, (now, then) in enumerate(pairwise(noise_levels(times, process))):
        x, x0 = settled(denoise, x, times[k], cond, now, then, noise, recurrence)
        yield Step(k, now.t, x, x0)
        if k:
            change = x0 - before
            if recurrence == 1:  # after new noise, the step that led here is past correcting
                rho_1, rho_2 = _unipc_weights(h, h_before)
                x = keep * start + gain * (before + (rho_1 * h * slope + rho_2 * change if k > 1 else change / 2))
            slope = change / h
        h_before, h = h, then.log_snr - now.log_snr
        keep, gain = _first_order(now, then)
        start, before = x, x0
        x = keep * x + gain * (x0 + h / 2 * slope if k and then.sigma else x0)
    yield Step(len(times), 0.0, x, x)


@torch.no_grad()
def seed_004(
    denoise: Denoise, x: Tensor, times: Tensor, process: Process, *, cond: Cond = None, noise: DrawNoise | None = None, recurrence: int = 1
) -> Iterator[Step]:
    """The step of the course's blog, kept for comparison: the picture at the *present* noise level's size plus sqrt(beta_t) of new noise.

    It is no posterior: the noise estimate is thrown away, and what is left is far too clean for the time the network is told next.
    """
    if noise is None:
        raise ValueError("seed-004 draws noise at every step: pass noise=, for example a PictureNoise")
    one_before = process.alpha_sigma(times - 1)[0].tolist()  # below 0 it reads index 0
    for k, (now, then) in enumerate(pairwise(noise_levels(times, process))):
        x, x0 = settled(denoise, x, times[k], cond, now, then, noise, recurrence)
        yield Step(k, now.t, x, x0)
        beta = 1 - (now.alpha / one_before[k]) ** 2
        x = now.alpha * x0 + math.sqrt(beta) * noise(x.device) if then.sigma else x0
    yield Step(len(times), 0.0, x, x)


class NoiseLevel(NamedTuple):
    """One level of the walk, in Python's own floats."""

    t: float
    alpha: float
    sigma: float

    @property
    def size(self) -> float:
        return math.hypot(self.alpha, self.sigma)

    @property
    def angle(self) -> float:
        return math.atan2(self.sigma, self.alpha)

    @property
    def log_snr(self) -> float:
        """log(alpha / sigma): Lu et al.'s lambda, half the log of the signal-to-noise ratio."""
        if not self.sigma:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha else -math.inf


def noise_levels(times: Tensor, process: Process) -> list[NoiseLevel]:
    """The levels at the times, then the clean picture."""
    alphas, sigmas = process.alpha_sigma(times.double())
    levels = map(NoiseLevel, times.tolist(), alphas.tolist(), sigmas.tolist())
    return [*levels, NoiseLevel(0.0, 1.0, 0.0)]


def settled(
    denoise: Denoise, x: Tensor, t: Tensor, cond: Cond, now: NoiseLevel, then: NoiseLevel, noise: DrawNoise | None, recurrence: int
) -> tuple[Tensor, Tensor]:
    """(x_t, x0) that a step starts from. With recurrence (Lugmayr et al. 2022, RePaint, algorithm 1; Bansal et al. 2023, UGD; Yu et al.
    2023, FreeDoM), x first goes down a first-order step and up again by new noise, so that what a steer asked for settles into the
    picture."""
    x0 = denoise(x, t, cond)
    for _ in range(recurrence - 1):
        if noise is None:
            raise ValueError("recurrence draws noise at every step: pass noise=, for example a PictureNoise")
        keep, gain = _first_order(now, then)
        up = now.alpha / then.alpha
        x = up * (keep * x + gain * x0) + math.sqrt(max(0.0, now.sigma**2 - (up * then.sigma) ** 2)) * noise(x.device)
        x0 = denoise(x, t, cond)
    return x, x0


def _first_order(now: NoiseLevel, then: NoiseLevel) -> tuple[float, float]:
    """(keep, gain) of `keep * x + gain * x0`: the step between two levels that is exact as long as x0 does not change."""
    keep = then.sigma / now.sigma
    return keep, then.alpha - now.alpha * keep


def _angular_slope(level: NoiseLevel, x: Tensor, x0: Tensor) -> Tensor:
    """d(x / size) / d(angle) = cos(angle) * eps - sin(angle) * x0."""
    return (level.alpha * (x - level.alpha * x0) / level.sigma - level.sigma * x0) / level.size


def _unipc_weights(h: float, h_before: float) -> tuple[float, float]:
    """(rho_1, rho_2) of the corrector: Zhao et al. 2023, theorem 3.1 with p = 2 and r_1 = -h_before / h, the 2 by 2 system solved."""
    b = math.expm1(-h)
    b_1 = -1 / h - 1 / b
    b_2 = 2 * (b / h**2 + 1 / h - 0.5) / b
    rho_1 = (b_1 - b_2) / (1 + h_before / h)
    return rho_1, b_1 - rho_1


# ---- the table -------------------------------------------------------------------------------------------------------

Solver = Callable[..., Iterator[Step]]


@dataclass(frozen=True)
class SolverSpec:
    """A solver and the choices that go with it, the same for every process and prediction.

    spacing: the grid it walks unless told otherwise. max_ratio: the largest sigma / alpha that grid starts from; eps there is multiplied by
    this when it becomes x0, and so are a network's errors. clip: whether x0 is to be held in [-1, 1] (by a steer round the denoiser).
    stages: evaluations a step; the last step takes one.
    """

    solve: Solver
    says: str
    order: int = 1
    stages: int = 1
    default_steps: int = 20
    spacing: str = "angle"
    max_ratio: float = 80.0
    clip: bool = True
    stochastic: bool = False
    processes: tuple[str, ...] = PROCESSES

    def evaluations(self, steps: int) -> int:
        return self.stages * (steps - 1) + 1


SOLVERS: dict[str, SolverSpec] = {
    "mix": SolverSpec(ddim, "Mix the picture in, bit by bit.", default_steps=40, spacing="even", clip=False, processes=("flow",)),
    "ddpm": SolverSpec(ddpm, "Ancestral sampling; slow and forgiving.", default_steps=1000, stochastic=True),
    "ddim": SolverSpec(ddim, "First order, deterministic.", default_steps=40),
    "euler": SolverSpec(ddim, "The same step on the grid of Karras et al.", default_steps=40, spacing="karras", max_ratio=20.0),
    "heun": SolverSpec(heun, "Second order, two evaluations a step.", order=2, stages=2),
    "dpm++2m": SolverSpec(dpm_plus_plus_2m, "Second order at the price of the first.", order=2),
    "unipc": SolverSpec(unipc, "Second order with a free corrector that makes it third: the best for few steps.", order=3),
    "seed-004": SolverSpec(
        seed_004, "For comparison only.", default_steps=1000, spacing="trailing", stochastic=True, processes=("cosine", "linear")
    ),
}


def find_solver(name: str) -> SolverSpec:
    """The table's entry, or a ValueError that lists the names."""
    if name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}; there are {', '.join(SOLVERS)}")
    return SOLVERS[name]


# ---- times -----------------------------------------------------------------------------------------------------------
# Each spacing: (process, steps, the largest sigma / alpha to start from) -> times [steps], decreasing. Leading, trailing and linspace are
# diffusers' (Lin et al. 2024, table 2), whole indices on a table of betas, and ignore the last argument.


def _leading_times(process: Process, steps: int, largest: float) -> Tensor:
    return torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (process.train_steps // steps)


def _trailing_times(process: Process, steps: int, largest: float) -> Tensor:
    if not process.variance_preserving:
        return process.t_max - torch.arange(steps, dtype=torch.float64) * (process.t_max / steps)
    return (process.train_steps - torch.arange(steps, dtype=torch.float64) * (process.train_steps / steps)).round() - 1


def _linspace_times(process: Process, steps: int, largest: float) -> Tensor:
    times = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (process.t_max / max(steps - 1, 1))
    return times.round() if process.variance_preserving else times


def _even_times(process: Process, steps: int, largest: float) -> Tensor:
    """Even in t, down to the last step's own length."""
    return process.time_of(torch.tensor(largest, dtype=torch.float64)) * torch.arange(steps, 0, -1, dtype=torch.float64) / steps


def _angle_times(process: Process, steps: int, largest: float) -> Tensor:
    """Even in arctan(sigma / alpha), which is even in t on cosine: the same noise levels for every process."""
    first = math.atan(largest)
    last = max(first / steps, math.atan(_smallest_ratio(process)))  # a table of betas ends before the picture is clean
    return process.time_of(torch.linspace(first, last, steps, dtype=torch.float64).tan())


def _karras_times(process: Process, steps: int, largest: float) -> Tensor:
    """Karras et al. 2022, eq. 5 with rho 7, in sigma / alpha, down to 0.02: two and a half of a picture's 255 grey levels."""
    smallest = max(0.02, _smallest_ratio(process))
    return process.time_of(torch.linspace(largest ** (1 / 7), smallest ** (1 / 7), steps, dtype=torch.float64) ** 7)


def _smallest_ratio(process: Process) -> float:
    return float(process.ratio(torch.tensor(0.0)))


SPACINGS: dict[str, Callable[[Process, int, float], Tensor]] = {
    "angle": _angle_times,
    "even": _even_times,
    "karras": _karras_times,
    "leading": _leading_times,
    "trailing": _trailing_times,
    "linspace": _linspace_times,
}


def time_grid(process: Process, solver: str | SolverSpec, steps: int, spacing: str | None = None) -> Tensor:
    """The times [steps], float64 and decreasing, at which a solver evaluates the denoiser first in each step.

    Without a spacing it is the solver's own, but for ancestral sampling in as many steps as the table of betas has: that visits each index.
    """
    spec = find_solver(solver) if isinstance(solver, str) else solver
    if process.name not in spec.processes:
        raise ValueError(f"this solver goes with the process {' or '.join(spec.processes)}, not {process.name}")
    if spacing is None:
        every_index = spec.stochastic and process.variance_preserving and steps == process.train_steps
        spacing = "trailing" if every_index else spec.spacing
    if spacing not in SPACINGS:
        raise ValueError(f"unknown spacing {spacing!r}; there are {', '.join(SPACINGS)}")
    if steps < 1:
        raise ValueError(f"a solver needs at least one step, not {steps}")
    if steps > process.train_steps and process.variance_preserving and spacing in ("leading", "trailing", "linspace"):
        raise ValueError(
            f"{steps} steps with spacing {spacing}, but the process has {process.train_steps} times: take fewer, or spacing angle"
        )
    times = SPACINGS[spacing](process, steps, min(spec.max_ratio, float(process.ratio(torch.tensor(process.t_max)))))
    if process.name == "flow" and times[-1] == 0:
        raise ValueError(f"spacing {spacing} ends at t = 0, where flow has no noise left to take away; try trailing, even or angle")
    return times
