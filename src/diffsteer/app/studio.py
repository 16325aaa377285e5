"""The drawing process, as the page's process sees it: started, spoken to, and started again when it was lost. Loads no torch.

Drawing runs beside the page, so that what happens there (a loss of the user's that runs wild, no memory left) ends a job and not the app.
`worker.py` is the other end of the pipe.
"""

from __future__ import annotations

import multiprocessing
import secrets
import signal
import threading
import time
from collections.abc import Generator, Iterator
from multiprocessing.connection import Connection
from typing import Any

from diffsteer.app.commission import About, Commission
from diffsteer.app.desk import TURN, Job
from diffsteer.errors import Mistake, Stopped

BEAT = 0.05  # seconds between two looks at whether a job should stop
PATIENCE = 30.0  # seconds that a job may take to stop, which it does after a step, before its process is ended and another begun


class Lost(Exception):
    """The drawing process ended in the middle of a job; `code` is its exit code, negative for a signal."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the drawing process ended with {code}")
        self.code = code

    @property
    def killed(self) -> bool:
        """Whether something put an end to it from outside, as the system does where memory runs out."""
        return self.code is not None and -self.code in (signal.SIGKILL, signal.SIGTERM)


class Broke(Exception):
    """The job raised something that is no Mistake; the text is its traceback."""


class Studio:
    """The drawing process of one model. clip: a CLIP that it should have at hand."""

    def __init__(self, model: str, device: str, clip: str | None = None) -> None:
        self.model, self.clip = model, clip
        self._arguments = (model, device, clip)
        self._process: Any = None
        self._pipe: Connection | None = None
        self._about: About | None = None
        self._generation = 0
        self._closed = False
        self._lock = threading.Lock()  # the desk's thread may start a process while another closes all

    def start(self) -> None:
        """Starts the process, unless all was closed; what it needs to load it loads while others do something else."""
        with self._lock:
            if self._closed:
                return
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(theirs, *self._arguments), name="drawing", daemon=True)
            self._process.start()
            theirs.close()
            self._generation += 1
            self._about = None

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def about(self) -> About:
        """Waits until the model is loaded. Raises Mistake, Stopped."""
        if self._about is None:
            try:
                kind, value = self._hear()
            except Lost as error:
                raise Stopped(f"The drawing process ended (exit code {error.code}) while it loaded {self.model}.") from None
            if kind == "mistake":
                self._process.terminate()  # it does nothing more; the next job starts another, which may find what this one did not
                self._process.join(timeout=5)
                raise Mistake(value)
            self._about = value
        return self._about

    def job(self, commission: Commission) -> Job:
        """A job for the desk: yields `Shown`, and TURN between batches. Raises Mistake, Broke, Lost."""

        def walk(stopping: threading.Event) -> Iterator[Any]:
            token, generation = secrets.token_hex(8), 0
            order: Commission | None = commission
            while not stopping.is_set():
                self._ensure()
                if generation not in (0, self._generation):
                    raise Lost(None)
                generation = self._generation
                try:
                    self._say("turn", token, order)
                    if (yield from self._listen(stopping)):
                        return
                except Lost:
                    self.start()  # at once, so that the next job finds it loaded
                    raise
                order = None
                yield TURN
            if generation == self._generation:
                self._say("drop", token)

        return walk

    def close(self) -> None:
        """Ends the process, for good."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.terminate()
                self._process.join(timeout=5)

    # ---- the pipe ----------------------------------------------------------------------------------------------------

    def _ensure(self) -> None:
        """A process that lives and has loaded its model."""
        if not self._process.is_alive():
            self.start()
        self.about()

    def _listen(self, stopping: threading.Event) -> Generator[Any, None, bool]:
        """Yields what is shown in one turn; True where the job has come to its end."""
        asked: float | None = None
        while True:
            if stopping.is_set() and asked is None:
                self._say("stop")
                asked = time.monotonic()
            if asked is not None and time.monotonic() - asked > PATIENCE:
                self._process.kill()  # a loss of its owner's that never returns, say: others wait for their turn
                self.start()
                return True
            if not self._waits():
                continue
            kind, value = self._hear()
            if kind == "shown":
                yield value
            elif kind == "mistake":
                raise Mistake(value)
            elif kind == "broke":
                raise Broke(value)
            else:
                return kind == "done"

    def _say(self, *words: Any) -> None:
        assert self._pipe is not None
        try:
            self._pipe.send(words)
        except OSError:
            raise self._lost() from None

    def _waits(self) -> bool:
        assert self._pipe is not None
        try:
            return self._pipe.poll(BEAT)
        except (EOFError, OSError):
            raise self._lost() from None

    def _hear(self) -> tuple[str, Any]:
        assert self._pipe is not None
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            raise self._lost() from None

    def _lost(self) -> Lost:
        self._process.join(timeout=5)
        return Lost(self._process.exitcode)


def _work(pipe: Connection, model: str, device: str, clip: str | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the page's process's affair, which ends this one
    from diffsteer.app.worker import work

    work(pipe, model, device, clip)
