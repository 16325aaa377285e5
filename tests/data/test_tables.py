"""Parquet files, dataset folders and saved data sets: columns found or asked for, pictures decoded by ourselves, nothing left behind."""

import io
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from diffsteer.data.images import load_pictures
from diffsteer.errors import Mistake

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The library's cache in a folder of its own, and an empty working folder that must stay empty."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    return here


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)).convert(mode)


def png(seed: int, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    picture(seed, mode).save(stream, format="PNG")
    return stream.getvalue()


def table(count: int = 6, **columns: object) -> datasets.Dataset:
    features = {"image": datasets.Image()}
    for name, (feature, _) in columns.items():
        features[name] = feature
    values = {name: values for name, (_, values) in columns.items()}
    pictures = [{"bytes": png(seed), "path": None} for seed in range(count)]
    return datasets.Dataset.from_dict({"image": pictures, **values}, features=datasets.Features(features))


CLASSES = (datasets.ClassLabel(names=["cat", "dog"]), [0, 1, 1, 0, 1, 0])


def refused(data: object, **options: object) -> str:
    with pytest.raises(Mistake) as caught:
        load_pictures(str(data), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_parquet_file_with_class_names(tmp_path: Path, own_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table(label=CLASSES).to_parquet(tmp_path / "pets.parquet")
    capfd.readouterr()
    for streaming in ("off", "on"):
        pets = load_pictures(str(tmp_path / "pets.parquet"), need_labels=True, streaming=streaming)
        assert (pets.count, pets.channels, pets.height, pets.label_names) == (6, 3, 12, ("cat", "dog"))
        assert pets.at(range(6)).labels.tolist() == CLASSES[1]
        assert pets.name(3) == f"row 3 of {tmp_path / 'pets.parquet'}"
        for seed in range(6):
            assert np.array_equal(pets.at([seed]).pixels[0].permute(1, 2, 0).numpy(), np.asarray(picture(seed)))
    assert list(own_cache.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_integers_and_words_without_names(tmp_path: Path) -> None:
    table(label=(datasets.Value("int64"), [3, 10, 3, 3, 10, 10])).to_parquet(tmp_path / "a.parquet")
    numbers = load_pictures(str(tmp_path / "a.parquet"), need_labels=True)
    assert numbers.label_names == ("3", "10")
    assert numbers.at(range(3)).labels.tolist() == [0, 1, 0]
    table(category=(datasets.Value("string"), list("zazaza"))).to_parquet(tmp_path / "b.parquet")
    words = load_pictures(str(tmp_path / "b.parquet"), need_labels=True)
    assert words.label_names == ("a", "z")


def test_holes_are_named_by_row(tmp_path: Path) -> None:
    table(label=(datasets.ClassLabel(names=["a", "b"]), [0, None, 1, -1, 0, 1])).to_parquet(tmp_path / "a.parquet")
    message = refused(tmp_path / "a.parquet", need_labels=True)
    assert "2 of 6 pictures have no label: row 1 of" in message
    assert load_pictures(str(tmp_path / "a.parquet")).label_names == ()


def test_truths_are_classes_and_no_captions(tmp_path: Path) -> None:
    table(happy=(datasets.Value("bool"), [True, False] * 3)).to_parquet(tmp_path / "a.parquet")
    assert load_pictures(str(tmp_path / "a.parquet")).captions is None
    assert load_pictures(str(tmp_path / "a.parquet"), label_column="happy", need_labels=True).label_names == ("False", "True")


def test_integers_that_became_floats_are_labels(tmp_path: Path) -> None:
    """As pandas writes a column of integers in which one was missing."""
    values = [3.0, 10.0, 3.0, float("nan"), None, 10.0]
    table(label=(datasets.Value("float64"), values)).to_parquet(tmp_path / "a.parquet")
    assert "2 of 6 pictures have no label: row 3 of" in refused(tmp_path / "a.parquet", need_labels=True)
    table(label=(datasets.Value("float64"), [3.0, 10.0, 3.0, 3.0, 10.0, 10.0])).to_parquet(tmp_path / "b.parquet")
    assert load_pictures(str(tmp_path / "b.parquet"), need_labels=True).label_names == ("3", "10")


def test_captions(tmp_path: Path) -> None:
    words = (datasets.Value("string"), [f"a picture called {number}" for number in range(6)])
    ids = (datasets.Value("string"), [f"id-{number}" for number in range(6)])
    table(id=ids, text=words, title=words).to_parquet(tmp_path / "a.parquet")
    assert load_pictures(str(tmp_path / "a.parquet")).captions == words[1]
    table(id=ids, title=words).to_parquet(tmp_path / "b.parquet")
    assert load_pictures(str(tmp_path / "b.parquet")).captions == words[1]
    assert load_pictures(str(tmp_path / "b.parquet"), caption_column="id").captions == ids[1]


def test_several_image_columns_or_none(tmp_path: Path) -> None:
    masks = (datasets.Image(), [{"bytes": png(90 + seed, "L"), "path": None} for seed in range(6)])
    table(mask=masks).to_parquet(tmp_path / "two.parquet")
    message = refused(tmp_path / "two.parquet")
    assert "several columns of pictures: image, mask" in message
    assert "--image-column image" in message
    assert load_pictures(str(tmp_path / "two.parquet"), image_column="mask").channels == 1
    assert "--image-column mask" in refused(tmp_path / "two.parquet", image_column="masks")
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), tmp_path / "none.parquet")
    assert "a (integer), b (text)" in refused(tmp_path / "none.parquet")
    assert "holds no pictures" in refused(tmp_path / "none.parquet", image_column="a")


def test_a_label_column_that_cannot_be_one(tmp_path: Path) -> None:
    table(score=(datasets.Value("float32"), [0.5] * 6)).to_parquet(tmp_path / "a.parquet")
    message = refused(tmp_path / "a.parquet", label_column="score")
    assert "cannot be a label" in message
    assert "score (other)" in message


@pytest.mark.parametrize("kind", ["binary", "struct"])
def test_encoded_bytes_that_nobody_called_pictures(tmp_path: Path, kind: str) -> None:
    data = [png(seed) for seed in range(4)]
    column = data if kind == "binary" else [{"bytes": one, "path": "x.png"} for one in data]
    pq.write_table(pa.table({"img": column, "label": [0, 1, 0, 1]}), tmp_path / "plain.parquet")
    plain = load_pictures(str(tmp_path / "plain.parquet"), need_labels=True)
    assert (plain.count, plain.label_names) == (4, ("0", "1"))
    assert np.array_equal(plain.at([2]).pixels[0].permute(1, 2, 0).numpy(), np.asarray(picture(2)))


def test_broken_cells_are_named_by_row(tmp_path: Path) -> None:
    cells = [{"bytes": one, "path": None} for one in (png(0), b"not a picture", b"", png(1))]
    pq.write_table(pa.table({"image": [*cells, None], "label": [0, 1, 0, 1, 1]}), tmp_path / "a.parquet")
    message = refused(tmp_path / "a.parquet")
    assert "3 of 5 pictures cannot be read" in message
    assert f"row 1 of {tmp_path / 'a.parquet'} (it is not a picture" in message
    assert f"row 2 of {tmp_path / 'a.parquet'} (it is empty)" in message
    kept = load_pictures(str(tmp_path / "a.parquet"), skip_broken=True)
    assert [kept.name(index).split()[1] for index in range(kept.count)] == ["0", "3"]


@pytest.mark.parametrize("below", ["", "data"])
def test_a_dataset_folder_with_splits(tmp_path: Path, below: str) -> None:
    folder = tmp_path / "set"
    (folder / below).mkdir(parents=True)
    table(label=CLASSES).to_parquet(folder / below / "train-00000-of-00001.parquet")
    table(2, label=(CLASSES[0], [1, 1])).to_parquet(folder / below / "test-00000-of-00001.parquet")
    assert load_pictures(str(folder)).count == 6
    assert load_pictures(str(folder), split="test").count == 2
    assert "it has train, test" in refused(folder, split="validation")
    assert "not divided" in refused(folder / below / "test-00000-of-00001.parquet", split="test")
    assert load_pictures(str(folder / below / "*.parquet")).count == 8


def test_an_only_split_of_another_name_is_used_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    table().to_parquet(tmp_path / "set" / "test-00000-of-00001.parquet")
    (note,) = load_pictures(str(tmp_path / "set")).notes
    assert "its only one, test, is used" in note


@pytest.mark.parametrize("split", [False, True])
def test_what_save_to_disk_wrote(tmp_path: Path, split: bool) -> None:
    one = table(label=CLASSES)
    saved = datasets.DatasetDict(train=one, test=one.select([1, 2])) if split else one
    saved.save_to_disk(str(tmp_path / "saved"))
    pets = load_pictures(str(tmp_path / "saved"), need_labels=True)
    assert (pets.count, pets.label_names) == (6, ("cat", "dog"))
    assert torch.equal(pets.at([4]).labels, torch.tensor([1]))
    if split:
        assert load_pictures(str(tmp_path / "saved"), split="test").count == 2


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    assert "a.parquet cannot be read as a table of pictures" in refused(tmp_path / "a.parquet")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the development pictures are not here")
def test_real_digits() -> None:
    digits = load_pictures(str(SHARED / "mnist"), split="test", need_labels=True)
    assert (digits.count, digits.channels, digits.height, digits.label_names) == (10_000, 1, 28, tuple("0123456789"))
    streamed = load_pictures(str(SHARED / "mnist"), split="test", streaming="on")
    batch = streamed.take(0, 0, 5000, 5064)
    assert torch.equal(batch.pixels, digits.at(batch.indices.tolist()).pixels)
    assert torch.equal(batch.labels, digits.at(batch.indices.tolist()).labels)
