"""In which order pictures are seen: a pure function of (seed, epoch), so that any position can be asked for at any time.

Pictures in memory are shuffled as a whole. Streamed pictures are shuffled in blocks, so that a batch reads from few places; neither
keeps a running buffer, which could not be resumed. Called by `memory.py` and `stream.py`.
"""

import hashlib
from functools import lru_cache

import torch
from torch import Tensor

RUN = 16  # neighbours that stay together when streaming
BLOCK = 1024  # pictures shuffled together when streaming: 64 runs from all over the set, so a set sorted by class is mixed as well


def order_generator(seed: int, *parts: str | int) -> torch.Generator:
    """A CPU generator that belongs to (seed, *parts): the same parts give the same numbers, other parts give unrelated ones."""
    digest = hashlib.blake2b(repr((seed, *parts)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)  # 63 bits: a seed is a signed 64-bit number


@lru_cache(maxsize=2)
def shuffled(count: int, seed: int, epoch: int) -> Tensor:
    """The whole order of one epoch, int64 `[count]`. Kept for the last epochs, so do not write into it."""
    return torch.randperm(count, generator=order_generator(seed, "order", epoch))


def streamed(count: int, seed: int, epoch: int, start: int, stop: int) -> Tensor:
    """Positions [start, stop) of the streamed order of one epoch, int64 `[stop - start]`. Needs 0 <= start <= stop <= count."""
    positions = torch.arange(start, stop)
    blocks = positions // BLOCK
    mixed = positions.clone()
    for block in blocks.unique().tolist():
        size = min(BLOCK, count - block * BLOCK)
        inside = positions[blocks == block] - block * BLOCK
        mixed[blocks == block] = block * BLOCK + _inside_block(size, seed, epoch, block)[inside]
    return _through_runs(mixed, count, seed, epoch)


def _through_runs(positions: Tensor, count: int, seed: int, epoch: int) -> Tensor:
    """Where positions fall when the runs of neighbours are laid out in shuffled order. The last run may be short, wherever it lands."""
    runs, last_place = _run_order(count, seed, epoch)
    missing = -count % RUN
    after_short = positions >= (last_place + 1) * RUN - missing
    places = positions + missing * after_short
    return runs[places // RUN] * RUN + places % RUN


@lru_cache(maxsize=2)
def _run_order(count: int, seed: int, epoch: int) -> tuple[Tensor, int]:
    number = -(-count // RUN)
    runs = torch.randperm(number, generator=order_generator(seed, "runs", epoch))
    return runs, int((runs == number - 1).nonzero())


@lru_cache(maxsize=8)
def _inside_block(size: int, seed: int, epoch: int, block: int) -> Tensor:
    return torch.randperm(size, generator=order_generator(seed, "block", epoch, block))
