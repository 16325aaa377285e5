"""Copies: drawn pictures that lie nearer to a training picture than pictures come that were not trained on.

In: drawn pictures uint8 [N, C, H, W], the training data, and pictures held out of it where there are any. Out: `Copies`, and a sheet of
pairs.

How near a picture comes is its ratio: the distance to its nearest training picture over the mean distance to the next nine. A distance
alone tells little, for some kinds of pictures lie close together (a digit 1, a plain sky) and blurred ones are close to all; the ratio to
the second nearest alone (Yoon et al. 2023, d1 < d2 / 3) misses copies of what is there twice. A picture is a copy when its ratio is below
the limit: the lowest 0.5 % of the ratios of held-out pictures, and no more than half of their median. Where there are few pictures the
first is chance and the second decides; where many come in near pairs, as in CIFAR-10, the first does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from diffsteer.data import pixels
from diffsteer.data.batch import Pictures
from diffsteer.diffusion.judge import Judge
from diffsteer.diffusion.seeds import generator_for
from diffsteer.errors import Mistake
from diffsteer.evaluation.features import judge_features
from diffsteer.evaluation.spread import standard_error

NEIGHBOURS = 10  # the nearest, and nine more to measure it by
LOWEST, SHARE_OF_MEDIAN = 0.005, 0.5  # the limit
BASELINE = 1000  # held-out pictures that set the limit
JUDGED = 10_000  # training pictures that the judge looks at: it takes far longer for a picture than the pixels do
FEWEST = 4  # different pictures of either kind
LARGEST = 64  # pixels of the shorter side: larger pictures are compared when brought below it
EXACT = 4  # nearest neighbours whose distance is free of rounding
QUERIES, BLOCK, BLOCK_BYTES = 1024, 4096, 2**25  # how much is compared at a time
NAMED = 3
CAPTION_WIDTH = 190
MARK, PAPER = (200, 30, 30), (255, 255, 255)

Read = Callable[[Sequence[int]], Tensor]  # indices -> uint8 [B, C, H, W] on the CPU


@dataclass(frozen=True)
class Nearness:
    """Of each drawn picture: the nearest training picture, how far it is, and the ratio told at the top of this file.

    distances: of pixels, the root of the mean square difference in grey levels (0 to 255); of a judge's features, Euclidean.
    closer: the share of the pairs of a drawn and a held-out picture in which the drawn one has the smaller ratio (Mann-Whitney), 0.5 where
    they are alike; z: how many standard errors away from 0.5 that is. Above is memorisation; below says nothing, for pictures that a model
    draws badly are far from all others.
    """

    nearest: tuple[int, ...]
    distances: tuple[float, ...]
    ratios: tuple[float, ...]
    closer: float
    z: float


@dataclass(frozen=True)
class Lean:
    """The share of drawn pictures whose nearest real picture, of those trained on and those held out, is one trained on.

    expected: the share that training pictures have among the real ones, which is what any model scores that remembers none of them,
    however well it draws. error: the standard error of `share` in that case; z: (share - expected) / error. It tells the slightest
    memorisation: a model of 60 digits that drew no copy had z = 4.5, while 26 % of pairs were `closer`. It takes training and held-out
    pictures that are alike: MNIST's test digits are by other writers, and z of other such digits was -3.
    """

    share: float
    expected: float
    error: float
    z: float


@dataclass(frozen=True)
class Baseline:
    """`count` pictures that were not trained on, by the same rule: the share below the limit, its standard error, the median ratio.

    left_out: they are training pictures, each compared with all others.
    """

    count: int
    rate: float
    error: float
    median: float
    left_out: bool


@dataclass(frozen=True)
class Copies:
    """What `find_copies` found among `count` drawn pictures.

    flagged: the rows of the copies, the nearest first, and `names`: what the data calls the training picture of each.
    rate: their share, with its standard error. limit: of the ratio. mirrored: rows whose nearest training picture is so when mirrored.
    train_count: different training pictures; repeats: those left out because another is the same; held_out_repeats: likewise held-out
    pictures which are training pictures, or there twice.
    """

    count: int
    flagged: tuple[int, ...]
    names: tuple[str, ...]
    rate: float
    error: float
    limit: float
    baseline: Baseline
    pixels: Nearness
    judge: Nearness | None
    lean: Lean | None
    mirrored: tuple[int, ...]
    source: str
    train_count: int
    repeats: int
    held_out_repeats: int
    flip: bool
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; of single pictures only the copies."""
        near = self.pixels
        copied = [
            {
                "drawn": row,
                "train": near.nearest[row],
                "name": name,
                "distance": near.distances[row],
                "ratio": near.ratios[row],
                "mirrored": row in self.mirrored,
            }
            for row, name in zip(self.flagged, self.names, strict=True)
        ]
        values = {key: value for key, value in asdict(self).items() if key not in ("names", "mirrored")}
        spaces = {key: values[key] and {"closer": values[key]["closer"], "z": values[key]["z"]} for key in ("pixels", "judge")}
        return {**values, **spaces, "flagged": copied}

    def lines(self) -> list[str]:
        """The findings in sentences, one a line."""
        return list(_lines(self))


