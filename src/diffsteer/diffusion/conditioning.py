"""Labels: what the user may write, what the network is told, and how labels are left out in training.

The null class is one extra id, `len(label_names)`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor

from diffsteer.errors import Mistake

LARGEST_SEED = 2**63 - 1
CONDITIONINGS = ("none", "concat", "onehot", "add")


def drop_labels(labels: Tensor, probability: float, null_id: int, draw: Tensor) -> Tensor:
    """Labels [B] with each one replaced by the null class where its draw [B], uniform on [0, 1), is below the probability."""
    return torch.where(draw < probability, torch.full_like(labels, null_id), labels)


def parse_labels(pieces: Sequence[str | int], names: Sequence[str], whose: str = "This model") -> list[int]:
    """Label ids from what a user wrote: class names, numbers, ranges such as `0-9`, or `all`, in the order given.

    A piece that is a class name is that class, so `ankle-boot` is no range and `3` may be a name. Raises Mistake.
    """
    ids: list[int] = []
    for piece in pieces:
        text = str(piece).strip()
        span = re.fullmatch(r"(\d+)-(\d+)", text)
        if text in names:
            ids.append(list(names).index(text))
        elif text == "all":
            ids.extend(range(len(names)))
        elif text.isdecimal():
            ids.append(_existing(int(text), names, whose))
        elif span and int(span[1]) <= int(span[2]):
            ids.extend(range(int(span[1]), _existing(int(span[2]), names, whose) + 1))
        else:
            near = get_close_matches(text, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"its labels are {listing(names)}."
            raise Mistake(f"{whose} has no label {text!r}; {hint}")
    return ids


def _existing(label: int, names: Sequence[str], whose: str) -> int:
    if label >= len(names):
        raise Mistake(f"{whose} has no label {label}; its labels are 0 to {len(names) - 1}: {listing(names)}.")
    return label


def parse_seeds(text: str) -> list[int]:
    """Seeds from `7`, `0-63` or `1,2,5-10`, in the order given. Raises Mistake."""
    seeds: list[int] = []
    for piece in str(text).split(","):
        span = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", piece)
        if not span or (span[2] and int(span[2]) < int(span[1])) or int(span[2] or span[1]) > LARGEST_SEED:
            raise Mistake(f"{piece.strip()!r} is no seed; write numbers and ranges, for example --seeds 0-7 or --seeds 1,2,5-10.")
        seeds.extend(range(int(span[1]), int(span[2] or span[1]) + 1))
    return seeds


def listing(names: Sequence[str], most: int = 12) -> str:
    """The names in one phrase, cut after `most`."""
    shown = ", ".join(map(str, names[:most]))
    return f"{shown}, ... ({len(names)} in all)" if len(names) > most else shown
