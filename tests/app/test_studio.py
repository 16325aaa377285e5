"""The drawing process: what it draws, how it is stopped, and what becomes of a job when it is killed. No page here."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

from commandline import Diffsteer, pixels_of
from diffsteer.app import worker
from diffsteer.app.commission import Commission, Shown
from diffsteer.app.desk import TURN, Desk, Ticket
from diffsteer.app.studio import Broke, Lost, Studio
from diffsteer.app.worker import work
from diffsteer.config import SampleSettings
from diffsteer.errors import Mistake, Stopped

SLOW = """
import time
from pathlib import Path


def slow(pictures):
    Path(__file__).with_name("begun").touch()
    while True:
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def studio(small_model: Any) -> Iterator[Studio]:
    made = Studio(str(small_model(data="digits-color")), "cpu")
    made.start()
    yield made
    made.close()


def walk(studio: Studio, folder: Path, stopping: threading.Event | None = None, **settings: Any) -> Iterator[Any]:
    folder.mkdir(exist_ok=True)
    chosen = SampleSettings(**{"labels": "3,7", "seeds": "0-1", "batch_size": 2, **settings})
    return studio.job(Commission(chosen, chosen.steer, folder, studio.model))(stopping or threading.Event())


def ended(ticket: Ticket) -> str:
    for _ in range(6000):
        if ticket.over:
            break
        threading.Event().wait(0.02)
    return ticket.state


def test_it_says_what_the_model_is(studio: Studio) -> None:
    about = studio.about()
    assert (about.labels, about.channels, about.height, about.width) == (tuple("0123456789"), 3, 8, 8)
    assert about.guidance and "mix" in about.spacings and "seed-004" not in about.spacings
    assert (about.own_solver, about.own_steps, about.own_guidance) == ("dpm++2m", 4, 1.0)


def test_it_draws_what_the_command_line_draws_a_batch_a_turn(studio: Studio, diffsteer: Diffsteer, tmp_path: Path) -> None:
    shown = list(walk(studio, tmp_path / "job", steer=("color=#1ae680",)))
    assert shown.count(TURN) == 2
    last: Shown = shown[-1]
    assert (last.step, last.steps, len(last.pictures)) == (8, 8, 4) and last.noisy and last.clean
    assert [(picture.label, picture.seed) for picture in last.pictures] == [("3", 0), ("3", 1), ("7", 0), ("7", 1)]
    words = ["--labels", "3,7", "--seeds", "0-1", "--batch-size", "2", "--steer", "color=#1ae680"]
    assert diffsteer("sample", studio.model, *words, "--out", "pictures.png").code == 0
    assert (pixels_of(Path(last.files["png"])) == pixels_of(tmp_path / "pictures.png")).all()
    assert diffsteer("sample", studio.model, *words, "--out", "one/").code == 0
    for picture, path in zip(last.pictures, sorted((tmp_path / "one").glob("*.png")), strict=True):
        assert (pixels_of(Path(picture.path)) == pixels_of(path)).all()


def test_it_stops_between_steps_and_keeps_what_is_finished(studio: Studio, tmp_path: Path) -> None:
    stopping = threading.Event()
    shown = []
    for each in walk(studio, tmp_path / "job", stopping, steps=200):
        if each is TURN:
            stopping.set()
        else:
            shown.append(each)
    assert len(shown[-1].pictures) == 2 and shown[-1].step == 200 and shown[-1].files == {}
    stopping = threading.Event()
    shown.clear()
    for each in walk(studio, tmp_path / "other", stopping, steps=100_000):
        shown.append(each)
        stopping.set()
    assert not shown[-1].pictures and shown[-1].step < 100_000


def test_mistakes_and_what_breaks_end_the_job_alone(studio: Studio, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="no label"):
        list(walk(studio, tmp_path / "a", labels="eleven"))
    with pytest.raises(Broke, match="Traceback"):
        (tmp_path / "b").write_text("no folder")
        list(studio.job(Commission(SampleSettings(seeds="0"), (), tmp_path / "b" / "\0", studio.model))(threading.Event()))
    assert len(list(walk(studio, tmp_path / "c"))[-1].pictures) == 4


def test_a_killed_process_loses_its_job_and_no_other(studio: Studio, tmp_path: Path) -> None:
    desk = Desk()
    studio.about()

    def job(name: str, **settings: Any) -> Any:
        return lambda stopping: walk(studio, tmp_path / name, stopping, **settings)

    lost, after = desk.submit("a", job("lost", steps=100_000)), desk.submit("b", job("after"))
    while lost.shown is None or lost.shown.noisy is None:
        threading.Event().wait(0.01)
    os.kill(studio.pid, signal.SIGKILL)
    assert ended(lost) == "failed" and isinstance(lost.error, Lost) and lost.error.killed
    assert ended(after) == "finished" and len(after.shown.pictures) == 4
    desk.close()


@pytest.mark.slow
def test_a_loss_that_never_returns_is_ended_and_the_next_job_draws(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffsteer.app.studio.PATIENCE", 0.5)
    (tmp_path / "mine.py").write_text(SLOW)
    studio.about()
    desk = Desk()
    stuck = desk.submit("a", lambda stopping: walk(studio, tmp_path / "stuck", stopping, steer=(f"{tmp_path}/mine.py:slow",)))
    after = desk.submit("b", lambda stopping: walk(studio, tmp_path / "after", stopping))
    while not (tmp_path / "begun").exists():
        threading.Event().wait(0.01)
    desk.stop(stuck)
    assert ended(stuck) == "stopped" and ended(after) == "finished" and len(after.shown.pictures) == 4
    desk.close()


def test_a_process_without_a_model_says_so_and_ends(tmp_path: Path) -> None:
    ours, theirs = Pipe()
    work(theirs, str(tmp_path / "nowhere"), "cpu", None)  # or it would wait for jobs that it cannot draw, and the desk for it
    kind, sentence = ours.recv()
    assert kind == "mistake" and "no model at" in sentence


def test_a_closed_studio_stays_closed() -> None:
    studio = Studio("nowhere", "cpu")
    studio.close()
    studio.start()
    assert studio._process is None


def test_a_model_that_cannot_go_on_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*words: object) -> None:
        raise Stopped("The machine's memory is full.")

    monkeypatch.setattr(worker, "about", stops)
    ours, theirs = Pipe()
    work(theirs, "any", "cpu", None)
    assert ours.recv() == ("mistake", "The machine's memory is full.")


def test_a_full_disk_ends_its_job_and_not_the_process(small_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker, "write", full)
    model, chosen = str(small_model(data="digits-color")), SampleSettings(labels="3", seeds="0", batch_size=1)
    ours, theirs = Pipe()
    at_work = threading.Thread(target=work, args=(theirs, model, "cpu", None))
    at_work.start()
    assert ours.recv()[0] == "ready"
    (tmp_path / "job").mkdir()
    for token in ("first", "second"):
        ours.send(("turn", token, Commission(chosen, chosen.steer, tmp_path / "job", model)))
        while (said := ours.recv())[0] == "shown":
            pass
        assert said[0] == "broke" and "No space left" in said[1]
    ours.close()
    at_work.join(timeout=30)
    assert not at_work.is_alive()
