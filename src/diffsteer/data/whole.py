"""Files appear whole or not at all: written beside their place under another name, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields the path to write to. `path` is replaced when the block ends well; when it does not, nothing is left behind.

    The temporary name is hidden, ends like `path` (some writers read the format from it) and holds the process id, so that two
    processes writing the same file do not write into each other's.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
