"""[-1, 1], PIL, grids, film: nothing lost on the way, nothing clipped on the sheet, the same bytes every time."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffsteer.data.pixels import (
    GAP,
    MARGIN,
    from_pil,
    grid,
    legible_scale,
    read_png_text,
    side_by_side,
    stack,
    to_pil,
    to_signed,
    to_uint8,
    write_gif,
    write_npz,
    write_png,
)
from diffsteer.errors import Mistake


def noise(count: int = 6, channels: int = 1, height: int = 8, width: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def ink(image: Image.Image, box: tuple[int, int, int, int]) -> int:
    """How many pixels of a region are darker than paper."""
    return int((np.asarray(image.crop(box).convert("L")) < 200).sum())


def _scale_of(sheet: Image.Image) -> int:
    """The factor a sheet of one 16-pixel column was enlarged by."""
    return (sheet.width - 2 * MARGIN) // 16


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestRange:
    def test_every_level_survives_the_round_trip(self) -> None:
        levels = torch.arange(256, dtype=torch.uint8)
        assert torch.equal(to_uint8(to_signed(levels)), levels)

    def test_the_ends_are_minus_one_and_one(self) -> None:
        assert to_signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]

    def test_rounds_to_the_nearest_and_halves_go_up(self) -> None:
        x0 = torch.tensor([100.4, 100.5, 100.6, 101.5]) / 127.5 - 1
        assert to_uint8(x0.double()).tolist() == [100, 101, 101, 102]

    def test_clamps_what_lies_outside(self) -> None:
        assert to_uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]

    def test_half_precision_is_rounded_in_float32(self) -> None:
        assert to_uint8(torch.tensor([1.0], dtype=torch.bfloat16)).tolist() == [255]


class TestPil:
    @pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
    def test_there_and_back(self, channels: int, mode: str) -> None:
        picture = noise(1, channels, 5, 9)[0]
        image = to_pil(picture)
        assert (image.mode, image.size) == (mode, (9, 5))
        assert torch.equal(from_pil(image), picture)

    def test_refuses_floats_and_other_modes(self) -> None:
        with pytest.raises(ValueError, match="uint8"):
            to_pil(torch.zeros(3, 8, 8))
        with pytest.raises(ValueError, match="RGBA"):
            from_pil(Image.new("RGBA", (8, 8)))


class TestGrid:
    def test_cells_hold_the_pictures_enlarged_and_nothing_else(self) -> None:
        pictures = noise(5)
        sheet = grid(pictures, columns=3)
        assert sheet.mode == "L"
        assert sheet.size == (2 * MARGIN + 3 * 48 + 2 * GAP, 2 * MARGIN + 2 * 48 + GAP)
        for index in range(5):
            x, y = MARGIN + (index % 3) * (48 + GAP), MARGIN + (index // 3) * (48 + GAP)
            cell = sheet.crop((x, y, x + 48, y + 48))
            assert torch.equal(from_pil(cell.resize((8, 8), Image.Resampling.NEAREST)), pictures[index])

    @pytest.mark.parametrize(("side", "scale"), [(8, 6), (16, 3), (28, 2), (32, 2), (48, 1), (256, 1)])
    def test_tiny_pictures_become_legible_and_large_ones_stay(self, side: int, scale: int) -> None:
        assert legible_scale(side, side) == scale

    def test_scale_can_be_chosen(self) -> None:
        assert grid(noise(1), columns=1, scale=1).size == (2 * MARGIN + 8, 2 * MARGIN + 8)

    def test_invert_shows_black_as_white(self) -> None:
        pictures = noise(1)
        assert np.array_equal(np.asarray(grid(pictures, columns=1, invert=True)), np.asarray(grid(255 - pictures, columns=1)))

    @settings(max_examples=25, deadline=None)
    @given(
        label=st.text(min_size=1, max_size=80),
        count=st.integers(1, 9),
        columns=st.integers(1, 4),
        channels=st.sampled_from([1, 3]),
    )
    def test_text_stays_off_the_edges_the_gaps_and_the_pictures(self, label: str, count: int, columns: int, channels: int) -> None:
        columns = min(columns, count)
        rows = -(-count // columns)
        grey = torch.full((count, channels, 16, 16), 128, dtype=torch.uint8)
        sheet = grid(grey, columns=columns, row_labels=[label] * rows, column_labels=[label] * columns, captions=[label] * count)
        cell = 16 * _scale_of(grid(grey[:1], columns=1, captions=[label]))
        width, height = sheet.size
        left = width - MARGIN - columns * (cell + GAP) + GAP
        row_height = (
            height
            - grid(grey[:columns], columns=columns, row_labels=[label], column_labels=[label] * columns, captions=[label] * columns).height
        )
        empty = [
            (0, 0, width, 2),
            (0, 0, 2, height),
            (width - 2, 0, width, height),
            (0, height - 2, width, height),
            (left - 4, 0, left, height),
        ]
        empty += [(left + column * (cell + GAP) - GAP, 0, left + column * (cell + GAP), height) for column in range(1, columns)]
        assert [box for box in empty if ink(sheet, box)] == []
        pixels = np.asarray(sheet.convert("L"))
        top = int(np.flatnonzero((pixels[:, left : left + cell] == 128).all(axis=1))[0])
        step = row_height // max(1, rows - 1)
        for index in range(count):
            x, y = left + index % columns * (cell + GAP), top + index // columns * step
            assert (pixels[y : y + cell, x : x + cell] == 128).all()

    def test_labels_are_drawn_where_they_belong(self) -> None:
        white = torch.full((4, 1, 48, 48), 255, dtype=torch.uint8)
        plain = grid(white, columns=2)
        assert ink(plain, (0, 0, *plain.size)) == 0
        labelled = grid(white, columns=2, row_labels=["cat", "dog"])
        left = labelled.width - plain.width
        first, second = (0, MARGIN, left, MARGIN + 48), (0, MARGIN + 48 + GAP, left, labelled.height)
        assert ink(labelled, first) > 20
        assert ink(labelled, second) > 20
        assert ink(labelled, (left + MARGIN, 0, *labelled.size)) == 0
        captioned = grid(white, columns=2, captions=["a", "b", "c", "d"])
        assert ink(captioned, (MARGIN, MARGIN, captioned.width, MARGIN + 48)) == 0
        assert ink(captioned, (MARGIN, MARGIN + 48, MARGIN + 48, MARGIN + 48 + 16)) > 5

    def test_a_caption_too_long_for_its_cell_stays_in_it(self) -> None:
        white = torch.full((2, 1, 96, 96), 255, dtype=torch.uint8)
        sheet = grid(white, columns=2, captions=["W" * 100, ""])
        assert ink(sheet, (MARGIN, MARGIN + 96, MARGIN + 96, sheet.height)) > 50
        assert ink(sheet, (MARGIN + 96, 0, sheet.width, sheet.height)) == 0

    def test_accents_greek_and_cyrillic_are_letters_not_boxes(self) -> None:
        white = torch.full((1, 1, 48, 48), 255, dtype=torch.uint8)
        drawn = {grid(white, columns=1, row_labels=[letter]).tobytes() for letter in "éüΩЖ\uffff"}
        assert len(drawn) == 5

    def test_what_does_not_fit_the_layout_is_refused(self) -> None:
        with pytest.raises(ValueError, match="2 row labels, not 1"):
            grid(noise(4), columns=2, row_labels=["a"])
        with pytest.raises(ValueError, match="needs pictures"):
            grid(noise(0), columns=2)


class TestSheets:
    def test_beneath_and_beside(self) -> None:
        grey, colour = grid(noise(2), columns=2), grid(noise(2, 3), columns=1)
        below = stack([grey, colour])
        assert (below.mode, below.size) == ("RGB", (max(grey.width, colour.width), grey.height + colour.height))
        beside = side_by_side([grey, grey])
        assert (beside.mode, beside.size) == ("L", (2 * grey.width, grey.height))

    def test_a_title_wider_than_its_sheet_is_whole(self) -> None:
        narrow = grid(torch.full((1, 1, 48, 48), 255, dtype=torch.uint8), columns=1)
        titled = side_by_side([narrow, narrow], ["raw weights after 100 steps", "EMA"])
        assert titled.width > 2 * narrow.width
        assert ink(titled, (titled.width - 2, 0, *titled.size)) == 0

    def test_titles_and_images_must_agree(self) -> None:
        sheet = grid(noise(1), columns=1)
        with pytest.raises(ValueError, match="zip"):
            stack([sheet, sheet], ["only one"])


class TestFiles:
    def test_png_keeps_text_of_any_script_and_its_bytes(self, tmp_path: Path) -> None:
        text = {"recipe": '{"seed": 7}', "label": "Katze – 猫"}
        for name in ("a.png", "b.png"):
            write_png(grid(noise(3, 3), columns=3), tmp_path / name, text)
        assert read_png_text(tmp_path / "a.png") == text
        assert sha(tmp_path / "a.png") == sha(tmp_path / "b.png")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]

    def test_reading_text_of_what_is_no_png_is_a_mistake(self, tmp_path: Path) -> None:
        (tmp_path / "note.png").write_text("hello")
        with pytest.raises(Mistake, match=r"note\.png is not a PNG"):
            read_png_text(tmp_path / "note.png")
        with pytest.raises(Mistake, match="no file"):
            read_png_text(tmp_path / "absent.png")

    def test_a_failed_write_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        write_png(Image.new("L", (8, 8)), path)
        before = sha(path)
        with pytest.raises(OSError, match="cannot write mode"):
            write_png(Image.new("F", (8, 8)), path)
        assert sha(path) == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]

    def test_gif_of_grey_frames_is_exact(self, tmp_path: Path) -> None:
        frames = [to_pil(picture) for picture in noise(3, 1, 20, 20)]
        for name in ("a.gif", "b.gif"):
            write_gif(frames, tmp_path / name, milliseconds=80, last_milliseconds=1000)
        assert sha(tmp_path / "a.gif") == sha(tmp_path / "b.gif")
        with Image.open(tmp_path / "a.gif") as film:
            assert (film.n_frames, film.info["loop"]) == (3, 0)
            durations = []
            for number, frame in enumerate(frames):
                film.seek(number)
                durations.append(film.info["duration"])
                assert np.array_equal(np.asarray(film.convert("L")), np.asarray(frame))
        assert durations == [80, 80, 1000]

    def test_gif_of_colour_frames_is_close_and_its_paper_white(self, tmp_path: Path) -> None:
        ramp = torch.linspace(0, 255, 32).to(torch.uint8)
        smooth = torch.stack([ramp.repeat(32, 1), ramp.repeat(32, 1).T, torch.full((32, 32), 90, dtype=torch.uint8)])[None]
        frames = [grid(noise(1, 3, 32, 32), columns=1), grid(smooth, columns=1)]
        write_gif(frames, tmp_path / "film.gif")
        with Image.open(tmp_path / "film.gif") as film:
            for number, frame in enumerate(frames):
                film.seek(number)
                shown, wanted = np.asarray(film.convert("RGB")).astype(int), np.asarray(frame).astype(int)
                assert (shown[:MARGIN] == 255).all()
                if number == 1:
                    assert np.abs(shown - wanted).mean() < 6

    @pytest.mark.parametrize("with_labels", [True, False])
    def test_npz_is_guided_diffusions_convention(self, tmp_path: Path, with_labels: bool) -> None:
        pictures, labels = noise(4, 3, 8, 10), torch.tensor([3, 1, 2, 0]) if with_labels else None
        for name in ("a.npz", "b.npz"):
            write_npz(tmp_path / name, pictures, labels)
        assert sha(tmp_path / "a.npz") == sha(tmp_path / "b.npz")
        with np.load(tmp_path / "a.npz") as arrays:
            assert arrays["arr_0"].shape == (4, 8, 10, 3)
            assert arrays["arr_0"].dtype == np.uint8
            assert np.array_equal(arrays["arr_0"], pictures.permute(0, 2, 3, 1).numpy())
            assert ("arr_1" in arrays) == with_labels
            if with_labels:
                assert arrays["arr_1"].tolist() == [3, 1, 2, 0]
