"""What tests of the page share: a running app (the real command in a process of its own), and a decompression bomb."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

LOSS = '''
def redness(pictures):
    """Far from red, in nats."""
    return (pictures[:, 0] - 0.9).abs().mean(dim=(1, 2)) / 0.05


def _helper(pictures):
    return pictures
'''


class Served:
    """address: where the app is. folder: where it was started, which must stay empty. said: the lines it wrote."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self.folder, self.said = process, folder, list[str]()
        self.address = ""
        self._open = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))
            if line.startswith("Open http"):
                self.address = line.split()[1].rstrip("/")
                self._open.set()
        self._open.set()

    def wait(self) -> None:
        assert self._open.wait(180) and self.address, self.said


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def served(model: Path, folder: Path, *flags: str) -> AbstractContextManager[Served]:
    """`diffsteer app MODEL`."""
    port = str(free_port())
    return running([sys.executable, "-m", "diffsteer.cli", "app", str(model), "--port", port, "--device", "cpu", *flags], folder)


@contextmanager
def running(words: Sequence[str], folder: Path, **environment: str) -> Iterator[Served]:
    """A command that serves the page, in this folder; ended with SIGTERM."""
    told = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}  # its lines come at once all the same
    everything = {**told, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    process = subprocess.Popen(
        words, cwd=folder, env=everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    app = Served(process, folder)
    try:
        app.wait()
        yield app
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def bomb(path: Path, side: int = 9400) -> Path:
    """A small PNG of side x side pixels, which would take a thousand times its bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (side + 1)) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path
