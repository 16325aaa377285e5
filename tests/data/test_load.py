"""Every kind of folder and file as DATA, and every kind of bad input: what goes on with a sentence, what stops with one."""

import gzip
import json
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffsteer.data.images import Pictures, load_pictures
from diffsteer.errors import Mistake

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the development pictures are not here")


def refused(data: object, **options: object) -> str:
    """The sentence with which this data is refused."""
    with pytest.raises(Mistake) as caught:
        load_pictures(str(data), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def everything(pictures: Pictures) -> Tensor:
    return pictures.at(range(pictures.count)).pixels


class TestBuiltin:
    def test_digits(self) -> None:
        digits = load_pictures("digits", need_labels=True)
        assert (digits.count, digits.channels, digits.height, digits.width) == (1797, 1, 8, 8)
        assert digits.label_names == tuple("0123456789")
        assert (digits.captions, digits.notes, digits.streamed) == (None, (), False)
        values = everything(digits).double() / 127.5 - 1
        assert digits.mean == pytest.approx(values.mean().item(), abs=1e-9)
        assert digits.variance == pytest.approx(values.var(unbiased=False).item(), abs=1e-9)
        assert everything(digits).max() == 255
        assert torch.equal(digits.at([8]).labels, torch.tensor([8]))

    def test_digits_color_is_the_digits_in_three_tints(self) -> None:
        digits, tinted = load_pictures("digits"), load_pictures("digits-color")
        assert (tinted.count, tinted.channels) == (1797, 3)
        assert tinted.captions is not None
        words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
        tints = {"red": (0.90, 0.20, 0.20), "green": (0.20, 0.80, 0.30), "blue": (0.25, 0.40, 0.95)}
        grey, colour = everything(digits).double(), everything(tinted).double()
        for index in range(0, 1797, 7):
            article, tint, word = tinted.captions[index].split()
            assert (article, word) == ("a", words[int(tinted.at([index]).labels)])
            ratio = colour[index].amax(dim=(1, 2)) / grey[index].max()
            assert (ratio - torch.tensor(tints[tint])).abs().max() < 0.05 + 0.005
        assert {caption.split()[1] for caption in tinted.captions} == set(tints)
        assert torch.equal(everything(load_pictures("digits-color")), everything(tinted))

    def test_a_builtin_name_wins_over_a_folder(self, class_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class_folder.rename(class_folder.parent / "digits")
        monkeypatch.chdir(class_folder.parent)
        assert load_pictures("digits").count == 1797
        assert load_pictures("./digits").count == 7

    def test_has_no_columns_and_no_test_split(self) -> None:
        assert "built in" in refused("digits", label_column="label")
        assert "not divided into splits" in refused("digits", split="test")


class TestFolders:
    def test_sub_folders_are_classes(self, class_folder: Path) -> None:
        pets = load_pictures(str(class_folder), need_labels=True)
        assert (pets.count, pets.channels, pets.height, pets.width) == (7, 3, 16, 16)
        assert pets.label_names == ("cat", "dog")
        assert pets.at(range(7)).labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
        assert pets.name(4) == "dog/0.png"
        with Image.open(class_folder / "dog" / "0.png") as image:
            assert np.array_equal(everything(pets)[4].permute(1, 2, 0).numpy(), np.asarray(image))

    def test_class_names_and_files_are_in_natural_order(self, tmp_path: Path, paint) -> None:
        for name in ("10", "9", "1"):
            (tmp_path / name).mkdir()
            for number in (1, 2, 10):
                paint(number).save(tmp_path / name / f"{name}-{number}.png")
        pictures = load_pictures(str(tmp_path))
        assert pictures.label_names == ("1", "9", "10")
        assert [pictures.name(index) for index in range(3)] == ["1/1-1.png", "1/1-2.png", "1/1-10.png"]

    def test_folders_are_classes_whatever_their_names_and_number(self, tmp_path: Path, paint) -> None:
        for number in range(-1, 60):
            (tmp_path / str(number)).mkdir()
            paint(number + 1).save(tmp_path / str(number) / "a.png")
        assert len(load_pictures(str(tmp_path), need_labels=True).label_names) == 61

    def test_a_flat_folder_has_no_labels(self, tmp_path: Path, paint) -> None:
        paint().save(tmp_path / "a.png")
        flat = load_pictures(str(tmp_path))
        assert (flat.count, flat.label_names, flat.at([0]).labels) == (1, (), None)
        message = refused(tmp_path, need_labels=True)
        assert "sub-folder per class" in message
        assert "--conditioning none" in message

    def test_deeper_folders_belong_to_the_class_on_top(self, class_folder: Path, paint) -> None:
        (class_folder / "cat" / "old" / "older").mkdir(parents=True)
        paint(99).save(class_folder / "cat" / "old" / "older" / "x.png")
        pets = load_pictures(str(class_folder))
        assert pets.label_names == ("cat", "dog")
        assert torch.bincount(pets.at(range(8)).labels).tolist() == [5, 3]

    def test_one_folder_too_high_is_said(self, class_folder: Path) -> None:
        (note,) = load_pictures(str(class_folder.parent)).notes
        assert "one class 'pets'" in note
        assert str(class_folder) in note

    def test_extensions_in_capitals_unicode_names_and_the_home_folder(self, tmp_path: Path, paint, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "bilder"
        (folder / "кошка 猫").mkdir(parents=True)
        paint(1).save(folder / "кошка 猫" / "été.JPG", format="JPEG")
        paint(2).save(folder / "кошка 猫" / "B.PNG", format="PNG")
        monkeypatch.setenv("HOME", str(tmp_path))
        pictures = load_pictures("~/bilder")
        assert pictures.count == 2
        assert pictures.label_names == ("кошка 猫",)

    def test_other_files_are_ignored_and_counted(self, class_folder: Path) -> None:
        (class_folder / "notes.txt").write_text("hello")
        (class_folder / "cat" / "photo.heic").write_bytes(b"?")
        (class_folder / "cat" / ".DS_Store").write_bytes(b"?")
        (class_folder / "__MACOSX" / "cat").mkdir(parents=True)
        (class_folder / "__MACOSX" / "cat" / "._0.png").write_bytes(b"?")
        (class_folder / "empty").mkdir()
        pets = load_pictures(str(class_folder))
        assert pets.count == 7
        assert pets.label_names == ("cat", "dog")
        ignored, empty = pets.notes
        assert "2 files" in ignored
        assert ".heic 1" in ignored
        assert ".txt 1" in ignored
        assert "empty" in empty

    def test_folders_of_splits(self, class_folder: Path, paint) -> None:
        data = class_folder.parent / "split"
        (data / "test" / "cat").mkdir(parents=True)
        class_folder.rename(data / "train")
        paint(5).save(data / "test" / "cat" / "a.png")
        assert load_pictures(str(data)).count == 7
        assert load_pictures(str(data), split="test").count == 1
        assert "it has test, train" in refused(data, split="validation")
        assert "not divided into splits" in refused(data / "train", split="test")

    def test_a_link_that_leads_back_is_not_followed_forever(self, class_folder: Path) -> None:
        (class_folder / "cat" / "loop").symlink_to(class_folder, target_is_directory=True)
        assert load_pictures(str(class_folder)).count == 7

    def test_a_name_that_is_no_text_is_refused_with_its_bytes(self, class_folder: Path) -> None:
        """Nothing could write it down: not settings, pages, nor messages."""
        (class_folder / "cat").rename(os.fsdecode(os.fsencode(class_folder) + b"/caf\xe9"))
        assert r"'caf\udce9' in" in refused(class_folder) and "not UTF-8" in refused(class_folder)

    def test_pictures_beside_a_split_are_told_of(self, tmp_path: Path, class_folder: Path, paint) -> None:
        data = tmp_path / "split"
        data.mkdir()
        class_folder.rename(data / "train")
        paint(5).save(data / "a.png")
        assert load_pictures(str(data)).notes[0].startswith("Ignored 1 picture that lies beside train, which is taken for a split")


class TestMetadata:
    def write(self, folder: Path, rows: list[dict[str, object]], suffix: str = ".jsonl") -> None:
        path = folder / f"metadata{suffix}"
        if suffix == ".jsonl":
            path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        else:
            lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
            path.write_text("\n".join(lines), encoding="utf-8")

    def flat(self, folder: Path, paint, count: int = 3) -> Path:
        for number in range(count):
            paint(number).save(folder / f"{number}.png")
        return folder

    @pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
    def test_captions_and_labels(self, tmp_path: Path, paint, suffix: str) -> None:
        folder = self.flat(tmp_path, paint)
        rows = [
            {"file_name": f"{number}.png", "text": f"picture number {number}", "label": ("b", "a", "b")[number]} for number in (2, 0, 1)
        ]
        self.write(folder, rows, suffix)
        pictures = load_pictures(str(folder), need_labels=True)
        assert pictures.captions == ["picture number 0", "picture number 1", "picture number 2"]
        assert pictures.label_names == ("a", "b")
        assert pictures.at(range(3)).labels.tolist() == [1, 0, 1]
        assert pictures.notes == ("The class a has only one picture.",)

    def test_captions_beside_class_folders(self, class_folder: Path) -> None:
        self.write(class_folder, [{"file_name": "dog/1.png", "caption": "a good dog"}])
        pets = load_pictures(str(class_folder), need_labels=True)
        assert pets.captions[5] == "a good dog"
        assert pets.captions[0] == ""
        assert pets.label_names == ("cat", "dog")

    def test_the_only_column_of_words_is_the_caption(self, tmp_path: Path, paint) -> None:
        folder = self.flat(tmp_path, paint)
        self.write(folder, [{"file_name": f"{n}.png", "author": "me", "seen": f"a thing that is {n}"} for n in range(3)])
        assert load_pictures(str(folder)).captions == ["a thing that is 0", "a thing that is 1", "a thing that is 2"]

    @pytest.mark.parametrize("hole", ["", "-1", None])
    def test_holes_stop_a_conditional_model_only(self, tmp_path: Path, paint, hole: str | None) -> None:
        folder = self.flat(tmp_path, paint)
        self.write(folder, [{"file_name": f"{number}.png", "label": ("a", hole, "b")[number]} for number in range(3)])
        message = refused(folder, need_labels=True)
        assert "1 of 3 pictures have no label: 1.png" in message
        assert "--conditioning none" in message
        pictures = load_pictures(str(folder))
        assert pictures.label_names == ()
        assert "labels are left out" in pictures.notes[0]

    def test_pictures_beside_class_folders_are_holes(self, class_folder: Path, paint) -> None:
        paint(50).save(class_folder / "stray.png")
        assert "stray.png" in refused(class_folder, need_labels=True)

    def test_a_listed_picture_that_is_not_there(self, tmp_path: Path, paint) -> None:
        folder = self.flat(tmp_path, paint)
        self.write(folder, [{"file_name": f"{number}.png", "label": number % 2} for number in range(4)])
        assert "3.png (it does not exist)" in refused(folder)
        assert load_pictures(str(folder), skip_broken=True).count == 3

    def test_a_listed_picture_that_is_not_there_still_has_its_folders_class(self, class_folder: Path) -> None:
        self.write(class_folder, [{"file_name": "dog/9.png", "caption": "gone"}])
        assert load_pictures(str(class_folder), skip_broken=True, need_labels=True).count == 7
        assert "dog/9.png (it does not exist)" in refused(class_folder, need_labels=True)

    def test_named_columns(self, tmp_path: Path, paint) -> None:
        folder = self.flat(tmp_path, paint)
        self.write(folder, [{"file_name": f"{number}.png", "breed": "xyx"[number], "size": number} for number in range(3)])
        assert load_pictures(str(folder)).label_names == ()
        assert load_pictures(str(folder), label_column="breed").label_names == ("x", "y")
        message = refused(folder, label_column="bred")
        assert "breed (text), size (integer)" in message
        assert "--label-column breed" in message
        assert "file_name" in refused(folder, image_column="breed")
        assert "no text" in refused(folder, caption_column="size")

    def test_metadata_beside_splits_is_of_them(self, tmp_path: Path, paint) -> None:
        (tmp_path / "train").mkdir()
        (tmp_path / "test").mkdir()
        self.flat(tmp_path / "train", paint)
        self.flat(tmp_path / "test", paint, 1)
        rows = [{"file_name": f"train/{number}.png", "label": "xyx"[number]} for number in range(3)]
        self.write(tmp_path, [*rows, {"file_name": "test/0.png", "label": "z"}])
        pictures = load_pictures(str(tmp_path), need_labels=True)
        assert (pictures.label_names, pictures.class_counts) == (("x", "y"), (2, 1))
        self.write(tmp_path / "train", [{"file_name": f"{number}.png", "label": "own"} for number in range(3)])
        assert load_pictures(str(tmp_path)).label_names == ("own",)

    def test_the_last_of_several_rows_counts_and_is_told(self, tmp_path: Path, paint) -> None:
        folder = self.flat(tmp_path, paint)
        self.write(folder, [{"file_name": f"{number % 3}.png", "label": "abcdef"[number]} for number in range(4)])
        pictures = load_pictures(str(folder))
        assert pictures.label_names == ("b", "c", "d")
        assert pictures.notes[0] == "metadata.jsonl has several rows for 0.png: the last of a file counts."

    @pytest.mark.parametrize("name", ["../out.png", "/out.png", "sub/../../out.png", "..\\out.png"])
    def test_files_outside_are_refused(self, tmp_path: Path, paint, name: str) -> None:
        (tmp_path / "in").mkdir()
        folder = self.flat(tmp_path / "in", paint)
        paint(7).save(tmp_path / "out.png")
        self.write(folder, [{"file_name": name, "label": "a"}])
        assert "does not lie in its folder" in refused(folder)

    def test_integers_with_holes_as_pandas_writes_them(self, tmp_path: Path, paint) -> None:
        folder = self.flat(tmp_path, paint)
        self.write(folder, [{"file_name": f"{number}.png", "label": (3.0, 10.0, float("nan"))[number]} for number in range(3)])
        assert "1 of 3 pictures have no label: 2.png" in refused(folder, need_labels=True)
        self.write(folder, [{"file_name": f"{number}.png", "label": (3.0, 10.0, 3.0)[number]} for number in range(3)])
        assert load_pictures(str(folder), need_labels=True).label_names == ("3", "10")

    def test_a_column_of_names_is_no_label(self, tmp_path: Path, paint) -> None:
        folder = self.flat(tmp_path, paint, 60)
        self.write(folder, [{"file_name": f"{number}.png", "title": f"picture {number}"} for number in range(60)])
        assert "60 different values in 60 rows" in refused(folder, label_column="title")

    def test_damaged_metadata_is_named(self, tmp_path: Path, paint) -> None:
        folder = self.flat(tmp_path, paint)
        (folder / "metadata.jsonl").write_text('{"file_name": "0.png"\n')
        assert "metadata.jsonl cannot be read" in refused(folder)
        (folder / "metadata.jsonl").write_text('{"picture": "0.png"}\n')
        assert "a column file_name" in refused(folder)
        (folder / "metadata.jsonl").write_bytes(b"\xff\xfe\x00")
        assert "UTF-8" in refused(folder)


class TestChannelsAndSize:
    def test_grey_stays_grey_and_mixed_becomes_colour_with_a_sentence(self, tmp_path: Path, paint) -> None:
        for number in range(3):
            paint(number, "L").save(tmp_path / f"{number}.png")
        grey = load_pictures(str(tmp_path))
        assert (grey.channels, grey.notes) == (1, ())
        paint(9, "RGB").save(tmp_path / "9.png")
        mixed = load_pictures(str(tmp_path))
        assert mixed.channels == 3
        assert mixed.notes == ("Colour and grey are mixed (1 and 3 pictures): all are treated as colour.",)
        assert torch.equal(mixed.at([0]).pixels[0], grey.at([0]).pixels[0].expand(3, -1, -1))

    def test_the_one_size_all_share_is_kept(self, tmp_path: Path, paint) -> None:
        paint(0, size=(20, 12)).save(tmp_path / "a.png")
        paint(1, size=(20, 12)).save(tmp_path / "b.png")
        pictures = load_pictures(str(tmp_path))
        assert (pictures.height, pictures.width, pictures.notes) == (12, 20, ())

    def test_large_or_different_sizes_become_64_with_a_sentence(self, tmp_path: Path, paint) -> None:
        paint(0, size=(100, 80)).save(tmp_path / "a.png")
        pictures = load_pictures(str(tmp_path))
        assert (pictures.height, pictures.width) == (64, 64)
        assert pictures.notes == ("Pictures are 80x100: scaled and cropped about the centre to 64x64; --size changes that.",)
        paint(1, size=(30, 30)).save(tmp_path / "b.png")
        different = load_pictures(str(tmp_path))
        assert "80x100: 1" in different.notes[0]
        assert "Enlarged, because smaller than 64x64: 1 of 2 pictures." in different.notes

    def test_the_size_asked_for(self, class_folder: Path) -> None:
        pets = load_pictures(str(class_folder), size=(8, 24))
        assert everything(pets).shape == (7, 3, 8, 24)
        assert "too small" in refused(class_folder, size=(4, 16))

    def test_background_shows_through(self, tmp_path: Path) -> None:
        Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
        assert (everything(load_pictures(str(tmp_path))) == 255).all()
        assert everything(load_pictures(str(tmp_path), background="#102030"))[0, :, 0, 0].tolist() == [16, 32, 48]


class TestBroken:
    def spoil(self, folder: Path) -> None:
        whole = (folder / "cat" / "0.png").read_bytes()
        (folder / "cat" / "0.png").write_bytes(whole[: len(whole) // 2])
        (folder / "cat" / "1.png").write_bytes(b"")
        (folder / "dog" / "0.png").write_text("I am a text")

    def test_all_are_named_with_the_reason_and_nothing_is_left_behind(self, class_folder: Path) -> None:
        self.spoil(class_folder)
        before = sorted(class_folder.parent.rglob("*"))
        message = refused(class_folder)
        assert message.startswith("3 of 7 pictures cannot be read: ")
        assert "cat/0.png (image file is truncated" in message
        assert "cat/1.png (it is empty)" in message
        assert "dog/0.png (it is not a picture in a known format)" in message
        assert "--skip-broken" in message
        assert sorted(class_folder.parent.rglob("*")) == before

    def test_skipping_goes_on_with_the_rest(self, class_folder: Path) -> None:
        self.spoil(class_folder)
        pets = load_pictures(str(class_folder), skip_broken=True, need_labels=True)
        assert pets.count == 4
        assert [pets.name(index) for index in range(4)] == ["cat/2.png", "cat/3.png", "dog/1.png", "dog/2.png"]
        assert pets.at(range(4)).labels.tolist() == [0, 0, 1, 1]
        assert any("Skipped 3 of 7" in note for note in pets.notes)

    def test_at_most_five_are_named(self, tmp_path: Path) -> None:
        for number in range(8):
            (tmp_path / f"{number}.png").write_bytes(b"no")
        message = refused(tmp_path)
        assert "4.png" in message
        assert "5.png" not in message
        assert "and 3 more" in message
        assert "nothing left" in refused(tmp_path, skip_broken=True)

    def test_a_decompression_bomb_is_not_opened(self, tmp_path: Path, paint) -> None:
        paint().save(tmp_path / "a.png")
        header = struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", len(header)) + b"IHDR" + header
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + b"\0\0\0\0IDAT")
        assert "bomb.png (it is too large" in refused(tmp_path)

    def test_under_eight_pixels_a_side(self, class_folder: Path, paint) -> None:
        paint(0, size=(5, 20)).save(class_folder / "cat" / "sliver.png")
        assert "cat/sliver.png (20x5)" in refused(class_folder)
        assert "cat/sliver.png (20x5)" in refused(class_folder, skip_broken=True)

    def test_duplicates_and_lonely_classes_go_on_with_a_sentence(self, class_folder: Path, paint) -> None:
        (class_folder / "dog" / "copy.png").write_bytes((class_folder / "dog" / "0.png").read_bytes())
        (class_folder / "emu").mkdir()
        paint(77).save(class_folder / "emu" / "only.png")
        pets = load_pictures(str(class_folder), need_labels=True)
        assert pets.count == 9
        assert pets.notes == (
            "The class emu has only one picture.",
            "1 picture repeats another exactly, for example dog/0.png = dog/copy.png.",
        )


class TestNotData:
    def test_nothing_found_says_where_and_what_was_ignored(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("x")
        (tmp_path / "b.heic").write_text("x")
        (tmp_path / "later").mkdir()
        message = refused(tmp_path)
        assert str(tmp_path) in message
        assert "2 files (.txt 1, .heic 1)" in message
        assert "later" in message
        (tmp_path / "void").mkdir()
        assert "it is empty" in refused(tmp_path / "void")

    @pytest.mark.parametrize(("file", "word"), [("settings.yaml", "run folder"), ("model_index.json", "model folder")])
    def test_runs_and_models_are_not_data(self, class_folder: Path, file: str, word: str) -> None:
        (class_folder / file).write_text("{}")
        assert word in refused(class_folder)

    @pytest.mark.parametrize("place", ["data_batch_1", "cifar-10-batches-py/data_batch_1", "train.pkl"])
    def test_pickles_are_never_opened(self, tmp_path: Path, place: str) -> None:
        flag = tmp_path / "ran"
        (tmp_path / "data").mkdir()
        path = tmp_path / "data" / place
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"cos\nsystem\n(S'touch {flag}'\ntR.".encode())
        for data in [path] if path.suffix else [path, path.parent, tmp_path / "data"]:
            message = refused(data)
            assert "pickles, which are never opened" in message
            assert "parquet" in message
        assert not flag.exists()

    def test_a_path_that_is_not_there_names_its_neighbours(self, class_folder: Path) -> None:
        assert f"Did you mean {class_folder}?" in refused(class_folder.parent / "pest")
        assert f"Did you mean {class_folder / 'cat'}?" in refused(class_folder / "cats" / "deep")
        assert "Did you mean digits" in refused("digit")
        assert "There is no data" in refused("")

    def test_files_of_other_kinds(self, class_folder: Path) -> None:
        archive = class_folder / "pets.zip"
        archive.write_bytes(b"")
        assert "unpack it" in refused(archive)
        assert "is one picture" in refused(class_folder / "cat" / "0.png")
        other = class_folder / "a.npz"
        other.write_bytes(b"")
        assert "a kind that cannot be read" in refused(other)

    def test_a_name_with_a_slash_below_a_folder_that_exists_is_a_path(self, class_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(class_folder.parent)
        assert "Did you mean pets/cat" in refused("pets/cats")


class TestNetwork:
    @pytest.mark.parametrize("data", ["mnist", "somebody/something"])
    def test_no_network_is_said_at_once(self, data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        started = time.monotonic()
        message = refused(data)
        assert time.monotonic() - started < 15
        assert message.startswith("No network: http://127.0.0.1:9 does not answer")
        assert list(tmp_path.iterdir()) == []

    def test_columns_without_metadata(self, class_folder: Path) -> None:
        assert "without metadata" in refused(class_folder, label_column="label")


class TestIdx:
    def write(self, folder: Path, prefix: str, count: int, *, compress: bool, labels: int | None = None) -> np.ndarray:
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        digits = np.arange(count if labels is None else labels, dtype=np.uint8) % 10
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", digits)):
            content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
            (folder / (name + ".gz" * compress)).write_bytes(gzip.compress(content) if compress else content)
        return images

    @pytest.fixture
    def raw(self, tmp_path: Path) -> Path:
        raw = tmp_path / "MNIST" / "raw"
        raw.mkdir(parents=True)
        return raw

    @pytest.mark.parametrize("compress", [True, False])
    def test_train_and_test_from_any_folder_above(self, raw: Path, compress: bool) -> None:
        images = self.write(raw, "train", 30, compress=compress)
        self.write(raw, "t10k", 12, compress=compress)
        for data in (raw, raw.parent, raw.parent.parent):
            mnist = load_pictures(str(data), need_labels=True)
            assert (mnist.count, mnist.channels, mnist.label_names) == (30, 1, tuple("0123456789"))
            assert np.array_equal(everything(mnist)[:, 0].numpy(), images)
        assert mnist.at([13]).labels.tolist() == [3]
        assert mnist.name(3).startswith("picture 3 of train-images-idx3-ubyte")
        assert load_pictures(str(raw), split="test").count == 12

    def test_damage_is_named(self, raw: Path) -> None:
        self.write(raw, "train", 30, compress=False, labels=29)
        assert "30 pictures" in refused(raw)
        images = raw / "train-images-idx3-ubyte"
        images.write_bytes(images.read_bytes()[:-5])
        assert "not a whole idx file" in refused(raw)
        images.unlink()
        (raw / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bnonsense")
        assert "cannot be read" in refused(raw)
        assert "no t10k-images-idx3-ubyte" in refused(raw, split="test")


class TestTaking:
    def test_an_epoch_is_every_picture_once_in_an_order_of_its_own(self, class_folder: Path) -> None:
        pets = load_pictures(str(class_folder))
        epochs = [pets.take(3, epoch, 0, 7) for epoch in range(4)]
        assert all(sorted(epoch.indices.tolist()) == list(range(7)) for epoch in epochs)
        assert len({tuple(epoch.indices.tolist()) for epoch in epochs}) == 4
        again = pets.take(3, 1, 0, 7)
        assert torch.equal(again.indices, epochs[1].indices)
        assert torch.equal(again.pixels, pets.at(again.indices.tolist()).pixels)
        assert torch.equal(torch.cat([pets.take(3, 1, 0, 3).pixels, pets.take(3, 1, 3, 7).pixels]), again.pixels)

    def test_positions_and_indices_beyond_the_data_are_refused(self, class_folder: Path) -> None:
        pets = load_pictures(str(class_folder))
        for start, stop in ((0, 8), (-1, 3), (5, 4)):
            with pytest.raises(ValueError, match="7 pictures"):
                pets.take(0, 0, start, stop)
        with pytest.raises(IndexError, match="numbered from 0"):
            pets.at([7])

    def test_fingerprints_tell_data_apart(self, class_folder: Path) -> None:
        first = load_pictures(str(class_folder)).fingerprint
        assert load_pictures(str(class_folder)).fingerprint == first
        assert load_pictures(str(class_folder), size=(8, 8)).fingerprint != first
        (class_folder / "dog").rename(class_folder / "wolf")
        assert load_pictures(str(class_folder)).fingerprint != first

    def test_moving_to_a_device(self, class_folder: Path) -> None:
        moved = load_pictures(str(class_folder)).to("meta")
        batch = moved.take(0, 0, 0, 4)
        assert {batch.pixels.device.type, batch.labels.device.type, batch.indices.device.type} == {"meta"}


class TestStreaming:
    @pytest.mark.parametrize("kind", ["folder", "digits"])
    def test_the_same_pictures_as_in_memory(self, class_folder: Path, kind: str) -> None:
        data = str(class_folder) if kind == "folder" else "digits"
        kept, streamed = (load_pictures(data, streaming=choice) for choice in ("off", "on"))
        assert (kept.streamed, streamed.streamed) == (False, True)
        assert streamed.to("cpu") is streamed
        for name in ("source", "count", "channels", "height", "width", "label_names", "class_counts", "captions"):
            assert getattr(kept, name) == getattr(streamed, name)
        assert streamed.mean == pytest.approx(kept.mean, abs=1e-9)
        assert streamed.variance == pytest.approx(kept.variance, abs=1e-9)
        indices = [6, 0, 3, 3]
        assert torch.equal(streamed.at(indices).pixels, kept.at(indices).pixels)
        assert torch.equal(streamed.at(indices).labels, kept.at(indices).labels)
        batch = streamed.take(0, 2, 0, streamed.count)
        assert sorted(batch.indices.tolist()) == list(range(kept.count))
        assert torch.equal(batch.pixels, kept.at(batch.indices.tolist()).pixels)
        assert torch.equal(torch.cat([streamed.take(0, 2, 0, 4).pixels, streamed.take(0, 2, 4, 7).pixels]), batch.pixels[:7])
        with pytest.raises(ValueError, match="do not lie"):
            streamed.take(0, 0, 0, kept.count + 1)
        with pytest.raises(IndexError):
            streamed.at([-1])

    def test_data_that_outgrows_memory_streams_by_itself(self, class_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        memory = psutil.virtual_memory()._replace(available=7 * 3 * 16 * 16)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
        pets = load_pictures(str(class_folder))
        assert pets.streamed
        assert any("stay on disk" in note for note in pets.notes)
        assert not load_pictures(str(class_folder), size=(8, 8)).streamed
        assert load_pictures(str(class_folder), size=(8, 8), processes=4).streamed, "each of the four would hold them all"
        assert not load_pictures(str(class_folder), streaming="off").streamed

    def test_a_picture_that_breaks_on_the_way_is_named(self, class_folder: Path) -> None:
        pets = load_pictures(str(class_folder), streaming="on")
        (class_folder / "dog" / "1.png").write_bytes(b"gone")
        with pytest.raises(Mistake, match=r"dog/1\.png \(it is not a picture"):
            pets.take(0, 0, 0, 7)

    def test_broken_ones_stop_or_are_skipped(self, class_folder: Path) -> None:
        TestBroken().spoil(class_folder)
        assert "--skip-broken" in refused(class_folder, streaming="on")
        pets = load_pictures(str(class_folder), streaming="on", skip_broken=True)
        assert pets.count == 4
        assert pets.take(0, 0, 0, 4).labels.sort().values.tolist() == [0, 0, 1, 1]

    def test_fingerprints_tell_listings_apart(self, class_folder: Path, paint) -> None:
        first = load_pictures(str(class_folder), streaming="on").fingerprint
        assert load_pictures(str(class_folder), streaming="on").fingerprint == first
        paint(123).save(class_folder / "dog" / "9.png")
        assert load_pictures(str(class_folder), streaming="on").fingerprint != first


@needs_shared
class TestRealPictures:
    def test_fashion(self) -> None:
        fashion = load_pictures(str(SHARED / "fashion900"), need_labels=True)
        assert (fashion.count, fashion.channels, fashion.height, fashion.width, fashion.notes) == (900, 1, 28, 28, ())
        assert len(fashion.label_names) == 10
        assert fashion.label_names[0] == "ankle-boot"
