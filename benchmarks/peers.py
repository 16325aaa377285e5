"""Pictures a second of three peers, each by its own defaults, beside those of the recipe `mnist-fast`, at 28x28 or the nearest they can.

    python benchmarks/peers.py --environments FOLDER [--diffusers-script train_unconditional.py] [--out FOLDER]

Networks, batches and numbers of steps differ: this is what a newcomer to each gets without choosing anything, not the same work. What is
not the peer's default is in the table's words. Each peer runs in an environment of its own, FOLDER/NAME, which is made where it is missing
(by pip, from the package index): the peer and what it needs beside the torch, diffusers and accelerate that run this, which all share.
Where these have no torchvision, benchmarks/stand_in gives the picture transforms that the peers import. diffusers' script is no part of
its package: it is measured where --diffusers-script says where it is.

Ours and the peer's take turns; a ratio is of one round. The peer's loop waits in its process while ours is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

import machine
from diffsteer.data.batch import Pictures
from diffsteer.data.images import load_pictures
from diffsteer.device import find_device
from loop_overhead import ours, training
from sampling_speed import drawings, fast
from timing import Spread, by_turns, line, ratios, table

HERE = Path(__file__).parent
# What pip brings in, of which the peer is the first. Dependencies are named, so that none replaces torch.
NEEDS = {
    "smalldiffusion": ("smalldiffusion", "einops", "torch-ema"),
    "denoising-diffusion-pytorch": ("denoising-diffusion-pytorch", "einops", "ema-pytorch"),
    "diffusers": (),
}
DRAWN_AT_ONCE = 128


class Remote:
    """A peer's loop in its own process: an item of work each time it is asked. A context manager, which ends it."""

    def __init__(self, python: Path, words: list[str], device: str, log: Path) -> None:
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
        environment = {**os.environ, **hidden}
        command = [str(python), str(HERE / "peer_loops.py"), *words]
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )

    def __enter__(self) -> Remote:
        try:
            told = json.loads(self._read())
        except ChildProcessError:
            self.__exit__()
            raise
        self.pictures, self.says = float(told["pictures"]), str(told["says"])
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the loop: at the end of its input the process goes."""
        with suppress(BrokenPipeError):
            self.process.__exit__(None, None, None)

    def __iter__(self) -> Iterator[None]:
        return self

    def __next__(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # of one that has ended, `_read` says why
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        if not told:
            self.process.wait()
            last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise ChildProcessError(last[0] if last else f"ended with status {self.process.returncode}")
        return told


def environment(folder: Path, peer: str) -> Path:
    """The Python of a peer's environment, made if it is missing."""
    place = folder / peer
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    ready = place / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(place)], check=True)
        theirs = subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True, text=True
        ).stdout.strip()
        (Path(theirs) / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        if NEEDS[peer]:
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps"]
            subprocess.run([*pip, *NEEDS[peer]], check=True, stdout=sys.stderr)
        ready.touch()
    return python.absolute()


def version(python: Path, peer: str) -> str:
    code = f"import importlib.metadata; print(importlib.metadata.version({peer!r}))"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def write_pictures(data: Pictures, folder: Path) -> None:
    """PNGs in one folder, as the peers want them."""
    folder.mkdir()
    for index, picture in enumerate(data.at(range(data.count)).pixels):
        Image.fromarray(picture[0].numpy()).save(folder / f"{index:05d}.png")


def compared(what: str, theirs: Remote, data: Pictures, device: str, rounds: int) -> Spread:
    """Our pictures a second over the peer's."""
    if what == "training":
        mine, each = training(data, device, compiled=device == "cuda"), 2
        told = by_turns({"ours": ours(mine), "theirs": theirs}, rounds, {"ours": each, "theirs": 1})
        batch = mine.settings.batch_size
    else:
        told = by_turns({"ours": drawings(fast(device), DRAWN_AT_ONCE, device), "theirs": theirs}, rounds)
        batch = DRAWN_AT_ONCE
    return ratios([seconds / theirs.pictures for seconds in told["theirs"]], [seconds / batch for seconds in told["ours"]])


def measured(folder: Path, script: Path | None, data: Pictures, device: str, rounds: int) -> dict[str, Any]:
    """The table's lines, versions, and what could not be measured and why."""
    lines, versions, missing = [], {}, {}
    with tempfile.TemporaryDirectory() as place:
        pictures = Path(place) / "pictures"
        write_pictures(data, pictures)
        for peer in NEEDS:
            for what in ("training", "sampling"):
                if (peer, what, script) == ("diffusers", "training", None):
                    missing["diffusers, training"] = "its script is no part of the package; say where it is by --diffusers-script"
                    continue
                scratch = Path(place) / peer / what
                scratch.mkdir(parents=True)
                words = [peer, what, str(pictures), str(scratch), *(["--script", str(script.absolute())] if script else [])]
                try:
                    python = environment(folder, peer)
                    versions[peer] = version(python, peer)
                    with Remote(python, words, device, scratch / "log") as theirs:
                        name = f"{what}: pictures a second of `mnist-fast` over {peer} {versions[peer]} ({theirs.says}), {device}"
                        lines.append(line(name, compared(what, theirs, data, device, rounds)))
                except (ChildProcessError, subprocess.CalledProcessError) as problem:
                    missing[f"{peer}, {what}"] = str(problem)
    stand_in = importlib.util.find_spec("torchvision") is None
    return {"ratios": lines, "peers": versions, "not_measured": missing, "torchvision": "stand-in" if stand_in else "its own"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--diffusers-script", type=Path)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for peers.json and .md")
    given = parser.parse_args()
    data = load_pictures(given.data, size=(28, 28), need_labels=True)
    values = measured(given.environments, given.diffusers_script, data, find_device(given.device), given.rounds)
    script = " --diffusers-script train_unconditional.py" if given.diffusers_script else ""
    page = [
        "# Peers, by their own defaults",
        "",
        f"`python benchmarks/{Path(__file__).name} --environments FOLDER --rounds {given.rounds}{script}`",
        "",
        *table(values["ratios"]),
    ]
    page += ["", *(f"Not measured here: {peer}: {why}." for peer, why in values["not_measured"].items())]
    if given.out:
        machine.write("peers", {"rounds": given.rounds, "seed": 0, **values}, "\n".join(page), given.out)
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
