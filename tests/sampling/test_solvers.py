"""Solvers and time grids: exact answers first, then diffusers where diffusers is right, then the matrix."""

from __future__ import annotations

import ast
import math
import sys
from itertools import pairwise
from pathlib import Path

import diffusers
import pytest
import torch
from oracles import gaussian, gaussian_flow_end, mixture
from torch import Tensor

from diffsteer.diffusion.process import PROCESSES, Process
from diffsteer.diffusion.seeds import PictureNoise
from diffsteer.sampling import solvers
from diffsteer.sampling.solvers import SOLVERS, SPACINGS, Step, find_solver, time_grid

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from solver_matrix import our_cells

COSINE, LINEAR, FLOW, EDM = (Process(name) for name in ("cosine", "linear", "flow", "edm"))
FITTING = [(name, Process(process)) for name, spec in SOLVERS.items() for process in spec.processes]
SHAPE = (1, 4, 4)


def curvy(x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
    """No denoiser of anything, only smooth in both: for comparing two implementations of one rule."""
    return torch.tanh(0.8 * x_t + t.float() / 1000 - 0.3)


def walk(solver: str, denoise: solvers.Denoise, process: Process, steps: int, spacing: str | None = None, batch: int = 2) -> list[Step]:
    times = time_grid(process, solver, steps, spacing)
    noise = PictureNoise.from_seeds(range(batch), SHAPE)
    return list(SOLVERS[solver].solve(denoise, noise() * process.start_scale(times[0]), times, process, noise=noise))


# ---- what every solver keeps to --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "process"), FITTING, ids=str)
def test_a_solver_yields_each_step_and_then_the_picture(solver: str, process: Process) -> None:
    asked: list[Tensor] = []

    def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        asked.append(t)
        return mixture(process)(x_t, t, cond)

    items = walk(solver, denoise, process, 6)
    times = time_grid(process, solver, 6)
    assert [item.step for item in items] == list(range(7))
    assert [item.t for item in items] == [*times.tolist(), 0.0]
    assert items[-1].x_t is items[-1].x0
    assert items[-1].x0.dtype == torch.float32 and items[-1].x0.isfinite().all()
    assert len(asked) == SOLVERS[solver].evaluations(6)
    assert all(t.ndim == 0 and t.dtype == torch.float64 for t in asked)


@pytest.mark.parametrize(("solver", "process"), FITTING, ids=str)
def test_the_last_step_lands_on_the_picture_the_denoiser_saw(solver: str, process: Process) -> None:
    items = walk(solver, mixture(process), process, 5)
    assert torch.equal(items[-1].x0, items[-2].x0)


@pytest.mark.parametrize(("solver", "process"), FITTING, ids=str)
def test_a_picture_is_the_same_alone_and_in_a_batch(solver: str, process: Process) -> None:
    times = time_grid(process, solver, 4)
    pictures = []
    for seeds in ([3, 7, 5], [7]):
        noise = PictureNoise.from_seeds(seeds, SHAPE)
        *_, last = SOLVERS[solver].solve(curvy, noise() * process.start_scale(times[0]), times, process, noise=noise)
        pictures.append(last.x0[seeds.index(7)])
    assert torch.equal(*pictures)


@pytest.mark.parametrize("solver", SOLVERS)
def test_gradients_are_off_inside_on_for_steers_and_untouched_outside(solver: str) -> None:
    process = Process(SOLVERS[solver].processes[0])

    def steer(x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        assert not torch.is_grad_enabled()
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            (slope,) = torch.autograd.grad(curvy(x, t, cond).sum(), x)
        return curvy(x_t, t, cond) - 0.1 * slope

    times = time_grid(process, solver, 3)
    noise = PictureNoise.from_seeds([0], SHAPE)
    for item in SOLVERS[solver].solve(steer, noise(), times, process, noise=noise):
        assert torch.is_grad_enabled()
        assert not item.x_t.requires_grad


def test_the_label_reaches_the_denoiser() -> None:
    for name, spec in SOLVERS.items():
        process, seen = Process(spec.processes[0]), []
        noise = PictureNoise.from_seeds([0], SHAPE)
        list(
            spec.solve(
                lambda x, t, cond, seen=seen: seen.append(cond) or x,
                noise(),
                time_grid(process, name, 2),
                process,
                cond=torch.tensor([4]),
                noise=noise,
            )
        )
        assert all(torch.equal(cond, torch.tensor([4])) for cond in seen) and seen


@pytest.mark.parametrize("solver", [name for name, spec in SOLVERS.items() if spec.stochastic])
def test_a_stochastic_solver_asks_for_noise(solver: str) -> None:
    with pytest.raises(ValueError, match="pass noise="):
        next(SOLVERS[solver].solve(curvy, torch.zeros(1, *SHAPE), time_grid(LINEAR, solver, 2), LINEAR))


def test_the_file_stands_alone_in_a_saved_pipeline() -> None:
    tree = ast.parse(Path(solvers.__file__).read_text())
    modules = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    ours_and_torch = {"diffsteer.diffusion.process", "torch"}
    assert modules - ours_and_torch <= sys.stdlib_module_names | {"collections.abc"}


# ---- exact answers ---------------------------------------------------------------------------------------------------


def test_mix_is_the_formula_of_the_course() -> None:
    n, items = 5, walk("mix", curvy, FLOW, 5, "trailing")
    x = items[0].x_t
    for i in range(n):
        torch.testing.assert_close(items[i].x_t, x, rtol=0, atol=1e-6)
        x = x * (1 - 1 / (n - i)) + curvy(x, torch.tensor(1000 * (n - i) / n), None) / (n - i)
    torch.testing.assert_close(items[n].x0, x, rtol=0, atol=1e-6)


def test_mix_is_eulers_method_on_flow() -> None:
    items = walk("mix", curvy, FLOW, 7)
    x = items[0].x_t
    for now, then in pairwise(items):
        velocity = FLOW.from_x0("flow", curvy(x, torch.tensor(now.t), None), x, torch.tensor(now.t))
        x = x + (then.t - now.t) / 1000 * velocity
        torch.testing.assert_close(then.x_t, x, rtol=0, atol=1e-5)


def test_the_step_of_seed_004_by_hand() -> None:
    """x = sqrt(abar_t) x0 + sqrt(beta_t) noise with the present t's values, the last step x0 alone."""
    process = Process("linear", train_steps=3, betas=(0.1, 0.2, 0.3))
    drawn = iter([torch.full((1, *SHAPE), 0.5), torch.full((1, *SHAPE), -2.0)])
    times = time_grid(process, "seed-004", 3)
    assert times.tolist() == [2, 1, 0]
    x0s = iter([torch.full((1, *SHAPE), value) for value in (1.0, -0.5, 0.25)])
    items = list(
        SOLVERS["seed-004"].solve(lambda x, t, cond: next(x0s), torch.zeros(1, *SHAPE), times, process, noise=lambda device: next(drawn))
    )
    by_hand = [math.sqrt(0.9 * 0.8 * 0.7) * 1.0 + math.sqrt(0.3) * 0.5, math.sqrt(0.9 * 0.8) * -0.5 + math.sqrt(0.2) * -2.0, 0.25]
    assert [float(item.x_t.mean()) for item in items[1:]] == pytest.approx(by_hand, abs=1e-6)
    assert all(item.x_t.std() < 1e-6 for item in items)


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("heun", 2), ("dpm++2m", 2), ("unipc", 3)])
def test_the_error_falls_with_the_order_of_the_solver(solver: str, order: int) -> None:
    """On a Gaussian, whose probability flow has a closed form: doubling the steps divides the error by 2 to the order."""
    mean, spread = 0.3, 0.5
    errors = []
    for steps in (40, 80, 160):
        times = FLOW.time_of(torch.logspace(1, -4, steps, dtype=torch.float64))  # even in log-SNR, where these methods' orders are proved
        x = PictureNoise.from_seeds(range(4), SHAPE)().double()
        *_, last = SOLVERS[solver].solve(gaussian(FLOW, mean, spread), x, times, FLOW)
        errors.append(float((last.x0 - gaussian_flow_end(FLOW, mean, spread, x, times[0])).abs().max()))
    for fewer, more in pairwise(errors):
        assert 0.85 * 2**order < fewer / more < 1.2 * 2**order, errors
    assert SOLVERS[solver].order == order


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "heun", "dpm++2m", "unipc"])
def test_a_solver_sees_noise_levels_and_not_the_process(solver: str) -> None:
    """The same walk over sigma / alpha gives the same picture whatever scale the process keeps x at."""
    pictures = []
    for process in (COSINE, LINEAR, FLOW, EDM):
        times = process.time_of(torch.tensor([20.0, 4, 1.5, 0.6, 0.2, 0.05]))
        noise = PictureNoise.from_seeds([0, 1], SHAPE)
        x = noise().double() * process.alpha_sigma(times[0])[1]
        *_, last = SOLVERS[solver].solve(mixture(process), x, times, process, noise=noise)
        pictures.append(last.x0)
    for picture in pictures[1:]:
        torch.testing.assert_close(picture, pictures[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("process", [COSINE, FLOW, EDM], ids=lambda process: process.name)
def test_ancestral_sampling_draws_from_the_data(process: Process) -> None:
    times = time_grid(process, "ddpm", 200)
    noise = PictureNoise.from_seeds(range(4), (1, 64, 64))
    x = noise() * process.start_scale(times[0])
    *_, last = SOLVERS["ddpm"].solve(gaussian(process, 0.3, 0.5), x, times, process, noise=noise)
    assert float(last.x0.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(last.x0.std()) == pytest.approx(0.5, abs=0.02)


# ---- agreement with diffusers ----------------------------------------------------------------------------------------


def theirs(scheduler: object, process: Process, x: Tensor, generator: torch.Generator | None = None, **options: object) -> Tensor:
    """A diffusers scheduler over its own timesteps, fed eps made from `curvy`."""
    for t in scheduler.timesteps:
        eps = process.from_x0("eps", curvy(x, t, None), x, t.double())
        extra = {"generator": generator} if generator else {}
        x = scheduler.step(eps, t, x, return_dict=False, **extra, **options)[0]
    return x


BETAS = {"cosine": "squaredcos_cap_v2", "linear": "linear"}


@pytest.mark.parametrize("process", [COSINE, LINEAR], ids=lambda process: process.name)
@pytest.mark.parametrize("clip", [False, True])
def test_ddim_leading_is_that_of_diffusers(process: Process, clip: bool) -> None:
    scheduler = diffusers.DDIMScheduler(beta_schedule=BETAS[process.name], clip_sample=clip, clip_sample_range=0.6)
    scheduler.set_timesteps(40)
    items = walk("ddim", lambda x, t, cond: curvy(x, t, cond).clamp(-0.6, 0.6) if clip else curvy(x, t, cond), process, 40, "leading")
    # With clipping, theirs keeps the eps of the unclipped x0 unless told otherwise; ours is always of the clipped one.
    expected = theirs(scheduler, process, items[0].x_t, use_clipped_model_output=True)
    torch.testing.assert_close(items[-1].x0, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("process", [COSINE, LINEAR], ids=lambda process: process.name)
@pytest.mark.parametrize("steps", [50, 1000])
def test_ddpm_is_that_of_diffusers_given_the_same_noise(process: Process, steps: int) -> None:
    scheduler = diffusers.DDPMScheduler(beta_schedule=BETAS[process.name], clip_sample=True)
    scheduler.set_timesteps(steps)
    items = walk("ddpm", curvy, process, steps, "leading", batch=1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, *SHAPE, generator=generator)
    torch.testing.assert_close(items[-1].x0, theirs(scheduler, process, x, generator), rtol=0, atol=1e-3)


@pytest.mark.parametrize("process", [COSINE, LINEAR], ids=lambda process: process.name)
@pytest.mark.parametrize("steps", [5, 10, 20])
def test_the_multistep_solvers_are_those_of_diffusers(process: Process, steps: int) -> None:
    for solver, scheduler_class in (("dpm++2m", diffusers.DPMSolverMultistepScheduler), ("unipc", diffusers.UniPCMultistepScheduler)):
        scheduler = scheduler_class(beta_schedule=BETAS[process.name], prediction_type="sample", solver_order=2)
        with pytest.warns(DeprecationWarning, match="__array"):  # numpy 2 on how diffusers calls it
            scheduler.set_timesteps(steps)
        x = expected = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
        for t in scheduler.timesteps:
            expected = scheduler.step(curvy(expected, t, None), t, expected, return_dict=False)[0]
        *_, last = SOLVERS[solver].solve(curvy, x, scheduler.timesteps.double(), process)
        torch.testing.assert_close(last.x0, expected, rtol=0, atol=2e-4)


# ---- time grids ------------------------------------------------------------------------------------------------------


def test_forty_leading_steps_are_the_course_s() -> None:
    assert time_grid(LINEAR, "ddim", 40, "leading").tolist() == list(range(975, -1, -25))


@pytest.mark.parametrize("process", [COSINE, LINEAR], ids=lambda process: process.name)
@pytest.mark.parametrize("solver", ["ddpm", "seed-004"])
def test_a_thousand_ancestral_steps_visit_every_index(solver: str, process: Process) -> None:
    assert time_grid(process, solver, 1000).tolist() == list(range(999, -1, -1))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_the_spacings_of_diffusers(spacing: str) -> None:
    scheduler = diffusers.DDIMScheduler(timestep_spacing=spacing)
    for steps in (1, 2, 3, 4, 5, 7, 8, 10, 15, 20, 25, 30, 40, 50, 64, 100, 125, 200, 250, 333, 500, 1000):
        scheduler.set_timesteps(steps)
        assert time_grid(COSINE, "ddim", steps, spacing).tolist() == scheduler.timesteps.tolist(), steps


@pytest.mark.parametrize("steps", [1, 2, 5, 100, 1000])
@pytest.mark.parametrize("name", PROCESSES)
def test_every_grid_falls_and_starts_no_noisier_than_its_solver_allows(name: str, steps: int) -> None:
    process = Process(name)
    for solver, spec in SOLVERS.items():
        if name not in spec.processes:
            continue
        for spacing in ("angle", "even", "karras"):
            times = time_grid(process, solver, steps, spacing)
            assert times.shape == (steps,) and times.dtype == torch.float64
            assert (times.diff() < 0).all() and times[-1] >= 0
            assert float(process.ratio(times[0])) <= spec.max_ratio * 1.000001


def test_even_and_trailing_steps_on_flow() -> None:
    assert time_grid(FLOW, "unipc", 5, "trailing").tolist() == [1000, 800, 600, 400, 200]
    start = 1000 * 80 / 81
    assert time_grid(FLOW, "mix", 4).tolist() == pytest.approx([start, 0.75 * start, 0.5 * start, 0.25 * start])


def test_linspace_on_edm_is_the_grid_of_its_paper() -> None:
    sigmas = EDM.ratio(time_grid(EDM, "heun", 18, "linspace"))
    ramp = torch.linspace(0, 1, 18, dtype=torch.float64)
    paper = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(sigmas, paper)


def test_angles_are_the_same_noise_levels_for_every_process() -> None:
    reference = COSINE.ratio(time_grid(COSINE, "ddim", 8))
    for process in (LINEAR, FLOW, EDM):
        torch.testing.assert_close(process.ratio(time_grid(process, "ddim", 8)), reference)
    torch.testing.assert_close(reference.atan(), math.atan(80) * torch.arange(8, 0, -1).double() / 8)


@pytest.mark.parametrize(
    ("process", "solver", "steps", "spacing", "says"),
    [
        (LINEAR, "dpm++", 5, None, r"dpm\+\+2m, unipc"),
        (LINEAR, "mix", 5, None, "goes with the process flow, not linear"),
        (FLOW, "seed-004", 5, None, "cosine or linear, not flow"),
        (LINEAR, "ddim", 5, "karas", ", ".join(SPACINGS)),
        (LINEAR, "ddim", 0, None, "at least one step, not 0"),
        (LINEAR, "ddim", 1001, "leading", "has 1000 times"),
        (FLOW, "ddim", 5, "leading", "try trailing"),
        (FLOW, "ddim", 5, "linspace", "try trailing"),
    ],
)
def test_a_wrong_request_says_what_is_possible(process: Process, solver: str, steps: int, spacing: str | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        time_grid(process, solver, steps, spacing)
    if solver == "dpm++":
        with pytest.raises(ValueError, match=says):
            find_solver(solver)


# ---- the matrix ------------------------------------------------------------------------------------------------------


def test_every_cell_of_the_solver_matrix_is_within_its_bar() -> None:
    """Process x prediction x solver at 5 and 20 steps, exact and with 2 % error; the benchmark has the rest."""
    cells = list(our_cells(steps_tried=(5, 20)))
    assert len(cells) == 2 * (4 * 4 * 6 + 4)
    assert [cell for cell in cells if not cell.passed] == []
