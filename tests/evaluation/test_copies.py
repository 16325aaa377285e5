"""Copies slipped among real pictures are found, real ones are left alone, and every number is what a slower way finds."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import scipy.stats
import torch
from PIL import Image
from torch import Tensor

from diffsteer.data import pixels
from diffsteer.data.images import load_pictures
from diffsteer.data.memory import MemoryPictures
from diffsteer.diffusion.judge import Judge
from diffsteer.errors import Mistake
from diffsteer.evaluation import copies as module
from diffsteer.evaluation.copies import MARK, Copies, copies_sheet, find_copies

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
PLANTED = 50


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def holding(data: MemoryPictures, pictures: Tensor) -> MemoryPictures:
    return replace(data, pixels=pictures, labels=None, label_names=())


@pytest.fixture(scope="module")
def digits() -> MemoryPictures:
    data = load_pictures("digits")
    assert isinstance(data, MemoryPictures)
    return holding(data, data.pixels[torch.randperm(data.count, generator=random(0))])


class Split(NamedTuple):
    train: MemoryPictures
    fresh: Tensor  # real pictures that were not trained on, to be drawn
    held_out: Tensor  # others


@cache
def split(name: str) -> Split:
    """Pictures of a data set: trained on, drawn, held out."""
    digits = load_pictures("digits")
    assert isinstance(digits, MemoryPictures)
    if name == "digits":
        some = digits.pixels[torch.randperm(digits.count, generator=random(0))]
        return Split(holding(digits, some[:1200]), some[1200:1500], some[1500:])
    if not SHARED.is_dir():
        pytest.skip("the development pictures are not here")
    folder = str(SHARED / name)
    if name == "fashion900":
        some = load_pictures(folder).at(torch.randperm(900, generator=random(0)).tolist()).pixels
        return Split(holding(digits, some[:600]), some[600:750], some[750:])
    train = load_pictures(folder, streaming="on").at(range(5000)).pixels  # not all the 60,000 need be decoded
    test = load_pictures(folder, split="test", streaming="on").at(range(5000, 7000)).pixels
    return Split(holding(digits, train), test[:1000], test[1000:])


ALL = ("digits", "fashion900", "mnist", "cifar10")


def some_of(train: MemoryPictures, count: int = PLANTED, seed: int = 1) -> Tensor:
    return train.pixels[torch.randperm(train.count, generator=random(seed))[:count]]


# ---- copies are found, and real pictures are not taken for any ---------------------------------------------------------


@pytest.mark.parametrize("with_held_out", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_copies_among_real_pictures_are_found_and_nothing_else(name: str, with_held_out: bool) -> None:
    train, fresh, held_out = split(name)
    rows = torch.randperm(train.count, generator=random(1))[:PLANTED]
    drawn = torch.cat([fresh, train.pixels[rows]])
    found = find_copies(drawn, train, held_out=held_out if with_held_out else None)
    planted = set(range(len(fresh), len(drawn)))
    assert planted <= set(found.flagged)
    assert len(set(found.flagged) - planted) <= 0.01 * len(fresh)
    assert [found.pixels.nearest[row] for row in sorted(planted)] == rows.tolist()
    assert all(found.pixels.distances[row] == 0 == found.pixels.ratios[row] for row in planted)
    assert found.rate == len(found.flagged) / len(drawn) and found.baseline.rate <= 0.01
    assert found.baseline.left_out != with_held_out


def noisy(levels: float) -> Callable[[Tensor], Tensor]:
    return lambda p: (p + torch.randn(p.shape, generator=random(3)) * levels).clamp(0, 255).round().to(torch.uint8)


def through_bf16(pictures: Tensor) -> Tensor:
    return pixels.to_uint8(pixels.to_signed(pictures).bfloat16() * 1.004)


def brighter(pictures: Tensor) -> Tensor:
    return (pictures.int() + 8).clamp(0, 255).to(torch.uint8)


def through_jpeg(pictures: Tensor) -> Tensor:
    seen = []
    for one in pictures:
        file = io.BytesIO()
        pixels.to_pil(one).save(file, "JPEG", quality=85)
        seen.append(pixels.from_pil(Image.open(file)))
    return torch.stack(seen)


ALTERED = {"1 level": noisy(1), "2 levels": noisy(2), "bf16": through_bf16, "brighter": brighter, "jpeg": through_jpeg}


@pytest.mark.parametrize("name", ALL)
def test_copies_that_were_altered_a_little_are_found(name: str) -> None:
    train, _, held_out = split(name)
    drawn = torch.cat([alter(some_of(train)) for alter in ALTERED.values()])
    found = find_copies(drawn, train, held_out=held_out)
    for place, kind in enumerate(ALTERED):
        rows = set(range(place * PLANTED, (place + 1) * PLANTED))
        assert len(rows & set(found.flagged)) >= 0.96 * PLANTED, kind


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_mirrored_copies_are_found_where_training_mirrored_them(name: str) -> None:
    whole, fresh, _ = split(name)
    train = holding(whole, whole.pixels[:1000])
    drawn = torch.cat([fresh[:100], some_of(train).flip(3)])
    mirrored = set(range(100, 150))
    with_flip = find_copies(drawn, train, flip=True)
    assert mirrored <= set(with_flip.flagged) and len(with_flip.flagged) <= 51
    assert mirrored - set(with_flip.mirrored) == set()
    assert all(with_flip.pixels.distances[row] == 0 for row in mirrored)
    without = find_copies(drawn, train)
    assert len(without.flagged) <= 0.3 * PLANTED  # some are their own mirror image, nearly
    assert without.mirrored == ()


def test_pictures_that_are_near_to_everything_are_no_copies() -> None:
    """The mean of a class comes nearer to training pictures than held-out ones do; and what is drawn 20 times is no copy by that."""
    train, fresh, held_out = split("digits")
    data = load_pictures("digits").at(range(1797))
    assert data.labels is not None
    means = torch.stack([data.pixels[data.labels == label].float().mean(0) for label in range(10)]).round().to(torch.uint8)
    found = find_copies(torch.cat([means, fresh[:1].expand(20, -1, -1, -1)]), train, held_out=held_out)
    usual = find_copies(fresh, train, held_out=held_out)
    assert sum(found.pixels.distances[:10]) / 10 < 0.95 * sum(usual.pixels.distances) / len(fresh)
    assert found.flagged == ()


def test_few_pictures_are_enough(digits: MemoryPictures) -> None:
    """Of 20 training pictures one is the nearest to its nearest by chance; the limit does not follow it."""
    flagged = wrong = 0
    for seed in range(10):
        some = digits.pixels[torch.randperm(digits.count, generator=random(seed))]
        found = find_copies(torch.cat([some[:20], some[20:320]]), holding(digits, some[:20]))
        flagged += len(set(found.flagged) & set(range(20)))
        wrong += len(set(found.flagged) - set(range(20)))
    assert flagged == 200 and wrong <= 0.02 * 3000


# ---- what is there more than once --------------------------------------------------------------------------------------


def test_training_pictures_that_are_there_a_hundred_times_change_nothing(digits: MemoryPictures) -> None:
    train, fresh, _ = split("digits")
    often = some_of(train)
    drawn = torch.cat([fresh, often])
    once = find_copies(drawn, train, held_out=None, seed=2)
    found = find_copies(drawn, holding(digits, torch.cat([train.pixels, often.repeat(100, 1, 1, 1)])), seed=2)
    assert (found.train_count, found.repeats) == (once.train_count, once.repeats + 5000)
    assert set(range(300, 350)) <= set(found.flagged) and len(found.flagged) == len(once.flagged)
    assert found.pixels.nearest == once.pixels.nearest and found.pixels.ratios == pytest.approx(once.pixels.ratios, rel=1e-4)
    assert found.limit > 0.8 * once.limit and found.baseline.rate <= 0.005


def test_held_out_pictures_that_were_trained_on_change_nothing() -> None:
    train, fresh, held_out = split("digits")
    clean = find_copies(fresh, train, held_out=held_out)
    mixed = find_copies(fresh, train, held_out=torch.cat([held_out, some_of(train, 100)]))
    assert mixed.limit == pytest.approx(clean.limit, rel=1e-4) and mixed.baseline.count == clean.baseline.count
    assert (mixed.baseline.rate, mixed.pixels.closer, mixed.lean) == (clean.baseline.rate, clean.pixels.closer, clean.lean)
    assert mixed.held_out_repeats == clean.held_out_repeats + 100


def test_a_picture_and_its_mirror_image_are_one_where_training_mirrors(digits: MemoryPictures) -> None:
    train, fresh, _ = split("digits")
    plain = find_copies(fresh, train, flip=True)
    both = find_copies(fresh, holding(digits, torch.cat([train.pixels, train.pixels.flip(3)])), flip=True)
    assert both.train_count == plain.train_count
    assert both.pixels.ratios == pytest.approx(plain.pixels.ratios, rel=1e-4)


# ---- the numbers, by a slower way --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
def test_neighbours_are_those_of_all_pairs(digits: MemoryPictures, monkeypatch: pytest.MonkeyPatch, flip: bool) -> None:
    for name, size in (("QUERIES", 7), ("BLOCK", 64)):
        monkeypatch.setattr(module, name, size)
    train, fresh = digits.pixels[:300], digits.pixels[300:340]
    found = find_copies(fresh, holding(digits, train), flip=flip)
    sides = [train, train.flip(3)] if flip else [train]
    pairs = torch.stack([(fresh[:, None].double() - side[None].double()).square().mean((2, 3, 4)).sqrt() for side in sides])
    distances, order = pairs.amin(0).sort(1)
    assert found.pixels.nearest == tuple(order[:, 0].tolist())
    assert found.pixels.distances == pytest.approx(distances[:, 0].tolist(), rel=1e-12)
    assert found.pixels.ratios == pytest.approx((distances[:, 0] / distances[:, 1:10].mean(1)).tolist(), rel=1e-4)
    if flip:
        nearest = pairs.gather(2, order[None, :, :1].expand(2, -1, -1))[:, :, 0]
        assert found.mirrored == tuple((nearest[1] < nearest[0]).nonzero()[:, 0].tolist())


def test_left_out_training_pictures_are_compared_with_all_others(digits: MemoryPictures) -> None:
    train = digits.pixels[:300]
    found = find_copies(train[:10], holding(digits, train))
    rows = train.flatten(1).double()
    pairs = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf).sort(1).values
    ratios = pairs[:, 0] / pairs[:, 1:10].mean(1)
    assert found.baseline.count == 300 and found.baseline.median == pytest.approx(ratios.median().item(), rel=1e-4)
    assert found.limit == pytest.approx(min(ratios.quantile(0.005).item(), 0.5 * ratios.median().item()), rel=1e-4)


def test_the_rank_test_is_mann_whitneys() -> None:
    mine, theirs = torch.rand(40, generator=random(0)).double(), torch.rand(70, generator=random(1)).double() + 0.1
    share, z = module._mann_whitney(mine, theirs)
    judged = scipy.stats.mannwhitneyu(theirs, mine, use_continuity=False, method="asymptotic")
    assert share == pytest.approx(judged.statistic / (40 * 70))
    assert 2 * scipy.stats.norm.sf(z) == pytest.approx(judged.pvalue)
    assert module._mann_whitney(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]))[0] == (1 + 1 + 0.5 + 1) / 4


def test_pictures_like_the_held_out_ones_do_not_lean(digits: MemoryPictures) -> None:
    """z has mean 0 and spread 1 when nothing is remembered, though one real picture is the nearest of several drawn ones."""
    scores, errors = [], []
    for seed in range(80):
        some = digits.pixels[torch.randperm(digits.count, generator=random(seed))]
        lean = find_copies(some[:200], holding(digits, some[200:260]), held_out=some[260:290]).lean
        assert lean is not None and lean.expected == pytest.approx(2 / 3)
        scores.append(lean.z)
        errors.append(lean.error)
    z = torch.tensor(scores)
    assert abs(z.mean()) < 0.3 and z.std() == pytest.approx(1, abs=0.2)
    assert min(errors) > 1.1 * (2 / 9 / 200) ** 0.5  # more than that of 200 separate chances


def test_what_is_half_remembered_is_no_copy_and_yet_is_told() -> None:
    """Three fifths of a training picture, two of a real one that was not trained on: farther from all than real ones are."""
    train, fresh, held_out = split("digits")
    mixed = (0.6 * some_of(train, 300).float() + 0.4 * fresh.float()).round().to(torch.uint8)
    found = find_copies(mixed, train, held_out=held_out)
    alike = find_copies(fresh, train, held_out=held_out)
    assert found.lean is not None and alike.lean is not None
    assert len(found.flagged) <= 3 and found.pixels.closer < 0.5
    assert found.lean.z > 4 > 2 > abs(alike.lean.z)


def test_slight_memorisation_moves_the_ranks() -> None:
    train, fresh, held_out = split("digits")
    tenth = torch.cat([fresh[:270], noisy(20)(some_of(train, 30))])
    assert find_copies(fresh, train, held_out=held_out).pixels.z < 2 < find_copies(tenth, train, held_out=held_out).pixels.z


# ---- the judge ---------------------------------------------------------------------------------------------------------


def test_the_judge_finds_the_same_copies(digits_judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JUDGED", 100)  # those nearest in pixels are looked at all the same
    train, fresh, held_out = split("digits")
    rows = torch.randperm(train.count, generator=random(1))[:PLANTED]
    for flip, others in ((False, None), (True, held_out)):
        planted = train.pixels[rows].flip(3) if flip else train.pixels[rows]
        found = find_copies(planted, train, digits_judge, flip=flip, held_out=others)
        assert found.judge is not None
        assert max(found.judge.distances) < 1e-4
        assert found.judge.nearest == tuple(rows.tolist())
        assert found.judge.closer > 0.999
    real = find_copies(fresh, train, digits_judge).judge
    assert real is not None and 0.35 < real.closer < 0.65 and min(real.distances) > 1e-3


# ---- of any size and source ----------------------------------------------------------------------------------------------


def test_large_pictures_are_compared_when_reduced(digits: MemoryPictures) -> None:
    large = digits.pixels[:60].repeat_interleave(18, 2).repeat_interleave(12, 3)[:, :, :131]  # 131 x 96
    found = find_copies(large[30:], holding(digits, large[:40]), flip=True)
    small = find_copies(digits.pixels[30:60], holding(digits, digits.pixels[:40]), flip=True)
    assert set(found.flagged) >= set(range(10)) and set(found.flagged) == set(small.flagged)
    assert module._vectors(large).shape == (60, 66 * 48)


def test_streamed_pictures_give_what_pictures_in_memory_give(digits: MemoryPictures, tmp_path: Path) -> None:
    for index in range(60):
        pixels.write_png(pixels.to_pil(digits.pixels[index]), tmp_path / f"{index:02d}.png")
    drawn = digits.pixels[50:80]
    streamed, held = (find_copies(drawn, load_pictures(str(tmp_path), streaming=how)) for how in ("on", "off"))  # type: ignore[arg-type]
    assert streamed == held
    assert held.names[:1] == ("50.png",) and len(held.flagged) >= 10


def test_the_seed_chooses_and_nothing_else_does(digits: MemoryPictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BASELINE", 100)
    state = torch.random.get_rng_state()
    first, again, other = (find_copies(digits.pixels[:20], digits, seed=seed) for seed in (0, 0, 1))
    assert first == again and torch.equal(state, torch.random.get_rng_state())
    assert first.baseline.median != other.baseline.median and first.pixels.nearest == other.pixels.nearest
    assert first.baseline.count == 100


def test_what_cannot_be_compared_is_said(digits: MemoryPictures) -> None:
    some = digits.pixels[:10]
    with pytest.raises(Mistake, match="has 3 different pictures; copies are told of at least 4"):
        find_copies(some, holding(digits, some[:3].repeat(5, 1, 1, 1)))
    with pytest.raises(Mistake, match="2 held-out pictures are no training pictures; give at least 4, or none"):
        find_copies(some, holding(digits, some), held_out=digits.pixels[:12])
    with pytest.raises(ValueError, match=r"beside digits, pictures are uint8 \[N, 1, 8, 8\], not float32 \[10, 1, 8, 8\]"):
        find_copies(some.float(), digits)
    with pytest.raises(ValueError, match=r"not uint8 \[0, 1, 8, 8\]"):
        find_copies(some[:0], digits)
    with pytest.raises(ValueError, match=r"not uint8 \[10, 1, 8, 6\]"):
        find_copies(some, digits, held_out=some[:, :, :, :6])
    assert find_copies(some, holding(digits, some[:4])).flagged[:4] == (0, 1, 2, 3)


# ---- what is told ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted() -> tuple[Copies, Tensor, MemoryPictures]:
    train, fresh, held_out = split("digits")
    drawn = torch.cat([fresh[:40], train.pixels[7:9], noisy(6)(train.pixels[9:10])])
    return find_copies(drawn, train, held_out=held_out), drawn, train


def test_the_lines_tell_the_numbers(planted: tuple[Copies, Tensor, MemoryPictures]) -> None:
    found, _, train = planted
    assert found.flagged == (40, 41, 42) and found.names == tuple(map(train.name, (7, 8, 9)))
    said = "\n".join(found.lines())
    assert f"Copies: 3 of 43 drawn pictures, 7.0% ± {found.error:.1%}; by the same rule 0.0% ± " in said
    assert f"40 is {train.name(7)} (0.0)" in said and f"42 is {train.name(9)} (" in said
    assert f"than {found.limit:.2f} times" in said and f"(z {found.pixels.z:+.1f})" in said
    assert found.lean is not None and f"{found.lean.share:.1%}; by chance {found.lean.expected:.1%}" in said
    assert f"Beside {found.train_count:,} training pictures of digits." in said


def test_the_dict_is_plain_and_tells_of_copies_only(planted: tuple[Copies, Tensor, MemoryPictures]) -> None:
    found, _, train = planted
    values = json.loads(json.dumps(found.to_dict()))
    assert values["flagged"][0] == {"drawn": 40, "train": 7, "name": train.name(7), "distance": 0.0, "ratio": 0.0, "mirrored": False}
    assert len(values["flagged"]) == 3 and values["rate"] == 3 / 43 and values["baseline"]["rate"] == 0
    assert set(values["pixels"]) == {"closer", "z"} and values["judge"] is None and values["lean"]["z"] == found.lean.z  # type: ignore[union-attr]


def test_the_sheet_shows_the_nearest_pairs_first_and_frames_the_copies(planted: tuple[Copies, Tensor, MemoryPictures]) -> None:
    found, drawn, train = planted
    sheet = pixels.from_pil(copies_sheet(found, drawn, train, most=6, columns=3, invert=True))
    marked = (sheet == torch.tensor(MARK, dtype=torch.uint8)[:, None, None]).all(0)
    places = marked.nonzero()
    scale = int(marked.any(1).nonzero()[-1, 0] - marked.any(1).nonzero()[0, 0] + 1) // 10  # a pair is 8 + 2 high, 2 * 8 + 3 wide
    top, left = places.min(0).values.tolist()
    pair = sheet[:, top : top + 10 * scale : scale, left : left + 19 * scale : scale]
    assert torch.equal(pair[:, 1:9, 1:9], 255 - drawn[40].expand(3, -1, -1))
    assert torch.equal(pair[:, 1:9, 10:18], 255 - train.pixels[7].expand(3, -1, -1))
    assert int(marked[top].sum()) == 3 * 19 * scale  # three frames, in the first of two rows
    assert not marked[sheet.shape[1] // 2 :].any()


def test_a_mirrored_neighbour_is_shown_mirrored() -> None:
    train, _, _ = split("digits")
    drawn = train.pixels[5:6].flip(3)
    found = find_copies(drawn, train, flip=True)
    sheet = pixels.from_pil(copies_sheet(found, drawn, train))
    marked = (sheet == torch.tensor(MARK, dtype=torch.uint8)[:, None, None]).all(0)
    top, left = marked.nonzero().min(0).values.tolist()
    scale = int(marked[top].sum()) // 19
    pair = sheet[:, top : top + 10 * scale : scale, left : left + 19 * scale : scale]
    assert torch.equal(pair[:, 1:9, 1:9], pair[:, 1:9, 10:18])
