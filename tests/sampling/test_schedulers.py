"""diffusers' schedulers as solvers: they fit or say why not, tell the denoiser the truth about the noise, and keep pictures independent."""

from __future__ import annotations

import subprocess
import sys

import diffusers
import pytest
import torch
from oracles import distance, mixture
from torch import Tensor

from diffsteer.diffusion.process import Process
from diffsteer.diffusion.seeds import PictureNoise
from diffsteer.errors import Mistake
from diffsteer.sampling.schedulers import diffusers_solver
from diffsteer.sampling.solvers import SOLVERS, Denoise, Step, time_grid

# numpy 2 on how diffusers hands it tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

OF_BETAS = [
    *("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("DEISMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler"),
]
FITTING = [
    *((name, process) for name in OF_BETAS for process in ("cosine", "linear")),
    ("HeunDiscreteScheduler", "linear"),  # on cosine its first step, from sigma / alpha 20291, spoils the picture
    ("KDPM2AncestralDiscreteScheduler", "linear"),  # on cosine its times are not numbers when steps are few
    *((name, "flow") for name in ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "DPMSolverMultistepScheduler")),
    *((name, "flow") for name in ("UniPCMultistepScheduler", "DEISMultistepScheduler", "DPMSolverSinglestepScheduler")),
    *((name, "edm") for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")),
]


def walk(name: str, process: Process, steps: int, denoise: Denoise, seeds: list[int], side: int = 8, **overrides: object) -> list[Step]:
    solve, times = diffusers_solver(name, process, steps, overrides=overrides)
    noise = PictureNoise.from_seeds(seeds, (1, side, side))
    items = list(solve(denoise, noise() * process.start_scale(times[0]), times, process, noise=noise))
    assert [item.t for item in items] == [*times.tolist(), 0.0]
    return items


@pytest.mark.parametrize(("name", "process"), FITTING)
def test_a_scheduler_draws_the_data(name: str, process: str) -> None:
    """So its state, its times and our x0 are read as it means them: a wrong word for any of the three ends far away."""
    *_, last = walk(name, Process(process), 20, mixture(Process(process)), list(range(16)), side=32)
    assert torch.equal(last.x_t, last.x0)
    assert distance(last.x0) < 0.09


@pytest.mark.parametrize(("name", "process"), FITTING)
def test_a_picture_is_the_same_alone_and_in_a_batch(name: str, process: str) -> None:
    alone, together = (walk(name, Process(process), 8, mixture(Process(process)), seeds)[-1].x0 for seeds in ([7], [3, 7, 5]))
    assert torch.equal(alone[0], together[1])


@pytest.mark.parametrize(("name", "process"), FITTING)
def test_x_t_has_the_noise_that_its_time_says(name: str, process: str) -> None:
    """With all data at 0, x_t is nothing but sigma_t times noise of size 1."""
    settled = Process(process)
    items = walk(name, settled, 8, lambda x, t, cond: torch.zeros_like(x), [0], side=64)
    sizes = torch.tensor([float(item.x_t.std()) for item in items[:-1]])
    told = settled.alpha_sigma(torch.tensor([item.t for item in items[:-1]]))[1]
    torch.testing.assert_close(sizes, told, rtol=0.04, atol=1e-3)


def test_ddpm_and_ddim_are_our_own() -> None:
    process = Process("linear")
    for theirs, ours, steps in (("DDPMScheduler", "ddpm", 1000), ("DDIMScheduler", "ddim", 40)):
        expected = walk(theirs, process, steps, mixture(process), [0, 1], clip_sample=False)[-1].x0
        times = time_grid(process, ours, steps, "leading")
        noise = PictureNoise.from_seeds([0, 1], (1, 8, 8))
        *_, last = SOLVERS[ours].solve(mixture(process), noise(), times, process, noise=noise)
        torch.testing.assert_close(last.x0, expected, rtol=0, atol=2e-3)


def test_fed_v_a_scheduler_reads_the_x0_it_was_given() -> None:
    """Also with a process whose sigma_data is not 1, which diffusers' v knows nothing of."""
    process = Process("linear", sigma_data=0.5)
    given = torch.linspace(-0.9, 0.9, 64).reshape(1, 1, 8, 8)
    last = walk("DDIMScheduler", process, 1, lambda x, t, cond: given, [0], timestep_spacing="trailing")[-1]
    torch.testing.assert_close(last.x0, given, rtol=0, atol=1e-4)


def test_each_walk_starts_afresh_and_may_stop_early() -> None:
    process = Process("cosine")
    solve, times = diffusers_solver("DPMSolverMultistepScheduler", process, 6)

    def picture(stop: int | None = None) -> Tensor:
        noise = PictureNoise.from_seeds([0], (1, 4, 4))
        for item in solve(mixture(process), noise(), times, process, noise=noise):
            assert torch.is_grad_enabled()
            if item.step == stop:
                break
        return item.x0

    first = picture()
    picture(stop=3)
    assert torch.equal(picture(), first)


def test_rounded_timesteps_do_not_mislead_the_denoiser() -> None:
    """diffusers tells a network the nearest whole timestep of a Karras level, at this end of cosine up to 31 times off."""
    items = walk("DPMSolverMultistepScheduler", Process("cosine"), 10, mixture(Process("cosine")), [0], use_karras_sigmas=True)
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True)
    scheduler.set_timesteps(10)
    ratios = Process("cosine").ratio(torch.tensor([item.t for item in items[:-1]]))
    torch.testing.assert_close(ratios.float(), scheduler.sigmas[:-1], rtol=2e-3, atol=0)


