"""The plot of losses by step, of one run or of several, and the colour of each: the table of runs is its legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import pandas as pd

from diffsteer.app.runs import Card
from diffsteer.app.words import Say

# Vega's own ten colours, which differ for the colour-blind too (tableau10).
COLORS = ("#4c78a8", "#f58518", "#e45756", "#72b7b2", "#54a24b", "#eeca3b", "#b279a2", "#ff9da6", "#9d755d", "#bab0ac")


def loss_plot(say: Say, elem_id: str) -> Any:
    """The component, empty and hidden."""
    return gr.LinePlot(
        None, x="step", y="loss", color="run", title=say("train.loss"), x_title=say("train.step"), y_title=say("train.mean_loss"),
        colors_in_legend=[], height=240, visible=False, buttons=[], elem_id=elem_id,
    )  # fmt: skip


def losses(cards: Sequence[Card]) -> Any:
    """Its update: a line for each run; shown once there is one to be drawn."""
    points = [(card.name, step, loss) for card in cards for step, loss in card.curve]
    curves = pd.DataFrame(points, columns=["run", "step", "loss"])
    return gr.update(value=curves, visible=any(len(card.curve) > 1 for card in cards), color_map=colors([card.name for card in cards]))


def colors(names: Sequence[str]) -> dict[str, str]:
    """The colour of each run's line, in their order."""
    return {name: COLORS[index % len(COLORS)] for index, name in enumerate(names)}
