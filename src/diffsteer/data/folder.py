"""A folder of pictures as a source.

Sub-folders are classes, `metadata.csv` or `metadata.jsonl` gives labels and captions, `train/` and `test/` are splits.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from diffsteer.data.columns import Column, Kind, choose_caption, choose_label, class_ids, is_whole, natural, numbered
from diffsteer.data.decode import Encoded
from diffsteer.data.rows import Source, Wanted, named
from diffsteer.errors import Mistake

SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .webp .bmp .dib .gif .tif .tiff .ppm .pgm .pbm .pnm .tga .jp2 .j2k .avif .ico .pcx".split()  # noqa: SIM905
)
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
METADATA = ("metadata.csv", "metadata.jsonl")
FILE_COLUMNS = ("file_name", "filename")
NOT_THE_USERS = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class FileRows:
    """Picture files below a folder, by their names relative to it."""

    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Sequence[int]) -> list[Encoded]:
        return [self.folder / self.names[index] for index in indices]

    def name(self, index: int) -> str:
        return self.names[index]

    def listing(self) -> Iterator[str]:
        for name in self.names:
            path = self.folder / name
            yield f"{name} {path.stat().st_size if path.exists() else 'missing'}"


@dataclass
class Contents:
    """What lies below a folder: picture names relative to it in natural order, other files counted by suffix, folders without files."""

    pictures: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)


def open_folder(data: str, folder: Path, wanted: Wanted) -> Source:
    """The pictures below a folder as a source. Mistake when there are none, when the split or a column asked for is missing, and for names
    of files that are not UTF-8 or lie outside."""
    whole, folder = folder, _split_folder(data, folder, wanted)
    contents = Contents()
    _walk(folder, "", contents, set())
    metadata = _metadata_in(folder)
    if metadata is not None:
        contents.others[metadata.suffix] -= 1
    if not contents.pictures:
        raise Mistake(_nothing_found(folder, contents))
    notes = tuple(_notes(data, contents))
    if folder != whole:
        notes += tuple(_left_beside(whole, folder))
        metadata = metadata or _metadata_in(whole)
    if metadata is None:
        wanted.refuse_columns(data, "is a folder without metadata.csv or metadata.jsonl, so it has no columns")
        return _labelled_by_folder(Source(data, FileRows(folder, tuple(contents.pictures)), notes=notes))
    entries, again = _by_file(metadata, folder)
    notes += tuple(again)
    found = set(contents.pictures)
    missing = [name for name in entries if name not in found]  # met again as pictures that cannot be read
    source = Source(data, FileRows(folder, (*contents.pictures, *missing)), notes=notes)
    return _with_metadata(_labelled_by_folder(source), entries, f"{data} ({metadata.name})", wanted)


def _split_folder(data: str, folder: Path, wanted: Wanted) -> Path:
    """The sub-folder of the split, when all sub-folders are splits; else the folder itself, which must not be asked for another split."""
    below = {path.name.lower(): path for path in folder.iterdir() if path.is_dir() and not _hidden(path.name)}
    known = {name for names in SPLITS.values() for name in names}
    if not below or not set(below) <= known or not set(below) & set(SPLITS["train"]):
        wanted.refuse_split(data)
        return folder
    for name in SPLITS.get(wanted.split, (wanted.split,)):
        if name in below:
            return below[name]
    raise Mistake(f"{data} has no split {wanted.split!r}; it has {', '.join(sorted(below))}.")


def _metadata_in(folder: Path) -> Path | None:
    return next((folder / name for name in METADATA if (folder / name).is_file()), None)


def _left_beside(whole: Path, split: Path) -> Iterator[str]:
    """A sentence about pictures that lie beside the folders of the splits."""
    beside = [path.name for path in whole.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file() and not _hidden(path.name)]
    if beside:
        pictures = "1 picture that lies" if len(beside) == 1 else f"{len(beside):,} pictures that lie"
        yield f"Ignored {pictures} beside {split.name}, which is taken for a split; give its folder another name if it is a class."


def _walk(folder: Path, prefix: str, contents: Contents, above: set[tuple[int, int]]) -> None:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in above:
        return  # a link to a folder that holds it
    entries = sorted((path for path in folder.iterdir() if not _hidden(path.name)), key=lambda path: natural(path.name))
    if not entries and prefix:
        contents.empty.append(prefix.rstrip("/"))
    for path in entries:
        if not _utf8(path.name):
            raise Mistake(f"{prefix + path.name!a} in {folder} has a name that is not UTF-8. Rename it, so that all can write it down.")
        if path.is_dir():
            _walk(path, f"{prefix}{path.name}/", contents, above | {(status.st_dev, status.st_ino)})
        elif path.suffix.lower() in SUFFIXES:
            contents.pictures.append(prefix + path.name)
        else:
            contents.others[path.suffix.lower() or path.name] += 1


def _utf8(name: str) -> bool:
    """Whether a file's name is text: bytes that are none come as lone surrogates, which no file, page or message takes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in NOT_THE_USERS


