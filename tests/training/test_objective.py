"""Times, targets and weights against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.process import Process
from diffsteer.training import objective


def evenly(count: int = 10_001) -> torch.Tensor:
    return (torch.arange(count) + 0.5) / count


def test_uniform_times_are_every_index_of_a_table_and_the_last_too() -> None:
    t = objective.draw_times(Process("cosine"), "uniform", torch.linspace(0, 1, 100_001)[:-1])
    assert sorted(set(t.tolist())) == list(range(1000))


def test_uniform_times_of_flow_fill_the_range() -> None:
    t = objective.draw_times(Process("flow"), "uniform", evenly())
    assert t.min() >= 0 and t.max() <= 1000
    assert t.mean().item() == pytest.approx(500, abs=0.1)


def test_logit_normal_is_a_standard_normal_in_the_logit_of_the_share() -> None:
    share = objective.draw_times(Process("flow"), "logit-normal", evenly()).double() / 1000
    logit = (share / (1 - share)).log()
    assert logit.mean().item() == pytest.approx(0, abs=1e-3)
    assert logit.std().item() == pytest.approx(1, abs=1e-2)


def test_edm_times_are_log_normal_in_sigma() -> None:
    process = Process("edm")
    _, sigma = process.alpha_sigma(objective.draw_times(process, "edm", evenly()).double())
    assert sigma.log().mean().item() == pytest.approx(-1.2, abs=1e-2)
    assert sigma.log().std().item() == pytest.approx(1.2, abs=2e-2)


@pytest.mark.parametrize(("name", "kind"), [("flow", "logit-normal"), ("edm", "edm"), ("cosine", "logit-normal"), ("flow", "uniform")])
def test_a_shift_multiplies_sigma_over_alpha(name: str, kind: str) -> None:
    process, draws = Process(name), torch.linspace(0.1, 0.8, 50)
    plain, moved = (process.ratio(objective.draw_times(process, kind, draws, shift).double()) for shift in (1.0, 3.0))
    torch.testing.assert_close(moved, 3 * plain, rtol=1e-4, atol=0)


def test_shifted_times_of_flow_are_those_of_the_paper() -> None:
    """Esser et al. 2024, eq. 23: t_m = shift t_n / (1 + (shift - 1) t_n)."""
    share = evenly(100)
    moved = objective.draw_times(Process("flow"), "uniform", share, 3.0) / 1000
    torch.testing.assert_close(moved, 3 * share / (1 + 2 * share))


def test_shifted_times_of_a_table_are_its_indices_still() -> None:
    t = objective.draw_times(Process("cosine"), "uniform", torch.linspace(0, 1, 100_001)[:-1], 3.0)
    assert torch.equal(t, t.floor()) and t.min() >= 0 and t.max() == 999
    assert (t > 500).double().mean() > 0.6


def test_even_draws_leave_no_part_out_and_are_uniform_one_by_one() -> None:
    whole = torch.rand(2000, 16, generator=torch.Generator().manual_seed(0))
    spread = torch.stack([objective.spread_evenly(draws) for draws in whole])
    gaps = spread.sort(dim=1).values.diff(dim=1)
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 16), atol=1e-6, rtol=0)
    assert spread.min() >= 0 and spread.max() < 1
    assert spread[:, 7].mean().item() == pytest.approx(0.5, abs=0.02)
    assert spread[:, 7].var().item() == pytest.approx(1 / 12, rel=0.05)


def test_min_snr_caps_the_weight_of_x0_at_gamma() -> None:
    """Hang et al. 2023: x0's loss weighs min(snr, gamma); eps's is that over snr, v's that over snr + 1."""
    process, t = Process("cosine"), torch.arange(0, 1000, 37)
    alpha, sigma = process.alpha_sigma(t.double())
    snr = (alpha / sigma) ** 2
    expected = snr.clamp(max=5).float()
    assert torch.allclose(objective.weights(process, "x0", t, 5.0), expected, rtol=1e-4)
    assert torch.allclose(objective.weights(process, "eps", t, 5.0), expected / snr.float(), rtol=1e-4)
    assert torch.allclose(objective.weights(process, "v", t, 5.0), expected / (snr.float() + 1), rtol=1e-4)
    assert torch.equal(objective.weights(process, "eps", t, None), torch.ones(len(t)))


