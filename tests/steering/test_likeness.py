"""Losses by a picture: reading it, closed forms, gradients, texture without place, and what they say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffsteer.errors import Mistake
from diffsteer.steering import likeness
from diffsteer.steering.contract import Canvas, Loss, Moment
from diffsteer.steering.likeness import reference, style

GREY, COLOUR = Canvas(1, 8, 8), Canvas(3, 8, 8)


def value_of(loss: Loss, pictures: Tensor) -> Tensor:
    return loss(pictures, Moment(tuple(range(len(pictures))), 0, 500.0, 0.5, pictures))


def some_pictures(count: int, channels: int = 3, side: int = 8) -> Tensor:
    return torch.rand((count, channels, side, side), generator=torch.Generator().manual_seed(0))


def saved(path: Path, array: np.ndarray) -> str:
    Image.fromarray(array).save(path)
    return str(path)


@pytest.fixture
def noisy(tmp_path: Path) -> str:
    return saved(tmp_path / "noisy.png", np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8))


# ---- reading the picture ---------------------------------------------------------------------------------------------


def test_the_picture_itself_costs_nothing(noisy: str) -> None:
    with Image.open(noisy) as image:
        pictures = torch.tensor(np.array(image)).permute(2, 0, 1)[None] / 255
    for loss in (reference(noisy, COLOUR), reference(noisy, COLOUR, by="low"), style(noisy, COLOUR)):
        assert value_of(loss, pictures).item() == pytest.approx(0, abs=1e-9)


def test_the_picture_is_cropped_about_its_centre_and_not_squashed(tmp_path: Path) -> None:
    wide = np.full((16, 64, 3), 255, dtype=np.uint8)
    wide[:, 24:40] = (255, 0, 0)  # the square in the middle
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert value_of(reference(saved(tmp_path / "wide.png", wide), COLOUR, tolerance=0.1), red).item() < 0.1


def test_transparent_parts_are_white_and_colour_becomes_grey_for_a_grey_model(tmp_path: Path) -> None:
    glass = np.zeros((8, 8, 4), dtype=np.uint8)
    glass[:4] = (255, 0, 0, 255)
    wanted = torch.ones(1, 1, 8, 8)
    wanted[:, :, :4] = 76 / 255  # the luminance of red
    assert value_of(reference(saved(tmp_path / "glass.png", glass), GREY), wanted).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("maker", [reference, style])
def test_what_is_no_picture_is_told(maker: type, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"There is no picture 'gone\.png'; give the path"):
        maker("gone.png", COLOUR)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(Mistake, match="is not a picture that can be read"):
        maker(str(text), COLOUR)


# ---- reference -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("by", "tolerance"), [("pixels", 0.05), ("low", 0.05)])
def test_reference_is_the_mean_square_within_a_tolerance(by: str, tolerance: float, tmp_path: Path) -> None:
    black = saved(tmp_path / "black.png", np.zeros((8, 8), dtype=np.uint8))
    pictures = torch.full((2, 3, 8, 8), 0.2)
    assert value_of(reference(black, COLOUR, by=by), pictures).tolist() == pytest.approx([0.04 / (2 * tolerance**2)] * 2)
    assert value_of(reference(black, COLOUR, by=by, tolerance=1.0), pictures).tolist() == pytest.approx([0.02] * 2)


def test_low_asks_for_blocks_and_leaves_details_free(tmp_path: Path) -> None:
    grey = saved(tmp_path / "grey.png", np.full((8, 8), 51, dtype=np.uint8))
    checked = torch.zeros(1, 1, 8, 8)
    checked[:, :, ::2, ::2] = checked[:, :, 1::2, 1::2] = 0.4  # 0.2 on average
    assert value_of(reference(grey, GREY, by="low", factor=2), checked).item() == pytest.approx(0, abs=1e-9)
    assert value_of(reference(grey, GREY, tolerance=0.1), checked).item() == pytest.approx(0.04 / (2 * 0.01), rel=1e-5)


def test_embedding_is_the_squared_angle(noisy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an embedder that sees the mean colour."""

    def pictures(batch: Tensor) -> Tensor:
        return torch.nn.functional.normalize(batch.mean(dim=(2, 3)), dim=1)

    asked: list[str] = []
    monkeypatch.setattr(likeness, "load_embedder", lambda model, device: asked.append(model) or SimpleNamespace(pictures=pictures))
    with Image.open(noisy) as image:
        own = torch.tensor(np.array(image)).permute(2, 0, 1)[None] / 255
    loss = reference(noisy, COLOUR, by="embedding", model="some/clip", tolerance=0.5)
    others = some_pictures(3)
    angle = torch.arccos((pictures(others) * pictures(own)).sum(dim=1))
    assert torch.allclose(value_of(loss, others), angle**2 / 0.5, rtol=1e-3)
    assert asked == ["some/clip"]
    own.requires_grad_()
    assert torch.autograd.grad(value_of(loss, own).sum(), own)[0].isfinite().all()


