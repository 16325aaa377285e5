"""diffsteer: turn a folder of pictures into an image diffusion model that obeys.

The public door. Names are resolved on first use, so that `import diffsteer` loads neither torch nor pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffsteer.api import evaluate, finetune, load, sample, steer, train
    from diffsteer.app.serve import serve
    from diffsteer.data.images import load_pictures

__version__ = "0.1.0"

_HOMES = {
    "evaluate": "diffsteer.api",
    "finetune": "diffsteer.api",
    "load": "diffsteer.api",
    "load_pictures": "diffsteer.data.images",
    "sample": "diffsteer.api",
    "serve": "diffsteer.app.serve",
    "steer": "diffsteer.api",
    "train": "diffsteer.api",
}

__all__ = ["__version__", "evaluate", "finetune", "load", "load_pictures", "sample", "serve", "steer", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'diffsteer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
