"""Every snippet and every command of README and docs runs: on small data of the same kind, with small networks and few steps."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from diffsteer import cli
from diffsteer.steering.losses import ENGINE, LOSSES
from diffsteer.steering.presets import PRESETS
from diffsteer.steering.strength import SCALINGS
from steering.tiny_clip import make_tiny_clip

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [ROOT / "docs" / name for name in ("from-the-notebooks.md", "from-the-notebooks.zh.md")]
SMALL = ["--steps", "2", "--preview-every", "2", "--figures", "none", "--channels", "32,32"]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def rows(path: Path) -> list[str]:
    """The commands of a page's table."""
    return re.findall(r"^\|.*\| `(diffsteer .*)` \|$", path.read_text(encoding="utf-8"), re.MULTILINE)


def hub_like(place: Path, names: list[str], size: int, mode: str) -> Path:
    """A data-set folder as the Hub has it: pictures and class labels in parquet."""
    draw = np.random.default_rng(0)
    shape = (size, size, 3) if mode == "RGB" else (size, size)
    pictures = [Image.fromarray(draw.integers(0, 256, shape).astype(np.uint8), mode=None) for _ in range(40)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    made = datasets.Dataset.from_dict({"image": pictures, "label": [i % len(names) for i in range(40)]}, features=features)
    place.mkdir(parents=True)
    made.to_parquet(place / "train-00000-of-00001.parquet")
    return place


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """A small local data set or pipeline for each name that would be fetched from the Hub."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    digits = [str(i) for i in range(10)]
    animals = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    blocks_ = {"block_out_channels": (32, 32), "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    DDPMPipeline(UNet2DModel(sample_size=8, layers_per_block=1, **blocks_), DDPMScheduler()).save_pretrained(tmp_path / "faces")
    return {
        "mnist": str(hub_like(tmp_path / "data" / "m", digits, 8, "L")),
        "fashion_mnist": str(hub_like(tmp_path / "data" / "f", digits, 8, "L")),
        "cifar10": str(hub_like(tmp_path / "data" / "c", animals, 8, "RGB")),
        "google/ddpm-celebahq-256": str(tmp_path / "faces"),
        "huggan/smithsonian_butterflies_subset": str(hub_like(tmp_path / "data" / "b", ["Butterfly"], 8, "RGB")),
        "Norod78/Vintage-Faces-FFHQAligned": str(hub_like(tmp_path / "data" / "v", ["face"], 8, "RGB")),
        "clip-seed": f"clip-seed,model={clip_folder(tmp_path / 'clip')}",
    }


def clip_folder(place: Path) -> Path:
    """A CLIP that has learnt nothing."""
    make_tiny_clip(place, steps=0)
    return place


def size(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def shrunk(command: str, stand_ins: dict[str, str]) -> list[str]:
    """The command on local data, with few steps and a small batch."""
    words = [stand_ins.get(word, word) for word in shlex.split(command)[1:]]
    if words[0] == "train":
        for flag in ("--epochs", "--batch-size", "--budget", "--steps"):
            if flag in words:
                at = words.index(flag)
                words[at : at + 2] = []
        scored = ["--score-count", "8"] if "--score-every" in words else []
        return [*words, *SMALL, *scored, "--batch-size", "8"]
    if words[0] == "finetune":
        words = [*_without(words, "--epochs", "--steps"), "--steps", "2", "--preview-every", "2", "--figures", "none"]
        return [*words, *(["--size", "8"] if "--recipe" in words else []), *([] if "--batch-size" in words else ["--batch-size", "8"])]
    if words[0] == "judge":
        return [*words, "--budget", "1s"]
    if words[0] == "evaluate":
        return [*words, "--count", "8", "--steps", "3"]
    if words[0] == "sample" and not {"--from", "--steps"} & set(words):
        return [*words, "--steps", "3"]
    if "1000" in words:
        words[words.index("1000")] = "3"
    return words


def _without(words: list[str], *flags: str) -> list[str]:
    """The words without these flags and their values."""
    return [word for index, word in enumerate(words) if word not in flags and words[index - 1] not in flags]


@pytest.mark.slow
def test_each_row_of_the_notebooks_table_runs(
    tmp_path: Path, stand_ins: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = rows(NOTEBOOKS[0])
    assert len(commands) == 19
    for command in commands:
        assert cli.run(shrunk(command, stand_ins)) == 0, f"{command}: {capsys.readouterr().err}"
        out = Path(shlex.split(command)[shlex.split(command).index("--out") + 1])
        assert out.exists(), command


def test_both_languages_have_the_same_commands() -> None:
    assert rows(NOTEBOOKS[0]) == rows(NOTEBOOKS[1])


def test_the_readmes_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        for index in range(8):
            (tmp_path / "photos" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(tmp_path / "photos" / kind / f"{index}.png")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for block in blocks(ROOT / "README.md", "bash") for line in block.splitlines()]
    lines += re.findall(r"`(diffsteer sample --from [^`]*)`", text)
    assert len(lines) == 8
    for line in lines:
        assert cli.run(shrunk(line, {})) == 0, f"{line}: {capsys.readouterr().err}"
    assert (tmp_path / "pictures.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    ours, stock = blocks(ROOT / "README.md", "python")
    torch.manual_seed(0)
    exec(ours.replace('budget="2m"', "steps=4"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "3 0"
    assert size("threes-and-sevens.png")[0] > 8 * 40
    exec(stock, {})
    assert size("three.png") == (8, 8)


def test_the_steering_pages_losses_are_those_there_are() -> None:
    """Its table names every loss and no other; its options are the engine's; its Python and YAML are steers."""
    text = (ROOT / "docs" / "steering.md").read_text(encoding="utf-8")
    table = text.split("## Losses")[1].split("`clip` needs")[0]
    named = {name for row in re.findall(r"^\| (`[^|]*`) \|", table, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}
    assert named - {"my_file.py:function"} == set(LOSSES)
    options = {
        name.split("=")[0]
        for row in re.findall(r"^\| (`[^|]*`) \|", text.split("## Strength")[1], re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", row)
    }
    assert options == set(ENGINE) - {"spread"}
    assert all(f"`{preset}`" in text for preset in PRESETS) and all(f"`{scaling}`" in text for scaling in SCALINGS)


def test_the_steering_pages_examples_run(tmp_path: Path, small_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "steering.md"
    loss, api = blocks(page, "python")
    (tmp_path / "my_losses.py").write_text(loss, encoding="utf-8")
    (tmp_path / "steers.yaml").write_text(blocks(page, "yaml")[0].replace("cuts: 8", f"cuts: 2\n  model: {clip_folder(tmp_path / 'clip')}"))
    shutil.copytree(small_model(size=(16, 16), data="digits-color", conditioning="none"), tmp_path / "runs" / "photos")
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(noise).save("photo.png")
    Image.fromarray(np.tril(np.full((16, 16), 255, np.uint8))).save("hole.png")
    exec(api, {})
    lines = [*blocks(page, "bash")[0].splitlines(), "diffsteer sample runs/photos --steer steers.yaml --out yaml.png"]
    for line in lines:
        line = line.replace("clip=a red rose", f"clip=a red rose,model={tmp_path / 'clip'}")
        assert cli.run([*shlex.split(line)[1:], "--steps", "2", "--count", "2"]) == 0, line


def test_the_measuring_pages_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "measuring.md"
    for line in [line for block in blocks(page, "bash")[:2] for line in block.splitlines()]:
        assert cli.run(shrunk(line, {})) == 0, f"{line}: {capsys.readouterr().err}"
    capsys.readouterr()
    (code,) = blocks(page, "python")
    exec(code.replace("count=100", "count=14"), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2"]


@pytest.mark.slow
def test_the_fine_tuning_pages_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "fine-tuning.md"
    draw = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for index in range(8):
            Image.fromarray(draw.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(tmp_path / "photos" / kind / f"{index}.png")
    for line in (line for block in blocks(page, "bash") for line in block.splitlines()):
        assert cli.run(shrunk(line, {})) == 0, f"{line}: {capsys.readouterr().err}"
    (code,) = blocks(page, "python")
    exec(code.replace("per_label=4", "per_label=1"), {})
    assert size("lora.png")[0] > 8


def test_every_command_in_the_readme_exists_and_none_is_left_out() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `diffsteer (\w+)", text, re.MULTILINE))
    assert named == set(cli.COMMANDS)


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
