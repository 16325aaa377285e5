"""Previews: the same seeds drawn again and again during training, with the raw weights and their average side by side."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import nn

from diffsteer.data import pixels
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.networks import size_multiple
from diffsteer.sampling.draw import How, Job, draw

# A few steps of a good solver show what the weights know as well as a thousand of a slow one, and cost little of the run's time.
PREVIEW = How(solver="dpm++2m", steps=10, guidance_scale=1.0)
LABELS, EACH = 8, 4
LARGE = 128 * 128  # pixels


def preview_jobs(spec: ModelSpec) -> list[Job]:
    """Four pictures of each of the first labels, or 16 of a model without; of large pictures, which take long, a quarter."""
    each = 1 if spec.height * spec.width > LARGE else EACH
    if spec.labelled:
        return [Job(label, seed) for label in range(min(LABELS, len(spec.label_names))) for seed in range(each)]
    return [Job(None, seed) for seed in range(each * 4)]


def preview_how(spec: ModelSpec) -> How:
    """How a preview is drawn: alike for all, but for a model whose answers suit its own solver only."""
    return How() if spec.consistency else PREVIEW


def preview(raw: nn.Module, ema: nn.Module | None, spec: ModelSpec, device: object) -> Image.Image:
    """The picture of one preview: raw weights, and beside them their average."""
    jobs = preview_jobs(spec)
    rows = list(spec.label_names[:LABELS]) if spec.labelled else None
    sheets, titles = [], []
    for title, network in (("raw", raw), ("average (EMA)", ema)):
        if network is None:
            continue
        training = network.training
        network.eval()
        drawn = draw(Denoiser(network, spec, size_multiple(network)), jobs, preview_how(spec), device=str(device))
        network.train(training)
        sheets.append(pixels.grid(drawn.pictures, columns=len(jobs) // len(rows) if rows else EACH, row_labels=rows))
        titles.append(title)
    return pixels.side_by_side(sheets, titles)


def preview_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.png"


def write_film(folder: Path, last_step: int) -> None:
    """previews.gif: every preview up to `last_step`, its step written over it, in order."""
    frames = []
    for path in sorted(folder.glob("step-*.png")):
        step = int(path.stem.removeprefix("step-"))
        if step <= last_step:
            frames.append(pixels.stack([Image.open(path)], [f"step {step}"]))
    pixels.write_gif(frames, folder / "previews.gif", milliseconds=400)
