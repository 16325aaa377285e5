"""The model folder: a diffusers pipeline folder, written and read.

Reading takes weights and settings only: no code in a folder is ever run by diffsteer.
"""

from __future__ import annotations

import ast
import inspect
import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors import SafetensorError
from torch import nn

from diffsteer import errors
from diffsteer.diffusion import denoiser as denoiser_module
from diffsteer.diffusion import networks, process, seeds
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.process import process_from_scheduler_config
from diffsteer.errors import Mistake
from diffsteer.sampling import pipeline, schedulers, solvers
from diffsteer.steering import mixing

SPEC_FILE = "diffsteer.json"
# In the order in which each may use those before it.
PIPELINE_MODULES: tuple[ModuleType, ...] = (errors, process, seeds, denoiser_module, mixing, solvers, schedulers, pipeline)


# ---- writing ---------------------------------------------------------------------------------------------------------


def save_model(folder: Path, network: nn.Module, spec: ModelSpec) -> None:
    """Writes the model folder, whole or not at all; an older one at that place is replaced."""
    import diffusers

    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    multiple = networks.size_multiple(network)
    network.save_pretrained(beside / "unet")  # type: ignore[operator]
    config = _read_json(beside / "unet" / "config.json")
    _write_json(beside / "unet" / "config.json", {key: value for key, value in config.items() if key != "_name_or_path"})
    (beside / "scheduler").mkdir()
    scheduler = {**spec.process.scheduler_config(spec.prediction), "_diffusers_version": diffusers.__version__}
    _write_json(beside / "scheduler" / "scheduler_config.json", scheduler)
    own_network = not isinstance(network, diffusers.UNet2DModel)
    index: dict[str, Any] = {"_class_name": "DDPMPipeline", "_diffusers_version": diffusers.__version__}
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    index["unet"] = ["network" if own_network else "diffusers", type(network).__name__]
    if not opens_with_stock(network, spec):
        index["_class_name"] = ["pipeline", pipeline.DiffsteerPipeline.__name__]
        index |= {"spec": spec.as_dict(), "multiple": multiple}
        (beside / "pipeline.py").write_text(pipeline_source(), encoding="utf-8")
    if own_network:
        (beside / "unet" / "network.py").write_text(inspect.getsource(networks), encoding="utf-8")
    _write_json(beside / "model_index.json", index)
    _write_json(beside / SPEC_FILE, spec.as_dict())
    _replace_folder(beside, folder)


def opens_with_stock(network: nn.Module, spec: ModelSpec) -> bool:
    """Whether diffusers' own DDPMPipeline draws this model: a plain unconditional `UNet2DModel` on a variance-preserving process,
    for pictures that need no padding. A consistency model must not be drawn in the thousand steps of that pipeline."""
    import diffusers

    plain = isinstance(network, diffusers.UNet2DModel) and not spec.labelled and spec.feed_time and spec.pixel_range == "signed"
    plain &= not spec.consistency
    multiple = networks.size_multiple(network)
    whole = spec.height % multiple == 0 and spec.width % multiple == 0
    return plain and whole and spec.process.variance_preserving and spec.prediction in ("eps", "v", "x0")