@pytest.mark.parametrize("data", [0.5, 1.0, 2.0])
def test_min_snr_of_a_preconditioned_target_is_the_same_loss_of_x0(data: float) -> None:
    """An error of EDM's network counts c_out times in x0, so it weighs what x0's weighs, over c_out squared, whatever the data."""
    process, t = Process("edm", sigma_data=data), torch.linspace(1, 1000, 30)
    alpha, sigma = process.alpha_sigma(t.double())
    x_t, answer, other = torch.randn(3, 30, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    apart = [process.to_x0("v", each, x_t, t.double()) for each in (answer, other)]
    of_x0 = (apart[0] - apart[1]).square().flatten(1).mean(1) * ((alpha / sigma) ** 2).clamp(max=5)
    of_v = (answer - other).square().flatten(1).mean(1) * objective.weights(process, "v", t, 5.0)
    torch.testing.assert_close(of_v, of_x0, rtol=1e-4, atol=0)


@pytest.mark.parametrize("process", [Process("flow"), Process("cosine"), Process("linear")], ids=lambda each: each.name)
def test_the_velocity_loss_of_x0_is_the_loss_of_a_network_that_predicts_the_velocity(process: Process) -> None:
    """The same x0, told as x0 with this weight and as a velocity with none."""
    generator = torch.Generator().manual_seed(0)
    x0, eps, answer = torch.randn(3, 4, 1, 8, 8, generator=generator)
    t = torch.tensor([120.0, 300.0, 600.0, 900.0])
    told = {}
    for prediction in ("x0", "flow" if process.name == "flow" else "v"):
        x_t = process.add_noise(x0, eps, t)
        alpha, sigma = (each[:, None, None, None] for each in process.alpha_sigma(t))
        velocity = (x_t - answer) / sigma if process.name == "flow" else (alpha * x_t - answer) / sigma
        spec = ModelSpec(process, prediction, 8, 8, 1)
        denoiser = Denoiser(Known(answer if prediction == "x0" else velocity), spec)
        told[prediction] = objective.losses(denoiser, x0, eps, t, None, None, velocity=prediction == "x0")
    assert torch.allclose(*told.values(), rtol=1e-4)
    least = objective.weights(process, "x0", torch.tensor([1.0]), velocity=True)
    assert least.item() == pytest.approx(400)


class Known(nn.Module):
    """Answers what it is told to."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor, t: torch.Tensor, **_: object) -> object:
        return type("Output", (), {"sample": self.answer})


@pytest.mark.parametrize("prediction", ["x0", "eps", "v", "flow"])
def test_the_loss_is_the_mean_square_error_to_the_target(prediction: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps, answer = torch.randn(3, 4, 1, 8, 8, generator=generator)
    t = torch.tensor([10.0, 200.0, 500.0, 900.0])
    process = Process("cosine")
    alpha, sigma = (c[:, None, None, None] for c in process.alpha_sigma(t))
    target = {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "flow": eps - x0}[prediction]
    denoiser = Denoiser(Known(answer), ModelSpec(process, prediction, 8, 8, 1))
    loss = objective.losses(denoiser, x0, eps, t, None)
    assert torch.allclose(loss, (answer - target).square().mean((1, 2, 3)), rtol=1e-5)


def test_in_unit_range_the_loss_is_of_pictures_in_0_1() -> None:
    """The lesson's loss is a quarter of the one in [-1, 1]."""
    x0 = torch.rand(2, 1, 8, 8) * 2 - 1
    denoiser = Denoiser(Known(torch.zeros(2, 1, 8, 8)), ModelSpec(Process("flow"), "x0", 8, 8, 1, pixel_range="unit"))
    loss = objective.losses(denoiser, x0, torch.zeros_like(x0), torch.zeros(2), None)
    assert torch.allclose(loss, ((x0 + 1) / 2).square().mean((1, 2, 3)))


def test_losses_are_binned_by_noise_level() -> None:
    process = Process("flow")
    t, loss = torch.tensor([0.0, 100.0, 600.0, 1000.0]), torch.tensor([1.0, 3.0, 5.0, 7.0])
    sums, counts = objective.by_noise(process, t, loss)
    assert sums.tolist() == [4, 0, 5, 7]
    assert counts.tolist() == [2, 0, 1, 1]
    assert math.isclose(sums.sum().item(), loss.sum().item())
