"""Which kind of data the user's word is: a built-in name, a Hub name, a file or a folder. Made into rows by the file for that kind."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from diffsteer.data.builtin import NAMES, open_builtin
from diffsteer.data.folder import SPLITS, SUFFIXES, open_folder
from diffsteer.data.idx import open_idx, raw_folder
from diffsteer.data.rows import Source, Wanted
from diffsteer.data.tables import SHORT_NAMES, open_dataset_folder, open_hub, open_parquet, open_saved
from diffsteer.errors import Mistake

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
TABLE_FOLDERS = {"data", *(name for names in SPLITS.values() for name in names)}
PICKLES = (".pkl", ".pickle", ".pt", ".pth")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".7z", ".rar")
CIFAR_PICKLES = ("data_batch_*", "cifar-10-batches-py", "cifar-100-python")


def open_source(data: str, wanted: Wanted) -> Source:
    """The rows behind DATA, nothing decoded yet. Mistake when it is nothing that can be read."""
    if data in NAMES:
        wanted.refuse_columns(data, "is built in and has no columns")
        wanted.refuse_split(data)
        return open_builtin(data)
    if data in SHORT_NAMES:
        return open_hub(data, SHORT_NAMES[data], wanted)
    path = Path(data).expanduser()
    if data.strip() and path.is_dir():
        return _open_folder(data, path, wanted)
    if path.is_file():
        return _open_file(data, path, wanted)
    files = _matching(path)
    if files:
        return open_parquet(data, files, wanted)
    if HUB_ID.fullmatch(data) and not Path(data.split("/")[0]).exists() and not data.startswith("."):
        return open_hub(data, data, wanted)
    raise Mistake(_not_there(data, path))


def _open_folder(data: str, folder: Path, wanted: Wanted) -> Source:
    if (folder / "model_index.json").is_file():
        raise Mistake(f"{data} is a model folder, not pictures to learn from; give the data it was trained on.")
    if (folder / "settings.yaml").is_file():
        raise Mistake(f"{data} is a run folder, not pictures to learn from; the data it was trained on is named in its settings.yaml.")
    if (folder / "dataset_dict.json").is_file() or ((folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()):
        return open_saved(data, folder, wanted)
    raw = raw_folder(folder)
    if raw is not None:
        return open_idx(data, raw, wanted)
    if _holds_tables(folder):
        return open_dataset_folder(data, folder, wanted)
    if any(any(folder.glob(pattern)) for pattern in CIFAR_PICKLES):
        raise Mistake(_pickled(data))
    return open_folder(data, folder, wanted)


def _open_file(data: str, path: Path, wanted: Wanted) -> Source:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return open_parquet(data, [path], wanted)
    if suffix in PICKLES or path.match("data_batch_*") or path.name == "test_batch":
        raise Mistake(_pickled(data))
    if suffix in ARCHIVES:
        raise Mistake(f"{data} is an archive; unpack it and give the folder.")
    if suffix in SUFFIXES:
        raise Mistake(f"{data} is one picture; give the folder that holds it.")
    raise Mistake(f"{data} is a file of a kind that cannot be read as pictures; give a folder of pictures or a .parquet file.")


def _holds_tables(folder: Path) -> bool:
    """Whether parquet files lie in the folder, in its `data`, or in folders named after splits."""
    tables = [*folder.glob("*.parquet"), *(path for path in folder.glob("*/*.parquet") if path.parent.name in TABLE_FOLDERS)]
    return any(path.stem != "metadata" for path in tables)


def _matching(path: Path) -> list[Path]:
    """Parquet files that a pattern such as `data/train-*.parquet` names."""
    if path.suffix != ".parquet" or "*" not in path.name or not path.parent.is_dir():
        return []
    return sorted(path.parent.glob(path.name))


def _pickled(data: str) -> str:
    return (
        f"{data} holds pickles, which are never opened because opening one runs code. "
        "Give the same data as parquet, or CIFAR-10 by its name, cifar10."
    )


def _not_there(data: str, path: Path) -> str:
    """There is no such path: say where the path ends, and what is there that looks like it."""
    wrong = path
    while not wrong.parent.is_dir():
        wrong = wrong.parent
    there = [entry.name for entry in wrong.parent.iterdir() if not entry.name.startswith(".")]
    near = [str(wrong.parent / name) for name in difflib.get_close_matches(wrong.name, there, n=3, cutoff=0.5)]
    near += difflib.get_close_matches(data, [*NAMES, *SHORT_NAMES], n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    words = ", ".join([*NAMES, *SHORT_NAMES])
    choices = f"Data is a folder of pictures, a parquet file, a dataset folder, a Hub id such as owner/name, or one of {words}."
    return f"There is no data {data!r} here.{hint} {choices}"
