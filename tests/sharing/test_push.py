"""`diffsteer push`, from a run folder to a stranger who loads the model by its name on the Hub and draws the same picture."""

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

import numpy as np
import pytest
from PIL import Image

from commandline import Diffsteer, tree
from diffsteer.errors import Mistake
from diffsteer.sampling.draw import Job, draw
from diffsteer.sampling.folder import load_model, pipeline_source
from diffsteer.sharing import card, check, pushing
from diffsteer.sharing.check import check_opens
from diffsteer.sharing.hub import sign_in
from sharing.hub import Hub

SmallModel = Callable[..., Path]
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # as in test_hub.py
MODEL = {"model_index.json", "diffsteer.json", "pipeline.py", "scheduler/scheduler_config.json", "unet/config.json"}
MODEL |= {"unet/diffusion_pytorch_model.safetensors"}


@pytest.fixture(autouse=True)
def short_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "SECONDS", 0.0)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run on the digits, in whose model folder lie things that are nobody's business."""
    place = Path(shutil.copytree(trained, tmp_path / "digits"))
    for name in ("optimizer.pt", ".env", "token", "samples/private.png", "unet/optimizer.safetensors.tmp", "copies.png"):
        (place / "model" / name).parent.mkdir(exist_ok=True)
        (place / "model" / name).write_text("hf_alice")
    return place


def there(hub: Hub, repo: str = "alice/digits") -> dict[str, bytes]:
    return {name: data for name, data in hub.repos["model", repo].files.items() if name != ".gitattributes"}


