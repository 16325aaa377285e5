"""Features of real pictures, kept between evaluations: one safetensors file for each choice of data, pictures and network.

A file's name and its content say what it was made from; one that says something else is not read. Files may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffsteer.data.whole import whole_file

VERSION = 1  # to be raised whenever the same inputs would give other features
INPUTS = "inputs"


def features_folder() -> Path:
    """`diffsteer/features` in the user's cache folder: `XDG_CACHE_HOME`, or ~/.cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".cache") / "diffsteer" / "features"


def kept_at(inputs: Mapping[str, Any]) -> Path:
    """The file of these inputs, plain values that decide the features."""
    return features_folder() / f"{_digest(inputs).hex()[:32]}.safetensors"


def read_kept(inputs: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The tensors that were kept for these inputs; None where there are none, or the file is damaged or of other inputs."""
    try:
        # Copies: what `load_file` gives is the file itself, and would change or be gone with it.
        tensors = {name: value.clone() for name, value in load_file(kept_at(inputs)).items()}
    except (OSError, SafetensorError):
        return None
    said = tensors.pop(INPUTS, torch.empty(0))
    return tensors if torch.equal(said, _stamp(inputs)) else None


def keep(inputs: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Keeps the tensors, whole or not at all. OSError where nothing can be written."""
    with whole_file(kept_at(inputs)) as beside:
        save_file({INPUTS: _stamp(inputs), **{name: value.contiguous() for name, value in tensors.items()}}, beside)


def _digest(inputs: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps({"version": VERSION, **inputs}, sort_keys=True).encode()).digest()


def _stamp(inputs: Mapping[str, Any]) -> Tensor:
    return torch.tensor(list(_digest(inputs)), dtype=torch.uint8)
