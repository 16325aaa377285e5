"""A run from outside: its folder, what stops it, what goes on, several processes, streamed data, trackers."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator, PartialState
from PIL import Image

from diffsteer import preparing, previews, run
from diffsteer.errors import Mistake, Stopped
from diffsteer.recipebook import train_settings
from diffsteer.training.loop import Training

TINY: dict[str, Any] = {"data": "digits", "channels": (32, 32), "layers": 1, "batch_size": 32, "figures": ()}

FLAGS = ["digits", "--channels", "32,32", "--layers", "1", "--batch-size", "32", "--figures", "none"]


def train(out: Path, **given: Any) -> tuple[run.Result, list[str]]:
    said: list[str] = []
    return run.train(train_settings(None, {**TINY, **given}), out, say=said.append), said


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in metrics(out)]


def picture_folder(place: Path, count: int = 24) -> Path:
    """Two classes of 8x8 pictures, dark and light."""
    draw = np.random.default_rng(0)
    for index in range(count):
        kind = "dark" if index % 2 else "light"
        (place / kind).mkdir(parents=True, exist_ok=True)
        values = draw.integers(0, 90, (8, 8)) + (0 if index % 2 else 160)
        Image.fromarray(values.astype(np.uint8)).save(place / kind / f"{index:02d}.png")
    return place


def test_the_folder_holds_what_is_promised(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result, said = train(out, steps=4, preview_every=2, figures=("data", "corruption", "predictions", "noisy-rows", "step-sheet"))
    assert (result.steps, result.already_finished) == (4, False)
    assert [row["step"] for row in metrics(out)] == [1, 2, 3, 4]
    assert set(metrics(out)[0]) == {"step", "loss", "loss_by_noise", "grad_norm", "lr", "seconds"}
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    figures = [f"figures/{name}.png" for name in ("corruption", "data", "loss", "noisy-rows", "predictions", "step-sheet")]
    assert found == [*figures, *(f"previews/step-{step:08d}.png" for step in (0, 2, 4))]
    with Image.open(out / "previews" / "previews.gif") as film:
        assert film.n_frames == 3
    settings = yaml.safe_load((out / "settings.yaml").read_text())
    assert settings["resolved"]["steps"] == 4 and settings["resolved"]["finished"]
    assert (out / "model" / "model_index.json").exists()
    assert any("4 optimizer steps of 32 pictures" in line for line in said), "the plan is said"


def test_the_mean_loss_of_each_whole_epoch_is_told(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", count=20)
    result, _ = train(tmp_path / "run", data=str(data), batch_size=8, epochs=2, last_batch="short", preview_every=6)
    told = losses(tmp_path / "run")
    assert len(told) == 6
    assert result.epochs == pytest.approx([sum(told[:3]) / 3, sum(told[3:]) / 3])


def test_a_step_that_ends_in_the_next_epoch_is_of_the_one_that_it_begins_in(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", count=20)
    result, _ = train(tmp_path / "run", data=str(data), batch_size=8, epochs=2, preview_every=6)
    told = losses(tmp_path / "run")
    assert len(told) == 5, "pictures 0, 8, 16, then 24 and 32 of 40 are the first of each"
    assert result.epochs == pytest.approx([sum(told[:3]) / 3, sum(told[3:]) / 2])


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=6, checkpoint_every=1, keep=3, preview_every=6)
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000005", "step-00000006"]


def test_a_solver_that_does_not_exist_is_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="nope"):
        train(tmp_path / "run", steps=2, solver="nope")
    assert not (tmp_path / "run").exists()


def test_previews_are_drawn_from_step_0_with_the_same_seeds(tmp_path: Path) -> None:
    train(tmp_path / "a", steps=2, preview_every=1)
    train(tmp_path / "b", steps=2, preview_every=1)
    for path in (tmp_path / "a" / "previews").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "previews" / path.name).read_bytes()


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=3)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    result, _ = train(tmp_path / "run", steps=3)
    assert result.already_finished and result.steps == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_more_steps_go_on_from_where_the_run_was(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=3, decay="none")
    train(tmp_path / "run", steps=6, decay="none")
    train(tmp_path / "straight", steps=6, decay="none", checkpoint_every=1, preview_every=1)
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")


def test_other_settings_are_named_and_refused(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=2)
    with pytest.raises(Mistake, match=r"--lr \(there 0\.001, now 0\.002\)"):
        train(tmp_path / "run", steps=2, lr=0.002)


def test_other_pictures_are_refused(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data")
    train(tmp_path / "run", data=str(data), steps=2)
    shutil.rmtree(data / "dark")
    with pytest.raises(Mistake, match="not those that"):
        train(tmp_path / "run", data=str(data), steps=4)


def test_a_loss_that_is_not_finite_stops_with_step_pictures_and_checkpoint(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data")
    given = {"data": str(data), "steps": 60, "lr": 1e12, "clip": None, "warmup": 0, "checkpoint_every": 1}
    with pytest.raises(Stopped) as stopped:
        train(tmp_path / "run", **given)
    sentence = str(stopped.value)
    assert "not finite at step" in sentence and ".png" in sentence and "smaller --lr" in sentence
    step = int(sentence.split("not finite at step ")[1].split(";")[0])
    assert len(metrics(tmp_path / "run")) == step - 1, "the good steps are on record"
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())
    if kept:
        assert int(kept[-1].name.removeprefix("step-")) < step, "nothing after the first bad loss was saved"


def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = Training._gradients

    def broken(self: Training, shown: Any) -> Any:
        record = gradients(self, shown)
        if self.step == 2:
            next(self.network.parameters()).grad.fill_(float("inf"))
        return record

    monkeypatch.setattr(Training, "_gradients", broken)
    with pytest.raises(Stopped, match=r"The gradient is not finite at step 3; the last good checkpoint is .*step-0*2\."):
        train(tmp_path / "run", steps=3, checkpoint_every=1, clip=1.0)
    assert len(metrics(tmp_path / "run")) == 2


def test_a_full_gpu_is_told_with_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Training, shown: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(Training, "_gradients", full)
    with pytest.raises(Stopped, match=r"memory is full at step 0\. Take a smaller --batch-size"):
        train(tmp_path / "run", steps=3)


# ---- what it is made of ----------------------------------------------------------------------------------------------


def test_what_is_not_installed_cannot_track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "get_available_trackers", list)
    with pytest.raises(Mistake, match="--track wandb needs the package wandb, which is not installed"):
        train(tmp_path / "run", steps=1, track=("wandb",))
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_compiled_is_not_and_says_so() -> None:
    said: list[str] = []
    gpu = torch.device("cuda", 17)  # there is no such thing here, so nothing can be compiled for it
    assert not preparing.compiles(train_settings(None, {**TINY, "compile": "auto"}), gpu, said.append)
    assert len(said) == 1 and said[0].startswith("torch.compile does not work here (") and said[0].endswith("otherwise the same")
    with pytest.raises(Mistake, match=r"--compile on: torch\.compile does not work here"):
        preparing.compiles(train_settings(None, {**TINY, "compile": "on"}), gpu, said.append)
    assert not preparing.compiles(train_settings(None, {**TINY, "budget": "90s"}), gpu, said.append) and len(said) == 1


def test_a_run_after_another_in_one_process_takes_its_own_device() -> None:
    PartialState(cpu=True)
    assert not preparing._alone_elsewhere("cpu") and preparing._alone_elsewhere("cuda")


def test_a_budget_becomes_steps_once(tmp_path: Path) -> None:
    train(tmp_path / "run", budget="6s", batch_size=8)
    first = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())["resolved"]
    assert first["steps"] >= 10
    assert f"over {first['steps']} steps" in first["lr_schedule"]
    assert len(metrics(tmp_path / "run")) == first["steps"]
    result, _ = train(tmp_path / "run", budget="6s", batch_size=8)
    assert result.already_finished


def test_measuring_for_a_budget_leaves_no_trace_in_the_weights(tmp_path: Path) -> None:
    train(tmp_path / "run", budget="6s", batch_size=8)
    steps = len(metrics(tmp_path / "run"))
    train(tmp_path / "steps", steps=steps, batch_size=8)
    assert losses(tmp_path / "run") == losses(tmp_path / "steps")


def test_streamed_pictures_train_and_resume(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data")
    given = {"data": str(data), "streaming": "on", "decay": "none"}
    train(tmp_path / "straight", steps=6, **given)
    train(tmp_path / "run", steps=3, **given)
    train(tmp_path / "run", steps=6, **given)
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")


@pytest.mark.parametrize("streaming", ["on", "off"])
def test_streaming_is_as_it_was_asked_for(streaming: str, tmp_path: Path) -> None:
    train(tmp_path / "run", steps=1, data=str(picture_folder(tmp_path / "data")), streaming=streaming)
    assert yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())["resolved"]["streamed"] is (streaming == "on")


def test_odd_sizes_train_and_draw(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data")
    train(tmp_path / "run", data=str(data), size=(9, 13), steps=2, channels=(32, 32, 32))
    with Image.open(tmp_path / "run" / "previews" / "step-00000002.png") as preview:
        assert preview.size[0] > preview.size[1] / 2
    spec = json.loads((tmp_path / "run" / "model" / "diffsteer.json").read_text())
    config = json.loads((tmp_path / "run" / "model" / "unet" / "config.json").read_text())
    assert (spec["height"], spec["width"], config["sample_size"]) == (9, 13, [12, 16])


def test_tensorboard_gets_the_losses(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "run", steps=3, track="tensorboard", project="mine")
    events = EventAccumulator(str(tmp_path / "run" / "trackers" / "mine"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(tmp_path / "run"))
    assert "preview" in events.Tags()["images"]


def test_weights_and_biases_gets_them_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    train(Path("run"), steps=3, track="wandb", project="mine")
    (kept,) = (tmp_path / "run" / "trackers" / "wandb").glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60
    while b"preview" not in (told := kept.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.1)  # a process of theirs writes it
    assert b"grad_norm" in told and b"preview" in told and b"mine" in told
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "nothing in the working directory"


# ---- other processes -------------------------------------------------------------------------------------------------


def start(out: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "diffsteer.cli", "train", *FLAGS, "--out", str(out), *flags]
    # A suite that was itself started in the background has Ctrl-C switched off, and children inherit that.
    heeding = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding)


def wait_for_step(process: subprocess.Popen[str], out: Path, step: int) -> None:
    while process.poll() is None and not (out / "metrics.jsonl").exists():
        time.sleep(0.02)
    while process.poll() is None and len((out / "metrics.jsonl").read_text().splitlines()) < step:
        time.sleep(0.02)


@pytest.mark.slow
def test_control_c_saves_exits_130_and_the_same_command_goes_on(tmp_path: Path) -> None:
    flags = ["--steps", "300", "--preview-every", "300", "--checkpoint-every", "300"]
    process = start(tmp_path / "run", *flags)
    wait_for_step(process, tmp_path / "run", 40)
    process.send_signal(signal.SIGINT)
    said, complaints = process.communicate()
    assert process.returncode == 130, complaints
    assert "run the same command to go on" in said
    assert complaints == ""
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1
    assert (tmp_path / "run" / "model" / "model_index.json").exists()
    finished = start(tmp_path / "run", *flags)
    assert "going on at step" in finished.communicate()[0]
    straight = start(tmp_path / "straight", *flags)
    straight.communicate()
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")


@pytest.mark.parametrize("moment", ["clip_grad_norm_", "_average"])
def test_a_signal_in_the_middle_of_a_step_waits_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Before and after the weights move: what is saved is a whole step, and the run goes on as if it had never been stopped."""
    flags: dict[str, Any] = {"steps": 6, "optimizer": "muon", "preview_every": 6, "checkpoint_every": 6}
    owner: Any = Training if moment == "_average" else Accelerator
    real, calls = getattr(owner, moment), []

    def signalled(*args: Any, **kwargs: Any) -> Any:
        calls.append(moment)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, moment, signalled)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", **flags)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000003"] and len(losses(tmp_path / "run")) == 3
    train(tmp_path / "run", **flags)
    train(tmp_path / "straight", **flags)
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")
    weights = [(tmp_path / name / "model" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() for name in ("run", "straight")]
    assert weights[0] == weights[1]


def test_a_signal_while_a_preview_is_drawn_ends_it_at_once_and_it_is_drawn_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, drawn = previews.preview, []

    def signalled(*args: Any) -> Any:
        drawn.append(args)
        if len(drawn) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return real(*args)

    monkeypatch.setattr(previews, "preview", signalled)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", steps=4, preview_every=2)
    assert [path.name for path in sorted((tmp_path / "run" / "previews").iterdir())] == ["step-00000000.png"]
    train(tmp_path / "run", steps=4, preview_every=2)
    assert {path.name for path in (tmp_path / "run" / "previews").glob("*.png")} == {f"step-{step:08d}.png" for step in (0, 2, 4)}


def test_how_often_is_saved_and_looked_may_change_when_a_run_goes_on(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=2, preview_every=2, checkpoint_every=2)
    train(tmp_path / "run", steps=6, preview_every=4, checkpoint_every=1, keep=3)
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000005", "step-00000006"]
    assert {path.name for path in (tmp_path / "run" / "previews").glob("*.png")} == {f"step-{step:08d}.png" for step in (0, 2, 4, 6)}


def test_two_processes_equal_one(tmp_path: Path) -> None:
    train(tmp_path / "one", steps=30, preview_every=30, last_batch="short", accumulate=2)
    flags = ["--steps", "30", "--preview-every", "30", "--last-batch", "short", "--accumulate", "2"]
    process = start(tmp_path / "two", *flags, "--processes", "2")
    said, complaints = process.communicate()
    assert process.returncode == 0, complaints
    assert complaints == ""
    assert said.count("plan ") == 1, "only one of them speaks"
    assert len(losses(tmp_path / "two")) == 30
    assert max(abs(a - b) for a, b in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True)) < 1e-5


