"""The command line from outside: real command lines, what they print, what they leave behind, and how they end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from commandline import TINY, Diffsteer, frames_of, pixels_of, recipe_of, tree, with_text
from diffsteer.cli import COMMANDS, run
from diffsteer.config import DataSettings, TrainSettings, choices
from diffsteer.data.pixels import to_signed
from diffsteer.diffusion.seeds import PictureNoise
from diffsteer.sampling.draw import How, Job, draw
from diffsteer.sampling.folder import load_model
from diffsteer.sampling.solvers import SOLVERS, SPACINGS

CLOTHES = ("3", "ankle-boot", "0-2", "T-shirt/top", *"efghij")


def outside(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user calls it."""
    command = [sys.executable, "-m", "diffsteer.cli", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


# ---- how it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "diffsteer.cli", "recipes"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (
        1,
        "diffsteer: There is no room left on the disk. Make some; a run then goes on with the same command.\n",
    )


def test_a_library_that_cannot_write_weights_is_told_of_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: Any, path: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("diffsteer.training.checkpoint.save_file", full)
    monkeypatch.chdir(tmp_path)
    assert run(["train", "digits", *TINY, "--steps", "1", "--out", "r"]) == 1
    assert "no room left on the disk" in capsys.readouterr().err


# ---- help ------------------------------------------------------------------------------------------------------------


def test_help_shows_every_setting_with_its_choices(diffsteer: Diffsteer) -> None:
    said = " ".join(diffsteer("train", "--help").out.replace("│", " ").split())
    for name, field in TrainSettings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in said
        words = choices(field.annotation)
        assert not words or f"[choices: {', '.join(words)}]" in said
    assert "--ema --no-ema" in said and "[default: 128]" in said
    assert "None" not in said


def test_help_of_check_and_sample_tells_the_same_as_the_tables(diffsteer: Diffsteer) -> None:
    said = " ".join(diffsteer("check", "--help").out.split())
    assert all(f"--{name.replace('_', '-')}" in said for name in set(DataSettings.model_fields) - {"streaming"})
    said = " ".join(diffsteer("sample", "--help").out.replace("│", " ").split())
    assert all(f" {name}," in said for name in SOLVERS)
    assert all(name in said for name in SPACINGS)


# ---- train -----------------------------------------------------------------------------------------------------------


def test_training_leaves_the_promised_folder_and_says_what_is_next(diffsteer: Diffsteer, tmp_path: Path) -> None:
    ended = diffsteer("train", "digits", *TINY, "--steps", 3, "--out", "runs/my run")
    assert ended.code == 0 and ended.err == ""
    assert ended.last == "next: diffsteer sample 'runs/my run' --out 'my run'.png"
    names = {path.name for path in (tmp_path / "runs" / "my run").iterdir()}
    assert names == {"settings.yaml", "process.json", "metrics.jsonl", "previews", "figures", "checkpoints", "model"}
    assert "3 optimizer steps of 32 pictures" in ended.out and "285,921 parameters" in ended.out


def test_a_finished_run_prints_its_result_and_changes_nothing(diffsteer: Diffsteer, trained: Path) -> None:
    before = tree(trained)
    again = diffsteer("train", "digits", *TINY, "--steps", 4, "--out", trained)
    assert again.code == 0 and "is finished; nothing was done" in again.out and "done     4 steps" in again.out
    said = diffsteer("train", "digits", *TINY, "--steps", 4, "--out", trained, "--json").json()
    assert said["already_finished"] is True and said["steps"] == 4 and said["out"] == str(trained)
    assert tree(trained) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--lr", "0.5"], "--lr (there 0.001, now 0.5)"),
        (["--no-ema", "--seed", "7"], "--seed (there 0, now 7)"),
        (["--no-ema", "--seed", "7"], "--ema (there True, now False)"),
        (["--process", "cosine"], "--process (there flow, now cosine)"),
    ],
)
def test_other_settings_on_a_run_are_named(diffsteer: Diffsteer, trained: Path, change: list[str], named: str) -> None:
    before = tree(trained)
    assert named in diffsteer("train", "digits", *TINY, "--steps", 4, *change, "--out", trained).mistake()
    assert tree(trained) == before


def test_settings_that_touch_no_number_may_differ(diffsteer: Diffsteer, trained: Path) -> None:
    said = diffsteer("train", "digits", *TINY, "--steps", 4, "--keep", 7, "--project", "other", "--checkpoint-every", 3, "--out", trained)
    assert said.code == 0 and "is finished" in said.out


def test_json_of_a_new_run_is_one_object(diffsteer: Diffsteer) -> None:
    said = diffsteer("train", "digits", *TINY, "--steps", 2, "--out", "r", "--json").json()
    assert said["steps"] == 2 and said["already_finished"] is False and said["loss"] > 0


