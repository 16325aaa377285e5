"""Transforms of PIL pictures under torchvision's names, doing as little as those do."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image


class InterpolationMode(enum.Enum):
    NEAREST = Image.Resampling.NEAREST
    BILINEAR = Image.Resampling.BILINEAR
    BICUBIC = Image.Resampling.BICUBIC


class Compose:
    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, picture: Any) -> Any:
        for transform in self.transforms:
            picture = transform(picture)
        return picture


class Lambda:
    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        self.lambd = lambd

    def __call__(self, picture: Any) -> Any:
        return self.lambd(picture)


class Resize:
    """To (height, width), or so that the shorter side becomes `size` pixels long."""

    def __init__(self, size: int | tuple[int, int], interpolation: InterpolationMode = InterpolationMode.BILINEAR) -> None:
        self.size, self.resample = size, interpolation.value

    def __call__(self, picture: Image.Image) -> Image.Image:
        if isinstance(self.size, int):
            width, height = (round(side * self.size / min(picture.size)) for side in picture.size)
        else:
            height, width = self.size
        return picture if picture.size == (width, height) else picture.resize((width, height), self.resample)


class CenterCrop:
    def __init__(self, size: int | tuple[int, int]) -> None:
        self.height, self.width = (size, size) if isinstance(size, int) else size

    def __call__(self, picture: Image.Image) -> Image.Image:
        left, top = (picture.width - self.width) // 2, (picture.height - self.height) // 2
        return picture.crop((left, top, left + self.width, top + self.height))


class RandomCrop:
    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, picture: Image.Image) -> Image.Image:
        left, top = (int(torch.randint(side - self.size + 1, (1,))) for side in picture.size)
        return picture.crop((left, top, left + self.size, top + self.size))


class RandomHorizontalFlip:
    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else picture


class PILToTensor:
    """A uint8 picture -> uint8 [C, H, W]."""

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        values = torch.from_numpy(np.array(picture))
        return values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()


class ConvertImageDtype:
    """uint8 -> float in [0, 1]."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        return picture.to(self.dtype).div(255)


class ToTensor:
    """A uint8 picture -> float32 [C, H, W] in [0, 1]."""

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        return PILToTensor()(picture).float().div(255)


class Normalize:
    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        return (picture - self.mean) / self.std
