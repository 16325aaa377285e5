"""The machine and the versions that a result rests on, in words: every benchmark's JSON begins with them."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import diffusers
import torch

import diffsteer

RESULTS = Path(__file__).parent / "results"
PLACE = re.compile(r"(?<![\w.:/])/(?:[\w.+-]+/)*([\w.+-]+)")  # an absolute path; no address, and no share such as 1/2


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
    (folder / f"{name}.json").write_text(json.dumps(without_places({**described(), **values}), indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(without_places(page).rstrip() + "\n", encoding="utf-8")


def without_places(values: Any) -> Any:
    """The same, with files and folders by their names alone, in sentences too: where they lay is nobody's affair."""
    if isinstance(values, dict):
        return {key: without_places(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_places(value) for value in values]
    return PLACE.sub(r"\1", values) if isinstance(values, str) else values


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