def find_copies(
    drawn: Tensor,
    train: Pictures,
    judge: Judge | None = None,
    *,
    held_out: Tensor | None = None,
    flip: bool = False,
    seed: int = 0,
) -> Copies:
    """Which of the drawn pictures uint8 [N, C, H, W], N > 0, are copies of training pictures of that shape.

    held_out: pictures uint8 [M, C, H, W] of the same kind that were not trained on; without them training pictures take their part, each
    compared with all others. What is there more than once counts once, and held-out pictures that are training pictures do not count: at
    distance 0 from a real picture they would make every copy look usual. flip: a mirrored training picture was trained on as well.
    judge: tells nearness as it sees pictures, among 10,000 random training pictures and those nearest in pixels. It has no part in what is
    flagged: of noisy, brighter, re-encoded and blended copies in four data sets it finds none that pixels miss, and fewer in all. Copies
    shifted by a pixel are what pixels miss (all 50 of MNIST and of Fashion-MNIST; the judge finds 8 and 13). `seed` chooses where there are
    more pictures than are looked at.

    Every training picture is read once, and the nearest again; memory grows by about 150 bytes for each. Mistake for fewer than four
    different pictures of either kind, and as in `judge_features`; ValueError for pictures of another shape.
    """
    _expect_alike(train, drawn, held_out)
    drawn, read, seen = drawn.cpu(), _reader(train), set[bytes]()
    if held_out is None:
        others = read(_chosen(train.count, BASELINE, seed, "left out").tolist())
    else:
        held_out = held_out.cpu()
        others = held_out[_chosen(len(held_out), BASELINE, seed, "held out")]
    found, kept = _search(torch.cat([drawn, others]), read, train.count, seen, flip)
    if len(kept) < FEWEST:
        raise Mistake(f"{train.source} has {len(kept)} different pictures; copies are told of at least {FEWEST}.")
    mine, theirs = found.part(slice(0, len(drawn))), found.part(slice(len(drawn), None))
    own, real, new = None, None, torch.empty(0)
    if held_out is None:
        own = theirs.rows[:, 0]  # each is nearest to itself, at distance 0
        mine, theirs = mine.columns(slice(0, -1)), theirs.columns(slice(1, None))
    else:
        strange = theirs.distances[:, 0] > 0
        others, theirs = others[strange], theirs.part(strange)
        if len(others) < FEWEST:
            raise Mistake(f"{len(others)} held-out pictures are no training pictures; give at least {FEWEST}, or none at all.")
        held = held_out
        real, new = _search(drawn, lambda rows: held[torch.as_tensor(rows)], len(held), seen, flip)
    usual = theirs.ratios()
    limit = min(float(usual.quantile(LOWEST)), SHARE_OF_MEDIAN * float(usual.median()))
    near = _nearness(mine, usual)
    flagged = [row for row in _nearest_first(near) if near.ratios[row] < limit]
    few = int((usual < limit).sum())
    return Copies(
        count=len(drawn),
        flagged=tuple(flagged),
        names=tuple(train.name(near.nearest[row]) for row in flagged),
        rate=len(flagged) / len(drawn),
        error=standard_error(len(flagged), len(drawn)),
        limit=limit,
        baseline=Baseline(len(usual), few / len(usual), standard_error(few, len(usual)), float(usual.median()), held_out is None),
        pixels=near,
        judge=None if judge is None else _Look(judge, read, kept, flip, seed).nearness(drawn, mine, others, theirs, own),
        lean=None if real is None else _lean(mine, real, len(kept), len(new)),
        mirrored=tuple(mine.mirrored.nonzero()[:, 0].tolist()),
        source=train.source,
        train_count=len(kept),
        repeats=train.count - len(kept),
        held_out_repeats=0 if held_out is None else len(held_out) - len(new),
        flip=flip,
        seed=seed,
    )


