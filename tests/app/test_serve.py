"""Who may come in, and what the command does with what cannot be: `diffsteer app` before and at its start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.serving import served
from commandline import Diffsteer
from diffsteer.app.serve import PAUSE, TRIES, Login, _absolute, _for_others
from diffsteer.config import AppSettings


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs/d", "--share"], "--share opens the app to everyone who has the link, so it needs a login"),
        (["runs/d", "--auth", "me:short"], "at least 8 letters"),
        (["runs/d", "--auth", ":long enough"], "--auth is NAME"),
        (["runs/d", "--losses", "nowhere"], "--losses nowhere is no folder"),
        (["runs/d", "--port", "70000"], "--port"),
        (["runs/d", "--most-pictures", "0"], "--most-pictures"),
        (["runs/d", "--allow-host", "https://draw.example"], "give the name alone"),
        (["runs/d", "--allow-host", "draw.example:80"], "give the name alone"),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(diffsteer: Diffsteer, words: list[str], said: str) -> None:
    assert said in diffsteer("app", *words).mistake()


def test_a_model_that_is_none_is_told_of_and_everything_put_back(
    diffsteer: Diffsteer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "own"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "own").mkdir()
    before = dict(os.environ)
    assert "no model at nowhere" in diffsteer("app", "./nowhere").mistake().replace("./", "").replace(f"{tmp_path}/", "")
    assert list((tmp_path / "own").glob("diffsteer*")) == [] and Path.cwd() == tmp_path and dict(os.environ) == before


def test_without_gradio_it_says_how_to_get_it(diffsteer: Diffsteer, small_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffsteer.app.serve.find_spec", lambda name: None)
    assert "The app needs Gradio, which is not installed: pip install 'diffsteer[app]'." in diffsteer("app", small_model()).mistake()


def test_a_wrong_name_beside_runs_is_no_hub_id(tmp_path: Path) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    for name in ("runs/one", "runs/typo", "./nowhere"):
        assert Path(found := _absolute(name, tmp_path)).is_absolute() == (name != "./nowhere"), found
    assert _absolute("google/ddpm-cifar10-32", tmp_path) == "google/ddpm-cifar10-32"


def test_wrong_logins_are_slowed_down() -> None:
    now = [0.0]
    login = Login("me", "a password", clock=lambda: now[0])
    assert login("me", "a password") and not login("me", "another") and not login("you", "a password")
    login = Login("me", "a password", clock=lambda: now[0])
    assert [login("me", str(number)) for number in range(TRIES)] == [False] * TRIES
    assert not login("me", "a password")  # none is looked at now
    now[0] = PAUSE + 1
    assert login("me", "a password")


def test_without_a_login_nothing_is_told(small_model: Any, tmp_path: Path) -> None:
    model = Path(os.path.relpath(small_model(), tmp_path))  # told from where the command was given
    limits = ["--most-steps", "2", "--most-pictures", "3", "--allow-host", "Draw.example"]
    with served(model, tmp_path, "--auth", "me", *limits) as app:
        (login,) = [line for line in app.said if line.startswith("login")]
        password = login.split("password ")[1].split()[0]
        assert len(password) >= 12
        with httpx.Client(base_url=app.address, timeout=60, trust_env=False) as client:
            for path in ("/config", "/gradio_api/info", "/gradio_api/file=/etc/passwd", "/gradio_api/openapi.json"):
                assert client.get(path).status_code == 401, path
            for path in ("/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/component_server"):
                assert client.post(path, json={"data": [], "fn_index": 0, "session_hash": "x"}).status_code in (401, 422), path
            page = client.get("/?lang=en")
            assert str(app.folder) not in page.text
            assert client.post("/login", data={"username": "me", "password": "a guess"}).status_code == 400
            assert client.post("/login", data={"username": "me", "password": password}).status_code == 200
            # with it, and under the name that was allowed, the page opens within its limits
            config = client.get("/config", headers={"host": "draw.example"}).json()
            assert client.get("/config", headers={"host": "evil.example"}).status_code == 400
            props = {each["props"].get("elem_id"): each["props"] for each in config["components"]}
            assert props["steps"]["value"] == 2 and [value for _, value in props["each"]["choices"]] == [1, 2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("beyond", [{"host": "0.0.0.0"}, {"share": True}, {"allow_host": ("draw.example.org",)}])
def test_people_of_other_machines_are_reckoned_with(beyond: dict[str, Any]) -> None:
    """Through a proxy too, which asks from this machine."""
    assert not _for_others(AppSettings()) and _for_others(AppSettings(**beyond))
