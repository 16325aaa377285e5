"""What a run is made of, from its settings: the pictures, the network, the teacher it may have, and where it trains."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from diffsteer.base import Base, read_base
from diffsteer.config import DataSettings, FinetuneSettings, TrainSettings
from diffsteer.data.batch import Pictures
from diffsteer.data.images import load_pictures
from diffsteer.device import find_device
from diffsteer.errors import Mistake
from diffsteer.sampling.draw import How
from diffsteer.steering.mixing import mixed
from diffsteer.training.build import build_model
from diffsteer.training.consistency import Teacher
from diffsteer.training.finetune import Adapted, adapted, settled

Say = Callable[[str], None]


def settle(settings: TrainSettings, out: Path | None) -> tuple[TrainSettings, Base | None]:
    """Settled settings, and the base of a fine-tuning. Raises Mistake."""
    if not isinstance(settings, FinetuneSettings):
        return settings, None
    base = read_base(settings, out)
    return settled(settings, base.denoiser.network, base.denoiser.spec, base.weights), base


def make_model(settings: TrainSettings, data: Pictures, base: Base | None) -> Adapted:
    """The network to be trained, new or the base's. Raises Mistake."""
    if base is None:
        network, spec = build_model(settings, data)
        return Adapted(network, spec, spec, ())
    assert isinstance(settings, FinetuneSettings)
    model = adapted(base.denoiser.network, base.denoiser.spec, data, settings)
    return model._replace(notes=(*base.notes, *model.notes))


def make_teacher(settings: TrainSettings, base: Base | None, device: str) -> Teacher | None:
    """The base as it draws, label guidance included, where the run learns from it."""
    if base is None or not isinstance(settings, FinetuneSettings) or not settings.consistency:
        return None
    model = base.again(device)
    return mixed(model, How().resolved(model.spec).mixing, model.spec.process, model.spec.null_id)


def load_data(settings: TrainSettings, streaming: str | None = None) -> Pictures:
    """The pictures; `streaming` is what an earlier run on them did, whose order a resumed run must keep."""
    options = settings.model_dump(include=set(DataSettings.model_fields))
    wanted = settings.network == "conditional-unet" or settings.conditioning not in (None, "none")
    return load_pictures(settings.data, **{**options, "streaming": streaming or settings.streaming}, need_labels=wanted)


def choose_device(settings: TrainSettings) -> str:
    """Where to train. Raises Mistake."""
    device = find_device(settings.device)
    if settings.processes > 1 and device == "cuda" and torch.cuda.device_count() < settings.processes:
        device = "cpu"
    if settings.precision == "fp16" and device == "cpu":
        raise Mistake("--precision fp16 needs a GPU; on a CPU use bf16 or fp32.")
    return device


def make_accelerator(settings: TrainSettings, device: str, out: Path) -> Accelerator:
    # A second run in one Python process may want another precision, which accelerate's shared state refuses.
    AcceleratorState._reset_state(reset_partial_state=False)
    precision = {"fp32": "no"}.get(settings.precision, settings.precision)
    return Accelerator(
        cpu=device == "cpu", mixed_precision=precision, log_with=list(settings.track) or None, project_dir=str(out / "trackers")
    )


def compiles(settings: TrainSettings, device: torch.device, say: Say) -> bool:
    """Whether to use torch.compile. It needs a C++ compiler; on a CPU it is worth its minutes only when asked for."""
    compiler = any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl"))
    if settings.compile == "on" and not compiler:
        raise Mistake("--compile on needs a C++ compiler (g++ or clang++), and there is none on the path; use --compile auto.")
    if settings.compile == "off":
        return False
    wanted = settings.compile == "on" or device.type == "cuda"
    if wanted and not compiler:
        say("no C++ compiler is on the path, so the network is not compiled; training is slower and otherwise the same")
    return wanted and compiler
