"""One picture file of any kind -> grey or colour, 8 bits, no alpha, the right way up, the size asked for.

In: encoded bytes, a path, or a uint8 array that was never encoded. Out: uint8 arrays. Called wherever a picture is read, from a data set
or from one file of the user's.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageOps

from diffsteer.errors import Mistake

Encoded = bytes | Path | np.ndarray  # arrays are uint8 [H, W] or [H, W, 3]

# What may be opened, whatever a file is called: PostScript and its like would start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF", "ICO", "PCX")
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
SIXTEEN_BIT_WHITE = 65535
ORIENTATION = 0x0112  # the EXIF tag: how the camera was held
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Background:
    """What shows through transparent pictures: one level of red, green and blue each, 0 to 255."""

    rgb: tuple[int, int, int]

    @property
    def grey(self) -> bool:
        return len(set(self.rgb)) == 1


@dataclass(frozen=True)
class Look:
    """What a file says about itself before it is decoded: its mode in Pillow's words, its size upright, whether it holds colour."""

    mode: str
    width: int
    height: int
    colour: bool


def parse_background(text: str) -> Background:
    """`white`, `#1ae680`, ... -> a Background. Mistake for anything that is no colour."""
    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise Mistake(f"{text!r} is not a colour for the background; use a name such as white or black, or #rrggbb.") from error
    return Background((red, green, blue))


def look(encoded: Encoded, behind: Background) -> Look:
    """Read a picture's header only. Raises whatever the decoder raises for a file that is no picture."""
    with opened(encoded) as image:
        width, height = image.size
        if _orientation(image) >= 5 and image.format != "TIFF":  # lying on its side; Pillow tells a TIFF's size as it stands
            width, height = height, width
        return Look(image.mode, width, height, _holds_colour(image, behind))


def decode(encoded: Encoded, behind: Background, size: tuple[int, int] | None = None) -> np.ndarray:
    """A picture as uint8 `[H, W]` (grey) or `[H, W, 3]` (colour).

    With `size` (height, width) it is scaled to cover that size and cropped about its centre, never squashed. Raises whatever the decoder
    raises for a broken file.
    """
    if isinstance(encoded, np.ndarray) and (size is None or encoded.shape[:2] == size):
        return encoded
    with opened(encoded) as image:
        if size is not None:
            image.draft(None, (2 * max(size), 2 * max(size)))  # JPEG alone listens: large photos are decoded at a half, a quarter, ...
        upright = flatten(image, behind)
    if size is not None and upright.size != size[::-1]:
        upright = ImageOps.fit(upright, size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(upright)


def flatten(image: Image.Image, behind: Background) -> Image.Image:
    """An image of any mode -> mode L or RGB, upright, its transparent parts filled with the background. ValueError for float pictures."""
    image.load()  # a file's pixels must be here before the file is closed
    turn = UPRIGHT.get(_orientation(image))
    if image.mode not in ("L", "RGB") or "transparency" in image.info:
        image = _flat(image, behind)
    return image if turn is None else image.transpose(turn)


def opened(encoded: Encoded) -> Image.Image:
    """The image, its pixels not read yet; close it after use."""
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded)
    return Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, formats=_formats())


def in_channels(array: np.ndarray, channels: int) -> np.ndarray:
    """uint8 `[H, W]` or `[H, W, 3]` -> `[channels, H, W]`: grey is repeated for colour; colour becomes its luminance for grey."""
    if array.ndim == 2:
        return np.broadcast_to(array, (channels, *array.shape))
    if channels == 1:
        return np.asarray(Image.fromarray(array).convert("L"))[None]
    return array.transpose(2, 0, 1)


@lru_cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this build of Pillow can open: it raises KeyError when asked for others."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _flat(image: Image.Image, behind: Background) -> Image.Image:
    colour = _holds_colour(image, behind)
    if image.mode.startswith("I"):
        return _from_sixteen_bits(image)
    if image.mode == "F":
        raise ValueError("its values are floats, which do not say where white is")
    if _has_alpha(image):
        return _on_background(image, behind, colour)
    return image.convert("RGB" if colour else "L")


def _on_background(image: Image.Image, behind: Background, colour: bool) -> Image.Image:
    layers = image.convert("RGBA")
    below = Image.new("RGB", image.size, behind.rgb)
    below.paste(layers.convert("RGB"), mask=layers.getchannel("A"))
    return below if colour else below.getchannel("R")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > SIXTEEN_BIT_WHITE:
        raise ValueError("its values go beyond 16 bits, which does not say where white is")
    return Image.fromarray(((values * 255 + SIXTEEN_BIT_WHITE // 2) // SIXTEEN_BIT_WHITE).astype(np.uint8))


def _holds_colour(image: Image.Image, behind: Background) -> bool:
    if _has_alpha(image) and not behind.grey:
        return True
    if image.mode in ("P", "PA"):
        entries = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((entries != entries[:, :1]).any())
    return image.mode not in GREY_MODES


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF raises nearly anything, and the picture itself may be whole
        return 1
