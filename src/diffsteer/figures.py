"""The figures of a run: what it was shown, what it learnt, how it draws. One function a figure and one line in the table at the end.

Curves are drawn in `curves.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffsteer import curves
from diffsteer.data import pixels
from diffsteer.data.batch import Pictures
from diffsteer.diffusion.denoiser import Denoiser
from diffsteer.diffusion.process import Process
from diffsteer.diffusion.seeds import generator_for
from diffsteer.sampling.draw import How, Job, draw

EIGHT = 8


@dataclass(frozen=True)
class Scene:
    """What a figure is made from. `rows` are the lines of metrics.jsonl; `invert` shows grey data as ink on paper."""

    data: Pictures
    denoiser: Denoiser
    rows: Sequence[dict[str, Any]]
    seed: int
    device: str

    @property
    def invert(self) -> bool:
        """Dark grey pictures (digits) are shown as ink on paper, as the lessons do."""
        return self.data.channels == 1 and self.data.mean < 0

    def eight(self) -> tuple[Tensor, list[str] | None]:
        """The first eight pictures of the shuffled data, uint8 [8, C, H, W], and their class names."""
        batch = self.data.take(self.seed, 0, 0, min(EIGHT, self.data.count))
        names = None if batch.labels is None else [self.data.label_names[i] for i in batch.labels.tolist()]
        return batch.pixels.cpu(), names

    def noise(self, like: Tensor, process: Process) -> Tensor:
        generator = generator_for(self.seed, "figures")
        if process.noise == "uniform":
            return torch.rand(like.shape, generator=generator) * 2 - 1
        return torch.randn(like.shape, generator=generator)

    def row(self, pictures: Tensor, captions: Sequence[str] | None = None) -> Image.Image:
        return pixels.grid(pictures, columns=len(pictures), captions=captions, invert=self.invert)


def data_row(scene: Scene) -> Image.Image:
    """Eight pictures of the data with their labels."""
    pictures, names = scene.eight()
    return scene.row(pictures, names)


def corruption(scene: Scene) -> Image.Image:
    """Eight pictures, and the same under noise that grows from none to all."""
    pictures, _ = scene.eight()
    noisy, t = _corrupted(scene, pictures)
    share = [f"{x:.2f}" for x in (t / scene.denoiser.spec.process.t_max).tolist()]
    return pixels.stack([scene.row(pictures), scene.row(pixels.to_uint8(noisy), share)], ["Input data", "Corrupted data"])


@torch.no_grad()
def predictions(scene: Scene) -> Image.Image:
    """Eight pictures, the same under growing noise, and what the network makes of them in one go."""
    pictures, _ = scene.eight()
    noisy, t = _corrupted(scene, pictures)
    spec = scene.denoiser.spec
    labels = scene.data.take(scene.seed, 0, 0, len(pictures)).labels if spec.labelled else None
    device = scene.device
    clean = scene.denoiser(noisy.to(device), t.to(device), None if labels is None else labels.to(device)).cpu()
    rows = [scene.row(pictures), scene.row(pixels.to_uint8(noisy)), scene.row(pixels.to_uint8(clean))]
    return pixels.stack(rows, ["Input data", "Corrupted data", "Network predictions"])


def noisy_rows(scene: Scene) -> Image.Image:
    """Clean, noisy clipped, and noisy pictures on the linear schedule at t = linspace(0, 999, 8)."""
    pictures, _ = scene.eight()
    x0 = pixels.to_signed(pictures)
    process = Process("linear")
    t = torch.linspace(0, 999, len(pictures)).long()
    noisy = process.add_noise(x0, scene.noise(x0, process), t)
    low, high = noisy.min(), noisy.max()
    whole = pixels.to_uint8((noisy - low) / (high - low) * 2 - 1)
    captions = [f"t={int(i)}" for i in t]
    rows = [scene.row(pictures), scene.row(pixels.to_uint8(noisy)), scene.row(whole, captions)]
    return pixels.stack(rows, ["Clean", "Noisy (clipped to [-1, 1])", f"Noisy (whole range, {low:.1f} to {high:.1f})"])


def step_sheet(scene: Scene) -> Image.Image:
    """x and the predicted picture at each of five steps, eight pictures."""
    drawn = draw(scene.denoiser, _first_jobs(scene, EIGHT), How(steps=5), film=True, device=scene.device)
    assert drawn.x_t is not None and drawn.x0 is not None
    return film_sheet(drawn.x_t, drawn.x0, range(5), invert=scene.invert)


def x_and_x0(scene: Scene) -> Image.Image:
    """x beside the predicted picture at steps 0, 10, 20, 30 and 39 of a 40-step run of ddim, leading."""
    how = How(solver="ddim", steps=40, spacing="leading" if scene.denoiser.spec.process.variance_preserving else None)
    drawn = draw(scene.denoiser, _first_jobs(scene, EIGHT), how, film=True, device=scene.device)
    assert drawn.x_t is not None and drawn.x0 is not None
    return film_sheet(drawn.x_t, drawn.x0, (0, 10, 20, 30, 39), invert=scene.invert)


def grid_64(scene: Scene) -> Image.Image:
    """64 pictures in 40 steps."""
    drawn = draw(scene.denoiser, _first_jobs(scene, 64), How(steps=40), device=scene.device)
    return pixels.grid(drawn.pictures, columns=8, invert=scene.invert)


def by_label(scene: Scene) -> Image.Image:
    """Eight pictures of every label (of the first ten), drawn as the model says."""
    spec = scene.denoiser.spec
    names = spec.label_names[:10] if spec.labelled else None
    jobs = (
        [Job(label, seed) for seed, label in enumerate(i for i in range(len(names)) for _ in range(EIGHT))]
        if names
        else _first_jobs(scene, 64)
    )
    drawn = draw(scene.denoiser, jobs, device=scene.device)
    return pixels.grid(drawn.pictures, columns=EIGHT, row_labels=names, invert=scene.invert)


def guidance_scaling(scene: Scene) -> Image.Image:
    """The lesson's "Possible guidance scaling schedules", on this model's process."""
    return curves.scaling_schedules(scene.denoiser.spec.process)


def film_sheet(x_t: Tensor, x0: Tensor, steps: Sequence[int] | range, *, losses: Tensor | None = None, invert: bool = False) -> Image.Image:
    """x_t beside x0, uint8 [steps, N, C, H, W], at the chosen steps, a row a step; under steering, each x0's loss [steps, N] beneath it."""

    def column(states: Tensor, under: Tensor | None) -> Image.Image:
        chosen = states[list(steps)]  # [k, N, C, H, W]
        count = chosen.shape[1]
        told = None if under is None else [_short(loss) for k in steps for loss in under[k, :count].tolist()]
        return pixels.grid(chosen.flatten(0, 1), columns=count, row_labels=[f"step {k}" for k in steps], captions=told, invert=invert)

    blank = None if losses is None else torch.full_like(losses, float("nan"))
    titles = ["x (the network's input)", "predicted picture" + ("" if losses is None else ", moved, and its loss before")]
    return pixels.side_by_side([column(x_t, blank), column(x0, losses)], titles)


