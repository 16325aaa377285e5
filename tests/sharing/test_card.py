"""The card is true: what it says is what the files of the model and its run say, and its snippets do what they promise."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants
from PIL import Image

from commandline import Diffsteer, tree
from diffsteer import cli
from diffsteer.data import pixels
from diffsteer.data.images import load_pictures
from diffsteer.diffusion.judge import save_judge
from diffsteer.errors import Mistake
from diffsteer.sampling.draw import Job, draw
from diffsteer.sampling.folder import load_model
from diffsteer.sharing import card
from diffsteer.sharing.card import card_text, write_card
from diffsteer.sharing.facts import read_known
from diffsteer.sharing.licences import KNOWN, Licences
from diffsteer.training.classifier import train_judge
from sharing.hub import Hub, card_errors

SmallModel = Callable[..., Path]


@pytest.fixture(scope="module")
def scored(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits with scores, by a judge that has learnt little."""
    place = tmp_path_factory.mktemp("scored")
    run = Path(shutil.copytree(trained, place / "digits"))
    save_judge(place / "judge", train_judge(load_pictures("digits"), epochs=1))
    page = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text(encoding="utf-8")
    first = page.split("```bash\n")[1].splitlines()[0].replace("runs/digits", str(run))
    words = [*shlex.split(first)[1:], "--judge", str(place / "judge"), "--count", "40", "--steps", "3"]
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(place / "cache")
    try:
        assert cli.run(words) == 0
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        os.environ.update({} if before is None else {"XDG_CACHE_HOME": before})
    return run


def text_of(model: Path, licences: Licences | None = None, name: str = "alice/things") -> str:
    return card_text(read_known(str(model)), licences or Licences(), name)


def metadata(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text.split("---\n")[1]))


def section(text: str, head: str) -> str:
    return text.split(f"\n## {head}\n")[1].split("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", text, re.DOTALL)


# ---- a run -----------------------------------------------------------------------------------------------------------


def test_the_scores_are_those_in_the_file(scored: Path) -> None:
    text, row = text_of(scored), json.loads((scored / "scores" / "scores.json").read_text())["rows"][0]
    (model,) = metadata(text)["model-index"]
    assert model["name"] == "things"
    (result,) = model["results"]
    assert result["task"]["type"] == "unconditional-image-generation"
    assert result["dataset"] == {"name": "digits, 1,797 pictures", "type": "digits", "split": "train"}
    told = {metric["type"]: metric for metric in result["metrics"]}
    assert set(told) == {"frechet-distance", "kid", "precision", "recall", "density", "coverage", "accuracy", "variety", "brightness"}
    for kind, metric in told.items():
        measure = row[kind.removesuffix("-distance")]
        assert metric["value"] == pytest.approx(measure["value"], rel=1e-5)
        assert metric["args"]["count"] == row["count"] == 40
        assert metric["args"]["floor"] == pytest.approx(measure["floor"], rel=1e-5)
        assert metric["args"]["error"] == pytest.approx(measure["error"], rel=1e-5)
    accuracy = row["accuracy"]
    assert f"| accuracy | {accuracy['value']:.1%} ± {accuracy['error']:.1%} | {accuracy['floor']:.1%}" in section(text, "Scores")
    assert all(line.endswith("| 40 |") for line in section(text, "Scores").splitlines() if line.startswith("| ") and "±" in line)
    assert "Looked at by: plain, seed 0, right on " in text and "steps 3" in text


