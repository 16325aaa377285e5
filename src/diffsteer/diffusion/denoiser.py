"""The denoiser, `denoiser(x_t, t, cond) -> x0`: the one face that solvers, steers, training and pipelines see of any network.

A `ModelSpec` says how a network is to be read; `Denoiser` reads it so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffsteer.diffusion.process import Process

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ModelSpec:
    """All that must be known to read a network, and how its pictures are best drawn. Saved beside the weights.

    height, width, channels: of the pictures; the network's own input is padded to its multiple inside the denoiser.
    pixel_range: `signed` [-1, 1], or `unit` [0, 1] for the network's input and output (x0 prediction only).
    feed_time: False for a network that is never told the time (it sees 0).
    null_class: id `len(label_names)` means "no label"; label guidance needs it.
    data_mean, data_variance: of the training pictures' values in [-1, 1].
    solver, steps, spacing, guidance_scale, guidance_interval: what `sample` uses when it is not told otherwise; spacing None is the
    solver's own; the interval is of noise levels, as in `steering.mixing.Mixing`.
    consistency: whether x0 is where the path from x_t ends (Song et al. 2023), and not the mean of all pictures that it may come from.
    """

    process: Process
    prediction: str
    height: int
    width: int
    channels: int
    conditioning: str = "none"
    label_names: tuple[str, ...] = ()
    null_class: bool = False
    pixel_range: str = "signed"
    feed_time: bool = True
    data_mean: float = 0.0
    data_variance: float = 1.0
    solver: str = "dpm++2m"
    steps: int = 20
    spacing: str | None = None
    guidance_scale: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    consistency: bool = False

    def __post_init__(self) -> None:
        if self.pixel_range == "unit" and self.prediction != "x0":
            raise ValueError(f"pictures in [0, 1] go with the prediction x0, not {self.prediction}")

    @property
    def labelled(self) -> bool:
        return self.conditioning != "none"

    @property
    def null_id(self) -> int:
        return len(self.label_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.height, self.width)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "label_names": list(self.label_names), "guidance_interval": list(self.guidance_interval)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelSpec:
        """The inverse of `as_dict`."""
        process = dict(values["process"])
        process["betas"] = None if process.get("betas") is None else tuple(process["betas"])
        interval = tuple(values.get("guidance_interval", (0.0, 1.0)))
        whole = {**values, "process": Process(**process), "label_names": tuple(values["label_names"]), "guidance_interval": interval}
        return cls(**whole)


class Denoiser:
    """A network read by its spec. Callable; holds no state of its own besides the network.

    precision: the network's arithmetic (`fp32`, `bf16`, `fp16`); pictures, coefficients and x0 stay float32.
    notes: sentences for the user about where the network came from.
    """

    def __init__(
        self, network: nn.Module, spec: ModelSpec, multiple: int = 1, precision: str = "fp32", notes: tuple[str, ...] = ()
    ) -> None:
        self.network, self.spec, self.multiple, self.precision, self.notes = network, spec, multiple, precision, notes

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
        """x0 in [-1, 1] (unclamped) for x_t [B, C, H, W], t in [0, 1000] (a number or [B]) and label ids [B]."""
        t = times_of(t, x_t)
        return self.read(self.predict(x_t, t, cond), x_t, t)

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The network's own answer, float32, shaped like x_t and in the network's range; t is [B]."""
        spec = self.spec
        x = x_t * spec.process.input_scale(t)[:, None, None, None]
        if spec.pixel_range == "unit":
            x = (x + 1) / 2
        x, crop = _padded(x, self.multiple)
        labels = {"class_labels": cond} if spec.labelled else {}
        with self._arithmetic(x.device):
            output = self.network(x, t if spec.feed_time else torch.zeros_like(t), **labels).sample
        return output.float()[..., crop[0], crop[1]]

    def read(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """x0 in [-1, 1] from the network's answer."""
        if self.spec.pixel_range == "unit":
            return output * 2 - 1
        return self.spec.process.to_x0(self.spec.prediction, output, x_t, t)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should answer, in the network's range: `predict`'s counterpart in training."""
        if self.spec.pixel_range == "unit":
            return (x0 + 1) / 2
        return self.spec.process.target(self.spec.prediction, x0, eps, t)

    def _arithmetic(self, device: torch.device) -> Any:
        if self.precision == "fp32":
            return nullcontext() if self.network.training else _whole_float32()
        return torch.autocast(device.type, PRECISIONS[self.precision])


@contextmanager
def _whole_float32() -> Iterator[None]:
    """Convolutions of NVIDIA's GPUs in float32 proper: as they come they round to TF32's ten bits, by which a picture would depend on the
    batch that it is drawn in."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def times_of(t: Tensor | float, x_t: Tensor) -> Tensor:
    """One time for each picture, float32 [B] on the pictures' device; a number is written there, as copying it would wait for a GPU."""
    if isinstance(t, Tensor) and (t.device == x_t.device or t.numel() > 1):
        return t.to(x_t.device, torch.float32).expand(x_t.shape[0])
    return x_t.new_full((x_t.shape[0],), float(t), dtype=torch.float32)


def _padded(x: Tensor, multiple: int) -> tuple[Tensor, tuple[slice, slice]]:
    """x with height and width mirrored out to the next multiple, and the slices that undo it.

    Mirrored noise is noise of the right size, so the network never sees a flat border.
    """
    height, width = x.shape[-2:]
    down, right = -height % multiple, -width % multiple
    top, left = down // 2, right // 2
    crop = (slice(top, top + height), slice(left, left + width))
    return (F.pad(x, (left, right - left, top, down - top), mode="reflect") if down or right else x), crop
