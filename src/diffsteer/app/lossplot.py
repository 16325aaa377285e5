"""The plot of losses by step, of one run or of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import pandas as pd

from diffsteer.app.runs import Card
from diffsteer.app.words import Say


def loss_plot(say: Say, elem_id: str) -> Any:
    """The component, empty and hidden."""
    return gr.LinePlot(
        None, x="step", y="loss", color="run", title=say("train.loss"), x_title=say("train.step"), y_title=say("train.mean_loss"),
        color_title=say("train.run"), height=240, visible=False, buttons=[], elem_id=elem_id,
    )  # fmt: skip


def losses(cards: Sequence[Card]) -> Any:
    """Its update: a line for each run; shown once there is one to be drawn."""
    points = [(card.name, step, loss) for card in cards for step, loss in card.curve]
    curves = pd.DataFrame(points, columns=["run", "step", "loss"])
    return gr.update(value=curves, visible=any(len(card.curve) > 1 for card in cards))
