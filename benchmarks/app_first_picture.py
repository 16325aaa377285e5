"""How long a visitor of the web app waits: from the command to the page, and from the press of Draw to the first picture in the page.

    python benchmarks/app_first_picture.py MODEL [--rounds 10]

`diffsteer app MODEL` in a process of its own, and Chromium, driven by Playwright; each round is a visitor with a browser of their own, who
asks for one picture that was not drawn before. Nothing else should run meanwhile. Writes benchmarks/results/app-first-picture.json and .md.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

import machine
from diffsteer.sampling.folder import load_model
from timing import Spread

CHROMIUM = "/usr/bin/chromium"
FIRST_SEED = 1000  # no picture of such a seed is drawn beforehand


@contextmanager
def served(model: str) -> Iterator[tuple[str, float]]:
    """The running app's address, and the seconds until it could be opened."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    start = time.perf_counter()
    words = [sys.executable, "-m", "diffsteer.cli", "app", model, "--port", port]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = next(line.split()[1] for line in process.stdout if line.startswith("Open http"))
        yield address, time.perf_counter() - start
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def waited(browser: Browser, address: str, seed: int) -> float:
    """Seconds from the press of Draw to the one picture of this seed, of a new visitor."""
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.goto(address)
    page.locator("#status").get_by_text("Drawn beforehand").wait_for()
    page.locator("#labels input").first.check()
    page.locator("#seed input").fill(str(seed))
    start = time.perf_counter()
    page.locator("#draw").click()
    page.locator("#gallery .caption-label").get_by_text(f"seed {seed}").wait_for()
    told = time.perf_counter() - start
    context.close()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="with labels")
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    spec = load_model(given.model).spec
    with served(given.model) as (address, opened), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"])
        seconds = [waited(browser, address, FIRST_SEED + turn) for turn in range(given.rounds)]
        browser.close()
    spread = Spread.of(seconds)
    page = [
        "# The first picture in the web app",
        "",
        f"`python benchmarks/{Path(__file__).name} MODEL --rounds {given.rounds}`",
        "",
        f"A model of {spec.height}x{spec.width} pixels that draws in {spec.steps} steps; each round a new visitor.",
        "",
        "| from | to | seconds, median (least to most) |",
        "|---|---|---|",
        f"| `diffsteer app MODEL` | the page can be opened | {opened:.1f} |",
        f"| Draw | the picture | {spread.told} |",
    ]
    values = {"size": [spec.height, spec.width], "steps": spec.steps, "opened": opened, "seconds": seconds}
    machine.write("app-first-picture", values, "\n".join(page))
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