@pytest.mark.slow
def test_from_a_run_to_a_stranger(hub: Hub, diffsteer: Diffsteer, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushed, it holds the model and its card only; loaded by name, by us and by diffusers as the card says, it draws what it drew here."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    before = tree(run)
    ended = diffsteer("push", "digits", "digits", "--private")
    assert (ended.code, ended.err) == (0, "")
    assert ended.last == "next: diffsteer sample alice/digits --out pictures.png"
    assert "card     made digits/model/README.md, without a licence" in ended.out
    assert "checked  opens and draws in a clean process, with diffusers alone" in ended.out
    assert f"done     {hub.endpoint}/alice/digits (private)" in ended.out
    assert set(there(hub)) == MODEL | {"README.md", "samples.png"} and hub.repos["model", "alice/digits"].private
    assert set(tree(run)) - set(before) == {"model/README.md", "model/samples.png"}
    for name in MODEL:
        assert there(hub)[name] == (run / "model" / name).read_bytes(), name
    text = there(hub)["README.md"].decode()
    assert '"alice/digits"' in text and "USER/" not in text and "USER/digits" in (run / "model" / "README.md").read_text()

    command, ours, theirs, page = re.findall(r"```(?:bash|python)\n(.*?)\n```", text.split("## Data")[0], re.DOTALL)
    assert command.startswith("diffsteer sample alice/digits ") and page == "diffsteer app alice/digits"
    (tmp_path / "stranger.py").write_text(f"{ours}\n{theirs}\nmodel = diffsteer.load('alice/digits')\n{SAVES}")
    env = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_alice", "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    read = subprocess.run([sys.executable, "stranger.py"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr[-2000:]
    here = draw(load_model(str(run)), [Job(0, 0), Job(3, 5)]).pictures
    assert np.array_equal(np.load(tmp_path / "drawn.npy"), here.numpy())
    by_diffusers = np.asarray(Image.open(tmp_path / "picture.png")).astype(int)
    assert np.abs(by_diffusers - here[0, 0].numpy()).max() <= 1


SAVES = "import numpy\nnumpy.save('drawn.npy', diffsteer.sample(model, ['0', '3'], seeds=[0, 5]).pixels[[0, 3]].numpy())\n"


def test_what_would_be_uploaded_is_listed_first(hub: Hub, diffsteer: Diffsteer, run: Path) -> None:
    before = tree(run)
    ended = diffsteer("push", "digits", "digits", "--private", "--dry-run")
    assert ended.code == 0 and ended.last == "next: the same command without --dry-run"
    said = ended.out
    assert said.startswith("would go to digits, in your own namespace, private where it is new:\n")
    sizes = dict(re.findall(r"^  (\S+) +([\d.]+ \w+)$", said, re.MULTILINE))
    assert set(sizes) == MODEL and re.search(r"^  README\.md +to be made, with samples\.png: there is no card yet$", said, re.M)
    assert "stays here: .env, copies.png, optimizer.pt, samples/, token, unet/optimizer.safetensors.tmp" in said
    values = diffsteer("push", run / "model", "club/digits", "--dry-run", "--json").json()
    assert values["files"] == {name: (run / "model" / name).stat().st_size for name in values["files"]}
    assert set(values["files"]) == MODEL and values["repo"] == "club/digits" and values["card"] is False
    assert hub.log == [] and tree(run) == before


def test_a_card_that_is_there_is_sent_as_it_is(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written by hand, it stays so; code in the folder that is not ours neither runs nor goes."""
    monkeypatch.setattr(check, "STRANGER", "print('[8, 8]')")
    (run / "model" / "README.md").write_text("---\nlicense: mit\n---\n\n# By hand, for bob/other\n")
    (run / "model" / "pipeline.py").write_text("raise SystemExit('evil')")
    said: list[str] = []
    sent = pushing.push(str(run), "club/digits", sign_in(), say=said.append)
    assert sent.repo == "club/digits" and not sent.private
    files = there(hub, "club/digits")
    assert files["README.md"] == (run / "model" / "README.md").read_bytes() and "samples.png" not in files
    assert files["pipeline.py"].decode() == pipeline_source()
    assert any("pipeline.py was not the one that this diffsteer writes; its own goes instead" in line for line in said)
    assert said[-1].startswith(f"uploads  {len(files)} files, ")


def test_after_a_broken_connection_the_same_command_goes_on(
    hub: Hub, diffsteer: Diffsteer, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(check, "STRANGER", "print('[8, 8]')")
    hub.fail("POST", "/commit/")
    broken = diffsteer("push", "digits", "digits")
    assert broken.code == 1 and "run the same command to go on" in broken.err and broken.err.count("\n") == 1
    received = hub.received
    said = diffsteer("push", "digits", "digits", "--json").json()
    assert said["changed"] is True and said["commit"] == hub.repos["model", "alice/digits"].sha and hub.received == received > 0
    assert diffsteer("push", "digits", "digits", "--json").json()["changed"] is False


def test_the_pages_commands_run(hub: Hub, diffsteer: Diffsteer, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of docs/sharing.md; the first, which measures, runs in test_card.py."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(check, "STRANGER", "print('[8, 8]')")
    shutil.copytree(trained, tmp_path / "runs" / "digits")
    page = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text(encoding="utf-8")
    first, *lines = page.split("```bash\n")[1].split("```")[0].splitlines()
    assert first.startswith("diffsteer evaluate") and len(lines) == 3
    for line in lines:
        ended = diffsteer(*shlex.split(line)[1:])
        assert (ended.code, ended.err) == (0, ""), line
    assert "The data that it learnt from: `cc-by-4.0`." in there(hub)["README.md"].decode()


def test_mistakes_are_said_before_anything_is_sent(
    hub: Hub, diffsteer: Diffsteer, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(run)
    assert "HF_HUB_OFFLINE=1 forbids the network" in diffsteer("push", "digits", "digits").mistake()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "cannot be a name on the Hub" in diffsteer("push", "digits", "a/b/c").mistake()
    assert "There is no folder alice/digits here; push takes a run folder" in diffsteer("push", "alice/digits", "digits").mistake()
    (tmp_path / "empty").mkdir()
    assert "is no model" in diffsteer("push", "empty", "digits").mistake()
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    assert "does not know your token" in diffsteer("push", "digits", "digits").mistake()
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    for weights in (run / "model" / "unet").glob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))
    assert "as pickles never are" in diffsteer("push", "digits", "digits").mistake()
    after = {name: data for name, data in tree(run).items() if "diffusion_pytorch_model" not in name}
    assert after == {name: data for name, data in before.items() if "diffusion_pytorch_model" not in name}
    assert hub.repos == {}


def test_the_clean_process_finds_no_token_and_no_diffsteer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the folder's code would see of this computer."""
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    monkeypatch.setenv("MY_SECRET", "hf_alice")
    looks = (
        f"import json, os, sys; from huggingface_hub import get_token; from pathlib import Path\n"
        f"told = [get_token(), [key for key, value in os.environ.items() if 'hf_alice' in value], os.environ['HF_HUB_OFFLINE'], "
        f"str(Path.home()), os.getcwd()]\n"
        f"Path({str(tmp_path / 'told.json')!r}).write_text(json.dumps(told)); print('[8, 6]')"
    )
    monkeypatch.setattr(check, "STRANGER", looks)
    check_opens(tmp_path, labelled=True, size=(6, 8))
    token, secrets, offline, home, cwd = json.loads((tmp_path / "told.json").read_text())
    assert (token, secrets, offline) == (None, [], "1") and home == cwd and not Path(home).exists()
    with pytest.raises(Mistake, match="draws 6x8 instead of 8x8, so it was not uploaded"):
        check_opens(tmp_path, labelled=True, size=(8, 8))


def test_a_folder_that_opens_here_only_is_not_uploaded(small_model: SmallModel, hub: Hub, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_model(), tmp_path / "model"))
    scheduler: dict[str, Any] = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "NoSuchScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert load_model(str(folder)).spec.labelled and scheduler
    with pytest.raises(Mistake, match=r"does not open in diffusers alone, so it was not uploaded: .*NoSuchScheduler"):
        pushing.push(str(folder), "digits", sign_in(), say=lambda _: None)
    assert hub.repos == {}
