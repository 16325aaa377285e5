"""`diffsteer plan` on real pictures: what it proposes can be run, and what it says is what was measured. No time is looked at."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from commandline import Diffsteer
from diffsteer import cli, planning
from diffsteer.config import TrainSettings
from diffsteer.data.images import load_pictures
from diffsteer.recipebook import train_settings
from diffsteer.training.choice import Way

# So long a budget that even a machine with much else to do proposes something.
BUDGET = ["--budget", "3h"]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way is measured for a moment only."""
    monkeypatch.setattr(planning, "LONG_ENOUGH", 0.01)


def parsed(command: str, monkeypatch: pytest.MonkeyPatch) -> TrainSettings:
    """The settings that a `diffsteer train` command would run with."""
    from diffsteer import commands

    seen: list[TrainSettings] = []
    monkeypatch.setattr(commands, "_dry_run", lambda settings, *_: seen.append(settings))
    assert cli.run([*shlex.split(command)[1:], "--dry-run"]) == 0
    return seen[0]


def test_a_plan_for_the_digits_says_what_it_measured_proposes_and_expects(diffsteer: Diffsteer, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = diffsteer("plan", "digits", "--device", "cpu", *BUDGET).out.splitlines()
    assert lines[0] == "data     digits: 1,797 pictures, 8x8, 1 channel(s), 10 labels"
    kinds = [line.split()[0] for line in lines]
    assert kinds == sorted(kinds, key=["data", "machine", "measured", "proposal", "forecast", "next:"].index)
    assert kinds.count("measured") >= 3 and kinds.count("forecast") == 2
    text = "\n".join(lines)
    for word in ("pictures a second", "network", "bf16", "batch", "mirrored", "compiled", "epochs", "GiB", "start to exit"):
        assert word in text, word
    assert lines[-1].startswith("next: diffsteer train digits ") and lines[-1].endswith("--budget 3h --out runs/digits")
    assert parsed(lines[-1].removeprefix("next: "), monkeypatch).budget == 3 * 3600


def test_the_proposed_command_is_the_proposed_settings(diffsteer: Diffsteer, monkeypatch: pytest.MonkeyPatch) -> None:
    said = diffsteer("plan", "digits-color", "--json", "--device", "cpu", "--precision", "fp32", "--background", "#123456", *BUDGET).json()
    settings = TrainSettings(**said["settings"])
    assert parsed(said["command"], monkeypatch) == settings
    assert (settings.background, settings.device, settings.precision, settings.flip) == ("#123456", "cpu", "fp32", False)
    assert {trial["way"]["precision"] for trial in said["measured"]} == {"fp32"}
    ahead = said["forecast"]
    assert ahead["pictures"] == ahead["steps"] * settings.batch_size
    assert ahead["seconds"] == pytest.approx(sum(ahead["parts"].values()))
    chosen = said["measured"][-1]
    assert (chosen["way"]["batch"], chosen["way"]["layers"]) == (settings.batch_size, settings.layers)
    assert chosen["parameters"] > 100_000 and chosen["memory"] > 16 * chosen["parameters"]


def test_the_folder_that_is_proposed_is_free(diffsteer: Diffsteer, tmp_path: Path) -> None:
    assert planning._free_folder("digits") == "runs/digits"
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    assert planning._free_folder("digits") == "runs/digits-2"
    assert planning._free_folder("someone/some data.parquet") == "runs/some-data"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["digits", "--budget", "1s"], "A budget of 1s is too small"),
        (["digits", "--budget", "soon"], "is no duration; write 90s, 20m or 2h"),
        (["digits", "--budget", "0s"], "--budget should be greater than 0"),
        (["digits", "--precision", "fp16", "--device", "cpu"], "fp16 needs a GPU"),
        (["nowhere"], "nowhere"),
        (["digits", "--size", "4"], "at least 8 pixels a side"),
    ],
)
def test_mistakes_are_said_in_a_sentence(diffsteer: Diffsteer, words: list[str], says: str) -> None:
    assert says in diffsteer("plan", *words).mistake()


# ---- what it goes by -------------------------------------------------------------------------------------------------


def test_mirrored_pictures_are_compared_with_their_class() -> None:
    """Digits change when mirrored. Pictures that are their own mirror images, or stand beside them, do not."""
    digits = load_pictures("digits")
    assert planning._mirrored(digits) > 1.5
    pixels, labels = digits.pixels[:200].float(), digits.labels
    assert labels is not None
    symmetric = ((pixels + pixels.flip(-1)) / 2).to(torch.uint8)
    assert planning._mirrored(replace(digits, pixels=symmetric, labels=labels[:200])) == pytest.approx(1.0)
    # Two classes, each the mirror image of the other: only those of its own class tell that a mirrored picture is wrong.
    both = torch.cat([pixels, pixels.flip(-1)]).to(torch.uint8)
    classes = torch.arange(2).repeat_interleave(200)
    assert planning._mirrored(replace(digits, pixels=both, labels=None)) < 0.1
    assert planning._mirrored(replace(digits, pixels=both, labels=classes)) > 1.3
    assert planning._mirrored(replace(digits, pixels=both[:2], labels=torch.arange(2))) == math.inf, "no picture has a neighbour"


def test_other_sizes_are_measured_with_smaller_pictures_in_memory_and_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(planning, "_seconds_a_step", lambda training, batch: seen.append((training, batch)) or 0.01)
    for streaming in ("off", "on"):
        data = load_pictures("digits", size=(16, 24), streaming=streaming)  # type: ignore[arg-type]
        settings = train_settings(None, {"data": "digits", "size": (16, 24), "streaming": streaming, "device": "cpu"})
        trial = planning._Bench(data, settings, "cpu")(Way((8, 12), (32, 32), 1, "fp32", 8))
        training = seen[-1][0]
        assert training.spec.shape == (1, 8, 12) and training.settings.channels == (32, 32)
        assert training._read(0)[0][0].shape == (8, 1, 8, 12)
        assert trial.step == 0.01 and trial.timed == 8 and seen[-1][1] == 8


def test_what_cannot_be_waited_for_is_reckoned_from_fewer_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    monkeypatch.setattr(planning, "_seconds_a_step", lambda training, batch: batches.append(batch) or 3.0)
    data = load_pictures("digits")
    trial = planning._Bench(data, train_settings(None, {"data": "digits", "device": "cpu"}), "cpu")(Way((8, 8), (32, 32), 1, "fp32", 64))
    assert batches == [4] and trial.timed == 4 and trial.step == pytest.approx(48.0)


def test_pictures_on_disk_may_be_finer_than_they_are_read(tmp_path: Path) -> None:
    from PIL import Image

    from diffsteer.config import PlanSettings

    for index in range(8):
        Image.effect_noise((300 + index, 200), 50).save(tmp_path / f"{index}.png")
    data = load_pictures(str(tmp_path))
    assert (data.height, data.width) == (64, 64)
    assert planning._finest(str(tmp_path), PlanSettings(), data) == 200
    assert planning._finest(str(tmp_path), PlanSettings(size=(64, 64)), data) == 64
