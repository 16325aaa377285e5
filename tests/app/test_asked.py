"""What the page asks for, against the command line: the command that is shown, run, draws the same; so do the Python lines."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.digits import DIGITS, LIMITS
from commandline import Diffsteer, pixels_of, recipe_of
from diffsteer.app.asked import Limits, Sources, Steers, asked, command_line, preset_mask, python_lines, steers_of, sweep_of
from diffsteer.app.commission import About
from diffsteer.app.ownlosses import own_losses
from diffsteer.app.uploads import Upload
from diffsteer.app.words import Said
from diffsteer.errors import Mistake

VALUES: dict[str, Any] = {"labels": [], "each": 1, "seed": 0, "solver": "", "steps": 4, "guidance": 1.0}


def line(sweep: str | None = None, steers: Steers | None = None, **changed: Any) -> str:
    job = asked({**VALUES, **changed}, DIGITS, steers or Steers(), LIMITS, sweep)
    return command_line("runs/d", job.told).removeprefix("diffsteer sample runs/d ").removesuffix(" --out pictures.png")


def test_only_what_differs_from_the_models_own_is_said() -> None:
    assert line() == "--seeds 0"
    assert line(seed=7, each=4, labels=["7", "3"]) == "--labels 3,7 --seeds 7-10"  # in the model's order
    assert line(labels=list("0123456789")) == "--seeds 0"
    assert line(steps=9) == "--steps 9 --seeds 0"
    assert line(solver="ddim") == "--solver ddim --steps 4 --seeds 0"  # another solver has other steps of its own
    assert line(guidance=2.5) == "--guidance-scale 2.5 --seeds 0"
    assert line(guidance=0) == "--guidance-scale 0 --seeds 0"  # none of the label
    assert line(each=2) == "--seeds 0-1 --batch-size 16"  # twenty pictures, and the page draws sixteen at a time


def test_a_model_of_more_steps_than_a_job_may_have_opens_with_as_many_as_it_may() -> None:
    about = About(**{**vars(DIGITS), "own_steps": 1000})
    assert (LIMITS.first_steps(about), LIMITS.first_steps(DIGITS)) == (50, 4)
    job = asked({**VALUES, "steps": None}, about, Steers(), LIMITS)
    assert command_line("m", job.told) == "diffsteer sample m --steps 50 --seeds 0 --out pictures.png"


def test_counts_are_offered_up_to_the_limit() -> None:
    assert Limits(pictures=10).counts == (1, 2, 4, 8) and Limits(pictures=64).counts[-1] == 64
    assert [Limits(pictures=most).most_of(16) for most in (1, 3, 10, 16, 64)] == [1, 2, 8, 16, 16]


def test_labels_that_would_be_read_otherwise_go_by_number() -> None:
    about = About(**{**vars(DIGITS), "labels": ("a,b", "c", " d")})
    job = asked({**VALUES, "labels": ["a,b", " d"]}, about, Steers(), LIMITS)
    assert job.settings.labels == "0,2"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"each": 8}, "80 pictures; the limit is 40"),
        ({"each": 0}, "0 pictures"),
        ({"steps": 51}, "from 1 to 50 here; 51"),
        ({"steps": 0}, "from 1 to 50 here; 0"),
        ({"steps": 10**9}, "from 1 to 50"),
        ({"labels": ["eleven"]}, "no label eleven"),
        ({"labels": [["0"]]}, "no label"),
        ({"solver": "../x"}, "not offered"),
        ({"seed": -1}, "First seed: a number"),
        ({"seed": 1.5}, "First seed: a number"),
        ({"seed": "7"}, "First seed: a number"),
        ({"seed": None}, "First seed: a number"),
        ({"each": True}, "Pictures: a number"),
        ({"guidance": float("nan")}, "Label guidance"),
    ],
)
def test_what_comes_from_outside_is_looked_at(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(Said, match=words):
        asked({**VALUES, **changed}, DIGITS, Steers(), LIMITS)


def test_a_seed_too_large_is_the_command_lines_mistake(small_model: Any) -> None:
    from diffsteer.order import Order, ready

    job = asked({**VALUES, "seed": 2**70}, DIGITS, Steers(), LIMITS)
    with pytest.raises(Mistake, match="seed"):
        ready(Order(str(small_model(data="digits-color")), job.settings))


def test_a_sheet_counts_all_its_columns() -> None:
    sweep = sweep_of("steps", "2, 4,8", LIMITS)
    assert sweep == "steps=2,4,8" and line(sweep) == "--seeds 0 --sweep steps=2,4,8"
    job = asked(VALUES, DIGITS, Steers(), LIMITS, sweep)
    assert (job.pictures, job.evaluations) == (30, 10 * 14)
    with pytest.raises(Said, match="50 pictures"):
        asked(VALUES, DIGITS, Steers(), LIMITS, sweep_of("steps", "1,2,3,4,5", LIMITS))
    for key, values in (("steps", "2,60"), ("steps", "x"), ("steps", ""), ("model", "1")):
        with pytest.raises(Said):
            sweep_of(key, values, LIMITS)


# ---- steers ----------------------------------------------------------------------------------------------------------


STEER: dict[str, Any] = {
    "color": "#1AE680", "color_strength": 2, "brightness": 0.4, "brightness_strength": 1, "mirror": "up-down", "symmetry_strength": 0.5,
    "sentence": "  a red, red\nrose ", "clip_strength": 1, "like": "low", "reference_strength": 1, "own_strength": 3,
    "mask": preset_mask("left", DIGITS),
}  # fmt: skip


def steers(by: list[str], folder: Path, upload: Upload | None = None, about: About = DIGITS, **changed: Any) -> Steers:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "my.py").write_text("def red(pictures): return 1\ndef _no(pictures): return 1\nLIMIT = 3\ndef none(): return 1\n")
    own = {name: (loss.real, loss.told) for name, loss in own_losses(str(folder / "mine")).items()}
    assert list(own) == ["my.py:red"]
    return steers_of({**STEER, "by": by, **changed}, about, Sources(("/found/a clip", "a clip"), own, upload, folder))


def test_steers_are_said_as_the_command_line_has_them(tmp_path: Path) -> None:
    found = steers(["color", "brightness", "symmetry", "clip", "my.py:red"], tmp_path)
    assert found.told == (
        "color=#1ae680:2", "brightness=0.4", "symmetry=up-down:0.5", 'clip="a red, red rose",model=a clip', f"{tmp_path}/mine/my.py:red:3",
    )  # fmt: skip
    assert found.real[3] == 'clip="a red, red rose",model=/found/a clip'
    assert steers(["symmetry"], tmp_path, mirror="left-right", symmetry_strength=1).told == ("symmetry",)


def test_a_persons_files_are_told_by_their_own_names(tmp_path: Path) -> None:
    upload = Upload(tmp_path / "a1b2" / "cat.png", "cat.png", 8, 8)
    found = steers(["reference", "mask"], tmp_path, upload)
    assert found.told == ("reference=cat.png,by=low", "mask=mask.png,picture=cat.png")
    assert found.real == (f"reference={upload.path},by=low", f"mask={tmp_path}/mask.png,picture={upload.path}")
    mask = pixels_of(tmp_path / "mask.png")
    assert mask.shape == (8, 8) and (mask[:, :4] == 255).all() and (mask[:, 4:] == 0).all()


def test_a_picker_may_speak_of_red_green_and_blue(tmp_path: Path) -> None:
    assert steers(["color"], tmp_path, color="rgba(26.2, 230, 127.9, 1)", color_strength=1).told == ("color=#1ae680",)


@pytest.mark.parametrize(
    ("by", "changed", "words"),
    [
        (["reference"], {}, "Give a picture first"),
        (["mask"], {}, "Give a picture first"),
        (["clip"], {"sentence": " "}, "Write what it should look like"),
        (["clip"], {"sentence": "x" * 201}, "at most 200"),
        (["color"], {"color": "red; rm"}, "not offered"),
        (["color"], {"color_strength": None}, "Strength: a number"),
        (["symmetry"], {"mirror": "both,way=exact"}, "not offered"),
        (["../../evil.py:f"], {}, "not offered"),
        (["operator"], {}, "not offered"),
    ],
)
def test_what_is_not_offered_is_not_run(by: list[str], changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(Said, match=words):
        steers(by, tmp_path, **changed)


def test_a_grey_model_offers_no_colour(tmp_path: Path) -> None:
    with pytest.raises(Said, match="not offered"):
        steers(["color"], tmp_path, about=About(**{**vars(DIGITS), "channels": 1}))


@pytest.mark.parametrize("bits", ["", "0" * 64, "1" * 64, "1" * 63, "1" * 10**6, "x" * 64, None, 7])
def test_a_mask_has_a_part_that_is_kept_and_one_that_is_not(bits: Any, tmp_path: Path) -> None:
    with pytest.raises(Said, match="Paint a part"):
        steers(["mask"], tmp_path, Upload(tmp_path / "cat.png", "cat.png", 8, 8), mask=bits)


def test_losses_of_the_owners_are_found_by_reading(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("raise SystemExit('it was run')\ndef f(pictures): return 1\n")
    assert list(own_losses(str(tmp_path))) == ["bad.py:f"] and own_losses(None) == {}
    with pytest.raises(Mistake, match="is no folder"):
        own_losses(str(tmp_path / "bad.py"))
    (tmp_path / "bad.py").write_text("def f(:")
    with pytest.raises(Mistake, match="no Python"):
        own_losses(str(tmp_path))
    (tmp_path / "bad.py").unlink()
    with pytest.raises(Mistake, match="holds no"):
        own_losses(str(tmp_path))


# ---- the same without the page ---------------------------------------------------------------------------------------


def test_command_and_python_draw_the_same(small_model: Any, diffsteer: Diffsteer, tmp_path: Path) -> None:
    import torch

    model = str(small_model(data="digits-color"))
    Image.new("RGB", (8, 8), "#204060").save(tmp_path / "cat.png")
    found = steers(["color", "mask"], tmp_path, Upload(tmp_path / "cat.png", "cat.png", 8, 8))
    values = {**VALUES, "labels": ["3", "7"], "each": 3, "seed": 5, "solver": "ddim", "steps": 3, "guidance": 2}
    job = asked(values, DIGITS, found, LIMITS)
    command = command_line(model, job.told, "pictures.npz")
    assert diffsteer(*shlex.split(command)[1:]).code == 0
    space: dict[str, Any] = {}
    exec(python_lines(model, job.told, "cpu"), space)
    drawn = np.load(tmp_path / "pictures.npz")
    assert np.array_equal(drawn["arr_0"], space["pictures"].pixels.permute(0, 2, 3, 1).numpy())
    assert drawn["arr_1"].tolist() == [3, 3, 3, 7, 7, 7] and space["pictures"].seeds == [5, 6, 7] * 2
    assert isinstance(space["pictures"].pixels, torch.Tensor) and (tmp_path / "pictures.png").is_file()


@pytest.mark.parametrize("sweep", ["strength=0,2", "steps=2,3", "solver=ddim,unipc", "guidance-scale=1,2"])
def test_a_sheets_command_and_python_run(sweep: str, small_model: Any, diffsteer: Diffsteer, tmp_path: Path) -> None:
    model = str(small_model(data="digits-color"))
    job = asked({**VALUES, "labels": ["3"], "solver": "ddim"}, DIGITS, Steers(("color=#1ae680:2",), ("color=#1ae680:2",)), LIMITS, sweep)
    assert diffsteer(*shlex.split(command_line(model, job.told, "sheet.png"))[1:]).code == 0
    assert recipe_of(tmp_path / "sheet.png")["sweep"] == sweep
    exec(python_lines(model, job.told, "cpu"), {})
    key, _, values = sweep.replace("-", "_").partition("=")
    for value in values.split(","):
        assert (tmp_path / f"{key}-{value}.png").is_file()
