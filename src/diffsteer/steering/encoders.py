"""Networks that see pictures and read text: CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023) as two functions to unit vectors.

In: a folder of transformers' or a Hub id, or `open_clip:NAME/TAG`. Out: an `Embedder`. Weights are frozen and float32; no code of a folder
is ever run. `embedding.py` steers by it, and so does `reference` by embedding.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from diffsteer.data.network import fetching, require_hub
from diffsteer.device import free_memory
from diffsteer.errors import Mistake
from diffsteer.steering.memory import SHARE, kept_bytes

OPEN_CLIP = "open_clip:"
KINDS = ("clip", "siglip")  # the `model_type` of folders that can be opened
SETTINGS_FILES = ("preprocessor_config.json", "processor_config.json")
INSTEAD = "Give a CLIP folder that is on this computer (model=FOLDER)"


@dataclass
class Embedder:
    """Text and pictures as unit vectors of one space; what belongs together lies close.

    network: frozen, float32, on its device. size: its pictures' side. mean, std: of its three channels, for pictures in [0, 1].
    temperature: what it was trained to divide cosines by; a cosine larger by this much is one nat more likely to belong together.
    encode: normalised pictures [N, 3, size, size] -> [N, D]; read: texts -> [N, D]; neither has unit length yet.
    notes: what the user should know about it.
    """

    network: nn.Module
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    temperature: float
    encode: Callable[[Tensor], Tensor]
    read: Callable[[list[str]], Tensor]
    notes: tuple[str, ...] = ()
    _bytes: int = 0  # that one picture keeps for its gradient, once known

    @torch.no_grad()
    def text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> [N, D], of length 1."""
        return F.normalize(self.read(list(texts)), dim=1)

    def pictures(self, pictures: Tensor) -> Tensor:
        """Pictures [B, 1 or 3, H, W] in [0, 1] -> [B, D], of length 1; differentiable (see `held` for values beyond [0, 1]).

        Of a picture of another size the largest square in its middle is scaled. Grey becomes colour by repeating. A batch whose gradient
        would not fit in memory goes through in parts, whose inner values are found again for the gradient.
        """
        mean, std = (torch.tensor(values).to(pictures).view(1, 3, 1, 1) for values in (self.mean, self.std))
        seen = (self._fitted(held(pictures)).expand(-1, 3, -1, -1) - mean) / std
        at_once = self._at_once(seen)
        if at_once >= len(seen):
            return F.normalize(self.encode(seen), dim=1)
        parts = [checkpoint(self.encode, part, use_reentrant=False, preserve_rng_state=False) for part in seen.split(at_once)]
        return F.normalize(torch.cat(parts), dim=1)

    def _fitted(self, pictures: Tensor) -> Tensor:
        height, width = pictures.shape[-2:]
        side = min(height, width)
        if (height, width) == (self.size, self.size):
            return pictures
        top, left = (height - side) // 2, (width - side) // 2
        square = pictures[..., top : top + side, left : left + side]
        return F.interpolate(square, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)

    def _at_once(self, seen: Tensor) -> int:
        """How many pictures fit in a share of the free memory with what their gradient needs."""
        if len(seen) == 1 or not (torch.is_grad_enabled() and seen.requires_grad):
            return len(seen)
        if not self._bytes:

            def trial(count: int) -> Tensor:
                return self.encode(seen[:count].detach().requires_grad_())

            self._bytes = max(1, kept_bytes(lambda: trial(2)) - kept_bytes(lambda: trial(1)))
        return max(1, int(SHARE * free_memory(seen.device) / self._bytes))


