"""Labels and seeds as users write them, labels left out in training, and one generator for each purpose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffsteer.diffusion.conditioning import drop_labels, listing, parse_labels, parse_seeds
from diffsteer.diffusion.seeds import PictureNoise, generator_for
from diffsteer.errors import Mistake

DIGITS = tuple(str(digit) for digit in range(10))
WORDS = st.text("abcdefghij-_ 0123456789é图", min_size=1, max_size=8).map(str.strip).filter(bool)
NAMES = st.lists(WORDS, min_size=1, max_size=12, unique=True)


# ---- labels ----------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(names=NAMES, data=st.data())
def test_every_class_is_found_by_its_name_whatever_it_looks_like(names: list[str], data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.sampled_from(names), min_size=1))
    assert parse_labels(asked, names) == [names.index(name) for name in asked]


@settings(max_examples=100, deadline=None)
@given(count=st.integers(1, 40), data=st.data())
def test_numbers_and_ranges(count: int, data: st.DataObject) -> None:
    names = [f"class {chr(97 + index)}" for index in range(count)] if count <= 26 else [f"class-{index}x" for index in range(count)]
    low = data.draw(st.integers(0, count - 1))
    high = data.draw(st.integers(low, count - 1))
    assert parse_labels([f"{low}-{high}", low, str(high)], names) == [*range(low, high + 1), low, high]
    assert parse_labels(["all", f" {low} "], names) == [*range(count), low]


def test_a_name_goes_before_a_number_a_range_and_all() -> None:
    names = ("zero", "0-2", "all", "1")
    assert parse_labels(["0-2", "all", "1", "0"], names) == [1, 2, 3, 0]


@pytest.mark.parametrize(
    ("piece", "says"),
    [
        ("cta", "did you mean 'cat'?"),
        ("qqq", "its labels are cat, dog, ankle-boot."),
        ("3", "no label 3; its labels are 0 to 2: cat, dog, ankle-boot."),
        ("1-3", "no label 3"),
        ("0-999999999999", "no label 999999999999"),
        ("2-1", "no label '2-1'"),
        ("-1", "no label '-1'"),
        ("1.0", "no label '1.0'"),
        ("", "no label ''"),
    ],
)
def test_labels_that_are_not_there(piece: str, says: str) -> None:
    with pytest.raises(Mistake) as caught:
        parse_labels([piece], ("cat", "dog", "ankle-boot"))
    assert says in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(names=NAMES, piece=st.text(max_size=12))
def test_whatever_is_written_is_labels_of_the_model_or_a_mistake(names: list[str], piece: str) -> None:
    try:
        found = parse_labels([piece], names)
    except Mistake as mistake:
        assert "This model has no label" in str(mistake)
    else:
        assert found and all(0 <= label < len(names) for label in found)


def test_a_listing_is_cut() -> None:
    assert listing(DIGITS) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert listing(DIGITS, most=3) == "0, 1, 2, ... (10 in all)"


# ---- seeds -----------------------------------------------------------------------------------------------------------

SPANS = st.tuples(st.integers(0, 2**40), st.integers(0, 30))


@settings(max_examples=100, deadline=None)
@given(spans=st.lists(SPANS, min_size=1, max_size=5), gap=st.sampled_from(["", " "]))
def test_seeds_are_given_in_the_order_they_are_written(spans: list[tuple[int, int]], gap: str) -> None:
    pieces = [f"{first}-{first + more}" if more else str(first) for first, more in spans]
    expected = [seed for first, more in spans for seed in range(first, first + more + 1)]
    assert parse_seeds(f"{gap},{gap}".join(pieces)) == expected


def test_the_42nd_seed_of_0_to_63_is_41() -> None:
    assert len(parse_seeds("0-63")) == 64 and parse_seeds("0-63")[41] == 41


@pytest.mark.parametrize("wrong", ["", " ", ",", "1,", "a", "-1", "1-", "3-1", "1-2-3", "1.5", "1e3", str(2**63), f"0-{2**63}"])
def test_what_is_no_seed(wrong: str) -> None:
    with pytest.raises(Mistake, match=r"is no seed; write numbers and ranges, for example --seeds 0-7 or --seeds 1,2,5-10\."):
        parse_seeds(wrong)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text("0123456789-, a", max_size=9).filter(lambda text: not any(len(piece) > 4 for piece in text.replace(",", "-").split("-")))
)
def test_whatever_is_written_is_seeds_or_a_mistake(text: str) -> None:
    try:
        assert all(isinstance(seed, int) and seed >= 0 for seed in parse_seeds(text))
    except Mistake as mistake:
        assert "is no seed" in str(mistake)


def test_the_largest_seed_draws() -> None:
    (seed,) = parse_seeds(str(2**63 - 1))
    assert PictureNoise.from_seeds([seed], (1, 2, 2))().isfinite().all()


# ---- labels left out -------------------------------------------------------------------------------------------------


def test_labels_are_left_out_where_the_draw_is_below_the_probability() -> None:
    labels, draw = torch.tensor([3, 1, 4, 1]), torch.tensor([0.0, 0.0999, 0.1, 0.9])
    assert drop_labels(labels, 0.1, 10, draw).tolist() == [10, 10, 4, 1]
    assert torch.equal(drop_labels(labels, 0.0, 10, draw), labels)


def test_a_tenth_of_many_labels_is_left_out() -> None:
    draw = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    left_out = (drop_labels(torch.zeros(100_000, dtype=torch.long), 0.1, 10, draw) == 10).float().mean()
    assert float(left_out) == pytest.approx(0.1, abs=5 * (0.09 / 100_000) ** 0.5)


# ---- generators ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 10**9))
def test_generators_are_functions_of_their_parts(seed: int, step: int) -> None:
    def first(*parts: int | str) -> float:
        return float(torch.rand((), generator=generator_for(*parts), dtype=torch.float64))

    values = {first(seed, "noise", step), first(seed, "draws", step), first(seed, "noise", step + 1), first(seed + 1, "noise", step)}
    assert len(values) == 4 and first(seed, "noise", step) in values


def test_parts_do_not_run_together() -> None:
    seeds = [generator_for(*parts).initial_seed() for parts in ((1, 23), (12, 3), (123,), ("1", 23), ("123",), ("1, 23",))]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_picture_noise_is_of_its_kind(kind: str) -> None:
    noise = PictureNoise.from_seeds(range(400), (1, 16, 16), kind)()
    variance = 1.0 if kind == "gaussian" else 1 / 3
    assert noise.shape == (400, 1, 16, 16) and noise.dtype == torch.float32
    assert float(noise.mean()) == pytest.approx(0, abs=0.01) and float(noise.var()) == pytest.approx(variance, rel=0.02)
    assert kind == "gaussian" or (noise.min() >= -1 and noise.max() <= 1)


def test_picture_noise_is_that_of_torch_by_seed() -> None:
    """Anybody with torch can draw the same noise: `torch.randn(shape, generator=torch.Generator().manual_seed(seed))`."""
    noise = PictureNoise.from_seeds([5, 6], (3, 4, 4))
    for index, seed in enumerate((5, 6)):
        generator = torch.Generator().manual_seed(seed)
        both = [torch.randn((3, 4, 4), generator=generator) for _ in range(2)]
        drawn = PictureNoise.from_seeds([seed], (3, 4, 4))
        assert torch.equal(drawn()[0], both[0]) and torch.equal(drawn()[0], both[1])
        assert index or torch.equal(noise()[0], both[0])
