"""Judging from outside: `diffsteer judge` and `diffsteer evaluate`, what they say and leave behind."""

from __future__ import annotations

import functools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from commandline import Diffsteer, pixels_of, tree
from diffsteer import evaluating, judging, progress
from diffsteer.data.images import load_pictures
from diffsteer.data.memory import MemoryPictures
from diffsteer.diffusion.judge import Judge, is_judge, load_judge, save_judge
from diffsteer.evaluation.basis import Extractor
from diffsteer.evaluation.features import FeatureExtractor
from diffsteer.sampling.draw import How, Job, draw
from diffsteer.sampling.folder import load_model
from diffsteer.training.classifier import train_judge

FEW = ["--count", 20, "--steps", 3]


class Judges(NamedTuple):
    """Folders of two judges of the digits: a good one that scores, and another that steers."""

    scores: Path
    steers: Path


@pytest.fixture(scope="session")
def judges(tmp_path_factory: pytest.TempPathFactory, digits_judge: Judge) -> Judges:
    folder = tmp_path_factory.mktemp("judges")
    digits = load_pictures("digits")
    assert isinstance(digits, MemoryPictures) and digits.labels is not None
    few = replace(digits, pixels=digits.pixels[:300], labels=digits.labels[:300])
    save_judge(folder / "scores", digits_judge)
    save_judge(folder / "steers", train_judge(few, architecture="patches", epochs=10))
    return Judges(folder / "scores", folder / "steers")


# ---- judge -----------------------------------------------------------------------------------------------------------


def test_a_judge_is_trained_and_says_how_good_it_is(diffsteer: Diffsteer, tmp_path: Path) -> None:
    ended = diffsteer("judge", "digits", "--budget", "2s", "--out", "j")
    assert (ended.code, ended.err) == (0, "")
    spec = load_judge(tmp_path / "j").spec
    assert spec.data_source == "digits" and spec.held_out == 180 and spec.accuracy > 0.3
    assert ended.out.splitlines() == [
        f"done     a judge of 10 classes (plain), right on {spec.accuracy:.1%} of 180 held out",
        "next: diffsteer sample MODEL --steer classifier=j,label=0 --out steered.png",
    ]
    said = diffsteer("judge", "digits", "--budget", "0.1s", "--architecture", "patches", "--noise-aware", "--out", "j", "--json").json()
    assert said["out"] == "j" and said["noise_aware"] is True and load_judge(tmp_path / "j").spec.architecture == "patches"


def test_a_judge_learns_through_a_model_of_another_size(diffsteer: Diffsteer, small_model: Any) -> None:
    model = small_model(size=(12, 12), conditioning="none")
    said = diffsteer("judge", "digits", "--budget", "0.1s", "--through", model, "--out", "j", "--json").json()
    assert said["through"] == str(model) and (said["height"], said["width"]) == (12, 12)
    both = diffsteer("judge", "digits", "--through", model, "--noise-aware", "--out", "k").mistake()
    assert "give one of the two" in both
    grey = diffsteer("judge", "digits-color", "--through", model, "--out", "k").mistake()
    assert "is in colour, and the model draws in grey" in grey