def film_frames(x_t: Tensor, x0: Tensor, *, columns: int, losses: Sequence[str] | None = None, invert: bool = False) -> list[Image.Image]:
    """One frame a step: the grid of x_t beside the grid of x0; uint8 [steps, N, C, H, W]. losses: what to say of each step's."""
    frames = []
    for k, (a, b) in enumerate(zip(x_t, x0, strict=True)):
        pair = (pixels.grid(a, columns=columns, invert=invert), pixels.grid(b, columns=columns, invert=invert))
        beside = pixels.side_by_side(pair, [f"x, step {k}", "predicted picture"])
        frames.append(beside if losses is None else pixels.stack([beside], [f"loss: {losses[k]}"]))
    return pixels.padded(frames)


def _short(loss: float) -> str:
    """A loss in few characters; nothing where there is none."""
    return "" if loss != loss else f"{loss:.3g}"


def chosen_steps(steps: int) -> list[int]:
    """The steps that a sheet shows: all of a few, else the first, the quarters and the last."""
    return list(range(steps)) if steps <= 6 else sorted({0, steps // 4, steps // 2, 3 * steps // 4, steps - 1})


def _corrupted(scene: Scene, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The pictures under noise that grows evenly in t from the first to the last; x_t and t."""
    process = scene.denoiser.spec.process
    x0 = pixels.to_signed(pictures)
    t = torch.linspace(0, process.t_max, len(x0))
    return process.add_noise(x0, scene.noise(x0, process), t), t


def _first_jobs(scene: Scene, count: int) -> list[Job]:
    spec = scene.denoiser.spec
    return [Job(seed % len(spec.label_names) if spec.labelled else None, seed) for seed in range(count)]


FIGURES: dict[str, Callable[[Scene], Image.Image]] = {
    "data": data_row,
    "corruption": corruption,
    "predictions": predictions,
    "noisy-rows": noisy_rows,
    "step-sheet": step_sheet,
    "grid-64": grid_64,
    "x-and-x0": x_and_x0,
    "by-label": by_label,
    "guidance-scaling": guidance_scaling,
}
