"""Cutouts show what their policy says, are a picture's own, and pass the gradient on."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffsteer.errors import Mistake
from diffsteer.steering.cutouts import CROP_AREA, CROPS, DRAWS, TILT, _uniform, cutter


def pictures(count: int = 3, height: int = 8, width: int = 8, channels: int = 3) -> Tensor:
    return torch.rand((count, channels, height, width), generator=torch.Generator().manual_seed(0))


def ramp(height: int, width: int) -> Tensor:
    """A picture whose two channels say where each pixel is, (x, y) in pixels from the corner."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])[None].float()


# ---- whose they are --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crops", CROPS)
def test_a_pictures_cutouts_do_not_depend_on_its_batch(crops: str) -> None:
    cut, batch = cutter(16, cuts=3, crops=crops), pictures(8)
    together = cut(batch, range(8), 5)
    alone = [cut(batch[[i]], [i], 5) for i in reversed(range(8))]
    assert together.shape == (8, 3, 3, 16, 16)
    assert torch.equal(together, torch.cat(alone[::-1]))


def test_other_seeds_calls_and_cuts_give_other_cutouts() -> None:
    cut, one = cutter(16, cuts=4), pictures(1)
    first = cut(one, [0], 0)
    assert torch.equal(first, cut(one, [0], 0))
    views = torch.cat([first, cut(one, [1], 0), cut(one, [0], 1)]).flatten(0, 1)
    assert len(torch.unique(views, dim=0)) == 12


def test_more_cuts_leave_the_first_as_they_are() -> None:
    one = pictures(1)
    assert torch.equal(cutter(16, cuts=5)(one, [3], 0)[:, :2], cutter(16, cuts=2)(one, [3], 0))


# ---- what they show --------------------------------------------------------------------------------------------------


def test_whole_is_the_picture_itself() -> None:
    some = pictures()
    same, larger = (cutter(size, cuts=1, crops="whole")(some, range(3), 0)[:, 0] for size in (8, 20))
    torch.testing.assert_close(same, some)
    torch.testing.assert_close(larger, F.interpolate(some, (20, 20), mode="bilinear", align_corners=False))


@pytest.mark.parametrize(("height", "width"), [(8, 24), (24, 8)])
def test_the_whole_of_a_long_picture_keeps_its_shape(height: int, width: int) -> None:
    views = cutter(8, cuts=1, crops="whole")(ramp(height, width).expand(50, -1, -1, -1), range(50), 0)[:, 0]
    across, down = views[:, 0].diff(dim=2), views[:, 1].diff(dim=1)
    torch.testing.assert_close(across[:, :, 1:-1], torch.ones_like(across[:, :, 1:-1]))
    torch.testing.assert_close(down[:, 1:-1], torch.ones_like(down[:, 1:-1]))
    along = views[:, int(height > width), 0, 0]
    assert along.min() < 3 and along.max() > 14 and along.min() >= 0.5 and along.max() <= 16.5


@pytest.mark.parametrize("crops", CROPS)
def test_policies_keep_their_bounds(crops: str) -> None:
    u = torch.rand((2000, DRAWS), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for policy in CROPS[crops]:
        box = policy(u, 8, 12)
        area = box.width * box.height / 64
        assert (box.tilt.abs() <= TILT).all()
        assert bool((box.mirror < 0).any()) == (crops == "seed"), "only the course's policy mirrors: a mirrored 3 is no 3"
        if crops == "seed":
            ratio = (box.width / box.height)[box.height < 8]  # what stuck out of the picture was clipped
            assert area.min() < 0.15 and ratio.min() >= 3 / 4 - 1e-9 and ratio.max() <= 4 / 3 + 1e-9
        else:
            assert torch.equal(box.width, box.height) and area.min() >= min(CROP_AREA, (1 - 0.06) ** 2)
        if policy.__name__ != "_shifts":
            assert (box.x - box.width / 2).min() >= -1e-9 and (box.x + box.width / 2).max() <= 12 + 1e-9
            assert (box.y - box.height / 2).min() >= -1e-9 and (box.y + box.height / 2).max() <= 8 + 1e-9


def test_boxes_are_where_the_picture_says() -> None:
    """The map is checked on a picture that tells its own coordinates: centre, sides and tilt of each cutout read back."""
    views = cutter(33, cuts=6, crops="seed")(ramp(64, 64), [9], 4)[0].double()
    u = torch.stack([_uniform(9, 4, number) for number in range(6)])
    box = CROPS["seed"][0](u, 64, 64)
    middle = views[:, :, 16, 16]
    torch.testing.assert_close(middle, torch.stack([box.x, box.y], 1), atol=1e-3, rtol=0)
    right, below = views[:, :, 16, 17] - middle, views[:, :, 17, 16] - middle
    torch.testing.assert_close(right.norm(dim=1), box.width / 33, atol=1e-3, rtol=0)
    torch.testing.assert_close(below.norm(dim=1), box.height / 33, atol=1e-3, rtol=0)
    assert torch.equal(right[:, 0] > 0, box.mirror > 0)
    torch.testing.assert_close(torch.atan2(below[:, 0], below[:, 1]).abs(), box.tilt.abs(), atol=1e-3, rtol=0)


def test_a_large_picture_is_averaged_not_skipped_through() -> None:
    fine = torch.tensor([0.0, 1.0]).repeat(64).expand(1, 3, 128, 128)  # stripes finer than a cutout's pixels
    views = cutter(8, cuts=2, crops="whole")(fine, [0], 0)
    assert (views - 0.5).abs().max() < 0.1


# ---- the gradient, and mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("crops", CROPS)
def test_the_gradient_is_that_of_finite_differences(crops: str) -> None:
    cut = cutter(6, cuts=2, crops=crops)
    some = pictures(2, 5, 7).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: cut(x, [0, 1], 0), some)


def test_every_pixel_is_seen() -> None:
    some = pictures(1).requires_grad_()
    cutter(16)(some, [0], 0).sum().backward()
    assert some.grad is not None and (some.grad > 0).all() and math.isclose(float(some.grad.sum()), 3 * 4 * 16 * 16, rel_tol=1e-4)


def test_mistakes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Mistake, match="Did you mean mixed"):
        cutter(16, crops="mixd")
    with pytest.raises(Mistake, match="at least 1; 0 was given"):
        cutter(16, cuts=0)
    monkeypatch.setitem(sys.modules, "kornia.geometry.transform", None)
    with pytest.raises(Mistake, match=r"pip install 'diffsteer\[clip\]'"):
        cutter(16)