def test_judges_that_cannot_be(diffsteer: Diffsteer, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for name in "abcd":
        Image.new("L", (16, 16)).save(tmp_path / "flat" / f"{name}.png")
    before = tree(tmp_path)
    assert "has no labels" in diffsteer("judge", "flat", "--out", "j").mistake()
    assert "There is no data 'nowhere' here" in diffsteer("judge", "nowhere", "--out", "j").mistake()
    assert "--architecture should be 'plain' or 'patches'" in diffsteer("judge", "digits", "--architecture", "deep", "--out", "j").mistake()
    assert "--out" in diffsteer("judge", "digits").mistake()
    assert "flat holds something that is no judge" in diffsteer("judge", "digits", "--budget", "0.1s", "--out", "flat").mistake()
    assert tree(tmp_path) == before


# ---- evaluate: the model alone ---------------------------------------------------------------------------------------


def test_copies_are_looked_for_beside_what_was_learnt_only(diffsteer: Diffsteer, tmp_path: Path, trained: Path, judges: Judges) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    file = run / "settings.yaml"
    known = yaml.safe_load(file.read_text())
    known["resolved"]["data_fingerprint"] = "of others"
    file.write_text(yaml.safe_dump(known))
    for model in ("run", "run/model"):
        ended = diffsteer("evaluate", model, "digits", *FEW, "--judge", judges.scores, "--out", "scores")
        assert f"these are not the pictures that {model} learnt from" in ended.out
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["copies"] is None and not (tmp_path / "scores/copies.png").exists()


def test_a_model_is_scored_by_the_labels_it_was_asked_for(diffsteer: Diffsteer, tmp_path: Path, trained: Path, judges: Judges) -> None:
    ended = diffsteer("evaluate", trained, "digits", *FEW, "--judge", judges.scores, "--out", "scores")
    assert (ended.code, ended.err) == (0, "") and ended.last == f"next: diffsteer sample {trained} --out pictures.png"
    drawn = ["00-confusion.png", "00-worst.png", "00.png", "copies.png"]
    assert sorted(tree(tmp_path)) == ["scores", *(f"scores/{name}" for name in (*drawn, "scores.json", "scores.md"))]
    values = json.loads((tmp_path / "scores" / "scores.json").read_text())
    (row,) = values["rows"]
    assert (values["model"], values["steps"], row["name"], row["count"], row["strength"]) == (str(trained), 3, "unsteered", 20, 1.0)
    assert values["copies"]["count"] == 20 and values["copies"]["flagged"] == [] and values["copies"]["train_count"] > 1700
    assert "no copy" in ended.out.lower() or "copies" in ended.out.lower()
    assert row["seconds"] > 0 and row["frechet"]["value"] > row["frechet"]["floor"] > 0 and row["frechet"]["count"] == 20

    model, judge = load_model(str(trained)), load_judge(judges.scores)
    jobs = judging.scored_jobs(dict(enumerate(load_pictures("digits").class_counts)), 20)
    drawn, asked = draw(model, jobs, How(steps=3)).pictures, torch.tensor([job.label for job in jobs])
    right = (judge(drawn.float() / 255).argmax(1) == asked).double().mean()
    assert row["accuracy"]["value"] == right and row["accuracy"]["count"] == 20
    assert row["kid"]["value"] > row["kid"]["floor"] and row["brightness"]["value"] > row["brightness"]["floor"]
    assert row["basis"]["extractor"]["architecture"] == "plain" and row["basis"]["reference"]["split"] == "train"
    assert f"Labels right: {right:.1%}" in ended.out and "## Asked (down) and found (across)" in (tmp_path / "scores/scores.md").read_text()
    assert diffsteer("evaluate", trained, "digits", *FEW, "--judge", judges.scores, "--json").json()["rows"][0]["frechet"] == row["frechet"]
    assert sorted(tree(tmp_path))[0] == "scores", "without --out nothing is written"


def test_without_labels_nothing_is_asked_unless_it_is_said(diffsteer: Diffsteer, small_model: Any, judges: Judges) -> None:
    words = ["evaluate", small_model(conditioning="none"), "digits", *FEW, "--judge", judges.scores, "--json"]
    assert diffsteer(*words).json()["rows"][0]["accuracy"] is None
    asked = {label: diffsteer(*words, "--asked", label).json()["rows"][0]["accuracy"] for label in ("3", "each")}
    assert [each["label"] for each in asked["3"]["classes"]] == ["3"] and asked["3"]["count"] == 20
    assert [(each["label"], each["count"]) for each in asked["each"]["classes"]] == [(str(label), 2) for label in range(10)]


# ---- evaluate: what a steer gained -----------------------------------------------------------------------------------


def test_a_steer_stands_beside_the_unsteered_model(diffsteer: Diffsteer, tmp_path: Path, trained: Path, judges: Judges) -> None:
    steer = f"classifier={judges.steers},label=3:4"
    words = ["evaluate", trained, "digits", *FEW, "--judge", judges.scores]
    ended = diffsteer(*words, "--steer", steer, "--versus", "smoothness", "--versus", "symmetry:0", "--out", "s")
    assert (ended.code, ended.err) == (0, "")
    grids = {"00.png", "01.png", "02.png", "03.png"}
    assert {path.name for path in (tmp_path / "s").iterdir() if "-" not in path.name} == {*grids, "copies.png", "scores.json", "scores.md"}
    values = json.loads((tmp_path / "s" / "scores.json").read_text())
    rows = values["rows"]
    assert [row["name"] for row in rows] == ["unsteered", steer, "smoothness", "symmetry:0"]
    assert all([each["label"] for each in row["accuracy"]["classes"]] == ["3"] for row in rows), "all are asked for what the steer asks"
    assert rows[1]["accuracy"]["value"] > rows[0]["accuracy"]["value"]
    assert rows[3]["frechet"] == rows[0]["frechet"] != rows[2]["frechet"], "the same seeds in every row"
    lines = [line for line in ended.out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4 and lines[0].count("|") == 12 and lines[3].startswith(f"| {steer} | {rows[1]['accuracy']['value']:.1%} ± ")
    assert "\n".join(lines) in (tmp_path / "s" / "scores.md").read_text()
    first, last = (pixels_of(tmp_path / "s" / f"0{number}.png") for number in (0, 1))
    assert min(first.shape[:2]) > 3 * 48 and not np.array_equal(first, last), "20 pictures, eight in a row, each pixel six wide"


def test_each_class_in_turn_is_each_that_the_steering_classifier_knows(
    diffsteer: Diffsteer, tmp_path: Path, trained: Path, judges: Judges
) -> None:
    digits = load_pictures("digits")
    assert isinstance(digits, MemoryPictures) and digits.labels is not None
    late = digits.labels >= 7
    save_judge(
        tmp_path / "late",
        train_judge(replace(digits, pixels=digits.pixels[late], labels=digits.labels[late] - 7, label_names=("7", "8", "9")), epochs=1),
    )
    words = ["evaluate", trained, "digits", *FEW, "--judge", judges.scores, "--steer", "classifier=late,label=each", "--json"]
    rows = diffsteer(*words).json()["rows"]
    assert [[(each["label"], each["count"]) for each in row["accuracy"]["classes"]] for row in rows] == 2 * [[("7", 7), ("8", 7), ("9", 6)]]


def test_each_row_may_hold_several_steers(diffsteer: Diffsteer, tmp_path: Path, trained: Path, judges: Judges) -> None:
    (tmp_path / "two.yaml").write_text("- symmetry: left-right\n- brightness: 0.4\n")
    words = ["evaluate", trained, "digits", *FEW, "--judge", judges.scores, "--json"]
    rows = diffsteer(*words, "--steer", "symmetry=left-right", "--steer", "brightness=0.4", "--versus", "two.yaml").json()["rows"]
    assert [row["name"] for row in rows] == ["unsteered", "symmetry=left-right + brightness=0.4", "two.yaml"]
    assert rows[1]["frechet"] == rows[2]["frechet"] != rows[0]["frechet"]
    assert rows[1]["accuracy"]["value"] == rows[2]["accuracy"]["value"], "no steer asks for a class: the model's labels count"


def test_a_search_finds_the_factor_before_it_scores(
    diffsteer: Diffsteer, trained: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "TRIED", 16)
    tried: list[int] = []

    def watched(model: Any, jobs: list[Job], how: How, **options: Any) -> Any:
        tried.append(jobs[0].seed)
        return draw(model, jobs, how, **options)

    monkeypatch.setattr(evaluating, "draw", watched)
    words = ["evaluate", trained, "digits", *FEW, "--judge", judges.scores, "--steer", f"classifier={judges.steers},label=3:0.05"]
    ended = diffsteer(*words, "--search")
    assert ended.code == 0
    found = diffsteer(*words, "--search", "--json").json()["rows"]
    assert found[0]["strength"] == 1 and found[1]["strength"] > 1, "a weak steer grows"
    assert f"x{found[1]['strength']:g}" in ended.out
    assert tried[0] == 0 and tried.count(0) == 4 and min(set(tried) - {0, evaluating.FIRST}) == 1_000_000, "others than those scored"
    strong = f"classifier={judges.steers},label=3:{0.05 * found[1]['strength']}"
    again = diffsteer(*words[:-1], strong, "--json").json()["rows"]
    assert again[1]["frechet"] == found[1]["frechet"] and again[1]["accuracy"] == found[1]["accuracy"]


# ---- evaluate: what it says on the way -------------------------------------------------------------------------------


def test_how_long_it_will_take_is_said_once_it_is_known(
    diffsteer: Diffsteer, trained: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", trained, "digits", "--steps", 1, "--judge", judges.scores]
    assert re.search(r"^drawing  unsteered: 12 more pictures, about \d+ s$", diffsteer(*words, "--count", 28, "--batch-size", 8).out, re.M)
    assert "drawing" not in diffsteer(*words, "--count", 20).out, "two batches: when the second is done there is nothing left to wait for"
    monkeypatch.setattr(evaluating, "TOLD_BY", 0.0)
    assert "drawing  unsteered: 12 more pictures" in diffsteer(*words, "--count", 20).out, "where eight take long, they tell it"
    rows = [
        line.split("about ")[0] for line in diffsteer(*words, "--count", 20, "--steer", "smoothness").out.splitlines() if "about" in line
    ]
    assert rows == ["drawing  unsteered: 12 more pictures, ", "drawing  smoothness: 12 more pictures, "]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "1.5 h"), (86400, "24.0 h")]
)
def test_a_time_is_said_roughly(seconds: float, words: str) -> None:
    assert progress.roughly(seconds) == words


