"""Tables of pictures through the `datasets` library: Hub data sets, parquet files, dataset folders, folders written by `save_to_disk`.

Pictures stay encoded here; they are decoded by `decode.py`, as all others are. Nothing is written but the library's own cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsteer.data.columns import Column, Kind, choose_caption, choose_image, choose_label, class_ids, is_whole
from diffsteer.data.decode import Encoded
from diffsteer.data.network import require_hub
from diffsteer.data.rows import Source, Wanted
from diffsteer.errors import Mistake

if TYPE_CHECKING:
    from datasets import Dataset

SHORT_NAMES = {"mnist": "ylecun/mnist", "fashion_mnist": "zalando-datasets/fashion_mnist", "cifar10": "uoft-cs/cifar10"}


@dataclass(frozen=True)
class TableRows:
    """The image column of a table, memory-mapped by the library. `title` is what messages call the table."""

    table: Dataset
    column: str
    title: str

    def __len__(self) -> int:
        return len(self.table)

    def read(self, indices: Sequence[int]) -> list[Encoded]:
        return [_encoded(cell) for cell in self.table[list(indices)][self.column]]

    def name(self, index: int) -> str:
        return f"row {index} of {self.title}"

    def listing(self) -> Iterator[str]:
        yield f"{len(self.table)} rows {self.column} {self.table.features} {self.table.data.nbytes} bytes"


def open_hub(data: str, repository: str, wanted: Wanted) -> Source:
    """A data set of the Hub. Mistake when the Hub cannot be reached, does not know it, or lacks the split or a column asked for."""
    from datasets import load_dataset  # slow to import

    require_hub(f"the data set {repository}")
    with _library(data):
        splits = load_dataset(repository)
    return _source(data, splits, wanted)


def open_parquet(data: str, files: Sequence[Path], wanted: Wanted) -> Source:
    """One or several parquet files as one table."""
    from datasets import load_dataset

    wanted.refuse_split(data)
    with _library(data):
        splits = load_dataset("parquet", data_files=[str(path) for path in files])
    return _source(data, splits, wanted)


def open_dataset_folder(data: str, folder: Path, wanted: Wanted) -> Source:
    """A folder of parquet files laid out as a dataset repository is: file and folder names tell the splits."""
    from datasets import load_dataset

    with _library(data):
        splits = load_dataset(str(folder))
    return _source(data, splits, wanted)


def open_saved(data: str, folder: Path, wanted: Wanted) -> Source:
    """What `save_to_disk` wrote, one table or one per split."""
    from datasets import load_from_disk

    with _library(data):
        saved = load_from_disk(str(folder))
    if isinstance(saved, Mapping):
        return _source(data, saved, wanted)
    return _source(data, {str(saved.split or "train"): saved}, wanted)


def _source(data: str, splits: Mapping[Any, Dataset], wanted: Wanted) -> Source:
    from datasets import Image

    table, notes = _split(data, {str(name): table for name, table in splits.items()}, wanted)
    columns = [Column(name, _kind(name, table)) for name in table.features]
    image = choose_image(columns, wanted.image_column, data)
    label = choose_label(columns, wanted.label_column, data)
    caption = choose_caption(columns, wanted.caption_column, label, data, lambda name: table[name][:])
    source = Source(data, TableRows(table.select_columns([image]).cast_column(image, Image(decode=False)), image, data), notes=notes)
    if label is not None:
        labels, names = class_ids(table[label.name][:], label.name, data, getattr(table.features[label.name], "names", None))
        source = Source(data, source.rows, labels, names, notes=notes)
    if caption is None:
        return source
    captions = [text or "" for text in table[caption][:]]
    return Source(data, source.rows, source.labels, source.label_names, captions, notes)


def _split(data: str, splits: Mapping[str, Dataset], wanted: Wanted) -> tuple[Dataset, tuple[str, ...]]:
    if wanted.split in splits:
        return splits[wanted.split], ()
    if wanted.split == "train" and len(splits) == 1:
        (name,) = splits
        return splits[name], (f"{data} has no split called train; its only one, {name}, is used.",)
    raise Mistake(f"{data} has no split {wanted.split!r}; it has {', '.join(splits)}.")


def _kind(name: str, table: Dataset) -> Kind:
    """What a column holds, by its type; the values are looked at only where that does not tell."""
    from datasets import ClassLabel, Image, Value

    feature: Any = table.features[name]
    if isinstance(feature, Image) or (isinstance(feature, dict) and {"bytes", "path"} <= set(feature)):
        return "image"
    if isinstance(feature, ClassLabel):
        return "class"
    if not isinstance(feature, Value):
        return "other"
    if "binary" in feature.dtype:
        return "image"  # encoded bytes without a word about it: what else they could be, the decoder will tell
    if "int" in feature.dtype or feature.dtype == "bool":
        return "integer"
    if "float" in feature.dtype:
        return "integer" if all(value is None or is_whole(value) for value in table[name]) else "other"  # most end at the first
    return "text" if "string" in feature.dtype else "other"


def _encoded(cell: Any) -> Encoded:
    if cell is None:
        return b""
    return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"] or "")


@contextmanager
def _library(data: str) -> Iterator[None]:
    """The library without its progress bars, its errors turned into a sentence."""
    from datasets.exceptions import DatasetNotFoundError
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    except DatasetNotFoundError as error:
        raise Mistake(
            f"The Hub has no data set {data} that you may read. Check its name; for a private one, log in with `hf auth login`."
        ) from error
    except Exception as error:  # the library and the four below it raise many kinds, all of them about this data
        cause = error.__cause__ or error
        raise Mistake(
            f"{data} cannot be read as a table of pictures: {str(cause).splitlines()[0] if str(cause) else type(cause).__name__}"
        ) from error
    finally:
        if shown:
            enable_progress_bar()
