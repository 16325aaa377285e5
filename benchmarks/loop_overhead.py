"""The training loop's own time: over a bare loop, and against a plain one on accelerate and diffusers, at equal network and loss.

    python benchmarks/loop_overhead.py [--compiled] [--data mnist] [--device auto] [--out FOLDER]

Three loops on pictures of 28x28, 128 a step, with the network of the recipe `mnist-fast`:

- ours: `Training.run()`, and what hangs on it in a run while no picture is drawn: records read every 20 steps.
- bare: batches made beforehand (noisy pictures, times, labels, targets, weights), so that only what learns is left: forward, loss,
  backward, clipping, the optimizer's step and the average of the weights, all with the recipe's settings. What ours takes longer is its
  overhead: the order of the pictures, their gathering and conversion, noise, times, dropped labels, rates, records.
- plain: what a good script does: a DataLoader of PIL pictures, `DDPMScheduler.add_noise`, `accelerator.prepare`, diffusers' `EMAModel`,
  `loss.item()` at each step. Against it ours learns the same loss (eps on the cosine schedule) by the same AdamW.

Bare and ours are compared eagerly, and compiled with --compiled, or on a GPU, where ours compiles by default; the plain loop is not
compiled. On a GPU our step is captured too, as it is in a run. Loops take turns, a few steps each; a ratio is of one round. What a step
asks torch for is counted as well: a GPU that is done with each thing before Python has asked for the next one waits for Python. The
pictures are the built-in digits, enlarged, unless --data says others: the time is the same.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

import accelerate
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import machine
from diffsteer.data.batch import Pictures
from diffsteer.data.images import load_pictures
from diffsteer.device import find_device
from diffsteer.recipebook import train_settings
from diffsteer.training.build import build_model
from diffsteer.training.loop import Training, _optimizer
from diffsteer.training.objective import weights
from diffsteer.training.plan import Plan
from timing import Spread, by_turns, line, ratios, table

ENDLESS = 10**9
READ_EVERY = 20  # steps, as a run does
# The loss that a plain script learns, with the optimizer it has.
AS_PLAIN = {
    "process": "cosine",
    "prediction": "eps",
    "times": "uniform",
    "velocity_loss": False,
    "patch_size": 2,
    "optimizer": "adamw",
    "label_dropout": 0,
}


def training(data: Pictures, device: str, compiled: bool = False, **changes: Any) -> Training:
    """Our loop with the settings of `mnist-fast` and these changes."""
    settings = train_settings("mnist-fast", {"data": "digits", "warmup": 0, "decay": "none", **changes})
    network, spec = build_model(settings, data)
    plan = Plan(data.count, settings.batch_size, 1, settings.last_batch, ENDLESS, settings.lr, 0, "none")
    AcceleratorState._reset_state(reset_partial_state=False)
    return Training(network, spec, settings, data, plan, Accelerator(cpu=device == "cpu"), compiled=compiled)


def ours(of: Training) -> Iterator[None]:
    """Our loop as a run drives it: the records are read every so many steps."""
    waiting = []
    for stepped in of.run():
        waiting.append(stepped.record)
        if len(waiting) == READ_EVERY:
            torch.stack(waiting).tolist()
            waiting.clear()
        yield


# ---- the bare loop ---------------------------------------------------------------------------------------------------


class Ready(NamedTuple):
    """A step's batch, ready for the network."""

    x_t: Tensor
    t: Tensor
    labels: Tensor | None
    target: Tensor
    weights: Tensor  # of the pictures' losses


def ready(of: Training, step: int) -> Ready:
    """What our loop's step of this number shows to the network, and what it should answer."""
    [shown] = of._shown(step, of._read(step))
    x0, eps, t = shown.x0, shown.eps, shown.t
    process, settings = of.spec.process, of.settings
    return Ready(
        x_t=process.add_noise(x0, eps, t),
        t=t,
        labels=shown.cond,
        target=of.denoiser.target(x0, eps, t),
        weights=weights(process, of.spec.prediction, t, settings.min_snr, settings.resolved_velocity_loss),
    )


def bare(of: Training, batches: Iterator[Ready]) -> Iterator[Tensor]:
    """The same network, from the weights that it has now, trained by nothing but what trains: yields each step's loss, on the device."""
    network: nn.Module = copy.deepcopy(of.network)
    average = copy.deepcopy(of.network).requires_grad_(False)
    engine = torch.compile(network) if of.compiled else network
    optimizer, settings = _optimizer(network, of.settings), of.settings
    for step, batch in enumerate(batches):
        error = engine(batch.x_t, batch.t, class_labels=batch.labels).sample - batch.target
        loss = (error.square().flatten(1).mean(1) * batch.weights).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(settings.ema_decay, 1 - (1 + step) ** -0.75)
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
        yield loss.detach()


# ---- the plain loop --------------------------------------------------------------------------------------------------


class PilPictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Pictures as an image library hands them out, made into a tensor when one is asked for."""

    def __init__(self, data: Pictures) -> None:
        everything = data.at(range(data.count))
        assert everything.labels is not None
        self.pictures = [Image.fromarray(picture[0].numpy()) for picture in everything.pixels]
        self.labels = everything.labels.tolist()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return (torch.from_numpy(np.array(self.pictures[index])).float()[None] / 255 - 0.5) / 0.5, self.labels[index]


def plain_loss(network: nn.Module, scheduler: DDPMScheduler, x0: Tensor, noise: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """What the plain loop learns: the noise, at whole times of the scheduler's table."""
    return F.mse_loss(network(scheduler.add_noise(x0, noise, t), t, class_labels=labels).sample, noise)


