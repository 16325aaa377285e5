"""Fine-tuning from outside: the command, its folder, what it begins with, what goes on and what does not, what was kept."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from commandline import TINY, Diffsteer, frames_of, pixels_of
from diffsteer import base, previews, run
from diffsteer.config import as_flags
from diffsteer.data import pixels
from diffsteer.diffusion.denoiser import Denoiser
from diffsteer.errors import Mistake
from diffsteer.previews import PREVIEW, preview_jobs
from diffsteer.recipebook import finetune_settings
from diffsteer.sampling.draw import draw
from diffsteer.sampling.folder import load_model

LABELS = 3


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Previews, which what is kept is measured on too, of one picture each of three labels."""
    monkeypatch.setattr(previews, "LABELS", LABELS)
    monkeypatch.setattr(previews, "EACH", 1)


QUICK: dict[str, Any] = {
    "data": "digits",
    "batch_size": 16,
    "figures": (),
    "decay": "none",
    "warmup": 0,
    "preview_every": 100,
    "checkpoint_every": 100,
}


def finetune(model: object, out: Path, **given: Any) -> tuple[run.Result, list[str]]:
    said: list[str] = []
    return run.train(finetune_settings(None, {**QUICK, "model": str(model), **given}), out, say=said.append), said


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(model: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(str(model)).network.state_dict())


def classes(place: Path, names: tuple[str, ...], size: int = 8, mode: str = "L") -> Path:
    draws = np.random.default_rng(0)
    for index, name in enumerate(names * 6):
        (place / name).mkdir(parents=True, exist_ok=True)
        shape = (size, size, 3) if mode == "RGB" else (size, size)
        Image.fromarray(draws.integers(0, 256, shape).astype(np.uint8)).save(place / name / f"{index:02d}.png")
    return place


