"""What a run tells its trackers (TensorBoard, Weights & Biases, Trackio): settings, losses, scores and previews, under the run's own name.

accelerate speaks to each of them, but hands pictures to none alike, and to Trackio not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image

from diffsteer.config import TrainSettings


class Trackers:
    """The trackers that the settings name; none is fine. run: the run's folder, where those write that write files.

    Trackio keeps a data base of all projects in a place of its own (TRACKIO_DIR).
    """

    def __init__(self, accelerator: Accelerator, settings: TrainSettings, run: Path) -> None:
        self.accelerator, self.settings, self.run = accelerator, settings, run

    def start(self) -> None:
        """Opens them. To be called on every process, before anything is told."""
        if not self.settings.track:
            return
        files = self.run / "trackers"
        files.mkdir(exist_ok=True)
        name = self.run.resolve().name
        asked = {"wandb": {"dir": str(files), "name": name}, "trackio": {"name": name}}  # W&B would write into the working directory
        self.accelerator.init_trackers(self.settings.project, config=_flat(self.settings), init_kwargs=asked)

    def losses(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Lines of metrics.jsonl."""
        for row in rows if self.settings.track else ():
            levels = {f"loss/noise_{i}": value for i, value in enumerate(row["loss_by_noise"]) if value is not None}
            self.accelerator.log({"loss": row["loss"], "lr": row["lr"], "grad_norm": row["grad_norm"], **levels}, step=row["step"])

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """What a look at this step gave."""
        self.accelerator.log({f"scores/{kind}": value for kind, value in scores.items()}, step=step)

    def preview(self, step: int, picture: Image.Image) -> None:
        """The previews of this step, one picture."""
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({"preview": np.asarray(picture.convert("RGB"))[None]}, step=step, dataformats="NHWC")
            elif tracker.name == "trackio":
                import trackio

                tracker.log({"preview": trackio.Image(picture)}, step=step)
            else:
                tracker.log_images({"preview": [picture]}, step=step)


def _flat(settings: TrainSettings) -> dict[str, Any]:
    """Settings as trackers take them: numbers, words and truth values."""
    return {
        key: value if isinstance(value, int | float | str | bool) else str(value) for key, value in settings.model_dump(mode="json").items()
    }
