"""How the page answers: the two kinds of events, the status line, and errors in words."""

from __future__ import annotations

import html
import logging
import zlib
from typing import Any

from diffsteer.app.desk import Full
from diffsteer.app.studio import Lost
from diffsteer.app.words import Said, Say
from diffsteer.errors import Mistake, Stopped

# Light events: answered at once, and not to be called by programs.
LIGHT: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
# Events that follow something: each waits without a thread.
LONG: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}

Update = dict[Any, Any]


def status(words: str, wrong: bool = False) -> str:
    """A line that screen readers say when it changes; `wrong` by a sign and a colour."""
    return (
        f'<div class="status{" wrong" if wrong else ""}" role="status" aria-live="polite">{"⚠ " if wrong else ""}{html.escape(words)}</div>'
    )


def told(error: BaseException, say: Say) -> str:
    """An error in words for the page; one that is nobody's mistake is logged under a code."""
    if isinstance(error, Said):
        return error.told(say)
    if isinstance(error, Mistake | Stopped):
        return str(error)
    if isinstance(error, Full):
        return say("state.full", waiting=error.waiting, own=error.own)
    if isinstance(error, Lost):
        return say("state.killed" if error.killed else "state.lost")
    code = f"{zlib.crc32(str(error).encode()) % 16**4:04x}"
    logging.getLogger("diffsteer.app").error("code %s: %s", code, error)
    return say("state.broke", code=code)