def pipeline_source() -> str:
    """The one self-contained `pipeline.py`: our modules joined, imports merged on top, those from diffsteer left out."""
    plain: set[str] = set()
    named: dict[str, set[str]] = {}
    bodies = []
    for module in PIPELINE_MODULES:
        source = inspect.getsource(module)
        drop: set[int] = set()
        for index, node in enumerate(ast.parse(source).body):
            docstring = index == 0 and isinstance(node, ast.Expr)
            if isinstance(node, ast.Import | ast.ImportFrom) or docstring:
                drop.update(range(node.lineno - 1, node.end_lineno or node.lineno))
            if isinstance(node, ast.Import):
                plain.update(ast.unparse(ast.Import([name])) for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] not in ("diffsteer", "__future__"):
                named.setdefault(node.module, set()).update(ast.unparse(name) for name in node.names)
        bodies.append("\n".join(line for number, line in enumerate(source.splitlines()) if number not in drop).strip("\n"))
    imports = [*sorted(plain), *(f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(named.items()))]
    head = '"""How this folder\'s model draws pictures. Made by diffsteer; needs torch and diffusers only. Licence: Apache-2.0."""'
    return "\n\n\n".join([f"{head}\n\nfrom __future__ import annotations\n\n" + "\n".join(imports), *bodies]) + "\n"


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _replace_folder(new: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


# ---- reading ---------------------------------------------------------------------------------------------------------


def load_model(model: str, precision: str = "fp32", device: str = "cpu") -> Denoiser:
    """A denoiser from a model folder, a run folder, a Hub id or any diffusers pipeline folder with a `UNet2DModel`. Raises Mistake.

    Its `notes` say what the user should know about the folder.
    """
    folder = find_model(model)
    index = _read_json(folder / "model_index.json")
    network, notes = _network(folder, index)
    spec = _own_spec(folder, index) or _foreign_spec(folder, network)
    network.requires_grad_(False).eval().to(device)
    return Denoiser(network, spec, networks.size_multiple(network), precision, notes)


def find_model(model: str) -> Path:
    """The folder that MODEL means; an existing path wins over a Hub id. Raises Mistake."""
    path = Path(model).expanduser()
    if (path / "settings.yaml").is_file():
        if (path / "model" / "model_index.json").is_file():
            return path / "model"
        raise Mistake(f"The run {model} has no model yet; run its `diffsteer train` command again to finish it.")
    if (path / "model_index.json").is_file():
        return path
    if path.exists():
        found = _phrase(sorted(entry.name for entry in path.iterdir())[:6] if path.is_dir() else [path.name])
        raise Mistake(f"{model} is no model: it has neither model_index.json nor settings.yaml (found: {found}).")
    pieces = model.split("/")
    if len(pieces) == 2 and all(pieces) and not Path(pieces[0]).is_dir() and not model.startswith((".", "~")):
        return _from_hub(model)
    raise Mistake(f"There is no model at {model}; give a model folder, a run folder or a Hub id such as google/ddpm-cifar10-32.")


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download

    from diffsteer.data.network import fetching, require_hub

    patterns = ["*.json", "*.safetensors", "*/*.json", "*/*.safetensors", "*.bin", "*/*.bin", "README.md"]
    require_hub(f"the model {model}")
    with fetching(model):
        return Path(snapshot_download(model, allow_patterns=patterns))


def _network(folder: Path, index: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """The network of a pipeline folder, built from our own or diffusers' class, and notes; the folder's code is not run."""
    from diffusers import UNet2DModel

    name = (index.get("unet") or [None, None])[1]
    known = {kind.__name__: kind for kind in (UNet2DModel, *networks.OWN)}
    if name not in known:
        raise Mistake(f"{folder} holds a {name or 'pipeline without a unet'}; diffsteer opens models with a UNet2DModel.")
    place = _part(folder, "unet")
    safe = any(place.glob("*.safetensors"))
    try:
        network = known[name].from_pretrained(place, use_safetensors=safe)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        first = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise Mistake(f"The weights in {place} cannot be read: {first}.") from error
    told = f"The weights in {place} are a pickle (.bin); only numbers were read from it, and nothing it may hold was run."
    return network, () if safe else (told,)


def _part(folder: Path, name: str) -> Path:
    """The folder of a pipeline's part: the oldest pipelines on the Hub keep all parts side by side."""
    return folder / name if (folder / name).is_dir() else folder


def _own_spec(folder: Path, index: dict[str, Any]) -> ModelSpec | None:
    """The spec that a folder of ours holds; a copy made by diffusers has it in model_index.json only."""
    values = _read_json(folder / SPEC_FILE) if (folder / SPEC_FILE).is_file() else index.get("spec")
    if values is None:
        return None
    try:
        return ModelSpec.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise Mistake(f"{folder} was not written by this version of diffsteer, or was changed: its {SPEC_FILE} says {error}.") from error


def _foreign_spec(folder: Path, network: Any) -> ModelSpec:
    """The spec of somebody else's diffusers pipeline, from its scheduler and its network's configuration."""
    path, config = _part(folder, "scheduler") / "scheduler_config.json", network.config
    if not path.is_file():
        raise Mistake(f"{folder} has no scheduler/scheduler_config.json, so its noise schedule is unknown.")
    scheduler = _read_json(path)
    name = str(scheduler.get("_class_name"))
    betas = bool({"beta_schedule", "trained_betas"} & set(scheduler))
    if name.startswith("EDM") or not (betas or name.startswith("FlowMatch")):
        why = "its network is told the time in another way" if name.startswith("EDM") else "there are no betas in it"
        raise Mistake(
            f"{folder}: the scheduler {name} is not supported, as {why}; of others' models diffsteer opens those of betas or flow."
        )
    try:
        noise, prediction = process_from_scheduler_config(scheduler)
    except ValueError as error:
        raise Mistake(f"{folder}: {error}.") from None
    if config.in_channels != config.out_channels or config.in_channels not in (1, 3):
        channels = f"{config.in_channels} channels and answers with {config.out_channels}"
        raise Mistake(f"{folder}: its network takes {channels}; diffsteer opens models of grey or colour pixels (1 or 3 of both).")
    if config.class_embed_type is not None:
        raise Mistake(f"{folder}: its network is told the class as {config.class_embed_type}; diffsteer knows class numbers only.")
    if config.sample_size is None:
        raise Mistake(f"{folder}: its network's config.json has no sample_size, so the size of its pictures is unknown.")
    height, width = config.sample_size if isinstance(config.sample_size, list | tuple) else (config.sample_size,) * 2
    spec = ModelSpec(noise, prediction, height, width, config.in_channels, solver="ddim", steps=50)
    classes = config.num_class_embeds or 0
    return replace(spec, conditioning="add", label_names=tuple(map(str, range(classes)))) if classes else spec


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Mistake(f"{path} cannot be read: {error}.") from None
    if not isinstance(values, dict):
        raise Mistake(f"{path} should hold settings by name.")
    return values


def _phrase(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
