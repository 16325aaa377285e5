"""One quick question before anything is asked of the Hub: is it there? Its own retries would take half a minute to say no."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from diffsteer.errors import Mistake, Stopped

PATIENCE = 5.0  # seconds, looking up the name included


def hub_endpoint() -> str:
    """Where the Hub is; HF_ENDPOINT may name another than huggingface.co, as huggingface_hub has it."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Whether HF_HUB_OFFLINE=1 forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def require_hub(what: str, instead: str = "Give something that is on this computer") -> None:
    """Return when the Hub answers, or when HF_HUB_OFFLINE=1 says to use the copies downloaded before. Mistake otherwise."""
    endpoint = hub_endpoint()
    if not offline() and not answers(endpoint):
        raise Mistake(
            f"No network: {endpoint} does not answer, so {what} cannot be fetched. "
            f"{instead}, or set HF_HUB_OFFLINE=1 if it was downloaded before."
        )


@contextmanager
def fetching(model: str) -> Iterator[None]:
    """Around what huggingface_hub downloads of a model: its refusals in a sentence. Raises Mistake, and Stopped where it broke off."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        yield
    except RepositoryNotFoundError:
        raise Mistake(f"The Hub has no model {model} (or it is private and you are not logged in).") from None
    except LocalEntryNotFoundError as error:
        if offline():
            raise Mistake(f"There is no folder {model}, and the Hub's copy was not downloaded before.") from None
        raise Stopped(f"The Hub did not send {model} ({_cause(error)}). Try again; what has arrived is kept.") from None
    except HFValidationError:
        raise Mistake(f"{model} is neither a folder nor a Hub id.") from None
    except (HfHubHTTPError, HTTPError, TimeoutError, ConnectionError) as error:
        raise Stopped(f"The Hub did not send all of {model} ({_cause(error)}). Try again; what has arrived is kept.") from None


def _cause(error: BaseException) -> str:
    """What was at the bottom of an error, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def answers(endpoint: str) -> bool:
    """Whether anything there answers, in whatever words, within PATIENCE."""
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