@pytest.mark.slow
def test_several_processes_save_at_one_step_and_exit_130(tmp_path: Path) -> None:
    flags = ["--steps", "100000", "--preview-every", "100000", "--checkpoint-every", "100000", "--processes", "2"]
    process = start(tmp_path / "run", *flags)
    wait_for_step(process, tmp_path / "run", 20)
    process.send_signal(signal.SIGTERM)
    said, complaints = process.communicate()
    assert (process.returncode, complaints) == (130, "")
    step = len(metrics(tmp_path / "run"))
    assert f"stopped at step {step} of 100000; run the same command to go on" in said
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"step-{step:08d}"]
    assert (tmp_path / "run" / "model" / "model_index.json").exists()


@pytest.mark.slow
def test_when_one_process_is_killed_the_other_says_so_and_the_command_resumes(tmp_path: Path) -> None:
    flags = ["--steps", "400", "--preview-every", "400", "--checkpoint-every", "20", "--processes", "2"]
    process = start(tmp_path / "run", *flags)
    wait_for_step(process, tmp_path / "run", 40)
    children = _children(process.pid)
    assert len(children) == 2
    os.kill(children[1], signal.SIGKILL)
    _, complaints = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "Process 0 of 2 could not go on" in complaints and "Run the same command" in complaints
    assert "Run the same command to go on" in complaints
    assert "Traceback" not in complaints
    again = start(tmp_path / "run", *flags)
    said, complaints = again.communicate()
    assert again.returncode == 0, complaints
    assert "going on at step" in said
    assert [row["step"] for row in metrics(tmp_path / "run")] == list(range(1, 401))


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True).stdout
    return [int(word) for word in listed.split()]
