"""The one home of [-1, 1], PIL, grids and film.

In: pictures as float `[-1, 1]` tensors (what the network sees) or uint8 tensors (what people see). Out: the other of the two, or PNG, GIF
and npz files that appear whole and have the same bytes every time. Called by whatever shows or saves a picture.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from diffsteer.data.whole import whole_file
from diffsteer.errors import Mistake

GAP = 4  # between cells
MARGIN = 12  # round the sheet, and between a sheet and its labels
INK = "#222222"
PAPER = "#ffffff"
TITLE_SIZE, LABEL_SIZE, CAPTION_SIZE = 16, 13, 11
LEGIBLE_CELL = 48  # pixels a side: smaller pictures are enlarged until a cell is about this large
CAPTIONED_CELL = 96  # pixels wide: cells are enlarged up to here where their captions need it
LONGEST_ROW_LABEL = 260


def to_signed(pixels: Tensor) -> Tensor:
    """uint8 pixels of any shape -> float32 in [-1, 1]."""
    return pixels.to(torch.float32) / 127.5 - 1.0


def to_uint8(x0: Tensor) -> Tensor:
    """Pictures in [-1, 1] of any shape and float type -> uint8, clamped and rounded to the nearest level (halves go up)."""
    return ((x0.to(torch.float32).clamp(-1.0, 1.0) + 1.0) * 127.5 + 0.5).floor().to(torch.uint8)


def to_pil(picture: Tensor) -> Image.Image:
    """One uint8 picture `[C, H, W]` -> a PIL image, mode L for one channel and RGB for three. ValueError for anything else."""
    if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] not in (1, 3):
        raise ValueError(f"A picture to show is uint8 [1 or 3, H, W], not {picture.dtype} {list(picture.shape)}.")
    array = picture.detach().cpu().permute(1, 2, 0).contiguous().numpy()  # [H, W, C]
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def from_pil(image: Image.Image) -> Tensor:
    """A PIL image of mode L or RGB -> uint8 `[C, H, W]`. ValueError for other modes: `decode.flatten` brings any picture to these two."""
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"A picture of mode {image.mode} must be flattened to L or RGB first.")
    array = np.array(image)  # a copy: what PIL hands out is read-only
    return torch.from_numpy(array.reshape(image.height, image.width, -1)).permute(2, 0, 1).contiguous()


def grid(
    pictures: Tensor,
    *,
    columns: int,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    title: str | None = None,
    invert: bool = False,
    scale: int | None = None,
) -> Image.Image:
    """Pictures uint8 `[N, C, H, W]` laid out row by row on white paper, mode L for grey pictures and RGB for colour.

    One row label per row, one column label per column, one caption per picture (drawn under it). Text too wide for its place is
    shortened with an ellipsis. `invert` shows black as white; `scale` is a whole factor, by default one that makes tiny pictures and
    most captions legible. ValueError when there is nothing to show or the labels do not fit the layout.
    """
    count, channels, height, width = pictures.shape
    if count == 0 or columns < 1:
        raise ValueError(f"A grid needs pictures and at least one column; there are {count} and {columns}.")
    columns = min(columns, count) if column_labels is None else columns
    rows = -(-count // columns)
    _expect("row label", row_labels, rows)
    _expect("column label", column_labels, columns)
    _expect("caption", captions, count)

    scale = scale or _roomy_scale(height, width, captions)
    cell_width, cell_height = width * scale, height * scale
    caption_height = _line_height(CAPTION_SIZE) if captions is not None else 0
    left = MARGIN + (_labels_width(row_labels) if row_labels is not None else 0)
    top = MARGIN + (_line_height(TITLE_SIZE) + GAP if title else 0) + (_line_height(LABEL_SIZE) if column_labels is not None else 0)
    step_x, step_y = cell_width + GAP, cell_height + caption_height + GAP
    sheet_width = left + columns * step_x - GAP + MARGIN
    sheet_height = top + rows * step_y - GAP + MARGIN
    if title:
        sheet_width = max(sheet_width, 2 * MARGIN + _text_width(title, TITLE_SIZE))

    sheet = Image.new("L" if channels == 1 else "RGB", (sheet_width, sheet_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        _write(draw, title, (MARGIN, MARGIN), sheet_width - 2 * MARGIN, TITLE_SIZE)
    for column, label in enumerate(column_labels or ()):
        place = (left + column * step_x, top - _line_height(LABEL_SIZE))
        _write(draw, label, place, cell_width, LABEL_SIZE, align="centre")
    for row, label in enumerate(row_labels or ()):
        place = (MARGIN, top + row * step_y + (cell_height - _line_height(LABEL_SIZE)) // 2)
        _write(draw, label, place, left - 2 * MARGIN, LABEL_SIZE, align="right")
    for index in range(count):
        x, y = left + (index % columns) * step_x, top + (index // columns) * step_y
        shown = 255 - pictures[index] if invert else pictures[index]
        sheet.paste(to_pil(shown).resize((cell_width, cell_height), Image.Resampling.NEAREST), (x, y))
        if captions is not None:
            _write(draw, captions[index], (x, y + cell_height), cell_width, CAPTION_SIZE, align="centre")
    return sheet


def legible_scale(height: int, width: int) -> int:
    """The whole factor, never below 1, that makes the shorter side of a cell at least about 48 pixels."""
    return max(1, -(-LEGIBLE_CELL // min(height, width)))


def stack(images: Sequence[Image.Image], titles: Sequence[str | None] | None = None) -> Image.Image:
    """Sheets beneath one another, each under its title. RGB if any of them is, else L. ValueError for no image."""
    titled = _titled(images, titles)
    paper = _paper(titled, max(image.width for image in titled), sum(image.height for image in titled))
    y = 0
    for image in titled:
        paper.paste(image, (0, y))
        y += image.height
    return paper


def side_by_side(images: Sequence[Image.Image], titles: Sequence[str | None] | None = None) -> Image.Image:
    """Sheets beside one another, each under its title. RGB if any of them is, else L. ValueError for no image."""
    titled = _titled(images, titles)
    paper = _paper(titled, sum(image.width for image in titled), max(image.height for image in titled))
    x = 0
    for image in titled:
        paper.paste(image, (x, 0))
        x += image.width
    return paper


def padded(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Sheets of one size, that of the largest, each in the upper left corner of its paper: frames of a film."""
    width, height = max(image.width for image in images), max(image.height for image in images)
    if all(image.size == (width, height) for image in images):
        return list(images)
    papers = []
    for image in images:
        paper = _paper(images, width, height)
        paper.paste(image, (0, 0))
        papers.append(paper)
    return papers