def plain(data: Pictures, device: str, **changes: Any) -> Iterator[float]:
    """Yields each step's loss, read from the device as the usual progress bar reads it."""
    settings = train_settings("mnist-fast", {"data": "digits", **AS_PLAIN, **changes})
    network, _ = build_model(settings, data)
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(cpu=device == "cpu")
    loader = torch.utils.data.DataLoader(PilPictures(data), batch_size=settings.batch_size, shuffle=True, drop_last=True)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, foreach=True)  # as on a GPU
    rates = get_scheduler("constant", optimizer)
    average = EMAModel(network.parameters(), decay=settings.ema_decay, use_ema_warmup=True, power=0.75)
    network, optimizer, loader, rates = accelerator.prepare(network, optimizer, loader, rates)
    average.to(accelerator.device)
    network.train()
    for _ in count():
        for x0, labels in loader:
            noise = torch.randn_like(x0)
            t = torch.randint(0, 1000, (len(x0),), device=x0.device)
            loss = plain_loss(network, scheduler, x0, noise, t, labels)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(network.parameters(), settings.clip)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
            average.step(network.parameters())
            yield loss.detach().item()


# ---- what is counted -------------------------------------------------------------------------------------------------


class Counted(TorchDispatchMode):
    """Counts the operations that torch is asked for, without those that only look at a tensor in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += not function.is_view
        return function(*args, **(kwargs or {}))


def asked(action: Callable[[], Any]) -> int:
    """How many operations it asks for, when it has been done before."""
    for _ in range(2):
        action()
    with Counted() as counted:
        action()
    return counted.operations


def asked_in_a_step(data: Pictures, device: str) -> dict[str, int]:
    """By the plain loop, by ours at equal loss and optimizer, and by the part of ours that a captured step leaves to be asked for."""
    of, loop = training(data, device, **AS_PLAIN), plain(data, device)
    of.recorder = None
    for group in of.optimizer.param_groups:
        group["foreach"] = True
    steps = ours(of)
    left = asked(lambda: (of._shown(of.step, of._read(of.step)), of._average()))
    return {"plain": asked(lambda: next(loop)), "ours": asked(lambda: next(steps)), "outside": left}


# ---- what is measured ------------------------------------------------------------------------------------------------


def overhead(data: Pictures, device: str, rounds: int, steps: int, compiled: bool) -> Spread:
    """Seconds of ours over those of bare, round by round."""
    of = training(data, device, compiled)
    batches = cycle([ready(of, step) for step in range(4)])
    told = by_turns({"ours": ours(of), "bare": bare(of, batches)}, rounds, steps, warm_up=3)
    return ratios(told["ours"], told["bare"])


def against_plain(data: Pictures, device: str, rounds: int, steps: int, compiled: bool) -> Spread:
    """Pictures a second of ours over those of the plain loop, round by round."""
    loops = {"ours": ours(training(data, device, compiled, **AS_PLAIN)), "plain": plain(data, device)}
    told = by_turns(loops, rounds, steps, warm_up=3)
    return ratios(told["plain"], told["ours"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=3, help="of each loop in a round")
    parser.add_argument("--compiled", action="store_true", help="on a CPU too; compiling takes minutes there")
    parser.add_argument("--out", type=Path, help="folder for loop-overhead.json and .md")
    given = parser.parse_args()
    device = find_device(given.device)
    data = load_pictures(given.data, size=(28, 28), need_labels=True)
    measure = (data, device, given.rounds, given.steps)
    gpu = device == "cuda"
    lines = []
    for compiled in (False, True) if given.compiled or gpu else (False,):
        words = f"{'compiled' if compiled else 'eager'}, {device}"
        lines.append(line(f"training: seconds of our loop over a bare one, {words}", overhead(*measure, compiled), "at most 1.03"))
    words = f"ours {'compiled' if gpu else 'eager'}, {device}"
    aim = "at least 3" if gpu else "(at least 3 on a GPU)"
    lines.append(line(f"training: pictures a second of our loop over a plain one, {words}", against_plain(*measure, gpu), aim))
    flags = f"{'--compiled ' if given.compiled else ''}--rounds {given.rounds}"
    counts = asked_in_a_step(data, device)
    told = (
        f"A step asks torch for {counts['plain']:,} operations in the plain loop and for {counts['ours']:,} in ours, of which all but "
        f"{counts['outside']} are one where the step is captured, as it is on a GPU (not compiled; views not counted)."
    )
    page = ["# The training loop's own time", "", f"`python benchmarks/{Path(__file__).name} {flags}`", "", *table(lines), "", told]
    if given.out:
        machine.write(
            "loop-overhead",
            {
                "accelerate": accelerate.__version__,
                "rounds": given.rounds,
                "steps": given.steps,
                "seed": 0,
                "ratios": lines,
                "operations": counts,
            },
            "\n".join(page),
            given.out,
        )
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
