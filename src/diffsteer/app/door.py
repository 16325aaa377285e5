"""Which model the page draws with, and another one that comes in its place. No Gradio and no torch here."""

from __future__ import annotations

import threading
from collections.abc import Callable

from diffsteer.app.studio import Studio
from diffsteer.errors import Mistake

ANSWER = 1.0  # seconds in which an answer goes out before the page is served anew


class Door:
    """begin: starts the drawing process of a model. changes: set when another model waits to be let in."""

    def __init__(self, model: str, begin: Callable[[str], Studio]) -> None:
        self.model, self.studio = model, begin(model)
        self.changes = threading.Event()
        self._begin = begin
        self._next: tuple[str, Studio] | None = None
        self._lock = threading.Lock()  # held from when another model is asked for until it is there

    def open(self, model: str) -> None:
        """Loads a model, which then comes in place of the one that is there. Raises Mistake, Stopped; all stays as it is then."""
        if not self._lock.acquire(blocking=False):
            raise Mistake("Another model is being opened at this moment.")
        studio = None
        try:
            studio = self._begin(model)
            studio.about()
        except BaseException:
            if studio is not None:
                studio.close()
            self._lock.release()
            raise
        self._next = model, studio
        threading.Timer(ANSWER, self.changes.set).start()

    def let_in(self) -> None:
        """After `changes`: the other model is there from now on."""
        assert self._next is not None
        self.studio.close()
        (self.model, self.studio), self._next = self._next, None
        self.changes.clear()
        self._lock.release()

    def close(self) -> None:
        """Ends all drawing processes."""
        for studio in (self.studio, *([self._next[1]] if self._next else [])):
            studio.close()
