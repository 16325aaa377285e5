"""Pictures from people: what is no picture, too large or a bomb is told of before it is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.serving import bomb
from commandline import with_text
from diffsteer.app.uploads import checked, named, recipe_in, thumbnail
from diffsteer.app.words import Said
from diffsteer.steering.contract import Canvas
from diffsteer.steering.files import read_picture

MOST = 1_000_000


def test_a_picture_is_seen_as_a_steer_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "photo of me.png"
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 256, (40, 60, 3)).astype(np.uint8)).save(path)
    upload = checked(path, MOST)
    assert (upload.name, upload.width, upload.height) == ("photo_of_me.png", 60, 40)
    seen = np.asarray(thumbnail(upload, 12, 8))
    steered = read_picture(str(path), Canvas(3, 8, 12))
    assert seen.shape == (8, 12, 3) and np.array_equal(seen, np.rint(steered.permute(1, 2, 0).numpy() * 255).astype(np.uint8))


def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    path = bomb(tmp_path / "bomb.png")
    assert path.stat().st_size < MOST
    with pytest.raises(Said, match="9400×9400 pixels; the limit is 4 million"):
        checked(path, MOST)
    with pytest.raises(Said, match="no PNG, JPEG or WebP"):  # what Pillow itself refuses to open
        checked(bomb(tmp_path / "larger.png", 14_000), MOST)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.png", b"I am no picture"),
        ("empty.png", b""),
        ("page.png", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"),
        ("cut.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"),
    ],
)
def test_what_is_no_picture_is_told_of(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Said, match=f"{name} is no PNG, JPEG or WebP picture that can be read"):
        checked(tmp_path / name, MOST)


def test_other_kinds_of_picture_are_not_opened_whatever_they_are_called(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(Said, match="no PNG"):
        checked(tmp_path / "a.png", MOST)


def test_too_many_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x" * 1_500_000)
    with pytest.raises(Said, match=r"has 1\.5 MB; the limit is 1 MB"):
        checked(tmp_path / "a.png", MOST)


def test_a_damaged_picture_is_told_of_when_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(Said, match=r"half\.png is no PNG"):
        thumbnail(checked(path, MOST), 8, 8)


def test_names_are_plain(tmp_path: Path) -> None:
    assert named(Path("../a b;$(rm).PNG")) == "a_b___rm_.png"
    assert named(Path(".hidden.png")) == "hidden.png"
    assert len(named(Path("x" * 4000 + ".png"))) < 100


@pytest.mark.parametrize("text", ["no json", "{}", "[]"])
def test_a_picture_without_a_recipe(tmp_path: Path, text: str) -> None:
    path = with_text(tmp_path / "a.png", text)
    with pytest.raises(Said, match="holds no recipe"):
        recipe_in(checked(path, MOST))
