"""Checkpoints: all that the next optimizer step needs, in safetensors and JSON, in a folder that appears whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def optimizer_tensors(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name, `exp_avg.NAME` and so on."""
    states = optimizer.state
    return {f"{key}.{name}": value for name, parameter in network.named_parameters() for key, value in states.get(parameter, {}).items()}


def load_optimizer_tensors(network: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`. A count of steps lies where torch keeps it: on the CPU, unless its group is capturable."""
    parameters = dict(network.named_parameters())
    capturable = {parameter for group in optimizer.param_groups if group.get("capturable") for parameter in group["params"]}
    optimizer.state.clear()
    for key, value in tensors.items():
        kind, name = key.split(".", 1)
        parameter = parameters[name]
        if kind == "step":
            held = value.clone().to(parameter.device if parameter in capturable else "cpu")
        else:
            held = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        optimizer.state[parameter][kind] = held


def save_checkpoint(folder: Path, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    """Writes FOLDER/{file}.safetensors for each group of tensors, and state.json."""
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for file, group in tensors.items():
        save_file({name: value.detach().cpu().contiguous() for name, value in group.items()}, beside / f"{file}.safetensors")
    (beside / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """What `save_checkpoint` was given."""
    tensors = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
    return tensors, json.loads((folder / "state.json").read_text(encoding="utf-8"))
