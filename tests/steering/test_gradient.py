"""The engine against closed forms: exact recursions, Gaussian and mixture posteriors, finite differences, and what must not matter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from gaussians import LINEAR, affine, observed, share_on_the_right, steered_walk, two_modes, unit_gaussian
from torch import Tensor, nn

from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.process import Process
from diffsteer.diffusion.seeds import PictureNoise, generator_for
from diffsteer.sampling.draw import How, Job, draw
from diffsteer.sampling.solvers import SOLVERS, Step, time_grid
from diffsteer.steering import gradient
from diffsteer.steering.contract import Moment, NoisyLoss
from diffsteer.steering.gradient import WAYS, Steer, SteeredDenoiser
from diffsteer.steering.observation import Observation
from diffsteer.steering.presets import PRESETS
from diffsteer.steering.strength import SCALINGS


def recursion(move: Callable[[float, float, float], tuple[float, float]], eta: float, steps: int) -> tuple[float, float]:
    """The exact mean and variance by hand: x0 = a x_t + b for (a, b) = move(alpha, sigma, plain a), then Song et al. 2021, eq. 12."""
    times = time_grid(LINEAR, "ddpm", steps, "trailing")
    alphas, sigmas = (c.tolist() for c in LINEAR.alpha_sigma(times))
    mean, variance = 0.0, 1.0
    for (alpha, sigma), (after, rest) in pairwise([*zip(alphas, sigmas, strict=True), (1.0, 0.0)]):
        a, b = move(alpha, sigma, alpha / (alpha**2 + sigma**2))
        new = eta * rest / sigma * math.sqrt(max(0.0, 1 - (alpha / after) ** 2))
        old = math.sqrt(rest**2 - new**2)
        # x_s = after * x0 + old * (x_t - alpha * x0) / sigma + new * noise
        keep, gain = old / sigma, after - old * alpha / sigma
        mean, variance = (keep + gain * a) * mean + gain * b, (keep + gain * a) ** 2 * variance + new**2
    return mean, variance


def by_hand(way: str, y: float, r2: float) -> Callable[[float, float, float], tuple[float, float]]:
    """x0 - m as an affine map of x_t for the unit Gaussian: J = a, so C = sigma^2 / alpha * a."""

    def move(alpha: float, sigma: float, a: float) -> tuple[float, float]:
        covariance = sigma**2 / alpha * a
        gain = covariance / (covariance + r2) if way == "covariance" else covariance / r2
        return a - gain * a, gain * y

    return move


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("eta", [0, 1])
@pytest.mark.parametrize("steps", [5, 20, 50])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_each_way_is_its_own_recursion(way: str, eta: int, steps: int, strength: float) -> None:
    steer = Steer(observed(1.0, 0.25), way=way, strength=strength)
    found = steered_walk([steer], ("ddim", "ddpm")[eta], steps)
    assert found == pytest.approx(recursion(by_hand(way, 1.0, 0.25 / strength), eta, steps), rel=1e-5)


def test_covariance_is_bayes_and_plain_dps_is_not() -> None:
    steer = Steer(observed(1.0, 0.25))
    mean, variance = steered_walk([steer], "ddpm", 50)
    assert mean == pytest.approx(0.8, abs=0.002) and variance == pytest.approx(0.155, abs=0.005)
    off = [abs(steered_walk([steer], "ddpm", steps)[1] - 0.2) for steps in (20, 50, 100, 400)]
    assert off == sorted(off, reverse=True) and off[-1] < 0.01
    biased = steered_walk([Steer(observed(1.0, 0.25), way="exact")], "ddpm", 400)
    assert biased[0] > 0.95 and biased[1] < 0.15


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpm++2m"])
def test_nothing_diverges_with_clipping_and_plain_dps_does_without(way: str, solver: str) -> None:
    for strength in (0.01, 0.1, 1, 10, 100):
        steer = Steer(observed(1.0, 0.01), way=way, strength=strength)
        times = time_grid(LINEAR, solver, 50, None)
        x = PictureNoise.from_seeds(range(64), (1, 1, 1))("cpu")
        denoiser = SteeredDenoiser(unit_gaussian(LINEAR), [steer], LINEAR, range(64), times=times)
        *_, last = SOLVERS[solver].solve(denoiser, x, times, LINEAR, noise=PictureNoise.from_seeds(range(64), (1, 1, 1)))
        assert last.x0.abs().max() <= 1.001
    if way == "exact" and solver == "ddpm":
        assert abs(steered_walk([Steer(observed(1.0, 0.01), way="exact")], "ddpm", 50)[0]) > 1000
        assert abs(steered_walk([Steer(observed(1.0, 0.01))], "ddpm", 50)[0] - 0.99) < 0.01


def test_two_steers_together_are_the_product_of_their_likelihoods() -> None:
    """Two observations of variance 0.5 that agree are one of variance 0.25; `shortcut` and `exact` add up whatever they say."""
    two = [Steer(observed(1.0, 0.5), "a"), Steer(observed(1.0, 0.5), "b")]
    one = [Steer(observed(1.0, 0.25), "a")]
    assert steered_walk(two, "ddpm", 20) == pytest.approx(steered_walk(one, "ddpm", 20), rel=1e-9)
    for way in ("exact", "shortcut"):
        mixed = [Steer(observed(1.0, 0.5), "a", way=way), Steer(observed(-0.2, 0.5), "b", way=way)]
        middle = [Steer(observed(0.4, 0.25), "a", way=way)]
        assert steered_walk(mixed, "ddpm", 20) == pytest.approx(steered_walk(middle, "ddpm", 20), rel=1e-9)


def test_smoothing_with_many_copies_is_the_exact_covariance() -> None:
    """Song et al. 2023, LGD: with the posterior's own spread the smoothed likelihood is that of x_t, N(y; x0, r^2 + C)."""
    x_t, t = torch.linspace(-2, 2, 8, dtype=torch.float64).reshape(-1, 1, 1, 1), 500.0
    loss = observed(1.0, 0.25)
    arguments = (LINEAR, range(8))
    smooth = SteeredDenoiser(unit_gaussian(LINEAR), [Steer(loss, way="exact", copies=20000)], *arguments, clip=False)
    exact = SteeredDenoiser(unit_gaussian(LINEAR), [Steer(loss)], *arguments, clip=False)
    assert torch.allclose(smooth(x_t, t), exact(x_t, t), atol=0.03)


