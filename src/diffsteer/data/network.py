"""One quick question before anything is asked of the Hub: is it there? Its own retries would take half a minute to say no."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request

from diffsteer.errors import Mistake

PATIENCE = 5.0  # seconds, looking up the name included


def require_hub(what: str, instead: str = "Give something that is on this computer") -> None:
    """Return when the Hub answers, or when HF_HUB_OFFLINE=1 says to use the copies downloaded before. Mistake otherwise."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not _answers(endpoint):
        raise Mistake(
            f"No network: {endpoint} does not answer, so {what} cannot be fetched. "
            f"{instead}, or set HF_HUB_OFFLINE=1 if it was downloaded before."
        )


def _answers(endpoint: str) -> bool:
    answered = threading.Event()
    # Looking up a name has no time limit of its own, so the question is asked from a thread that may be left behind.
    question = threading.Thread(target=_ask, args=(endpoint, answered), daemon=True)
    question.start()
    question.join(PATIENCE)
    return answered.is_set()


def _ask(endpoint: str, answered: threading.Event) -> None:
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PATIENCE):
            answered.set()
    except urllib.error.HTTPError:
        answered.set()  # an answer, if not a friendly one
    except (OSError, ValueError):
        pass
