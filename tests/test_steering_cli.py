"""Steering from outside: `diffsteer sample --steer`, its relatives, and the same from Python."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import diffsteer as library
from commandline import Diffsteer, frames_of, pixels_of, recipe_of, tree, with_text
from diffsteer.data.pixels import to_signed
from diffsteer.diffusion.judge import Judge, save_judge
from diffsteer.errors import Mistake
from diffsteer.sampling.folder import load_model
from diffsteer.steering.colors import color
from diffsteer.steering.contract import Canvas, Moment
from diffsteer.steering.mixing import thresholded
from diffsteer.steering.presets import PRESETS

FEW = ["--count", 3, "--steps", 3]
DARK = "def dark(pictures):\n    return (pictures.mean(dim=(1, 2, 3)) - 0.4).square() / (2 * 0.02**2)\n"


@pytest.fixture(scope="session")
def colour(small_model: Any) -> Path:
    """A model of colour pictures without labels, with its first weights."""
    return Path(small_model(data="digits-color", conditioning="none"))


@pytest.fixture(scope="session")
def grey(small_model: Any) -> Path:
    """The same of grey pictures."""
    return Path(small_model(conditioning="none"))


def arrays(path: Path) -> np.ndarray:
    """The pictures of an npz, [N, H, W, C] as int, so that they can be subtracted."""
    with np.load(path) as held:
        return np.asarray(held["arr_0"].astype(int))


def as_signed(path: Path) -> torch.Tensor:
    return to_signed(torch.from_numpy(arrays(path).astype(np.uint8)).permute(0, 3, 1, 2))


def on_the_sheet(sheet: np.ndarray, picture: np.ndarray) -> bool:
    """Whether a picture is there, each pixel six wide."""
    large = picture.repeat(6, 0).repeat(6, 1)
    return bool((np.lib.stride_tricks.sliding_window_view(sheet, large.shape) == large).all((2, 3)).any())


def steered_by(diffsteer: Diffsteer, model: Path, out: str, *flags: object) -> np.ndarray:
    ended = diffsteer("sample", model, *FEW, *flags, "--out", out)
    assert (ended.code, ended.err) == (0, "")
    return arrays(Path(out))


def photo_and_hole(folder: Path, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """photo.png and hole.png of 8x8 pixels, (the photo, where it is kept)."""
    draw = np.random.default_rng(0)
    photo = draw.integers(0, 256, (8, 8, 3) if mode == "RGB" else (8, 8)).astype(np.uint8)
    hole = np.zeros((8, 8), np.uint8)
    hole[2:6, 1:5] = 255
    Image.fromarray(photo).save(folder / "photo.png")
    Image.fromarray(hole).save(folder / "hole.png")
    return photo, hole == 0


# ---- steers ----------------------------------------------------------------------------------------------------------


def test_a_steer_changes_the_pictures_and_tells_its_losses(diffsteer: Diffsteer, tmp_path: Path, colour: Path) -> None:
    plain = steered_by(diffsteer, colour, "plain.npz")
    said = diffsteer("sample", colour, *FEW, "--steer", "color=#1ae680", "--out", "green.npz", "--json").json()
    green = arrays(tmp_path / "green.npz")
    losses = said["losses"]["color=#1ae680"]
    assert losses["last"] < losses["first"] and abs(green - plain).max() > 20
    canvas, pictures = Canvas(3, 8, 8), torch.from_numpy(green / 255).float().permute(0, 3, 1, 2)
    told = color("#1ae680", canvas)(pictures, Moment((0, 1, 2), 0, 0.0, 0.0, pictures)).mean()
    assert losses["last"] == pytest.approx(told.item(), rel=0.05), "the last loss is that of the pictures"
    lines = diffsteer("sample", colour, *FEW, "--steer", "color=#1ae680", "--out", "green.png").out.splitlines()
    assert lines[1] == f"steered  by color=#1ae680: mean loss {losses['first']:.3g} at first, {losses['last']:.3g} at the end"
    assert "losses" not in diffsteer("sample", colour, *FEW, "--out", "plain.png", "--json").json()
    late = diffsteer("sample", colour, *FEW, "--steer", "color=#1ae680,window=0-0.6", "--out", "late.npz", "--json").json()
    (told_of,) = late["losses"].values()
    assert all(map(math.isfinite, told_of.values())), "it is told from the first step at which it acts"


def test_several_steers_steer_together(diffsteer: Diffsteer, colour: Path) -> None:
    alone = [steered_by(diffsteer, colour, f"{n}.npz", "--steer", text) for n, text in enumerate(("hue=green", "brightness=0.6"))]
    both = steered_by(diffsteer, colour, "both.npz", "--steer", "hue=green", "--steer", "brightness=0.6")
    assert all(abs(both - one).max() > 1 for one in alone)
    again = diffsteer("sample", colour, *FEW, *["--steer", "hue=green"] * 2, "--out", "x.npz", "--json").json()
    assert list(again["losses"]) == ["hue=green (1)", "hue=green (2)"], "those of one name are numbered"
    steered_by(diffsteer, colour, "twice.npz", "--steer", "hue=green:2")
    assert abs(arrays(Path("x.npz")) - arrays(Path("twice.npz"))).max() <= 1, "twice is twice as strong"


def test_a_yaml_file_of_steers_says_the_same_as_words(diffsteer: Diffsteer, tmp_path: Path, colour: Path) -> None:
    words = ["--steer", 'color="0.1,0.9,0.5",way=shortcut,window=0.2-1.0:0.5', "--steer", "symmetry"]
    (tmp_path / "two.yaml").write_text(
        "- {color: [0.1, 0.9, 0.5], way: shortcut, window: [0.2, 1.0], strength: 0.5}\n- symmetry: left-right\n"
    )
    (tmp_path / "one.yml").write_text("brightness: 0.4\nstrength: 2\ncheckpoint: yes\n")
    said = steered_by(diffsteer, colour, "words.npz", *words)
    assert (steered_by(diffsteer, colour, "yaml.npz", "--steer", "two.yaml") == said).all()
    assert (
        steered_by(diffsteer, colour, "w.npz", "--steer", "brightness=0.4,checkpoint=on:2")
        == steered_by(diffsteer, colour, "y.npz", "--steer", "one.yml")
    ).all()
    diffsteer("sample", colour, *FEW, "--steer", "two.yaml", "--out", "x.png")
    texts = recipe_of(tmp_path / "x.png")["steer"]
    assert texts == ['color="0.1,0.9,0.5",way=shortcut,window=0.2-1.0:0.5', "symmetry=left-right"], "words need no file"


def test_strength_0_is_no_steer_bit_for_bit(diffsteer: Diffsteer, tmp_path: Path, colour: Path) -> None:
    diffsteer("sample", colour, *FEW, "--out", "plain.npz")
    for number, text in enumerate(("color=red:0", "color=red,way=exact:0", "color=red,way=shortcut,scaling=seed:0")):
        diffsteer("sample", colour, *FEW, "--steer", text, "--out", f"{number}.npz")
        assert (tmp_path / f"{number}.npz").read_bytes() == (tmp_path / "plain.npz").read_bytes()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_steers(diffsteer: Diffsteer, grey: Path, name: str) -> None:
    said = diffsteer("sample", grey, *FEW, "--steer", f"brightness=0.2,preset={name}", "--out", "x.npz", "--json").json()
    (losses,) = said["losses"].values()
    assert losses["last"] < losses["first"]


def test_the_batch_changes_no_picture_under_steering(diffsteer: Diffsteer, colour: Path) -> None:
    """Also where noise is drawn for each picture, as for smoothing's copies, recurrence and ddpm's steps."""
    steers = ["--steer", "color=#1ae680,copies=2,spread=0.5", "--steer", "smoothness,way=exact,recurrence=2", "--solver", "ddpm"]
    found = []
    for batch in (1, 3, 64):
        words = ["--seeds", "0-4", "--steps", 4, "--batch-size", batch, *steers, "--out", f"{batch}.npz"]
        assert diffsteer("sample", colour, *words).code == 0
        found.append(arrays(Path(f"{batch}.npz")))
    assert abs(found[0] - found[2]).max() <= 1 and abs(found[1] - found[2]).max() <= 1


def test_checkpointing_changes_no_picture(diffsteer: Diffsteer, colour: Path) -> None:
    plain = steered_by(diffsteer, colour, "plain.npz", "--steer", "color=red,way=exact")
    saved = steered_by(diffsteer, colour, "saved.npz", "--steer", "color=red,way=exact,checkpoint=on")
    assert abs(plain - saved).max() <= 1


def test_dry_run_lists_the_steers(diffsteer: Diffsteer, tmp_path: Path, colour: Path) -> None:
    words = ["sample", colour, "--steer", "color=red,preset=mpgd:2", "--steer", "color-seed", "--dry-run"]
    lines = [line for line in diffsteer(*words).out.splitlines() if line.startswith("steer ")]
    assert lines == [
        "steer    color=red,preset=mpgd:2   (shortcut, bayes, strength 2)",
        "steer    color-seed   (shortcut, seed, strength 0.00488281)",  # 40 / 8 * 8 * 8 / 256^2
    ]
    assert diffsteer(*words, "--json").json()["steer"] == [line.removeprefix("steer").strip() for line in lines]
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("steer", "says"),
    [
        ("colour=red", "There is no loss 'colour' to steer by. Did you mean color?"),
        ("color=reed", "is no colour. Did you mean red?"),
        ("color", "--steer color needs a value, for example --steer color=#1ae680."),
        ("color=0.1,0.9,0.5", "A value with commas is quoted"),
        ("color=red:nan", "should be a finite number"),
        ("nowhere.yaml", "There is no file nowhere.yaml; a steer in words looks like color=#1ae680."),
        ("torn.yaml", "torn.yaml is not YAML that can be read"),
        ("words.yaml", "words.yaml should hold steers, each as keys and values that begin with the loss"),
        ("empty.yaml", "empty.yaml should hold steers"),
        ("unknown.yaml", "--steer color has no option 'wndow'. Did you mean window?"),
        ("nowhere.py:f", "There is no file nowhere.py"),
        ("reference=nowhere.png", "There is no picture 'nowhere.png'"),
        ("classifier=nowhere,label=3", "nowhere is no classifier"),
    ],
)
def test_steers_that_cannot_be(diffsteer: Diffsteer, tmp_path: Path, colour: Path, steer: str, says: str) -> None:
    for name, text in (("torn", "color: ["), ("words", "- color=red"), ("empty", "[]"), ("unknown", "color: red\nwndow: [0, 1]")):
        (tmp_path / f"{name}.yaml").write_text(text)
    before = tree(tmp_path)
    assert says in diffsteer("sample", colour, *FEW, "--steer", steer, "--out", "x.png").mistake()
    assert tree(tmp_path) == before


def test_colour_on_a_grey_model_is_told_what_can_be_steered(diffsteer: Diffsteer, grey: Path) -> None:
    said = diffsteer("sample", grey, *FEW, "--steer", "color=red", "--out", "x.png").mistake()
    assert "this model draws grey pictures; brightness=0.5 steers how light they are" in said


# ---- known pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "solver", "options"), [("RGB", "dpm++2m", ""), ("RGB", "ddpm", ",window=0.8-1.0"), ("L", "euler", ",way=exact")]
)
def test_inpainting_keeps_known_pixels_exactly(
    diffsteer: Diffsteer, tmp_path: Path, colour: Path, grey: Path, mode: str, solver: str, options: str
) -> None:
    """Also where the steer lets go before the end."""
    photo, kept = photo_and_hole(tmp_path, mode)
    model = colour if mode == "RGB" else grey
    steer = f"mask=hole.png,picture=photo.png{options}"
    ended = diffsteer("sample", model, *FEW, "--solver", solver, "--steer", steer, "--out", "painted/")
    assert ended.code == 0
    painted = [pixels_of(path) for path in sorted((tmp_path / "painted").iterdir())]
    assert len(painted) == 3
    assert all((picture[kept] == photo[kept]).all() for picture in painted)
    assert (painted[0][~kept] != painted[1][~kept]).any() and (painted[0][~kept] != photo[~kept]).any()


# ---- pictures that know how they were steered ------------------------------------------------------------------------


def test_a_steered_picture_is_drawn_again_from_another_folder(
    diffsteer: Diffsteer, tmp_path: Path, colour: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo_and_hole(tmp_path, "RGB")
    (tmp_path / "third.yaml").write_text(f"hue: orange\nstrength: {1 / 3!r}\n")
    steers = ["--steer", "reference=photo.png,by=low:0.5", "--steer", "mask=hole.png,picture=photo.png", "--steer", "third.yaml"]
    diffsteer("sample", colour, *FEW, *steers, "--out", "x.png")
    diffsteer("sample", colour, *FEW, *steers, "--out", "f")
    assert recipe_of(tmp_path / "x.png")["steer"] == [
        f"reference={tmp_path}/photo.png,by=low:0.5",
        f"mask={tmp_path}/hole.png,picture={tmp_path}/photo.png",
        f"hue=orange:{1 / 3!r}",
    ]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert diffsteer("sample", "--from", "../x.png", "--out", "x.png").code == 0
    assert (tmp_path / "elsewhere" / "x.png").read_bytes() == (tmp_path / "x.png").read_bytes()
    single = tmp_path / "f" / "00001-seed1.png"
    diffsteer("sample", "--from", single, "--out", "single.png")
    assert abs(pixels_of(tmp_path / "elsewhere" / "single.png").astype(int) - pixels_of(single)).max() <= 1
    assert "leave --steer out beside it" in diffsteer("sample", "--from", "../x.png", "--steer", "symmetry", "--out", "y.png").mistake()


def test_the_film_of_a_steered_drawing(diffsteer: Diffsteer, tmp_path: Path, grey: Path) -> None:
    diffsteer("sample", grey, *FEW, "--film", "--out", "plain.png")
    said = diffsteer("sample", grey, *FEW, "--steer", "brightness=0.4", "--film", "--out", "x.png", "--json").json()
    assert said["files"] == ["x.png", "x-film.gif", "x-film.png"]
    frames, plain = frames_of(tmp_path / "x-film.gif"), frames_of(tmp_path / "plain-film.gif")
    assert len(frames) == len(plain) == 4
    assert frames[0].shape[0] > plain[0].shape[0], "the loss of each step stands below"
    assert pixels_of(tmp_path / "x-film.png").shape[0] > pixels_of(tmp_path / "plain-film.png").shape[0]
    assert recipe_of(tmp_path / "x-film.png")["steer"] == ["brightness=0.4"]
    assert diffsteer("sample", "--from", "x-film.png", "--out", "again.png").code == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "x-film.png").read_bytes()


# ---- the user's own code ---------------------------------------------------------------------------------------------


def test_a_loss_of_the_user_s_own_steers_as_ours_does(diffsteer: Diffsteer, tmp_path: Path, grey: Path) -> None:
    (tmp_path / "my_losses.py").write_text("import torch\n\n\n" + DARK)
    mine = steered_by(diffsteer, grey, "mine.npz", "--steer", "my_losses.py:dark:0.5")
    ours = steered_by(diffsteer, grey, "ours.npz", "--steer", "brightness=0.4:0.5")
    assert abs(mine - ours).max() <= 1
    assert abs(mine - steered_by(diffsteer, grey, "plain.npz")).max() > 1
    assert "takes no value" in diffsteer("sample", grey, *FEW, "--steer", "my_losses.py:dark=3", "--out", "x.png").mistake()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return pictures.mean()", "returns one number for the whole batch; return one number per picture"),
        ("return pictures.sum(1) / 0 * no_such_name", "raised NameError: name 'no_such_name' is not defined in line 2 of my_losses.py"),
        ("return pictures.detach().mean(dim=(1, 2, 3))", "is not differentiable"),
        ("return pictures.mean(dim=(1, 2, 3)) + (0 if moment.call < 2 else float('nan'))", "returned NaN at call 3 of the drawing"),
    ],
)
def test_a_wrong_loss_is_told_and_nothing_is_written(diffsteer: Diffsteer, tmp_path: Path, grey: Path, body: str, says: str) -> None:
    (tmp_path / "my_losses.py").write_text(f"def mine(pictures, moment):\n    {body}\n")
    assert says in diffsteer("sample", grey, *FEW, "--steer", "my_losses.py:mine", "--out", "x.png").mistake()
    assert sorted(tree(tmp_path)) == ["my_losses.py"]


def test_a_picture_starts_no_code_unless_the_code_is_named(diffsteer: Diffsteer, tmp_path: Path, grey: Path) -> None:
    place = tmp_path / "my own, lr=0.1"
    place.mkdir()
    (place / "my.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n{DARK}")
    named = f'"{place}/my.py:dark":0.5'
    diffsteer("sample", grey, *FEW, "--steer", "symmetry", "--steer", named, "--out", "x.png")
    assert recipe_of(tmp_path / "x.png")["steer"] == ["symmetry", named]
    (tmp_path / "ran").unlink()
    said = diffsteer("sample", "--from", "x.png", "--out", "y.png").mistake()
    assert "x.png was steered by your own code, which a picture may not start." in said
    assert f"If you trust it, say so beside --from: --steer '{named}'" in said
    for others in (["symmetry"], ["brightness=0.4"], [named, named], ["brightness=0.4", named]):
        flags = [word for text in others for word in ("--steer", text)]
        assert "your own code" in diffsteer("sample", "--from", "x.png", *flags, "--out", "y.png").mistake()
    assert not (tmp_path / "ran").exists() and not (tmp_path / "y.png").exists()
    assert diffsteer("sample", "--from", "x.png", "--steer", named, "--out", "y.png").code == 0
    assert (tmp_path / "y.png").read_bytes() == (tmp_path / "x.png").read_bytes()


def test_a_picture_reaches_code_through_no_file(diffsteer: Diffsteer, tmp_path: Path, grey: Path) -> None:
    """A tampered recipe that names a YAML file, which names code."""
    (tmp_path / "my.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n{DARK}")
    (tmp_path / "steers.yaml").write_text(f"{tmp_path}/my.py:dark:\n")
    diffsteer("sample", grey, *FEW, "--out", "good.png")
    good = recipe_of(tmp_path / "good.png")
    for steer in (
        "steers.yaml",
        f"{tmp_path}/steers.yaml",
        f"{tmp_path}/my.py:dark",
        f'"{tmp_path}/my.py:dark"',
        f"{tmp_path}/my.py:dark=",
    ):
        path = with_text(tmp_path / "tampered.png", json.dumps({**good, "steer": [steer]}))
        diffsteer("sample", "--from", path, "--out", "x.png").mistake()
    assert not (tmp_path / "ran").exists() and not (tmp_path / "x.png").exists()


# ---- sweeps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sweep", "columns"),
    [
        ("strength=0,0.5", (["--steps", 3], ["--steps", 3, "--steer", "brightness=0.4:1"])),
        ("steps=2,4", (["--steps", 2, "--steer", "brightness=0.4:2"], ["--steps", 4, "--steer", "brightness=0.4:2"])),
    ],
)
def test_a_sweep_is_one_sheet_of_pictures_as_they_are_drawn_alone(
    diffsteer: Diffsteer, tmp_path: Path, grey: Path, sweep: str, columns: Sequence[list[Any]]
) -> None:
    words = ["sample", grey, "--seeds", "0,7", "--steps", 3, "--steer", "brightness=0.4:2"]
    assert diffsteer(*words, "--sweep", sweep, "--out", "x.png").code == 0
    assert sorted(tree(tmp_path)) == ["x.png"]
    sheet = pixels_of(tmp_path / "x.png")
    for number, flags in enumerate(columns):
        diffsteer("sample", grey, "--seeds", "0,7", *flags, "--out", f"{number}.npz")
        for picture in arrays(tmp_path / f"{number}.npz")[..., 0]:
            assert on_the_sheet(sheet, picture.astype(np.uint8))
    assert diffsteer("sample", "--from", "x.png", "--out", "again.png").code == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "x.png").read_bytes()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--sweep", "strength=0,1"], "goes through strengths of a steer, and there is none: give --steer"),
        (["--sweep", "seeds=0,1"], "'seeds=0,1' was given. The choices are strength, guidance-scale, guidance-rescale, dynamic-threshold,"),
        (["--sweep", "strength"], "--sweep is a choice and its values, such as strength=0,0.5,1,2; 'strength' was given"),
        (["--sweep", "steps="], "'steps=' was given"),
        (["--sweep", "steps=2,many"], "--steps should be a whole number; 'many' was given"),
        (["--sweep", "solver=eulr"], "There is no solver 'eulr'"),
        (["--sweep", "strength=weak,1", "--steer", "brightness=0.4"], "--sweep strength: 'weak' is no number."),
        (["--sweep", "strength=nan,1", "--steer", "brightness=0.4"], "--sweep strength: 'nan' is no number."),
        (["--sweep", "steps=2,3", "--out", "x.gif"], "--sweep makes one sheet, a PNG: give --out x.png, not x.gif."),
        (["--sweep", "steps=2,3", "--out", "folder"], "--sweep makes one sheet, a PNG"),
    ],
)
def test_sweeps_that_cannot_be(diffsteer: Diffsteer, tmp_path: Path, grey: Path, flags: list[str], says: str) -> None:
    words = ["sample", grey, *FEW, *flags, *([] if "--out" in flags else ["--out", "x.png"])]
    assert says in diffsteer(*words).mistake()
    if "--out" not in flags:
        assert says in diffsteer(*words, "--dry-run").mistake()
    assert tree(tmp_path) == {}


# ---- mixtures of the model's own answers -----------------------------------------------------------------------------


def test_a_guidance_interval_without_levels_guides_nowhere(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    words = ["sample", trained, *FEW]
    for name, flags in (
        ("plain", []),
        ("nowhere", ["--guidance-scale", 4, "--guidance-interval", "0-0.001"]),
        ("everywhere", ["--guidance-scale", 4, "--guidance-interval", "0-1"]),
        ("guided", ["--guidance-scale", 4]),
        ("middle", ["--guidance-scale", 4, "--guidance-interval", "0.2-0.9"]),
        ("rescaled", ["--guidance-scale", 4, "--guidance-rescale", 0.7]),
        ("faded", ["--guidance-scale", 4, "--dynamic-threshold", 0.7]),
    ):
        assert diffsteer(*words, *flags, "--out", f"{name}.npz").code == 0
    found = {path.stem: path.read_bytes() for path in tmp_path.glob("*.npz")}
    assert found["nowhere"] == found["plain"] and found["everywhere"] == found["guided"]
    assert len({found[name] for name in ("plain", "guided", "middle", "rescaled", "faded")}) == 5


def test_one_step_of_autoguidance_and_of_thresholding_is_its_formula(diffsteer: Diffsteer, tmp_path: Path, small_model: Any) -> None:
    folder, early = small_model(process="edm"), small_model(process="edm", seed=1)
    words = ["sample", folder, "--labels", "4", "--seeds", "5", "--steps", 1]
    diffsteer(*words, "--autoguidance", f"{early}:6", "--out", "auto.npz")
    diffsteer(*words, "--guidance-scale", 40, "--dynamic-threshold", 0.9, "--out", "faded.npz")
    noise = 80 * torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(5))[None]
    model, worse = load_model(str(folder)), load_model(str(early))
    with torch.no_grad():
        label, null = (model(noise, 1000.0, torch.tensor([i])) for i in (4, model.spec.null_id))
        away = worse(noise, 1000.0, torch.tensor([4]))
    assert (label - away).abs().max() > 0.05
    torch.testing.assert_close(as_signed(tmp_path / "auto.npz"), (away + 6 * (label - away)).clamp(-1, 1), rtol=0, atol=1 / 127)
    guided = null + 40 * (label - null)
    faded = thresholded(lambda x_t, t, cond: guided, 0.9)(noise, torch.tensor(1000.0))
    assert guided.abs().max() > 1.05
    torch.testing.assert_close(as_signed(tmp_path / "faded.npz"), faded, rtol=0, atol=1 / 127)


def test_autoguidance_1_is_off_and_2_is_the_default(diffsteer: Diffsteer, tmp_path: Path, trained: Path, small_model: Any) -> None:
    worse = small_model(process="cosine", solver="ddim")
    for name, flags in (("plain", []), ("1", [f"{worse}:1"]), ("2", [f"{worse}:2"]), ("bare", [str(worse)])):
        assert diffsteer("sample", trained, *FEW, *(["--autoguidance", *flags] if flags else []), "--out", f"{name}.npz").code == 0
    found = {path.stem: path.read_bytes() for path in tmp_path.glob("*.npz")}
    assert found["1"] == found["plain"] and found["bare"] == found["2"] != found["plain"]


def test_a_guided_picture_is_drawn_again(diffsteer: Diffsteer, tmp_path: Path, trained: Path, small_model: Any) -> None:
    flags = ["--guidance-scale", 3, "--guidance-interval", "0.1-0.95", "--guidance-rescale", 0.5, "--dynamic-threshold", 0.9]
    (tmp_path / "early").symlink_to(small_model())
    diffsteer("sample", trained, *FEW, *flags, "--autoguidance", "early:3", "--steer", "brightness=0.3", "--out", "x.png")
    recipe = recipe_of(tmp_path / "x.png")
    assert (recipe["guidance_interval"], recipe["guidance_rescale"], recipe["dynamic_threshold"]) == ([0.1, 0.95], 0.5, 0.9)
    assert recipe["autoguidance"] == [str(small_model()), 3.0]
    assert diffsteer("sample", "--from", "x.png", "--out", "again.png").code == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "x.png").read_bytes()
    assert "leave --guidance-rescale out" in diffsteer("sample", "--from", "x.png", "--guidance-rescale", 0, "--out", "y.png").mistake()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--guidance-interval", "0.2-0.9"],
            "--guidance-interval says how label guidance is done, and there is none: give --guidance-scale",
        ),
        (["--guidance-rescale", "0.5"], "--guidance-rescale says how label guidance is done, and there is none"),
        (
            ["--guidance-scale", "2", "--guidance-interval", "0.9-0.2"],
            "--guidance-interval is two noise levels from 0 (clean) to 1 (noise)",
        ),
        (
            ["--guidance-scale", "2", "--guidance-interval", "soon"],
            "--guidance-interval: 'soon' is no range of noise levels; write 0.2-0.9",
        ),
        (["--guidance-scale", "2", "--guidance-rescale", "1.5"], "--guidance-rescale should be from 0 to 1; 1.5 was given."),
        (["--dynamic-threshold", "0.3"], "--dynamic-threshold is a share of the values from 0.5 to 1, such as 0.995; 0.3 was given."),
        (["--dynamic-threshold", "much"], "--dynamic-threshold should be a number; 'much' was given"),
        (["--autoguidance", "nowhere"], "There is no model at nowhere"),
        (["--autoguidance", "LARGE:3"], "draws pictures of another size, other channels or other labels; give an earlier or smaller run."),
        (["--autoguidance", "LARGE:nan"], "number"),
    ],
)
def test_mixtures_that_cannot_be(
    diffsteer: Diffsteer, tmp_path: Path, trained: Path, small_model: Any, flags: list[str], says: str
) -> None:
    large = str(small_model(size=(16, 16)))
    said = diffsteer("sample", trained, *FEW, *[flag.replace("LARGE", large) for flag in flags], "--out", "x.png").mistake()
    assert says in said and tree(tmp_path) == {}


# ---- from Python -----------------------------------------------------------------------------------------------------


def dark(pictures: torch.Tensor) -> torch.Tensor:
    return (pictures.mean(dim=(1, 2, 3)) - 0.4).square() / (2 * 0.02**2)


def test_python_steers_as_the_command_line_does(diffsteer: Diffsteer, grey: Path) -> None:
    words = ["--steer", "brightness=0.4,way=exact:0.5", "--steer", "symmetry"]
    found = torch.from_numpy(steered_by(diffsteer, grey, "x.npz", *words)).permute(0, 3, 1, 2)
    model = library.load(grey)
    for losses in (
        ["brightness=0.4,way=exact:0.5", "symmetry"],
        [{"brightness": 0.4, "way": "exact", "strength": 0.5}, {"symmetry": None}],
    ):
        pictures = library.sample(library.steer(model, *losses), count=3, steps=3)
        assert (pictures.pixels.int() - found).abs().max() == 0
        assert list(pictures.losses) == ["brightness=0.4,way=exact:0.5", "symmetry"] and pictures.losses["symmetry"].shape == (4, 3)
    assert library.sample(library.steer(grey), count=3, steps=3).losses == {}
    assert torch.equal(library.sample(library.steer(grey), count=3, steps=3).pixels, library.sample(model, count=3, steps=3).pixels)


def test_functions_steer_with_options_of_their_own(grey: Path) -> None:
    model = library.load(grey)
    steered = library.steer(model, dark, strength=0.5, way="exact", window=(0.1, 1.0))
    ours = library.steer(model, "brightness=0.4,way=exact,window=0.1-1.0:0.5")
    assert (steered.steers[0].name, steered.steers[0].window, steered.steers[0].strength) == ("dark", (0.1, 1.0), 0.5)
    mine, theirs = (library.sample(one, count=2, steps=3).pixels.int() for one in (steered, ours))
    assert (mine - theirs).abs().max() <= 1
    assert [steer.name for steer in library.steer(model, dark, dark, "symmetry").steers] == ["dark (1)", "dark (2)", "symmetry"]
    preset = library.steer(model, dark, preset="ugd", inner=2).steers[0]
    assert (preset.way, preset.inner, preset.recurrence) == ("exact", 2, 2)


@pytest.mark.parametrize(
    ("losses", "options", "says"),
    [
        ([dark], {"wya": "exact"}, "has no option 'wya'. Did you mean way?"),
        ([dark], {"way": "exakt"}, "unknown way 'exakt'; there are covariance, exact, shortcut"),
        ([dark], {"preset": "dsp"}, "Did you mean dps?"),
        ([dark], {"window": (1.0, 0.2)}, "the window is two noise levels"),
        ([dark], {"most": 0}, "most, the largest move, should be above 0; 0 was given"),
        ([dark], {"strength": float("nan")}, "the strength should be a finite number"),
        (["brightness=0.4"], {"strength": 5.0}, "strength and options go with a function; in words they stand with their loss"),
        ([{"brightness": 0.4}], {"way": "exact"}, "strength and options go with a function"),
        ([3], {}, "A loss is words such as"),
        ([{"brightness": 0.4, "strength": "much"}], {}, "The strength of brightness is a number; 'much' was given."),
        ([lambda pictures: pictures.mean()], {}, "return one number per picture"),
        (["color=red"], {}, "this model draws grey pictures"),
    ],
)
def test_what_python_is_told(grey: Path, losses: list[Any], options: dict[str, Any], says: str) -> None:
    with pytest.raises(Mistake) as told:
        library.steer(grey, *losses, **options)
    assert says in str(told.value)


def test_a_steered_model_is_a_denoiser_itself(grey: Path) -> None:
    model = library.load(grey)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for t in (torch.tensor(400.0), 400.0):
        steered = library.steer(model, "brightness=0.4", "symmetry")
        x0 = steered(x, t)
        assert x0.shape == x.shape and not x0.requires_grad

        def off(pictures: torch.Tensor) -> torch.Tensor:
            return (((pictures + 1) / 2).mean(dim=(1, 2, 3)) - 0.4).abs()

        assert (off(x0) < off(model(x, t, None).detach())).all()
        assert torch.allclose(steered(x, t), x0), "a call more changes nothing"
        assert torch.equal(library.steer(model, "brightness=0.4:0")(x, t), model(x, t, None).detach())


def test_a_labelled_model_is_steered_with_its_labels(trained: Path, digits_judge: Judge, tmp_path: Path) -> None:
    save_judge(tmp_path / "judge", digits_judge)
    steered = library.steer(trained, f"classifier={tmp_path}/judge,label=3")
    pictures = library.sample(steered, ["7", 1], seeds=[0, 1], steps=3)
    assert pictures.labels == ["7", "7", "1", "1"]
    (losses,) = pictures.losses.values()
    assert losses[-1].mean() < losses[0].mean()
