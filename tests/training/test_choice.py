"""What a plan chooses, on machines that are only pretended: no clock is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st

from diffsteer.diffusion.networks import usual_channels
from diffsteer.errors import Mistake
from diffsteer.training.choice import LEAST, Choice, Situation, Trial, Way, choose, forecast

USUAL = Situation(
    budget=1200.0,
    imports=5.0,
    loading=1.0,
    pictures=60_000,
    size=(32, 32),
    finest=32,
    sized=False,
    precisions=("fp32", "bf16"),
    memory=2**34,
    mirrored=1.3,
    compiles=False,
)


@dataclass
class Machine:
    """Seconds a picture of the usual network at 32x32 in fp32; half: how many times as fast bf16 is; bytes a picture of that kind.

    A network's cost grows with pixels, layers and the square of its width.
    """

    picture: float
    half: float = 0.5
    bytes: float = 1e6
    asked: list[Way] = field(default_factory=list)

    def __call__(self, way: Way) -> Trial:
        self.asked.append(way)
        wide = way.channels[-1] / usual_channels(*way.size)[-1]
        work = way.layers * wide**2 * way.size[0] * way.size[1] / 32**2 * way.batch
        step = work * self.picture / (self.half if way.precision != "fp32" else 1)
        return Trial(way, step, step * 3, int(5e8 + work * self.bytes), 1_000_000, way.batch)


def chosen(machine: Callable[[Way], Trial], **changes: Any) -> Choice:
    return choose(replace(USUAL, **changes), machine)


def width(choice: Choice) -> tuple[int, int]:
    return sum(choice.trial.way.channels), choice.trial.way.layers


def said(choice: Choice, about: str) -> str:
    return next(reason for reason in choice.reasons if reason.startswith(about))


# ---- the forecast ----------------------------------------------------------------------------------------------------


@given(st.floats(0.002, 2), st.floats(200, 20_000), st.booleans())
def test_a_forecast_fills_the_budget(step: float, budget: float, compiles: bool) -> None:
    trial = Trial(Way((32, 32), (64, 128), 1, "fp32", 64), step, step * 3, 0, 1_000_000, 64)
    ahead = forecast(replace(USUAL, budget=budget, compiles=compiles), trial)
    assert budget - step - 1e-6 <= sum(ahead.seconds.values()) <= budget + 1e-6
    assert ahead.seconds["training"] == pytest.approx(ahead.steps * step)
    assert (ahead.pictures, ahead.epochs) == (64 * ahead.steps, 64 * ahead.steps / 60_000)


# ---- the network -----------------------------------------------------------------------------------------------------


def test_a_slow_machine_gets_a_small_network_and_more_steps() -> None:
    machine = Machine(picture=0.05)
    choice = chosen(machine, budget=300.0)
    assert choice.trial.way == Way((32, 32), (32, 64), 1, "fp32", 32)
    assert "pays from 1,000 steps" in said(choice, "network") and "more steps teach more" in said(choice, "batch")
    assert {way.channels for way in machine.asked} == {(32, 64)}, "what is hopeless is not measured"


def test_a_fast_machine_gets_the_largest_network_and_batch() -> None:
    choice = chosen(Machine(picture=1e-6, half=2.0, bytes=1e5), budget=7200.0)
    assert choice.trial.way == Way((32, 32), (256, 512), 2, "bf16", 512)


@rules(max_examples=40, deadline=None)
@given(st.floats(1e-6, 0.02), st.floats(120, 20_000), st.floats(1, 20))
def test_more_time_never_means_a_smaller_network(picture: float, budget: float, times: float) -> None:
    less, more = (chosen(Machine(picture), budget=each, sized=True) for each in (budget, budget * times))
    assert width(less) <= width(more)


def test_a_larger_network_only_where_it_gets_its_steps() -> None:
    for picture, channels, layers in (
        (0.018, (32, 64), 1),
        (0.012, (64, 128), 1),
        (0.0012, (64, 128), 2),
        (1e-4, (128, 256), 2),
    ):
        way = chosen(Machine(picture)).trial.way
        assert (way.channels, way.layers) == (channels, layers), picture


def test_few_pictures_get_no_large_network() -> None:
    choice = chosen(Machine(picture=1e-6), pictures=900)
    assert width(choice) == (192, 1) and "by heart" in said(choice, "network")


def test_a_network_that_does_not_fit_is_not_chosen() -> None:
    free = chosen(Machine(picture=1e-5, bytes=1e7))
    tight = chosen(Machine(picture=1e-5, bytes=1e7), memory=2 * 10**9)
    assert width(tight) < width(free) and "memory" in said(tight, "network")


# ---- arithmetic, batch, size -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("half", "precision"), [(0.4, "fp32"), (0.95, "fp32"), (1.1, "fp32"), (1.3, "bf16"), (3.0, "bf16")])
def test_half_precision_must_be_worth_it(half: float, precision: str) -> None:
    choice = chosen(Machine(picture=0.003, half=half))
    assert choice.trial.way.precision == precision
    assert said(choice, precision) == f"{precision}: bf16 has {half:.2f} times fp32's speed here"


def test_hopeless_arithmetic_is_tried_once() -> None:
    machine = Machine(picture=1e-4, half=0.5)
    chosen(machine)
    assert [way.precision for way in machine.asked].count("bf16") == 1
    machine = Machine(picture=1e-4, half=0.9)
    chosen(machine)
    assert [way.precision for way in machine.asked].count("bf16") > 1


def test_the_users_precision_is_the_only_one_tried() -> None:
    machine = Machine(picture=1e-3, half=0.3)
    assert chosen(machine, precisions=("bf16",)).trial.way.precision == "bf16"
    assert {way.precision for way in machine.asked} == {"bf16"}


def test_a_batch_grows_with_the_steps_there_are() -> None:
    batches = [
        chosen(Machine(picture), sized=True, pictures=1_900).trial.way.batch for picture in (0.15, 0.03, 0.003, 0.0005, 0.0001, 1e-6)
    ]
    assert batches == sorted(batches) and batches[0] == 32 and batches[-1] == 512


def test_a_batch_is_no_larger_than_the_data_or_the_memory() -> None:
    few = chosen(Machine(picture=1e-5), pictures=24)
    assert few.trial.way.batch == 16 and "only 24 pictures" in said(few, "batch")
    tight = chosen(Machine(picture=1e-6, bytes=1e7), pictures=1_500, memory=2 * 10**9)
    assert tight.trial.memory <= 2e9 and "memory" in said(tight, "batch")
    with pytest.raises(Mistake, match="not enough free memory"):
        chosen(Machine(picture=1e-6), memory=10**8)


def test_pictures_shrink_when_time_is_short_and_only_when_we_choose() -> None:
    given = {"budget": 300.0, "size": (64, 64), "finest": 64}
    choice = chosen(Machine(picture=0.02), **given)
    assert choice.trial.way.size == (32, 32) and "at 64x64 the smallest network would get" in said(choice, "size")
    assert chosen(Machine(picture=0.02), sized=True, **given).trial.way.size == (64, 64)
    assert chosen(Machine(picture=0.0001), **given).trial.way.size == (64, 64)
    assert chosen(Machine(picture=0.02), budget=300.0, size=(48, 64), finest=48).trial.way.size == (24, 32)


def test_pictures_grow_when_there_is_time_and_they_are_large() -> None:
    given = {"budget": 8 * 3600.0, "size": (64, 64)}
    assert chosen(Machine(picture=1e-6), finest=300, **given).trial.way.size == (256, 256)
    assert chosen(Machine(picture=1e-6), finest=200, **given).trial.way.size == (128, 128)
    assert chosen(Machine(picture=1e-6), finest=64, **given).trial.way.size == (64, 64)
    assert chosen(Machine(picture=1e-2), finest=300, **given).trial.way.size == (64, 64)


# ---- mirroring, compiling, too little --------------------------------------------------------------------------------


def test_mirroring_needs_pictures_that_look_the_same_and_are_seen_often() -> None:
    often = {"pictures": 900, "budget": 1200.0}
    assert chosen(Machine(picture=1e-3), mirrored=1.01, **often).flip
    choice = chosen(Machine(picture=1e-3), mirrored=1.3, **often)
    assert not choice.flip and "1.30 times as far" in said(choice, "not mirrored")
    assert not chosen(Machine(picture=1e-3), mirrored=1.01, pictures=60_000).flip


@pytest.mark.parametrize(
    ("compiles", "budget", "word"), [(False, 60, "auto"), (False, 9000, "auto"), (True, 120, "off"), (True, 3600, "auto")]
)
def test_compiling_must_pay(compiles: bool, budget: float, word: str) -> None:
    assert chosen(Machine(picture=1e-4), compiles=compiles, budget=budget).compile == word


@pytest.mark.parametrize("picture", [1e-4, 0.01, 0.3])
def test_too_small_a_budget_names_one_that_is_enough(picture: float) -> None:
    with pytest.raises(Mistake, match="Give --budget") as mistake:
        chosen(Machine(picture), budget=5.0)
    from diffsteer.config import parse_duration

    least = parse_duration(str(mistake.value).split("--budget ")[1].split()[0])
    assert least is not None
    choice = chosen(Machine(picture), budget=least)
    assert forecast(replace(USUAL, budget=least), choice.trial).steps >= LEAST
    with pytest.raises(Mistake):
        chosen(Machine(picture), budget=least - (5 if least < 120 else 60))
