"""A captured step: the same numbers as steps that are run, whatever changes from step to step; and a recording that errs is not used.

On the CPU a recorder of our own stands for a GPU's graph: torch.fx's tracing keeps each operation with all that Python knew of it.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from diffsteer.data.images import load_pictures
from diffsteer.recipebook import train_settings
from diffsteer.training.build import build_model
from diffsteer.training.captured import Captured, Replay, cuda_graph, recorder_for
from diffsteer.training.loop import Training
from diffsteer.training.plan import Plan

STEPS = 10


class Tracer:
    """A recorder. replays: how often its recordings were used."""

    def __init__(self) -> None:
        self.recordings = self.replays = 0

    def __call__(self, function: Callable[[], Tensor]) -> Replay:
        self.recordings += 1
        recorded = make_fx(lambda: function())()
        result = torch.empty(())  # every replay's, as a graph's is

        def replay() -> Tensor:
            self.replays += 1
            with torch.no_grad():
                found = recorded()
                return result.resize_(found.shape).copy_(found)

        return replay


def training(recorder: Any = None, cpu: bool = True, **given: Any) -> Training:
    """A small network, whose rate rises and falls."""
    values = {"data": "digits", "channels": (32,), "layers": 1, "batch_size": 32, "flip": True, "label_dropout": 0.3, **given}
    settings = train_settings(None, values)
    data = load_pictures("digits")
    network, spec = build_model(settings, data)
    plan = Plan(data.count, settings.batch_size, settings.accumulate, settings.last_batch, 30, settings.lr, 6, "linear")
    AcceleratorState._reset_state(reset_partial_state=False)
    half = "bf16" if settings.precision == "bf16" else "no"
    return Training(network, spec, settings, data, plan, Accelerator(cpu=cpu, mixed_precision=half), recorder=recorder)


def trained(of: Training, steps: int = STEPS) -> tuple[Tensor, Tensor, Tensor]:
    """Records, weights, and their average."""
    records = torch.stack([stepped.record for stepped in islice(of.run(), steps)])
    assert of.ema is not None
    weights, average = (torch.cat([each.detach().flatten() for each in one.parameters()]) for one in (of.network, of.ema))
    return records, weights, average


@pytest.fixture
def capturable_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own Adam with its counts and its rate on the device, which it otherwise refuses on a CPU."""
    adam = sys.modules["torch.optim.adam"]  # torch.optim itself has no such name
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda supports_xla=True: ["cpu"])


@pytest.mark.usefixtures("capturable_adam")
@pytest.mark.parametrize("given", [{"optimizer": "muon", "precision": "bf16"}, {"optimizer": "adamw"}, {"optimizer": "adam"}])
@pytest.mark.filterwarnings("error")
def test_captured_steps_are_the_steps_that_are_run(given: dict[str, Any]) -> None:
    tracer = Tracer()
    captured = trained(training(tracer, **given))
    for ours, plain in zip(captured, trained(training(**given)), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=5e-5)  # torch's Adam rounds otherwise where it can be captured
    assert (tracer.recordings, tracer.replays) == (1, STEPS - 2)


@pytest.mark.filterwarnings("error")
def test_a_batch_of_another_shape_is_run() -> None:
    """The last batch of an epoch has 5 pictures here."""
    tracer = Tracer()
    made = [training(recorder, last_batch="short", batch_size=32) for recorder in (tracer, None)]
    for each in made:
        each.plan = Plan(101, 32, 1, "short", 30, 1e-3, 6, "linear")
    ours, plain = (trained(each, 12) for each in made)
    torch.testing.assert_close(ours, plain)
    assert tracer.replays == 12 - 3 - 2, "three short batches, and the first two of the others"


@pytest.mark.filterwarnings("error")
def test_what_is_loaded_between_runs_is_recorded_anew() -> None:
    straight, tracer = trained(training()), Tracer()
    made = training(tracer)
    before, state = {kind: {name: value.clone() for name, value in group.items()} for kind, group in made.tensors().items()}, made.state()
    trained(made, 5)
    made.load(before, state)
    torch.testing.assert_close(trained(made), straight)
    assert tracer.recordings == 2


@pytest.mark.parametrize("given", [{"dropout": 0.1}, {"accumulate": 2, "batch_size": 16}])
def test_what_cannot_be_captured_is_run(given: dict[str, Any]) -> None:
    tracer = Tracer()
    torch.testing.assert_close(trained(training(tracer, **given), 5), trained(training(**given), 5))
    assert not tracer.recordings


def test_nothing_records_on_a_cpu() -> None:
    assert recorder_for(torch.device("cpu")) is None


# ---- a recording that errs -------------------------------------------------------------------------------------------


def baked(function: Callable[[], Tensor]) -> Replay:
    """Leaves all as it was, and says what it said first."""
    result = function()
    return lambda: result


def half_way(function: Callable[[], Tensor]) -> Replay:
    function()
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def unworthy(function: Callable[[], Tensor]) -> None:
    return None


@pytest.mark.parametrize(
    ("recorder", "warning"),
    [
        (baked, "did not end where the step itself does"),
        (half_way, r"cannot be recorded here \(operation not permitted .* capturing\)"),
        (unworthy, None),
    ],
)
def test_a_recording_that_errs_leaves_no_trace(recorder: Any, warning: str | None) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ours = trained(training(recorder))
    torch.testing.assert_close(ours, trained(training()))
    assert len(told) == (warning is not None)
    assert warning is None or re.search(warning, str(told[0].message))


@pytest.mark.parametrize("stale", ["rate", "count", "input", None])
def test_what_changes_from_call_to_call_and_was_recorded_is_found(stale: str | None) -> None:
    """One weight, moved by the rate times what is given over the count: 1, 1/2, 1/3."""
    weight, count, rate = torch.zeros(3), torch.zeros(()), torch.ones(())
    calls = [torch.full((3,), float(value)) for value in (1, 2, 5, 3, 4)]

    def step(given: Tensor) -> Tensor:
        count.add_(1)
        weight.add_(given * rate / count)
        return weight.sum()

    def recorder(function: Callable[[], Tensor]) -> Replay:
        was_rate, was_count, was_given = rate.item(), count.item() + 1, calls[1].clone()
        function()

        def replay() -> Tensor:
            count.add_(1)
            by = was_rate if stale == "rate" else rate
            over = was_count if stale == "count" else count
            given = was_given if stale == "input" else captured._held[0]
            weight.add_(given * by / over)
            return weight.sum()

        return replay

    captured = Captured(step, lambda: {"weight": [weight], "count": [count]}, recorder)
    expected, results = 0.0, []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for index, given in enumerate(calls):
            rate.fill_(1 / (index + 1))
            results.append((captured(given).item(), expected := expected + 3 * given[0].item() / (index + 1) ** 2))
    assert bool(told) is (stale is not None)
    torch.testing.assert_close(*map(list, zip(*results, strict=True)))


# ---- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("given", [{"optimizer": "muon"}, {"optimizer": "adamw"}, {"precision": "bf16"}])
def test_a_gpu_replays_the_steps_that_it_would_run(given: dict[str, Any]) -> None:
    replays = []

    def counted(function: Callable[[], Tensor]) -> Replay:
        replay = cuda_graph(function)
        assert replay is not None, "its memory is full"
        return lambda: replays.append(None) or replay()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captured = trained(training(counted, cpu=False, **given))
    assert len(replays) == STEPS - 2
    for ours, plain in zip(captured, trained(training(unworthy, cpu=False, **given)), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-2, atol=1e-3)