def test_a_second_evaluation_reads_the_real_pictures_features(diffsteer: Diffsteer, trained: Path, judges: Judges, own_cache: Path) -> None:
    words = ["evaluate", trained, "digits", *FEW, "--judge", judges.scores]
    first = diffsteer(*words)
    (file,) = (own_cache / "diffsteer" / "features").iterdir()
    again = diffsteer(*words)
    assert "real     1,797 pictures of digits looked at" in first.out
    assert f"real     1,797 pictures of digits, their features read from {file}" in again.out
    scores = [
        [line for line in ended.out.splitlines() if line.startswith(("Frechet", "Precision", "Brightness"))] for ended in (first, again)
    ]
    assert len(scores[0]) == 3 and scores[0] == scores[1]
    assert "looked at" in diffsteer(*words[:-1], judges.steers).out, "another judge sees other features"


# ---- evaluate: whose features ----------------------------------------------------------------------------------------


def test_data_without_labels_needs_no_judge_where_another_network_looks(
    diffsteer: Diffsteer, tmp_path: Path, small_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flat").mkdir()
    for seed in range(30):
        noise = np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / "flat" / f"{seed}.png")
    model = small_model(conditioning="none")
    words = ["evaluate", model, "flat", *FEW, "--extractor", "weights.pth"]
    assert "There is no file weights.pth; --extractor is judge, or the file of Inception's weights" in diffsteer(*words).mistake()
    told = Extractor("inception", "a" * 64)
    means = FeatureExtractor(told, "cpu", lambda pictures: F.avg_pool2d(pictures.double(), 2).flatten(1))
    monkeypatch.setattr(evaluating, "inception_extractor", lambda weights, device: means)
    ended = diffsteer(*words)
    assert ended.code == 0 and "Features: inception, weights aaaaaaaa." in ended.out and "judge" not in ended.out
    (row,) = diffsteer(*words, "--json").json()["rows"]
    assert row["accuracy"] is None and row["basis"]["extractor"]["accuracy"] is None and row["frechet"]["value"] > 0
    assert "flat has no labels, and a judge learns classes" in diffsteer(*words, "--asked", "3").mistake()


