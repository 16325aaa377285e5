"""The training loop: a generator on accelerate that yields after each optimizer step.

It knows nothing of folders, previews or trackers: whoever drives it hangs those on what it yields. Order, noise, times, flips and label
dropout are functions of (seed, step, place in the step's batch), so a run that is stopped and loaded again gives the same numbers, and
so do any split into micro-batches or processes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from diffsteer.config import TrainSettings
from diffsteer.data.batch import Pictures, resident
from diffsteer.data.pixels import to_signed
from diffsteer.diffusion.conditioning import drop_labels
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.networks import size_multiple
from diffsteer.diffusion.seeds import generator_for
from diffsteer.training import consistency, objective
from diffsteer.training.captured import WARM_UP, Captured, Recorder, recorder_for
from diffsteer.training.checkpoint import load_optimizer_tensors, optimizer_tensors
from diffsteer.training.muon import Muon, hidden_and_others
from diffsteer.training.plan import Plan

BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Stepped:
    """What one optimizer step leaves. `record` stays on the device, so that nothing waits for it:
    [loss sum, pictures, gradient norm, then loss sums and counts by noise level], over this process's pictures."""

    step: int  # optimizer steps done, this one included
    lr: float
    record: Tensor


@dataclass(frozen=True)
class Shown:
    """A micro-batch as the network sees it, on the device: all that was gathered and drawn for it."""

    x0: Tensor  # [B, C, H, W], in [-1, 1]
    eps: Tensor  # as x0
    t: Tensor  # [B]
    cond: Tensor | None  # [B], label ids
    weight: float  # of each picture's loss in the step's gradient