def write_png(image: Image.Image, path: Path, text: Mapping[str, str] | None = None) -> None:
    """Write a PNG whole, with `text` in its metadata in the order given. The same image and text give the same bytes."""
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)  # tEXt where Latin-1 is enough, else iTXt
    with whole_file(Path(path)) as beside:
        image.save(beside, format="PNG", pnginfo=info)


def read_png_text(path: Path) -> dict[str, str]:
    """The text a PNG holds, by key; empty when there is none. Mistake when the file is missing or no PNG."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()  # text may stand behind the pixels
            return {key: str(value) for key, value in getattr(image, "text", {}).items()}
    except FileNotFoundError as error:
        raise Mistake(f"There is no file {path}.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise Mistake(f"{path} is not a PNG that can be read ({error}).") from error


def write_gif(frames: Sequence[Image.Image], path: Path, *, milliseconds: int = 100, last_milliseconds: int = 1500) -> None:
    """Write a film (modes L or RGB, one size) whole; it loops, and rests on its last frame. ValueError for no frame.

    Grey frames are exact. Each colour frame has its own palette and no dithering: a shared palette would spend itself on the noise of
    the first frames, and dithering flickers.
    """
    if not frames:
        raise ValueError("A film needs at least one frame.")
    durations = [milliseconds] * (len(frames) - 1) + [last_milliseconds]
    first, *others = [frame if frame.mode == "L" else _with_own_palette(frame) for frame in frames]
    with whole_file(Path(path)) as beside:
        first.save(beside, format="GIF", save_all=True, append_images=others, duration=durations, loop=0, disposal=1)


def write_npz(path: Path, pictures: Tensor, labels: Tensor | None) -> None:
    """Write guided-diffusion's convention whole: `arr_0` uint8 `[N, H, W, C]` and, with labels int64 `[N]`, `arr_1`."""
    arrays = [pictures.detach().cpu().permute(0, 2, 3, 1).contiguous().numpy()]
    if labels is not None:
        arrays.append(labels.detach().cpu().to(torch.int64).numpy())
    with whole_file(Path(path)) as beside, beside.open("wb") as file:  # given a name, numpy would add .npz to x.NPZ
        np.savez(file, *arrays)  # stamps every entry with the same date, so equal arrays give equal bytes


