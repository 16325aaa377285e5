"""Uploading with huggingface_hub's own client to a Hub on this computer: what arrives, what does not, how it goes on, how it is refused."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from diffsteer.data import network
from diffsteer.errors import Mistake, Stopped
from diffsteer.sampling.folder import find_model
from diffsteer.sharing.hub import Kind, Place, Uploaded, check_name, find_place, left_here, listing, sign_in, upload
from sharing.hub import Hub, Repo, User

# huggingface_hub uploads a file in a way that its HTTP library would rather have otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

KIND = Kind("model", ("model_index.json", "mark.json", "unet/*.safetensors", "README.md", "LICENSE"), mark="mark.json")
SPACE = Kind("space", ("README.md", "app.py"), mark="app.py", sdk="gradio")
GOES = {
    "model_index.json": b"{}",
    "mark.json": b"{}",
    "unet/a.safetensors": b"weights" * 10_000,
    "README.md": b"---\nlicense: mit\n---\n\n# A model\n",
}
STAYS = {"optimizer.pt": b"o", "unet/a.bin": b"pickle", "previews/step-1.png": b"private", "token": b"hf_alice"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with things that go, and things that stay."""
    place = tmp_path / "model"
    for name, data in {**GOES, **STAYS}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return place


def send(folder: Path, repo: str = "things", private: bool = False, kind: Kind = KIND) -> Uploaded:
    return upload(folder, find_place(sign_in(), repo, kind, private), kind)


# ---- what arrives ----------------------------------------------------------------------------------------------------


