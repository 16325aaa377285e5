"""The machine and the versions that a result rests on, in words: every benchmark's JSON begins with them."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import diffusers
import torch

import diffsteer

RESULTS = Path(__file__).parent / "results"


def described() -> dict[str, Any]:
    """Machine and versions."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "diffsteer": diffsteer.__version__,
        },
    }


def write(name: str, values: dict[str, Any], page: str, folder: Path = RESULTS) -> None:
    """NAME.json, the machine first, and NAME.md, in benchmarks/results or another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(_without_places({**described(), **values}), indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(page.rstrip() + "\n", encoding="utf-8")


def _without_places(values: Any) -> Any:
    """The same, with files and folders by their names alone: where they lay is nobody's affair."""
    if isinstance(values, dict):
        return {key: _without_places(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_places(value) for value in values]
    return Path(values).name if isinstance(values, str) and Path(values).is_absolute() else values


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
