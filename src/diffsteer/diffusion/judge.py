"""Judges: small classifiers of pictures, and their folders.

In: pictures [B, C, H, W]. Out: logits [B, K], or 64 features a picture. One judge may steer while another, of the other architecture,
says whether the steering worked. Trained by `training/classifier.py`; asked by evaluation and by losses that want a class.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from diffsteer.errors import Mistake

FEATURES = 64
VERSION = 1
SPEC_FILE, WEIGHTS_FILE = "judge.json", "judge.safetensors"
NOISE_WAVES = 8


@dataclass(frozen=True)
class JudgeSpec:
    """What is known about a judge. Saved beside its weights.

    height, width, channels: of the pictures it was trained on; others are resized to that size inside.
    label_names: class by class, in the order of the logits.
    noise_aware: whether it may be told a noise level.
    data_mean, data_variance: of the training pictures' values in [-1, 1]; what it sees is brought to mean 0 and variance 1 by them.
    data_source, data_fingerprint: the data it was trained on, as the user named it and as `Pictures.fingerprint`.
    held_out, accuracy: on so many pictures kept from training, this share was told right (0 and 0.0 before training).
    through: the model whose guesses of noisy pictures it learnt from, if it did.
    """

    architecture: str
    channels: int
    height: int
    width: int
    label_names: tuple[str, ...]
    seed: int = 0
    noise_aware: bool = False
    data_mean: float = 0.0
    data_variance: float = 1.0
    data_source: str = ""
    data_fingerprint: str = ""
    held_out: int = 0
    accuracy: float = 0.0
    through: str = ""

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {self.architecture!r}; there are {', '.join(ARCHITECTURES)}")
        if self.channels not in (1, 3) or min(self.height, self.width) < 8 or len(self.label_names) < 2:
            raise ValueError("a judge is for grey or colour pictures of at least 8 pixels a side and at least two classes")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "label_names": list(self.label_names)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> JudgeSpec:
        """The inverse of `as_dict`."""
        return cls(**{**values, "label_names": tuple(values["label_names"])})


class Judge(nn.Module):
    """A classifier of pictures, `judge(pictures) -> logits`, differentiable with respect to the pictures.

    First weights come from torch's global generator. In eval mode every row of an answer depends on its own picture only.
    """

    def __init__(self, spec: JudgeSpec) -> None:
        super().__init__()
        self.spec = spec
        self.body = ARCHITECTURES[spec.architecture](spec.channels, spec.height, spec.width, spec.noise_aware)
        self.head = nn.Linear(FEATURES, len(spec.label_names))

    def forward(self, pictures: Tensor, noise_level: Tensor | None = None) -> Tensor:
        """Logits [B, K] for pictures [B, C, H, W].

        Without `noise_level` (any judge): clean pictures, 0 black and 1 white, not clamped. Any height and width.
        With `noise_level`, [B] or a number's tensor, from 0 (clean) to 1 (noise) (noise-aware judges): noisy pictures as the process has
        them, on the scale where a clean picture lies in [-1, 1], divided to unit variance: with n the level, sqrt(1 - n^2) * x0 + n * eps,
        which is x_t / sqrt(alpha^2 + sigma^2) at n = sigma / sqrt(alpha^2 + sigma^2). Of the judge's own size: resizing would change
        the noise. ValueError for other channels, and for a noise level that this judge, or pictures of this size, cannot be told.
        """
        return self.head(self.features(pictures, noise_level))

    def features(self, pictures: Tensor, noise_level: Tensor | None = None) -> Tensor:
        """What the logits are a linear function of: [B, 64]. Arguments and errors as in `forward`."""
        spec = self.spec
        if pictures.ndim != 4 or pictures.shape[1] != spec.channels:
            raise ValueError(f"this judge takes pictures [B, {spec.channels}, H, W], not {list(pictures.shape)}")
        own_size = tuple(pictures.shape[2:]) == (spec.height, spec.width)
        if noise_level is None:
            noise_level = pictures.new_zeros(())
            signed = pictures * 2 - 1
        elif not spec.noise_aware:
            raise ValueError("this judge was trained on clean pictures and cannot be told a noise level")
        elif not own_size:
            raise ValueError(f"noisy pictures must be of the judge's own size, {spec.height}x{spec.width}")
        else:
            signed = pictures
        if not own_size:
            signed = F.interpolate(signed, (spec.height, spec.width), mode="bilinear", align_corners=False, antialias=True)
        level = noise_level.to(signed).expand(len(signed))
        return self.body(self._normalized(signed, level), level)

    def _normalized(self, signed: Tensor, level: Tensor) -> Tensor:
        """Mean 0 and variance 1 over the data at any noise level, from pictures on the scale of [-1, 1]."""
        level = level[:, None, None, None]
        mean = (1 - level**2).clamp(min=0).sqrt() * self.spec.data_mean
        variance = (1 - level**2) * max(self.spec.data_variance, 1e-4) + level**2  # pictures of one flat grey have no variance
        return (signed - mean) * variance.rsqrt()


# ---- architectures ---------------------------------------------------------------------------------------------------
# Each is made from (channels, height, width, noise_aware) and turns pictures [B, C, H, W] and noise levels [B] into [B, 64].


class ConvBody(nn.Module):
    """A pyramid of 3x3 convolutions with batch normalisation, and the mean over the last map."""

    def __init__(self, channels: int, height: int, width: int, noise_aware: bool) -> None:
        super().__init__()
        side, wide = min(height, width), 32
        stride = 1 if side < 28 else 2 if side < 112 else 4
        self.stem = nn.Conv2d(channels, wide, 2 * stride + 1, stride=stride, padding=stride)
        self.noise = NoiseLevel(wide) if noise_aware else None
        layers: list[nn.Module] = [nn.BatchNorm2d(wide), nn.SiLU()]
        side = -(-side // stride)
        while side > 16:  # the finest maps are the dearest: large pictures pass through them quickly
            layers += _conv(wide, wide, stride=2)
            side = -(-side // 2)
        layers += _conv(wide, wide)
        while side > 7:  # down to 4 to 7 a side
            layers += [*_conv(wide, FEATURES, stride=2), *_conv(FEATURES, FEATURES)]
            wide, side = FEATURES, -(-side // 2)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = self.stem(x)
        if self.noise is not None:
            h = h + self.noise(level)[:, :, None, None]
        return self.layers(h).mean(dim=(2, 3))


def _conv(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.SiLU()]


class PatchBody(nn.Module):
    """Overlapping patches as tokens, and three blocks that mix all tokens, then channels (Tolstikhin et al. 2021, MLP-Mixer).

    A patch becomes a token by two convolutions: with one alone, 1.1 of 100 MNIST digits more were told wrong after as long a training.
    """

    def __init__(self, channels: int, height: int, width: int, noise_aware: bool) -> None:
        super().__init__()
        # 16 to 81 patches a picture: 4x4 of them at 8 pixels, 7x7 at 28, 8x8 from 32 on.
        stride = max(2, 2 ** round(math.log2(min(height, width) / 8)))
        wide = 64
        self.multiple = stride
        tokens = -(-height // stride) * -(-width // stride)
        fine = nn.Conv2d(channels, 32, stride + 1, stride=stride // 2, padding=stride // 2)
        self.patches = nn.Sequential(fine, nn.SiLU(), nn.Conv2d(32, wide, 3, stride=2, padding=1))
        self.noise = NoiseLevel(wide) if noise_aware else None
        self.blocks = nn.Sequential(*(MixerBlock(tokens, wide) for _ in range(3)))
        self.out = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, FEATURES))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        x = F.pad(x, (0, -x.shape[3] % self.multiple, 0, -x.shape[2] % self.multiple), mode="replicate")
        h = self.patches(x).flatten(2).transpose(1, 2)  # [B, tokens, wide]
        if self.noise is not None:
            h = h + self.noise(level)[:, None, :]
        return self.out(self.blocks(h).mean(dim=1))


class MixerBlock(nn.Module):
    """[B, tokens, wide] -> the same shape."""

    def __init__(self, tokens: int, wide: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(wide), nn.LayerNorm(wide)
        self.over_tokens = nn.Sequential(nn.Linear(tokens, 64), nn.SiLU(), nn.Linear(64, tokens))
        self.over_channels = nn.Sequential(nn.Linear(wide, 2 * wide), nn.SiLU(), nn.Linear(2 * wide, wide))

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.over_tokens(self.norm1(h).transpose(1, 2)).transpose(1, 2)
        return h + self.over_channels(self.norm2(h))


class NoiseLevel(nn.Module):
    """Noise levels [B] -> what is added to each channel, [B, wide]."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(NOISE_WAVES, wide), nn.SiLU(), nn.Linear(wide, wide))

    def forward(self, level: Tensor) -> Tensor:
        waves = torch.arange(NOISE_WAVES, device=level.device, dtype=level.dtype)
        return self.layers(torch.cos(math.pi * level[:, None] * waves))