def _expect(what: str, given: Sequence[str] | None, wanted: int) -> None:
    if given is not None and len(given) != wanted:
        raise ValueError(f"This grid needs {wanted} {what}s, not {len(given)}.")


def _roomy_scale(height: int, width: int, captions: Sequence[str] | None) -> int:
    widest = max((_text_width(caption, CAPTION_SIZE) for caption in captions or ()), default=0)
    return max(legible_scale(height, width), -(-min(widest, CAPTIONED_CELL) // width))


def _titled(images: Sequence[Image.Image], titles: Sequence[str | None] | None) -> list[Image.Image]:
    if not images:
        raise ValueError("There is no sheet to lay out.")
    return [_under_title(image, title) for image, title in zip(images, titles or [None] * len(images), strict=True)]


def _under_title(image: Image.Image, title: str | None) -> Image.Image:
    if not title:
        return image
    head = MARGIN + _line_height(TITLE_SIZE)
    paper = _paper([image], max(image.width, 2 * MARGIN + _text_width(title, TITLE_SIZE)), head + image.height)
    _write(ImageDraw.Draw(paper), title, (MARGIN, MARGIN), paper.width - 2 * MARGIN, TITLE_SIZE)
    paper.paste(image, (0, head))
    return paper


def _paper(images: Sequence[Image.Image], width: int, height: int) -> Image.Image:
    return Image.new("RGB" if any(image.mode == "RGB" for image in images) else "L", (width, height), PAPER)


def _with_own_palette(frame: Image.Image) -> Image.Image:
    # 255 colours, not 256: the writer wants one index free for "same as the frame before".
    frame = frame.quantize(255, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette = np.array(frame.getpalette("RGB")).reshape(-1, 3)
    lightest = palette.sum(axis=1).argmax()
    if palette[lightest].min() >= 250:
        palette[lightest] = 255  # a near-white average would make the paper of a sheet flicker
    frame.putpalette(palette.astype(np.uint8).tobytes())
    return frame


def _write(draw: ImageDraw.ImageDraw, text: str, place: tuple[int, int], width: int, size: int, align: str = "left") -> None:
    text = _shortened(text, width, size)
    spare = width - _text_width(text, size)
    shift = {"left": 0, "centre": spare // 2, "right": spare}[align]
    draw.text((place[0] + shift, place[1]), text, fill=INK, font=_font(size))


def _shortened(text: str, width: int, size: int) -> str:
    text = " ".join(text.split())
    if _text_width(text, size) <= width:
        return text
    keep = next((length for length in range(len(text), 0, -1) if _text_width(text[:length].rstrip() + "…", size) <= width), 0)
    return text[:keep].rstrip() + "…" if keep else ""


def _labels_width(labels: Sequence[str]) -> int:
    return min(LONGEST_ROW_LABEL, max(_text_width(" ".join(label.split()), LABEL_SIZE) for label in labels)) + MARGIN


def _text_width(text: str, size: int) -> int:
    box = _font(size).getbbox(text)
    return int(-(-box[2] // 1))


def _line_height(size: int) -> int:
    box = _font(size).getbbox("Ågjy|")
    return int(-(-box[3] // 1)) + 3


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    # Pillow's own font has no accents; matplotlib ships one that has them, and Greek and Cyrillic. It is found without importing it.
    package = importlib.util.find_spec("matplotlib")
    if package is not None and package.origin is not None:
        path = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)
