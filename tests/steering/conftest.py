"""A tiny CLIP, made once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def untrained_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny CLIP with its first weights: enough wherever it does not matter what it sees."""
    from tiny_clip import make_tiny_clip

    folder = tmp_path_factory.mktemp("clip") / "untrained"
    make_tiny_clip(folder, steps=0)
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny CLIP, trained on the captions of `digits-color` (about 10 seconds)."""
    from tiny_clip import make_tiny_clip

    folder = tmp_path_factory.mktemp("clip") / "trained"
    make_tiny_clip(folder)
    return folder
