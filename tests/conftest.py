"""What tests of several parts share: the command line, and small models of the built-in digits, made once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Small work on one thread: two threads for an 8x8 picture only wait for one another. Before torch is imported; child processes inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
# What matplotlib keeps stays where it is when `own_cache` moves the cache folder: finding all fonts again takes a child process seconds.
os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))

import pytest

if TYPE_CHECKING:
    from commandline import Diffsteer
    from diffsteer.diffusion.judge import Judge

SmallModel = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a cache folder of its own, beside its `tmp_path`, and leaves the user's alone."""
    folder = tmp_path.with_name(f"{tmp_path.name}-cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def diffsteer(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Diffsteer:
    """Runs a command line in an empty folder of its own."""
    from commandline import Ended
    from diffsteer.cli import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def ran(*words: object) -> Ended:
        capsys.readouterr()
        code = run([str(word) for word in words])
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return ran


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    """A model folder with the network's first weights, `small_model(size=(8, 8), names=None, **settings)`: nothing is trained."""
    from diffsteer.data.images import load_pictures
    from diffsteer.recipebook import train_settings
    from diffsteer.sampling.folder import save_model
    from diffsteer.training.build import build_model

    made: dict[str, Path] = {}

    def make(size: tuple[int, int] = (8, 8), names: tuple[str, ...] | None = None, data: str = "digits", **settings: Any) -> Path:
        key = repr((size, names, data, sorted(settings.items())))
        if key not in made:
            from dataclasses import replace

            chosen = {"data": data, "layers": 1, "sample_steps": 4, **settings}
            if chosen.get("network", "unet") == "unet":
                chosen.setdefault("channels", "32,32")
            network, spec = build_model(train_settings(None, chosen), load_pictures(data, size=size))
            made[key] = tmp_path_factory.mktemp("model") / "model"
            save_model(made[key], network, replace(spec, label_names=names) if names else spec)
        return made[key]

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the digits by label, four steps long."""
    from commandline import TINY
    from diffsteer.cli import run

    out = tmp_path_factory.mktemp("runs") / "digits"
    assert run(["train", "digits", *TINY, "--steps", "4", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def digits_judge() -> Judge:
    """A judge of the digits, trained for a sixth of the default length: right on about 98 of 100."""
    from diffsteer.data.images import load_pictures
    from diffsteer.training.classifier import train_judge

    return train_judge(load_pictures("digits"), epochs=8)
