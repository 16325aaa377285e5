"""Scores in training from outside: which steps are looked at, that a look changes nothing, what is left behind, and what goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from commandline import TINY, Diffsteer, tree
from diffsteer import curves, judging, previews, run, scoring
from diffsteer.data.images import load_pictures
from diffsteer.data.pixels import to_pil
from diffsteer.diffusion.judge import Judge, load_judge, save_judge
from diffsteer.errors import Mistake
from diffsteer.evaluation.report import Scores
from diffsteer.recipebook import train_settings
from diffsteer.training.classifier import train_judge

SMALL: dict[str, Any] = {"data": "digits", "channels": (32, 32), "batch_size": 16, "figures": (), "preview_every": 100, "sample_steps": 2}
SECONDS = scoring.Scorer.seconds
LOOKS: dict[str, Any] = {"score_every": 2, "score_count": 10}


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a judge of the digits that has seen little."""
    folder = tmp_path_factory.mktemp("judges") / "digits"
    save_judge(folder, train_judge(load_pictures("digits"), epochs=1))
    return str(folder)


@pytest.fixture
def quick_judges(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Judges that are trained on the way see little too; what was asked of each."""
    asked: list[dict[str, Any]] = []

    def quick(data: Any, *, seconds: float | None = None, **options: Any) -> Judge:
        asked.append({"seconds": seconds, **options})
        return train_judge(data, epochs=1, **options)

    monkeypatch.setattr(judging, "train_judge", quick)
    return asked


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No loss curves, previews of one picture, and looks whose time is not measured: there are many runs here."""
    monkeypatch.setattr(curves, "write_loss_curve", lambda rows, path, ceiling: None)
    monkeypatch.setattr(previews, "LABELS", 1)
    monkeypatch.setattr(previews, "EACH", 1)
    monkeypatch.setattr(scoring.Scorer, "seconds", lambda self, network: 100.0)


def train(out: Path, say: Callable[[str], None] = lambda line: None, **given: Any) -> run.Result:
    return run.train(train_settings(None, {**SMALL, **given}), out, say=say)


def scores(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def timeless(out: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in scores(out)]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint."""
    newest = max((out / "checkpoints").iterdir())
    return {f"{file.stem}.{name}": value for file in newest.glob("*.safetensors") for name, value in load_file(file).items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


# ---- what a look is --------------------------------------------------------------------------------------------------


def test_a_look_says_what_evaluate_says_of_the_same_weights(diffsteer: Diffsteer, judge: str, tmp_path: Path) -> None:
    words = [*TINY, "--steps", 3, "--sample-steps", 3, "--guidance-scale", 2, "--judge", judge]
    trained = diffsteer("train", "digits", *words, "--score-every", 2, "--score-count", 25, "--out", "run")
    assert (trained.code, trained.err) == (0, "")
    assert [row["step"] for row in scores(tmp_path / "run")] == [2, 3]
    assert [row["seconds"] for row in scores(tmp_path / "run")] == sorted(row["seconds"] for row in scores(tmp_path / "run"))
    told = [line for line in trained.out.splitlines() if line.startswith("scores")]
    assert told[0] == "scores   25 pictures every 2 steps and at the end; about 2 min a look, 3 min in all"
    assert [line.split(":")[0] for line in told[1:]] == ["scores   step 2", "scores   step 3"]
    assert trained.out.index("real     1,797 pictures") < trained.out.index("plan ") < trained.out.index("scores   25 pictures")

    (row,) = diffsteer("evaluate", "run", "digits", "--count", 25, "--judge", judge, "--json").json()["rows"]
    last = scores(tmp_path / "run")[-1]["scores"]
    shares = [2, 3, 2, 3, 3, 3, 3, 2, 2, 2]  # of 25, where the classes have 174 to 183 pictures: 3 of the five with most
    for measure in ("accuracy", "frechet", "kid", "precision", "recall", "density", "coverage", "variety", "brightness"):
        assert last[measure] == row[measure], measure
    assert last["accuracy"]["count"] == 25 and [each["count"] for each in last["accuracy"]["classes"]] == shares
    assert f"Frechet distance {row['frechet']['value']:.3g} ± " in told[-1]

    shutil.copytree("run", "again")
    columns = diffsteer("compare", "run", "again", "--json").json()["columns"]
    assert list(columns)[1:4] == ["accuracy", "Frechet", "KID"]
    assert columns["Frechet"]["values"]["again"] == {"value": last["frechet"]["value"], "error": last["frechet"]["error"]}


@pytest.mark.parametrize(
    "given",
    [{"solver": "ddpm"}, {"ema": False, "dropout": 0.3}],
    ids=["a solver that draws noise", "weights that are in training, with dropout"],
)
def test_a_look_changes_no_bit_of_the_run(tmp_path: Path, judge: str, given: dict[str, Any]) -> None:
    train(tmp_path / "without", steps=4, **given)
    train(tmp_path / "with", steps=4, judge=judge, **LOOKS, **given)
    assert same(weights(tmp_path / "without"), weights(tmp_path / "with"))
    assert losses(tmp_path / "without") == losses(tmp_path / "with")
    assert not (tmp_path / "without" / "scores.jsonl").exists() and not (tmp_path / "without" / "scores").exists()


@pytest.mark.parametrize(("each", "drawn"), [(0.1, [8, 64]), (1.0, [8])])
def test_the_time_of_a_look_is_told_by_a_few_pictures(monkeypatch: pytest.MonkeyPatch, each: float, drawn: list[int]) -> None:
    clock, asked = [0.0], []

    def draws(self: scoring.Scorer, network: torch.nn.Module, count: int) -> torch.Tensor:
        asked.append(count)
        clock[0] += each * count
        return torch.zeros(count, 1, 8, 8)

    def scored(pictures: torch.Tensor) -> Any:
        assert len(pictures) == 200
        clock[0] += 3.0

    monkeypatch.setattr(scoring.Scorer, "_drawn", draws)
    monkeypatch.setattr(scoring.time, "perf_counter", lambda: clock[0])
    spec: Any = None
    assert SECONDS(scoring.Scorer(spec, (), 200, "cpu", scored, None), torch.nn.Identity()) == pytest.approx(200 * each + 3)
    assert asked == drawn


def test_trackers_get_the_values(tmp_path: Path, judge: str) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "run", steps=2, judge=judge, track="tensorboard", project="mine", **LOOKS)
    events = EventAccumulator(str(tmp_path / "run" / "trackers" / "mine"))
    events.Reload()
    for kind in ("accuracy", "frechet", "brightness"):
        told = [(event.step, event.value) for event in events.Scalars(f"scores/{kind}")]
        assert told == [(row["step"], pytest.approx(row["scores"][kind]["value"])) for row in scores(tmp_path / "run")]


# ---- going on --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As sudden as a kill: nothing in a run catches it."""


def killed_at(step: int) -> Callable[[str], None]:
    """Says nothing, and kills the run that tells the scores of this step, before its checkpoint."""

    def say(line: str) -> None:
        if line.startswith(f"scores   step {step}:"):
            raise Killed

    return say


SEVEN: dict[str, Any] = {"steps": 7, "checkpoint_every": 3, **LOOKS}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, judge: str) -> Path:
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    train(out, judge=judge, **SEVEN)
    return out


def test_a_killed_run_ends_with_the_scores_of_one_never_stopped(tmp_path: Path, straight: Path, judge: str) -> None:
    with pytest.raises(Killed):
        train(tmp_path / "run", killed_at(4), judge=judge, **SEVEN)
    assert [row["step"] for row in scores(tmp_path / "run")] == [2, 4], "the last checkpoint is of step 3"
    with (tmp_path / "run" / "scores.jsonl").open("a") as file:
        file.write('{"step": 6, "seco')
    train(tmp_path / "run", judge=judge, **SEVEN)
    assert [row["step"] for row in scores(tmp_path / "run")] == [2, 4, 6, 7]
    assert timeless(tmp_path / "run") == timeless(straight)
    assert same(weights(tmp_path / "run"), weights(straight))


def test_a_look_that_was_interrupted_is_made_when_the_run_goes_on(
    tmp_path: Path, straight: Path, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looked = scoring.Scorer.look, []

    def interrupted(self: scoring.Scorer, network: torch.nn.Module) -> Scores:
        looked.append(network)
        if len(looked) == 2:
            raise KeyboardInterrupt
        return look(self, network)

    monkeypatch.setattr(scoring.Scorer, "look", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", judge=judge, **SEVEN)
    assert [row["step"] for row in scores(tmp_path / "run")] == [2] and (tmp_path / "run" / "checkpoints" / "step-00000004").exists()
    train(tmp_path / "run", judge=judge, **SEVEN)
    assert timeless(tmp_path / "run") == timeless(straight)


def test_how_a_run_is_scored_may_change_when_it_goes_on(tmp_path: Path, quick_judges: list[dict[str, Any]], judge: str) -> None:
    train(tmp_path / "run", steps=3, judge=judge, **LOOKS)
    for steps in (5, 6):
        train(tmp_path / "run", steps=steps, score_every=4, score_count=8)
    found = [(row["step"], row["scores"]["count"]) for row in scores(tmp_path / "run")]
    assert found == [(2, 10), (3, 10), (4, 8), (5, 8), (6, 8)]
    assert len(quick_judges) == 1, "the third time the judge of the second is there"


# ---- who judges ------------------------------------------------------------------------------------------------------


def test_without_a_judge_one_is_trained_and_stays_with_the_run(
    diffsteer: Diffsteer, tmp_path: Path, quick_judges: list[dict[str, Any]]
) -> None:
    words = [*TINY, "--steps", 2, "--sample-steps", 2, "--score-every", 3, "--score-count", 10]
    trained = diffsteer("train", "digits", *words, "--out", "run")
    assert "judge    training a judge on digits (plain); --judge FOLDER takes one" in trained.out
    kept = load_judge(tmp_path / "run" / "scores" / "judge").spec
    assert kept.data_source == "digits" and quick_judges[0]["seconds"] is None
    evaluated = diffsteer("evaluate", "run", "digits", "--count", 10, "--out", "run/scores")
    assert evaluated.code == 0 and len(quick_judges) == 1
    rows = json.loads((tmp_path / "run" / "scores" / "scores.json").read_text())["rows"]
    assert rows[0]["frechet"] == scores(tmp_path / "run")[-1]["scores"]["frechet"]


def test_a_child_is_scored_by_the_labels_that_its_pictures_have(
    diffsteer: Diffsteer, tmp_path: Path, small_model: Any, quick_judges: list[dict[str, Any]]
) -> None:
    digits = load_pictures("digits")
    for index in range(200):
        batch = digits.at([index])
        if (label := int(batch.labels[0])) in (3, 7):  # type: ignore[index]
            (tmp_path / "two" / str(label)).mkdir(parents=True, exist_ok=True)
            to_pil(batch.pixels[0]).save(tmp_path / "two" / str(label) / f"{index}.png")
    words = ["--steps", 2, "--batch-size", 16, "--figures", "none", "--score-every", 2, "--score-count", 10]
    tuned = diffsteer("finetune", small_model(), "two", *words, "--out", "run")
    assert (tuned.code, tuned.err) == (0, "")
    left = "labels   8 of the model's have no pictures in two and are not scored: 0, 1, 2, 4, 5, 6, 8, 9"
    assert left in tuned.out.splitlines() and load_judge(tmp_path / "run" / "scores" / "judge").spec.label_names == ("3", "7")
    accuracy = scores(tmp_path / "run")[-1]["scores"]["accuracy"]
    assert [each["count"] for each in accuracy["classes"]] == [5, 5]
    evaluated = diffsteer("evaluate", "run", "two", "--count", 10, "--out", "run/scores")
    assert (evaluated.code, len(quick_judges)) == (0, 1)
    (row,) = json.loads((tmp_path / "run" / "scores" / "scores.json").read_text())["rows"]
    assert row["frechet"] == scores(tmp_path / "run")[-1]["scores"]["frechet"]
    (tmp_path / "two").rename(tmp_path / "letters")
    for label, letter in (("3", "c"), ("7", "g")):
        (tmp_path / "letters" / label).rename(tmp_path / "letters" / letter)
    assert "has pictures of none of them, but of c, g" in diffsteer("evaluate", "run", "letters", "--count", 10).mistake()


def test_a_budget_counts_looks_and_the_judge(tmp_path: Path, quick_judges: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring.Scorer, "seconds", lambda self, network: 2.0)
    said: list[str] = []
    train(tmp_path / "run", said.append, budget="20s", score_every=5, score_count=10)
    steps = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())["resolved"]["steps"]
    assert quick_judges[0]["seconds"] == 1.0
    assert steps == 10 or -(-steps // 5) * 2 < 20, "without looks there would be hundreds"
    (warned,) = [line for line in said if "of the budget" in line]
    assert warned.startswith(f"scores   {-(-steps // 5)} looks take {-(-steps // 5) * 10}% of the budget; --score-every ")


def grey_folder(place: Path) -> str:
    """Pictures without labels."""
    place.mkdir()
    for index in range(20):
        Image.effect_noise((8, 8), 20 + 10 * index).save(place / f"{index}.png")
    return str(place)


def test_data_without_labels_is_scored_by_a_given_judge_only(tmp_path: Path, judge: str) -> None:
    data = grey_folder(tmp_path / "flat")
    with pytest.raises(Mistake, match=r"none can be trained on .*flat, which has no labels; give --judge FOLDER"):
        train(tmp_path / "run", data=data, steps=2, score_every=1)
    train(tmp_path / "run", data=data, steps=2, score_every=2, score_count=10, judge=judge)
    (row,) = scores(tmp_path / "run")
    assert row["scores"]["accuracy"] is None and row["scores"]["frechet"]["value"] > 0


def test_what_cannot_be_scored_is_said_before_anything_is_done(diffsteer: Diffsteer, tmp_path: Path, judge: str) -> None:
    grey_folder(tmp_path / "flat")
    letters = load_judge(Path(judge))
    letters.spec = type(letters.spec)(**{**letters.spec.as_dict(), "label_names": tuple("abcdefghij")})
    save_judge(tmp_path / "letters", letters)
    before = tree(tmp_path)
    for dry in ([], ["--dry-run"]):
        words = [*TINY, "--steps", 2, "--score-every", 1, "--out", "run", *dry]
        assert "The judge knows grey pictures" in diffsteer("train", "digits-color", *words, "--judge", judge).mistake()
        assert "The judge does not know the model's class 3" in diffsteer("train", "digits", *words, "--judge", "letters").mistake()
        assert "nowhere is no judge" in diffsteer("train", "digits", *words, "--judge", "nowhere").mistake()
        assert "has no labels; give --judge" in diffsteer("train", "flat", *words).mistake()
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_one_of_two_processes_looks(tmp_path: Path, judge: str) -> None:
    flags = [*TINY, "--steps", "6", "--sample-steps", "2", "--score-every", "4", "--score-count", "12", "--judge", judge]
    command = [sys.executable, "-m", "diffsteer.cli", "train", "digits", *flags, "--processes", "2", "--out", str(tmp_path / "run")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [row["step"] for row in scores(tmp_path / "run")] == [4, 6] and ended.stdout.count("scores   step") == 2
