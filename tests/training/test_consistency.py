"""Consistency against its closed form: of Gaussian pictures both the mean of what a noisy one may come from, and the end of its path, are
known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.process import Process
from diffsteer.training import consistency

PROCESSES = [Process("flow"), Process("cosine"), Process("linear"), Process("edm")]
MEAN, DEVIATION = 0.1, 0.2


def scales(process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = process.alpha_sigma(t)
    return alpha[:, None, None, None], sigma[:, None, None, None]


def mean_of(process: Process, x_t: Tensor, t: Tensor) -> Tensor:
    """E[x0 | x_t]: what a network that learns pictures answers."""
    alpha, sigma = scales(process, t)
    variance = alpha**2 * DEVIATION**2 + sigma**2
    return MEAN + alpha * DEVIATION**2 / variance * (x_t - alpha * MEAN)


def end_of(process: Process, x_t: Tensor, t: Tensor) -> Tensor:
    """Where the probability-flow path from x_t ends: at as many deviations from the mean as it stands."""
    alpha, sigma = scales(process, t)
    return MEAN + DEVIATION * (x_t - alpha * MEAN) / (alpha**2 * DEVIATION**2 + sigma**2).sqrt()


class Known(Denoiser):
    """A denoiser whose x0 is a formula."""

    def __init__(self, process: Process, formula: object) -> None:
        super().__init__(nn.Identity(), ModelSpec(process, "x0", 2, 2, 1))
        self.formula = formula

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
        return self.formula(self.spec.process, x_t, t)  # type: ignore[operator]


def given(process: Process, shares: tuple[float, float] = (0.2, 0.95)) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, noise, and times of these noise shares."""
    draws = torch.Generator().manual_seed(0)
    x0 = MEAN + DEVIATION * torch.randn(64, 1, 2, 2, generator=draws)
    share = torch.linspace(*shares, 64).double()
    return x0, torch.randn(x0.shape, generator=draws), process.time_of(share / (1 - share)).float()


@pytest.mark.parametrize("process", PROCESSES, ids=lambda each: each.name)
def test_the_end_of_the_path_has_the_least_loss(process: Process) -> None:
    """The teacher's step is Euler's: its error is of the second order, so the loss of the exact answer is of the fourth."""
    x0, eps, t = given(process)

    def loss(student: object, apart: float) -> float:
        told = consistency.losses(Known(process, student), Known(process, mean_of), x0, eps, t, None, apart)
        assert told.shape == (64,)
        return float(told.mean())

    exact = [loss(end_of, apart) for apart in (1 / 8, 1 / 16, 1 / 32)]
    assert 9 < exact[0] / exact[1] < 25 and 9 < exact[1] / exact[2] < 25
    assert 20 * exact[2] < loss(mean_of, 1 / 32)  # one that answers the mean is not of one mind along a path


@pytest.mark.parametrize("process", PROCESSES, ids=lambda each: each.name)
def test_a_neighbours_noise_share_is_smaller_by_the_gap(process: Process) -> None:
    *_, t = given(process, (0.1, 0.99))
    share = consistency.noise_share(process, t)
    before = consistency.noise_share(process, consistency.neighbour(process, t, 0.25))
    torch.testing.assert_close(before, 0.75 * share, rtol=1e-3, atol=0)


def test_flows_pure_noise_has_a_neighbour_too() -> None:
    process = Process("flow")
    assert consistency.neighbour(process, torch.tensor([1000.0]), 0.5).item() == pytest.approx(500)


def test_the_gap_halves_at_even_times() -> None:
    gaps = [consistency.gap(quarter / 4) for quarter in range(5)]
    assert gaps == pytest.approx([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32])


def test_only_the_answer_to_the_noisier_one_is_asked_to_change() -> None:
    process, slope = Process("flow"), torch.tensor(0.7, requires_grad=True)
    x0, eps, t = given(process)

    def line(process: Process, x_t: Tensor, t: Tensor) -> Tensor:
        return slope * x_t

    consistency.losses(Known(process, line), Known(process, mean_of), x0, eps, t, None, 0.25).sum().backward()
    x_t = process.add_noise(x0, eps, t)
    guess = mean_of(process, x_t, t).clamp(-1, 1)
    before = consistency.neighbour(process, t, 0.25)
    (alpha, sigma), (alpha_before, sigma_before) = scales(process, t), scales(process, before)
    target = 0.7 * (alpha_before * guess + sigma_before * (x_t - alpha * guess) / sigma)
    assert slope.grad is not None
    assert slope.grad.item() == pytest.approx((2 * (0.7 * x_t - target) * x_t).mean((1, 2, 3)).sum().item(), rel=1e-3)


def test_almost_without_noise_the_answer_is_the_teachers() -> None:
    process = Process("flow")
    x0, eps, t = given(process, (1e-4, consistency.CLEAN))
    told = consistency.losses(Known(process, lambda *_: torch.zeros(64, 1, 2, 2)), Known(process, mean_of), x0, eps, t, None, 0.5)
    guess = mean_of(process, process.add_noise(x0, eps, t), t)
    torch.testing.assert_close(told, guess.square().mean((1, 2, 3)))


def test_no_noise_at_all_is_no_division_by_nothing() -> None:
    process, x0 = Process("flow"), torch.zeros(1, 1, 2, 2)
    told = consistency.losses(Known(process, end_of), Known(process, mean_of), x0, torch.ones(1, 1, 2, 2), torch.zeros(1), None, 0.5)
    assert math.isfinite(told.item())
