"""Pictures of the user's that losses compare with: one path -> a picture as the canvas is."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from diffsteer.data.decode import Background, decode, in_channels
from diffsteer.errors import Mistake
from diffsteer.steering.contract import Canvas

WHITE = Background((255, 255, 255))


def read_picture(value: str, canvas: Canvas) -> Tensor:
    """The picture at a path, [C, H, W] float32 in [0, 1], as the canvas is: laid on white, upright, scaled to cover the canvas and
    cropped about its centre. Mistake when it is missing or no picture."""
    path = Path(value).expanduser()
    if not value or not path.is_file():
        raise Mistake(f"There is no picture {value!r}; give the path of a picture file, such as photo.png.")
    try:
        array = decode(path, WHITE, (canvas.height, canvas.width))
    except Exception as error:  # a decoder raises nearly anything at a damaged file
        raise Mistake(f"{value} is not a picture that can be read ({error}).") from error
    return torch.tensor(in_channels(array, canvas.channels), dtype=torch.float32, device=canvas.device) / 255
