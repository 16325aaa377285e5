"""The running app, asked over HTTP as nobody's page would: other hosts, other pages, large bodies, paths that climb, forged files."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.serving import Served, bomb


@pytest.fixture
def client(app: Served) -> Any:
    with httpx.Client(base_url=app.address, timeout=60, trust_env=False) as made:
        yield made


def component(config: dict[str, Any], elem_id: str) -> int:
    return int(next(each["id"] for each in config["components"] if each["props"].get("elem_id") == elem_id))


def event(config: dict[str, Any], elem_id: str, name: str) -> dict[str, Any]:
    """The event of a component on the English page."""
    wanted = [component(config, elem_id), name]
    return dict(next(each for each in config["dependencies"] if wanted in [list(target) for target in each["targets"]]))


def predict(client: httpx.Client, fn: int, *data: Any) -> httpx.Response:
    body = {"data": list(data), "fn_index": fn, "trigger_id": None, "session_hash": "a-test", "event_data": None}
    return client.post("/gradio_api/run/predict", json=body)


def drawn(client: httpx.Client, fn: int, data: list[Any], session: str) -> list[Any]:
    """What a queued event sends until it is over."""
    body = {"data": data, "fn_index": fn, "trigger_id": None, "session_hash": session, "event_data": None}
    joined = client.post("/gradio_api/queue/join", json=body)
    assert joined.status_code == 200, joined.text
    said = []
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                said.append(json.loads(line[5:]))
                if said[-1]["msg"] in ("process_completed", "close_stream"):
                    return said
    return said


# ---- who asks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/zh"])
def test_another_host_gets_nothing(client: httpx.Client, path: str) -> None:
    answer = client.get(path, headers={"host": "evil.example"})
    assert answer.status_code == 400 and "diffsteer" not in answer.text


def test_another_page_can_neither_upload_nor_start_a_job(app: Served, client: httpx.Client) -> None:
    for origin in ("http://evil.example", "null", app.address.replace("127.0.0.1", "localhost")):
        head = {"origin": origin}
        assert client.post("/gradio_api/upload", files={"files": ("a.png", b"x")}, headers=head).status_code == 403
        assert client.post("/gradio_api/queue/join", json={}, headers=head).status_code == 403
        answer = client.get("/config", headers=head)
        assert answer.status_code == 403 and "diffsteer" not in answer.text
    assert client.get("/config", headers={"origin": app.address}).status_code == 200


def test_a_body_has_a_limit(client: httpx.Client) -> None:
    large = b"x" * 3_000_000  # the app takes uploads of one megabyte
    assert client.post("/gradio_api/upload", files={"files": ("a.png", large)}).status_code == 413
    assert client.post("/gradio_api/upload", files=[("files", (f"{i}.png", large[:900_000])) for i in range(5)]).status_code == 413
    assert client.post("/gradio_api/queue/join", content=b'{"data":["' + large + b'"]}').status_code == 413

    def chunks() -> Any:
        for _ in range(40):
            yield b"x" * 100_000

    head = {"content-type": "multipart/form-data; boundary=b"}
    with suppress(httpx.HTTPError):  # hung up on in the middle
        assert client.post("/gradio_api/upload", content=chunks(), headers=head).status_code in (400, 413)
    assert client.get("/config").status_code == 200


# ---- files -----------------------------------------------------------------------------------------------------------


def test_no_file_but_what_was_drawn_is_handed_out(app: Served, client: httpx.Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"a secret")
    (tmp_path / "link.png").symlink_to(secret)
    config = client.get("/config").json()
    assert str(app.folder) not in json.dumps(config)
    climbing = [
        "/etc/passwd", str(secret), str(tmp_path / "link.png"), f"{app.folder}/../secret.png", "../../../../etc/passwd",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "/proc/self/environ", "//evil.example/a.png",
        "a.png::$DATA", "\\\\evil\\a.png", "http://evil.example/a.png", __file__,
    ]  # fmt: skip
    for path in climbing:
        for start in ("/gradio_api/file=", "/file=", "/static/", "/assets/", "/gradio_api/stream/", "/custom_component/"):
            answer = client.get(start + path, follow_redirects=False)
            assert answer.status_code >= 400 or "location" not in answer.headers or answer.headers["location"].startswith(app.address), path
            assert b"a secret" not in answer.content and b"root:" not in answer.content, (start, path)
            assert answer.status_code != 200 or b"<!doctype html>" in answer.content[:200].lower(), (start, path)


def test_a_forged_file_is_not_read(client: httpx.Client, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8), "red").save(tmp_path / "mine.png")
    config = client.get("/config").json()
    for elem_id, name in (("upload", "change"), ("recipe", "upload")):
        fn = event(config, elem_id, name)["id"]
        for path in ("/etc/passwd", str(tmp_path / "mine.png"), "../../etc/passwd"):
            answer = predict(client, fn, {"path": path, "meta": {"_type": "gradio.FileData"}})
            assert answer.status_code >= 400 and "root:" not in answer.text and "base64" not in answer.text


def test_no_address_is_fetched(client: httpx.Client) -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"

        def listen() -> None:
            try:
                while True:
                    connection, _ = listener.accept()
                    asked.append(connection.recv(100))
                    connection.close()
            except TimeoutError:
                return

        thread = threading.Thread(target=listen)
        thread.start()
        fn = event(client.get("/config").json(), "upload", "change")["id"]
        for data in ({"path": address, "url": address}, {"path": "a.png", "url": address}):
            assert predict(client, fn, {**data, "meta": {"_type": "gradio.FileData"}}).status_code >= 400
        assert client.get(f"/gradio_api/proxy={address}").status_code >= 400
        thread.join()
    assert asked == []


@pytest.mark.parametrize("what", ["bomb", "text", "svg"])
def test_an_upload_that_is_no_picture_to_use_is_told_of(client: httpx.Client, tmp_path: Path, what: str) -> None:
    path = tmp_path / "cat.png"
    if what == "bomb":
        bomb(path)
    else:
        path.write_bytes({"text": b"I am no picture", "svg": b"<svg onload='alert(1)'/>"}[what])
    held = client.post("/gradio_api/upload", files={"files": (path.name, path.read_bytes())}).json()[0]
    fn = event(client.get("/config").json(), "upload", "change")["id"]
    answer = predict(client, fn, {"path": held, "orig_name": "cat.png", "meta": {"_type": "gradio.FileData"}})
    assert answer.status_code == 200
    said = answer.json()["data"][0]
    assert "status wrong" in said and ("9400×9400" if what == "bomb" else "cat.png is no PNG") in said


# ---- what is not there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/monitoring", "/gradio_api/runs", "/gradio_api/mcp/"])
def test_nothing_else_is_served(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (401, 403, 404, 405) or "<!doctype html>" in answer.text[:200].lower()
    assert "fn_index" not in answer.text or "<!doctype html>" in answer.text[:200].lower()


def test_no_function_is_offered_to_programs(client: httpx.Client) -> None:
    config = client.get("/config").json()
    assert {each["api_visibility"] for each in config["dependencies"]} == {"private"}
    info = client.get("/gradio_api/info").json()
    assert info["named_endpoints"] == {} and info["unnamed_endpoints"] == {}
    fn = event(config, "draw", "click")["id"]
    assert predict(client, fn).status_code >= 400  # what draws goes through the queue, and so through the desk


def test_values_from_outside_are_told_of_and_hurt_nobody(client: httpx.Client) -> None:
    config = client.get("/config").json()
    draw = event(config, "draw", "click")
    inputs = [next(each["props"] for each in config["components"] if each["id"] == one) for one in draw["inputs"]]

    def values(**changed: Any) -> list[Any]:
        """The page as it opens, one picture, and what is changed: by the control's name on the page."""
        return [{"labels": ["3"], "steps": 4, **changed}.get(str(each.get("elem_id")), each.get("value")) for each in inputs]

    said = drawn(client, draw["id"], values(steps=10**6), "one")
    assert any("Steps are from 1 to 250 here" in json.dumps(each) for each in said)
    said = drawn(client, draw["id"], values(by=["clip"], sentence="/etc/passwd|cat.png"), "two")
    assert any("ends like the name of a picture file" in json.dumps(each) for each in said)
    for wrong in ({"labels": ["eleven"]}, {"by": ["../../evil.py:f"]}, {"each": 7}, {"solver": "nothing"}):
        said = drawn(client, draw["id"], values(**wrong), f"three-{wrong}")
        assert not any(".png" in json.dumps(each) for each in said), wrong
    said = drawn(client, draw["id"], values(), "four")
    assert "part-1/00000-3-seed0.png" in json.dumps(said)
