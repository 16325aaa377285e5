"""The real pictures that are compared with: which they are, and that they are looked at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor

from diffsteer.data.images import load_pictures
from diffsteer.data.memory import MemoryPictures
from diffsteer.diffusion.judge import Judge
from diffsteer.errors import Mistake
from diffsteer.evaluation import cache, reference
from diffsteer.evaluation.features import FeatureExtractor, judge_extractor, judge_features, judge_labels, told_of
from diffsteer.evaluation.reference import Real, read_real


@pytest.fixture(scope="module")
def digits() -> MemoryPictures:
    data = load_pictures("digits")
    assert isinstance(data, MemoryPictures)
    return data


@pytest.fixture
def looked(digits_judge: Judge) -> tuple[FeatureExtractor, list[int]]:
    """The judge as what looks, and how many pictures it has looked at each time."""
    seen: list[int] = []

    def watched(pictures: Tensor) -> Tensor:
        seen.append(len(pictures))
        return judge_features(digits_judge, pictures)

    return replace(judge_extractor(digits_judge), features=watched), seen


def kept_files(own_cache: Path) -> list[Path]:
    return sorted((own_cache / "diffsteer" / "features").glob("*"))


# ---- which they are --------------------------------------------------------------------------------------------------


def test_they_are_the_datas_own_pictures_each_once(digits: MemoryPictures, digits_judge: Judge) -> None:
    real = read_real(digits, judge_extractor(digits_judge), digits_judge)
    everything = judge_features(digits_judge, digits.pixels)
    # Features are nearly the same in another batch: the nearest of all is the picture itself.
    nearest = torch.cdist(real.features, everything).min(1)
    assert nearest.values.max() < 1e-3 and len(nearest.indices.unique()) > 0.99 * digits.count == 0.99 * len(real.features)
    assert real.labels is not None and (real.labels == judge_labels(digits_judge, digits.pixels)[0][nearest.indices]).double().mean() > 0.99
    assert real.brightness.mean().item() == pytest.approx((digits.mean + 1) / 2)
    assert real.reference == reference.Reference("digits", "train", 1797, (), True, digits.fingerprint, (8, 8)) and real.kept is None


def test_of_classes_asked_for_they_have_the_datas_labels(digits: MemoryPictures, digits_judge: Judge) -> None:
    assert digits.labels is not None
    real = read_real(digits, judge_extractor(digits_judge), digits_judge, torch.tensor([3, 7, 3]), split="test")
    assert real.labels is not None and real.reference.classes == ("3", "7") and real.reference.split == "test"
    assert [int((real.labels == label).sum()) for label in (3, 7)] == [int((digits.labels == label).sum()) for label in (3, 7)]


def test_there_are_so_many_at_most_and_twice_the_drawn_ones(
    digits: MemoryPictures, digits_judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "MOST", 150)
    extractor = judge_extractor(digits_judge)
    assert [read_real(digits, extractor, digits_judge, drawn=drawn).reference.count for drawn in (0, 75, 200, 5000)] == [
        150,
        150,
        400,
        1797,
    ]
    first, other = (read_real(digits, extractor, digits_judge, seed=seed) for seed in (0, 1))
    assert not torch.equal(first.features, other.features)


def test_a_network_without_a_judge_needs_no_labels(digits: MemoryPictures, digits_judge: Judge) -> None:
    plain = replace(digits, labels=None, label_names=())
    real = read_real(plain, judge_extractor(digits_judge), None)
    assert real.labels is None and real.reference.learnt is False


def test_too_few_pictures_are_a_mistake(digits: MemoryPictures, digits_judge: Judge) -> None:
    assert digits.labels is not None
    few = replace(digits, pixels=digits.pixels[:12], labels=digits.labels[:12])
    with pytest.raises(Mistake, match="digits has 2 pictures of 0; a comparison with real pictures needs at least 4"):
        read_real(few, judge_extractor(digits_judge), digits_judge, torch.tensor([0]))


def test_progress_is_told_to_the_end(digits: MemoryPictures, digits_judge: Judge) -> None:
    told: list[tuple[int, int]] = []
    read_real(digits, judge_extractor(digits_judge), digits_judge, watch=lambda *now: told.append(now))
    assert told == [(read, 15) for read in range(1, 16)]  # 1,797 in batches of 128


# ---- looked at once --------------------------------------------------------------------------------------------------


def same(one: Real, other: Real) -> bool:
    assert one.labels is not None and other.labels is not None
    pairs = [(one.features, other.features), (one.labels, other.labels), (one.brightness, other.brightness)]
    return one.reference == other.reference and all(torch.equal(*pair) for pair in pairs)


def test_a_second_look_reads_what_was_kept(
    digits: MemoryPictures, digits_judge: Judge, looked: tuple[FeatureExtractor, list[int]], own_cache: Path
) -> None:
    extractor, seen = looked
    first = read_real(digits, extractor, digits_judge, keep=True)
    assert sum(seen) == 1797 and first.kept is None
    again = read_real(digits, extractor, digits_judge, keep=True)
    assert sum(seen) == 1797 and same(first, again) and [again.kept] == kept_files(own_cache)
    read_real(digits, extractor, digits_judge)
    assert sum(seen) == 2 * 1797, "nothing is read where nothing was said of keeping"


def test_other_inputs_have_files_of_their_own(digits: MemoryPictures, digits_judge: Judge, own_cache: Path) -> None:
    extractor = judge_extractor(digits_judge)
    other_weights = replace(extractor, told=replace(extractor.told, weights="1" * 64))
    read_real(digits, extractor, digits_judge, keep=True)
    for number, (data, network, options) in enumerate(
        [
            (replace(digits, fingerprint="another"), extractor, {}),
            (digits, other_weights, {}),
            (digits, replace(extractor, device="cuda"), {}),
            (digits, extractor, {"seed": 1}),
            (digits, extractor, {"drawn": 6000}),
            (digits, extractor, {"asked": torch.tensor([3])}),
            (digits, extractor, {"asked": torch.tensor([7])}),
        ],
        start=2,
    ):
        assert read_real(data, network, digits_judge, keep=True, **options).kept is None  # type: ignore[arg-type]
        assert len(kept_files(own_cache)) == number


def test_judges_that_differ_in_one_weight_are_different(digits_judge: Judge) -> None:
    import copy

    other = copy.deepcopy(digits_judge)
    assert told_of(other) == told_of(digits_judge) and len(told_of(other).weights) == 64
    with torch.no_grad():
        next(other.parameters())[0] += 1e-6
    assert told_of(other).weights != told_of(digits_judge).weights
    other = copy.deepcopy(digits_judge)
    other.spec = replace(other.spec, data_mean=0.123)
    assert told_of(other).weights != told_of(digits_judge).weights


def test_a_file_that_is_damaged_or_of_other_inputs_is_made_anew(
    digits: MemoryPictures, digits_judge: Judge, looked: tuple[FeatureExtractor, list[int]], own_cache: Path
) -> None:
    extractor, seen = looked
    first = read_real(digits, extractor, digits_judge, keep=True)
    (file,) = kept_files(own_cache)
    whole = file.read_bytes()
    lying = {**load(whole), cache.INPUTS: torch.zeros(32, dtype=torch.uint8)}
    for spoil in (lambda: file.write_bytes(whole[:1000]), lambda: file.write_bytes(b""), lambda: save_file(lying, file)):
        before = sum(seen)
        spoil()
        assert same(read_real(digits, extractor, digits_judge, keep=True), first)
        assert sum(seen) == before + 1797 and file.read_bytes() == whole and kept_files(own_cache) == [file]


def test_a_cache_that_cannot_be_written_stops_nobody(digits: MemoryPictures, digits_judge: Judge, own_cache: Path) -> None:
    own_cache.write_text("a file stands where the folder should be")
    assert read_real(digits, judge_extractor(digits_judge), digits_judge, keep=True).reference.count == 1797


def test_the_cache_is_where_the_user_has_it(own_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.features_folder() == own_cache / "diffsteer" / "features"
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", "relative/path"):  # which the XDG base directory specification says to pass over
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache.features_folder() == tmp_path / ".cache" / "diffsteer" / "features"