# ---- evaluate: who judges --------------------------------------------------------------------------------------------


def test_a_judge_that_steers_may_not_judge(diffsteer: Diffsteer, tmp_path: Path, trained: Path, judges: Judges) -> None:
    (tmp_path / "link").symlink_to(judges.scores)
    steer = ["--steer", f"classifier={judges.scores},label=3"]
    for judge in (judges.scores, "link"):
        said = diffsteer("evaluate", trained, "digits", *FEW, *steer, "--judge", judge, "--out", "s").mistake()
        assert f"--judge {judge} steers, so it may not judge; leave --judge out and another is trained." in said
    versus = ["--versus", f"classifier={judges.scores},label=3"]
    assert "steers, so it may not judge" in diffsteer("evaluate", trained, "digits", *FEW, *versus, "--judge", judges.scores).mistake()
    assert sorted(tree(tmp_path)) == ["link"]


def test_without_a_judge_one_of_another_architecture_is_trained_and_kept(
    diffsteer: Diffsteer, tmp_path: Path, trained: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "train_judge", functools.partial(train_judge, epochs=1))
    words = ["evaluate", trained, "digits", *FEW, "--out", "s"]
    first = diffsteer(*words, "--steer", f"classifier={judges.scores},label=3")
    assert "training a judge on digits (patches)" in first.out
    assert is_judge(tmp_path / "s" / "judge") and load_judge(tmp_path / "s" / "judge").spec.architecture == "patches"
    again = diffsteer(*words, "--steer", f"classifier={judges.scores},label=3")
    assert again.code == 0 and "training a judge" not in again.out
    other = diffsteer(*words, "--steer", f"classifier={judges.steers},label=3")
    assert "training a judge on digits (plain)" in other.out and load_judge(tmp_path / "s" / "judge").spec.architecture == "plain"