def test_what_is_named_arrives_and_nothing_else(hub: Hub, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sent = send(folder, private=True)
    repo = hub.repos["model", "alice/things"]
    assert {name: data for name, data in repo.files.items() if name != ".gitattributes"} == GOES
    assert repo.private and sent.private and sent.changed
    assert (sent.repo, sent.url, sent.commit) == ("alice/things", f"{hub.endpoint}/alice/things", repo.sha)
    assert listing(folder, KIND) == {name: len(data) for name, data in GOES.items()}
    assert left_here(folder, KIND) == ["optimizer.pt", "previews/", "token", "unet/a.bin"]
    assert capfd.readouterr() == ("", ""), "the client keeps quiet where nobody watches"


def test_patterns_do_not_reach_deeper_than_they_say() -> None:
    assert KIND.allows("unet/b.safetensors") and KIND.allows("mark.json")
    assert not any(map(KIND.allows, ("deep/unet/a.safetensors", "deep/mark.json", "unet/a.bin", "a.safetensors", "unet/x/a.safetensors")))


def test_the_same_again_changes_nothing_and_sends_nothing(hub: Hub, folder: Path) -> None:
    first = send(folder)
    received, commits = hub.received, hub.asked("/commit/")
    second = send(folder)
    assert (second.changed, second.commit) == (False, first.commit)
    assert (hub.received, hub.asked("/commit/")) == (received, commits) and received == len(GOES["unet/a.safetensors"])


def test_what_an_earlier_model_left_is_taken_away_and_what_others_put_there_stays(hub: Hub, folder: Path) -> None:
    send(folder)
    repo = hub.repos["model", "alice/things"]
    repo.files |= {"unet/old.safetensors": b"old", "notes.txt": b"by hand", "LICENSE": b"by hand"}
    (folder / "mark.json").write_bytes(b"{2}")
    assert send(folder).changed
    assert set(repo.files) == {*GOES, ".gitattributes", "notes.txt", "LICENSE"} and repo.files["mark.json"] == b"{2}"


def test_an_organization_and_a_space(hub: Hub, tmp_path: Path) -> None:
    place = tmp_path / "space"
    place.mkdir()
    (place / "README.md").write_text("---\nsdk: gradio\n---\n")
    (place / "app.py").write_text("print()")
    sent = send(place, "club/app", kind=SPACE)
    repo = hub.repos["space", "club/app"]
    assert repo.sdk == "gradio" and set(repo.files) == {"README.md", "app.py", ".gitattributes"}
    assert sent.url == f"{hub.endpoint}/spaces/club/app"


# ---- going on --------------------------------------------------------------------------------------------------------


def test_after_a_broken_connection_the_same_again_goes_on(hub: Hub, folder: Path) -> None:
    """The weights have arrived; only the commit, which did not, is made."""
    hub.fail("POST", "/commit/")
    with pytest.raises(Stopped, match=r"The connection to .* broke while uploading .* run the same command to go on\."):
        send(folder)
    repo = hub.repos["model", "alice/things"]
    assert set(repo.files) == {".gitattributes"}, "all or nothing is to be seen"
    received = hub.received
    assert received == len(GOES["unet/a.safetensors"])
    assert send(folder).changed and hub.received == received
    assert {name: repo.files[name] for name in GOES} == GOES


def test_a_connection_that_breaks_in_the_middle_of_a_file_is_tried_again(hub: Hub, folder: Path) -> None:
    hub.fail("PUT", "/lfs/")
    send(folder)
    assert hub.repos["model", "alice/things"].files["unet/a.safetensors"] == GOES["unet/a.safetensors"]
    assert hub.asked("PUT /lfs/") == 2


BY_XET = """
import json, sys
from pathlib import Path
from diffsteer.errors import Stopped
from diffsteer.sharing.hub import Kind, find_place, sign_in, upload
kind = Kind(*json.loads(sys.argv[2]))
try:
    print(upload(Path(sys.argv[1]), find_place(sign_in(), "things", kind, False), kind).changed)
except Stopped as stopped:
    print(stopped)
"""


def test_large_files_go_by_xet_as_they_do_to_the_hub_itself(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """The client chooses Xet when it is imported, and keeps a memory of what it sent: both in a process and a home of its own."""
    weights = random.Random(0).randbytes(200_000)
    (folder / "unet" / "a.safetensors").write_bytes(weights)
    told = json.dumps([KIND.repo_type, KIND.files, KIND.mark])
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_XET_CACHE": str(tmp_path / "home" / "xet")}

    def sent() -> str:
        words = [sys.executable, "-c", BY_XET, str(folder), told]
        ended = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        assert ended.returncode == 0 and ended.stderr == "", ended.stderr
        return ended.stdout.strip()

    assert sent() == "True"
    repo = hub.repos["model", "alice/things"]
    assert repo.files["unet/a.safetensors"] == weights and hub.asked("PUT /lfs/") == 0 and hub.asked("POST /cas/v1/shards") == 1
    received = hub.received
    assert received >= len(weights)
    (folder / "mark.json").write_bytes(b"{2}")
    assert sent() == "True" and repo.files["mark.json"] == b"{2}"
    assert sent() == "False" and hub.received == received, "what is there is not sent again, nor talked about"
    hub.fail("GET", "/xet-write-token/", 404)
    assert re.fullmatch(r"The connection to .* broke while uploading \(.*404.*\)\. What arrived is kept there: run .*", sent())


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b/c", "-x", "a--b", "über/x", "a/b..c", "a b", "", "x" * 97])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(Mistake, match="cannot be a name on the Hub: write name or owner/name"):
        check_name(name)
    check_name("alice/digits-8x8_v1.0")


def test_what_is_missing_is_said_before_anything_heavy_is_loaded() -> None:
    code = "import sys, diffsteer.sharing.hub; sys.exit(bool({'torch', 'diffusers', 'datasets', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(Mistake, match=r"needs a token of yours, and none was found: .* set HF_TOKEN or run hf auth login"):
        sign_in()
    assert hub.log == []


def test_a_token_that_the_hub_does_not_know(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    with pytest.raises(Mistake, match="does not know your token") as told:
        sign_in()
    assert "hf_of_nobody" not in str(told.value)


def test_a_token_that_may_only_read(hub: Hub) -> None:
    hub.users["hf_alice"] = User("alice", role="read")
    with pytest.raises(Mistake, match="The token of alice may only read"):
        sign_in()


def test_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PATIENCE", 0.5)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Mistake, match=r"No network: http://127\.0\.0\.1:9 does not answer, so nothing was uploaded"):
        sign_in()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Mistake, match="HF_HUB_OFFLINE=1 forbids the network"):
        sign_in()


def test_the_name_space_of_somebody_else(hub: Hub, folder: Path) -> None:
    with pytest.raises(Mistake, match=r"You may not write to bob/things .*the token of alice may write at most in alice, club\."):
        send(folder, "bob/things")
    hub.repos["model", "bob/things"] = Repo()
    with pytest.raises(Mistake, match="You may not write to bob/things"):
        send(folder, "bob/things")
    assert set(hub.repos["model", "bob/things"].files) == {".gitattributes"}


def test_a_name_that_something_else_has(hub: Hub, folder: Path) -> None:
    hub.repos["model", "alice/things"] = Repo(files={"pytorch_model.bin": b"", "README.md": b"", "config.json": b""})
    before = dict(hub.repos["model", "alice/things"].files)
    with pytest.raises(Mistake, match=r"The name alice/things is taken: .* something else \(config.json, pytorch_model.bin\)"):
        send(folder)
    assert hub.repos["model", "alice/things"].files == before


def test_a_name_that_has_a_model_of_others_though_its_files_are_called_as_ours(hub: Hub, folder: Path) -> None:
    theirs = {"model_index.json": b"{}", "unet/a.safetensors": b"theirs", "README.md": b"# Butterflies"}
    hub.repos["model", "alice/things"] = Repo(files=dict(theirs))
    with pytest.raises(Mistake, match=r"The name alice/things is taken: .* something else \(model_index.json, unet/a.safetensors\)"):
        send(folder)
    assert theirs.items() <= hub.repos["model", "alice/things"].files.items()
    (folder / "mark.json").unlink()  # one that diffusers alone draws is known by its card
    (folder / "README.md").write_text("Made with diffsteer")
    assert send(folder, "other").changed
    (folder / "unet" / "a.safetensors").write_bytes(b"newer weights")
    assert send(folder, "other").changed


def test_a_name_that_is_taken_by_what_we_may_not_see(hub: Hub, folder: Path) -> None:
    hub.repos["model", "club/things"] = Repo()
    hub.fail("GET", "/api/models/club/things", 404)
    with pytest.raises(Mistake, match="The name club/things is taken"):
        send(folder, "club/things")


def test_an_empty_repository_made_on_the_web_is_no_stranger(hub: Hub, folder: Path) -> None:
    hub.repos["model", "alice/things"] = Repo(files={".gitattributes": b"", "README.md": b"", "LICENSE": b""})
    assert send(folder).changed


def test_private_does_not_go_into_what_is_public(hub: Hub, folder: Path) -> None:
    send(folder)
    with pytest.raises(Mistake, match="is there already and is public, so --private would not hide this"):
        send(folder, private=True)


def test_what_is_private_stays_private(hub: Hub, folder: Path) -> None:
    send(folder, private=True)
    (folder / "mark.json").write_bytes(b"{2}")
    sent = send(folder)
    assert sent.private and sent.changed and hub.repos["model", "alice/things"].private


def test_a_card_that_the_hub_does_not_take(hub: Hub, folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: my own\n---\n")
    with pytest.raises(Mistake, match=r'The Hub does not take this: .*"license" must be one of'):
        send(folder)
    assert hub.received == 0


@pytest.mark.parametrize(
    ("path", "status", "kind", "said"),
    [
        ("/preupload/", 403, Mistake, r"You may not write to alice/things \(it says: no more rights\)"),
        ("/commit/", 413, Mistake, r"The Hub refused while uploading: status 413 \(it says: no more rights\)\."),
        ("/commit/", 503, Stopped, r"could not go on while uploading: status 503 .* Run the same command later"),
        ("/repos/create", 429, Stopped, "could not go on while looking for the repository: status 429"),
    ],
)
def test_refusals_are_told_in_a_sentence(hub: Hub, folder: Path, path: str, status: int, kind: type[Exception], said: str) -> None:
    hub.fail("POST", path, status, "no more rights.")
    with pytest.raises(kind, match=said) as told:
        send(folder)
    assert "hf_alice" not in str(told.value) and "\n" not in str(told.value)


def test_a_refusal_in_the_middle_of_a_file(hub: Hub, folder: Path) -> None:
    hub.fail("PUT", "/lfs/", 403, "quota")
    with pytest.raises(Mistake, match="You may not write to alice/things"):
        send(folder)
    place = find_place(sign_in(), "things", KIND, False)
    assert isinstance(place, Place) and place.files == (".gitattributes",)


# ---- what is fetched from it -----------------------------------------------------------------------------------------


def test_a_hub_that_is_busy_is_no_missing_folder(hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send(folder)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    hub.fail("GET", "/api/models/alice/things", 503, "come back later", times=100)
    with pytest.raises(Stopped, match=r"The Hub did not send alice/things \(.*503.*\)\. Try again"):
        find_model("alice/things")


def test_a_model_that_is_not_there(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(Mistake, match="The Hub has no model alice/nothing"):
        find_model("alice/nothing")
