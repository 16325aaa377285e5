"""A running app for tests of the page, started once; a browser, where there is one, and a place for pictures of the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.serving import LOSS, Served, served

SmallModel = Callable[..., Path]


@pytest.fixture(scope="session")
def app(small_model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The app of a small colour model by label, with a loss of its owner's, a CLIP that has learnt nothing, and low limits."""
    from steering.tiny_clip import make_tiny_clip

    place = tmp_path_factory.mktemp("app")
    (place / "losses").mkdir()
    (place / "losses" / "mine.py").write_text(LOSS)
    make_tiny_clip(place / "clip", steps=0)
    (place / "here").mkdir()
    flags = [
        "--losses",
        str(place / "losses"),
        "--clip",
        str(place / "clip"),
        "--most-upload",
        "1",
        "--most-pictures",
        "40",
        "--most-seconds",
        "1e6",
    ]
    with served(small_model(data="digits-color"), place / "here", *flags) as running:
        yield running
        assert list(running.folder.iterdir()) == [], "no request writes into the working directory"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium."""
    chromium = Path("/usr/bin/chromium")
    if not chromium.is_file():
        pytest.skip("there is no Chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox", "--disable-background-networking"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder named by SCREENSHOTS, else pytest's own."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