@pytest.mark.parametrize(
    ("name", "process", "overrides", "says"),
    [
        ("DPMSolverMultiStepScheduler", "cosine", {}, "did you mean DPMSolverMultistepScheduler"),
        ("Euler", "cosine", {}, "diffusers has no scheduler 'Euler'"),
        ("FlowMatchEulerDiscreteScheduler", "cosine", {}, "does not fit the process cosine; these do: .*DDIMScheduler"),
        ("DDIMScheduler", "flow", {}, "does not fit the process flow; these do: .*FlowMatchHeunDiscreteScheduler"),
        ("DDIMInverseScheduler", "linear", {}, "does not fit"),
        ("DPMSolverSDEScheduler", "linear", {}, "does not fit"),
        ("EulerDiscreteScheduler", "edm", {}, "these do: EDMDPMSolverMultistepScheduler, EDMEulerScheduler"),
        ("CogVideoXDDIMScheduler", "linear", {}, "leaves the noise schedule"),
        ("KDPM2AncestralDiscreteScheduler", "cosine", {}, "try others"),
        ("DDIMScheduler", "linear", {"rescale_betas_zero_snr": True}, "leaves the noise schedule"),
        ("DPMSolverMultistepScheduler", "flow", {"use_karras_sigmas": True}, "leaves the noise schedule"),
        ("DDIMScheduler", "linear", {"timestep_spacings": "trailing"}, "has no option timestep_spacings; it has .*timestep_spacing"),
        ("DDIMScheduler", "linear", {"timestep_spacing": "odd"}, "cannot set up DDIMScheduler with 5 steps"),
    ],
)
def test_what_cannot_be_done_is_a_mistake_that_says_what_can(name: str, process: str, overrides: dict[str, object], says: str) -> None:
    with pytest.raises(Mistake, match=says):
        diffusers_solver(name, Process(process), 5, overrides=overrides)


def test_a_scheduler_that_may_draw_noise_asks_for_it() -> None:
    solve, times = diffusers_solver("DDPMScheduler", Process("linear"), 3)
    with pytest.raises(ValueError, match="pass noise="):
        next(solve(mixture(Process("linear")), torch.zeros(1, 1, 4, 4), times, Process("linear")))


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    for name in OF_BETAS:
        walk(name, Process("linear"), 4, mixture(Process("linear")), [0])
    assert torch.equal(torch.rand(1), expected)


def test_importing_does_not_load_diffusers() -> None:
    code = "import sys, diffsteer.sampling.schedulers; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
