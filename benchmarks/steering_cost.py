"""What a steered step costs beside an unsteered one: time, and memory on the 256 x 256 architecture of google/ddpm-celebahq-256.

    python benchmarks/steering_cost.py [--rounds 5]

Time: float32, the recipe's 28 x 28 network, batch 16, the ways taken in turn in one run, medians over rounds, ratios to the unsteered step.
Memory: the architecture's configuration with random weights, batch 1, each way in a process of its own, as the system counts it: the peak
above the loaded model, and the whole process's peak. glibc is told to give freed memory back at once (MALLOC_MMAP_THRESHOLD_), since by
default it keeps what it likes, and that would be measured. Writes benchmarks/results/steering-cost.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor

import machine
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.networks import default_channels, unet_config
from diffsteer.diffusion.process import Process
from diffsteer.steering.contract import Moment
from diffsteer.steering.gradient import Steer, SteeredDenoiser

WAYS: dict[str, dict[str, Any] | None] = {
    "unsteered": None,
    "shortcut": {"way": "shortcut"},
    "exact": {"way": "exact"},
    "covariance": {"way": "covariance"},
    "exact, checkpoint=on": {"way": "exact", "checkpoint": True},
}
# google/ddpm-celebahq-256's unet/config.json
CELEBA_HQ_256: dict[str, Any] = {
    "sample_size": 256,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "act_fn": "silu",
    "center_input_sample": False,
    "mid_block_scale_factor": 1,
}


def near_grey(pictures: Tensor, moment: Moment) -> Tensor:
    """A loss that costs next to nothing."""
    return ((pictures - 0.5) ** 2).mean((1, 2, 3)) / 0.01


def steered(denoiser: Denoiser, options: dict[str, Any] | None, count: int) -> Any:
    if options is None:
        return torch.no_grad()(denoiser)
    if options.get("checkpoint"):
        denoiser.network.enable_gradient_checkpointing()
    one = SteeredDenoiser(denoiser, [Steer(near_grey, **options)], denoiser.spec.process, range(count))
    one.pictures_at_once = count  # the trial that finds it is made once a drawing, not once a step
    return one


def times(rounds: int, batch: int = 16) -> dict[str, list[float]]:
    """Way -> seconds of a step, a number a round."""
    torch.manual_seed(0)
    network = UNet2DModel(sample_size=28, in_channels=1, out_channels=1, **unet_config(default_channels(28, 28), 1, 1, 32, 0.0, 16, None))
    denoiser = Denoiser(network.requires_grad_(False).eval(), ModelSpec(Process("flow"), "flow", 28, 28, 1))
    x = torch.randn(batch, 1, 28, 28)
    told: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(rounds + 1):
        for name, options in WAYS.items():
            network.disable_gradient_checkpointing()
            step = steered(denoiser, options, batch)
            start = time.perf_counter()
            for _ in range(3):
                step(x, 500.0)
            if turn:  # the first round warms up
                told[name].append((time.perf_counter() - start) / 3)
    return told


def memory(name: str) -> dict[str, int]:
    """Of this process, one step of one way: bytes above the loaded model, and the peak of the whole."""
    torch.manual_seed(0)
    network = UNet2DModel(**CELEBA_HQ_256).requires_grad_(False).eval()
    denoiser = Denoiser(network, ModelSpec(Process("linear"), "eps", 256, 256, 3))
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steered(denoiser, WAYS[name], 1)(torch.randn(1, 3, 256, 256), 500.0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"above": 1024 * (peak - loaded), "peak": 1024 * peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", choices=WAYS, help="measure one way's memory in this process and print it")
    given = parser.parse_args()
    if given.memory:
        sys.stdout.write(json.dumps(memory(given.memory)) + "\n")
        return
    seconds = times(given.rounds)
    base = [statistics.median(seconds["unsteered"])] * given.rounds
    kept, freeing = {}, {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    for name in WAYS:
        told = subprocess.run([sys.executable, __file__, "--memory", name], env=freeing, capture_output=True, text=True, check=True).stdout
        kept[name] = json.loads(told.splitlines()[-1])
    rows = []
    for name in WAYS:
        ratios = sorted(one / unsteered for one, unsteered in zip(seconds[name], base, strict=True))
        rows.append({"way": name, "ratio": statistics.median(ratios), "ratio_least": ratios[0], "ratio_most": ratios[-1], **kept[name]})
    page = ["# What a steered step costs", "", f"`python benchmarks/{Path(__file__).name}`", ""]
    page += ["| way | time, over unsteered (least to most) | 256 x 256: above the loaded model | whole process |", "|---|---|---|---|"]
    page += [
        f"| {row['way']} | {row['ratio']:.2f} ({row['ratio_least']:.2f} to {row['ratio_most']:.2f}) "
        f"| {row['above'] / 2**20:,.0f} MiB | {row['peak'] / 2**20:,.0f} MiB |"
        for row in rows
    ]
    machine.write("steering-cost", {"rounds": given.rounds, "rows": rows}, "\n".join(page))
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
