"""Losses of the server's owner: the functions in the .py files of `--losses DIR`. They are found by reading, and run in the drawing process
only, when somebody steers by them."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path

from diffsteer.errors import Mistake


@dataclass(frozen=True)
class OwnLoss:
    """real: the words that name it wherever we run. told: as its owner wrote the folder. sha256: of its file."""

    name: str
    real: str
    told: str
    sha256: str


def own_losses(folder: str | None) -> dict[str, OwnLoss]:
    """By name, such as `my_losses.py:redness`. Raises Mistake."""
    if folder is None:
        return {}
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise Mistake(f"--losses {folder} is no folder; give the folder that your .py files with losses are in.")
    found = [loss for path in sorted(place.glob("*.py")) for loss in _in_file(path, folder)]
    if not found:
        raise Mistake(f"--losses {folder} holds no .py file with a function of pictures, such as def redness(pictures).")
    return {loss.name: loss for loss in found}


def _in_file(path: Path, folder: str) -> list[OwnLoss]:
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        raise Mistake(f"{path} is no Python that can be read ({error}).") from None
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.args.args]
    sha256 = hashlib.sha256(content).hexdigest()
    told = f"{folder.rstrip('/')}/{path.name}"
    return [OwnLoss(f"{path.name}:{name}", f"{path.resolve()}:{name}", f"{told}:{name}", sha256) for name in names]
