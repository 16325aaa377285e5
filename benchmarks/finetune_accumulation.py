"""How should the learning rate follow the accumulation? Digits 0 to 4 become 5 to 9 by as many pictures in larger and fewer steps.

    python benchmarks/finetune_accumulation.py --out FOLDER [--seeds 0,1]

Every run sees 1,024 pictures in micro-batches of 8, from the same base, with AdamW at a steady rate: 128 steps of one micro-batch, 32 of
four, or 8 of sixteen. What is told is the loss on 150 pictures held out, with the same noise for all. A step of k micro-batches equals one
of a batch k times as large (tests/training), so it is run as that. Writes benchmarks/results/finetune-accumulation.json and .md, and
docs/pictures/accumulation.png.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

import diffsteer
import machine
from diffsteer.data.batch import Pictures
from diffsteer.data.images import load_pictures
from diffsteer.data.pixels import to_pil, to_signed
from diffsteer.diffusion.denoiser import Denoiser
from diffsteer.recipebook import finetune_settings
from diffsteer.sampling.folder import load_model
from diffsteer.training import objective
from diffsteer.training.finetune import adapted, settled
from diffsteer.training.loop import Training
from diffsteer.training.plan import Plan

MICRO, SEEN, HELD = 8, 1024, 150
ACCUMULATE = (1, 4, 16)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def folders(out: Path) -> None:
    """The first five digits, the last five, and some of these held out."""
    digits, counts = load_pictures("digits"), {"held": 0}
    for index in range(digits.count):
        batch = digits.at([index])
        label = int(batch.labels[0])
        kind = "old" if label < 5 else "new" if counts["held"] >= HELD else "held"
        counts["held"] += kind == "held"
        place = out / kind / digits.label_names[label]
        place.mkdir(parents=True, exist_ok=True)
        to_pil(batch.pixels[0]).save(place / f"{index:04d}.png")


@torch.no_grad()
def held_loss(denoiser: Denoiser, held: Pictures) -> float:
    batch = held.at(range(held.count))
    draws = torch.Generator().manual_seed(0)
    x0 = to_signed(batch.pixels)
    eps = torch.randn(x0.shape, generator=draws)
    t = torch.linspace(20, 980, held.count)[torch.randperm(held.count, generator=draws)]
    denoiser.network.eval()
    return float(objective.losses(denoiser, x0, eps, t, batch.labels, None).mean())


def tuned_loss(base: Denoiser, new: Pictures, held: Pictures, accumulate: int, rate: float, seed: int) -> float:
    wanted = {"model": "base", "data": "new", "batch_size": MICRO * accumulate, "lr": rate, "seed": seed}
    wanted |= {"optimizer": "adamw", "decay": "none", "warmup": 0, "ema": False}
    network = copy.deepcopy(base.network)
    settings = settled(finetune_settings(None, wanted), network, base.spec, "base")
    made = adapted(network, base.spec, new, settings)
    plan = Plan(new.count, settings.batch_size, 1, "fill", SEEN // settings.batch_size, rate, 0, "none")
    AcceleratorState._reset_state(reset_partial_state=False)
    training = Training(made.network, made.spec, settings, new, plan, Accelerator(cpu=True))
    for _ in training.run():
        pass
    return held_loss(training.denoiser, held)


def figure(losses: dict[int, dict[float, list[float]]], before: float) -> None:
    axes = plt.figure(figsize=(6.4, 4)).subplots()
    for accumulate, by_rate in losses.items():
        means = [statistics.mean(values) for values in by_rate.values()]
        (line,) = axes.plot(RATES, means, marker="o", label=f"accumulate {accumulate}: {SEEN // MICRO // accumulate} steps")
        best = means.index(min(means))
        axes.plot(RATES[best], means[best], marker="o", markersize=13, fillstyle="none", color=line.get_color())
        ends = [[pick(values) for values in by_rate.values()] for pick in (min, max)]
        axes.fill_between(RATES, *ends, alpha=0.15, color=line.get_color())
    lowest = min(statistics.mean(values) for by_rate in losses.values() for values in by_rate.values())
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss on pictures held out", ylim=(lowest * 0.9, before * 1.02))
    axes.axhline(before, color="grey", linewidth=0.8, linestyle=":", label="the base, before")
    axes.set_title(f"{SEEN:,} pictures in micro-batches of {MICRO}; the best rate is ringed")
    axes.legend()
    place = Path(__file__).parents[1] / "docs" / "pictures" / "accumulation.png"
    axes.figure.savefig(place, dpi=110, bbox_inches="tight", metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures and the base")
    parser.add_argument("--seeds", default="0,1")
    given = parser.parse_args()
    if not (given.out / "held").is_dir():
        folders(given.out)
    quiet = {"figures": "none", "preview_every": 150, "channels": "32,32"}
    base = load_model(str(diffsteer.train(str(given.out / "old"), given.out / "base", steps=150, batch_size=64, **quiet).out))
    new, held = (load_pictures(str(given.out / kind)) for kind in ("new", "held"))
    start = copy.deepcopy(base.network)
    settings = settled(finetune_settings(None, {"model": "base", "data": "new"}), start, base.spec, "base")
    made = adapted(start, base.spec, new, settings)
    before = held_loss(Denoiser(made.network, made.spec, base.multiple), held)
    losses: dict[int, dict[float, list[float]]] = {k: {rate: [] for rate in RATES} for k in ACCUMULATE}
    for seed in map(int, given.seeds.split(",")):
        for accumulate, by_rate in losses.items():
            for rate, values in by_rate.items():
                values.append(tuned_loss(base, new, held, accumulate, rate, seed))
                sys.stderr.write(f"seed {seed}, accumulate {accumulate}, rate {rate:g}: {values[-1]:.4f}\n")
    figure(losses, before)
    rows = [
        f"| {k} | {SEEN // MICRO // k} | " + " | ".join(f"{statistics.mean(values):.3f}" for values in by_rate.values()) + " |"
        for k, by_rate in losses.items()
    ]
    page = [
        "# Accumulation and learning rate",
        "",
        f"`python benchmarks/{Path(__file__).name} --out FOLDER`",
        "",
        f"Loss on {HELD} pictures held out, {before:.3f} before; mean over {given.seeds.count(',') + 1} seeds.",
        "",
        "| accumulate | steps | " + " | ".join(f"rate {rate:g}" for rate in RATES) + " |",
        "|---|---|" + "---|" * len(RATES),
        *rows,
    ]
    machine.write("finetune-accumulation", {"before": before, "losses": losses}, "\n".join(page))
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
