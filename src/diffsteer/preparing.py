"""What a run is made of, from its settings: the pictures, the network, the teacher it may have, and where it trains."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import InitProcessGroupKwargs

from diffsteer.base import Base, read_base
from diffsteer.config import DataSettings, FinetuneSettings, TrainSettings
from diffsteer.data.batch import Pictures
from diffsteer.data.images import load_pictures
from diffsteer.device import find_device
from diffsteer.errors import Mistake
from diffsteer.sampling.draw import How
from diffsteer.steering.mixing import mixed
from diffsteer.training.build import build_model
from diffsteer.training.choice import PAYS_FROM
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


def load_data(settings: TrainSettings, streaming: str | None = None, accelerator: Accelerator | None = None) -> Pictures:
    """The pictures; `streaming` is what an earlier run on them did, whose order a resumed run must keep. With several processes all stream
    where one does: they must take their shares of one order."""
    processes = 1 if accelerator is None else accelerator.num_processes
    options = settings.model_dump(include=set(DataSettings.model_fields))
    wanted = settings.network == "conditional-unet" or settings.conditioning not in (None, "none")
    options |= {"streaming": streaming or settings.streaming, "need_labels": wanted, "processes": processes}
    pictures = load_pictures(settings.data, **options)
    if accelerator is None or processes == 1 or options["streaming"] != "auto":
        return pictures
    streams = accelerator.reduce(torch.tensor(float(pictures.streamed), device=accelerator.device), reduction="sum").item() > 0
    return pictures if pictures.streamed or not streams else load_pictures(settings.data, **{**options, "streaming": "on"})


def choose_device(settings: TrainSettings) -> str:
    """Where to train. Raises Mistake."""
    device = find_device(settings.device)
    if settings.processes > 1 and device == "cuda" and torch.cuda.device_count() < settings.processes:
        if settings.device == "cuda":
            raise Mistake(f"--processes {settings.processes} takes as many GPUs, and this machine has {torch.cuda.device_count()}.")
        device = "cpu"
    check_precision(settings.precision, device)
    return device


def check_precision(precision: str, device: str) -> None:
    """Mistake where the device has no such arithmetic."""
    if precision == "fp16" and device == "cpu":
        raise Mistake("--precision fp16 needs a GPU; on a CPU use bf16 or fp32.")


def make_accelerator(device: str, precision: str, track: Sequence[str] = (), folder: Path | None = None) -> Accelerator:
    """accelerate's face of this device and arithmetic. Raises Mistake for a tracker that is not installed."""
    missing = set(track) - {str(name) for name in get_available_trackers()}
    if missing:
        raise Mistake(f"--track {min(missing)} needs the package {min(missing)}, which is not installed: pip install {min(missing)}.")
    # accelerate's shared state refuses a second precision, and keeps the first device: a second run in one Python process may want others.
    AcceleratorState._reset_state(reset_partial_state=_alone_elsewhere(device))
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision={"fp32": "no"}.get(precision, precision),
        log_with=list(track) or None,
        project_dir=None if folder is None else str(folder),
        # What only the first process does (a judge, scores, figures) may take longer than the ten minutes that others usually wait.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=6))],
    )


def _alone_elsewhere(device: str) -> bool:
    """Whether an earlier run of this process, the only one then, was on another device."""
    state = PartialState._shared_state
    return bool(state) and state["num_processes"] == 1 and state["device"].type != device


def compiles(settings: TrainSettings, device: torch.device, say: Say) -> bool:
    """Whether to use torch.compile; on a CPU it is worth its minutes only when asked for, on a GPU from a budget of some minutes on."""
    short = settings.budget is not None and settings.budget < PAYS_FROM
    if settings.compile == "off" or (settings.compile == "auto" and (device.type != "cuda" or short)):
        return False
    why = "no C++ compiler (g++ or clang++) is on the path" if not has_compiler() else _why_not_compiled(device)
    if why and settings.compile == "on":
        raise Mistake(f"--compile on: {why}; use --compile auto.")
    if why:
        say(f"{why}, so the network is not compiled; training is slower and otherwise the same")
    return not why


def has_compiler() -> bool:
    """Whether the C++ compiler that torch.compile needs is there."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl"))


def _why_not_compiled(device: torch.device) -> str:
    """Why a small function cannot be compiled for this GPU, where Triton, a C compiler and Python's headers are needed; empty where it can.
    On a CPU a C++ compiler is enough."""
    if device.type != "cuda":
        return ""
    try:
        torch.compile(lambda values: values * 2 + 1)(torch.ones(8, device=device))
    except Exception as error:  # torch's compiler raises many kinds
        return f"torch.compile does not work here ({(str(error).strip().splitlines() or [type(error).__name__])[0]})"
    return ""
