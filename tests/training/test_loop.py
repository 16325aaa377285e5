"""The loop: a batch may be cut into micro-batches at will; the average of the weights; what a step sees; what is saved is all there is."""

from __future__ import annotations

import copy
from itertools import islice
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler
from torch.nn import functional as F

from diffsteer.data.images import load_pictures
from diffsteer.diffusion.denoiser import Denoiser
from diffsteer.recipebook import train_settings
from diffsteer.training.build import build_model
from diffsteer.training.loop import Training
from diffsteer.training.plan import Plan


def training(**given: Any) -> Training:
    values = {"data": "digits", "channels": (32, 32), "layers": 1, "batch_size": 32, "warmup": 0, "decay": "none", **given}
    settings = train_settings(None, values)
    data = load_pictures("digits")
    network, spec = build_model(settings, data)
    plan = Plan(data.count, settings.batch_size, settings.accumulate, settings.last_batch, 1000, settings.lr, 0, "none")
    AcceleratorState._reset_state(reset_partial_state=False)
    half = "bf16" if settings.precision == "bf16" else "no"
    return Training(network, spec, settings, data, plan, Accelerator(cpu=True, mixed_precision=half))


def losses(of: Training, steps: int) -> list[float]:
    return [(stepped.record[0] / stepped.record[1]).item() for stepped in islice(of.run(), steps)]


def weights(of: Training) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in of.network.parameters()])


def test_accumulation_equals_one_big_batch() -> None:
    whole = losses(training(batch_size=32), 50)
    parts = losses(training(batch_size=8, accumulate=4), 50)
    assert max(abs(a - b) for a, b in zip(whole, parts, strict=True)) < 1e-5


