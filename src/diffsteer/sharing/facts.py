"""What is known of a model when it is shared: what its folder says, and its run's, where they lie together. Nothing is guessed.

In: MODEL. Out: `Known`; None stands for what nobody wrote down. Called by `card.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsteer.config import TrainSettings
from diffsteer.diffusion.denoiser import Denoiser
from diffsteer.record import Scoring, Trained, read_record
from diffsteer.runfolder import Resolved, RunFolder
from diffsteer.sampling.folder import find_model, load_model, opens_with_stock


@dataclass(frozen=True)
class Run:
    """A model's training: its folder, its settings, what was decided at its beginning, and how far it came."""

    path: Path
    settings: TrainSettings
    resolved: Resolved
    trained: Trained


@dataclass(frozen=True)
class Known:
    """folder: the model's. pipeline: the diffusers class that opens it, `DiffsteerPipeline` where it brings its own code.

    scoring, copies: of `diffsteer evaluate`; copies as `Copies.to_dict` has it. outdated: whether there are scores, but of weights that
    have been trained further since; they are left out.
    """

    folder: Path
    denoiser: Denoiser
    pipeline: str
    run: Run | None
    scoring: Scoring | None
    copies: Mapping[str, Any] | None
    outdated: bool

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.denoiser.network.parameters())

    @property
    def own_code(self) -> bool:
        """Whether opening it in diffusers runs code of the folder."""
        return self.pipeline == "DiffsteerPipeline"

    @property
    def stock(self) -> bool:
        """Whether diffusers' own DDPMPipeline and DDIMPipeline draw it."""
        return opens_with_stock(self.denoiser.network, self.denoiser.spec)


def read_known(model: str) -> Known:
    """What is known of MODEL. Mistake where it is none, or where its files are not ours."""
    folder = find_model(model)
    denoiser = load_model(str(folder))
    kind = json.loads((folder / "model_index.json").read_text(encoding="utf-8")).get("_class_name")
    run = _run(folder)
    places = [*([run.path] if run else []), folder]
    scored = next((place for place in places if (place / "scores" / "scores.json").is_file()), None)
    file = None if scored is None else scored / "scores" / "scores.json"
    outdated = file is not None and file.stat().st_mtime < max(each.stat().st_mtime for each in _weights(folder))
    fresh = scored is not None and file is not None and not outdated
    return Known(
        folder,
        denoiser,
        kind[1] if isinstance(kind, list) else str(kind),
        run,
        read_record(scored).evaluation if fresh and scored else None,
        json.loads(file.read_text(encoding="utf-8")).get("copies") if fresh and file else None,
        outdated,
    )


def _run(folder: Path) -> Run | None:
    """The run whose model this is: the folder that holds it under the name `model`."""
    run = RunFolder(folder.resolve().parent)
    if folder.resolve() != run.model or not run.exists:
        return None
    trained = read_record(run.path).trained
    assert trained is not None
    return Run(run.path, *run.told(), trained)


def _weights(folder: Path) -> list[Path]:
    return [*folder.glob("**/*.safetensors"), *folder.glob("**/*.bin")]