def copies_sheet(copies: Copies, drawn: Tensor, train: Pictures, *, most: int = 24, columns: int = 4, invert: bool = False) -> Image.Image:
    """Pairs of a drawn picture and, right of it, the training picture nearest to it; the nearest pairs come first, copies are framed.

    A training picture that is near when mirrored is shown mirrored. `invert` shows black as white.
    """
    near = copies.pixels
    rows = _nearest_first(near)[:most]
    nearest = train.at([near.nearest[row] for row in rows]).pixels.cpu()
    cells, captions = [], []
    for row, real in zip(rows, nearest, strict=True):
        mirrored = row in copies.mirrored
        pair = [drawn[row].cpu(), real.flip(2) if mirrored else real]
        cells.append(_framed([255 - one if invert else one for one in pair], MARK if row in copies.flagged else PAPER))
        captions.append(f"{row}: {near.distances[row]:.1f}, ratio {near.ratios[row]:.2f}{', mirrored' if mirrored else ''}")
    shown = torch.stack(cells)
    scale = max(pixels.legible_scale(drawn.shape[2], drawn.shape[3]), -(-CAPTION_WIDTH // shown.shape[3]))
    found = len(copies.flagged)
    told = f"{found:,} of {copies.count:,} framed as {'a copy' if found == 1 else 'copies'}"
    title = f"Drawn, its nearest training picture, grey levels apart; {told}"
    return pixels.grid(shown, columns=columns, captions=captions, title=title, scale=scale)


def _framed(pair: Sequence[Tensor], colour: tuple[int, int, int]) -> Tensor:
    """Two pictures uint8 [C, H, W] side by side in a frame, uint8 [3, H + 2b, 2W + 3b]."""
    _, height, width = pair[0].shape
    b = max(1, min(height, width) // 16)
    cell = torch.tensor(colour, dtype=torch.uint8)[:, None, None].repeat(1, height + 2 * b, 2 * width + 3 * b)
    for place, picture in enumerate(pair):
        left = b + place * (width + b)
        cell[:, b : b + height, left : left + width] = picture
    return cell


# ---- what is told of neighbours --------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """Of Q pictures the nearest others: rows int64 [Q, K], distances float64 [Q, K], and whether the nearest is so mirrored, bool [Q]."""

    rows: Tensor
    distances: Tensor
    mirrored: Tensor

    def part(self, which: slice | Tensor) -> _Found:
        return _Found(self.rows[which], self.distances[which], self.mirrored[which])

    def columns(self, which: slice) -> _Found:
        return _Found(self.rows[:, which], self.distances[:, which], self.mirrored)

    def ratios(self) -> Tensor:
        """Float64 [Q]. Features may be all the same where pictures are not."""
        return self.distances[:, 0] / self.distances[:, 1:NEIGHBOURS].mean(1).clamp_min(1e-12)


def _nearness(mine: _Found, usual: Tensor) -> Nearness:
    ratios = mine.ratios()
    closer, z = _mann_whitney(ratios, usual)
    return Nearness(tuple(mine.rows[:, 0].tolist()), tuple(mine.distances[:, 0].tolist()), tuple(ratios.tolist()), closer, z)


def _nearest_first(near: Nearness) -> list[int]:
    return sorted(range(len(near.ratios)), key=lambda row: (near.ratios[row], near.distances[row]))


def _mann_whitney(mine: Tensor, theirs: Tensor) -> tuple[float, float]:
    """(the share of pairs in which mine is smaller, ties being half, and its z without a correction for ties), of [N] and [M]."""
    ordered = theirs.sort().values
    above = len(theirs) - torch.searchsorted(ordered, mine, right=True)
    below = torch.searchsorted(ordered, mine)
    share = float((above + (len(theirs) - above - below) / 2).double().mean()) / len(theirs)
    return share, (share - 0.5) / math.sqrt((len(mine) + len(theirs) + 1) / (12 * len(mine) * len(theirs)))


def _lean(train: _Found, held: _Found, train_count: int, held_count: int) -> Lean:
    """Of the neighbours of the same pictures among those trained on and among those held out.

    The error is exact for real pictures that are trained on by chance: one that is the nearest of c drawn ones brings c of N, and drawing
    some of n numbers c, whose squares sum to S, without replacement makes their sum vary by p (1 - p) n / (n - 1) (S - N^2 / n).
    """
    mine = train.distances[:, 0] < held.distances[:, 0]
    count, n = len(mine), train_count + held_count
    share, p = float(mine.double().mean()), train_count / n
    nearest_of = torch.cat([part.rows[which, 0].unique(return_counts=True)[1] for part, which in ((train, mine), (held, ~mine))])
    spread = float(nearest_of.square().sum()) - count**2 / n
    error = math.sqrt(p * (1 - p) * n / (n - 1) * max(spread, 1e-9)) / count
    return Lean(share, p, error, (share - p) / error)


# ---- neighbours in pixels --------------------------------------------------------------------------------------------


def _search(queries: Tensor, read: Read, count: int, seen: set[bytes], flip: bool) -> tuple[_Found, Tensor]:
    """The nearest of `count` pictures to each of the queries uint8 [Q, C, H, W], and the indices of those that were new, int64.

    seen: digests of the pictures met before; a picture among them is left out, and all others join them.
    """
    sides = [_vectors(queries), _vectors(queries.flip(3))] if flip else [_vectors(queries)]
    middle = sides[0].mean(0)  # distances stay, and float32 loses fewer digits of them
    sides = [side - middle for side in sides]
    rows, squared = torch.empty(len(queries), 0, dtype=torch.int64), torch.empty(len(queries), 0)
    kept = []
    for indices, pictures in _new(read, count, queries[0].numel(), seen, flip):
        kept.append(indices)
        values, places = _nearest(sides, _vectors(pictures) - middle)
        squared, best = torch.cat([squared, values], 1).topk(min(NEIGHBOURS + 1, squared.shape[1] + values.shape[1]), largest=False)
        rows = torch.cat([rows, indices[places]], 1).gather(1, best)
    distances = squared.clamp_min(0).div(sides[0].shape[1]).sqrt().double()
    exact, turned = _exactly(queries, read, rows[:, :EXACT], flip)
    order = exact.argsort(dim=1)
    rows[:, :EXACT], distances[:, :EXACT] = rows[:, :EXACT].gather(1, order), exact.gather(1, order)
    return _Found(rows, distances, turned.gather(1, order)[:, 0]), torch.cat(kept)


def _new(read: Read, count: int, values: int, seen: set[bytes], flip: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """(indices int64 [B], pictures uint8 [B, C, H, W]) of all pictures not seen before, a block at a time."""
    step = max(16, min(BLOCK, BLOCK_BYTES // values))
    for start in range(0, count, step):
        pictures = read(range(start, min(start + step, count)))
        fresh = []
        for place, digest in enumerate(_digests(pictures, flip)):
            if digest not in seen:
                seen.add(digest)
                fresh.append(place)
        if fresh:
            yield torch.tensor(fresh) + start, pictures[fresh]


def _digests(pictures: Tensor, flip: bool) -> list[bytes]:
    """One a picture; with `flip`, a picture and its mirror image have the same."""
    digests = [hashlib.blake2b(one.tobytes(), digest_size=16).digest() for one in pictures.numpy()]
    if not flip:
        return digests
    return list(map(min, digests, _digests(pictures.flip(3), False)))


def _nearest(sides: Sequence[Tensor], real: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances and places of the nearest of `real` [B, D] to queries [Q, D], of whose sides the nearer counts: [Q, K] each."""
    lengths = real.square().sum(1)
    found = []
    for start in range(0, len(sides[0]), QUERIES):
        squared = None
        for side in sides:
            some = side[start : start + QUERIES]
            those = torch.addmm(lengths, some, real.T, alpha=-2).add_(some.square().sum(1, keepdim=True))
            squared = those if squared is None else torch.minimum(squared, those)
        assert squared is not None
        found.append(squared.topk(min(NEIGHBOURS + 1, len(real)), largest=False))
    return torch.cat([one.values for one in found]), torch.cat([one.indices for one in found])


def _exactly(queries: Tensor, read: Read, rows: Tensor, flip: bool) -> tuple[Tensor, Tensor]:
    """Distances float64 of the queries to the pictures at `rows` [Q, K], without rounding before the root, and which are so mirrored."""
    distances, mirrored = torch.empty(rows.shape, dtype=torch.float64), torch.zeros(rows.shape, dtype=torch.bool)
    for some in torch.arange(len(queries)).split(128):
        indices, places = rows[some].unique(return_inverse=True)
        real = _vectors(read(indices.tolist())).double()[places]  # [B, K, D]
        distances[some] = (real - _vectors(queries[some]).double()[:, None]).square().mean(2).sqrt()
        if flip:
            turned = (real - _vectors(queries[some].flip(3)).double()[:, None]).square().mean(2).sqrt()
            mirrored[some] = turned < distances[some]
            distances[some] = torch.minimum(turned, distances[some])
    return distances, mirrored


def _vectors(pictures: Tensor) -> Tensor:
    """uint8 [B, C, H, W] -> float32 [B, D] in grey levels, large pictures reduced by a whole factor."""
    factor = -(-min(pictures.shape[2:]) // LARGEST)
    values = pictures.float()
    return (F.avg_pool2d(values, factor, ceil_mode=True) if factor > 1 else values).flatten(1)


# ---- neighbours as a judge sees them ---------------------------------------------------------------------------------


class _Look(NamedTuple):
    """A judge before the training pictures `kept`."""

    judge: Judge
    read: Read
    kept: Tensor
    flip: bool
    seed: int

    def nearness(self, drawn: Tensor, mine: _Found, others: Tensor, theirs: _Found, own: Tensor | None) -> Nearness:
        """own [M]: the training pictures that the others are themselves, which are left out for them."""
        some = self.kept[_chosen(len(self.kept), JUDGED, self.seed, "judged")]
        rows = torch.cat([some, mine.rows[:, 0], theirs.rows[:, 0]]).unique()
        real = torch.cat([judge_features(self.judge, self.read(block.tolist())) for block in rows.split(BLOCK)])
        usual = self._nearest(others, rows, real, own).ratios()
        return _nearness(self._nearest(drawn, rows, real, None), usual)

    def _nearest(self, pictures: Tensor, rows: Tensor, real: Tensor, own: Tensor | None) -> _Found:
        sides = [judge_features(self.judge, side) for side in ([pictures, pictures.flip(3)] if self.flip else [pictures])]
        found = []
        for some in torch.arange(len(pictures)).split(QUERIES):
            distances = torch.stack([torch.cdist(side[some], real) for side in sides]).amin(0)
            if own is not None:
                distances.masked_fill_(rows == own[some, None], torch.inf)
            found.append(distances.topk(min(NEIGHBOURS, len(rows) - 1), largest=False))
        values, places = torch.cat([one.values for one in found]), torch.cat([one.indices for one in found])
        return _Found(rows[places], values, torch.zeros(len(pictures), dtype=torch.bool))


# ---- small things ----------------------------------------------------------------------------------------------------


def _reader(train: Pictures) -> Read:
    return lambda rows: train.at(rows).pixels.cpu()


def _chosen(count: int, most: int, seed: int, purpose: str) -> Tensor:
    """At most `most` of `count` numbers at random, int64, in order."""
    return torch.randperm(count, generator=generator_for(seed, "copies", purpose))[:most].sort().values


def _expect_alike(train: Pictures, *given: Tensor | None) -> None:
    shape = (train.channels, train.height, train.width)
    for pictures in given:
        if pictures is not None and (pictures.dtype != torch.uint8 or tuple(pictures.shape[1:]) != shape or not len(pictures)):
            told = f"{str(pictures.dtype).removeprefix('torch.')} {list(pictures.shape)}"
            raise ValueError(f"beside {train.source}, pictures are uint8 [N, {', '.join(map(str, shape))}], not {told}")


def _lines(copies: Copies) -> Iterator[str]:
    base, near = copies.baseline, copies.pixels
    others = "training pictures, each beside all others" if base.left_out else "held-out pictures"
    yield (
        f"Copies: {len(copies.flagged):,} of {copies.count:,} drawn pictures, {copies.rate:.1%} ± {copies.error:.1%}; "
        f"by the same rule {base.rate:.1%} ± {base.error:.1%} of {base.count:,} {others}."
    )
    if copies.flagged:
        pairs = [f"{row} is {name} ({near.distances[row]:.1f})" for row, name in zip(copies.flagged[:NAMED], copies.names, strict=False)]
        yield f"Nearest, and how many grey levels apart: {', '.join(pairs)}."
    yield f"A copy is nearer to a training picture than {copies.limit:.2f} times its distance to the next nine; usual is {base.median:.2f}."
    judged = "" if copies.judge is None else f", as the judge sees them in {copies.judge.closer:.1%} (z {copies.judge.z:+.1f})"
    yield f"In {near.closer:.1%} of pairs the drawn picture comes nearer than the other (z {near.z:+.1f}){judged}; by chance 50%."
    if copies.lean is not None:
        lean = copies.lean
        yield (
            f"The nearest real picture is one trained on for {lean.share:.1%}; "
            f"by chance {lean.expected:.1%} ± {lean.error:.1%} (z {lean.z:+.1f})."
        )
    repeats = f", {copies.repeats:,} more being repeats" if copies.repeats else ""
    yield f"Beside {copies.train_count:,} training pictures of {copies.source}{', mirrored too' if copies.flip else ''}{repeats}."
