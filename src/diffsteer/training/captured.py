"""One captured step: recorded once and then replayed, so that a GPU is told of one thing in place of a thousand.

A small network's kernels can be done before Python has asked for the next. A recording holds what Python knew when it was made, such as
a rate; so it is tried on another step than the one that it was made of, and is used only where it does there what the step itself does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

Inputs = tuple[Tensor | None, ...]
State = dict[str, list[Tensor]]
Replay = Callable[[], Tensor]
Recorder = Callable[[Callable[[], Tensor]], Replay | None]  # None: not worth it

# How far from the step itself a replayed one may end, as a share of the way gone: kernels that add in any order differ a little, which Adam
# makes large where a gradient is nothing but rounding; a rate, a count or a batch that is another step's is further off.
ALIKE = 0.2

WARM_UP = 3  # calls: one that chooses kernels, one before which the recording is made, one on which it is tried


class Captured:
    """A function of tensors that changes other tensors in place; after WARM_UP calls its recording is replayed.

    function: returns a tensor; draws nothing at random.
    state: all the tensors that it changes, by kind; from its second call on the same ones.
    Inputs shaped unlike the first ones go to the function itself; so do all where it cannot be recorded, or where the recording does
    something else, which a warning tells.
    """

    def __init__(self, function: Callable[..., Tensor], state: Callable[[], State], recorder: Recorder) -> None:
        self._function, self._state, self._recorder = function, state, recorder
        self._held: Inputs = ()  # where a replay reads its inputs
        self._replay: Replay | None = None
        self._calls = 0  # with inputs shaped like the first ones

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        self._held = self._held or tuple(None if given is None else given.clone() for given in inputs)
        if not all(map(_shaped_alike, inputs, self._held)):
            return self._itself(inputs)
        self._calls += 1
        if self._calls == WARM_UP - 1:
            self._record()
        if self._replay is None or self._calls < WARM_UP:
            return self._itself(inputs)
        if self._calls == WARM_UP:
            return self._tried(inputs, self._replay)
        return self._replayed(inputs, self._replay)

    def _itself(self, inputs: Inputs) -> Tensor:
        with _aside(inputs):
            return self._function(*inputs)

    def _replayed(self, inputs: Inputs, replay: Replay) -> Tensor:
        for held, given in zip(self._held, inputs, strict=True):
            if held is not None and given is not None:
                held.copy_(given)
        return replay().clone()

    def _record(self) -> None:
        before = _kept(self._state())
        try:
            self._replay = self._recorder(lambda: self._function(*self._held))
        except RuntimeError as error:  # torch's, of whatever cannot be recorded
            warnings.warn(f"A training step cannot be recorded here ({str(error).strip().splitlines()[0]}); all are run.", stacklevel=2)
        _put_back(self._state(), before)  # some recorders run what they record

    def _tried(self, inputs: Inputs, replay: Replay) -> Tensor:
        """What the function itself does, beside which the recording is tried."""
        before = _kept(self._state())
        result = self._itself(inputs)
        after, told = _kept(self._state()), _kept({"result": [result]})
        _put_back(self._state(), before)
        again = _kept({"result": [self._replayed(inputs, replay)]})
        nothing = {"result": [torch.zeros_like(told["result"][0])]}
        if not _agree(again, told, nothing) or not _agree(_kept(self._state()), after, before):
            warnings.warn("A recorded training step did not end where the step itself does; all are run.", stacklevel=2)
            self._replay = None
        _put_back(self._state(), after)
        return result


def recorder_for(device: torch.device) -> Recorder | None:
    """What records on this device, if anything does."""
    return cuda_graph if device.type == "cuda" else None


def cuda_graph(function: Callable[[], Tensor]) -> Replay | None:
    """A recorder: what the function asks of the GPU, as a graph; nothing runs until it is replayed.

    A graph keeps all the memory that a step needs. Where that is much of what is free, the step is so large that Python keeps pace with it:
    None. RuntimeError where the function waits for the GPU.
    """
    free, _ = torch.cuda.mem_get_info()
    if torch.cuda.max_memory_reserved() > free / 2:
        return None
    graph, usual = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:  # another thread may be reading pictures meanwhile
        with torch.cuda.graph(graph, stream=_stream_aside(usual.device_index), capture_error_mode="thread_local"):
            result = function()
    finally:
        torch.cuda.set_stream(usual)  # which a capture that fails leaves as its own

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


@contextmanager
def _aside(inputs: Inputs) -> Iterator[None]:
    """Where this is a GPU, on the stream that records: a backward pass that once ran on another may wait for that one."""
    if not any(given is not None and given.is_cuda for given in inputs):
        yield
        return
    usual = torch.cuda.current_stream()
    aside = _stream_aside(usual.device_index)
    aside.wait_stream(usual)
    with torch.cuda.stream(aside):
        yield
    usual.wait_stream(aside)


@lru_cache
def _stream_aside(device: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _shaped_alike(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and one.dtype == other.dtype


def _kept(state: State) -> State:
    """Copies, in the computer's own memory."""
    return {kind: [tensor.detach().to("cpu", copy=True) for tensor in tensors] for kind, tensors in state.items()}


@torch.no_grad()
def _put_back(state: State, kept: State) -> None:
    for kind, tensors in state.items():
        for tensor, value in zip(tensors, kept[kind], strict=True):
            tensor.copy_(value)


def _agree(found: State, right: State, before: State) -> bool:
    """Whether each kind of tensors is where it should be, but for a share of the way that it should have gone from `before`."""
    for kind, tensors in right.items():
        error, way = torch._foreach_sub(found[kind], tensors), torch._foreach_sub(tensors, before[kind])
        if not _length(error) <= ALIKE * _length(way):
            return False
    return True


def _length(tensors: list[Tensor] | tuple[Tensor, ...]) -> float:
    """Of all of them as one vector."""
    return sum(tensor.double().square().sum().item() for tensor in tensors) ** 0.5
