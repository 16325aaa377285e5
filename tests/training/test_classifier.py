"""Judges learn, say honestly how well, and are functions of data, settings and seed."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from diffsteer.data.images import load_pictures
from diffsteer.data.memory import MemoryPictures
from diffsteer.data.pixels import to_signed
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.judge import Judge
from diffsteer.diffusion.process import Process
from diffsteer.errors import Mistake
from diffsteer.training import classifier
from diffsteer.training.classifier import accuracy, held_out_split, jittered, train_judge

SHARED = Path(os.environ.get("DIFFSTEER_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="module")
def digits() -> MemoryPictures:
    data = load_pictures("digits")
    assert isinstance(data, MemoryPictures)
    return data


def few(data: MemoryPictures, count: int) -> MemoryPictures:
    assert data.labels is not None
    return replace(data, pixels=data.pixels[:count], labels=data.labels[:count])


def test_the_digits_are_learnt_in_seconds(digits_judge: Judge) -> None:
    spec = digits_judge.spec
    assert spec.held_out == 180 and spec.accuracy >= 0.97
    assert not digits_judge.training and not any(p.requires_grad for p in digits_judge.parameters())


def test_the_accuracy_is_that_of_the_pictures_held_out(digits: MemoryPictures, digits_judge: Judge) -> None:
    held, learnt = held_out_split(digits, 0, 0.1)
    assert sorted(torch.cat([held, learnt]).tolist()) == list(range(digits.count))
    assert digits_judge.spec.accuracy == accuracy(digits_judge, digits, held)


def test_pictures_held_out_teach_nothing(digits: MemoryPictures) -> None:
    """With all labels of the held-out pictures changed, the same judge comes out, and is right about none it was right about."""
    data = few(digits, 300)
    held, _ = held_out_split(data, 0, 0.3)
    assert data.labels is not None
    moved = data.labels.clone()
    moved[held] = (moved[held] + 1) % 10
    one = train_judge(data, epochs=8, held_out_share=0.3)
    other = train_judge(replace(data, labels=moved), epochs=8, held_out_share=0.3)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert one.spec.accuracy > 0.6 and other.spec.accuracy < 0.2


@pytest.mark.parametrize("architecture", ["plain", "patches"])
@pytest.mark.parametrize("noise_aware", [False, True])
def test_a_judge_is_a_function_of_its_seed(digits: MemoryPictures, architecture: str, noise_aware: bool) -> None:
    data, state = few(digits, 100), torch.random.get_rng_state()
    first, again, other = (train_judge(data, architecture=architecture, noise_aware=noise_aware, epochs=1, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state()), "the global generator is left as it was"
    pictures = data.pixels[:4].float() / 255
    assert torch.equal(first(pictures), again(pictures))
    assert not torch.allclose(first(pictures), other(pictures))
    assert held_out_split(data, 0, 0.5)[0].tolist() != held_out_split(data, 1, 0.5)[0].tolist()


@pytest.mark.parametrize("steps", range(1, 8))
def test_any_number_of_steps_may_be_taken(digits: MemoryPictures, steps: int) -> None:
    done: list[tuple[int, int]] = []
    judge = train_judge(few(digits, 70), epochs=steps, watch=lambda *at: done.append(at))  # 63 pictures to learn from are one batch
    assert done[-1] == (steps, steps) and judge(digits.pixels[:2] / 255).isfinite().all()


def test_the_second_architecture_judges_the_digits_too(digits: MemoryPictures) -> None:
    assert train_judge(digits, architecture="patches", epochs=8).spec.accuracy >= 0.9


def test_a_noise_aware_judge_knows_less_the_noisier_the_picture(digits: MemoryPictures) -> None:
    judge = train_judge(digits, noise_aware=True, epochs=8)
    held, _ = held_out_split(digits, 0, 0.1)
    batch = digits.at(held.tolist())
    assert judge.spec.accuracy >= 0.94 and batch.labels is not None
    x0 = batch.pixels.float() / 127.5 - 1
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    right, sure = [], []
    for level in (0.3, 0.7, 0.999):
        logits = judge(math.sqrt(1 - level**2) * x0 + level * eps, torch.tensor(level))
        right.append((logits.argmax(1) == batch.labels).double().mean().item())
        sure.append(logits.softmax(1).max(1).values.mean().item())
    assert right[0] > 0.9 and right[0] > right[1] > right[2] and right[2] < 0.3
    assert sure[0] > 0.7 and sure[2] < 0.3, "in pure noise no class is likelier than another"


def test_watch_counts_to_the_end_and_epochs_set_it(digits: MemoryPictures) -> None:
    seen: list[tuple[int, int]] = []
    train_judge(few(digits, 200), epochs=2, watch=lambda step, steps: seen.append((step, steps)))
    assert seen == [(step, 6) for step in range(1, 7)]  # 180 pictures are 2.8 batches of 64


def test_the_default_length_is_1200_steps_or_four_epochs(digits: MemoryPictures) -> None:
    judge = classifier._untrained(train_judge(few(digits, 100), epochs=1).spec)
    for learnt, steps in ((500, 1200), (54_000, 3375)):
        assert classifier._steps(judge, digits, torch.arange(learnt), 64, None, None, None) == steps


def test_seconds_become_steps(digits: MemoryPictures) -> None:
    started, seen = time.perf_counter(), []
    train_judge(digits, seconds=1.0, watch=lambda step, steps: seen.append((step, steps)))
    assert seen[-1][0] == seen[-1][1] == len(seen) > 5
    assert time.perf_counter() - started < 10


def test_every_picture_is_seen_once_an_epoch() -> None:
    batches = classifier._batches(torch.arange(10, 20), 4, seed=0)
    seen = torch.cat([next(batches) for _ in range(5)]).tolist()
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10, 20))
    assert seen[:10] != seen[10:]


def test_jitter_moves_a_little_and_never_mirrors() -> None:
    """The brightest point of a picture stays on its side, within the reach of a shift and a turn."""
    x0 = torch.full((200, 1, 28, 28), -1.0)
    x0[:, :, 5:8, 5:8] = 1.0
    moved = jittered(x0, 0, 0)
    assert torch.equal(moved, jittered(x0, 0, 0)) and not torch.equal(moved, jittered(x0, 0, 1))
    places = (moved + 1).flatten(1).argmax(1)
    rows, columns = places // 28, places % 28
    assert len(places.unique()) > 10
    assert rows.min() >= 0 and rows.max() <= 12 and columns.max() <= 12


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"labels": None, "label_names": ()}, "digits has no labels"),
        ({"label_names": ("zero",)}, "one class only, zero"),
    ],
)
def test_data_without_classes_is_a_mistake(digits: MemoryPictures, data: dict[str, object], said: str) -> None:
    with pytest.raises(Mistake, match=said):
        train_judge(replace(digits, **data))  # type: ignore[arg-type]


def test_too_few_pictures_are_a_mistake(digits: MemoryPictures) -> None:
    with pytest.raises(Mistake, match="4 pictures, too few to hold any out"):
        train_judge(few(digits, 4))


@pytest.mark.parametrize("wrong", [{"seconds": 1.0, "epochs": 1}, {"held_out_share": 0.0}, {"architecture": "plane"}])
def test_settings_that_cannot_be_are_errors(digits: MemoryPictures, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        train_judge(digits, **wrong)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["plain", "patches"])
def test_mnist_is_learnt_to_99_of_100(architecture: str) -> None:
    if not (SHARED / "mnist").is_dir():
        pytest.skip(f"no MNIST under {SHARED}")
    judge = train_judge(load_pictures(str(SHARED / "mnist")), architecture=architecture)
    test = load_pictures(str(SHARED / "mnist"), split="test")
    assert judge.spec.held_out == 6000 and judge.spec.accuracy >= 0.99
    assert accuracy(judge, test, torch.arange(test.count)) >= 0.99


# ---- through a model -----------------------------------------------------------------------------------------------------


def knows_the_mean(conditioning: str = "none", null_class: bool = False) -> Denoiser:
    """A denoiser that answers half of what it sees, whatever the time and the label."""

    class Half(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> SimpleNamespace:
            assert class_labels is None or (class_labels == 10).all()  # the class that means none
            return SimpleNamespace(sample=x / 2)

    names = () if conditioning == "none" else tuple(map(str, range(10)))
    return Denoiser(Half(), ModelSpec(Process("flow"), "x0", 8, 8, 1, conditioning, names, null_class))


def test_a_guess_is_of_the_picture_at_the_angle_of_its_noise() -> None:
    x0, eps = torch.rand(5, 1, 8, 8) * 2 - 1, torch.randn(5, 1, 8, 8)
    angle = torch.tensor([0.0, 0.3, 0.8, 1.2, math.pi / 2])
    for denoiser in (knows_the_mean(), knows_the_mean("add", null_class=True)):
        found = classifier._guesses(denoiser)(x0, eps, angle)
        alpha = 1 / (1 + angle.tan())  # flow: sigma = 1 - alpha, so sigma / alpha is the tangent
        x_t = alpha[:, None, None, None] * x0 + (1 - alpha)[:, None, None, None] * eps
        torch.testing.assert_close(found, x_t / 2, atol=1e-5, rtol=1e-4)
    with pytest.raises(Mistake, match="always needs a label"):
        classifier._guesses(knows_the_mean("add"))


def test_a_judge_learns_through_a_model(digits: MemoryPictures) -> None:
    """What it learns from is half as bright and noisy: it reads those pictures better than a judge of the clean ones does."""
    through = train_judge(digits, epochs=8, through=knows_the_mean(), through_name="runs/half")
    assert through.spec.through == "runs/half" and through.spec.held_out > 0
    plain = train_judge(digits, epochs=8)
    held, _ = held_out_split(digits, 0, 0.1)
    batch = digits.at(held.tolist())
    assert batch.labels is not None
    x0 = to_signed(batch.pixels)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    guesses = classifier._guesses(knows_the_mean())(x0, eps, torch.full((len(x0),), 0.6))
    right = [float((judge((guesses + 1) / 2).argmax(1) == batch.labels).float().mean()) for judge in (through, plain)]
    assert right[0] > right[1] + 0.05, right
