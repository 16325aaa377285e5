"""What a judge promises whoever asks it, and what its folder promises."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffsteer.diffusion.judge import ARCHITECTURES, Judge, JudgeSpec, is_judge, load_judge, save_judge
from diffsteer.errors import Mistake

NAMES = ("cat", "dog", "bird")


def judge_of(architecture: str = "plain", channels: int = 1, size: tuple[int, int] = (8, 8), **more: object) -> Judge:
    """A judge with first weights and with the statistics of one batch, without which an untrained pyramid hardly sees its input."""
    torch.manual_seed(0)
    judge = Judge(JudgeSpec(architecture, channels, *size, NAMES, **more))  # type: ignore[arg-type]
    for module in judge.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    judge(pictures(8, channels, size))
    return judge.eval()


def pictures(count: int = 4, channels: int = 1, size: tuple[int, int] = (8, 8)) -> torch.Tensor:
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (28, 28), (32, 32), (64, 40), (250, 256)])
def test_every_size_has_its_logits_and_features(architecture: str, size: tuple[int, int]) -> None:
    judge = judge_of(architecture, 3, size)
    asked = pictures(2, 3, size)
    assert judge(asked).shape == (2, 3) and judge.features(asked).shape == (2, 64)
    assert sum(p.numel() for p in judge.parameters()) * 4 < 1_000_000, "a judge is a small file"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("noise_aware", [False, True])
def test_gradients_reach_every_pixel_and_only_the_own_picture(architecture: str, noise_aware: bool) -> None:
    judge = judge_of(architecture, size=(28, 28), noise_aware=noise_aware)
    asked = pictures(3, size=(28, 28)).requires_grad_()
    level = torch.full((3,), 0.5) if noise_aware else None
    (slope,) = torch.autograd.grad(judge(asked, level)[1, 0], asked)
    assert (slope[1] != 0).all()
    assert (slope[[0, 2]] == 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pictures_may_leave_0_to_1_without_being_clamped(architecture: str) -> None:
    judge = judge_of(architecture)
    white = torch.ones(1, 1, 8, 8)
    assert not torch.equal(judge(white), judge(1.5 * white))


def test_other_sizes_are_resized_inside() -> None:
    judge, large = judge_of(), pictures(size=(20, 24))
    small = F.interpolate(large, (8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(judge(large), judge(small), atol=1e-5, rtol=1e-4)


def test_the_mean_and_variance_of_the_data_are_taken_out() -> None:
    """A judge of data of mean m and variance v sees of a picture what a judge of mean 0 and variance 1 sees of it brought there."""
    plain = judge_of()
    own = Judge(replace(plain.spec, data_mean=-0.4, data_variance=0.25)).eval()
    own.load_state_dict(plain.state_dict())
    signed = pictures() * 2 - 1
    torch.testing.assert_close(own(pictures()), plain(((signed + 0.4) / 0.5 + 1) / 2), atol=1e-5, rtol=1e-4)


def test_clean_pictures_are_noise_level_0_on_the_signed_scale() -> None:
    judge = judge_of(noise_aware=True, data_mean=-0.4, data_variance=0.25)
    told = judge(pictures() * 2 - 1, torch.tensor(0.0))
    torch.testing.assert_close(judge(pictures()), told)
    assert not torch.allclose(told, judge(pictures() * 2 - 1, torch.tensor(0.5)), atol=1e-3)


def test_noisy_pictures_are_brought_to_unit_variance_at_their_level() -> None:
    """sqrt(1 - n^2) x0 + n eps has mean sqrt(1 - n^2) m and variance (1 - n^2) v + n^2."""
    judge, level = judge_of(noise_aware=True, data_mean=-0.4, data_variance=0.25), 0.6
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(2000, 1, 8, 8, generator=generator) for _ in range(2))
    noisy = math.sqrt(1 - level**2) * (x0 * 0.5 - 0.4) + level * eps
    seen = judge._normalized(noisy, torch.full((2000,), level))
    assert seen.mean().item() == pytest.approx(0, abs=0.01) and seen.var().item() == pytest.approx(1, abs=0.01)


def test_one_level_each_or_one_for_all() -> None:
    judge, asked = judge_of(noise_aware=True), pictures()
    assert torch.equal(judge(asked, torch.tensor(0.3)), judge(asked, torch.full((4,), 0.3)))


@pytest.mark.parametrize(
    ("judge", "asked", "level", "said"),
    [
        (judge_of(), pictures(channels=3), None, r"\[B, 1, H, W\], not \[4, 3, 8, 8\]"),
        (judge_of(), pictures()[0], None, "takes pictures"),
        (judge_of(), pictures(), torch.tensor(0.5), "clean pictures"),
        (judge_of(noise_aware=True), pictures(size=(16, 16)), torch.tensor(0.5), "own size, 8x8"),
    ],
)
def test_what_it_cannot_answer_is_an_error(judge: Judge, asked: torch.Tensor, level: torch.Tensor | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        judge(asked, level)


@pytest.mark.parametrize("wrong", [{"architecture": "plane"}, {"channels": 2}, {"height": 7}, {"label_names": ("cat",)}])
def test_a_spec_that_cannot_be_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        JudgeSpec(**{"architecture": "plain", "channels": 1, "height": 8, "width": 8, "label_names": NAMES, **wrong})  # type: ignore[arg-type]


# ---- the folder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_judge_comes_back_as_it_was(architecture: str, tmp_path: Path) -> None:
    judge = judge_of(architecture, noise_aware=True, data_mean=0.1, accuracy=0.75, held_out=12)
    save_judge(tmp_path / "judge", judge)
    state = torch.random.get_rng_state()
    back = load_judge(tmp_path / "judge")
    assert torch.equal(state, torch.random.get_rng_state())
    assert back.spec == judge.spec
    assert torch.equal(back(pictures()), judge(pictures()))
    assert not back.training and not any(p.requires_grad for p in back.parameters())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["judge", "judge.json", "judge.safetensors"]


def test_saving_again_replaces_a_judge_and_nothing_else(tmp_path: Path) -> None:
    save_judge(tmp_path / "judge", judge_of())
    save_judge(tmp_path / "judge", judge_of("patches"))
    assert load_judge(tmp_path / "judge").spec.architecture == "patches"
    (tmp_path / "holiday").mkdir()
    save_judge(tmp_path / "holiday", judge_of())  # empty: nothing is lost
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").touch()
    with pytest.raises(Mistake, match="no judge; give another folder"):
        save_judge(tmp_path / "photos", judge_of())
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["me.png"]


def test_a_save_that_fails_leaves_the_older_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_judge(tmp_path / "judge", judge_of())
    monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_judge(tmp_path / "judge", judge_of("patches"))
    monkeypatch.undo()
    assert load_judge(tmp_path / "judge").spec.architecture == "plain"


def change(folder: Path, **values: object) -> None:
    path = folder / "judge.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "judge.json").unlink(), "is no judge: it has no judge.json"),
        (lambda folder: (folder / "judge.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "judge.json").write_text("[]"), "version None"),
        (lambda folder: change(folder, version=7), "version 7, and this diffsteer reads version 1"),
        (lambda folder: change(folder, colour="red"), "colour"),
        (lambda folder: change(folder, architecture="forest"), "unknown architecture 'forest'"),
        (lambda folder: change(folder, height="eight"), "changed"),
        (lambda folder: change(folder, architecture="patches"), "weights .* cannot be read"),
        (lambda folder: change(folder, label_names=["cat", "dog"]), "weights .* cannot be read"),
        (lambda folder: (folder / "judge.safetensors").unlink(), "weights .* cannot be read"),
        (lambda folder: (folder / "judge.safetensors").write_bytes(b"nonsense"), "weights .* cannot be read"),
    ],
)
def test_a_broken_folder_is_a_mistake_in_a_sentence(spoil: object, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    save_judge(folder, judge_of())
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(Mistake, match=said) as caught:
        load_judge(folder)
    assert "\n" not in str(caught.value)


def test_no_folder_is_no_judge(tmp_path: Path) -> None:
    assert not is_judge(tmp_path / "nowhere") and not is_judge(tmp_path)
    with pytest.raises(Mistake, match="there is no such folder"):
        load_judge(tmp_path / "nowhere")
