"""Curves: the loss of a run, runs beside one another, and how steers are weighed by noise level. matplotlib lives here only."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from diffsteer.data.whole import whole_file
from diffsteer.diffusion.process import Process
from diffsteer.steering.strength import SCALINGS, level_at

LEGEND_LETTERS = 130  # of a line in a comparison's legend


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


class Point(NamedTuple):
    """A value after so many minutes of training, and its standard error."""

    minutes: float
    value: float
    error: float = 0.0


@dataclass(frozen=True)
class Panel:
    """One measure of several runs over time. apart: what differs from what the panels before rest on. share: told in per cent.

    floor: what real pictures score. each_step: a point is a single step's, so the running mean is drawn.
    """

    title: str
    lines: Mapping[str, Sequence[Point]]
    apart: Sequence[str] = ()
    share: bool = False
    floor: float | None = None
    each_step: bool = False


def write_comparison(panels: Sequence[Panel], labels: Mapping[str, str], path: Path) -> None:
    """The panels, two a row, with one legend; a run has one colour in all of them. labels: what the legend says of each run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter, StrMethodFormatter

    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    beside = 2 if len(panels) > 1 and max(map(len, labels.values())) <= LEGEND_LETTERS // 2 else 1
    said = [textwrap.fill(label, LEGEND_LETTERS, max_lines=3, placeholder=" …") for label in labels.values()]
    lines = sum(text.count("\n") + 1 for text in said) / beside
    figure = Figure(figsize=(10, 4 * rows + 0.4 + 0.17 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    styles: dict[str, dict[str, Any]] = {
        run: {"color": f"C{place % 10}", "linestyle": ("-", "--", ":")[place // 10 % 3]} for place, run in enumerate(labels)
    }
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        for run, points in panel.lines.items():
            _draw_run(axes, points, panel.each_step, styles[run])
        if panel.floor is not None:
            axes.axhline(panel.floor, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
            inside = "top" if panel.share else "bottom"  # of a share it is near the upper end, of a distance near the lower
            axes.annotate("real pictures", (0.01, panel.floor), xycoords=("axes fraction", "data"), fontsize=7, va=inside)
        if panel.share:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        else:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        other = f": other {', '.join(panel.apart)}" if panel.apart else ""
        axes.set_title(textwrap.fill(f"{panel.title}{', running mean' if panel.each_step else ''}{other}", 75), fontsize=9)
        axes.set_xlabel("minutes of training")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.25)
    handles = [figure.axes[0].plot([], [], **style)[0] for style in styles.values()]
    figure.legend(handles, said, loc="outside lower left", ncols=beside, frameon=False, fontsize=8)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, metadata={"Software": None})


def _draw_run(axes: Any, points: Sequence[Point], each_step: bool, style: Mapping[str, Any]) -> None:
    if not points:
        return
    minutes, values, errors = map(list, zip(*points, strict=True))
    if each_step:
        # The clock is read every few steps: of those that share a reading the last stands for all.
        by_clock = dict(zip(minutes, _running_mean(values), strict=True))
        axes.plot(list(by_clock), list(by_clock.values()), linewidth=1.4, marker="." if len(by_clock) == 1 else None, **style)
        return
    axes.plot(minutes, values, linewidth=1.4, marker="o", markersize=3, **style)
    low, high = ([value + sign * error for value, error in zip(values, errors, strict=True)] for sign in (-1, 1))
    axes.fill_between(minutes, low, high, color=style["color"], alpha=0.12, linewidth=0)
