"""Losses about colour: closed forms, gradients, what they leave alone, and what they say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffsteer.errors import Mistake
from diffsteer.steering.colors import color, color_seed, hue, mean_color, parse_color
from diffsteer.steering.contract import Canvas, Loss, Moment

CANVAS = Canvas(3, 8, 8)
GREEN = (0.1, 0.9, 0.5)
MAKERS: dict[str, Callable[[str, Canvas], Loss]] = {"color": color, "color-seed": color_seed, "mean-color": mean_color, "hue": hue}


def value_of(loss: Loss, pictures: Tensor) -> Tensor:
    return loss(pictures, Moment(tuple(range(len(pictures))), 0, 500.0, 0.5, pictures))


def filled(*rgb: float, count: int = 1) -> Tensor:
    return torch.tensor(rgb).view(1, 3, 1, 1).repeat(count, 1, 8, 8)


def some_pictures(count: int) -> Tensor:
    return torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1


# ---- reading a colour ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("#1ae680", (26, 230, 128)),
        ("1AE680", (26, 230, 128)),
        (" #1e8 ", (17, 238, 136)),
        ("turquoise", (64, 224, 208)),
        ("Light Blue", (173, 216, 230)),
        ("rgb(26, 230, 128)", (26, 230, 128)),
    ],
)
def test_a_colour_has_many_spellings(text: str, levels: tuple[int, int, int]) -> None:
    assert parse_color(text) == pytest.approx([level / 255 for level in levels])


def test_a_colour_as_three_numbers() -> None:
    assert parse_color("0.1, 0.9,0.5") == GREEN


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("turqoise", "'turqoise' is no colour. Did you mean turquoise? Write it as #1ae680,"),
        ("#12345", "is no colour"),
        ("", "is no colour"),
        ("#1ae68080", "partly transparent"),
        ("26,230,128", "counts to 255; here red, green and blue are from 0 to 1: 0.102,0.902,0.502"),
        ("-1,0,0", "out of range"),
        ("0.1,0.9", "three numbers"),
        ("nan,0,0", "out of range"),
    ],
)
def test_what_is_no_colour_is_told_why(text: str, said: str) -> None:
    with pytest.raises(Mistake) as told:
        parse_color(text)
    assert said in str(told.value)


# ---- what all of them keep to ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_a_grey_model_has_no_colour_to_steer(name: str) -> None:
    with pytest.raises(Mistake, match=f"{name} steers colour, and this model draws grey pictures; brightness="):
        MAKERS[name]("red", Canvas(1, 8, 8))


@pytest.mark.parametrize("name", MAKERS)
def test_one_picture_is_the_same_in_a_batch_of_eight(name: str) -> None:
    loss, pictures = MAKERS[name]("#1ae680", CANVAS), some_pictures(8)
    together = value_of(loss, pictures)
    assert together.shape == (8,) and together.dtype == torch.float32 and (together > 0).all()
    assert torch.allclose(together[2:3], value_of(loss, pictures[2:3]), rtol=1e-6)
    pictures.requires_grad_()
    gradient = torch.autograd.grad(value_of(loss, pictures)[2], pictures)[0].abs().sum(dim=(1, 2, 3))
    assert gradient[2] > 0 and gradient.count_nonzero() == 1


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_even_grey_black_and_white_give_finite_gradients(name: str, level: float) -> None:
    pictures = filled(level, level, level).requires_grad_()
    loss = value_of(MAKERS[name]("#1ae680", CANVAS), pictures)
    gradient = torch.autograd.grad(loss.sum(), pictures)[0]
    assert loss.isfinite().all() and gradient.isfinite().all()


def test_a_tolerance_is_above_zero() -> None:
    with pytest.raises(Mistake, match="The tolerance of color is a number above 0; -1 was given"):
        color("red", CANVAS, tolerance=-1.0)


# ---- each of them ----------------------------------------------------------------------------------------------------


def test_color_is_the_distance_of_the_lit_pixels() -> None:
    pictures = torch.zeros(1, 3, 8, 8)
    pictures[0, :, 0, 0] = torch.tensor([0.8, 0.2, 0.2])  # weight 0.8, distance (0.7 + 0.7 + 0.3) / 3
    pictures[0, :, 0, 1] = torch.tensor([0.1, 0.4, 0.5])  # weight 0.5, distance 0.5 / 3
    expected = (0.8 * 1.7 / 3 + 0.5 * 0.5 / 3) / 1.3 / 0.01
    assert value_of(color("0.1,0.9,0.5", CANVAS), pictures).item() == pytest.approx(expected, rel=1e-5)


def test_color_leaves_a_dark_background_alone_and_sends_no_gradient_through_the_weights() -> None:
    pictures = some_pictures(2).double()
    pictures[:, :, :4] = -0.05  # dark, and below black as unclamped pictures are
    pictures.requires_grad_()
    gradient = torch.autograd.grad(value_of(color("0.1,0.9,0.5", CANVAS), pictures).sum(), pictures)[0]
    light = pictures.detach().amax(dim=1, keepdim=True).clamp(min=0)
    away = pictures.detach() - torch.tensor(GREEN).view(1, 3, 1, 1)
    expected = light * away.sign() / 3 / light.sum(dim=(1, 2, 3), keepdim=True) / 0.01
    assert torch.allclose(gradient, expected)
    assert not gradient[:, :, :4].any()


def test_color_of_a_black_picture_is_nothing() -> None:
    pictures = torch.zeros(2, 3, 8, 8, requires_grad=True)
    loss = value_of(color("red", CANVAS), pictures)
    assert not loss.any() and not torch.autograd.grad(loss.sum(), pictures)[0].any()


def test_color_seed_is_the_course_s_loss() -> None:
    def color_loss(images: Tensor, target_color: tuple[float, ...] = GREEN) -> Tensor:  # the course's lines
        target = torch.tensor(target_color).to(images.device) * 2 - 1
        target = target[None, :, None, None]
        return torch.abs(images - target).mean()

    pictures = some_pictures(4)
    ours = value_of(color_seed("0.1,0.9,0.5", CANVAS), pictures)
    assert torch.allclose(ours, torch.stack([color_loss(2 * picture[None] - 1) for picture in pictures]), rtol=1e-5)


def test_color_seed_pulls_each_value_as_hard_as_the_course_does() -> None:
    """SEEDS.md: 40 / 8 at 256x256 is 40 / 64 / 8 at 32x32, both in [-1, 1]."""

    def pull(side: int, strength: float) -> float:
        signed = torch.zeros(1, 3, side, side, requires_grad=True)
        loss = strength * value_of(color_seed("0.1,0.9,0.5", Canvas(3, side, side)), (signed + 1) / 2)
        return torch.autograd.grad(loss.sum(), signed)[0].abs().max().item()

    assert pull(256, 40 / 8) == pytest.approx(40 / (8 * 3 * 256**2))
    assert pull(32, 40 / 64 / 8) == pytest.approx(pull(256, 40 / 8))


def test_mean_color_looks_at_the_mean_alone() -> None:
    pictures = filled(0.3, 0.9, 0.5)
    pictures[:, 1, ::2], pictures[:, 1, 1::2] = 0.8, 1.0
    loss = mean_color("0.1,0.9,0.5", CANVAS, tolerance=0.1)
    assert value_of(loss, pictures).item() == pytest.approx(0.2**2 / (2 * 0.1**2), rel=1e-4)
    assert torch.autograd.gradcheck(lambda x: value_of(loss, x), some_pictures(2)[:, :, :3, :3].double().requires_grad_())


def test_hue_is_an_angle() -> None:
    red = hue("red", CANVAS, tolerance=1.0)
    assert value_of(red, filled(0.9, 0.1, 0.1)).item() == pytest.approx(0, abs=0.02)
    assert value_of(red, filled(0.0, 0.9, 0.0)).item() == pytest.approx(1.5, abs=0.02)  # 1 - cos 120 degrees
    assert value_of(red, filled(0.9, 0.9, 0.0)).item() == pytest.approx(0.5, abs=0.02)  # yellow, 60 degrees away
    assert value_of(red, filled(0.0, 0.9, 0.9)).item() == pytest.approx(2, abs=0.02)
    assert value_of(red, filled(0.5, 0.5, 0.5)).item() == pytest.approx(1)
    assert value_of(red, filled(0.9, 0.4, 0.4)) < value_of(red, filled(0.9, 0.7, 0.4))


def test_hue_draws_grey_towards_it_and_leaves_lightness_alone() -> None:
    pictures = filled(0.5, 0.5, 0.5).requires_grad_()
    gradient = torch.autograd.grad(value_of(hue("red", CANVAS), pictures).sum(), pictures)[0][0, :, 0, 0]
    assert gradient[0] < 0 < gradient[1] and gradient.sum().abs() < 1e-6
    assert gradient[1].item() == pytest.approx(gradient[2].item())


def test_hue_s_gradient_is_the_slope() -> None:
    """Of the channels below the largest, so that the weights, through which nothing flows, stay as they are."""
    pictures = torch.rand((1, 3, 2, 2), generator=torch.Generator().manual_seed(1)).double() * 0.7
    pictures[:, 0] = 0.8
    loss = hue("#1ae680", CANVAS)

    def of_the_others(others: Tensor) -> Tensor:
        return value_of(loss, torch.cat([pictures[:, :1], others], dim=1))

    assert torch.autograd.gradcheck(of_the_others, pictures[:, 1:].clone().requires_grad_())


def test_grey_names_no_hue() -> None:
    with pytest.raises(Mistake, match="'grey' is a grey, which has no hue"):
        hue("grey", CANVAS)
