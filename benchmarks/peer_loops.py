"""One loop of one peer, run inside that peer's environment by peers.py: an item of work for each line on standard input.

    python peer_loops.py PEER training|sampling PICTURES SCRATCH [--script train_unconditional.py]

PICTURES is a folder of PNGs, SCRATCH one to write into. First a line of JSON says what an item is: how many `pictures` it counts for, and
in words what is run (`says`). Then `done` for each item. Of sampling an item is one step, and counts for its share of the pictures that
all steps draw. Everything is the peer's own default, or its own example's, but for what `says` names.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch


class Turns:
    """Whoever asks, waits: for the next line on standard input, after having said that the item before it is done."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is not for the other side

    def announce(self, pictures: float, says: str) -> None:
        self._tell(json.dumps({"pictures": pictures, "says": says}))
        self._wait()

    def done(self) -> None:
        self._tell("done")
        self._wait()

    def through(self, items: Iterator[Any]) -> NoReturn:
        for _ in items:
            self.done()
        raise RuntimeError("the loop ended")

    def _tell(self, words: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.out.write(words + "\n")
        self.out.flush()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            raise SystemExit(0)


def stand_in() -> None:
    """Lets `torchvision` be imported where it is missing. Not before transformers is, which would take it for the real one."""
    if importlib.util.find_spec("torchvision") is None:
        sys.path.append(str(Path(__file__).parent / "stand_in"))


# ---- smalldiffusion: its example fashion_mnist_unet.py, on these pictures ----------------------------------------------


def smalldiffusion(turns: Turns, what: str, given: argparse.Namespace) -> NoReturn:
    stand_in()
    from accelerate import Accelerator
    from PIL import Image
    from smalldiffusion import MappedDataset, Scaled, ScheduleLogLinear, Unet, img_train_transform, samples, training_loop
    from torch_ema import ExponentialMovingAverage

    accelerator = Accelerator()
    schedule = ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
    model = Scaled(Unet)(28, 1, 1, ch=64, ch_mult=(1, 1, 2), attn_resolutions=(14,))
    if what == "sampling":
        model.to(accelerator.device)

        def steps() -> Iterator[Any]:
            while True:
                yield from samples(model, schedule.sample_sigmas(20), gam=1.6, batchsize=64, accelerator=accelerator)

        turns.announce(64 / 20, "28x28, 20 steps")
        turns.through(steps())
    batch = 1024 if accelerator.device.type == "cuda" else 128
    pictures = [Image.open(path).copy() for path in sorted(given.pictures.glob("*.png"))]
    loader = torch.utils.data.DataLoader(MappedDataset(pictures, img_train_transform), batch_size=batch, shuffle=True, drop_last=True)
    average = ExponentialMovingAverage(model.parameters(), decay=0.999)
    average.to(accelerator.device)

    def training() -> Iterator[Any]:
        for state in training_loop(loader, model, schedule, lr=7e-4, accelerator=accelerator):
            state.pbar.set_description(f"Loss={state.loss.item():.5}")
            average.update()
            yield state

    less = "" if batch == 1024 else ", for its example's 1,024, which take minutes a step on a CPU"
    turns.announce(batch, f"28x28, batch {batch}{less}")
    turns.through(training())


# ---- denoising-diffusion-pytorch: its README's network and Trainer -----------------------------------------------------


def denoising_diffusion_pytorch(turns: Turns, what: str, given: argparse.Namespace) -> NoReturn:
    stand_in()
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet

    diffusion = GaussianDiffusion(Unet(dim=64), image_size=32)
    if what == "sampling":
        diffusion.to("cuda" if torch.cuda.is_available() else "cpu")

        def steps() -> Iterator[Any]:
            while True:
                x = torch.randn(16, 3, 32, 32, device=diffusion.device)
                for t in reversed(range(diffusion.num_timesteps)):
                    x, _ = diffusion.p_sample(x, t)
                    yield

        turns.announce(16 / diffusion.num_timesteps, f"32x32 (its network halves thrice), RGB, {diffusion.num_timesteps} steps")
        turns.through(steps())
    trainer = Trainer(diffusion, str(given.pictures), calculate_fid=False, results_folder=str(given.scratch))
    update = trainer.ema.update

    def updated() -> None:
        """What ends a step of the Trainer's."""
        update()
        turns.done()

    trainer.ema.update = updated
    turns.announce(trainer.batch_size, f"32x32 (its network halves thrice), RGB, batch {trainer.batch_size}, no FID on the way")
    trainer.train()
    raise RuntimeError("the loop ended")


# ---- diffusers: train_unconditional.py of its examples -----------------------------------------------------------------


def diffusers_script(turns: Turns, what: str, given: argparse.Namespace) -> NoReturn:
    from accelerate import Accelerator
    from diffusers import DDPMScheduler, UNet2DModel

    stand_in()
    if what == "sampling":
        scheduler = DDPMScheduler(num_train_timesteps=1000)
        down = [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"]
        up = ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4]
        channels = (128, 128, 256, 256, 512, 512)
        network = UNet2DModel(32, 3, 3, down_block_types=down, up_block_types=up, block_out_channels=channels).eval()
        network.to("cuda" if torch.cuda.is_available() else "cpu")

        def steps() -> Iterator[Any]:
            """As `DDPMPipeline` does it."""
            while True:
                x = torch.randn(16, 3, 32, 32, device=network.device)
                for t in scheduler.timesteps:
                    with torch.no_grad():
                        x = scheduler.step(network(x, t).sample, t, x).prev_sample
                    yield

        turns.announce(16 / 1000, "32x32 (its network halves five times), RGB, 1000 steps")
        turns.through(steps())
    log, begun = Accelerator.log, False

    def logged(self: Accelerator, *words: Any, **more: Any) -> None:
        """What the script calls at the end of each step."""
        nonlocal begun
        log(self, *words, **more)
        if begun:
            turns.done()
        else:  # the first step is its start
            begun = True
            turns.announce(16, "32x32 (its network halves five times), RGB, batch 16")

    Accelerator.log = logged
    flags = ["--train_data_dir", str(given.pictures), "--resolution", "32", "--output_dir", str(given.scratch / "model")]
    sys.argv = [str(given.script), *flags, "--cache_dir", str(given.scratch / "cache")]
    runpy.run_path(str(given.script), run_name="__main__")
    raise RuntimeError("the loop ended")


PEERS = {
    "smalldiffusion": smalldiffusion,
    "denoising-diffusion-pytorch": denoising_diffusion_pytorch,
    "diffusers": diffusers_script,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("what", choices=("training", "sampling"))
    parser.add_argument("pictures", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--script", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    PEERS[given.peer](Turns(), given.what, given)


if __name__ == "__main__":
    main()
