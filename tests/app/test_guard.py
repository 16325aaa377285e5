"""The guard, without Gradio: who may ask, from where, and how much; and which language a browser is led to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from diffsteer.app.guard import Guard, Hosts
from diffsteer.app.language import ByLanguage, first_language

MOST = 100


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads the whole body, and answers 200 with its length."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def asked(
    app: Any, method: str = "GET", path: str = "/", query: str = "", chunks: tuple[bytes, ...] = (b"",), **headers: str
) -> dict[str, Any]:
    """What is answered: status, headers, body."""
    scope = {
        "type": "http", "method": method, "path": path, "query_string": query.encode(),
        "headers": [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()],
    }  # fmt: skip
    waiting = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    waiting[-1]["more_body"] = False
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    head = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return {"status": sent[0]["status"], "body": b"".join(message.get("body", b"") for message in sent[1:]), **head}


def guard(bound: str = "127.0.0.1") -> Guard:
    return Guard(echo, Hosts(bound), MOST)


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860"])
def test_our_own_names_are_answered(host: str) -> None:
    assert asked(guard(), host=host)["status"] == 200
    assert asked(guard(), "POST", host=host, origin=f"http://{host}")["status"] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:7860", "192.168.1.7", "", "localhost.evil.example:80"]
)
def test_another_host_is_not_served(host: str) -> None:
    assert asked(guard(), host=host)["status"] == 400


def test_beyond_loopback_an_address_is_a_name_and_a_foreign_name_is_not() -> None:
    open_to_all = guard("0.0.0.0")
    assert asked(open_to_all, host="192.168.1.7:7860")["status"] == 200
    assert asked(open_to_all, host="[fe80::1]:7860")["status"] == 200
    assert asked(open_to_all, host="evil.example")["status"] == 400
    open_to_all.hosts.add("abc.gradio.live")
    assert asked(open_to_all, host="abc.gradio.live")["status"] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:9999", "https://127.0.0.1.evil.example", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_foreign_page_may_not_ask(method: str, origin: str) -> None:
    assert asked(guard(), method, host="127.0.0.1:7860", origin=origin)["status"] == 403


def test_a_body_has_a_limit_whatever_it_says_of_itself() -> None:
    fits = asked(guard(), "POST", chunks=(b"x" * 60, b"x" * 40), host="localhost")
    assert (fits["status"], fits["body"]) == (200, b"100")
    assert asked(guard(), "POST", host="localhost", content_length="101")["status"] == 413
    assert asked(guard(), "POST", host="localhost", content_length="-1")["status"] == 413
    assert asked(guard(), "POST", chunks=(b"x" * 60, b"x" * 41), host="localhost")["status"] == 413
    lying = asked(guard(), "POST", chunks=(b"x" * 60, b"x" * 41), host="localhost", content_length="5")
    assert lying["status"] == 413 and b"too large" in lying["body"]


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh", "zh"),
        ("en;q=0.5, zh-HK", "zh"),
        ("en-US,zh;q=0.9", "en"),
        ("de,zh;q=x", "de"),
        ("", ""),
        ("*;q=0.5", "*"),
    ],
)
def test_the_language_that_is_wanted_most(header: str, language: str) -> None:
    assert first_language(header) == language


def test_a_chinese_browser_is_led_to_the_chinese_page_unless_it_chose() -> None:
    app = ByLanguage(echo)
    led = asked(app, query="a=1", accept_language="zh-TW")
    assert (led["status"], led["location"], led["vary"]) == (307, "/zh?a=1", "accept-language")
    assert asked(app, query="lang=en", accept_language="zh")["status"] == 200
    assert asked(app, path="/config", accept_language="zh")["status"] == 200
    assert asked(app, accept_language="en")["status"] == 200
