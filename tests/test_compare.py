"""Comparing runs from outside: what may share a column, what is called best, and what is said of the rest."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import yaml

from commandline import TINY, Diffsteer, Ended, pixels_of, tree
from diffsteer import comparing, curves
from diffsteer.cli import run
from diffsteer.data.images import load_pictures
from diffsteer.diffusion.judge import save_judge
from diffsteer.training.classifier import train_judge


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on other data than `trained`, with another learning rate and seed, and longer."""
    out = tmp_path_factory.mktemp("runs") / "colour"
    assert run(["train", "digits-color", *TINY, "--lr", "0.002", "--seed", "1", "--steps", "6", "--out", str(out)]) == 0
    return out


@pytest.fixture(autouse=True)
def unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they are."""
    monkeypatch.setattr(comparing, "WIDTH", 1000)


Copy = Callable[..., Path]


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Copy:
    """A copy of the run `trained` by another name, with some of its settings, of what was resolved, or of its losses changed."""

    def make(name: str, losses: Sequence[float] | None = None, resolved: dict[str, Any] | None = None, **settings: Any) -> Path:
        out = tmp_path / name
        shutil.copytree(trained, out, ignore=shutil.ignore_patterns("checkpoints", "previews", "figures"))
        values = yaml.safe_load((out / "settings.yaml").read_text())
        values["settings"].update(settings)
        values["resolved"].update(resolved or {})
        (out / "settings.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        if losses is not None:
            rows = [{"step": step, "loss": loss, "seconds": 0.5 * step} for step, loss in enumerate(losses, start=1)]
            (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return out

    return make


def measure(value: float, error: float, floor: float, basis: dict[str, Any], count: int) -> dict[str, Any]:
    return {"value": value, "error": error, "floor": floor, "floor_error": 0.01, "count": count, "basis": basis}


def scores(accuracy: float = 0.9, frechet: float = 3.0, error: float = 0.01, count: int = 200, **basis: Any) -> dict[str, Any]:
    """As `Scores.to_dict` has them. basis: what else they rest on, as judge_NAME or real_NAME."""
    judge = {"architecture": "plain", "weights": "3fa2b1c4d5", "seed": 1, "accuracy": 0.98, "held_out": 180, "data": "digits"}
    real = {"source": "digits", "split": "train", "count": 1797, "classes": [], "learnt": True, "fingerprint": "9c1e5d77", "size": [8, 8]}
    judge |= {key.removeprefix("judge_"): value for key, value in basis.items() if key.startswith("judge_")}
    real |= {key.removeprefix("real_"): value for key, value in basis.items() if key.startswith("real_")}
    whole = {"extractor": judge, "reference": real, "seed": 0}
    found = {"accuracy": measure(accuracy, error, 0.98, whole, count), "frechet": measure(frechet, 10 * error, 0.5, whole, count)}
    return {"count": count, **found, "variety": None, "label_names": ["0"], "basis": whole}


def score_in_training(out: Path, *each: dict[str, Any], end: str = "") -> None:
    """Plants scores.jsonl: the scores at steps 1, 2, ..., a minute apart."""
    lines = [json.dumps({"step": step, "seconds": 60.0 * step, "scores": found}) + "\n" for step, found in enumerate(each, start=1)]
    (out / "scores.jsonl").write_text("".join(lines) + end)


def score_after(out: Path, found: dict[str, Any], **how: Any) -> None:
    """Plants what `diffsteer evaluate --out OUT/scores` writes: the unsteered row first, and a steered one."""
    drawn = {"solver": "dpm++2m", "steps": 20, "guidance_scale": 1.0, **how}
    rows = [{"name": "unsteered", "seconds": 1.0, **found}, {"name": "symmetry", "seconds": 1.0, **scores(accuracy=0.123)}]
    (out / "scores").mkdir()
    (out / "scores" / "scores.json").write_text(json.dumps({"model": str(out), **drawn, "rows": rows}))


def compared(diffsteer: Diffsteer, *runs: Path) -> dict[str, Any]:
    """The one JSON object."""
    return diffsteer("compare", *runs, "--json").json()


def cells(ended: Ended) -> list[list[str]]:
    """The cells of the printed table, which ends at the first empty line."""
    assert (ended.code, ended.err) == (0, "")
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in ended.out.split("\n\n")[0].splitlines()]


# ---- the table -------------------------------------------------------------------------------------------------------


def test_two_runs_stand_in_a_table_with_the_settings_that_differ(diffsteer: Diffsteer, trained: Path, colour: Path) -> None:
    ended = diffsteer("compare", trained, colour)
    head, first, second = cells(ended)
    assert head == ["run", "data", "lr", "seed", "steps", "pictures seen", "minutes", "pictures/s", "loss (A)", "loss (B)"]
    assert first[1:6] == ["digits", "0.001", "0", "4", "128"] and second[1:6] == ["digits-color", "0.002", "1", "6", "192"]
    names = [first[0], second[0]]
    assert [name.split("/")[-1] for name in names] == ["digits", "colour"]
    assert f"Lengths differ: {names[0]} has seen 128 pictures, {names[1]} 192." in ended.out
    assert ended.last == f"next: diffsteer evaluate {trained} digits --out {trained}/scores"

    values = compared(diffsteer, trained, colour)
    rows = [json.loads(line) for line in (colour / "metrics.jsonl").read_text().splitlines()]
    told = values["runs"][1]
    assert told["settings"] == {"data": "digits-color", "lr": 0.002, "seed": 1} and told["path"] == str(colour)
    assert told["training"]["pictures_per_second"] == pytest.approx(192 / rows[-1]["seconds"])
    assert told["training"]["minutes"] == pytest.approx(rows[-1]["seconds"] / 60)
    assert values["columns"]["loss (B)"]["values"][names[1]]["value"] == pytest.approx(mean(row["loss"] for row in rows))


def test_pictures_of_a_run_whose_epochs_end_short(diffsteer: Diffsteer, copy: Copy) -> None:
    short = {"last_batch": "short", "accumulate": 2, "batch_size": 30}
    runs = copy("a", losses=[1.0] * 7, resolved={"pictures": 100}, **short), copy("b", losses=[1.0] * 7, resolved={"pictures": 100})
    told = [each["training"]["pictures"] for each in compared(diffsteer, *runs)["runs"]]
    assert told == [3 * 100 + 60, 7 * 32], "two steps an epoch of 100, 60 and 40 pictures"


def test_the_loss_is_the_mean_of_the_last_hundred_with_its_error(diffsteer: Diffsteer, copy: Copy) -> None:
    draw = np.random.default_rng(0)
    first, second = draw.normal(0.5, 0.02, 150), draw.normal(0.45, 0.02, 150)
    found = compared(diffsteer, copy("a", first.tolist()), copy("b", second.tolist()))["columns"]["loss"]
    for name, losses in (("a", first), ("b", second)):
        assert found["values"][name] == pytest.approx({"value": mean(losses[-100:]), "error": stdev(losses[-100:]) / 10})
    assert found["best"] == "b" and found["within_the_error"] == []


@pytest.mark.parametrize(("apart", "best"), [(1.9, None), (2.1, "a")])
def test_best_is_what_is_better_by_two_errors_of_the_difference(diffsteer: Diffsteer, copy: Copy, apart: float, best: str | None) -> None:
    losses = [0.4, 0.6] * 50
    error = stdev(losses) / 10
    runs = (
        copy("a", losses),
        copy("b", [loss + apart * math.sqrt(2) * error for loss in losses]),
        copy("far", [9 * loss for loss in losses]),
    )
    found = compared(diffsteer, *runs)["columns"]["loss"]
    assert found["best"] == best and found["within_the_error"] == ([] if best else ["a", "b"])
    ended = diffsteer("compare", *runs)
    assert ("* 0.500 ± 0.010" in ended.out) == (best is not None)
    assert ("loss: no difference beyond the error between the runs marked ≈." in ended.out) == (best is None)
    assert [row[-1][0] for row in cells(ended)[1:]] == (["*", "0", "4"] if best else ["≈", "≈", "4"])
    assert ("is marked *." in ended.out) == (best is not None)


def test_two_equal_runs_show_no_difference(diffsteer: Diffsteer, copy: Copy) -> None:
    runs = copy("a"), copy("b")
    for each in runs:
        score_in_training(each, scores())
    ended = diffsteer("compare", *runs)
    head, first, second, _ = cells(ended)
    assert head[1] == "steps" and first[1:] == second[1:], "no setting differs, and no number"
    assert "loss, accuracy and Frechet: no difference beyond the error between the runs marked ≈." in ended.out
    assert [cell[0] for cell in first[-3:]] == ["≈"] * 3
    assert "*" not in ended.out and "Lengths differ" not in ended.out


def test_many_settings_that_differ_have_a_table_of_their_own(diffsteer: Diffsteer, copy: Copy, tmp_path: Path) -> None:
    other = {"lr": 0.1, "seed": 3, "optimizer": "adam", "warmup": 7, "decay": "none", "clip": None, "channels": [64, 128]}
    copy("a"), copy("b", **other)
    ended = diffsteer("compare", "a", "b", "--out", "c")
    assert [line[0] for line in cells(ended)] == ["setting", "channels", "lr", "optimizer", "warmup", "decay", "clip", "seed"]
    assert ["channels", "32,32", "64,128"] in cells(ended) and ["clip", "1.0", "none"] in cells(ended)
    assert "run  steps" in ended.out
    assert "| optimizer | muon | adam |" in (tmp_path / "c" / "compare.md").read_text()


def test_a_wide_table_is_folded(diffsteer: Diffsteer, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = copy("a"), copy("b", lr=0.5)
    whole = diffsteer("compare", *runs).out.split("\n\n")
    monkeypatch.setattr(comparing, "WIDTH", 30)
    *folds, notes = diffsteer("compare", *runs).out.split("\n\n")
    assert notes == whole[1] and len(folds) > 1
    lines = [line.split() for line in whole[0].splitlines()]
    for place, line in enumerate(lines):
        folded = [fold.splitlines()[place] for fold in folds]
        assert all(len(each) <= 30 for each in folded)
        assert [word for each in folded for word in each.split()[1:]] == line[1:], "every cell once"
        assert {each.split()[0] for each in folded} == {line[0]}, "each fold begins with the run"


def test_length_and_what_touches_no_number_are_no_settings_that_differ(diffsteer: Diffsteer, copy: Copy) -> None:
    other = {"steps": None, "budget": 60.0, "preview_every": 7, "track": ["wandb"], "prediction": "flow", "conditioning": "add"}
    assert compared(diffsteer, copy("a"), copy("b", **other))["runs"][1]["settings"] == {}


# ---- losses that cannot be compared ----------------------------------------------------------------------------------


def test_runs_on_other_data_have_a_column_of_their_own(diffsteer: Diffsteer, trained: Path, copy: Copy, colour: Path) -> None:
    runs = trained, colour, copy("again")
    values = compared(diffsteer, *runs)
    first, other, second = (each["run"] for each in values["runs"])
    assert {title: set(column["values"]) for title, column in values["columns"].items()} == {
        "loss (A)": {first, second},
        "loss (B)": {other},
    }
    ended = diffsteer("compare", *runs)
    assert [row[-2:].count("–") for row in cells(ended)[1:]] == [1, 1, 1], "one number a run"
    prints = [yaml.safe_load((each / "settings.yaml").read_text())["resolved"]["data_fingerprint"][:6] for each in (colour, trained)]
    said = f"data digits-color (fingerprint {prints[0]}) instead of digits (fingerprint {prints[1]})."
    assert f"loss (B) cannot be compared with (A): {said}" in ended.out


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"flip": True}, "mirrored pictures half instead of none"),
        ({"process": "cosine", "prediction": "flow", "times": "logit-normal"}, "process cosine instead of flow"),
        ({"noise": "uniform"}, "noise uniform instead of gaussian"),
        ({"prediction": "v"}, "prediction v instead of flow"),
        ({"times": "uniform"}, "training times uniform instead of logit-normal"),
        ({"time_shift": 3.0}, "training times logit-normal, moved by 3 instead of logit-normal"),
        ({"dropout": 0.1}, "dropout in the network 0.1 instead of 0.0"),
        ({"conditioning": "none"}, "labels not told instead of told (10% left out)"),
        ({"label_dropout": 0.0}, "labels told instead of told (10% left out)"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_what_enters_the_loss_sets_losses_apart(diffsteer: Diffsteer, copy: Copy, setting: dict[str, Any], says: str) -> None:
    values = compared(diffsteer, copy("a"), copy("b", **setting))
    assert f"loss (B) cannot be compared with (A): {says}." in values["notes"]
    assert set(values["columns"]) == {"loss (A)", "loss (B)"} and values["columns"]["loss (A)"]["best"] is None


def test_weighting_and_pixel_range_set_losses_apart(diffsteer: Diffsteer, copy: Copy) -> None:
    x0 = {"prediction": "x0", "velocity_loss": False}
    runs = copy("a", **x0), copy("b", min_snr=5.0, **x0), copy("c", pixel_range="unit", **x0)
    notes = compared(diffsteer, *runs)["notes"]
    assert "loss (B) cannot be compared with (A): min-SNR weighting gamma 5 instead of none." in notes
    assert "loss (C) cannot be compared with (A): pixel range unit instead of signed." in notes


@pytest.mark.parametrize(
    "setting",
    [
        {"lr": 0.1},
        {"seed": 9},
        {"batch_size": 16},
        {"even_times": True},
        {"conditioning": "concat"},
        {"data": "./elsewhere"},
        {"network": "conditional-unet"},
    ],
    ids="+".join,
)
def test_what_does_not_enter_the_loss_leaves_them_together(diffsteer: Diffsteer, copy: Copy, setting: dict[str, Any]) -> None:
    values = compared(diffsteer, copy("a"), copy("b", **setting))
    assert list(values["columns"]) == ["loss"] and set(setting) <= set(values["runs"][1]["settings"])


def test_no_labels_left_out_are_not_told_apart_where_none_are_told(diffsteer: Diffsteer, copy: Copy) -> None:
    runs = copy("a", conditioning="none"), copy("b", conditioning="none", label_dropout=0.5)
    assert list(compared(diffsteer, *runs)["columns"]) == ["loss"]


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_the_last_scores_of_a_training_are_told_with_what_real_pictures_score(diffsteer: Diffsteer, copy: Copy) -> None:
    a, b = copy("a", losses=[1.0, 0.9, 0.8]), copy("b", losses=[1.0, 0.9, 0.8])
    score_in_training(a, scores(0.5, 9.0), scores(0.91, 4.0))
    score_in_training(b, scores(0.6, 8.0), scores(0.7, 7.0), scores(0.81, 3.0), end='{"step": 4, "seco')
    ended = diffsteer("compare", a, b)
    head, *rows = cells(ended)
    assert head[-3:] == ["loss", "accuracy", "Frechet"]
    assert [row[-2:] for row in rows] == [
        ["* 91.0% ± 1.0%", "4.00 ± 0.10"],
        ["81.0% ± 1.0%", "* 3.00 ± 0.10"],
        ["98.0% ± 1.0%", "0.50 ± 0.01"],
    ]
    assert rows[-1][0] == "real pictures"
    assert "a was last scored in training at step 2 of the 3 done." in ended.out and "b was last scored" not in ended.out
    assert ended.last == f"next: diffsteer sample {b} --out b.png", "the one with the better Frechet distance"


def test_every_measure_has_a_column_and_variety_is_best_at_one(diffsteer: Diffsteer, copy: Copy) -> None:
    runs = copy("a"), copy("b")
    for out, variety, speckle in zip(runs, (1.5, 0.9), (0.2, 0.6), strict=True):
        found = scores()
        more = {"speckle": measure(speckle, 0.01, 0.9, found["basis"], 200), "variety": measure(variety, 0.01, 1.0, found["basis"], 200)}
        score_in_training(out, {**found, **more})
    columns = compared(diffsteer, *runs)["columns"]
    assert list(columns) == ["loss", "accuracy", "Frechet", "variety", "speckle"]
    assert columns["variety"]["best"] == "b" and columns["speckle"]["best"] is None
    assert columns["speckle"]["floor"] == {"value": 0.9, "error": 0.01}


def test_each_measure_is_set_apart_by_what_it_rests_on_itself(diffsteer: Diffsteer, copy: Copy) -> None:
    runs = copy("a"), copy("b")
    for out, judge in zip(runs, ("0123", "4567"), strict=True):
        inception = {"architecture": "inception", "weights": "89ab", "seed": None, "accuracy": None, "held_out": 0, "data": ""}
        found = scores(judge_weights=judge)
        basis = {**found["basis"], "extractor": inception}
        light = measure(0.1, 0.01, 0.0, {**found["basis"], "extractor": None}, 200)
        score_in_training(out, {**found, "frechet": measure(3.0, 0.1, 0.5, basis, 200), "brightness": light, "basis": basis})
    columns = compared(diffsteer, *runs)["columns"]
    assert list(columns) == ["loss", "accuracy (A)", "accuracy (B)", "Frechet", "brightness"]
    assert columns["Frechet"]["rests_on"]["seen by"] == "inception, weights 89ab"
    assert columns["brightness"]["rests_on"]["seen by"] == "no network"


def test_real_evaluations_of_two_runs_share_columns(diffsteer: Diffsteer, copy: Copy, tmp_path: Path) -> None:
    save_judge(tmp_path / "judge", train_judge(load_pictures("digits"), epochs=1))
    a, b = copy("a"), copy("b")
    ended = diffsteer("compare", "a", "b")
    assert ended.last == "next: diffsteer evaluate a digits --out a/scores"
    evaluate = [*ended.last.split()[2:], "--judge", "judge", "--count", "20", "--steps", "3"]
    assert diffsteer(*evaluate).code == 0
    ended = diffsteer("compare", "a", "b")
    assert cells(ended)[2][-1] == "–" and ended.last == "next: diffsteer evaluate b digits --count 20 --out b/scores"
    assert diffsteer(*ended.last.split()[2:], "--judge", "judge", "--steps", "3").code == 0
    values = compared(diffsteer, a, b)
    row = json.loads((a / "scores" / "scores.json").read_text())["rows"][0]
    for title, key in (("accuracy", "accuracy"), ("Frechet", "frechet"), ("variety", "variety")):
        told = values["columns"][title]
        assert set(told["values"]) == {"a", "b"}
        assert told["values"]["a"] == {"value": row[key]["value"], "error": row[key]["error"]}
        assert told["floor"]["value"] == row[key]["floor"]


SEEN = ", seed 1, right on 98.00% of 180 of digits, weights 3fa2b1c4"
REAL = "1,797 of digits, split train, 8x8, fingerprint 9c1e5d, which the judge learnt from"


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"judge_architecture": "patches"}, f"seen by patches{SEEN} instead of plain{SEEN}"),
        ({"judge_accuracy": 0.97}, f"seen by plain{SEEN.replace('98', '97')} instead of plain{SEEN}"),
        ({"judge_seed": 2}, f"seen by plain{SEEN.replace('seed 1', 'seed 2')} instead of plain{SEEN}"),
        ({"judge_data": "mnist"}, f"seen by plain{SEEN.replace('digits', 'mnist')} instead of plain{SEEN}"),
        ({"judge_weights": "0123456789"}, f"seen by plain{SEEN.replace('3fa2b1c4', '01234567')} instead of plain{SEEN}"),
        ({"real_count": 1000}, f"real pictures {REAL.replace('1,797', '1,000')} instead of {REAL}"),
        ({"real_source": "mnist"}, f"real pictures {REAL.replace('digits', 'mnist')} instead of {REAL}"),
        ({"real_split": "test"}, f"real pictures {REAL.replace('train', 'test')} instead of {REAL}"),
        ({"real_classes": ["3", "7"]}, f"real pictures {REAL.replace(', which', ', of 3, 7 only, which')} instead of {REAL}"),
        ({"real_learnt": False}, f"real pictures {REAL.removesuffix(', which the judge learnt from')} instead of {REAL}"),
        ({"real_fingerprint": "0123456789"}, f"real pictures {REAL.replace('9c1e5d', '012345')} instead of {REAL}"),
        ({"real_size": [16, 16]}, f"real pictures {REAL.replace('8x8', '16x16')} instead of {REAL}"),
        ({"count": 1000}, "number of drawn pictures 1,000 instead of 200"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_scores_that_rest_on_something_else_have_columns_of_their_own(
    diffsteer: Diffsteer, copy: Copy, other: dict[str, Any], says: str
) -> None:
    a, b = copy("a"), copy("b")
    score_in_training(a, scores(0.5))
    score_in_training(b, scores(0.9, **other))
    values = compared(diffsteer, a, b)
    assert f"accuracy (B) and Frechet (B) cannot be compared with (A): {says}." in values["notes"]
    assert list(values["columns"]) == ["loss", "accuracy (A)", "accuracy (B)", "Frechet (A)", "Frechet (B)"]
    assert list(values["columns"]["accuracy (A)"]["values"]) == ["a"] and list(values["columns"]["accuracy (B)"]["values"]) == ["b"]
    assert not any(column["best"] for column in values["columns"].values())


def test_an_evaluation_finds_its_like_although_scores_were_made_in_training(diffsteer: Diffsteer, copy: Copy, tmp_path: Path) -> None:
    a, b = copy("a"), copy("b")
    score_in_training(a, scores(0.5))
    score_after(a, scores(0.6, count=1000))
    (a / "scores" / "judge").mkdir()
    asked = f"next: diffsteer evaluate {b} digits --count 1000 --judge {a}/scores/judge --out {b}/scores"
    assert diffsteer("compare", a, b).last == asked
    score_after(b, scores(0.7, count=1000))
    columns = compared(diffsteer, a, b)["columns"]
    assert list(columns["accuracy (A)"]["values"]) == ["a", "b"] and list(columns["accuracy (B)"]["values"]) == ["a"]
    assert columns["accuracy (A)"]["best"] == "b", "and not the steered row"


def test_of_two_scorings_alike_the_later_is_told_and_one_of_earlier_steps_is_noted(diffsteer: Diffsteer, copy: Copy) -> None:
    a, b, c = (copy(name, losses=[1.0] * 4) for name in "abc")
    for out, step, accuracy in ((a, 4, 0.6), (b, 1, 0.6), (c, None, 0.6)):
        score_in_training(out, scores(0.1), scores(0.5))  # at steps 1 and 2
        score_after(out, scores(accuracy), step=step)
    values = compared(diffsteer, a, b, c)
    told = {name: number["value"] for name, number in values["columns"]["accuracy"]["values"].items()}
    assert told == {"a": 0.6, "b": 0.5, "c": 0.6}, "an evaluation from before steps were written down counts as the last"
    notes = "\n".join(values["notes"])
    assert "b was last evaluated at step 1 of the 4 done." in notes and "a was last evaluated" not in notes and "c was last ev" not in notes


def test_the_setting_precision_stands_beside_the_measure_of_that_name(diffsteer: Diffsteer, copy: Copy) -> None:
    for name, kind in (("a", "fp32"), ("b", "bf16")):
        found = scores()
        score_in_training(copy(name, precision=kind), {**found, "precision": measure(0.8, 0.01, 0.9, found["basis"], 200)})
    table = cells(diffsteer("compare", "a", "b"))
    settings, shares = (table[0].index(title) for title in ("--precision", "precision"))
    assert [row[settings] for row in table[1:3]] == ["fp32", "bf16"] and all(
        "80.0%" in row[shares] or "0.8" in row[shares] for row in table[1:3]
    )


def test_varieties_of_classes_asked_for_and_of_classes_found_stand_apart(diffsteer: Diffsteer, copy: Copy) -> None:
    for name, accuracy in (("a", True), ("b", False)):
        found = scores()
        found |= {"variety": measure(1.0, 0.01, 1.0, found["basis"], 200)} | ({} if accuracy else {"accuracy": None})
        score_in_training(copy(name), found)
    ended = diffsteer("compare", "a", "b")
    assert "variety (B) cannot be compared with (A): classes as the judge finds them instead of as asked for." in ended.out


def test_data_read_in_another_way_is_read_so_by_the_command_that_scores_it(diffsteer: Diffsteer, copy: Copy) -> None:
    copy("a", label_column="fine", skip_broken=True), copy("b")
    assert diffsteer("compare", "a", "b").last == "next: diffsteer evaluate a digits --label-column fine --skip-broken --out a/scores"


def test_pictures_drawn_otherwise_are_told_of(diffsteer: Diffsteer, copy: Copy) -> None:
    a, b = copy("a"), copy("b")
    score_after(a, scores())
    score_after(b, scores(), solver="ddim", steps=50)
    said = "b drew its pictures otherwise than a: solver ddim instead of dpm++2m, steps 50 instead of 20."
    assert diffsteer("compare", a, b).out.count(said) == 1


# ---- unfinished, broken and other folders ----------------------------------------------------------------------------


def test_a_run_that_was_killed_is_told_of(diffsteer: Diffsteer, copy: Copy) -> None:
    a, b, c = copy("a"), copy("b", resolved={"finished": False}), copy("c", resolved={"finished": False})
    kept = (b / "metrics.jsonl").read_text().splitlines(keepends=True)
    (b / "metrics.jsonl").write_text("".join(kept[:2]) + kept[2][:30])
    (c / "metrics.jsonl").unlink()
    (c / "scores.jsonl").write_text('{"step": 1, "seco')
    ended = diffsteer("compare", a, b, c, "--out", "out")
    assert [row[1:4] for row in cells(ended)[2:]] == [["2 of 4", "64", cells(ended)[2][3]], ["–", "–", "–"]]
    assert "b is not finished: 2 of 4 steps are done." in ended.out and "c is not finished: 0 of 4 steps are done." in ended.out
    assert compared(diffsteer, a, b, c)["runs"][2]["training"]["pictures_per_second"] is None


def test_one_step_has_no_error_and_nothing_is_best(diffsteer: Diffsteer, copy: Copy) -> None:
    found = compared(diffsteer, copy("a", losses=[0.5]), copy("b", losses=[0.1]))["columns"]["loss"]
    assert found["values"] == {"a": {"value": 0.5, "error": None}, "b": {"value": 0.1, "error": None}} and found["best"] is None


def test_a_model_folder_has_its_scores_only(diffsteer: Diffsteer, copy: Copy, small_model: Any, tmp_path: Path) -> None:
    a = copy("a")
    shutil.copytree(small_model(), tmp_path / "model")
    score_after(a, scores(0.5))
    score_after(tmp_path / "model", scores(0.9))
    ended = diffsteer("compare", a, "model", "--out", "out")
    assert cells(ended)[2][:6] == ["model", "–", "–", "–", "–", "–"] and cells(ended)[2][6] == "* 90.0% ± 1.0%"
    assert sorted(tree(tmp_path / "out")) == ["compare.json", "compare.md", "compare.png"]

    shutil.copytree(tmp_path / "model", tmp_path / "other")
    ended = diffsteer("compare", "model", "other", "--out", "without")
    assert cells(ended)[0] == ["run", "steps", "pictures seen", "minutes", "pictures/s", "accuracy", "Frechet"]
    assert sorted(tree(tmp_path / "without")) == ["compare.json", "compare.md"], "there is nothing to draw over time"
    assert "compare.png" not in ended.out and "compare.png" not in (tmp_path / "without" / "compare.md").read_text()


def test_what_cannot_be_compared(diffsteer: Diffsteer, copy: Copy, small_model: Any, tmp_path: Path) -> None:
    copy("a"), copy("b")
    shutil.copytree(small_model(), tmp_path / "model")
    for name, file, text in (
        ("stranger", "settings.yaml", "colour: red\n"),
        ("older", "settings.yaml", "settings: {data: digits}\nresolved: {steps: 3}\n"),
        ("empty", "notes.txt", "no run"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    before = tree(tmp_path)
    assert "two runs or more, and none was given" in diffsteer("compare").mistake()
    assert "two runs or more, and a alone was given" in diffsteer("compare", "a").mistake()
    assert "a/../a is given twice" in diffsteer("compare", "a", "b", "a/../a").mistake()
    assert "There is no folder nowhere" in diffsteer("compare", "a", "nowhere").mistake()
    assert "empty is neither a run nor a model" in diffsteer("compare", "a", "empty").mistake()
    assert "model is a model without scores; diffsteer evaluate model DATA" in diffsteer("compare", "a", "model").mistake()
    assert "stranger/settings.yaml is not of a diffsteer run" in diffsteer("compare", "a", "stranger").mistake()
    assert "older/settings.yaml is not of a diffsteer run" in diffsteer("compare", "a", "older").mistake()
    assert "--out c.png should be a folder" in diffsteer("compare", "a", "b", "--out", "c.png").mistake()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}', '{"rows": [{"count": 3}]}', '{"model": "x", "ro'])
def test_scores_of_something_else_are_a_mistake(diffsteer: Diffsteer, copy: Copy, text: str) -> None:
    copy("a"), copy("b")
    Path("b/scores").mkdir()
    Path("b/scores/scores.json").write_text(text)
    assert "b/scores/scores.json does not hold scores" in diffsteer("compare", "a", "b").mistake()
    shutil.rmtree("b/scores")
    Path("b/scores.jsonl").write_text('{"step": 3}\n')
    assert "b/scores.jsonl does not hold scores" in diffsteer("compare", "a", "b").mistake()


# ---- what is written -------------------------------------------------------------------------------------------------


def test_table_values_and_figure_are_written(diffsteer: Diffsteer, copy: Copy, tmp_path: Path) -> None:
    copy("a"), copy("b", lr=0.5)
    ended = diffsteer("compare", "a", "b", "--out", "out")
    assert sorted(tree(tmp_path / "out")) == ["compare.json", "compare.md", "compare.png"]
    assert "written  out/compare.md, compare.json and compare.png" in ended.out
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == diffsteer("compare", "a", "b", "--json").json()
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "| b | 0.5 | 4 | 128 |" in text and "![" in text
    assert all(line in text for line in ended.out.split("\n\n")[1].splitlines()[:-2]), "every note"


def test_the_figure_shows_scores_over_minutes_and_losses_of_the_others(copy: Copy) -> None:
    runs = copy("a"), copy("b"), copy("c", losses=[2.0, 1.0])
    score_in_training(runs[0], scores(0.5, 9.0), scores(0.9, 3.0, error=0.02))
    score_in_training(runs[1], scores(0.4, 8.0, count=1000))
    panels = comparing.compare(runs).panels()
    assert [panel.title for panel in panels] == ["accuracy (A)", "accuracy (B)", "Frechet (A)", "Frechet (B)", "loss"]
    assert panels[0].lines == {"a": [(1.0, 0.5, 0.01), (2.0, 0.9, 0.02)], "b": [], "c": []} and panels[0].floor == 0.98
    assert panels[1].apart == ["number of drawn pictures"] and panels[3].lines["b"] == [(1.0, 8.0, pytest.approx(0.1))]
    assert panels[4].lines["c"] == [(0.5 / 60, 2.0, 0.0), (1 / 60, 1.0, 0.0)], "c has no scores, so there are losses"
    score_in_training(runs[2], scores())
    assert not any(panel.title == "loss" for panel in comparing.compare(runs).panels())


def test_a_run_keeps_its_colour_in_every_panel(tmp_path: Path) -> None:
    points = [curves.Point(minute, 3.0 + minute, 0.1) for minute in range(5)]
    panels = [curves.Panel("both", {"a": points, "b": points[:3]}), curves.Panel("one", {"b": points})]
    curves.write_comparison(panels, {"a": "a", "b": "b"}, tmp_path / "c.png")
    pixels = pixels_of(tmp_path / "c.png")[..., :3]
    right = pixels[:, pixels.shape[1] // 2 + 20 :]

    def has(part: np.ndarray, colour: tuple[int, int, int]) -> bool:
        return bool((part == np.array(colour)).all(-1).any())

    blue, orange = (31, 119, 180), (255, 127, 14)
    assert has(pixels, blue) and has(right, orange) and not has(right, blue)
