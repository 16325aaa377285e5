"""Trainings from the page: their command lines, what is refused, how far a run is, and real ones that are stopped, killed and go on."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from diffsteer import runprocess
from diffsteer.app import runs as states
from diffsteer.app import trainer as training
from diffsteer.app.runs import Card
from diffsteer.app.trainer import Looked, Trainer
from diffsteer.app.words import Said
from diffsteer.config import TrainSettings
from diffsteer.errors import Mistake

FIT = Looked("digits", "2m", report={"ok": True})
VALUES: dict[str, Any] = {"data": "digits", "start": training.PLAIN, "budget": "2m", "name": ""}


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return Trainer("runs", ["my pictures"], "cpu", tmp_path, allowed=True)


def a_run(trainer: Trainer, name: str, steps: int, losses: list[float], finished: bool = False, **settings: Any) -> Path:
    """A run folder by hand."""
    run = trainer.runs.folder / name
    (run / "previews").mkdir(parents=True)
    saved = TrainSettings(data="digits", **settings).model_dump(mode="json")
    resolved = {
        "steps": steps,
        "preview_every": 10,
        "checkpoint_every": 10,
        "data_fingerprint": "",
        "pictures": 1797,
        "label_names": [],
        "lr_schedule": "",
        "streamed": False,
        "finished": finished,
    }
    (run / "settings.yaml").write_text(yaml.safe_dump({"settings": saved, "resolved": resolved}))
    add_rows(run, losses, 1)
    return run


def add_rows(run: Path, losses: list[float], first: int) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        for step, loss in enumerate(losses, first):
            file.write(json.dumps({"step": step, "loss": loss, "seconds": step / 2}) + "\n")


# ---- command lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "train digits --device cpu --budget 2m --out runs/digits"),
        ({"budget": ""}, "train digits --device cpu --out runs/digits"),
        ({"start": "mnist-fast", "name": "one"}, "train digits --recipe mnist-fast --device cpu --budget 2m --out runs/one"),
        ({"start": "finetune", "lr": 1e-5}, "finetune base digits --lr 1e-05 --device cpu --budget 2m --out runs/digits"),
        (
            {"data": "my pictures", "size": "32x16", "batch_size": 8, "seed": 3},
            "train 'my pictures' --size 32x16 --batch-size 8 --seed 3 --device cpu --budget 2m --out runs/my-pictures",
        ),
    ],
)
def test_the_words_are_those_of_the_command_line(trainer: Trainer, given: dict[str, Any], wanted: str) -> None:
    assert shlex.join(trainer.words({**VALUES, **given}, FIT, "base")) == wanted


def test_a_plan_is_followed_where_it_was_made_for_this(trainer: Trainer) -> None:
    settings = TrainSettings(data="digits", channels=(32, 64), batch_size=256, device="cpu", budget=120.0).model_dump(mode="json")
    planned = Looked("digits", "2m", {"ok": True}, plan={"settings": settings})
    values = {**VALUES, "start": training.PLAN, "lr": 0.002}
    words = shlex.join(trainer.words(values, planned, "base"))
    assert "--channels 32,64" in words and "--batch-size 256" in words and "--lr 0.002" in words
    assert words.endswith("--budget 2m --out runs/digits")
    assert "--channels" not in trainer.words({**values, "budget": "3m"}, planned, "base")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"data": "/etc"}, Said),
        ({"data": ["digits"]}, Said),
        ({"start": "seed-basic.yaml"}, Said),
        ({"name": "../up"}, Said),
        ({"name": "-rf"}, Said),
        ({"name": "a/b"}, Said),
        ({"budget": "soon"}, Said),
        ({"size": "--out=/tmp/x"}, Mistake),
        ({"lr": -1.0}, Mistake),
        ({"batch_size": 0}, Mistake),
    ],
)
def test_what_is_not_offered_is_refused(trainer: Trainer, given: dict[str, Any], error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        trainer.start({**VALUES, **given}, FIT, "base")
    assert list(tmp_path.iterdir()) == []


def test_where_training_is_off_nothing_starts(tmp_path: Path) -> None:
    off = Trainer("runs", [], "cpu", tmp_path, allowed=False)
    a_run(off, "one", 10, [1.0])
    for act in (
        lambda: off.start(VALUES, FIT, "base"),
        lambda: off.resume("one"),
        lambda: off.stop("one"),
        lambda: off.look(VALUES, tmp_path),
    ):
        with pytest.raises(Said, match="off on this shared page"):
            act()


def test_a_name_is_made_up_that_no_run_has(trainer: Trainer) -> None:
    assert trainer.free_name("digits") == "digits"
    a_run(trainer, "digits", 10, [1.0])
    assert trainer.free_name("digits") == "digits-2"
    with pytest.raises(Said, match="There is a run digits already"):
        trainer.start({**VALUES, "name": "digits"}, FIT, "base")


# ---- how far it is ---------------------------------------------------------------------------------------------------


def test_a_card_is_read_from_the_run_folder(trainer: Trainer) -> None:
    run = a_run(trainer, "one", 40, [float(step) for step in range(1, 21)], batch_size=16, budget=90.0)
    (run / "previews" / "step-00000000.png").write_bytes(b"")
    (run / "log.txt").write_text("$ diffsteer train digits\nloading   1%\rloading 100%\nstep 20\n")
    runprocess.claim(run, psutil.Process().pid)
    card = trainer.runs.card("one")
    assert (card.state, card.step, card.steps, card.loss, card.seconds, card.left) == (states.RUNNING, 20, 40, 20.0, 10.0, 10.0)
    assert card.tail == "$ diffsteer train digits\nloading 100%\nstep 20" and card.command == "diffsteer train digits"
    assert [step for step, _ in card.previews] == [0] and not card.resumes and trainer.runs.busy() == "one"
    with pytest.raises(Said, match="one is being trained"):
        trainer.start(VALUES, FIT, "base")


def test_only_new_lines_are_read_and_a_resumed_run_is_read_anew(trainer: Trainer) -> None:
    run = a_run(trainer, "one", 40, [1.0, 2.0])
    assert trainer.runs.card("one").curve == ((1, 1.0), (2, 2.0))
    add_rows(run, [3.0], 3)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # half a line, as a look may meet it
    assert trainer.runs.card("one").curve == ((1, 1.0), (2, 2.0), (3, 3.0))
    (run / "metrics.jsonl").rename(run / "old")
    add_rows(run, [5.0, 6.0, 7.0, 8.0, 9.0], 1)
    assert trainer.runs.card("one").step == 5 and trainer.runs.card("one").curve[0] == (1, 5.0)


def test_a_long_curve_is_thinned_to_means(trainer: Trainer) -> None:
    a_run(trainer, "one", 5000, [1.0, 3.0] * 1000)
    curve = trainer.runs.card("one").curve
    assert len(curve) == states.POINTS and curve[-1][0] == 2000
    assert [loss for _, loss in curve[:3]] == pytest.approx([1.8, 2.2, 1.8])  # means of five in turn


@pytest.mark.parametrize(
    ("how", "finished", "state"),
    [
        ("finished", True, "finished"),
        ("stopped", False, "stopped"),
        ("failed", False, "failed"),
        ("", False, "lost"),
        (None, True, "finished"),
        (None, False, "stopped"),
    ],
)
def test_the_state_is_found_out(trainer: Trainer, how: str | None, finished: bool, state: str) -> None:
    run = a_run(trainer, "one", 2, [1.0], finished=finished)
    if how is not None:
        (run / runprocess.PROCESS_FILE).write_text(json.dumps({"pid": 1, "born": 1.0, "how": how, "why": "no room"}))
    card = trainer.runs.card("one")
    assert card.state == state and card.resumes == (not finished)
    assert card.why == ("no room" if how == "failed" else "")


def test_a_command_that_was_refused_before_it_was_a_run_has_failed(trainer: Trainer) -> None:
    run = trainer.runs.folder / "one"
    run.mkdir(parents=True)
    (run / "log.txt").write_text("$ diffsteer finetune base digits\nreading\ndiffsteer: The model draws by label, and photos has none.\n")
    for how in (None, ""):
        if how is not None:
            (run / runprocess.PROCESS_FILE).write_text(json.dumps({"pid": 1, "born": 1.0, "how": how, "why": ""}))
        card = trainer.runs.card("one")
        assert (card.state, card.why) == (states.FAILED, "The model draws by label, and photos has none.") and not card.resumes


@pytest.mark.parametrize(("ended", "said"), [((-9, "", ""), "ended with -9"), ((2, "", "a line\ndiffsteer: No such.\n"), "No such.")])
def test_a_command_that_ends_badly_is_told_of(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: tuple[int, str, str], said: str
) -> None:
    for name in ("one", "two"):
        a_run(trainer, name, 2, [1.0], finished=True)
    monkeypatch.setattr(trainer, "_run", lambda words, stopping: ended)
    (looked,) = walked(trainer.look(VALUES, tmp_path))
    (compared,) = walked(trainer.compared(["one", "two"], tmp_path))
    for wrong in (looked.wrong, compared.wrong):
        assert said in wrong and not wrong.startswith("diffsteer")


def test_the_command_of_a_run_from_the_command_line_goes_on_with_it(trainer: Trainer) -> None:
    a_run(trainer, "one", 40, [1.0], batch_size=16, budget=90.0)
    assert trainer.runs.card("one").command == "diffsteer train digits --batch-size 16 --budget 90s --out runs/one"


def test_somebody_elses_folder_among_the_runs_empties_no_list(trainer: Trainer) -> None:
    stranger = trainer.runs.folder / "stranger"
    stranger.mkdir(parents=True)
    (stranger / "settings.yaml").write_text("colour: blue\n")
    (stranger / "metrics.jsonl").write_text('{"epoch": 1}\n[1, 2]\nnone\n')
    card = trainer.runs.card("stranger")
    assert (card.command, card.curve, card.step, card.resumes) == ("", (), 0, False)


@pytest.mark.parametrize("name", ["../one", "..", "", "/etc", None, ["one"], "two"])
def test_a_run_is_one_of_the_list_and_nothing_else(trainer: Trainer, name: Any) -> None:
    a_run(trainer, "one", 40, [1.0])
    (trainer.runs.folder / "link").symlink_to("/etc")
    assert trainer.runs.names() == ["one"]
    for act in (trainer.runs.card, trainer.stop, trainer.resume, trainer.runs.place_of):
        with pytest.raises(Said, match="no such run"):
            act(name)


# ---- real ones -------------------------------------------------------------------------------------------------------


def walked(job: Callable[[threading.Event], Iterator[Any]]) -> list[Any]:
    return list(job(threading.Event()))


def until(trainer: Trainer, name: str, *states: str, step: int = 0) -> Card:
    deadline = time.monotonic() + 120
    while (card := trainer.runs.card(name)).state not in states or card.step < step:
        assert time.monotonic() < deadline, card
        time.sleep(0.05)
    return card


def test_data_is_looked_at_before_it_is_trained_on(trainer: Trainer, tmp_path: Path) -> None:
    (looked,) = walked(trainer.look({**VALUES, "data": "digits"}, tmp_path))
    assert looked.fit and looked.report["count"] == 1797 and Path(looked.sheet).exists() and looked.plan is None
    (tmp_path / "my pictures").mkdir()
    (tmp_path / "my pictures" / "a.png").write_bytes(b"no picture")
    (looked,) = walked(trainer.look({**VALUES, "data": "my pictures"}, tmp_path))
    assert not looked.fit and "my pictures" in looked.wrong
    stopping = threading.Event()
    stopping.set()
    assert list(trainer.look(VALUES, tmp_path)(stopping)) == []


@pytest.mark.slow
def test_a_plan_is_made_and_followed(trainer: Trainer, tmp_path: Path) -> None:
    values = {**VALUES, "start": training.PLAN, "budget": "1m"}
    checked, planned = walked(trainer.look(values, tmp_path))
    assert checked.plan is None and planned.fit and not planned.wrong
    ahead = planned.plan["forecast"]
    assert ahead["steps"] > 0 and ahead["epochs"] > 0 and ahead["memory"] > 0 and 30 < ahead["seconds"] < 70
    words = trainer.words(values, planned, "base")
    assert words[:2] == ["train", "digits"] and words[-4:] == ["--budget", "1m", "--out", "runs/digits"]
    assert set(shlex.split(planned.plan["command"])[2:-4]) <= set(words)


@pytest.mark.slow
def test_a_training_is_stopped_goes_on_is_killed_and_does_not_end_with_the_app(trainer: Trainer, tmp_path: Path) -> None:
    values = {**VALUES, "budget": "10m", "batch_size": 8, "name": "one"}
    assert trainer.start(values, FIT, "base") == "one"
    assert trainer.runs.card("one").state in (states.STARTING, states.RUNNING)
    with pytest.raises(Said, match="one is being trained"):
        trainer.start({**values, "name": "two"}, FIT, "base")
    until(trainer, "one", states.RUNNING, step=1)
    trainer.stop("one")
    stopped = until(trainer, "one", states.STOPPED)
    assert stopped.resumes and stopped.has_model and stopped.previews and "stopped at step" in stopped.tail
    trainer.resume("one")
    again = Trainer("runs", [], "cpu", tmp_path, allowed=True)  # the app has gone, and come back
    until(again, "one", states.RUNNING, step=stopped.step + 1)
    there = runprocess.read(trainer.runs.folder / "one")
    assert there is not None
    psutil.Process(there.pid).kill()
    lost = until(trainer, "one", states.LOST)
    assert lost.resumes and lost.step > stopped.step
    trainer._started["one"].wait()  # or Python warns, in whichever test it collects this one's garbage