def old_celebahq(place: Path) -> Path:
    """A pipeline as google/ddpm-celebahq-256 lies on the Hub: flat, pickled, its attention layers under their old names."""
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=16, layers_per_block=1, block_out_channels=(32, 32), downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, **blocks
    )
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler()).save_pretrained(place)
    words = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = network.state_dict()
    for new, old in words.items():
        state = {name.replace(new, old) if "attentions" in name else name: value for name, value in state.items()}
    for part in ("unet", "scheduler"):
        for path in (place / part).iterdir():
            path.rename(place / path.name)
        (place / part).rmdir()
    (place / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(state, place / "diffusion_pytorch_model.bin")
    return place


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_a_run_begins_with_the_base_and_keeps_its_kind(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    result, said = finetune(trained, out, steps=3, preview_every=2)
    assert (result.steps, losses(out)) == (3, pytest.approx(losses(out)))
    made = load_model(str(out))
    assert made.spec == load_model(str(trained)).spec
    # The first preview is drawn by the base itself.
    model = load_model(str(trained))
    drawn = draw(model, preview_jobs(model.spec), PREVIEW).pictures
    sheet = pixels.grid(drawn, columns=1, row_labels=list(model.spec.label_names[:LABELS]))
    expected = np.asarray(pixels.side_by_side([sheet, sheet], ["raw", "average (EMA)"]))
    assert np.array_equal(pixels_of(out / "previews" / "step-00000000.png"), expected)
    assert len(frames_of(out / "previews" / "previews.gif")) == 3
    saved = yaml.safe_load((out / "settings.yaml").read_text())["settings"]
    assert (saved["model"], saved["base_weights"]) == (str(trained), base.weights_hash(model.network))
    kept = json.loads((out / "kept.json").read_text())
    assert kept["pictures"] == LABELS and kept["read"]["labels"] == ["0", "1", "2"]
    assert any(line.startswith("kept     pictures of the same seeds differ by 0.0") for line in said)


def test_losses_are_those_of_the_base(trained: Path, tmp_path: Path) -> None:
    """A finished training's first step of fine-tuning is far below an untrained network's."""
    settings = {**QUICK, "steps": 1, "channels": (32, 32)}
    from diffsteer.recipebook import train_settings

    run.train(train_settings(None, settings), tmp_path / "fresh")
    longer = tmp_path / "longer"
    run.train(train_settings(None, {**settings, "steps": 30, "lr": 0.003}), longer)
    finetune(longer, tmp_path / "tuned", steps=1)
    assert losses(tmp_path / "tuned")[0] < 0.8 * losses(tmp_path / "fresh")[0]
    assert losses(tmp_path / "tuned")[0] == pytest.approx(losses(longer)[-1], rel=0.5)


@pytest.mark.parametrize("given", [{}, {"tune": "lora"}, {"tune": "last-blocks"}], ids=str)
def test_a_stopped_run_goes_on_to_the_same_end(trained: Path, tmp_path: Path, given: dict[str, Any]) -> None:
    finetune(trained, tmp_path / "stopped", steps=2, **given)
    finetune(trained, tmp_path / "stopped", steps=4, **given)
    finetune(trained, tmp_path / "straight", steps=4, **given)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "straight")
    one, two = weights(tmp_path / "stopped"), weights(tmp_path / "straight")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (tmp_path / "stopped" / "kept.json").read_bytes() == (tmp_path / "straight" / "kept.json").read_bytes()
    assert (tmp_path / "stopped" / "lora").is_dir() == (given.get("tune") == "lora")


def test_a_finished_run_is_left_alone(trained: Path, tmp_path: Path) -> None:
    finetune(trained, tmp_path / "tuned", steps=2)
    result, _ = finetune(trained, tmp_path / "tuned", steps=2)
    assert result.already_finished


def test_the_files_of_lora_load_onto_the_base(trained: Path, tmp_path: Path) -> None:
    """As docs/fine-tuning.md says it is done."""
    from peft import PeftModel

    finetune(trained, tmp_path / "tuned", steps=2, tune="lora", lr=1e-2, ema=False)
    unet = PeftModel.from_pretrained(load_model(str(trained)).network, str(tmp_path / "tuned" / "lora")).merge_and_unload()
    expected = weights(tmp_path / "tuned")
    assert unet.state_dict().keys() == expected.keys()
    for name, value in unet.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def test_another_prediction_begins_with_the_bases_pictures(tmp_path: Path) -> None:
    theirs = old_celebahq(tmp_path / "theirs")
    data = str(classes(tmp_path / "data", ("a", "b"), 16, "RGB"))
    finetune(theirs, tmp_path / "same", data=data, steps=1)
    _, said = finetune(theirs, tmp_path / "other", data=data, steps=1, prediction="v")
    first = "previews/step-00000000.png"
    assert (tmp_path / "same" / first).read_bytes() == (tmp_path / "other" / first).read_bytes()
    assert load_model(str(tmp_path / "other")).spec.prediction == "v"
    assert any("has to learn v" in line for line in said)


def test_a_pipeline_from_the_hub_of_old_is_a_base(tmp_path: Path) -> None:
    theirs = old_celebahq(tmp_path / "theirs")
    _, said = finetune(theirs, tmp_path / "tuned", data=str(classes(tmp_path / "data", ("a", "b"), 16, "RGB")), steps=2, flip=True)
    assert any("pickle (.bin)" in line for line in said) and any("so those of" in line and "are left out" in line for line in said)
    model = tmp_path / "tuned" / "model"
    assert sorted(path.name for path in model.iterdir() if path.is_dir()) == ["scheduler", "unet"]
    opened = diffusers.DDPMPipeline.from_pretrained(model)
    assert opened(num_inference_steps=1, output_type="np").images.shape == (1, 16, 16, 3)
    assert opened.unet.config.downsample_padding == 0, "the architecture is the base's"


# ---- classes, channels, size -----------------------------------------------------------------------------------------


def test_classes_are_learnt_under_the_numbers_they_have_in_the_model(trained: Path, tmp_path: Path, diffsteer: Diffsteer) -> None:
    data = classes(tmp_path / "data", ("7", "cat"))
    made = diffsteer("finetune", trained, data, "--out", "grown", "--classes", "grow", "--steps", "2", "--figures", "data")
    assert made.code == 0 and "labels: 11, of which the base knows 10; 0 of the base's are given up." in made.out
    spec = load_model("grown").spec
    assert spec.label_names == (*map(str, range(10)), "cat")
    assert diffsteer("sample", "grown", "--labels", "cat,7", "--per-label", "1", "--steps", "2", "--out", "x.png").code == 0
    said = json.loads((tmp_path / "grown" / "kept.json").read_text())
    assert said["read"]["labels"] == ["0", "1", "2"]
    assert diffsteer("doctor", "grown").code == 0


def test_grey_becomes_colour_and_small_becomes_larger(trained: Path, tmp_path: Path) -> None:
    _, said = finetune(trained, tmp_path / "tuned", data="digits-color", size="12", steps=2)
    assert load_model(str(tmp_path / "tuned")).spec.shape == (3, 12, 12)
    assert any("draws grey pictures" in line for line in said) and any("8x8 and learns 12x12" in line for line in said)
    first = pixels_of(tmp_path / "tuned" / "previews" / "step-00000000.png")
    assert (tmp_path / "tuned" / "kept.json").is_file() and first.ndim == 3


# ---- what is measured ------------------------------------------------------------------------------------------------


def test_what_is_kept_is_all_where_nothing_changed(trained: Path) -> None:
    one, two = load_model(str(trained)), load_model(str(trained))
    found = base.kept(one, two, None, "cpu")
    assert found.change == 0 and found.apart > 0 and found.error_before == found.error_after
    assert found.read is not None and found.read.before == found.read.after
    assert found.judged is None and found.frechet is None


def test_what_is_lost_is_seen(trained: Path, digits_judge: Any) -> None:
    """A model whose weights were thrown away keeps neither pictures nor what it knew of the base's."""
    spoilt = load_model(str(trained))
    with torch.no_grad():
        for parameter in spoilt.network.parameters():
            parameter.mul_(0.3)
    found = base.kept(load_model(str(trained)), spoilt, digits_judge, "cpu")
    assert found.change > 0.02 and found.error_after > 1.05 * found.error_before
    assert found.judged is not None and found.judged.pictures == LABELS and found.frechet is not None and found.frechet > 0.01
    same = base.kept(load_model(str(trained)), load_model(str(trained)), digits_judge, "cpu")
    assert same.frechet == pytest.approx(0, abs=1e-6)
    assert "labels read by the judge" in found.sentence()


def test_the_base_reads_its_own_labels() -> None:
    """A denoiser that draws a flat picture for each label reads every label right, and of the wrong pictures none."""

    class Flat(torch.nn.Module):
        def __init__(self, shift: int) -> None:
            super().__init__()
            self.shift, self.weight = shift, torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor, t: torch.Tensor, class_labels: torch.Tensor) -> Any:
            level = ((class_labels + self.shift) % LABELS).float() / 2 - 0.5
            return type("Out", (), {"sample": level[:, None, None, None].expand_as(x) + 0 * self.weight})

    from diffsteer.diffusion.denoiser import ModelSpec
    from diffsteer.diffusion.process import Process

    spec = ModelSpec(Process("flow"), "x0", 8, 8, 1, conditioning="add", label_names=("a", "b", "c"))
    found = base.kept(Denoiser(Flat(0), spec), Denoiser(Flat(1), spec), None, "cpu")
    assert found.read is not None and (found.read.before, found.read.after) == (1.0, 0.0)
    assert found.error_before == pytest.approx(0, abs=1e-4) and found.error_after > 0.1


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_a_changed_base_is_refused(trained: Path, tmp_path: Path) -> None:
    mine = tmp_path / "base"
    shutil.copytree(trained / "model", mine)
    finetune(mine, tmp_path / "tuned", steps=2)
    other, spec = load_model(str(mine)), load_model(str(mine)).spec
    with torch.no_grad():
        next(other.network.parameters()).add_(1)
    from diffsteer.sampling.folder import save_model

    save_model(mine, other.network, spec)
    with pytest.raises(Mistake, match="are not those that"):
        finetune(mine, tmp_path / "tuned", steps=4)


