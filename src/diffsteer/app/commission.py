"""What the page's process and the drawing process tell each other: what the model is, what to draw, and how far it is. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from diffsteer.config import SampleSettings


@dataclass(frozen=True)
class About:
    """What the page must know of the model. spacings: how each solver spaces its steps, None where it has its own way. own: what is drawn
    with when nothing is said (solver, steps, guidance scale, the noise levels where that acts)."""

    labels: tuple[str, ...]
    channels: int
    height: int
    width: int
    guidance: bool
    spacings: dict[str, str | None]
    own_solver: str
    own_steps: int
    own_guidance: float
    own_interval: tuple[float, float]
    device: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Commission:
    """What to draw. told: the settings' steers as the person would write them, by the names that they know their pictures by. folder:
    where everything goes. model: its name as it was given, for the recipe; where it lies is not everybody's affair."""

    settings: SampleSettings
    told: tuple[str, ...]
    folder: Path
    model: str


@dataclass(frozen=True)
class Picture:
    """One finished picture; loss: the sum of its steers' losses at the first step and at the end."""

    path: str
    label: str | None
    seed: int
    loss: tuple[float, float] | None = None


@dataclass(frozen=True)
class Shown:
    """How far a drawing is. noisy, clean: a look at x_t and at the predicted x0, files; files: what can be taken away, by suffix."""

    step: int = 0
    steps: int = 0
    noisy: str | None = None
    clean: str | None = None
    pictures: tuple[Picture, ...] = ()
    sheet: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
