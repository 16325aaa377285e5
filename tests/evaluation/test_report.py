"""The scorecard on real digits: good pictures score well, bad ones badly, and it says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffsteer.data.images import load_pictures
from diffsteer.data.memory import MemoryPictures
from diffsteer.diffusion.judge import Judge, JudgeSpec
from diffsteer.errors import Mistake
from diffsteer.evaluation.basis import Extractor
from diffsteer.evaluation.features import FeatureExtractor, judge_extractor, judge_features, judge_labels, told_of
from diffsteer.evaluation.reference import read_real
from diffsteer.evaluation.report import Scores, score, table, write_report


@pytest.fixture(scope="module")
def digits() -> MemoryPictures:
    data = load_pictures("digits")
    assert isinstance(data, MemoryPictures)
    return data


def some(data: MemoryPictures, count: int = 300) -> tuple[Tensor, Tensor]:
    rows = torch.randperm(data.count, generator=torch.Generator().manual_seed(7))[:count]
    assert data.labels is not None
    return data.pixels[rows], data.labels[rows]


def noisy(pictures: Tensor, amount: float) -> Tensor:
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1)) * 255 * amount
    return (pictures + noise).clamp(0, 255).round().to(torch.uint8)


# ---- features --------------------------------------------------------------------------------------------------------


def test_features_do_not_depend_on_the_batch(digits: MemoryPictures, digits_judge: Judge) -> None:
    pictures, labels = some(digits, 50)
    features = judge_features(digits_judge, pictures)
    assert features.shape == (50, 64) and features.dtype == torch.float64
    torch.testing.assert_close(features, judge_features(digits_judge, pictures, batch=7), atol=1e-5, rtol=1e-5)
    found, probabilities = judge_labels(digits_judge, pictures)
    assert torch.equal(found, probabilities.argmax(1)) and (found == labels).double().mean() > 0.9
    torch.testing.assert_close(probabilities.sum(1), torch.ones(50, dtype=torch.float64))


def test_uint8_255_is_white_to_the_judge(digits: MemoryPictures, digits_judge: Judge) -> None:
    pictures, _ = some(digits, 5)
    torch.testing.assert_close(judge_features(digits_judge, pictures), digits_judge.features(pictures.float() / 255).double())


def test_grey_before_a_judge_of_colour_is_a_mistake_and_the_reverse(digits: MemoryPictures, digits_judge: Judge) -> None:
    grey, _ = some(digits, 3)
    colour_judge = Judge(JudgeSpec("plain", 3, 8, 8, ("a", "b"))).eval()
    with pytest.raises(Mistake, match="knows colour pictures, and these are grey"):
        judge_features(colour_judge, grey)
    with pytest.raises(Mistake, match="knows grey pictures, and these are colour"):
        judge_labels(digits_judge, grey.expand(-1, 3, -1, -1))


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_real_pictures_score_as_real_ones(digits: MemoryPictures, digits_judge: Judge) -> None:
    scores = score(*some(digits), digits, digits_judge)
    assert scores.accuracy is not None and scores.variety is not None
    assert scores.frechet.count == scores.count == 300
    assert scores.frechet.value < 1.5 * scores.frechet.floor
    assert scores.accuracy.value > 0.97
    assert scores.variety.value == pytest.approx(1, abs=0.1) and scores.variety.classes == 10
    assert scores.kid.value < scores.kid.floor + 2 * (scores.kid.error + scores.kid.floor_error)
    assert scores.precision is not None and scores.recall is not None and scores.density is not None and scores.coverage is not None
    for result in (scores.precision, scores.recall, scores.density, scores.coverage):
        assert result.count == 300 and result.value > result.floor - 3 * (result.error + result.floor_error)
    assert scores.brightness.value < scores.brightness.floor + 2 * (scores.brightness.error + scores.brightness.floor_error)
    assert scores.brightness.real_mean == pytest.approx((digits.mean + 1) / 2)


def test_each_flaw_shows_in_its_own_measure(digits: MemoryPictures, digits_judge: Judge) -> None:
    pictures, labels = some(digits)
    good = score(pictures, labels, digits, digits_judge)
    worse = [score(noisy(pictures, amount), labels, digits, digits_judge) for amount in (0.1, 0.3, 0.6)]
    assert good.frechet.value < worse[0].frechet.value < worse[1].frechet.value < worse[2].frechet.value
    assert good.kid.value < worse[0].kid.value < worse[1].kid.value < worse[2].kid.value
    assert good.precision is not None and worse[2].precision is not None and worse[2].precision.value < 0.7 * good.precision.value

    mislabelled = score(pictures, (labels + 1) % 10, digits, digits_judge).accuracy
    assert mislabelled is not None and mislabelled.value < 0.05

    first = torch.stack([(labels == label).nonzero()[0, 0] for label in range(10)])
    same = score(pictures[first].repeat(20, 1, 1, 1), labels[first].repeat(20), digits, digits_judge)
    assert same.variety is not None and same.variety.value < 0.01
    assert same.accuracy is not None and same.accuracy.value >= 0.9
    assert same.frechet.value > 3 * same.frechet.floor
    assert same.recall is not None and same.precision is not None and same.recall.value < 0.1 and same.precision.value > 0.5

    half = score(pictures // 2, labels, digits, digits_judge).brightness
    assert half.mean == pytest.approx(good.brightness.mean / 2, rel=0.05) and half.value == pytest.approx(half.mean, rel=0.1)


def test_one_class_is_compared_with_its_own_real_pictures(digits: MemoryPictures, digits_judge: Judge) -> None:
    assert digits.labels is not None
    threes = digits.pixels[digits.labels == 3][:80]
    asked = score(threes, [3] * 80, digits, digits_judge)
    unasked = score(threes, None, digits, digits_judge)
    assert asked.basis.reference.classes == ("3",) and asked.basis.reference.count == int((digits.labels == 3).sum())
    assert asked.frechet.value < 2 * asked.frechet.floor
    assert unasked.accuracy is None and unasked.basis.reference.classes == ()
    assert unasked.frechet.value > 3 * asked.frechet.value


def test_scores_are_a_function_of_the_seed(digits: MemoryPictures, digits_judge: Judge) -> None:
    drawn = some(digits, 100)
    first, other = (score(*drawn, digits, digits_judge, seed=seed) for seed in (0, 1))
    assert score(*drawn, digits, digits_judge, seed=0) == first
    assert other.frechet.floor != first.frechet.floor and other.accuracy is not None and first.accuracy is not None
    assert other.accuracy.value == first.accuracy.value


def test_data_without_labels_is_enough_for_a_judge_that_knows_them(digits: MemoryPictures, digits_judge: Judge) -> None:
    scores = score(*some(digits, 100), replace(digits, labels=None, label_names=()), digits_judge)
    assert scores.accuracy is not None and scores.variety is not None
    assert scores.variety.value == pytest.approx(1, abs=0.15)


def test_at_most_so_many_real_pictures_are_looked_at(digits: MemoryPictures, digits_judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffsteer.evaluation.reference.MOST", 150)
    scores = score(*some(digits, 100), digits, digits_judge)
    assert (scores.basis.reference.count, scores.frechet.count) == (200, 100)
    assert score(*some(digits, 50), digits, digits_judge).basis.reference.count == 150


def test_scoring_again_costs_the_drawn_pictures_only(digits: MemoryPictures, digits_judge: Judge) -> None:
    pictures, labels = some(digits, 60)
    extractor, seen = judge_extractor(digits_judge), list[int]()

    def watched(some: Tensor) -> Tensor:
        seen.append(len(some))
        return judge_features(digits_judge, some)

    watching = replace(extractor, features=watched)
    real = read_real(digits, watching, digits_judge, labels)
    seen.clear()
    scores = [score(drawn, labels, digits, digits_judge, extractor=watching, real=real) for drawn in (pictures, noisy(pictures, 0.3))]
    assert seen == [60, 60] and scores[0] == score(pictures, labels, digits, digits_judge) != scores[1]


def test_another_network_gives_the_features_and_the_judge_the_labels(digits: MemoryPictures, digits_judge: Judge) -> None:
    pictures, labels = some(digits, 60)
    told = Extractor("inception", "a" * 64)
    pixels = FeatureExtractor(told, "cpu", lambda pictures: torch.nn.functional.avg_pool2d(pictures.double(), 2).flatten(1))
    scores = score(pictures, labels, digits, digits_judge, extractor=pixels)
    assert scores.basis.extractor == scores.frechet.basis.extractor == told and scores.brightness.basis.extractor is None
    assert scores.accuracy is not None and scores.accuracy.basis.extractor == told_of(digits_judge)
    assert scores.basis_lines()[:2] == [
        "Features: inception, weights aaaaaaaa.",
        f"Judge: plain, seed 0, right on {digits_judge.spec.accuracy:.1%} of 180 held-out pictures of digits.",
    ]
    alone = score(pictures, None, replace(digits, labels=None, label_names=()), None, extractor=pixels)
    assert alone.accuracy is None and alone.variety is None and len(alone.basis_lines()) == 2
    assert alone.frechet.value > 0 and "Features: inception" in alone.lines()[-2]
    with pytest.raises(ValueError, match="no judge to read them"):
        score(pictures, labels, digits, None, extractor=pixels)


def test_what_cannot_be_scored_is_said(digits: MemoryPictures, digits_judge: Judge) -> None:
    pictures, labels = some(digits, 10)
    others = replace(digits, label_names=tuple("abcdefghij"))
    with pytest.raises(Mistake, match=r"knows the classes 0, 1, 2, 3, 4 and 5 more, and digits has a, b, c, d, e and 5 more"):
        score(pictures, labels, others, digits_judge)
    with pytest.raises(Mistake, match="at least 2 drawn pictures; there is 1"):
        score(pictures[:1], labels[:1], digits, digits_judge)
    with pytest.raises(Mistake, match="has 3 pictures; a comparison"):
        score(pictures, None, replace(digits, pixels=digits.pixels[:3], labels=digits.labels[:3]), digits_judge)  # type: ignore[index]
    with pytest.raises(ValueError, match="10 pictures and labels of shape"):
        score(pictures, labels[:9], digits, digits_judge)
    with pytest.raises(ValueError, match="from 0 to 9"):
        score(pictures, labels + 1 + 9, digits, digits_judge)


# ---- what is told ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scores(digits: MemoryPictures, digits_judge: Judge) -> Scores:
    pictures, labels = some(digits, 200)
    labels = labels.clone()
    labels[labels == 4] = 5  # a class that is drawn wrongly
    return score(pictures, labels, digits, digits_judge)


def test_the_lines_tell_every_number_with_its_error_and_floor(scores: Scores) -> None:
    said = "\n".join(scores.lines())
    assert f"Frechet distance {scores.frechet.value:.3g} ± {scores.frechet.error:.2g} ({scores.frechet.floor:.3g} ± " in said
    assert f"KID {scores.kid.value:.2g} ± {scores.kid.error:.2g} ({scores.kid.floor:.2g} ± " in said
    for name in ("precision", "recall", "density", "coverage"):
        result = getattr(scores, name)
        assert f"{name} {result.value:.2f} ± {result.error:.2f} ({result.floor:.2f} ± {result.floor_error:.2f})" in said.lower()
    assert f"mean {scores.brightness.mean:.3f}, spread {scores.brightness.spread:.3f}; of a real one" in said
    assert "At 200 pictures a side" in said
    assert "Worst: 5 (" in said
    assert "plain, seed 0" in said and "180 held-out pictures of digits" in said
    assert "pictures of digits, split train, of 0, 1, 2, 3, 5 and 4 more only, which the judge learnt from" in said


def test_the_files_hold_the_scores(scores: Scores, tmp_path: Path) -> None:
    write_report(tmp_path / "out", scores.to_dict(), scores.lines(), scores)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scores.json", "scores.md"]
    values = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert values["accuracy"]["value"] == scores.accuracy.value  # type: ignore[union-attr]
    assert values["frechet"]["basis"] == values["basis"]
    page = (tmp_path / "out" / "scores.md").read_text()
    for line in scores.lines():
        assert f"- {line}\n" in page
    row = next(line for line in page.split("across)")[1].splitlines() if line.startswith("| 5 |"))
    counts = [int(cell) for cell in row.strip("|").split("|")[1:]]
    assert counts == list(scores.accuracy.confusion[5])  # type: ignore[union-attr]
    assert counts[4] > 5
    assert "said of several ways" not in page


def test_of_several_ways_the_page_is_their_table(tmp_path: Path) -> None:
    write_report(tmp_path, {"rows": [1, 2]}, ["| a | table |"])
    assert json.loads((tmp_path / "scores.json").read_text()) == {"rows": [1, 2]}
    assert (tmp_path / "scores.md").read_text() == "# Scores\n\n| a | table |\n"


def test_a_table_of_several_drawings(scores: Scores) -> None:
    rows = [scores.row("unsteered", seconds=1.5), scores.row("a|b", seconds=12.3456, memory=2048)]
    head, rule, first, second = table(rows).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == [
        "",
        "accuracy",
        "Frechet",
        "floor",
        "KID",
        "precision",
        "recall",
        "variety",
        "pictures",
        "seconds",
        "memory",
    ]
    assert rule.count("---") == 11
    assert first.endswith("| 200 | 1.5 | – |")
    assert max(map(len, (head, first))) <= 120
    assert second.startswith("| a\\|b | ") and second.endswith("| 200 | 12.3 | 2,048 |")