def test_mistakes_are_sentences_and_leave_nothing(trained: Path, tmp_path: Path, diffsteer: Diffsteer) -> None:
    data = classes(tmp_path / "data", ("cat", "dog"))
    unfinished = tmp_path / "unfinished"
    shutil.copytree(trained, unfinished)
    shutil.rmtree(unfinished / "model")
    for words, says in (
        (("./runs/nothing", "digits"), "There is no model at ./runs/nothing"),
        ((unfinished, "digits"), "has no model yet"),
        ((trained, data, "--classes", "keep"), "does not know cat, dog"),
        ((trained, "digits", "--freeze", "nobody"), "no weights begin so"),
        ((trained, data, "--tune", "lora"), "class_embedding would change"),
        ((trained, "digits", "--judge", "nowhere"), "nowhere"),
        ((trained, "digits", "--steps", "2", "--epochs", "2"), "both say how long"),
        ((trained,), "No data is given"),
        (("--recipe", "seed-unet"), "is for diffsteer train"),
    ):
        assert says in diffsteer("finetune", *words, "--out", "out").mistake(), words
        assert not (tmp_path / "out").exists()
    assert "is the base itself" in diffsteer("finetune", trained, "digits", "--out", trained).mistake()
    assert "Say where the run goes" in diffsteer("finetune", trained, "digits").mistake()
    assert "is for diffsteer finetune" in diffsteer("train", "digits", "--recipe", "finetune-keep", "--out", "out").mistake()
    finetune(trained, tmp_path / "tuned", steps=1)
    assert "was begun by diffsteer finetune" in diffsteer("train", "digits", "--steps", "1", "--out", "tuned").mistake()


