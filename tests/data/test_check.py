"""The preflight: everything is read, everything wrong is listed, and the sheet is what the model will see."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffsteer.data.check import check
from diffsteer.data.images import load_pictures
from diffsteer.data.pixels import GAP, MARGIN
from diffsteer.errors import Mistake


def test_good_data(class_folder: Path, tmp_path: Path) -> None:
    report = check(str(class_folder), out=tmp_path / "out" / "deep")
    assert report.ok
    assert (report.count, report.channels, report.height, report.width) == (7, 3, 16, 16)
    assert report.classes == {"cat": 4, "dog": 3}
    assert report.sizes == {"16x16": 7}
    assert report.modes == {"RGB": 7}
    assert (report.unreadable, report.tiny, report.odd_modes, report.duplicates, report.notes) == ({}, {}, {}, (), ())
    assert [path.name for path in (tmp_path / "out" / "deep").iterdir()] == ["sheet.png"]
    assert report.sheet == str(tmp_path / "out" / "deep" / "sheet.png")


def test_the_sheet_shows_what_the_model_will_see(class_folder: Path, tmp_path: Path) -> None:
    report = check(str(class_folder), size=(24, 24), out=tmp_path / "out")
    pictures = load_pictures(str(class_folder), size=(24, 24))
    with Image.open(report.sheet) as image:
        sheet = np.asarray(image)
    cell, columns = 48, 8
    left = sheet.shape[1] - MARGIN - columns * (cell + GAP) + GAP
    for row, members in enumerate([[0, 1, 2, 3], [4, 5, 6]]):
        top = sheet.shape[0] - MARGIN - (2 - row) * (cell + GAP) + GAP
        for column in range(columns):
            x = left + column * (cell + GAP)
            shown = sheet[top : top + cell : 2, x : x + cell : 2]
            wanted = (
                pictures.at([members[column]]).pixels[0].permute(1, 2, 0).numpy() if column < len(members) else np.full((24, 24, 3), 255)
            )
            assert np.array_equal(shown, wanted)


def test_everything_wrong_is_listed_and_the_sheet_shows_the_rest(class_folder: Path, tmp_path: Path, paint) -> None:
    (class_folder / "cat" / "0.png").write_bytes(b"")
    (class_folder / "dog" / "0.png").write_text("text")
    paint(1, size=(4, 30)).save(class_folder / "dog" / "thin.png")
    paint(2, "CMYK", size=(16, 16)).save(class_folder / "dog" / "print.jpg")
    (class_folder / "cat" / "twin.png").write_bytes((class_folder / "cat" / "1.png").read_bytes())
    report = check(str(class_folder), out=tmp_path / "out")
    assert not report.ok
    assert report.unreadable == {"cat/0.png": "it is empty", "dog/0.png": "it is not a picture in a known format"}
    assert report.tiny == {"dog/thin.png": "30x4"}
    assert report.odd_modes == {"CMYK": ("dog/print.jpg",)}
    assert report.duplicates == (("cat/1.png", "cat/twin.png"),)
    assert len(report.problems) == 2
    assert "--skip-broken" in report.problems[0]
    assert "thin.png" in report.problems[1]
    lines = "\n".join(report.lines())
    for word in (
        "cat/0.png (it is empty)",
        "dog/thin.png (30x4)",
        "mode CMYK: dog/print.jpg",
        "cat/1.png = cat/twin.png",
        "stops training",
    ):
        assert word in lines
    assert Path(report.sheet).is_file()
    assert json.loads(json.dumps(report.to_dict()))["ok"] is False


def test_skipping_and_labels_change_the_verdict(class_folder: Path, tmp_path: Path, paint) -> None:
    (class_folder / "cat" / "0.png").write_bytes(b"")
    assert check(str(class_folder), skip_broken=True).ok
    (class_folder / "cat" / "0.png").unlink()
    paint(50).save(class_folder / "stray.png")
    relaxed, strict = check(str(class_folder)), check(str(class_folder), need_labels=True)
    assert (relaxed.ok, relaxed.unlabelled) == (True, 1)
    assert not strict.ok
    assert "stray.png" in strict.problems[0]


def test_nothing_readable(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(b"")
    report = check(str(data), skip_broken=True, out=tmp_path / "out")
    assert not report.ok
    assert report.sheet is None
    assert not (tmp_path / "out").exists()


def test_without_classes_captions_are_shown(tmp_path: Path, paint) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(70):
        paint(number).save(data / f"{number}.png")
    (data / "metadata.jsonl").write_text("\n".join(json.dumps({"file_name": f"{n}.png", "text": f"picture {n}"}) for n in range(70)))
    report = check(str(data), out=tmp_path / "out")
    with Image.open(report.sheet) as image:
        plain_rows = 8 * (48 + GAP)
        assert image.height > plain_rows + 8 * 10


def test_many_classes_are_shown_in_part(tmp_path: Path, paint) -> None:
    for number in range(13):
        (tmp_path / "data" / f"class {number}").mkdir(parents=True)
        paint(number).save(tmp_path / "data" / f"class {number}" / "a.png")
    report = check(str(tmp_path / "data"), out=tmp_path / "out")
    assert report.ok
    assert len(report.classes) == 13
    with Image.open(report.sheet) as image:
        assert image.height < 11 * (48 + GAP) + 2 * MARGIN


def test_no_report_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="There is no data"):
        check(str(tmp_path / "absent"), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_out_must_not_be_a_file(class_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Mistake, match="is a file"):
        check(str(class_folder), out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
