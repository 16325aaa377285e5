"""Several processes on one machine: the command starts itself again, once for each, and watches over them.

They find one another by the environment that accelerate (torch.distributed) reads.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


class Agreed(KeyboardInterrupt):
    """One of several processes was to end, and all have come to the same step to do so."""


@contextmanager
def first_is_noted() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C or SIGTERM interrupts nothing: what is yielded says whether one came. The second interrupts.

    Several processes are each in a step of their own when it comes, and save one state only where they end at the same.
    """
    came = False

    def note(number: int, frame: Any) -> None:
        nonlocal came
        if came:
            raise Terminated
        came = True

    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came
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