def test_reference_tells_what_is_possible(noisy: str) -> None:
    with pytest.raises(Mistake, match=r"Did you mean pixels\? It is one of pixels, low, embedding"):
        reference(noisy, COLOUR, by="pixel")
    with pytest.raises(Mistake, match="from 1 to 8 for this model's pictures, not 9"):
        reference(noisy, COLOUR, by="low", factor=9)
    with pytest.raises(Mistake, match="The tolerance of reference is a number above 0"):
        reference(noisy, COLOUR, tolerance=-1.0)


# ---- style -----------------------------------------------------------------------------------------------------------


def stripes(side: int, shift: int, across: bool = False) -> np.ndarray:
    ramp = (np.arange(side) + shift) % 4 < 2
    lines = np.broadcast_to(ramp[:, None] if across else ramp[None, :], (side, side))
    return (lines * 255).astype(np.uint8)


def test_style_is_texture_without_place(tmp_path: Path) -> None:
    loss = style(saved(tmp_path / "stripes.png", stripes(32, 0)), Canvas(1, 32, 32))
    shifted, across, noise = (
        value_of(loss, picture).item()
        for picture in (
            torch.tensor(stripes(32, 1))[None, None] / 255,
            torch.tensor(stripes(32, 0, across=True).copy())[None, None] / 255,
            some_pictures(1, channels=1, side=32),
        )
    )
    assert shifted < 0.8 < 4 < min(across, noise)


def test_style_is_the_same_every_time_and_finite_for_an_even_grey(noisy: str, tmp_path: Path) -> None:
    pictures = some_pictures(2)
    assert torch.equal(value_of(style(noisy, COLOUR), pictures), value_of(style(noisy, COLOUR), pictures))
    even = saved(tmp_path / "even.png", np.full((8, 8), 128, dtype=np.uint8))
    assert value_of(style(even, COLOUR), pictures).isfinite().all()


# ---- what all of them keep to ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pixels", "low", "style"])
def test_one_picture_is_the_same_in_a_batch_of_eight_and_the_gradient_is_the_slope(name: str, noisy: str) -> None:
    loss = style(noisy, COLOUR) if name == "style" else reference(noisy, COLOUR, by=name)
    pictures = some_pictures(8)
    together = value_of(loss, pictures)
    assert together.shape == (8,) and together.dtype == torch.float32
    assert torch.allclose(together[2:3], value_of(loss, pictures[2:3]), rtol=1e-4)
    pictures = pictures.double().requires_grad_()
    gradient = torch.autograd.grad(value_of(loss, pictures)[2], pictures)[0]
    assert gradient.abs().sum(dim=(1, 2, 3)).count_nonzero() == 1
    step = torch.zeros_like(pictures)
    step[2] = torch.randn((3, 8, 8), generator=torch.Generator().manual_seed(3)).double() * 1e-5
    slope = (value_of(loss, pictures + step) - value_of(loss, pictures - step))[2] / 2
    assert slope.item() == pytest.approx((gradient * step).sum().item(), rel=1e-5)