class _Held(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (values,), (gradient,) = ctx.saved_tensors, gradients
        outwards = ((values > 1) & (gradient < 0)) | ((values < 0) & (gradient > 0))
        return gradient.masked_fill(outwards, 0)


def held(pictures: Tensor) -> Tensor:
    """Values of any kind, clamped to [0, 1] as they will be when shown; the gradient goes through, except where to follow it downhill
    would lead further out. A plain clamp has none outside, and a pixel once too bright could never come back."""
    clamped: Tensor = _Held.apply(pictures)
    return clamped


# ---- opening ---------------------------------------------------------------------------------------------------------


def load_embedder(model: str, device: torch.device | str = "cpu") -> Embedder:
    """An embedder by folder, Hub id, or `open_clip:NAME/TAG`; the same one again while its files stay as they are. Raises Mistake."""
    if model.startswith(OPEN_CLIP):
        return _open_clip(model.removeprefix(OPEN_CLIP), str(device))
    _require_transformers()
    folder = _find(model)
    return _from_folder(folder, (folder / "config.json").stat().st_mtime_ns, str(device))


def _require_transformers() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise Mistake("Steering by text or embedding needs transformers, which is not installed: pip install 'diffsteer[clip]'.") from error


def _find(model: str) -> Path:
    """The folder of a transformers model; one that exists wins over a Hub id."""
    path = Path(model).expanduser()
    if (path / "config.json").is_file():
        return path
    if path.exists():
        raise Mistake(f"{model} is no CLIP: it has no config.json. {INSTEAD}, or a Hub id such as openai/clip-vit-base-patch32.")
    pieces = model.split("/")
    if len(pieces) == 2 and all(pieces) and not Path(pieces[0]).is_dir() and not model.startswith((".", "~")):
        return _from_hub(model)
    raise Mistake(f"There is no CLIP at {model}; give a folder (model=FOLDER) or a Hub id such as openai/clip-vit-base-patch32.")


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download

    require_hub(f"the model {model}", INSTEAD)
    with fetching(model):
        folder = Path(snapshot_download(model, allow_patterns=["*.json", "*.txt", "spiece.model", "model*.safetensors"]))
        if not any(folder.glob("model*.safetensors")):  # the oldest are pickles only, which are fetched where nothing else is
            folder = Path(snapshot_download(model, allow_patterns=["*.json", "*.txt", "spiece.model", "pytorch_model*.bin"]))
    return folder


# ---- transformers ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)  # two steers by text share one network
def _from_folder(folder: Path, changed: int, device: str) -> Embedder:
    """A CLIP or SigLIP of transformers; `changed` tells a folder from what was there before."""
    import transformers
    from safetensors import SafetensorError

    kind = _read_json(folder / "config.json").get("model_type")
    if kind not in KINDS:
        kinds = " or ".join(KINDS)
        raise Mistake(f"{folder} is no CLIP: it holds a model of type {kind!r}, and steering by text or embedding needs {kinds}.")
    mean, std = _normalisation(folder)
    safe = any(folder.glob("*.safetensors"))
    opener: Any = transformers.CLIPModel if kind == "clip" else transformers.SiglipModel
    try:
        with _quiet():
            network, report = opener.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=safe, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise Mistake(f"The weights in {folder} cannot be read: {_first_sentence(error)}.") from error
    if report["missing_keys"]:
        raise Mistake(f"The weights in {folder} are not whole: {len(report['missing_keys'])} tensors are missing.")
    tokenizer = _tokenizer(folder)
    network.requires_grad_(False).eval().to(device)
    longest = network.config.text_config.max_position_embeddings

    def encode(pictures: Tensor) -> Tensor:
        vectors: Tensor = network.get_image_features(pixel_values=pictures).pooler_output
        return vectors

    def read(texts: list[str]) -> Tensor:
        # SigLIP was trained on texts filled up to one length, and sees the filling.
        padding = "max_length" if kind == "siglip" else True
        words = tokenizer(texts, padding=padding, truncation=True, max_length=longest, return_tensors="pt").to(device)
        asked = {"attention_mask": words["attention_mask"]} if kind == "clip" else {}
        vectors: Tensor = network.get_text_features(input_ids=words["input_ids"], **asked).pooler_output
        return vectors

    told = f"The weights in {folder} are a pickle (.bin); only numbers were read from it, and nothing it may hold was run."
    size, temperature = network.config.vision_config.image_size, math.exp(-float(network.logit_scale))
    return Embedder(network, size, mean, std, temperature, encode, read, () if safe else (told,))


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        with _quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        raise Mistake(f"The tokenizer in {folder} needs a library that is not installed: pip install 'diffsteer[clip]'.") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Mistake(f"The tokenizer in {folder} cannot be read: {_first_sentence(error)}.") from error


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of the three channels, from the settings of the folder's picture processor, wherever its version keeps them."""
    for name in SETTINGS_FILES:
        if (folder / name).is_file():
            values = _read_json(folder / name)
            values = values.get("image_processor") or values
            mean, std = values.get("image_mean"), values.get("image_std")
            if isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == 3:
                return tuple(map(float, mean)), tuple(map(float, std))
    raise Mistake(f"{folder} has no {' or '.join(SETTINGS_FILES)} with image_mean and image_std, so what its network expects is unknown.")


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its bars and advice, which would stand between our own lines."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Mistake(f"{path} cannot be read: {error}.") from None
    if not isinstance(values, dict):
        raise Mistake(f"{path} should hold settings by name.")
    return values


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")


# ---- open_clip -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _open_clip(model: str, device: str) -> Embedder:
    """`NAME/TAG` of open_clip's lists, such as ViT-B-32/openai; TAG may be a file of weights."""
    try:
        import open_clip
    except ImportError as error:
        raise Mistake(f"model={OPEN_CLIP}... needs open_clip, which is not installed: pip install 'diffsteer[open-clip]'.") from error
    name, _, tag = model.partition("/")
    if name not in open_clip.list_models():
        near = get_close_matches(name, open_clip.list_models(), n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise Mistake(f"open_clip has no model {name!r}. {hint}Write it as model={OPEN_CLIP}ViT-B-32/openai.")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not Path(tag).is_file():
        if tag not in tags:
            raise Mistake(f"open_clip has no weights {tag!r} of {name}; there are {', '.join(tags) or 'none'}, or give a file of weights.")
        require_hub(f"the model {name}/{tag}", INSTEAD)
    try:
        network = open_clip.create_model(name, pretrained=tag, precision="fp32", device=device)
    except (OSError, RuntimeError, ValueError) as error:
        raise Mistake(f"open_clip cannot open {model}: {_first_sentence(error)}.") from error
    network.requires_grad_(False).eval()
    wants, tokenize = open_clip.get_model_preprocess_cfg(network), open_clip.get_tokenizer(name)
    side = wants["size"]
    size = int(side if isinstance(side, int) else side[0])

    def read(texts: list[str]) -> Tensor:
        vectors: Tensor = network.encode_text(tokenize(texts).to(device))
        return vectors

    mean, std = tuple(map(float, wants["mean"])), tuple(map(float, wants["std"]))
    return Embedder(network, size, mean, std, math.exp(-float(network.logit_scale)), network.encode_image, read)
