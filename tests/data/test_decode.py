"""One picture of any kind: its channels, its levels, its direction, what shows through it, how it is cropped."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffsteer.data.decode import decode, in_channels, look, parse_background
from diffsteer.errors import Mistake

WHITE = parse_background("white")
RED = parse_background("#ff0000")


def as_png(image: Image.Image) -> bytes:
    return encoded(image, "PNG")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def ramp(mode: str = "L") -> Image.Image:
    return Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert(mode)


class TestGrey:
    def test_grey_stays_exact(self) -> None:
        assert np.array_equal(decode(as_png(ramp()), WHITE), np.asarray(ramp()))

    def test_one_bit_becomes_black_and_white(self) -> None:
        picture = decode(as_png(ramp().point(lambda level: 255 * (level > 100), "1")), WHITE)
        assert picture.ndim == 2
        assert set(np.unique(picture)) == {0, 255}

    def test_sixteen_bits_are_scaled_not_cut(self) -> None:
        values = np.array([[0, 257, 32768, 65535]] * 8, dtype=np.uint16)
        data = as_png(Image.fromarray(values))
        assert not look(data, WHITE).colour
        assert decode(data, WHITE)[0].tolist() == [0, 1, 128, 255]

    def test_a_palette_of_greys_stays_grey_and_exact(self) -> None:
        image = ramp().quantize(256)
        assert image.mode == "P"
        assert not look(as_png(image), WHITE).colour
        assert np.array_equal(decode(as_png(image), WHITE), np.asarray(ramp()))

    def test_grey_with_alpha_takes_a_grey_background(self) -> None:
        image = Image.merge("LA", (ramp(), Image.new("L", (16, 16), 0)))
        assert not look(as_png(image), WHITE).colour
        assert (decode(as_png(image), WHITE) == 255).all()
        image.putalpha(255)
        assert np.array_equal(decode(as_png(image), WHITE), np.asarray(ramp()))

    def test_grey_with_alpha_on_a_colour_is_in_colour(self) -> None:
        image = Image.merge("LA", (ramp(), Image.new("L", (16, 16), 0)))
        assert look(as_png(image), RED).colour
        assert decode(as_png(image), RED)[0, 0].tolist() == [255, 0, 0]

    def test_a_grey_level_that_means_transparent(self) -> None:
        picture = decode(encoded(ramp(), "PNG", transparency=0), WHITE)
        assert picture[0, :3].tolist() == [255, 1, 2]

    def test_floats_are_refused_with_the_reason(self) -> None:
        with pytest.raises(ValueError, match="where white is"):
            decode(encoded(Image.new("F", (8, 8)), "TIFF"), WHITE)


class TestColour:
    def test_colour_stays_exact(self) -> None:
        image = Image.merge("RGB", (ramp(), ramp().rotate(90), ramp().rotate(180)))
        assert np.array_equal(decode(as_png(image), WHITE), np.asarray(image))

    def test_a_palette_with_colour_becomes_rgb(self) -> None:
        image = Image.new("RGB", (8, 8), (200, 10, 10)).quantize(4)
        assert look(as_png(image), WHITE).colour
        assert decode(as_png(image), WHITE)[0, 0].tolist() == [200, 10, 10]

    def test_alpha_shows_the_background(self) -> None:
        image = Image.new("RGBA", (8, 8), (0, 0, 255, 0))
        image.paste((0, 0, 255, 255), (0, 0, 4, 8))
        image.paste((0, 0, 255, 51), (4, 0, 5, 8))
        picture = decode(as_png(image), RED)
        assert picture[0, 0].tolist() == [0, 0, 255]
        assert picture[0, 7].tolist() == [255, 0, 0]
        assert picture[0, 4].tolist() == [204, 0, 51]

    def test_a_palette_with_transparent_entries(self) -> None:
        image = Image.new("P", (8, 8), 1)
        image.putpalette([0, 0, 0, 0, 200, 0])
        data = encoded(image, "PNG", transparency=bytes([255, 0]))
        assert decode(data, WHITE)[0, 0].tolist() == [255, 255, 255]

    def test_cmyk_becomes_rgb(self) -> None:
        data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
        assert look(data, WHITE).mode == "CMYK"
        red, green, blue = decode(data, WHITE)[8, 8].tolist()
        assert red > 240
        assert max(green, blue) < 20


class TestDirectionAndSize:
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_pictures_stand_upright(self, orientation: int) -> None:
        upright = Image.new("RGB", (24, 16), "black")
        upright.paste((255, 255, 255), (0, 0, 8, 8))  # the mark is top left
        stored = {
            1: lambda image: image,
            2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            3: lambda image: image.rotate(180),
            4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
            5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
            6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
            7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
            8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
        }[orientation](upright)
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(stored, "JPEG", exif=exif, quality=95)
        seen = look(data, WHITE)
        assert (seen.width, seen.height) == (24, 16)
        picture = decode(data, WHITE)
        assert picture.shape == (16, 24, 3)
        assert picture[4, 4].min() > 200
        assert picture[12, 20].max() < 50

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_tiff_is_told_as_it_is_read(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.new("RGB", (24, 16)), "TIFF", exif=exif)
        seen = look(data, WHITE)
        assert decode(data, WHITE).shape == (seen.height, seen.width, 3) == ((24, 16, 3) if orientation >= 5 else (16, 24, 3))

    def test_orientation_counts_for_pictures_with_alpha_too(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(Image.new("RGBA", (24, 16)), "PNG", exif=exif)
        assert decode(data, WHITE).shape == (24, 16, 3)

    def test_damaged_exif_does_not_cost_the_picture(self) -> None:
        data = encoded(Image.new("RGB", (24, 16), "white"), "JPEG", exif=b"Exif\0\0nonsense and more of it")
        assert decode(data, WHITE).shape == (16, 24, 3)

    def test_wide_pictures_are_cropped_about_the_centre_not_squashed(self) -> None:
        image = Image.new("L", (64, 16), 0)
        image.paste(255, (24, 0, 40, 16))
        assert (decode(as_png(image), WHITE, (16, 16)) == 255).all()

    def test_any_height_and_width(self) -> None:
        assert decode(as_png(ramp("RGB")), WHITE, (12, 40)).shape == (12, 40, 3)

    def test_large_photos_decode_to_nearly_the_same_as_the_slow_way(self) -> None:
        values = np.add.outer(np.linspace(0, 120, 1200), np.linspace(0, 120, 1600)).astype(np.uint8)
        data = encoded(Image.fromarray(values), "JPEG", quality=95)
        with Image.open(io.BytesIO(data)) as image:
            slow = np.asarray(image.resize((64, 64), Image.Resampling.LANCZOS, box=(200, 0, 1400, 1200)))
        assert np.abs(decode(data, WHITE, (64, 64)).astype(int) - slow).max() <= 4

    def test_channels_on_demand(self) -> None:
        grey, colour = np.full((8, 8), 7, dtype=np.uint8), np.zeros((8, 8, 3), dtype=np.uint8)
        assert in_channels(grey, 3).shape == in_channels(colour, 3).shape == (3, 8, 8)
        assert in_channels(grey, 1).shape == in_channels(colour, 1).shape == (1, 8, 8)
        assert (in_channels(grey, 3) == 7).all()


def test_a_background_that_is_no_colour_is_a_mistake() -> None:
    with pytest.raises(Mistake, match="'pinkish' is not a colour"):
        parse_background("pinkish")


def test_a_file_that_would_start_another_program_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "harmless.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n")
    with pytest.raises(OSError, match="cannot identify"):
        look(path, WHITE)