def test_the_gradient_of_one_step_is_the_same_in_parts() -> None:
    gradients = []
    for batch, accumulate in ((32, 1), (8, 4), (5, 7)):
        made = training(batch_size=batch, accumulate=accumulate, optimizer="adam", flip=True, even_times=True)
        made.plan = Plan(32, batch, accumulate, "short", 10, 1e-3, 0, "none")
        made.data = load_pictures("digits")
        made.engine.train()
        made._gradients(made._shown(0, made._read(0)))
        gradients.append(torch.cat([p.grad.flatten() for p in made.network.parameters() if p.grad is not None]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5)
    assert torch.allclose(gradients[0], gradients[2], atol=1e-5)


def test_the_average_follows_its_formula() -> None:
    made = training()
    expected = weights(made).clone()
    for step, _ in enumerate(islice(made.run(), 6)):
        decay = min(0.9999, 1 - (1 + step) ** -0.75)
        expected = decay * expected + (1 - decay) * weights(made)
    assert made.ema is not None
    average = torch.cat([parameter.flatten() for parameter in made.ema.parameters()])
    assert torch.allclose(average, expected, atol=1e-6)
    assert not torch.allclose(average, weights(made), atol=1e-6)


def test_saved_tensors_are_all_that_a_resumed_step_needs() -> None:
    straight = training(dropout=0.2, flip=True)
    expected = losses(straight, 7)
    first = training(dropout=0.2, flip=True)
    torch.manual_seed(5)  # whatever the global generator was
    begun = losses(first, 3)
    second = training(dropout=0.2, flip=True)
    second.load(first.tensors(), first.state())
    torch.manual_seed(99)
    assert begun + losses(second, 4) == expected
    assert torch.equal(weights(second), weights(straight))


def test_dropout_draws_from_the_step_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    losses(training(dropout=0.5), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_is_another_run() -> None:
    assert losses(training(seed=0), 2) != losses(training(seed=1), 2)


def test_labels_are_dropped_at_their_rate() -> None:
    made = training(label_dropout=0.25, batch_size=500)
    draws = torch.cat([made._draws(step, 500).label for step in range(20)])
    assert (draws < 0.25).float().mean().item() == pytest.approx(0.25, abs=0.015)


def test_even_times_are_spread_over_the_whole_step() -> None:
    for batch, accumulate in ((32, 1), (8, 4)):
        made = training(batch_size=batch, accumulate=accumulate, times="uniform", even_times=True)
        for stepped in islice(made.run(), 3):
            assert stepped.record[-4:].tolist() == [8.0] * 4  # pictures in each quarter of the noise levels


def test_shifted_times_are_noisier() -> None:
    counts = [sum(stepped.record[-4:] for stepped in islice(training(time_shift=shift).run(), 10)) for shift in (1.0, 3.0)]
    assert counts[1][-1] > 2 * counts[0][-1]


def test_clipping_bounds_the_gradient_and_reports_its_norm() -> None:
    made = training(clip=1e-3, optimizer="adam")
    seen: list[float] = []
    step = made.optimizer.step

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(torch.cat([p.grad.flatten() for p in made.network.parameters() if p.grad is not None]).norm().item())
        return step(*args, **kwargs)

    made.optimizer.step = spy
    record = next(made.run()).record
    assert seen[0] == pytest.approx(1e-3, rel=1e-3)
    assert record[2].item() > 1e-2


def test_the_network_itself_keeps_its_arithmetic_beside_a_bf16_training() -> None:
    """Previews and scores ask it, and say what `diffsteer sample` will draw."""
    made, half = training(ema=False), training(precision="bf16", ema=False)
    x_t, t = torch.randn(2, *made.spec.shape, generator=torch.Generator().manual_seed(0)), torch.tensor([300.0, 700.0])
    made.network.eval()
    half.engine.eval()
    labels = torch.tensor([1, 2]) if made.spec.labelled else None
    own = Denoiser(half.network, half.spec, half.denoiser.multiple)(x_t, t, labels)
    assert torch.equal(own, Denoiser(made.network, made.spec, made.denoiser.multiple)(x_t, t, labels))
    assert not torch.equal(own, half.denoiser(x_t, t, labels))


def test_bf16_keeps_weights_noise_and_loss_in_float32() -> None:
    whole = losses(training(), 3)
    half = training(precision="bf16")
    halved = losses(half, 3)
    assert all(parameter.dtype == torch.float32 for parameter in half.network.parameters())
    assert halved == pytest.approx(whole, rel=0.02) and halved != whole


@pytest.mark.parametrize("recipe", ["seed-basic", "seed-unet", "seed-class-conditional"])
def test_the_recipes_step_is_the_lessons_step(recipe: str) -> None:
    """The lesson's own loop (zero_grad, mean square error, backward, Adam at 1e-3) on the same pictures, noise and times."""
    given = {} if recipe == "seed-basic" else {"channels": (32, 32)}
    settings = train_settings(recipe, {"data": "digits", "batch_size": 32, "steps": 5, **given})
    data = load_pictures("digits")
    network, spec = build_model(settings, data)
    lesson = copy.deepcopy(network)
    AcceleratorState._reset_state(reset_partial_state=False)
    plan = Plan(data.count, 32, 1, "short", 5, settings.lr, 0, "none")
    ours = Training(network, spec, settings, data, plan, Accelerator(cpu=True))
    draws = [ours._draws(step, 32) for step in range(5)]
    mine = losses(ours, 5)

    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    optimizer = torch.optim.Adam(lesson.parameters(), lr=1e-3)
    theirs = []
    for step in range(5):
        batch = data.take(settings.seed, 0, step * 32, step * 32 + 32)
        x = batch.pixels / 255
        if recipe == "seed-class-conditional":
            x, noise, timesteps = x * 2 - 1, draws[step].eps, draws[step].t.long()
            pred, wanted = lesson(scheduler.add_noise(x, noise, timesteps), timesteps, class_labels=batch.labels).sample, noise
        else:
            amount = (draws[step].t / 1000).view(-1, 1, 1, 1)
            pred, wanted = lesson(x * (1 - amount) + (draws[step].eps + 1) / 2 * amount, 0).sample, x
        loss = F.mse_loss(pred, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        theirs.append(loss.item())
    assert mine == pytest.approx(theirs, rel=2e-5)
