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

from torch import nn

from diffsteer.diffusion import denoiser as denoiser_module
from diffsteer.diffusion import networks, process, seeds
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.process import process_from_scheduler_config
from diffsteer.errors import Mistake
from diffsteer.sampling import pipeline, solvers
from diffsteer.steering import mixing

SPEC_FILE = "diffsteer.json"
# In the order in which each may use those before it.
PIPELINE_MODULES: tuple[ModuleType, ...] = (process, seeds, denoiser_module, mixing, solvers, pipeline)


# ---- writing ---------------------------------------------------------------------------------------------------------


def save_model(folder: Path, network: nn.Module, spec: ModelSpec) -> None:
    """Writes the model folder, whole or not at all; an older one at that place is replaced."""
    import diffusers

    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    multiple = networks.size_multiple(network)
    network.save_pretrained(beside / "unet")  # type: ignore[operator]
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
    """Whether diffusers' own DDPMPipeline draws this model: a plain unconditional `UNet2DModel` on a variance-preserving process."""
    import diffusers

    plain = isinstance(network, diffusers.UNet2DModel) and not spec.labelled and spec.feed_time and spec.pixel_range == "signed"
    return plain and spec.process.variance_preserving and spec.prediction in ("eps", "v", "x0")


def pipeline_source() -> str:
    """The one self-contained `pipeline.py`: our modules joined, each import once, those from diffsteer left out."""
    imports: dict[str, None] = {}
    bodies = []
    for module in PIPELINE_MODULES:
        source = inspect.getsource(module)
        lines = source.splitlines()
        drop: set[int] = set()
        tree = ast.parse(source)
        for index, node in enumerate(tree.body):
            docstring = index == 0 and isinstance(node, ast.Expr)
            if isinstance(node, ast.Import | ast.ImportFrom) or docstring:
                drop.update(range(node.lineno - 1, node.end_lineno or node.lineno))
                if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not _ours(node) and node.module != "__future__"):
                    imports[ast.unparse(node)] = None
        bodies.append("\n".join(line for number, line in enumerate(lines) if number not in drop).strip("\n"))
    head = '"""How this folder\'s model draws pictures. Made by diffsteer; needs torch and diffusers only. Licence: Apache-2.0."""\n'
    return (
        "\n\n\n".join([head + "\nfrom __future__ import annotations\n\n" + "\n".join(sorted(imports, key=_import_order)), *bodies]) + "\n"
    )


def _ours(node: ast.ImportFrom) -> bool:
    return (node.module or "").split(".")[0] == "diffsteer"


def _import_order(line: str) -> tuple[bool, str]:
    return (line.startswith("from"), line)


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
    """A denoiser from a model folder, a run folder, a Hub id or any diffusers pipeline folder with a `UNet2DModel`. Raises Mistake."""
    folder = find_model(model)
    if (folder / SPEC_FILE).is_file():
        spec = ModelSpec.from_dict(json.loads((folder / SPEC_FILE).read_text(encoding="utf-8")))
        network = _network(folder)
    else:
        network = _network(folder)
        spec = _foreign_spec(folder, network)
    network.requires_grad_(False).eval().to(device)
    return Denoiser(network, spec, networks.size_multiple(network), precision)


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
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    from diffsteer.data.network import require_hub

    patterns = ["*.json", "*.safetensors", "*/*.json", "*/*.safetensors", "*.bin", "*/*.bin"]
    require_hub(f"the model {model}")
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except RepositoryNotFoundError:
        raise Mistake(f"The Hub has no model {model} (or it is private and you are not logged in).") from None
    except LocalEntryNotFoundError:
        raise Mistake(f"There is no folder {model}, and the Hub's copy was not downloaded before.") from None
    except HFValidationError:
        raise Mistake(f"{model} is neither a folder nor a Hub id.") from None


def _network(folder: Path) -> Any:
    """The network of a pipeline folder, built from our own or diffusers' class; the folder's code is not run."""
    from diffusers import UNet2DModel

    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    name = (index.get("unet") or [None, None])[1]
    classes: dict[str, Any] = {kind.__name__: kind for kind in (networks.LabelChannelsUNet, networks.BasicUNet, networks.ConditionalUNet)}
    if name != "UNet2DModel" and name not in classes:
        raise Mistake(f"{folder} holds a {name or 'pipeline without a unet'}; diffsteer opens models with a UNet2DModel.")
    safe = any((folder / "unet").glob("*.safetensors"))
    return classes.get(name, UNet2DModel).from_pretrained(folder / "unet", use_safetensors=safe)


def _foreign_spec(folder: Path, network: Any) -> ModelSpec:
    """The spec of somebody else's diffusers pipeline, from its scheduler and its network's configuration."""
    files = list(folder.glob("scheduler/scheduler_config.json"))
    if not files:
        raise Mistake(f"{folder} has no scheduler/scheduler_config.json, so its noise schedule is unknown.")
    try:
        noise, prediction = process_from_scheduler_config(json.loads(files[0].read_text(encoding="utf-8")))
    except ValueError as error:
        raise Mistake(f"{folder}: {error}.") from None
    config = network.config
    size = config.sample_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    classes = config.num_class_embeds or 0
    spec = ModelSpec(noise, prediction, height, width, config.in_channels, solver="ddim", steps=50)
    return replace(spec, conditioning="add", label_names=tuple(map(str, range(classes)))) if classes else spec


def _phrase(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
