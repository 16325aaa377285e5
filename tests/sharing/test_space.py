"""`diffsteer space`: a folder that starts with `python app.py`, opens with the steer that was asked for, and goes to the Hub as a Space."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from huggingface_hub import constants

from app.serving import LOSS, free_port, running
from commandline import Diffsteer, tree
from diffsteer import __version__
from diffsteer.app.serve import _placed
from diffsteer.config import AppSettings
from diffsteer.errors import Mistake
from diffsteer.sharing import space
from sharing.hub import Hub, Repo, card_errors

SmallModel = Callable[..., Path]
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # as in test_hub.py
ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
START = [sys.executable, "app.py"]  # as anyone starts it
PLAIN = {"app.py", "requirements.txt", "README.md"}
CPU = "--extra-index-url https://download.pytorch.org/whl/cpu\n"


@pytest.fixture
def model(small_model: SmallModel, tmp_path: Path) -> Path:
    """A small colour model in a folder with a card, and beside it what is nobody's business."""
    place = Path(shutil.copytree(small_model(data="digits-color"), tmp_path / "digits"))
    (place / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n\n# Digits\n")
    (place / "optimizer.pt").write_text("hf_alice")
    return place


@pytest.fixture
def losses(tmp_path: Path) -> Path:
    (tmp_path / "my losses").mkdir()
    (tmp_path / "my losses" / "mine.py").write_text("import nbformat\nimport numpy\nfrom helper import NOTHING\n" + LOSS)
    (tmp_path / "my losses" / "helper.py").write_text("NOTHING = 0\n")
    (tmp_path / "my losses" / "notes.txt").write_text("hf_alice")
    return tmp_path / "my losses"


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def front_matter(folder: Path) -> dict[str, Any]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert card_errors(text, "space") == []
    return dict(yaml.safe_load(text.split("---")[1]))


def opened(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The client downloads from the Hub of the test as well, as it does where HF_ENDPOINT is set before it is imported."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / ".cache"))


# ---- what is written -------------------------------------------------------------------------------------------------


def test_a_space_of_a_model_here(model: Path, losses: Path, diffsteer: Diffsteer, tmp_path: Path) -> None:
    """Its own files, the losses and the model, nothing else; app.py reads as it is meant; no path of this computer."""
    before = tree(model)
    ended = diffsteer("space", "digits", "there", "--steer", f"{losses}/mine.py:redness:2", "--steer", "symmetry", "--losses", losses)
    assert (ended.code, ended.err) == (0, "") and ended.last == "next: diffsteer push there NAME --space --dry-run"
    place = tmp_path / "there"
    copied = {name for name in files(model) if name != "optimizer.pt"}
    assert files(place) == PLAIN | {"losses/mine.py", "losses/helper.py"} | {f"model/{name}" for name in copied}
    assert (place / "app.py").read_text() == APP_OF_A_COPY
    assert (place / "losses" / "mine.py").read_bytes() == (losses / "mine.py").read_bytes()
    assert all((place / "model" / name).read_bytes() == (model / name).read_bytes() for name in copied)
    assert (place / "requirements.txt").read_text().partition(CPU)[2].splitlines()[0] == f"diffsteer[app]=={__version__}"
    assert re.search(r"\nnbformat==[\d.]+\n$", (place / "requirements.txt").read_text())  # numpy comes with diffsteer
    head = front_matter(place)
    assert head["license"] == "cc-by-4.0" and "models" not in head and head["title"] == "digits"
    assert str(tmp_path) not in "".join((place / name).read_text() for name in PLAIN)
    assert tree(model) == before


APP_OF_A_COPY = '''\
"""The web app of a model: draw, steer and watch, in the browser. It starts with: python app.py"""

import diffsteer

MODEL = "model"

if __name__ == "__main__":
    diffsteer.serve(
        MODEL,
        steer=["mine.py:redness:2", "symmetry"],  # what the page opens with
        losses="losses",  # own losses to steer by
        most_pictures=16,  # of one job
        most_seconds=120,  # that a job may be forecast to take
    )
'''


def test_a_space_of_a_model_on_the_hub(
    hub: Hub, diffsteer: Diffsteer, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the model, which stays where it is; what sentences need is asked for."""
    from importlib.metadata import version

    opened(hub, monkeypatch, tmp_path)
    hub.repos["model", "alice/digits"] = Repo(files={name: (model / name).read_bytes() for name in files(model)})
    steer = ["--steer", 'clip="a red, red rose":2', "--clip", "openai/clip-vit-base-patch32"]
    ended = diffsteer("space", "alice/digits", "spaces/digits", *steer, "--json")
    said = json.loads(ended.out)
    place = tmp_path / "spaces" / "digits"
    assert files(place) == PLAIN == set(said["files"]) and said["model"] == "alice/digits"
    text = (place / "app.py").read_text()
    assert '\nMODEL = "alice/digits"\n' in text and 'steer=["clip=\\"a red, red rose\\":2"],' in text
    assert 'clip="openai/clip-vit-base-patch32"' in text and "losses" not in text
    assert (place / "requirements.txt").read_text().partition(CPU)[2] == f"diffsteer[app,clip]=={__version__}\n"
    assert front_matter(place) == {
        "title": "digits", "emoji": "🎨", "colorFrom": "green", "colorTo": "indigo", "sdk": "gradio", "sdk_version": version("gradio"),
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}", "app_file": "app.py", "pinned": False,
        "license": "cc-by-4.0", "models": ["alice/digits"], "suggested_hardware": "cpu-basic",
    }  # fmt: skip


def test_a_space_that_breaks_off_leaves_nothing(diffsteer: Diffsteer, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gradio() -> str:
        raise Mistake("no Gradio here")

    monkeypatch.setattr(space, "_gradio", no_gradio)
    before = tree(tmp_path)
    assert "no Gradio here" in diffsteer("space", "digits", "spaces").mistake()
    assert tree(tmp_path) == before


def test_what_cannot_be_is_told_and_nothing_is_written(diffsteer: Diffsteer, model: Path, losses: Path, tmp_path: Path) -> None:
    (losses / "mine.py").write_text(LOSS.replace(".mean(dim=(1, 2))", ".mean()"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "app.py").write_text("mine")
    before = tree(tmp_path)
    own = ["--losses", losses, "--steer", "mine.py:redness"]
    assert "one number for the whole batch" in diffsteer("space", "digits", "there", *own).mistake()
    assert "the page cannot open with this" in diffsteer("space", "digits", "there", "--steer", "hue=#ff0000").mistake()
    assert "functions of your own (with --losses)" in diffsteer("space", "digits", "there", "--steer", "mine.py:redness").mistake()
    assert "--losses nowhere is no folder" in diffsteer("space", "digits", "there", "--losses", "nowhere").mistake()
    assert "give a Hub id" in diffsteer("space", "digits", "there", "--clip", "digits").mistake()
    assert "full is there already" in diffsteer("space", "digits", "full").mistake()
    assert "give it a name" in diffsteer("space", "digits", ".").mistake()
    assert "no model at nowhere" in diffsteer("space", "nowhere", "there").mistake()
    (model / "unet" / "diffusion_pytorch_model.safetensors").rename(model / "unet" / "other.bin")
    assert diffsteer("space", "digits", "there").code == 2
    (model / "unet" / "other.bin").rename(model / "unet" / "diffusion_pytorch_model.safetensors")
    assert tree(tmp_path) == before


# ---- it is uploaded --------------------------------------------------------------------------------------------------


def test_a_pushed_space_is_the_folder(
    hub: Hub, diffsteer: Diffsteer, model: Path, losses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, what a person changed in it too, and nothing that lies beside it; again, it takes the place of the one before."""
    opened(hub, monkeypatch, tmp_path)
    assert diffsteer("space", "digits", "there", "--steer", "symmetry", "--losses", losses).code == 0
    place = tmp_path / "there"
    (place / ".env").write_text("hf_alice")
    (place / "losses" / "__pycache__").mkdir()
    (place / "losses" / "__pycache__" / "mine.pyc").write_text("hf_alice")
    going = {name: (place / name).read_bytes() for name in files(place) if not name.endswith((".env", ".pyc"))}
    would = diffsteer("push", "there", "digits", "--space", "--dry-run")
    assert (
        would.code == 0
        and would.last == "next: the same command without --dry-run"
        and "stays here: .env, losses/__pycache__/" in would.out
    )
    assert set(diffsteer("push", "there", "digits", "--space", "--dry-run", "--json").json()["files"]) == set(going) and hub.log == []
    ended = diffsteer("push", "there", "digits", "--space", "--private")
    assert (ended.code, ended.err) == (0, "") and ended.last == f"next: open {hub.endpoint}/spaces/alice/digits"
    there = hub.repos["space", "alice/digits"]
    assert there.private and there.sdk == "gradio" and ("model", "alice/digits") not in hub.repos
    assert {name: data for name, data in there.files.items() if name != ".gitattributes"} == going
    (place / "app.py").write_text((place / "app.py").read_text().replace("=16", "=8"))
    (place / "losses" / "helper.py").unlink()
    assert diffsteer("push", "there", "alice/digits", "--space", "--json").json()["changed"] is True
    assert b"most_pictures=8" in there.files["app.py"] and "losses/helper.py" not in there.files


def test_what_is_no_space_is_not_uploaded_and_none_of_anothers_replaced(
    hub: Hub, diffsteer: Diffsteer, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(hub, monkeypatch, tmp_path)
    assert "digits is no Space (app.py, requirements.txt missing)" in diffsteer("push", "digits", "digits", "--space").mistake()
    assert "nowhere is no Space" in diffsteer("push", "nowhere", "digits", "--space").mistake()
    assert diffsteer("space", "digits", "there").code == 0
    hub.repos["space", "alice/chat"] = Repo(sdk="gradio", files={"app.py": b"import gradio", "README.md": b""})
    assert "that Space is of something else than diffsteer" in diffsteer("push", "there", "chat", "--space").mistake()
    assert hub.repos["space", "alice/chat"].files["app.py"] == b"import gradio"
    hub.fail("POST", "/commit/")
    assert "run the same command to go on" in diffsteer("push", "there", "digits", "--space").err


# ---- it starts -------------------------------------------------------------------------------------------------------


def component(config: dict[str, Any], elem_id: str) -> dict[str, Any]:
    return dict(next(each["props"] for each in config["components"] if each["props"].get("elem_id") == elem_id))


def test_it_starts_with_python_and_opens_with_the_steer(model: Path, losses: Path, diffsteer: Diffsteer, tmp_path: Path) -> None:
    """The own loss is chosen, at its strength. On a Space it answers its proxy: to the names that SPACE_HOST gives and to no others."""
    assert diffsteer("space", model, "there", "--steer", "mine.py:redness:2", "--losses", losses).code == 0
    app = tmp_path / "there" / "app.py"
    app.write_text(app.read_text().replace("        MODEL,\n", f"        MODEL,\n        port={free_port()},\n"))
    before = files(tmp_path / "there")
    with running(START, tmp_path / "there", SPACE_HOST="alice-digits.hf.space,draw.example") as served:
        config = httpx.get(f"{served.address}/config", timeout=60, trust_env=False).json()
        for host, status in (("alice-digits.hf.space", 200), ("draw.example", 200), ("10.0.0.7:7860", 200), ("evil.example", 400)):
            head = {"host": host, "origin": f"https://{host}", "x-forwarded-proto": "https"}
            answer = httpx.get(f"{served.address}/config", headers=head, timeout=60, trust_env=False)
            assert answer.status_code == status, (host, answer.text[:200])
            assert status != 200 or answer.json()["root"] == f"https://{host}"
    by = component(config, "by")
    assert by["value"] == ["mine.py:redness"] and "mine.py:redness" in [value for _, value in by["choices"]]
    assert component(config, "own-strength")["value"] == 2.0 and component(config, "color-strength")["value"] == 1
    assert component(config, "each")["choices"][-1][1] == 16
    assert {name for name in files(tmp_path / "there") if "__pycache__" not in name} == before


def test_the_hubs_port_and_host_are_taken_where_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (_placed(AppSettings()).host, _placed(AppSettings()).port) == ("127.0.0.1", None)
    monkeypatch.setenv("SPACE_HOST", "alice-digits.hf.space")
    assert (_placed(AppSettings()).host, _placed(AppSettings()).port) == ("0.0.0.0", 7860)
    given = _placed(AppSettings(host="127.0.0.1", port=8000))
    assert (given.host, given.port) == ("127.0.0.1", 8000)


@pytest.mark.slow
def test_it_starts_in_a_fresh_environment(model: Path, losses: Path, diffsteer: Diffsteer, tmp_path: Path) -> None:
    """diffsteer from a wheel of its own, everything else as it is installed here: what requirements.txt asks for is all there."""
    assert diffsteer("space", model, "there", "--steer", "mine.py:redness", "--losses", losses).code == 0
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh"], check=True)
    python = str(tmp_path / "fresh" / "bin" / "python")
    (tmp_path / "fresh" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages" / "here.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("site-packages"))
    )
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--quiet"]
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("diffsteer-*.whl")
    subprocess.run([*pip, "--no-deps", "--ignore-installed", str(wheel)], check=True)
    subprocess.run([*pip, "-r", "requirements.txt"], cwd=tmp_path / "there", check=True)
    told = subprocess.run([python, "-c", "import diffsteer; print(diffsteer.__file__)"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith(str(tmp_path / "fresh"))
    with running([python, "app.py"], tmp_path / "there") as app:
        assert component(httpx.get(f"{app.address}/config", timeout=60, trust_env=False).json(), "by")["value"] == ["mine.py:redness"]


# ---- the page, and the whole story -----------------------------------------------------------------------------------


def test_the_pages_commands_run(
    hub: Hub, diffsteer: Diffsteer, trained: Path, losses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of docs/sharing.md about Spaces."""
    opened(hub, monkeypatch, tmp_path)
    shutil.copytree(trained, tmp_path / "runs" / "digits")
    (losses / "mine.py").write_text("def faint(pictures):\n    return pictures.mean(dim=(1, 2, 3)) / 0.05\n")
    losses.rename(tmp_path / "my_losses")
    page = (ROOT / "docs" / "sharing.md").read_text(encoding="utf-8")
    for line in page.split("## A Space")[1].split("```bash\n")[1].split("```")[0].splitlines():
        ended = diffsteer(*shlex.split(line)[1:])
        assert (ended.code, ended.err) == (0, ""), line
    assert ("space", "alice/digits") in hub.repos


STORY = """
finetune digits digits-color --out runs/tuned --steps 2 --batch-size 8 --preview-every 2 --figures none
sample runs/tuned --steer "my losses/mine.py:redness:2" --per-label 1 --out red.png
card runs/tuned --license mit --data-license cc-by-4.0
push runs/tuned tuned
space alice/tuned spaces/tuned --steer mine.py:redness:2 --losses "my losses"
push spaces/tuned tuned --space
"""


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.is_file(), reason="there is no Chromium here")
def test_from_fine_tuning_to_a_space_in_the_browser(
    hub: Hub, diffsteer: Diffsteer, model: Path, losses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuned, steered by a loss of one's own, described, pushed; what came to the Hub as a Space opens with that steer."""
    from playwright.sync_api import expect, sync_playwright

    opened(hub, monkeypatch, tmp_path)
    for line in STORY.strip().splitlines():
        ended = diffsteer(*shlex.split(line))
        assert ended.code == 0, (line, ended.err)
    there = tmp_path / "from the hub"
    for name, data in hub.repos["space", "alice/tuned"].files.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(data)
    home = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    shots = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    with running(START, there, **home) as app, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US").new_page()
        expect.set_options(timeout=180_000)
        for _ in range(2):  # a reload keeps it
            page.goto(app.address)
            expect(page.locator("#status")).to_contain_text("Drawn beforehand")
            expect(page.locator("#by").get_by_label("Own loss: mine.py:redness", exact=True)).to_be_checked()
            expect(page.locator("#own-strength input[type=number]")).to_have_value("2")
            expect(page.locator("#own-strength")).to_be_visible()
            expect(page.locator("#color")).to_be_hidden()
        expect(page.locator("#gallery .caption-label")).to_have_count(10)
        page.screenshot(path=shots / "space-1280.png", full_page=True)
        page.locator("#gallery .thumbnail-lg").first.click()
        expect(page.locator("#chosen")).to_contain_text(re.compile(r"loss \S+ → \S+"))
        page.locator("#same button.label-wrap").click()
        expect(page.locator("#command")).to_contain_text("diffsteer sample alice/tuned")
        expect(page.locator("#command")).to_contain_text("--steer losses/mine.py:redness:2")
        page.locator("#by").get_by_label("Own loss: mine.py:redness", exact=True).uncheck()
        expect(page.locator("#own-strength")).to_be_hidden()
        browser.close()