class _Wrapped(nn.Module):
    """A network, asked as it is: what is done to this module's `forward` is not done to the network's."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *args: Any, **options: Any) -> Any:
        return self.network(*args, **options)


@dataclass
class Training:
    """A network in training: its average, its optimizer, and how many optimizer steps are done.

    teacher: whose paths it learns to cut short, where it does not learn the pictures themselves.
    recorder: with which a step is captured, where it can be; None: the device's own, if it has one.
    """

    network: nn.Module
    spec: ModelSpec
    settings: TrainSettings
    data: Pictures
    plan: Plan
    accelerator: Accelerator
    compiled: bool = False
    teacher: consistency.Teacher | None = None
    recorder: Recorder | None = None
    step: int = 0
    ema: nn.Module | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        device = self.accelerator.device
        self.recorder = self.recorder or recorder_for(device)
        self.network.to(device)
        # Convolutions run faster on channels that lie side by side; only the order in memory changes. The average lies alike, and so does
        # a resumed optimizer's state: a GPU updates all tensors at once only where each pair does.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own annotation lacks it
        if self.settings.ema:
            self.ema = copy.deepcopy(self.network).requires_grad_(False).eval()
        optimizer = _optimizer(self.network, self.settings, device if self._captures else None)
        # accelerate gives what it prepares another arithmetic for good: a module around the network, so that previews and scores, which ask
        # the network itself, draw in its own.
        engine = torch.compile(self.network) if self.compiled else _Wrapped(self.network)
        self.engine, self.optimizer = self.accelerator.prepare(engine, optimizer)
        self.data = resident(self.data, device)
        self.denoiser = Denoiser(self.engine, self.spec, size_multiple(self.network))

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> Generator[Stepped]:
        """Steps until the plan is done. Raises StopIteration only; a non-finite loss is the driver's to see in the record."""
        self.engine.train()
        learn = self._captured() if self._captures else self._learn
        with ThreadPoolExecutor(1) as ahead:
            batches = self._batches(ahead, self.step)
            while self.step < self.plan.steps:
                lr = self.plan.lr_at(self.step)
                self._set_rate(lr)
                record = learn(self._shown(self.step, next(batches)))
                self._average()
                self.step += 1
                yield Stepped(self.step, lr, record)

    def _learn(self, shown: list[Shown]) -> Tensor:
        """One step of the optimizer; its record."""
        try:
            sums = self._gradients(shown)
            clip = self.settings.clip
            norm = self.accelerator.clip_grad_norm_(self.network.parameters(), clip if clip is not None else float("inf"))
            self.optimizer.step()
        finally:
            self.optimizer.zero_grad()  # also after a recording that failed half-way
        head = torch.stack([sums[0].sum(), sums[1].sum(), norm.detach().float().reshape(()).to(sums.device)])
        return torch.cat([head, sums.flatten()])

    @property
    def warm_up(self) -> int:
        """How many first steps of a run tell nothing of the time that the others take."""
        return WARM_UP if self._captures else 1

    @property
    def _captures(self) -> bool:
        """Only a step of one process in one part is captured, and one that draws nothing, asks no teacher and scales no loss on its way."""
        whole = self.accelerator.num_processes == 1 and self.settings.accumulate == 1
        random = self.settings.dropout or getattr(self.network, "is_gradient_checkpointing", False)  # which keeps the generators' states
        return self.recorder is not None and whole and not random and self.teacher is None and self.accelerator.scaler is None

    def _captured(self) -> Callable[[list[Shown]], Tensor]:
        """`_learn`, captured anew in each run: tensors that are loaded in between take the place of those that a recording knows."""
        assert self.recorder is not None

        def learn(x0: Tensor, eps: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
            return self._learn([Shown(x0, eps, t, cond, 1 / len(x0))])

        captured = Captured(learn, self._changed, self.recorder)
        return lambda shown: captured(shown[0].x0, shown[0].eps, shown[0].t, shown[0].cond)

    def _changed(self) -> dict[str, list[Tensor]]:
        """What a step changes, the average apart, by kind."""
        kinds: dict[str, list[Tensor]] = {"weights": [each for each in self.network.parameters() if each.requires_grad]}
        for state in self._torch_optimizer.state.values():
            for kind, value in state.items():
                kinds.setdefault(kind, []).append(value)
        return kinds

    def _set_rate(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def _batches(self, ahead: ThreadPoolExecutor, first: int) -> Iterator[list[tuple[Tensor, Tensor | None]]]:
        """This process's micro-batches of each step; streamed pictures are read one step ahead."""
        if not self.data.streamed:
            for step in range(first, self.plan.steps):
                yield self._read(step)
            return
        coming: Future[Any] = ahead.submit(self._read, first)
        for step in range(first, self.plan.steps):
            now = coming.result()
            if step + 1 < self.plan.steps:
                coming = ahead.submit(self._read, step + 1)
            yield now

    def _read(self, step: int) -> list[tuple[Tensor, Tensor | None]]:
        """(pixels uint8 [B, C, H, W], labels [B]) of each of this process's micro-batches."""
        accelerator, micro = self.accelerator, []
        for low, high in self.plan.shares(step, accelerator.process_index, accelerator.num_processes):
            high = max(high, low + 1)  # a process without pictures still takes part in the step, with one that counts for nothing
            spans = self.plan.spans(step, low, high) or self.plan.spans(step, 0, 1)
            parts = [self.data.take(self.settings.seed, span.epoch, span.start, span.stop) for span in spans]
            labels = None if parts[0].labels is None else torch.cat([part.labels for part in parts if part.labels is not None])
            micro.append((torch.cat([part.pixels for part in parts]), labels))
        return micro

    def _shown(self, step: int, micro: list[tuple[Tensor, Tensor | None]]) -> list[Shown]:
        """The step's micro-batches as the network sees them."""
        accelerator, device = self.accelerator, self.accelerator.device
        total = self.plan.pictures(step)
        draws = self._draws(step, total)
        shares = self.plan.shares(step, accelerator.process_index, accelerator.num_processes)
        shown = []
        for (low, high), (pixels, labels) in zip(shares, micro, strict=True):
            rows = slice(low, high) if high > low else slice(0, 1)
            x0 = to_signed(pixels.to(device)).contiguous(memory_format=torch.channels_last)
            if draws.flip is not None:
                x0 = torch.where(draws.flip[rows, None, None, None], x0.flip(-1), x0)
            cond = self._labels(labels, draws.label[rows], device)
            # Gradients are averaged over processes; the sum over pictures divided by the step's pictures is what one batch would give.
            weight = accelerator.num_processes / total if high > low else 0.0
            shown.append(Shown(x0, draws.eps[rows], draws.t[rows], cond, weight))
        return shown

    def _gradients(self, shown: list[Shown]) -> Tensor:
        """Backward over the step's micro-batches; loss sums and counts by noise level [2, NOISE_BINS] of this process's pictures."""
        accelerator = self.accelerator
        record = torch.zeros(2, objective.NOISE_BINS, device=accelerator.device)
        for index, micro in enumerate(shown):
            last = index == len(shown) - 1
            with nullcontext() if last else accelerator.no_sync(self.engine), self._dropout(index):
                loss = self._losses(micro.x0, micro.eps, micro.t, micro.cond)
                accelerator.backward(loss.sum() * micro.weight)
            if micro.weight:
                record += objective.by_noise(self.spec.process, micro.t, loss.detach())
        return record

    def _losses(self, x0: Tensor, eps: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        if self.teacher is None:
            return objective.losses(self.denoiser, x0, eps, t, cond, self.settings.min_snr, self.settings.resolved_velocity_loss)
        apart = consistency.gap(self.step / self.plan.steps)
        return consistency.losses(self.denoiser, self.teacher, x0, eps, t, cond, apart)

    def _draws(self, step: int, total: int) -> _Draws:
        """All the step's randomness, for the whole batch, whichever part of it this process takes."""
        seed, device, process = self.settings.seed, self.accelerator.device, self.spec.process
        shape = (total, *self.spec.shape)
        noise = generator_for(seed, "noise", step, device=device)
        if process.noise == "uniform":
            eps = torch.rand(shape, generator=noise, device=device) * 2 - 1
        else:
            eps = torch.randn(shape, generator=noise, device=device)
        uniform = torch.rand(3, total, generator=generator_for(seed, "draws", step, device=device), device=device)
        when = objective.spread_evenly(uniform[0]) if self.settings.even_times else uniform[0]
        t = objective.draw_times(process, self.settings.resolved_times, when, self.settings.time_shift)
        return _Draws(eps, t, uniform[1], uniform[2] < 0.5 if self.settings.flip else None)

    def _labels(self, labels: Tensor | None, draw: Tensor, device: torch.device) -> Tensor | None:
        if not self.spec.labelled or labels is None:
            return None
        labels = labels.to(device)
        return drop_labels(labels, self.settings.label_dropout, self.spec.null_id, draw) if self.spec.null_class else labels

    def _dropout(self, micro: int) -> AbstractContextManager[Any]:
        """Dropout inside the network draws from torch's global generator: give it a state that is a function of the step."""
        if not self.settings.dropout:
            return nullcontext()
        device = self.accelerator.device
        return _seeded(generator_for(self.settings.seed, "dropout", self.step, micro, self.accelerator.process_index), device)

    @torch.no_grad()
    def _average(self) -> None:
        """EMA with a warm-up: decay 1 - (1 + step)^(-3/4) up to ema_decay, so that a short run's average is young enough to be of use."""
        if self.ema is None:
            return
        decay = min(self.settings.ema_decay, 1 - (1 + self.step) ** -0.75)
        pairs = [pair for pair in zip(self.ema.parameters(), self.network.parameters(), strict=True) if pair[1].requires_grad]
        torch._foreach_lerp_([average for average, _ in pairs], [now for _, now in pairs], 1 - decay)

    # ---- what is saved ---------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors the next step needs, but for frozen weights, which are the base's: weights, their average, the optimizer's state."""
        groups = {"model": self._learnt(self.network), "optimizer": optimizer_tensors(self.network, self._torch_optimizer)}
        return groups if self.ema is None else {**groups, "ema": self._learnt(self.ema)}

    def load(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """The inverse of `tensors` and `state`."""
        frozen = self._frozen()
        for network, name in ((self.network, "model"), (self.ema, "ema")):
            if network is not None:
                odd = network.load_state_dict(tensors[name], strict=False)
                assert set(odd.missing_keys) == frozen and not odd.unexpected_keys, odd
        load_optimizer_tensors(self.network, self._torch_optimizer, tensors["optimizer"])
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step = int(state["step"])

    def state(self) -> dict[str, Any]:
        """The plain values that go with `tensors`."""
        scaler = {} if self.accelerator.scaler is None else {"scaler": self.accelerator.scaler.state_dict()}
        return {"step": self.step, **scaler}

    def _frozen(self) -> set[str]:
        return {name for name, parameter in self.network.named_parameters() if not parameter.requires_grad}

    def _learnt(self, network: nn.Module) -> dict[str, Tensor]:
        """The state of the network, or of its average, without the frozen weights."""
        frozen = self._frozen()
        return {name: value for name, value in network.state_dict().items() if name not in frozen}

    @property
    def _torch_optimizer(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)


def _optimizer(network: nn.Module, settings: TrainSettings, captured_on: torch.device | None = None) -> torch.optim.Optimizer:
    """captured_on: the device of steps that are captured; the rate and all counts lie there then."""
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    lr: float | Tensor = settings.lr if captured_on is None else torch.full((), settings.lr, device=captured_on)
    if settings.optimizer == "muon":
        return Muon(*hidden_and_others(network), lr, BETAS, settings.weight_decay)
    capturable = captured_on is not None
    if settings.optimizer == "adam":
        return torch.optim.Adam(learnt, lr, BETAS, capturable=capturable)
    return torch.optim.AdamW(learnt, lr, BETAS, weight_decay=settings.weight_decay, capturable=capturable)


@dataclass(frozen=True)
class _Draws:
    eps: Tensor  # [G, C, H, W]
    t: Tensor  # [G]
    label: Tensor  # [G], uniform
    flip: Tensor | None  # [G], bool


@contextmanager
def _seeded(source: torch.Generator, device: torch.device) -> Iterator[None]:
    """torch's global generators, of the CPU and of this device, seeded inside the block, and put back after it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(source.initial_seed())
        yield