def test_dry_run_marks_what_differs_and_leaves_nothing(diffsteer: Diffsteer, tmp_path: Path) -> None:
    ended = diffsteer("train", "digits", "--lr", "0.5", "--channels", "32,64", "--steps", 9, "--out", "r", "--dry-run")
    lines = ended.out.splitlines()
    marked = [line for line in lines if line.startswith("* ")]
    assert marked == ["* channels: [32, 64]   # default: None", "* lr: 0.5   # default: 0.001", "* steps: 9   # default: None"]
    assert {line[2:].split(":")[0] for line in lines if line[:2] in ("  ", "* ")} == set(TrainSettings.model_fields)
    said = ended.out
    assert "8x8, 1 channel(s), 10 classes" in said and "UNet2DModel, " in said and "9 optimizer steps" in said
    assert ended.last.startswith("next: ")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("words", "differs"),
    [
        (["check", "digits", "--size", "16", "--out", "sheet"], "* size: [16, 16]   # default: None"),
        (["plan", "digits", "--budget", "90s"], "* budget: 90.0   # default: "),
        (["judge", "digits", "--seed", "4", "--out", "j"], "* seed: 4   # default: 0"),
        (["evaluate", "MODEL", "digits", "--count", "50", "--steer", "symmetry"], "* count: 50   # default: 1000"),
        (["space", "MODEL", "there", "--steer", "symmetry"], "* steer: ['symmetry']   # default: ()"),
        (["app", "MODEL", "--most-pictures", "4"], "* most_pictures: 4   # default: 64"),
    ],
)
def test_dry_run_does_nothing_wherever_there_are_settings(
    diffsteer: Diffsteer, tmp_path: Path, trained: Path, words: list[str], differs: str
) -> None:
    ended = diffsteer(*(str(trained) if word == "MODEL" else word for word in words), "--dry-run")
    assert (ended.code, ended.err, ended.last) == (0, "", "next: the same command without --dry-run")
    assert any(line.startswith(differs) for line in ended.out.splitlines()), ended.out
    assert sum(line.startswith("*") for line in ended.out.splitlines()) == 1 + (words[0] == "evaluate")
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_evaluate_tells_rows_and_judge(diffsteer: Diffsteer, trained: Path) -> None:
    said = diffsteer("evaluate", trained, "digits", "--steps", 3, "--steer", "symmetry", "--dry-run").out
    assert "rows     unsteered, symmetry: 1,000 pictures each, dpm++2m, 3 steps\njudge    one that is trained on digits\n" in said
    assert "no label" not in said and "There is no loss" in diffsteer("evaluate", trained, "digits", "--steer", "x", "--dry-run").mistake()


def test_dry_run_as_json(diffsteer: Diffsteer, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("steps: 600\nflip: yes\n")
    said = diffsteer("train", "digits", "--recipe", "mine.yaml", "--lr", "0.5", "--dry-run", "--json").json()
    assert said["differ"] == ["flip", "lr", "steps"] and said["settings"]["steps"] == 600
    assert any("parameters" in line for line in said["outlook"])


MISTAKES = [
    (["--process", "cosin"], "should be 'cosine', 'linear', 'flow' or 'edm'; 'cosin' was given"),
    (["--budget", "soon"], "is no duration; write 90s, 20m or 2h"),
    (["--size", "3x"], "is no size"),
    (["--size", "7"], "at least 8 pixels a side"),
    (["--steps", "5", "--epochs", "2"], "both say how long to train"),
    (["--budget", "1m", "--steps", "2"], "both say how long to train"),
    (["--steps", "0"], "--steps should be at least 1"),
    (["--lr", "-1"], "--lr should be greater than 0; '-1' was given"),
    (["--recipe", "seed-basik"], "did you mean seed-basic?"),
    (["--recipe", "typo.yaml"], "no setting 'learnign_rate' in the recipe"),
    (["--recipe", "nowhere.yaml"], "no recipe file"),
    (["--background", "nocolour"], "is not a colour"),
    (["--split", "nosuch"], "split"),
    (["--network", "basic", "--conditioning", "concat"], "takes no labels"),
    (["--precision", "fp16"], "--precision fp16 needs a GPU"),
    (["--device", "mps"], "this machine has none that torch can use"),
]


@pytest.mark.parametrize(("flags", "says"), MISTAKES, ids=[" ".join(flags) for flags, _ in MISTAKES])
def test_a_mistake_ends_in_a_sentence_and_leaves_nothing(diffsteer: Diffsteer, tmp_path: Path, flags: list[str], says: str) -> None:
    (tmp_path / "typo.yaml").write_text("learnign_rate: 1\n")
    before = tree(tmp_path)
    ended = diffsteer("train", "digits", *TINY, *flags, "--out", "runs/new")
    assert says in ended.mistake() and ended.out == ""
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("nowhere", "There is no data 'nowhere' here"),
        ("digit", "Did you mean digits"),
        ("empty", "There are no pictures in empty"),
        ("broken", "cannot be read"),
        ("a-run", "is a run folder"),
        ("picture.png", "is one picture"),
    ],
)
def test_data_that_cannot_be_used_ends_in_a_sentence(diffsteer: Diffsteer, tmp_path: Path, data: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"no picture")
    (tmp_path / "a-run").mkdir()
    (tmp_path / "a-run" / "settings.yaml").write_text("settings: {}\n")
    Image.new("L", (16, 16)).save(tmp_path / "picture.png")
    before = tree(tmp_path)
    assert says in diffsteer("train", data, *TINY, "--steps", 2, "--out", "runs/new").mistake()
    assert tree(tmp_path) == before


