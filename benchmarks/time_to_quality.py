"""How long until the digits are good: the lesson's ten epochs on MNIST, measured over some steps, against the recipe `mnist-fast`.

    python benchmarks/time_to_quality.py DATA --out FOLDER [--seeds 0,1,2] [--steps 200] [--set lr=0.004 ...]

The lesson's time is training only: its own loop in plain torch and diffusers (written by us), so many steps after five to warm up, times
its 4,690. Ours is the whole command, from start to exit, imports, compiling, previews and saving included. One judge, trained first,
scores 1,000 pictures of each run, drawn as the recipe says. Nothing else should run meanwhile. What was timed is kept in FOLDER, so that
the same command goes on after an interruption. Writes benchmarks/results/time-to-quality.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn
from torch.nn import functional as F

import commands
import machine
from diffsteer.data.images import load_pictures
from diffsteer.recipebook import train_settings

LESSON_STEPS = 4_690  # ten epochs of 469


class LessonNet(nn.Module):
    """The lesson's class-conditioned network: a label embedding of length 4 as extra channels of a `UNet2DModel`."""

    def __init__(self) -> None:
        super().__init__()
        self.class_emb = nn.Embedding(10, 4)
        blocks = {
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        }
        self.model = UNet2DModel(28, in_channels=5, out_channels=1, layers_per_block=2, block_out_channels=(32, 64, 64), **blocks)

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        planes = self.class_emb(labels)[:, :, None, None].expand(-1, -1, 28, 28)
        return self.model(torch.cat([x, planes], 1), t).sample


def lesson_seconds(data: str, steps: int) -> list[float]:
    """Seconds of each of so many steps of the lesson's loop, batch 128, Adam at 1e-3, after five to warm up."""
    torch.manual_seed(0)
    pictures = load_pictures(data, need_labels=True)
    whole = pictures.at(range(pictures.count))
    assert whole.labels is not None
    everything = torch.utils.data.TensorDataset(whole.pixels.float() / 255, whole.labels)
    loader = torch.utils.data.DataLoader(everything, batch_size=128, shuffle=True)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    net = LessonNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    told, start = [], time.perf_counter()
    for turn, (x, labels) in enumerate(loader):
        x = x * 2 - 1
        noise = torch.randn_like(x)
        timesteps = torch.randint(0, 999, (len(x),)).long()
        loss = F.mse_loss(net(scheduler.add_noise(x, noise, timesteps), timesteps, labels), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        now = time.perf_counter()
        if turn >= 5:
            told.append(now - start)
        start = now
        if len(told) == steps:
            break
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True, help="folder for the judge and the runs")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=200, help="steps of the lesson's loop that are timed")
    parser.add_argument("--count", type=int, default=commands.COUNT)
    parser.add_argument("--set", nargs="*", default=[], help="settings beside the recipe, NAME=VALUE")
    parser.add_argument("--results", type=Path, default=machine.RESULTS, help="folder for time-to-quality.json and .md")
    given = parser.parse_args()
    kept = given.out / "lesson.json"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(lesson_seconds(given.data, given.steps)))
    lesson = json.loads(kept.read_text())
    whole = statistics.mean(lesson) * LESSON_STEPS
    judge, drawn_in = commands.judge(given.data, given.out / "judge"), train_settings("mnist-fast", {}).sample_steps
    rows = []
    for seed in given.seeds.split(","):
        run = given.out / f"seed-{seed}"
        words = ["train", given.data, "--recipe", "mnist-fast", "--seed", seed, *commands.words_of(given.set), "--out", str(run)]
        seconds = commands.seconds(given.out / f"seconds-{seed}.json", *words)
        scores = commands.scores(run, given.data, judge, drawn_in, given.count)
        rows.append({"seed": int(seed), "seconds": seconds, "ratio": whole / seconds, "scores": scores})
        sys.stderr.write(f"seed {seed}: {seconds:.0f} s, accuracy {scores['accuracy']['value']:.3f}\n")
    page = [
        "# Time to quality on MNIST",
        "",
        f"`python benchmarks/{Path(__file__).name} DATA --out FOLDER`",
        "",
        f"The lesson: {1000 * statistics.mean(lesson):,.0f} ms a step over {len(lesson)} steps (median "
        f"{1000 * statistics.median(lesson):,.0f}), so {whole:,.0f} s for ten epochs. Ours, start to exit, {given.count:,} pictures each:",
        "",
        "| seed | seconds | the lesson's over ours | accuracy | Frechet | floor | brightness (sd), real | ms a picture |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        told = row["scores"]
        right, far, bright = told["accuracy"], told["frechet"], told["brightness"]
        page.append(
            f"| {row['seed']} | {row['seconds']:.0f} | {row['ratio']:.0f} | {right['value']:.1%} ± {right['error']:.1%} "
            f"| {far['value']:.3g} ± {far['error']:.2g} | {far['floor']:.3g} "
            f"| {bright['mean']:.3f} ({bright['spread']:.3f}), {bright['real_mean']:.3f} ({bright['real_spread']:.3f}) "
            f"| {1000 * told['seconds'] / given.count:.1f} |"
        )
    values = {"lesson": {"steps": len(lesson), "mean": statistics.mean(lesson), "deviation": statistics.stdev(lesson), "whole": whole}}
    machine.write("time-to-quality", {**values, "set": given.set, "runs": rows}, "\n".join(page), given.results)
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
