"""Pictures a second: the lesson's 1,000 ancestral steps against the recipes `mnist-fast` and `finetune-few`, at 28x28.

    python benchmarks/sampling_speed.py [--device auto] [--rounds 4] [--lesson-steps 10] [--out FOLDER]

The lesson's side is its own sampling loop in plain torch and diffusers (written by us): its class-conditioned network, 80 pictures, so
many of the 1,000 steps a round, times 1,000 over that many. Ours is `draw` as the recipe says (solver, steps, label guidance), from
seeds to uint8 pictures, at several batch sizes in float32, and in bf16, which changes pictures a little. Networks are untrained: the time
is the same, and how good the pictures are is measured elsewhere (`time_to_quality.py`, `few_steps.py`). Both sides take turns, and a ratio
is of one round.

Label guidance asks the network about every picture twice. So evaluations are counted where they happen, at the network: picture by picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

import machine
from diffsteer.data.batch import Pictures
from diffsteer.data.images import load_pictures
from diffsteer.device import find_device
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.networks import size_multiple
from diffsteer.recipebook import finetune_settings, train_settings
from diffsteer.sampling.draw import How, Job, draw
from diffsteer.training.build import build_model
from diffsteer.training.finetune import adapted, settled
from time_to_quality import LessonNet
from timing import Spread, by_turns, line, ratios, table

LESSON_STEPS, LESSON_PICTURES = 1000, 80
BATCHES = (16, 64, 128, 256)


def lesson(device: str, pictures: int = LESSON_PICTURES) -> Iterator[Tensor]:
    """The lesson's sampling loop, again and again: a step an item."""
    net = LessonNet().to(device).eval()
    scheduler = DDPMScheduler(num_train_timesteps=LESSON_STEPS, beta_schedule="squaredcos_cap_v2")
    labels = torch.arange(pictures, device=device) % 10
    x = torch.randn(pictures, 1, 28, 28, device=device)
    for t in cycle(scheduler.timesteps):
        with torch.no_grad():
            x = scheduler.step(net(x, t.to(device).expand(pictures), labels), t, x).prev_sample
        yield x


def fast(device: str, precision: str = "fp32") -> Denoiser:
    """The untrained network of `mnist-fast`, as a loaded model would be."""
    settings = train_settings("mnist-fast", {"data": "digits"})
    return _denoiser(*build_model(settings, _digits()), device, precision)


def few(device: str) -> Denoiser:
    """The same, made ready by `finetune-few`."""
    base = fast(device)
    asked = finetune_settings("finetune-few", {"model": "mnist-fast", "data": "digits"})
    made = adapted(base.network, base.spec, _digits(), settled(asked, base.network, base.spec, weights=""))
    return _denoiser(made.network, made.spec, device, "fp32")


def _digits() -> Pictures:
    return load_pictures("digits", size=(28, 28), need_labels=True)


def _denoiser(network: nn.Module, spec: ModelSpec, device: str, precision: str) -> Denoiser:
    return Denoiser(network.to(device).eval().requires_grad_(False), spec, size_multiple(network), precision)


def drawings(denoiser: Denoiser, batch: int, device: str) -> Iterator[Any]:
    """One batch of pictures an item, new seeds each time."""
    for first in cycle(range(0, 100 * batch, batch)):
        yield draw(denoiser, [Job(seed % 10, seed) for seed in range(first, first + batch)], device=device, batch=batch)


def evaluations(denoiser: Denoiser) -> int:
    """How often the network is asked about one picture as the model is drawn by default."""
    asked = 0

    def count(network: nn.Module, given: Sequence[Any]) -> None:
        nonlocal asked
        asked += len(given[0])

    hook = denoiser.network.register_forward_pre_hook(count)
    draw(denoiser, [Job(0, 0)], device=next(denoiser.network.parameters()).device)
    hook.remove()
    return asked


def measured(device: str, rounds: int, lesson_steps: int, batches: Sequence[int] = BATCHES) -> dict[str, Any]:
    """Ratios of our pictures a second to the lesson's, a line a way; speeds, for the record; and how ours are drawn."""
    models = {"`mnist-fast`": fast(device), "`mnist-fast`, bf16": fast(device, "bf16"), "`finetune-few`": few(device)}
    asked = {model: evaluations(denoiser) for model, denoiser in models.items()}
    sizes = {
        f"{model}, {asked[model]} evaluations, {batch} at a time": (denoiser, batch)
        for model, denoiser in models.items()
        for batch in (batches if denoiser.precision == "fp32" else batches[-1:])
    }
    loops = {name: drawings(denoiser, batch, device) for name, (denoiser, batch) in sizes.items()}
    told = by_turns({"lesson": lesson(device), **loops}, rounds, {"lesson": lesson_steps, **dict.fromkeys(loops, 1)})
    theirs = [seconds * LESSON_STEPS / LESSON_PICTURES for seconds in told["lesson"]]  # of a picture
    mine = {name: [seconds / batch for seconds in told[name]] for name, (_, batch) in sizes.items()}
    return {
        "ratios": [
            line(f"sampling: our pictures a second over the lesson's; {name}, {device}", ratios(theirs, seconds), "at least 1,000")
            for name, seconds in mine.items()
        ],
        "pictures_a_second": {
            name: Spread.of([1 / one for one in seconds]).as_dict() for name, seconds in {"lesson": theirs, **mine}.items()
        },
        "lesson_steps_timed": rounds * lesson_steps,
        "how": {model: How().resolved(denoiser.spec).as_dict() for model, denoiser in models.items()},
        "evaluations": asked,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--lesson-steps", type=int, default=10, help="of the lesson's 1,000, timed in each round")
    parser.add_argument("--out", type=Path, help="folder for sampling-speed.json and .md")
    given = parser.parse_args()
    torch.manual_seed(0)
    values = measured(find_device(given.device), given.rounds, given.lesson_steps)
    command = f"`python benchmarks/{Path(__file__).name} --rounds {given.rounds}`"
    page = ["# How fast pictures are drawn", "", command, "", *table(values["ratios"])]
    if given.out:
        machine.write("sampling-speed", {"rounds": given.rounds, "seed": 0, **values}, "\n".join(page), given.out)
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