def test_the_copies_are_told_with_their_baseline_and_without_the_names_of_pictures(scored: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(scored, tmp_path / "digits"))
    file = run / "scores" / "scores.json"
    values = json.loads(file.read_text())
    copies = values["copies"]
    copies["flagged"] = [{"drawn": 3, "train": 9, "name": "private/me.png", "distance": 1.0, "ratio": 0.1, "mirrored": False}]
    copies["rate"] = 1 / 40
    file.write_text(json.dumps(values))
    said = section(text_of(run), "Copies of training pictures")
    assert said.startswith(f"\nOf 40 drawn pictures 1 (2.5% ± {copies['error']:.1%}) are copies")
    assert f"{copies['train_count']:,} different pictures of `digits`" in said
    assert f"{copies['baseline']['rate']:.1%} ± {copies['baseline']['error']:.1%} of {copies['baseline']['count']:,} training" in said
    assert "me.png" not in text_of(run)


def test_data_and_settings_are_those_of_the_run(scored: Path) -> None:
    text, saved = text_of(scored, Licences("mit", "cc-by-4.0")), yaml.safe_load((scored / "settings.yaml").read_text())
    data, training = section(text, "Data"), section(text, "Training")
    assert "1,797 of `digits`, split `train`" in data and saved["resolved"]["data_fingerprint"] in data
    assert "10: `0`, `1`, `2`, `3`, `4`, `5`, `6`, `7`, `8`, `9`" in data and "**licence**: cc-by-4.0" in data
    assert "4 optimizer steps of 32 pictures (128 pictures seen)" in training and saved["resolved"]["lr_schedule"] in training
    parameters = sum(each.numel() for each in load_model(str(scored)).network.parameters())
    assert f"{parameters:,} parameters" in training and "dpm++2m in 20 steps" in training
    assert "The model: `mit`." in text and metadata(text)["license"] == "mit"


