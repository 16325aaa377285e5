"""LoRA (Hu et al. 2021): beside frozen weights W small matrices A and B are learnt, and the network computes with W + B A.

In: a network. Out: the same network with peft's layers in it; a plain one with the sum in its weights; and peft's own files, which load
onto the base. Called by `finetune.py`, and by the run when it saves.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from diffsteer.diffusion.seeds import generator_for
from diffsteer.errors import Mistake
from diffsteer.training.muon import hidden_and_others

SHARE = 0.04  # of the network's weights, at the rank that is found when none is asked for
MOST_RANK = 16


def add_lora(network: nn.Module, rank: int | None, without: Collection[str], labels: bool, seed: int) -> None:
    """Freezes the network and puts LoRA into its hidden layers: all convolutions and linear layers but the first and the last convolution.

    rank: of A and B; None for the largest up to 16 that keeps their weights at 4 % of the network's. without: weights that get none.
    labels: whether the table of labels gets its own. B begins at zero, so at first nothing changes; A is a function of the seed. Raises
    Mistake.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise Mistake("--tune lora needs the package peft: pip install 'diffsteer[lora]', or use --tune last-blocks.") from None
    layers = _layers(network, without, labels)
    if not layers:
        raise Mistake("--freeze leaves no layer for --tune lora to work on; freeze less.")
    whole = sum(parameter.numel() for parameter in network.parameters())
    each = sum(_weights_a_rank(layer) for layer in layers.values())
    rank = rank or max(1, min(MOST_RANK, int(SHARE * whole / each)))
    with torch.random.fork_rng():
        torch.manual_seed(generator_for(seed, "lora").initial_seed())
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(layers)), network)


def has_lora(network: nn.Module) -> bool:
    return hasattr(network, "peft_config")


def merged(network: nn.Module) -> nn.Module:
    """A copy of a network with LoRA, the products added to its weights, and no layer of peft's left in it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = copy.deepcopy(network)
    for name, layer in [*plain.named_modules()]:
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(plain.get_submodule(parent), child, layer.get_base_layer())
    del plain.peft_config
    return plain


def save_lora(folder: Path, network: nn.Module, base: str) -> None:
    """Writes adapter_model.safetensors and adapter_config.json, as peft reads them, whole or not at all."""
    from peft import get_peft_model_state_dict

    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    config: Any = copy.deepcopy(network.peft_config["default"])  # type: ignore[index]
    config.base_model_name_or_path, config.inference_mode = base, True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(beside)
    weights = {f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in get_peft_model_state_dict(network).items()}
    save_file(weights, beside / "adapter_model.safetensors")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def _layers(network: nn.Module, without: Collection[str], labels: bool) -> dict[str, nn.Module]:
    hidden = {id(weight) for weight in hidden_and_others(network)[0]}
    kinds = (nn.Conv2d, nn.Linear, nn.Embedding)
    found = {name: layer for name, layer in network.named_modules() if isinstance(layer, kinds) and f"{name}.weight" not in without}
    return {name: layer for name, layer in found.items() if id(layer.weight) in hidden or (labels and isinstance(layer, nn.Embedding))}


def _weights_a_rank(layer: nn.Module) -> int:
    """Weights that one more rank costs: a row of A and a column of B."""
    weight: Any = layer.weight
    return weight[0].numel() + weight.shape[0]