# ---- evaluate: what cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--count", "1"], "--count should be at least 2; '1' was given."),
        (["--judge", "nowhere"], "nowhere is no judge: there is no such folder."),
        (["--asked", "eleven"], "no label 'eleven'"),
        (["--asked", "1-3"], "'1-3' names 3"),
        (["--steer", "colour=red"], "There is no loss 'colour' to steer by."),
        (["--versus", "brightness=2"], "brightness goes from 0 (black) to 1 (white); 2 was given."),
        (
            ["--steer", "classifier=STEERS,label=3", "--versus", "classifier=STEERS,label=each"],
            "The steers ask for 3, each of 0, 1, 2, 3, 4, 5, 6, 7; say by",
        ),
        (["--solver", "eulr"], "There is no solver 'eulr'"),
        (["--guidance-interval", "0.2-0.9"], "there is none: give --guidance-scale"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_evaluations_that_cannot_be(
    diffsteer: Diffsteer, tmp_path: Path, trained: Path, judges: Judges, flags: list[str], says: str
) -> None:
    given = [flag.replace("STEERS", str(judges.steers)) for flag in flags]
    usual = {"--count": "20", "--steps": "2", "--judge": str(judges.scores)}
    rest = [word for flag, value in usual.items() if flag not in given for word in (flag, value)]
    assert says in diffsteer("evaluate", trained, "digits", *rest, *given, "--out", "s").mistake()
    assert tree(tmp_path) == {}


def test_data_and_models_that_do_not_go_together(
    diffsteer: Diffsteer, tmp_path: Path, trained: Path, small_model: Any, judges: Judges
) -> None:
    colour = small_model(data="digits-color", conditioning="none")
    said = diffsteer("evaluate", colour, "digits", *FEW, "--judge", judges.scores).mistake()
    assert "digits is in grey, and the model draws in colour; give the data it was trained on." in said
    assert "There is no data 'nowhere' here" in diffsteer("evaluate", trained, "nowhere", *FEW, "--judge", judges.scores).mistake()
    assert "There is no model at nowhere" in diffsteer("evaluate", "nowhere", "digits", *FEW, "--judge", judges.scores).mistake()
    others = small_model(names=tuple("abcdefghij"))
    said = diffsteer("evaluate", others, "digits", *FEW, "--judge", judges.scores).mistake()
    assert "The model draws a, b, c, d, e, f, g, h, and digits has pictures of none of them" in said
    plain = small_model(conditioning="none")
    said = diffsteer("evaluate", plain, "digits", *FEW, "--judge", judges.scores, "--steer", "symmetry", "--search").mistake()
    assert "--search goes by what the judge reads, so say what the steers ask for: --asked LABEL." in said
