"""Is the Hub there? Asked once and quickly; any answer counts, silence does not."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub.errors import HTTPError

from diffsteer.data import network
from diffsteer.data.network import fetching, require_hub
from diffsteer.errors import Mistake, Stopped


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A stand-in for the Hub that answers with the status in the list, or waits when the list is empty."""
    statuses: list[int] = []
    silence = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if not statuses:
                silence.wait(10)
                return
            self.send_response(statuses[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name in ("http_proxy", "HTTP_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield statuses
    silence.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [200, 404, 503])
def test_any_answer_counts(hub: list[int], status: int) -> None:
    hub.append(status)
    require_hub("a data set")
    assert network.answers(network.hub_endpoint())


def test_silence_does_not(hub: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PATIENCE", 0.2)
    with pytest.raises(Mistake, match=r"No network: .* does not answer, so a data set cannot be fetched"):
        require_hub("a data set")


def test_working_offline_on_purpose_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(network, "answers", lambda endpoint: bool(asked.append(endpoint)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    require_hub("a data set")
    assert asked == []


def test_what_breaks_while_it_is_fetched_is_told_in_a_sentence() -> None:
    for error in (HTTPError("the line went dead"), ConnectionResetError("the line went dead")):
        with (
            pytest.raises(Stopped, match=r"did not send all of a/b \(the line went dead\)\. Try again; what has arrived is kept"),
            fetching("a/b"),
        ):
            raise error