def test_shortcut_is_exact_where_the_network_says_constant_noise() -> None:
    """x0 = (x_t - sigma * constant) / alpha: J = 1 / alpha, so both move along d, in the ratio of their covariances."""
    process, x_t, t = LINEAR, torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 300.0
    alpha, sigma = (float(c) for c in process.alpha_sigma(torch.tensor(t)))

    def denoise(x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return (x - sigma * 0.3) / alpha

    moved = {
        way: SteeredDenoiser(denoise, [Steer(observed(1.0, 0.25), way=way)], process, range(4), clip=False)(x_t, t)
        - denoise(x_t, torch.tensor(t))
        for way in ("exact", "shortcut")
    }
    # C of the shortcut at v -> infinity is sigma^2 / alpha^2, which is what J = 1 / alpha says
    assert torch.allclose(moved["shortcut"] * (alpha**2 + sigma**2) / alpha**2, moved["exact"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("y", "r"), [(0.3, 0.6), (0.6, 0.3), (-0.6, 0.6)])
def test_mass_moves_to_the_right_mode(way: str, y: float, r: float) -> None:
    """Half the mass is on either side before; no method of these is exact for two modes, and all come within a tenth of the truth."""
    count, process = 3000, Process("flow")
    times = time_grid(process, "ddpm", 50, None)
    generator = torch.Generator().manual_seed(0)

    def noise(device: Any) -> Tensor:
        return torch.randn(count, 1, 1, 1, generator=generator)

    steer = Steer(observed(y, r**2), way=way)
    denoiser = SteeredDenoiser(two_modes(process), [steer], process, range(count), variance=0.37, times=times)
    *_, last = SOLVERS["ddpm"].solve(denoiser, noise(None) * process.start_scale(times[0]).item(), times, process, noise=noise)
    assert float((last.x0 > 0).double().mean()) == pytest.approx(share_on_the_right(y, r), abs=0.1)
    assert (last.x0.abs() - 0.6).abs().mean() < 0.12  # and the pictures stay on the modes


# ---- a network -------------------------------------------------------------------------------------------------------


class Answer(nn.Module):
    def __init__(self, sample: Tensor) -> None:
        super().__init__()
        self.sample = sample


class SmallNetwork(nn.Module):
    """Smooth, and mixes all values of a picture."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 3, 3, padding=1))
        self.requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor) -> Any:
        return Answer(self.layers(x) * torch.cos(t / 700)[:, None, None, None].to(x))


def small_denoiser(process: str = "flow", prediction: str = "flow", double: bool = False) -> Denoiser:
    spec = ModelSpec(Process(process), prediction, 8, 8, 3, data_variance=0.3)
    return Denoiser(SmallNetwork().double() if double else SmallNetwork(), spec)


def redness(pictures: Tensor, moment: Moment) -> Tensor:
    return ((pictures - torch.tensor([0.9, 0.1, 0.1]).to(pictures)[:, None, None]) ** 2).mean((1, 2, 3)) / 0.05


def drawn(denoiser: Denoiser, steers: Sequence[Steer], seeds: Sequence[int], solver: str = "dpm++2m", steps: int = 6, **how: Any) -> Tensor:
    """Pictures [B, 3, 8, 8] as `draw` makes them."""
    jobs = [Job(None, seed) for seed in seeds]
    return draw(denoiser, jobs, How(solver, steps), steers=steers, **how).pictures


@pytest.mark.parametrize("way", WAYS)
def test_strength_0_is_no_steer_bit_for_bit(way: str) -> None:
    model = small_denoiser()
    assert torch.equal(drawn(model, [Steer(redness, way=way, strength=0.0)], range(4)), drawn(model, [], range(4)))
    assert not torch.equal(drawn(model, [Steer(redness, way=way)], range(4)), drawn(model, [], range(4)))


def test_a_picture_observed_at_strength_0_is_not_put_back() -> None:
    model = small_denoiser()
    known = torch.zeros(1, 8, 8, dtype=torch.bool)
    known[:, :4] = True
    grey = torch.full((3, 8, 8), 0.5)
    observation = Observation(lambda pictures: pictures * known, grey * known, 0.05, (known, grey))
    pasted = [drawn(model, [Steer(observation, strength=strength)], range(2)) for strength in (0.0, 1.0)]
    assert torch.equal(pasted[0], drawn(model, [], range(2))) and not torch.equal(pasted[1], pasted[0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("more", [{}, {"copies": 3}, {"inner": 2, "recurrence": 2}])
def test_a_picture_does_not_depend_on_its_batch(way: str, more: dict[str, Any]) -> None:
    model, steers = small_denoiser(), [Steer(redness, way=way, **more)]
    together = drawn(model, steers, range(8)).int()
    alone = torch.cat([drawn(model, steers, [seed]) for seed in range(8)]).int()
    assert (together - alone).abs().max() <= 1


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_batch_that_does_not_fit_is_split_and_draws_the_same(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(gradient, "pictures_that_fit", lambda trial, device: at_once)
    model, seen = small_denoiser(), []
    forward = model.network.forward
    monkeypatch.setattr(model.network, "forward", lambda x, t: seen.append(len(x)) or forward(x, t))
    split = drawn(model, [Steer(redness)], range(8)).int()
    assert max(seen) == at_once
    monkeypatch.undo()
    assert (split - drawn(small_denoiser(), [Steer(redness)], range(8)).int()).abs().max() <= 1


FITTING = [
    (process, solver) for process in ("cosine", "linear", "flow", "edm") for solver in SOLVERS if process in SOLVERS[solver].processes
]
THEIRS = [
    ("cosine", "DDIMScheduler"),
    ("linear", "DPMSolverMultistepScheduler"),
    ("linear", "EulerDiscreteScheduler"),
    ("flow", "FlowMatchEulerDiscreteScheduler"),
]
METHODS: dict[str, dict[str, Any]] = {
    **{way: {"way": way} for way in WAYS},
    **{name: dict(options) for name, options in PRESETS.items()},
    **{scaling: {"way": "shortcut", "scaling": scaling} for scaling in SCALINGS},
}


@pytest.mark.parametrize(("process", "solver"), FITTING + THEIRS)
def test_every_method_steers_with_every_solver(process: str, solver: str) -> None:
    """The loss of the pictures falls, whatever the solver: 5 steps of an untrained network, which obeys nothing else."""
    model = small_denoiser(process, "flow" if process == "flow" else "v")
    jobs = [Job(None, seed) for seed in range(3)]
    before = [
        draw(model, jobs, How(solver, 5), steers=[Steer(redness, strength=0.0, recurrence=n)]).losses["loss"][-1].mean() for n in (1, 2)
    ]
    for name, options in METHODS.items():
        strength = 0.02 if "scaling" in options else 1.0  # the course's forces know no noise level
        told = draw(model, jobs, How(solver, 5), steers=[Steer(redness, strength=strength, **options)])
        assert told.losses["loss"][-1].mean() < before[options.get("recurrence", 1) - 1], name  # with the same noise
        assert told.losses["loss"].shape[1] == 3


@pytest.mark.parametrize("clip", [False, True])
def test_the_move_is_the_gradient_by_finite_differences(clip: bool) -> None:
    """Through the network and a loss that clips, as cutouts do: m of `exact` is sigma^2 / alpha times the gradient of loss(x0(x_t))."""
    model, t = small_denoiser(double=True), 400.0
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.5

    def loss(pictures: Tensor, moment: Moment) -> Tensor:
        return redness(pictures.clamp(0, 1) if clip else pictures, moment)

    def denoise(x_t: Tensor, t: Any, cond: Tensor | None = None) -> Tensor:
        time = torch.full((len(x_t),), float(t))
        return model.read(model.network(x_t, time).sample, x_t, time)  # in float64 throughout

    def whole(x_t: Tensor) -> Tensor:
        return loss((denoise(x_t, t) + 1) / 2, None).sum()  # type: ignore[arg-type]

    alpha, sigma = (float(c) for c in model.spec.process.alpha_sigma(torch.tensor(t)))
    engine = SteeredDenoiser(denoise, [Steer(loss, way="exact")], model.spec.process, range(2), clip=False)
    move = denoise(x, t) - engine(x, t)
    step = 1e-6
    for place in ((0, 0, 3, 4), (1, 2, 7, 0), (0, 1, 0, 0)):
        nudge = torch.zeros_like(x)
        nudge[place] = step
        slope = float(whole(x + nudge) - whole(x - nudge)) / (2 * step)
        assert float(move[place]) == pytest.approx(sigma**2 / alpha * slope, rel=1e-4, abs=1e-9)


def test_a_window_and_a_limit_hold() -> None:
    model, told = small_denoiser(), []

    def loss(pictures: Tensor, moment: Moment) -> Tensor:
        told.append(moment.noise_level)
        return redness(pictures, moment)

    drawn(model, [Steer(loss, window=(0.3, 0.7))], [0], steps=20)
    assert told[:-1] and all(0.3 <= level <= 0.7 for level in told[:-1])  # the last question is about the picture
    x = torch.randn(2, 3, 8, 8)
    denoise = SteeredDenoiser(model, [Steer(redness, way="exact", strength=50, most=0.05)], model.spec.process, range(2), clip=False)
    move = denoise(x, 700.0) - model(x, 700.0)
    assert torch.allclose(move.flatten(1).square().mean(1).sqrt(), torch.full((2,), 0.05), atol=1e-4)


def test_the_courses_colour_cell_runs_as_it_stands() -> None:
    """`scaling=seed` against the cell, with diffusers' own DDIM: x moves, and the noise estimate is that of the unmoved x."""
    from diffusers import DDIMScheduler

    model, steps, scale = small_denoiser("linear", "eps"), 10, 3.0

    def mean_distance(x0: Tensor) -> Tensor:
        return (x0 - torch.tensor([-0.8, 0.8, 0.0])[:, None, None]).abs().mean((1, 2, 3))

    for way in ("shortcut", "exact"):
        scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=True)
        scheduler.set_timesteps(steps)
        x = PictureNoise.from_seeds(range(2), (3, 8, 8))("cpu")
        for t in scheduler.timesteps:
            x = x.detach().requires_grad_()
            with torch.set_grad_enabled(way == "exact"):
                noise = model.predict(x, t.float().expand(2))
            x0 = scheduler.step(noise, t, x).pred_original_sample
            unclipped = (x - (1 - scheduler.alphas_cumprod[t]).sqrt() * noise) / scheduler.alphas_cumprod[t].sqrt()
            assert x0.shape == unclipped.shape
            force = torch.autograd.grad(mean_distance(unclipped).sum() * scale, x)[0]  # unclipped: the clamp would hide saturated pixels
            x = scheduler.step(noise.detach(), t, x.detach() - force).prev_sample
        steer = Steer(lambda u, moment: mean_distance(2 * u - 1), way=way, scaling="seed", strength=scale)
        times = time_grid(model.spec.process, "ddim", steps, "leading")
        steered = SteeredDenoiser(model, [steer], model.spec.process, range(2), times=times)
        start = PictureNoise.from_seeds(range(2), (3, 8, 8))("cpu")
        *_, last = SOLVERS["ddim"].solve(steered, start, times, model.spec.process)
        assert torch.allclose(last.x0, x, atol=2e-4), way


def test_a_loss_of_the_noisy_picture_is_classifier_guidance() -> None:
    """p(y | x_t) of the unit Gaussian is N(y; x0(x_t), C + r^2): told so, one move gives the posterior mean that `covariance` gives."""
    process, t, y, r2 = LINEAR, 400.0, 1.0, 0.25
    alpha, sigma = (float(c) for c in process.alpha_sigma(torch.tensor(t)))
    size, gain = math.hypot(alpha, sigma), alpha / (alpha**2 + sigma**2)
    variance = sigma**2 / (alpha**2 + sigma**2) + r2

    def of_noisy(scaled: Tensor, moment: Moment) -> Tensor:
        return ((gain * size * scaled - y) ** 2 / (2 * variance)).flatten(1).sum(1)

    x = torch.randn(3, 1, 1, 1, dtype=torch.float64)
    noisy = SteeredDenoiser(unit_gaussian(process), [Steer(NoisyLoss(of_noisy, observed(y, r2)))], process, range(3), clip=False)
    plain = SteeredDenoiser(unit_gaussian(process), [Steer(observed(y, r2))], process, range(3), clip=False)
    assert torch.allclose(noisy(x, t), plain(x, t))


def test_recurrence_leaves_the_noise_level_as_it_was() -> None:
    """Down a step and up again is the same x_t in distribution: the exact denoiser's variance is kept, and twice the calls are made."""
    process, steps = LINEAR, 200
    times = time_grid(process, "ddim", steps, "trailing")
    variances = []
    for recurrence in (1, 3):

        def solve(x: Tensor, noise: Any, recurrence: int = recurrence) -> Iterator[Step]:
            return SOLVERS["ddim"].solve(unit_gaussian(process), x, times, process, noise=noise, recurrence=recurrence)

        variances.append(affine(solve, steps * (recurrence - 1))[1])
    assert variances[0] == pytest.approx(1.0, abs=0.05) and variances[1] == pytest.approx(1.0, abs=0.05)
    with pytest.raises(ValueError, match="pass noise="):
        list(SOLVERS["ddim"].solve(unit_gaussian(process), torch.zeros(1, 1, 1, 1), times, process, recurrence=2))


def test_copies_noise_is_the_pictures_own() -> None:
    first = gradient._copies_noise(7, 3, 2, torch.zeros(1, 1, 2, 2))
    assert torch.equal(first, torch.randn((2, 1, 2, 2), generator=generator_for(7, "copies", 3)))


def test_what_does_not_go_together_is_said() -> None:
    for options, said in (
        ({"way": "exakt"}, "unknown way"),
        ({"scaling": "linear"}, "unknown scaling"),
        ({"scaling": "none"}, "covariance has"),
    ):
        with pytest.raises(ValueError, match=said):
            Steer(redness, **options)


def test_one_time_for_all_pictures_may_be_told_to_each() -> None:
    model, x = small_denoiser(), torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    steered = gradient.SteeredDenoiser(model, [Steer(redness)], model.spec.process, range(3))
    assert torch.equal(steered(x, 500.0), steered(x, torch.full((3,), 500.0)))
    with pytest.raises(ValueError, match="pictures of one time"):
        steered(x, torch.tensor([500.0, 400.0, 300.0]))
