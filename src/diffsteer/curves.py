"""Curves: the loss of a run, and how steers are weighed by noise level. matplotlib lives here only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffsteer.data.whole import whole_file
from diffsteer.diffusion.process import Process
from diffsteer.steering.strength import SCALINGS, level_at


def write_loss_curve(rows: Sequence[dict[str, Any]], path: Path, ceiling: float | None = None) -> None:
    """The loss of each step with its running mean, and the running mean by noise level; `ceiling` is the seed's limit of the axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    whole, levels = figure.subplots(1, 2)
    losses = [row["loss"] for row in rows]
    whole.plot(steps, losses, linewidth=0.6, alpha=0.45, color="tab:blue", label="each step")
    whole.plot(steps, _running_mean(losses), linewidth=1.6, color="tab:blue", label="running mean")
    quarters = list(zip(*[row["loss_by_noise"] for row in rows], strict=True))
    for index, values in enumerate(quarters):
        levels.plot(steps, _running_mean(values), linewidth=1.4, label=f"t in {index}/4 to {index + 1}/4")
    levels.set_yscale("log")
    for axes, title in ((whole, "Loss"), (levels, "Loss by noise level (0 clean, 1 noise)")):
        axes.set_title(title)
        axes.set_xlabel("optimizer step")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    top = ceiling or _ceiling(losses)
    whole.set_ylim(0, top)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, metadata={"Software": None})


def _ceiling(losses: Sequence[float]) -> float:
    """Room for all but the highest tenth of a per cent of the losses after the first steps, which would flatten the curve."""
    tail = sorted(losses[len(losses) // 20 :])
    return tail[min(len(tail) - 1, int(len(tail) * 0.999))] * 1.15 if tail else 1.0


def _running_mean(values: Sequence[float | None]) -> list[float]:
    """Exponential running mean over about 2 % of the run; None is a step without pictures at that level."""
    share = 1 / max(1, len(values) // 50)
    mean, out = float("nan"), []
    for value in values:
        if value is not None:
            mean = value if mean != mean else mean + share * (value - mean)
        out.append(mean)
    return out


def scaling_schedules(process: Process) -> Image.Image:
    """The course's "Possible guidance scaling schedules" over the process's time: what a gradient that moves x_t is multiplied by."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    times = torch.linspace(0, process.t_max, 201, dtype=torch.float64)
    alpha_bars = [level_at(process, t).alpha_bar for t in times]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, weight in SCALINGS.items():
        if name != "seed":  # the same as none
            axes.plot(times.tolist(), [weight(alpha_bar) for alpha_bar in alpha_bars], label=name)
    axes.set_title("Possible guidance scaling schedules")
    axes.set_xlabel(f"t of the process {process.name} (0 clean, {process.t_max:g} noise)")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, dpi=110, metadata={"Software": None})
    return Image.open(file).convert("RGB")