def _notes(data: str, contents: Contents) -> Iterator[str]:
    ignored = +contents.others
    if ignored:
        yield f"Ignored {_counted(ignored)} in {data}: not pictures that can be read."
    if contents.empty:
        yield f"Ignored empty folders in {data}: {named(contents.empty)}."
    tops = {name.split("/")[0] for name in contents.pictures if "/" in name}
    if len(tops) == 1 and all(name.count("/") > 1 for name in contents.pictures):
        top = tops.pop()
        yield f"All pictures are in the one class {top!r}; give {Path(data) / top} as the data to make its sub-folders the classes."


def _nothing_found(folder: Path, contents: Contents) -> str:
    ignored = +contents.others
    held = [_counted(ignored)] if ignored else []
    held += [f"empty folders ({named(contents.empty)})"] if contents.empty else []
    found = f"it holds {' and '.join(held)}, which were ignored" if held else "it is empty"
    return f"There are no pictures in {folder}: {found}. Pictures end in .png, .jpg, .jpeg, .webp, .bmp, .gif or .tif, in capitals or not."


def _counted(others: Counter[str]) -> str:
    kinds = named([f"{suffix} {number:,}" for suffix, number in others.most_common()])
    return f"{others.total():,} {'file' if others.total() == 1 else 'files'} ({kinds})"


def _labelled_by_folder(source: Source) -> Source:
    """Classes from the first folder of each name. Pictures beside the class folders are holes; without class folders nothing is a class."""
    names = [source.rows.name(index) for index in range(source.count)]
    tops = [name.split("/")[0] if "/" in name else None for name in names]
    if not any(tops):
        return source
    labels, classes = numbered(tops)
    return replace(source, labels=labels, label_names=classes)


def _with_metadata(source: Source, entries: dict[str, dict[str, Any]], data: str, wanted: Wanted) -> Source:
    """Labels and captions from the metadata's columns, by file name; pictures it does not list have neither."""
    if wanted.image_column is not None:
        raise Mistake(f"--image-column {wanted.image_column} was given, but {data} names its pictures in the column file_name.")
    rows = [entries.get(source.rows.name(index), {}) for index in range(source.count)]
    columns = _columns(list(entries.values()))
    label = choose_label(columns, wanted.label_column, data)
    if label is not None:
        labels, classes = class_ids([row.get(label.name) for row in rows], label.name, data)
        source = replace(source, labels=labels, label_names=classes)
    caption = choose_caption(columns, wanted.caption_column, label, data, lambda name: [row.get(name) for row in rows])
    if caption is None:
        return source
    return replace(source, captions=[str(row.get(caption) or "") for row in rows])


def _read_metadata(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                return list(csv.DictReader(file, strict=True))
            return [json.loads(line) for line in file if line.strip()]
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise Mistake(f"{path} cannot be read: {error}. Save it as UTF-8, one row a picture.") from error


def _by_file(metadata: Path, folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The metadata's rows by the file's name relative to the folder, and a sentence where several are of one file.

    Metadata above the folder is of all splits, and names files from where it lies: rows of other splits are left out.
    """
    above = "" if metadata.parent == folder else f"{folder.name}/"
    rows: dict[str, list[dict[str, Any]]] = {}
    for entry in _read_metadata(metadata):
        name = _file_of(entry, metadata)
        if name.startswith(above):
            rows.setdefault(name.removeprefix(above), []).append(entry)
    double = [name for name, entries in rows.items() if len(entries) > 1]
    said = [f"{metadata.name} has several rows for {named(double)}: the last of a file counts."] if double else []
    return {name: entries[-1] for name, entries in rows.items()}, said


def _file_of(entry: dict[str, Any], metadata: Path) -> str:
    for column in FILE_COLUMNS:
        if isinstance(entry, dict) and entry.get(column):
            path = PurePosixPath(str(entry[column]).replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise Mistake(f"{metadata} names {path}, which does not lie in its folder. Files are named relative to the folder.")
            return path.as_posix()
    raise Mistake(f"{metadata} has a row without file_name. Each row names its picture in a column file_name, relative to the folder.")


def _columns(entries: Sequence[dict[str, Any]]) -> list[Column]:
    names = list(dict.fromkeys(name for entry in entries for name in entry if name not in FILE_COLUMNS and name is not None))
    return [Column(name, _kind([entry.get(name) for entry in entries])) for name in names]


def _kind(values: Sequence[Any]) -> Kind:
    given = [value for value in values if value not in (None, "")]
    if all(is_whole(value) or (isinstance(value, str) and value.strip().lstrip("-").isdecimal()) for value in given):
        return "integer"
    return "text" if all(isinstance(value, str) for value in given) else "other"
