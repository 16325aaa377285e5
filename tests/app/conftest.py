"""A running app for tests of the page, started once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

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