def test_a_base_that_is_not_finished_is_told(trained: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(trained, half)
    text = (half / "settings.yaml").read_text()
    (half / "settings.yaml").write_text(text.replace("finished: true", "finished: false"))
    _, said = finetune(half, tmp_path / "tuned", steps=1)
    assert f"The run {half} is not finished; its model is the last that it saved." in said


# ---- words -----------------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_what_would_be_done(trained: Path, diffsteer: Diffsteer) -> None:
    said = diffsteer("finetune", trained, "digits", "--tune", "last-blocks", "--lr", "1e-3", "--dry-run")
    assert said.code == 0 and "* lr: 0.001   # default: " in said.out and "weights are learnt" in said.out
    assert "channels:" not in said.out, "what the base decides is no setting"


def test_settings_come_back_from_their_flags(diffsteer: Diffsteer, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsteer import commands

    settings = finetune_settings(
        None, {"model": "a b", "data": "d", "freeze": "conv_in,mid_block", "tune": "lora", "lora_rank": 2, "lr": 1e-5}
    )
    settings = settings.model_copy(update={"gradient_checkpointing": True, "classes": "swap", "label_dropout": 0.2})
    seen: list[Any] = []
    monkeypatch.setattr(commands, "_dry_run", lambda settings, *_: seen.append(settings))
    assert diffsteer(settings.command, *as_flags(settings), "--dry-run").code == 0
    assert seen == [settings]


def test_the_library_fine_tunes(trained: Path, tmp_path: Path) -> None:
    import diffsteer

    result = diffsteer.finetune(trained, "digits", tmp_path / "tuned", steps=1, figures="none", batch_size=8)
    assert result.steps == 1 and (result.out / "model").is_dir()


def test_pictures_go_to_the_tracker(trained: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    finetune(trained, tmp_path / "tuned", steps=2, preview_every=1, track="tensorboard", project="mine")
    read = EventAccumulator(str(tmp_path / "tuned" / "trackers" / "mine")).Reload()
    assert [event.value for event in read.Scalars("loss")] == pytest.approx(losses(tmp_path / "tuned"))
    assert [image.step for image in read.Images("preview")] == [1, 2]


def test_pictures_go_to_trackio(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    finetune(trained, tmp_path / "tuned", steps=2, preview_every=1, track="trackio", project="mine")
    with sqlite3.connect(tmp_path / "trackio" / "mine.db") as base:
        rows = [(run, step, json.loads(told)) for run, step, told in base.execute("select run_name, step, metrics from metrics")]
    assert {run for run, _, _ in rows} == {"tuned"}
    assert [told["loss"] for _, _, told in rows if "loss" in told] == pytest.approx(losses(tmp_path / "tuned"))
    kept = {step: tmp_path / "trackio" / "media" / told["preview"]["file_path"] for _, step, told in rows if "preview" in told}
    for step in (1, 2):
        ours = pixels_of(tmp_path / "tuned" / "previews" / f"step-{step:08d}.png")
        np.testing.assert_array_equal(pixels_of(kept[step])[..., 0], ours)


# ---- few steps -------------------------------------------------------------------------------------------------------


def test_a_model_of_few_steps_says_so(trained: Path, tmp_path: Path) -> None:
    from diffsteer.doctor import diagnose

    finetune(trained, tmp_path / "few", steps=2, consistency=True)
    spec, old = load_model(str(tmp_path / "few")).spec, load_model(str(trained)).spec
    assert (spec.consistency, spec.solver, spec.steps, spec.guidance_scale) == (True, "ddpm", 2, 1.0)
    assert (spec.prediction, spec.label_names, spec.null_class) == (old.prediction, old.label_names, old.null_class)
    told = diagnose(tmp_path / "few", lambda _: None)
    assert any(left.startswith("the solver: the model was not trained to be drawn by others") for left in told.left_out)
    assert not any("more steps" in finding.wrong for finding in told.findings)
    finetune(tmp_path / "few", tmp_path / "again", steps=1)  # taught pictures again, it answers their mean again
    again = load_model(str(tmp_path / "again")).spec
    assert (again.consistency, again.solver, again.steps) == (False, "dpm++2m", 20)
    with pytest.raises(Mistake, match="was tuned so before"):
        finetune(tmp_path / "few", tmp_path / "twice", steps=1, consistency=True)


def test_a_spacing_for_the_bases_solver_is_not_one_for_few_steps(trained: Path, tmp_path: Path) -> None:
    finetune(trained, tmp_path / "base", steps=1, solver="ddim", spacing="karras")
    finetune(tmp_path / "base", tmp_path / "tuned", steps=1)
    finetune(tmp_path / "base", tmp_path / "few", steps=1, consistency=True)
    told = [(spec.solver, spec.spacing) for spec in (load_model(str(tmp_path / name)).spec for name in ("tuned", "few"))]
    assert told == [("ddim", "karras"), ("ddpm", None)]


def test_its_loss_is_small_where_that_of_pictures_is_not(trained: Path, tmp_path: Path) -> None:
    """At first the student is its teacher: neighbours are half as noisy, and already the answers differ less than from the pictures."""
    finetune(trained, tmp_path / "few", steps=1, consistency=True)
    finetune(trained, tmp_path / "tuned", steps=1)
    assert 0 < losses(tmp_path / "few")[0] < 0.5 * losses(tmp_path / "tuned")[0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"size": 16}, "is the teacher, and knows pictures of 8x8, not 16x16"),
        ({"data": "digits-color"}, "knows channels 1, not 3"),
        ({"prediction": "v"}, "knows the prediction flow, not v"),
        ({"velocity_loss": True}, "--consistency has a loss of its own"),
        ({"min_snr": 5}, "--consistency has a loss of its own"),
    ],
    ids=str,
)
def test_what_the_teacher_does_not_know_it_cannot_teach(trained: Path, tmp_path: Path, given: dict[str, Any], says: str) -> None:
    with pytest.raises(Mistake, match=says):
        finetune(trained, tmp_path / "few", steps=1, consistency=True, **given)
    assert not (tmp_path / "few" / "settings.yaml").exists()


def test_a_teacher_of_the_noise_is_taught_another_prediction_first(tmp_path: Path, diffsteer: Diffsteer) -> None:
    words = [*TINY, "--steps", 1, "--process", "cosine", "--prediction", "eps", "--out", "noise"]
    assert diffsteer("train", "digits", *words).code == 0
    few = ("digits", "--consistency", "--steps", 1, "--figures", "none")
    assert "Fine-tune it with --prediction v first" in diffsteer("finetune", "noise", *few, "--out", "few").mistake()
    assert diffsteer("finetune", "noise", "digits", "--prediction", "v", "--steps", 1, "--figures", "none", "--out", "velocity").code == 0
    assert diffsteer("finetune", "velocity", *few, "--out", "few").code == 0


def test_new_labels_are_learnt_before_few_steps(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"knows labels .*Fine-tune it to these pictures first"):
        finetune(trained, tmp_path / "few", steps=1, consistency=True, data=str(classes(tmp_path / "data", ("cat", "dog"))))
