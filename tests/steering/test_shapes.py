"""Losses about the picture as a whole: closed forms, gradients, and what they say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffsteer.errors import Mistake
from diffsteer.steering.contract import Canvas, Loss, Moment
from diffsteer.steering.shapes import brightness, smoothness, symmetry

CANVAS = Canvas(1, 8, 8)
CASES: list[tuple[Callable[[str, Canvas], Loss], str]] = [
    (symmetry, ""),
    (symmetry, "up-down"),
    (symmetry, "both"),
    (brightness, "0.3"),
    (smoothness, ""),
    (smoothness, "laplacian"),
]


def value_of(loss: Loss, pictures: Tensor) -> Tensor:
    return loss(pictures, Moment(tuple(range(len(pictures))), 0, 500.0, 0.5, pictures))


def some_pictures(count: int, channels: int = 1) -> Tensor:
    return torch.rand((count, channels, 8, 8), generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1


@pytest.mark.parametrize(("maker", "value"), CASES)
@pytest.mark.parametrize("channels", [1, 3])
def test_one_picture_is_the_same_in_a_batch_of_eight(maker: Callable[[str, Canvas], Loss], value: str, channels: int) -> None:
    loss, pictures = maker(value, Canvas(channels, 8, 8)), some_pictures(8, channels)
    together = value_of(loss, pictures)
    assert together.shape == (8,) and together.dtype == torch.float32 and (together > 0).all()
    assert torch.allclose(together[2:3], value_of(loss, pictures[2:3]), rtol=1e-6)
    pictures.requires_grad_()
    gradient = torch.autograd.grad(value_of(loss, pictures)[2], pictures)[0].abs().sum(dim=(1, 2, 3))
    assert gradient[2] > 0 and gradient.count_nonzero() == 1


@pytest.mark.parametrize(("maker", "value"), CASES)
def test_the_gradient_is_the_slope(maker: Callable[[str, Canvas], Loss], value: str) -> None:
    loss = maker(value, CANVAS)
    assert torch.autograd.gradcheck(lambda x: value_of(loss, x), some_pictures(2)[:, :, :4, :4].double().requires_grad_())


def test_symmetry_is_the_difference_from_the_mirror() -> None:
    pictures = torch.zeros(2, 1, 8, 8)
    pictures[0, :, :, 0] = 1  # a bar at the left: unlike its left-right mirror in a quarter of the pixels, like its up-down mirror
    pictures[1, :, :, 3:5] = 1  # a bar in the middle
    assert value_of(symmetry("left-right", CANVAS, tolerance=0.5), pictures).tolist() == pytest.approx([0.25 / 0.5, 0])
    assert value_of(symmetry("up-down", CANVAS, tolerance=0.5), pictures).tolist() == [0, 0]
    assert value_of(symmetry("both", CANVAS, tolerance=0.5), pictures).tolist() == pytest.approx([0.25 / 0.5 / 2, 0])


def test_brightness_is_the_mean_of_all_values() -> None:
    pictures = torch.zeros(1, 3, 8, 8)
    pictures[:, 0] = 0.9  # mean 0.3
    assert value_of(brightness("0.5", CANVAS, tolerance=0.1), pictures).item() == pytest.approx(2.0)
    assert value_of(brightness("0.3", CANVAS), pictures).item() == pytest.approx(0, abs=1e-6)


def test_total_variation_counts_steps_and_the_laplacian_their_change() -> None:
    ramp = torch.linspace(0, 0.7, 8).expand(1, 1, 8, 8)  # steps of 0.1 to the right, none down
    assert value_of(smoothness("total-variation", CANVAS, tolerance=0.05), ramp).item() == pytest.approx(1.0)
    assert value_of(smoothness("laplacian", CANVAS), ramp).item() == pytest.approx(0, abs=1e-6)
    dot = torch.zeros(1, 1, 8, 8)
    dot[:, :, 4, 4] = 1  # itself 1, its four neighbours 1/4 each, of 36 inner pixels
    assert value_of(smoothness("laplacian", CANVAS, tolerance=0.5), dot).item() == pytest.approx((1 + 4 / 16) / 36 / (2 * 0.25))


@pytest.mark.parametrize(
    ("maker", "value", "said"),
    [
        (symmetry, "leftright", "Did you mean left-right? It is one of left-right, up-down, both."),
        (symmetry, "round", "The mirror of symmetry cannot be 'round'. It is one of"),
        (smoothness, "laplace", "Did you mean laplacian?"),
        (brightness, "dark", "brightness takes a number from 0 (black) to 1 (white), such as brightness=0.3; 'dark' is none."),
        (brightness, "128", "brightness goes from 0 (black) to 1 (white); 128 was given."),
        (brightness, "nan", "nan was given"),
    ],
)
def test_wrong_values_are_told_what_is_possible(maker: Callable[[str, Canvas], Loss], value: str, said: str) -> None:
    with pytest.raises(Mistake) as told:
        maker(value, CANVAS)
    assert said in str(told.value)