def test_the_command_on_the_card_is_the_one_that_made_it(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = blocks(section(text_of(scored), "Training"), "bash")
    program, *words = shlex.split(command)
    assert program == "diffsteer" and words[-2:] == ["--out", "digits"]
    assert cli.run([*words, "--dry-run", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["settings"]
    assert again == yaml.safe_load((scored / "settings.yaml").read_text())["settings"]


def test_a_budget_is_told_in_steps_too(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "digits"))
    values = yaml.safe_load((run / "settings.yaml").read_text())
    values["settings"] |= {"budget": 90.0, "steps": None}
    values["resolved"]["finished"] = False
    values["resolved"]["steps"] = 6
    (run / "settings.yaml").write_text(yaml.safe_dump(values))
    text = text_of(run)
    assert "--budget 90.0" in text and "the budget came to 6 steps; `--steps 6` trains as many" in text
    assert "Its training was stopped after 4 of 6 steps." in section(text, "Limits")


def test_what_was_not_measured_is_said_with_the_command_that_would(trained: Path) -> None:
    text = text_of(trained)
    assert set(metadata(text)) == {"library_name", "pipeline_tag", "tags"}
    assert "Not measured. This measures:" in section(text, "Scores")
    assert blocks(section(text, "Scores"), "bash") == ["diffsteer evaluate digits digits --out digits/scores"]
    assert "copies of its training pictures is unknown" in text and "How good its pictures are was not measured." in text


def test_scores_of_older_weights_are_left_out(scored: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(scored, tmp_path / "digits"))
    weights = next(run.glob("model/unet/*.safetensors"))
    later = (run / "scores" / "scores.json").stat().st_mtime + 5
    os.utime(weights, (later, later))
    text = text_of(run)
    assert "model-index" not in metadata(text) and "measured before its last training" in text
    assert "copies of its training pictures is unknown" in text


def test_a_folder_alone_says_what_it_does_not_know(scored: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(scored / "model", tmp_path / "model"))
    text = text_of(alone)
    assert "unknown: the folder alone does not say what it was trained on" in text and "How it was trained is unknown" in text
    assert "1,797" not in text and "diffsteer train" not in text and "10: `0`, `1`" in text
    assert "diffsteer evaluate MODEL DATA --out MODEL/scores" in text


def test_the_makers_home_is_not_told(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "digits"))
    values = yaml.safe_load((run / "settings.yaml").read_text())
    values["settings"]["data"] = str(tmp_path / "home" / "alice" / "photos")
    (run / "settings.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "alice"))
    text = text_of(run)
    assert "of `~/photos`" in text and "diffsteer train ~/photos" in text and str(tmp_path) not in text


@pytest.mark.parametrize(
    ("home", "path", "told"), [(r"C:\Users\alice", r"C:\Users\alice\photos", r"~\photos"), ("/home/al", "/home/alice", "/home/alice")]
)
def test_home_is_a_folder_on_every_system(monkeypatch: pytest.MonkeyPatch, home: str, path: str, told: str) -> None:
    monkeypatch.setattr(card.Path, "home", lambda: home)
    assert card._homeless(f"of {path}.") == f"of {told}."


# ---- the Hub's metadata ----------------------------------------------------------------------------------------------


def test_the_hub_takes_the_metadata(scored: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """By huggingface_hub's own validation, which asks the server, and by the rules that are written down."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    for licences in (Licences(), Licences("apache-2.0"), Licences("other")):
        text = text_of(scored, licences)
        read = ModelCard(text)
        read.validate()
        assert card_errors(text, "model") == [] and str(read) == text
        assert read.data.library_name == "diffusers" and read.data.pipeline_tag == "unconditional-image-generation"
        assert "diffsteer" in read.data.tags and read.data.license == licences.model
    assert "license" not in metadata(text_of(scored)) and "The model: not stated." in text_of(scored)
    assert hub.asked("POST /api/validate-yaml") == 3
    with pytest.raises(ValueError, match="must be one of"):
        ModelCard("---\nlicense: mine\n---\n").validate()


def test_data_is_linked_where_its_name_leaves_no_doubt(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    for data, linked in (("mnist", ["ylecun/mnist"]), ("photos/cats", None), ("digits", None)):
        values = yaml.safe_load((run / "settings.yaml").read_text())
        values["settings"]["data"] = data
        (run / "settings.yaml").write_text(yaml.safe_dump(values))
        assert metadata(text_of(run)).get("datasets") == linked


def test_licences_that_the_hub_does_not_know() -> None:
    with pytest.raises(Mistake, match=r"--license Apache is none of the licences that the Hub knows; did you mean apache-2\.0"):
        Licences("Apache")
    with pytest.raises(Mistake, match="--data-license zzzz is none"):
        Licences("mit", "zzzz")
    assert {"mit", "apache-2.0", "cc-by-4.0", "other"} <= KNOWN


# ---- how to use it ---------------------------------------------------------------------------------------------------

MODELS: dict[str, dict[str, Any]] = {
    "stock": {"process": "cosine", "prediction": "v", "conditioning": "none"},
    "labels": {"names": ("ankle-boot", 'a "b"', "x,y", *"cdefghi"), "conditioning": "concat", "process": "cosine"},
    "padded": {"process": "flow", "conditioning": "none", "size": (10, 13), "channels": "32,32,32"},
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_snippet_runs(
    kind: str, small_model: SmallModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they are on the card, but for the model being here and not on the Hub."""
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(small_model(**MODELS[kind]), tmp_path / "alice" / "things"))
    text = text_of(folder).replace("num_inference_steps=50", "num_inference_steps=2")
    how = section(text, "How to use it")
    (command, page), (ours, theirs) = blocks(how, "bash"), blocks(how, "python")
    assert page == "diffsteer app alice/things"  # tests/app opens it
    assert cli.run(shlex.split(command)[1:]) == 0, capsys.readouterr().err
    Path("pictures.png").unlink()
    exec(ours, {})
    assert Path("pictures.png").is_file()
    exec(theirs, {})
    shown = np.asarray(Image.open("picture.png"))
    spec = load_model(str(folder)).spec
    assert shown.shape == (spec.height, spec.width)
    assert ("trust_remote_code" in how) == (kind != "stock")
    if kind != "stock":
        same = draw(load_model(str(folder)), [Job(0 if spec.labelled else None, 0)]).pictures[0, 0].numpy()
        assert np.abs(shown.astype(int) - same).max() <= 1
    assert ("`unet/network.py`" in how) == (folder / "unet" / "network.py").is_file()


def test_limits_come_from_facts(small_model: SmallModel, trained: Path) -> None:
    padded = section(text_of(small_model(**MODELS["padded"])), "Limits")
    assert "draws 10x13 pixels and no other size" in padded and "works on 12x16 pixels" in padded
    assert "stock pipelines, such as `DDPMPipeline`, draw the padded 12x16" in padded
    assert "cannot be told what to draw" in padded
    whole = section(text_of(trained), "Limits")
    assert "padded" not in whole and "knows 10 classes" in whole and "Label guidance" not in whole
    assert "Label guidance is not possible" in section(text_of(small_model(label_dropout=0.0)), "Limits")


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_card_and_its_samples_are_written_into_the_model(
    diffsteer: Diffsteer, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "SECONDS", 1e9)
    monkeypatch.setattr(card, "COLUMNS", 3)
    run = Path(shutil.copytree(trained, tmp_path / "digits"))
    before = tree(run)
    dry = diffsteer("card", "digits", "--dry-run")
    assert dry.code == 0 and tree(run) == before and "# digits" in dry.out
    ended = diffsteer("card", "digits", "--license", "mit")
    assert ended.code == 0 and ended.err == "" and ended.last == "next: diffsteer push digits NAME --dry-run"
    assert "written  digits/model/README.md" in ended.out and "the data's is not: --data-license NAME" in ended.out
    assert set(tree(run)) - set(before) == {"model/README.md", "model/samples.png"}
    text = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert '"USER/digits"' in text and "![Samples](samples.png)" in text
    denoiser = load_model(str(run))
    drawn = draw(denoiser, [Job(label, seed) for label in range(10) for seed in range(3)]).pictures
    wanted = np.asarray(pixels.grid(drawn, columns=3, row_labels=denoiser.spec.label_names))
    shown = np.asarray(Image.open(run / "model" / "samples.png"))
    assert shown.shape == wanted.shape and np.abs(shown.astype(int) - wanted).max() <= 1
    assert "is there already; --overwrite replaces it" in diffsteer("card", "digits").mistake()
    monkeypatch.setattr(card, "SECONDS", 0.0)
    said = diffsteer("card", "digits", "--overwrite", "--name", "alice/eights", "--json").json()
    assert said["files"] == ["digits/model/README.md", "digits/model/samples.png"] and "# eights" in said["card"]
    assert '"alice/eights"' in (run / "model" / "README.md").read_text(encoding="utf-8")


def test_cards_that_cannot_be(diffsteer: Diffsteer, trained: Path, tmp_path: Path) -> None:
    assert "is no model" in diffsteer("card", tmp_path).mistake()
    assert "should be a Markdown file" in diffsteer("card", trained, "--out", "card.html").mistake()
    assert (
        "--license MIT is none of the licences that the Hub knows; did you mean mit"
        in diffsteer("card", trained, "--license", "MIT").mistake()
    )
    assert "cannot be a name on the Hub" in diffsteer("card", trained, "--name", "my digits").mistake()
    assert list(tmp_path.iterdir()) == []


def test_a_card_can_lie_elsewhere(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "SECONDS", 0.0)
    before = tree(trained)
    made = write_card(str(trained), tmp_path / "cards" / "d.md")
    assert made.paths == (tmp_path / "cards" / "d.md", tmp_path / "cards" / "samples.png") and all(path.is_file() for path in made.paths)
    assert tree(trained) == before and torch.is_grad_enabled()
    with pytest.raises(Mistake, match=r"samples\.png is there already"):  # of another card, or nothing of ours
        write_card(str(trained), tmp_path / "cards" / "README.md")
    assert not (tmp_path / "cards" / "README.md").exists()
