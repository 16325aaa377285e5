"""The page in the browser's own language: who opens `/` and reads Chinese first is led to `/zh`. A choice made by the link stays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

CHINESE = "/zh"
CHOSEN = b"lang="  # in the address, once somebody has chosen


class ByLanguage:
    """ASGI middleware."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/" and CHOSEN not in scope["query_string"]:
            header = dict(scope["headers"]).get(b"accept-language", b"").decode("latin1")
            if first_language(header) == "zh":
                query = scope["query_string"]
                place = CHINESE.encode() + (b"?" + query if query else b"")
                await send({"type": "http.response.start", "status": 307, "headers": [(b"location", place), (b"vary", b"accept-language")]})
                await send({"type": "http.response.body", "body": b""})
                return
        await self.app(scope, receive, send)


def first_language(header: str) -> str:
    """`zh-CN,zh;q=0.9,en;q=0.8` -> `zh`: the primary tag of what is wanted most."""
    best, wanted = "", 0.0
    for piece in header.split(","):
        tag, _, weight = piece.strip().partition(";q=")
        try:
            quality = float(weight) if weight else 1.0
        except ValueError:
            continue
        if tag and quality > wanted:
            best, wanted = tag.split("-")[0].lower(), quality
    return best
