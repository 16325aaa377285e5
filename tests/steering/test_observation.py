"""Linear observations are solved for: against the closed form of Gaussian pictures, and what is known comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gaussians import SmoothPictures, wasserstein_2
from PIL import Image
from torch import Tensor

from diffsteer.diffusion.process import Process
from diffsteer.errors import Mistake
from diffsteer.sampling.solvers import SOLVERS, time_grid
from diffsteer.steering.contract import Canvas, Moment
from diffsteer.steering.gradient import Steer, SteeredDenoiser
from diffsteer.steering.observation import Observation, solved
from diffsteer.steering.operators import KINDS, mask, operator

CANVAS = Canvas(1, 4, 4)
MOMENT = Moment((0,), 0, 0.0, 0.0, torch.zeros(1))


def upper_half(pictures: Tensor) -> Tensor:
    keep = torch.zeros(4, 4, dtype=pictures.dtype)
    keep[:2] = 1
    return pictures * keep


OPERATORS = {
    "mask": upper_half,
    "blur": KINDS["blur"](CANVAS, 4, 1.0),
    "downsample": KINDS["downsample"](CANVAS, 2, 1.0),
}


def walked(observation: Observation, data: SmoothPictures, solver: str, x: Tensor) -> Tensor:
    """Where 200 steps take x, [B, 16]."""
    process = Process("linear")
    times = time_grid(process, solver, 200, None)
    denoiser = SteeredDenoiser(
        data.denoiser(process), [Steer(observation)], process, range(len(x)), variance=data.variance, times=times, clip=False
    )
    *_, last = SOLVERS[solver].solve(denoiser, x, times, process)
    return last.x0.flatten(1)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("solver", ["ddim", "dpm++2m"])
def test_the_posterior_of_gaussian_pictures(name: str, solver: str) -> None:
    """W2 to the closed form below 0.05 at 200 steps, and the prior is ten times as far.

    Solved to the end a walk is affine in its noise, so mean and covariance are read off the starts at 0 and at each unit vector.
    """
    data, apply, tolerance = SmoothPictures(4), OPERATORS[name], 0.05
    y = apply(data.draw(1)[None])[0]
    mean, covariance = data.posterior(apply, y, tolerance)
    starts = torch.cat([torch.zeros(1, 16), torch.eye(16)]).double().reshape(17, 1, 4, 4)
    ends = walked(Observation(apply, y, tolerance, steps=16), data, solver, starts)
    columns = ends[1:] - ends[0]
    assert wasserstein_2(mean, covariance, data.mean, data.covariance) > 0.5
    assert wasserstein_2(mean, covariance, ends[0], columns.T @ columns) < 0.05


def test_the_few_conjugate_gradient_steps_of_the_default_are_enough() -> None:
    data = SmoothPictures(4)
    y = upper_half(data.draw(1)[None])[0]
    x = torch.randn(1500, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = walked(Observation(upper_half, y, 0.05), data, "dpm++2m", x)
    assert wasserstein_2(*data.posterior(upper_half, y, 0.05), found.mean(0), torch.cov(found.T)) < 0.05


@pytest.mark.parametrize("name", OPERATORS)
def test_one_move_is_the_posterior_mean(name: str) -> None:
    """x0 + C A^T (r^2 I + A C A^T)^-1 (y - A x0), with the matrices written out."""
    data, apply = SmoothPictures(4), OPERATORS[name]
    x0 = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    observation = Observation(apply, apply(data.draw(2)[None])[0], 0.1, steps=16)
    unit = torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)
    a, c = apply(unit).flatten(1).T, data.covariance / 4
    residual = observation.residual((x0 + 1) / 2).flatten(1)
    for strength in (1.0, 4.0):
        gain = c @ a.T @ torch.linalg.inv(0.01 / strength * torch.eye(len(a)).double() + a @ c @ a.T)
        move = solved(observation, x0, lambda d: (d.flatten(1) @ data.covariance).reshape(d.shape), strength)
        assert torch.allclose(move.flatten(1), 2 * residual @ gain.T, atol=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_operators_are_linear_and_keep_flat_pictures_flat(name: str) -> None:
    canvas = Canvas(3, 8, 8)
    apply = KINDS[name](canvas, 4, 1.5)
    a, b = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    assert torch.allclose(apply(2 * a - 3 * b), 2 * apply(a) - 3 * apply(b))
    flat = apply(torch.full((1, 3, 8, 8), 0.3, dtype=torch.float64))
    assert torch.allclose(flat, torch.full_like(flat, 0.3))
    transposed = Observation(apply, apply(a)[0], 0.1).transposed(a, apply(b))
    assert float((transposed * a).sum()) == pytest.approx(float((apply(a) * apply(b)).sum()))  # <A^T w, a> = <w, A a>


@pytest.fixture
def files(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    hole = np.zeros((8, 8), np.uint8)
    hole[2:6, 2:6] = 255
    Image.fromarray(hole).save(tmp_path / "hole.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)).save(tmp_path / "low.png")
    return tmp_path


def test_known_pixels_are_put_back_to_the_last_bit(files: Path) -> None:
    canvas = Canvas(3, 8, 8)
    observation = mask(str(files / "hole.png"), canvas, picture=str(files / "photo.png"))
    restored = observation.restored(torch.zeros(2, 3, 8, 8))
    levels = ((restored + 1) * 127.5 + 0.5).floor().to(torch.uint8)
    photo = torch.from_numpy(np.array(Image.open(files / "photo.png"))).permute(2, 0, 1)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:6, 2:6] = True
    assert torch.equal(levels[:, :, ~inside], photo[:, ~inside].expand(2, -1, -1))
    assert (restored[:, :, inside] == 0).all()
    assert observation((restored + 1) / 2, MOMENT).abs().max() < 1e-6


def test_operator_reads_a_picture_of_its_own_size_or_makes_it_small(files: Path) -> None:
    canvas = Canvas(3, 8, 8)
    low = operator("downsample", canvas, picture=str(files / "low.png"))
    assert low.target.shape == (3, 2, 2)
    assert operator("Downsample ", canvas, picture=str(files / "photo.png")).target.shape == (3, 2, 2)
    assert operator("grey", canvas, picture=str(files / "photo.png")).target.shape == (1, 8, 8)


def test_what_cannot_be_is_said(files: Path) -> None:
    canvas, photo = Canvas(3, 8, 8), str(files / "photo.png")
    for make, said in (
        (lambda: mask(str(files / "black.png"), canvas, picture=photo), "has no white"),
        (lambda: mask("nowhere.png", canvas, picture=photo), "There is no picture 'nowhere.png'"),
        (lambda: operator("blurr", canvas, picture=photo), "Did you mean blur"),
        (lambda: operator("downsample", canvas, picture=photo, factor=3), "should divide the model's 8x8"),
        (lambda: operator("grey", canvas._replace(channels=1), picture=photo), "draws in grey"),
        (lambda: operator("blur", canvas, picture=photo, radius=0.0), "above 0"),
    ):
        with pytest.raises(Mistake, match=said):
            make()
