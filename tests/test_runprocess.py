"""Who trains into a run folder, and how it ended: found out from the process, not believed from a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commandline import Diffsteer
from diffsteer import runprocess
from diffsteer.errors import Mistake
from diffsteer.processes import Terminated, term_interrupts

TINY = ("--channels", "32,32", "--layers", "1", "--batch-size", "32", "--figures", "none")


def begun(run: Path) -> None:
    (run / "settings.yaml").write_text("")


def test_the_file_says_who_trains_and_how_it_ended(tmp_path: Path) -> None:
    begun(tmp_path)
    with runprocess.told_of(tmp_path):
        during = runprocess.read(tmp_path)
        assert during is not None and during.pid == os.getpid() and during.alive and during.how == ""
    for error, how, why in ((KeyboardInterrupt(), "stopped", ""), (ValueError("no room"), "failed", "no room")):
        with pytest.raises(type(error)), runprocess.told_of(tmp_path):
            raise error
        after = runprocess.read(tmp_path)
        assert after is not None and (after.how, after.why) == (how, why)
    with runprocess.told_of(tmp_path):
        pass
    finished = runprocess.read(tmp_path)
    assert finished is not None and finished.how == "finished"


def test_what_ended_before_there_was_a_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Mistake), runprocess.told_of(tmp_path / "run"):
        raise Mistake("no such data")
    assert not (tmp_path / "run").exists()


def test_a_living_process_is_not_trained_over_and_a_killed_one_is(tmp_path: Path) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    try:
        runprocess.claim(tmp_path, sleeper.pid)
        with pytest.raises(Mistake, match=f"Process {sleeper.pid} is training into"):
            runprocess.refuse_another(tmp_path)
    finally:
        sleeper.kill()
    deadline = time.monotonic() + 20
    there = runprocess.read(tmp_path)
    assert there is not None
    while there.alive and time.monotonic() < deadline:  # a zombie, which nobody has waited for yet, does not live
        time.sleep(0.01)
    assert not there.alive
    sleeper.wait()
    runprocess.refuse_another(tmp_path)


def test_another_process_with_the_same_number_is_another(tmp_path: Path) -> None:
    (tmp_path / runprocess.PROCESS_FILE).write_text(f'{{"pid": {os.getpid()}, "born": 1.5}}')
    there = runprocess.read(tmp_path)
    assert there is not None and not there.alive


@pytest.mark.parametrize("text", ["", "[]", '{"pid": 3}', '{"pid": 3, "born": 1, "colour": "red"}'])
def test_a_file_that_says_nothing_is_as_none(tmp_path: Path, text: str) -> None:
    assert runprocess.read(tmp_path) is None
    (tmp_path / runprocess.PROCESS_FILE).write_text(text)
    assert runprocess.read(tmp_path) is None


@pytest.mark.skipif(os.name != "posix", reason="SIGTERM is of POSIX")
def test_sigterm_interrupts_inside_and_is_as_before_outside() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), term_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(os.name != "posix", reason="SIGTERM is of POSIX")
def test_a_run_that_a_cluster_ends_is_saved_and_goes_on(diffsteer: Diffsteer, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "diffsteer.cli", "train", "digits", *TINY, "--steps", "400", "--out", "run"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not metrics.exists():
        time.sleep(0.02)
    process.terminate()
    assert process.wait(60) == 130
    there = runprocess.read(tmp_path / "run")
    assert there is not None and there.how == "stopped"
    done = len(metrics.read_text().splitlines())
    assert 0 < done < 400
    ended = diffsteer("train", "digits", *TINY, "--steps", done + 2, "--out", "run")
    assert ended.code == 0 and f"going on at step {done} of {done + 2}" in ended.out
