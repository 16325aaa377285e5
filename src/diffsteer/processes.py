"""Several processes on one machine: the command starts itself again, once for each, and watches over them.

They find one another by the environment that accelerate (torch.distributed) reads.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from diffsteer.errors import Mistake, Stopped

# How long the others may take to notice that one has gone, say so and save nothing, before they are ended.
PATIENCE = 30.0
LAUNCHED = "DIFFSTEER_LAUNCHED"


class Terminated(KeyboardInterrupt):
    """SIGTERM came, to this process alone; Ctrl-C comes to all of a terminal's processes."""


@contextmanager
def term_interrupts() -> Iterator[None]:
    """Inside, SIGTERM, by which clusters and services end a process, ends the work as Ctrl-C does: what there is is saved."""

    def interrupt(number: int, frame: Any) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Between(KeyboardInterrupt):
    """The work was to end, and has come to a place between two steps to do so: of several processes all, to the same."""


@dataclass
class Asked:
    """Whether this process was asked to end. came: once at least. waits: whether it is in the middle of what is to be ended well."""

    came: bool = False
    waits: bool = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, nothing is half done, and what asks interrupts. Raises Between, at once where it has been asked already."""
        if self.came:
            raise Between
        self.waits = False
        try:
            yield
        finally:
            self.waits = True


@contextmanager
def first_is_noted() -> Iterator[Asked]:
    """Inside, the first Ctrl-C or SIGTERM interrupts nothing but what is `at_once`, it is noted: an optimizer step that ends in its middle
    leaves weights of which some have moved and some have not, and several processes are each in a step of their own. The second interrupts.

    Signals come to the main thread alone; in another one nothing is noted.
    """
    asked = Asked()

    def note(number: int, frame: Any) -> None:
        first, asked.came = not asked.came, True
        if not asked.waits:
            raise Between
        if not first:
            raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def launched() -> bool:
    """Whether this process is one of several, started here or by `accelerate launch` or torchrun."""
    return LAUNCHED in os.environ or int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main_process() -> bool:
    """Whether this process is the only one, or the first of several."""
    return int(os.environ.get("RANK", "0")) == 0


def has_gpus(count: int) -> bool:
    """Whether this machine has a GPU for each of so many processes."""
    import torch

    return torch.cuda.device_count() >= count


def relaunch(processes: int, words: Sequence[str], cpu: bool) -> bool:
    """Runs a command line in `processes` processes and waits for them; False where there is nothing to do. Raises Stopped, Mistake."""
    if processes == 1 or launched():
        return False
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {LAUNCHED: "1", "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(_threads(processes)))}
    if cpu:
        shared["ACCELERATE_USE_CPU"] = "true"
    command = [sys.executable, "-m", "diffsteer.cli", *words]
    ranks = [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(processes)
    ]
    codes = _watched(ranks)
    if 130 in codes:
        raise KeyboardInterrupt
    if 2 in codes:
        raise Mistake("So the run was not begun.")  # the first process has said why
    if any(codes):
        raise Stopped("A process of this run ended before its time. Run the same command to go on from the newest checkpoint.")
    return True


def _watched(ranks: list[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes of all, once all have ended; when one fails, the others get a while to end by themselves."""
    deadline = None
    while any(rank.poll() is None for rank in ranks):
        try:
            time.sleep(0.1)
        except Terminated:
            for rank in ranks:
                rank.terminate()
        except KeyboardInterrupt:
            continue  # the processes got it too, and save at the next step that they agree on
        if deadline is None and any(rank.poll() for rank in ranks):
            deadline = time.monotonic() + PATIENCE
        if deadline is not None and time.monotonic() > deadline:
            for rank in ranks:
                rank.kill()
    return [rank.wait() for rank in ranks]


def _threads(processes: int) -> int:
    """Threads for each process, so that together they fill the machine's cores once."""
    return max(1, (os.cpu_count() or 1) // processes)
