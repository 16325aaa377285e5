"""What fine-tuning a 256x256 model costs: two optimizer steps of 4 x 2 pictures on the CPU, its peak memory and the time of a step.

    OMP_NUM_THREADS=1 python benchmarks/finetune_memory.py [--no-checkpointing] [--write]

The network is that of google/ddpm-celebahq-256, with first weights; the settings are those of the recipe finetune-seed, with an average
of the weights and gradient checkpointing. Pictures are noise: what they show costs nothing. Previews and saving are left out: they need
no gradients, and less. Writes benchmarks/results/finetune-memory.json and .md.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from diffusers import UNet2DModel
from PIL import Image

import machine
from diffsteer.data.images import load_pictures
from diffsteer.diffusion.denoiser import ModelSpec
from diffsteer.diffusion.process import Process
from diffsteer.recipebook import finetune_settings
from diffsteer.training.finetune import adapted, settled
from diffsteer.training.loop import Training
from diffsteer.training.plan import Plan

# unet/config.json of google/ddpm-celebahq-256.
CELEBAHQ = {
    "sample_size": 256,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
    "layers_per_block": 2,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
STEPS = 2
GIB = 2**30


def peak() -> float:
    """The most memory this process has held, in GiB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def pictures(place: Path, count: int = 16) -> Path:
    draws = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(draws.integers(0, 256, (256, 256, 3)).astype(np.uint8)).save(place / f"{index:02d}.png")
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--write", action="store_true", help="write the results")
    given = parser.parse_args()
    network, base = UNet2DModel(**CELEBAHQ), ModelSpec(Process("linear"), "eps", 256, 256, 3)
    count = sum(parameter.numel() for parameter in network.parameters())
    wanted = {"model": "celebahq", "data": "noise", "ema": True, "gradient_checkpointing": not given.no_checkpointing}
    settings = settled(finetune_settings("finetune-seed", wanted), network, base, "first weights")
    with tempfile.TemporaryDirectory() as place:
        data = load_pictures(str(pictures(Path(place))), size=(256, 256))
        made = adapted(network, base, data, settings)
        plan = Plan(data.count, settings.batch_size, settings.accumulate, "fill", STEPS, settings.lr, 0, settings.decay)
        training = Training(made.network, made.spec, settings, data, plan, Accelerator(cpu=True))
        seconds, last = [], time.perf_counter()
        for stepped in training.run():
            now = time.perf_counter()
            seconds.append(now - last)
            last = now
            loss = float(stepped.record[0] / stepped.record[1])
            sys.stderr.write(f"step {stepped.step}: {seconds[-1]:.0f} s, loss {loss:.4f}, peak {peak():.2f} GiB\n")
    batch = f"{settings.batch_size} x {settings.accumulate}"
    page = [
        "# The memory of a fine-tuning at 256x256",
        "",
        f"`python benchmarks/{Path(__file__).name}{' --no-checkpointing' if given.no_checkpointing else ''}`",
        "",
        f"{count:,} parameters; {STEPS} optimizer steps of {batch} pictures, {settings.optimizer}, fp32, with an average of the weights"
        f"{' and gradient checkpointing' if settings.gradient_checkpointing else ''}: peak {peak():.1f} GiB, "
        f"{' and '.join(f'{each:.0f}' for each in seconds)} s.",
    ]
    if given.write:
        machine.write("finetune-memory", {"parameters": count, "batch": batch, "peak_gib": peak(), "seconds": seconds}, "\n".join(page))
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