def test_labels_that_are_not_there_end_in_a_sentence(diffsteer: Diffsteer, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "flat" / "x.png")
    assert "has no labels" in diffsteer("train", "flat", *TINY, "--conditioning", "add", "--out", "r").mistake()
    assert not (tmp_path / "r").exists()


def test_out_must_be_new_or_a_run(diffsteer: Diffsteer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    for name, text in (("other", "theme: dark\n"), ("torn", "settings: [\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.yaml").write_text(text)
    before = tree(tmp_path)
    assert "file is a file" in diffsteer("train", "digits", *TINY, "--steps", 2, "--out", "file").mistake()
    assert "holds something else than a run" in diffsteer("train", "digits", *TINY, "--steps", 2, "--out", "foreign").mistake()
    for name in ("other", "torn"):
        assert "is not of a diffsteer run" in diffsteer("train", "digits", *TINY, "--steps", 2, "--out", name).mistake()
    assert "Say where the run goes" in diffsteer("train", "digits", *TINY).mistake()
    assert "No data is given" in diffsteer("train", *TINY, "--out", "r").mistake()
    diffsteer("train", "digits", *TINY, "--steps", 2, "--out", "file/below").mistake()
    assert tree(tmp_path) == before
    (tmp_path / "new").mkdir()
    assert diffsteer("train", "digits", *TINY, "--steps", 1, "--out", "new").code == 0, "an empty folder is as good as a new one"


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    plain = outside("train", "digits", "--process", "cosin", cwd=tmp_path)
    debug = outside("train", "digits", "--process", "cosin", "--debug", cwd=tmp_path)
    assert plain.returncode == debug.returncode == 2
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr and debug.stderr.endswith(plain.stderr)


def test_piped_output_is_clean(tmp_path: Path) -> None:
    """As a user in a pipe: nothing on stderr, plain lines on stdout."""
    training = outside("train", "digits", *TINY, "--steps", 2, "--out", "r", cwd=tmp_path)
    assert (training.returncode, training.stderr) == (0, "")
    assert "\r" not in training.stdout and "\x1b" not in training.stdout
    assert training.stdout.splitlines()[-1] == "next: diffsteer sample r --out r.png"


@pytest.mark.parametrize("command", [["recipes"], ["recipes", "show", "seed-basic"], ["check", "digits"]], ids=" ".join)
def test_the_last_line_names_the_next_command(diffsteer: Diffsteer, command: list[str]) -> None:
    words = diffsteer(*command).last.split()
    assert words[:2] == ["next:", "diffsteer"] and words[2] in COMMANDS


def test_check_and_recipes_print_one_object(diffsteer: Diffsteer) -> None:
    assert diffsteer("check", "digits", "--json").json()["count"] == 1797
    assert "digits" in diffsteer("recipes", "--json").json()
    shown = diffsteer("recipes", "show", "seed-basic", "--json").json()
    assert shown["settings"]["network"] == "basic" and {"setting", "recipe", "default", "reason"} == set(shown["beside_defaults"][0])
    assert "recipes show NAME" in diffsteer("recipes", "shwo").mistake()


def test_a_recipe_is_shown_with_both_values_and_a_reason(diffsteer: Diffsteer) -> None:
    rows = [line for line in diffsteer("recipes", "show", "seed-class-conditional").out.splitlines() if line.startswith("conditioning ")]
    assert rows == [f"{'conditioning':18} {'concat':28} {'by the data':28} a label added to the time embedding reaches every layer"]


def test_check_reports_and_exits_by_what_it_found(diffsteer: Diffsteer, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("L", (16, 16), ord(name)).save(tmp_path / "pets" / name / "1.png")
    good = diffsteer("check", "pets", "--out", "sheet")
    assert good.code == 0 and (tmp_path / "sheet" / "sheet.png").is_file() and "only one picture" in good.out
    (tmp_path / "pets" / "a" / "2.png").write_bytes(b"torn")
    bad = diffsteer("check", "pets")
    assert bad.code == 2 and "2.png" in bad.out and "cannot be trained on" in bad.err
    assert diffsteer("check", "pets", "--skip-broken").code == 0


# ---- sample: where pictures go ---------------------------------------------------------------------------------------


def test_sample_writes_what_the_suffix_says(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    for out in ("deep/new/x.png", "x.gif", "x.npz", "X.NPZ", "folder", "dotted.v1/"):
        ended = diffsteer("sample", trained, "--labels", "3,5", "--per-label", 2, "--steps", 3, "--out", out)
        assert (ended.code, ended.err) == (0, "") and ended.last.startswith("next: diffsteer sample ")
    files = sorted(name for name, content in tree(tmp_path).items() if content is not None)
    pictures = [f"{index:05d}-{label}-seed{index}.png" for index, label in enumerate("3355")]
    folders = [f"{folder}/{name}" for folder in ("dotted.v1", "folder") for name in pictures]
    assert files == sorted(["X.NPZ", "deep/new/x.png", "x.gif", "x.npz", *folders])
    assert pixels_of(tmp_path / "folder" / pictures[0]).shape == (8, 8)
    assert (tmp_path / "X.NPZ").read_bytes() == (tmp_path / "x.npz").read_bytes()


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("x.jpg", ".jpg is not written; .png is a grid, .gif a film, .npz arrays, no suffix a folder of PNGs"),
        ("taken.png", "taken.png exists already; --overwrite replaces it"),
        ("pictures", "holds pictures already; --overwrite"),
        ("taken.png/x.png", "taken.png is a file"),
        ("taken.png/", "taken.png is a file"),
        ("", "names no file"),
    ],
)
def test_places_that_cannot_be(diffsteer: Diffsteer, tmp_path: Path, trained: Path, out: str, says: str) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("taken.png", "pictures/mine.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    before = tree(tmp_path)
    assert says in diffsteer("sample", trained, "--count", 2, "--steps", 1, "--out", out).mistake()
    assert tree(tmp_path) == before


def test_without_out_pictures_take_the_next_free_name(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    for name in ("pictures.png", "pictures-2.png"):
        diffsteer("sample", trained, "--count", 1, "--steps", 1)
        assert (tmp_path / name).is_file()


def test_overwrite_replaces(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    (tmp_path / "x-film.gif").write_text("old")
    words = ["sample", trained, "--count", 2, "--steps", 2, "--out", "x.png"]
    assert "x-film.gif exists already" in diffsteer(*words, "--film").mistake()
    assert diffsteer(*words).code == 0, "a film that is not asked for stands in nobody's way"
    assert "x.png exists already" in diffsteer(*words).mistake()
    before = tree(tmp_path)
    assert diffsteer(*words, "--film", "--overwrite").code == 0
    assert len(frames_of(tmp_path / "x-film.gif")) == 3
    assert tree(tmp_path)["x.png"] == before["x.png"] and sorted(tree(tmp_path)) == ["x-film.gif", "x-film.png", "x.png"]


def test_npz_is_guided_diffusions_convention(diffsteer: Diffsteer, tmp_path: Path, trained: Path, small_model: Any) -> None:
    diffsteer("sample", trained, "--labels", "4,2", "--per-label", 3, "--steps", 2, "--out", "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        assert sorted(arrays) == ["arr_0", "arr_1"]
        assert arrays["arr_0"].dtype == np.uint8 and arrays["arr_0"].shape == (6, 8, 8, 1)
        assert arrays["arr_1"].dtype == np.int64 and arrays["arr_1"].tolist() == [4, 4, 4, 2, 2, 2]
    diffsteer("sample", small_model(data="digits-color", conditioning="none"), "--count", 5, "--steps", 2, "--out", "y.npz")
    with np.load(tmp_path / "y.npz") as arrays:
        assert sorted(arrays) == ["arr_0"] and arrays["arr_0"].shape == (5, 8, 8, 3)


def test_the_pictures_are_the_same_in_every_form(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    words = ["sample", trained, "--labels", "1,7", "--per-label", 3, "--steps", 3]
    for out in ("x.npz", "folder", "x.png"):
        diffsteer(*words, "--out", out)
    with np.load(tmp_path / "x.npz") as arrays:
        pictures = arrays["arr_0"][..., 0]
    assert all((pixels_of(path) == picture).all() for path, picture in zip(sorted((tmp_path / "folder").iterdir()), pictures, strict=True))
    sheet = pixels_of(tmp_path / "x.png")
    for index, picture in enumerate(pictures):
        large = picture.repeat(6, 0).repeat(6, 1)
        windows = np.lib.stride_tricks.sliding_window_view(sheet, large.shape)
        assert (windows == large).all((2, 3)).any(), f"picture {index} is on the sheet, each pixel six wide"


@pytest.mark.parametrize(("flags", "rows", "columns"), [(["--per-label", 3], 2, 3), (["--per-label", 3, "--columns", 2], 3, 2)])
def test_grid_sizes(diffsteer: Diffsteer, tmp_path: Path, trained: Path, flags: list[Any], rows: int, columns: int) -> None:
    diffsteer("sample", trained, "--labels", "1,7", *flags, "--steps", 1, "--out", "x.png")
    height, width = pixels_of(tmp_path / "x.png").shape
    captions = columns == 2  # rows of two labels are captioned picture by picture
    assert height >= 24 + rows * 48 + (rows - 1) * 4 and (captions or height == 24 + rows * 48 + (rows - 1) * 4)
    assert width >= 24 + columns * 48 + (columns - 1) * 4


def test_a_film_has_a_frame_a_step_and_the_end(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    said = diffsteer("sample", trained, "--labels", "1,7", "--per-label", 2, "--steps", 5, "--film", "--out", "x.gif", "--json").json()
    assert said["files"] == ["x.gif", "x-film.png"] and sorted(tree(tmp_path)) == ["x-film.png", "x.gif"]
    frames = frames_of(tmp_path / "x.gif")
    assert len(frames) == 6 and len({frame.shape for frame in frames}) == 1
    assert all((one != other).any() for one, other in pairwise(frames))


def test_a_film_beside_a_grid_or_a_folder(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    words = ["sample", trained, "--labels", "1", "--per-label", 2, "--steps", 8, "--film", "--json"]
    assert diffsteer(*words, "--out", "x.png").json()["files"] == ["x.png", "x-film.gif", "x-film.png"]
    files = diffsteer(*words, "--out", "f").json()["files"]
    assert files == ["f/00000-1-seed0.png", "f/00001-1-seed1.png", "f/film.gif", "f/film.png"]
    assert len(frames_of(tmp_path / "x-film.gif")) == len(frames_of(tmp_path / "f" / "film.gif")) == 9
    assert (pixels_of(tmp_path / "x-film.png") == pixels_of(tmp_path / "f" / "film.png")).all()


def test_invert_shows_ink_on_paper(diffsteer: Diffsteer, tmp_path: Path, trained: Path, small_model: Any) -> None:
    diffsteer("sample", trained, "--labels", "1", "--count", 1, "--steps", 2, "--out", "plain/")
    diffsteer("sample", trained, "--labels", "1", "--count", 1, "--steps", 2, "--invert", "--out", "ink/")
    name = "00000-1-seed0.png"
    assert (pixels_of(tmp_path / "ink" / name) == 255 - pixels_of(tmp_path / "plain" / name)).all()
    colour = small_model(data="digits-color", conditioning="none")
    assert "this model draws in colour" in diffsteer("sample", colour, "--invert", "--out", "x.png").mistake()


# ---- sample: which pictures ------------------------------------------------------------------------------------------


def drawn(diffsteer: Diffsteer, model: Path, *flags: object) -> list[tuple[str | None, int]]:
    """Labels and seeds that a command line would draw."""
    said = diffsteer("sample", model, *flags, "--dry-run", "--json").json()
    return [(picture["label"], picture["seed"]) for picture in said["pictures"]]


def test_labels_and_seeds(diffsteer: Diffsteer, trained: Path, small_model: Any) -> None:
    everything = [(str(label), label * 8 + k) for label in range(10) for k in range(8)]
    assert (
        drawn(diffsteer, trained)
        == drawn(diffsteer, trained, "--labels", "all")
        == drawn(diffsteer, trained, "--labels", "0-9")
        == everything
    )
    assert drawn(diffsteer, trained, "--labels", "7,2", "--per-label", 2) == [("7", 0), ("7", 1), ("2", 2), ("2", 3)]
    assert drawn(diffsteer, trained, "--labels", "7,2", "--count", 5) == [("7", 0), ("2", 1), ("7", 2), ("2", 3), ("7", 4)]
    assert drawn(diffsteer, trained, "--labels", "2-4", "--count", 2) == [("2", 0), ("3", 1)]
    plain = small_model(conditioning="none")
    assert drawn(diffsteer, plain) == [(None, seed) for seed in range(16)]
    assert drawn(diffsteer, plain, "--count", 3) == drawn(diffsteer, plain, "--seeds", "0-2") == [(None, 0), (None, 1), (None, 2)]


def test_with_seeds_every_label_is_drawn_with_every_seed(diffsteer: Diffsteer, trained: Path) -> None:
    threes = drawn(diffsteer, trained, "--labels", "3", "--seeds", "0-63")
    assert len(threes) == 64 and threes[41] == ("3", 41)
    assert drawn(diffsteer, trained, "--labels", "5,1", "--seeds", "9,2,3-4") == [(label, seed) for label in "51" for seed in (9, 2, 3, 4)]
    for flag in ("--per-label", "--count"):
        assert "leave --per-label and --count out" in diffsteer("sample", trained, "--seeds", "0-3", flag, 2, "--out", "x.png").mistake()


def test_a_class_named_like_a_number_or_a_range_is_that_class(diffsteer: Diffsteer, small_model: Any) -> None:
    shop = small_model(names=CLOTHES)
    assert [label for label, _ in drawn(diffsteer, shop, "--labels", "ankle-boot,3,0-2,T-shirt/top,1,4-5", "--per-label", 1)] == [
        "ankle-boot",
        "3",  # the class of that name, not the fourth
        "0-2",
        "T-shirt/top",
        "ankle-boot",  # no class is called 1, so it is a number
        "e",
        "f",
    ]
    assert "did you mean 'ankle-boot'?" in diffsteer("sample", shop, "--labels", "ankle-boots", "--out", "x.png").mistake()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--labels", "cat"], "no label 'cat'; its labels are 0, 1, 2"),
        (["--labels", "10"], "no label 10; its labels are 0 to 9"),
        (["--labels", "0-99999999999"], "no label 99999999999"),
        (["--labels", "5-2"], "no label '5-2'"),
        (["--labels", ","], "names nothing to draw"),
        (["--seeds", "3-1"], "is no seed"),
        (["--seeds", ""], "is no seed"),
        (["--seeds", str(2**64)], "is no seed"),
        (["--per-label", "0"], "--per-label should be at least 1"),
        (["--count", "0"], "--count should be at least 1"),
        (["--per-label", "2", "--count", "4"], "give one of them"),
        (["--steps", "0"], "--steps should be at least 1"),
        (["--steps", "1000000"], "--steps should be at most"),
        (["--columns", "0"], "--columns should be at least 1"),
        (["--batch-size", "0"], "--batch-size should be at least 1"),
        (["--solver", "eulr"], "There is no solver 'eulr'; there are mix, ddpm, ddim, euler"),
        (["--solver", "EulrScheduler"], "has no scheduler 'EulrScheduler'; did you mean"),
        (["--solver", "DDIMScheduler"], "does not fit the process flow"),
        (["--solver", "seed-004"], "not flow"),
        (["--spacing", "odd"], "nknown spacing 'odd'; there are angle, even, karras"),
        (["--spacing", "leading"], "try trailing, even or angle"),
        (["--precision", "int8"], "--precision should be 'fp32', 'bf16' or 'fp16'"),
        (["--device", "abacus"], "--device should be 'auto', 'cpu', 'cuda' or 'mps'"),
        (["--guidance-scale", "nan"], "--guidance-scale should be a finite number"),
        (["--count", "many"], "--count"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_sample_mistakes(diffsteer: Diffsteer, tmp_path: Path, trained: Path, flags: list[str], says: str) -> None:
    assert says in diffsteer("sample", trained, *flags, "--out", "x.png").mistake()
    assert tree(tmp_path) == {}


def test_models_that_are_none(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "photos" / "cat.png")
    assert "photos is no model" in diffsteer("sample", "photos", "--out", "x.png").mistake()
    assert "There is no model at photos/model" in diffsteer("sample", "photos/model", "--out", "x.png").mistake()
    assert "There is no model at nowhere" in diffsteer("sample", "nowhere", "--out", "x.png").mistake()
    assert "Say which model" in diffsteer("sample", "--out", "x.png").mistake()
    shutil.copytree(trained, tmp_path / "half", ignore=shutil.ignore_patterns("model"))
    assert "half has no model yet; run its `diffsteer train` command again" in diffsteer("sample", "half", "--out", "x.png").mistake()


def test_a_run_folder_and_its_model_folder_are_the_same_model(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    diffsteer("sample", trained, "--count", 3, "--steps", 2, "--out", "run.npz")
    diffsteer("sample", trained / "model", "--count", 3, "--steps", 2, "--out", "model.npz")
    assert (tmp_path / "run.npz").read_bytes() == (tmp_path / "model.npz").read_bytes()


def test_guidance_on_a_model_that_cannot_says_what_was_meant(diffsteer: Diffsteer, tmp_path: Path, small_model: Any) -> None:
    plain = diffsteer("sample", small_model(conditioning="none"), "--guidance-scale", 2, "--out", "x.png").mistake()
    assert "this model has no labels" in plain and "strength of a steer" in plain and "after its colon" in plain
    no_null = small_model(label_dropout=0)
    said = diffsteer("sample", no_null, "--guidance-scale", 2, "--out", "x.png").mistake()
    assert "trained with --label-dropout" in said and "no null class" in said
    assert diffsteer("sample", no_null, "--guidance-scale", 1, "--count", 1, "--out", "x.png").code == 0, "1 is off"
    for words in (["--labels", "3"], ["--per-label", "2"]):
        diffsteer("sample", small_model(conditioning="none"), *words, "--out", "y.png").mistake()


def test_guidance_is_uncond_plus_scale_times_the_difference(diffsteer: Diffsteer, tmp_path: Path, small_model: Any) -> None:
    """One step: x0 with label guidance 3 is the mix of the two x0 that the model gives with the label and without."""
    folder = small_model(process="edm")
    diffsteer("sample", folder, "--labels", "4", "--seeds", "5", "--steps", 1, "--guidance-scale", 3, "--out", "x.npz")
    model = load_model(str(folder))
    noise = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(5))[None]
    with torch.no_grad():
        label, null = (model(80 * noise, 1000.0, torch.tensor([i])) for i in (4, model.spec.null_id))
    mixed = (null + 3 * (label - null)).clamp(-1, 1)
    with np.load(tmp_path / "x.npz") as arrays:
        found = to_signed(torch.from_numpy(arrays["arr_0"]).permute(0, 3, 1, 2))
    assert (label - null).abs().max() > 0.01
    torch.testing.assert_close(found, mixed, rtol=0, atol=1 / 127)


def test_dry_run_of_sample_marks_what_differs_from_the_model(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    lines = diffsteer(
        "sample", trained, "--labels", "3,1", "--solver", "heun", "--precision", "bf16", "--out", "x.png", "--dry-run"
    ).out.splitlines()
    assert [line for line in lines if line.startswith("* ")] == [
        "* solver: heun   # the model's own: dpm++2m",
        "* precision: bf16   # the model's own: fp32",
    ]
    assert "pictures 16, seeds 0 to 15" in lines and "labels   3, 1" in lines and lines[-1].startswith("next: ")
    assert tree(tmp_path) == {}


def test_another_solver_comes_with_its_own_steps(diffsteer: Diffsteer, small_model: Any) -> None:
    model = small_model(process="cosine", solver="ddim", sample_steps=7, spacing="leading")
    shown = [diffsteer("sample", model, *flags, "--dry-run", "--json").json() for flags in ([], ["--solver", "heun"], ["--steps", 9])]
    assert [(each["solver"], each["steps"], each["spacing"]) for each in shown] == [
        ("ddim", 7, "leading"),
        ("heun", SOLVERS["heun"].default_steps, None),
        ("ddim", 9, "leading"),
    ]


# ---- sample: pictures that know how they were made -------------------------------------------------------------------


def test_each_png_holds_its_recipe(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    flags = ["--solver", "ddpm", "--steps", 3, "--guidance-scale", 2, "--precision", "bf16"]
    diffsteer("sample", trained, "--labels", "3,5", "--seeds", "9", *flags, "--out", "x.png")
    diffsteer("sample", trained, "--labels", "3,5", "--seeds", "9", *flags, "--out", "f")
    whole, single = recipe_of(tmp_path / "x.png"), recipe_of(tmp_path / "f" / "00001-5-seed9.png")
    assert whole["pictures"] == [{"label": "3", "seed": 9}, {"label": "5", "seed": 9}] and single["pictures"] == [{"label": "5", "seed": 9}]
    for recipe in (whole, single):
        assert recipe["model"] == str(trained) and recipe["steer"] == []
        assert (recipe["solver"], recipe["steps"], recipe["guidance_scale"], recipe["precision"]) == ("ddpm", 3, 2.0, "bf16")


@pytest.mark.parametrize("flags", [[], ["--film", "--invert"], ["--solver", "ddpm", "--guidance-scale", "3", "--columns", "2"]], ids=str)
def test_a_picture_is_drawn_again_from_itself(diffsteer: Diffsteer, tmp_path: Path, trained: Path, flags: list[str]) -> None:
    diffsteer("sample", trained, "--labels", "3,5", "--per-label", 3, "--steps", 3, *flags, "--out", "x.png")
    for path in sorted(tmp_path.glob("x*.png")):
        again = tmp_path / f"again-{path.name}"
        assert diffsteer("sample", "--from", path, "--out", again).code == 0
        assert again.read_bytes() == path.read_bytes(), "the same pixels, and the same recipe"


def test_a_single_png_of_a_folder_is_drawn_again(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    diffsteer("sample", trained, "--labels", "3,5", "--per-label", 3, "--steps", 3, "--out", "f")
    path = tmp_path / "f" / "00004-5-seed4.png"
    diffsteer("sample", "--from", path, "--out", "again.png")
    diffsteer("sample", "--from", path, "--out", "again/")
    assert recipe_of(tmp_path / "again.png")["pictures"] == [{"label": "5", "seed": 4}]
    for again in (tmp_path / "again.png", tmp_path / "again" / "00000-5-seed4.png"):
        difference = pixels_of(again).astype(int) - pixels_of(path)
        assert difference.shape == (8, 8) and abs(difference).max() <= 1, "one picture alone or among six"


def test_a_model_beside_from_takes_the_place_of_the_recipes(diffsteer: Diffsteer, tmp_path: Path, trained: Path, small_model: Any) -> None:
    shutil.copytree(trained / "model", tmp_path / "moved")
    diffsteer("sample", tmp_path / "moved", "--labels", "3", "--count", 2, "--steps", 2, "--out", "x.png")
    shutil.rmtree(tmp_path / "moved")
    diffsteer("sample", "--from", "x.png", "--out", "y.png").mistake()
    assert diffsteer("sample", trained, "--from", "x.png", "--out", "y.png").code == 0
    assert (pixels_of(tmp_path / "x.png") == pixels_of(tmp_path / "y.png")).all()
    shop = small_model(names=(*CLOTHES[1:], "z"))
    assert "shows the label '3', which the model" in diffsteer("sample", shop, "--from", "x.png", "--out", "z.png").mistake()
    plain = small_model(conditioning="none")
    assert "shows the label '3'" in diffsteer("sample", plain, "--from", "x.png", "--out", "z.png").mistake()


def test_pictures_without_a_good_recipe_end_in_a_sentence(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "foreign.png")
    Image.new("L", (8, 8)).save(tmp_path / "photo.jpg")
    assert "holds no recipe" in diffsteer("sample", "--from", "foreign.png", "--out", "x.png").mistake()
    assert "is not a PNG" in diffsteer("sample", "--from", "photo.jpg", "--out", "x.png").mistake()
    assert "There is no file nowhere.png" in diffsteer("sample", "--from", "nowhere.png", "--out", "x.png").mistake()
    diffsteer("sample", trained, "--count", 1, "--steps", 1, "--out", "good.png")
    good = recipe_of(tmp_path / "good.png")
    tampered: list[Any] = ["", "{", "[]", "3", "null", {}, {**good, "steps": 0}, {**good, "solver": "eval"}, {**good, "pictures": []}]
    tampered += [{**good, "steer": [{"file": "evil.py"}]}, {**good, "run": "rm"}, {**good, "pictures": [{"label": "3", "seed": -1}]}]
    tampered += [{**good, "pictures": [{"label": "cat", "seed": 1}]}, {**good, "pictures": [{"label": None, "seed": 1}]}]
    tampered += [{**good, "model": "nowhere"}, {**good, "spacing": "odd"}, {**good, "steps": 10**400}]
    for recipe in tampered:
        path = with_text(tmp_path / "tampered.png", recipe if isinstance(recipe, str) else json.dumps(recipe))
        diffsteer("sample", "--from", path, "--out", "x.png").mistake()
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    "flag", ["--labels=3", "--seeds=1", "--count=0", "--steps=3", "--guidance-scale=0", "--precision=bf16", "--invert"]
)
def test_from_takes_no_other_wishes(diffsteer: Diffsteer, trained: Path, flag: str) -> None:
    diffsteer("sample", trained, "--labels", "3", "--count", 1, "--steps", 1, "--out", "x.png")
    assert f"leave {flag.split('=')[0]} out" in diffsteer("sample", "--from", "x.png", flag, "--out", "y.png").mistake()


# ---- sample: a picture depends on itself alone -----------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["dpm++2m", "ddpm"])
def test_a_picture_is_the_same_alone_and_in_any_batch(diffsteer: Diffsteer, tmp_path: Path, trained: Path, solver: str) -> None:
    found = []
    for batch in (1, 7, 64):
        words = ["--labels", "3,8", "--seeds", "0-31", "--solver", solver, "--steps", 6, "--batch-size", batch]
        assert diffsteer("sample", trained, *words, "--out", f"{batch}.npz").code == 0
        with np.load(tmp_path / f"{batch}.npz") as arrays:
            found.append(arrays["arr_0"].astype(int))
    assert abs(found[0] - found[2]).max() <= 1 and abs(found[1] - found[2]).max() <= 1
    assert diffsteer("sample", trained, "--labels", "8", "--seeds", "31,4", "--solver", solver, "--steps", 6, "--out", "two.npz").code == 0
    with np.load(tmp_path / "two.npz") as arrays:
        assert abs(arrays["arr_0"].astype(int) - found[2][[32 + 31, 32 + 4]]).max() <= 1, "at another place, in another order"


def test_batches_are_as_large_as_asked_for(trained: Path) -> None:
    model, sizes, told = load_model(str(trained)), [], []
    model.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    draw(model, [Job(3, seed) for seed in range(7)], How("ddim", steps=2), batch=3, watch=told.append)
    assert sizes == [3, 3, 3, 3, 1, 1] and told == [0, 1, 2] * 3


@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_noise_is_equal_bit_for_bit_in_any_batch(kind: str) -> None:
    together = PictureNoise.from_seeds(range(64), (1, 8, 8), kind)
    alone = PictureNoise.from_seeds([41], (1, 8, 8), kind)
    for _ in range(3):
        assert torch.equal(together()[41], alone()[0])


def test_seeds_do_not_touch_the_global_generator(diffsteer: Diffsteer, trained: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    diffsteer("sample", trained, "--count", 2, "--steps", 2, "--solver", "ddpm", "--out", "x.png")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_picture_follows_its_label_and_its_seed(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    diffsteer("sample", trained, "--labels", "3,8", "--seeds", "0,1", "--steps", 3, "--out", "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        pictures = arrays["arr_0"].astype(int)
    assert all(abs(one - other).max() > 1 for k, one in enumerate(pictures) for other in pictures[:k])


# ---- from Python -----------------------------------------------------------------------------------------------------


def test_python_draws_what_the_command_line_draws(diffsteer: Diffsteer, tmp_path: Path, trained: Path) -> None:
    import diffsteer as library

    diffsteer("sample", trained, "--labels", "3,5", "--seeds", "4,6", "--steps", 3, "--guidance-scale", 2, "--out", "x.npz")
    model = library.load(trained)
    pictures = library.sample(model, [3, "5"], seeds=[4, 6], steps=3, guidance_scale=2)
    with np.load(tmp_path / "x.npz") as arrays:
        assert (pictures.pixels.permute(0, 2, 3, 1).numpy() == arrays["arr_0"]).all()
    assert pictures.labels == ["3", "3", "5", "5"] and pictures.seeds == [4, 6, 4, 6] and len(pictures) == 4
    assert pictures[0].size == (8, 8) and pictures.grid(columns=2).width < pictures.grid(columns=4).width
    assert model.notes == ()
    with pytest.raises(ValueError, match="names nothing"):
        library.sample(model, seeds=[])
    with pytest.raises(ValueError, match="precision is one of"):
        library.load(trained, precision="int8")


def test_a_broken_pipe_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m diffsteer.cli recipes show seed-unet | head -n 1"
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert ended.stdout.startswith("# diffsteer train") and ended.stderr == ""