ARCHITECTURES: dict[str, type[nn.Module]] = {"plain": ConvBody, "patches": PatchBody}


# ---- the folder ------------------------------------------------------------------------------------------------------


def save_judge(folder: Path, judge: Judge) -> None:
    """Writes judge.json and judge.safetensors, whole or not at all; an older judge at that place is replaced.

    Mistake when something else is there.
    """
    folder = Path(folder).expanduser()
    check_place(folder)
    beside, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    for left_over in (beside, old):
        shutil.rmtree(left_over, ignore_errors=True)
    beside.mkdir(parents=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in judge.state_dict().items()}, beside / WEIGHTS_FILE)
    values = json.dumps({"version": VERSION, **judge.spec.as_dict()}, indent=2, ensure_ascii=False)
    (beside / SPEC_FILE).write_text(values + "\n", encoding="utf-8")
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def check_place(folder: Path) -> None:
    """Mistake where `save_judge` would find something that is no judge: to be asked before one is trained."""
    if folder.exists() and not is_judge(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise Mistake(f"{folder} holds something that is no judge; give another folder.")


def is_judge(folder: Path) -> bool:
    """Whether this is a judge's folder; whether it can be read is for `load_judge` to say."""
    return (Path(folder) / SPEC_FILE).is_file()


def load_judge(folder: str | Path) -> Judge:
    """The judge of a folder, on the CPU, in eval mode, its weights frozen. Mistake when there is none, or it cannot be read."""
    folder = Path(folder).expanduser()
    if not is_judge(folder):
        raise Mistake(f"{folder} is no judge: {f'it has no {SPEC_FILE}' if folder.is_dir() else 'there is no such folder'}.")
    spec = _read_spec(folder)
    try:
        with torch.device("meta"):  # no weights are drawn only to be replaced, and torch's global generator stays as it is
            judge = Judge(spec)
        judge.load_state_dict(load_file(folder / WEIGHTS_FILE), assign=True)
    except (OSError, RuntimeError, TypeError, SafetensorError) as error:
        first = " ".join(str(error).split())[:160].rstrip(".")
        raise Mistake(f"The weights of the judge in {folder} cannot be read: {first}.") from error
    return judge.requires_grad_(False).eval()


def _read_spec(folder: Path) -> JudgeSpec:
    try:
        values = json.loads((folder / SPEC_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Mistake(f"{folder / SPEC_FILE} cannot be read: {error}.") from error
    version = values.pop("version", None) if isinstance(values, dict) else None
    if version != VERSION:
        raise Mistake(f"{folder} holds a judge of version {version}, and this diffsteer reads version {VERSION}; train it again.")
    try:
        return JudgeSpec.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise Mistake(f"{folder} was not written by this version of diffsteer, or was changed: its {SPEC_FILE} says {error}.") from error
