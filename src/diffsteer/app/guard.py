"""What a request must be before Gradio sees it: sent to a host that is ours, by no foreign page, and not too large.

Plain ASGI, so that streams go on streaming. It closes what Gradio 6.31 leaves open: any Host is answered (DNS rebinding), the Origin of a
foreign page is let through where the Host is not loopback, and only single uploads have a limit.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Hosts:
    """Names that a request may be sent to. Served beyond loopback, an address is one too: rebinding needs a name of the attacker's, and
    an address leads to nobody else. `add` is for names that are known later, as a share link's."""

    def __init__(self, bound: str) -> None:
        self.names = set(LOOPBACK)
        self.beyond = bound not in LOOPBACK
        if self.beyond:
            self.names |= {bound.lower(), socket.gethostname().lower()}

    def add(self, name: str) -> None:
        self.names.add(name.lower())

    def __contains__(self, host: str) -> bool:
        return host in self.names or (self.beyond and _is_address(host))


class Guard:
    """ASGI middleware. most: bytes of a request's body."""

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: Hosts, most: int) -> None:
        self.app, self.hosts, self.most = app, hosts, most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # none is spoken here
            return
        refused = self._refused(scope)
        if refused is not None:
            await _answer(send, *refused)
            return
        counted = _Counted(receive, send, self.most)
        with suppress(_TooLarge):
            await self.app(scope, counted.receive, counted.send)
        if counted.too_large and not counted.answered:
            await _answer(send, 413, "The request is too large.")

    def _refused(self, scope: Message) -> tuple[int, str] | None:
        """The status and the words of a request that goes no further."""
        head = {key.decode("latin1").lower(): value.decode("latin1") for key, value in scope["headers"]}
        host = head.get("host", "")
        if host_name(host) not in self.hosts:
            return 400, "This address is not served here."
        origin = head.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return 403, "Another page may not ask here."
        length = head.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.most:
            return 413, "The request is too large."
        return None


class _TooLarge(Exception):
    pass


class _Counted:
    """Counts what is received, whatever the header said; remembers whether an answer has begun."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send, self.most = receive, send, most
        self.seen, self.answered = 0, False

    @property
    def too_large(self) -> bool:
        return self.seen > self.most

    async def receive(self) -> Message:
        message = await self._receive()
        self.seen += len(message.get("body", b""))
        if self.too_large:
            raise _TooLarge
        return message

    async def send(self, message: Message) -> None:
        if self.too_large and not self.answered:
            return  # what the app makes of a broken body; ours is the answer
        self.answered = True
        await self._send(message)


def host_name(host: str) -> str:
    """`localhost:7860` -> `localhost`, `[::1]:7860` -> `::1`; in lower case."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _answer(send: Send, status: int, words: str) -> None:
    body = words.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
