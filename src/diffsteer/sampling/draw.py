"""Pictures by label and seed: what `diffsteer sample`, previews and the library's `sample` call.

In: a denoiser and a list of (label id, seed). Out: uint8 pictures in that order, and the steps on the way when they are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsteer.data.pixels import to_uint8
from diffsteer.diffusion.conditioning import listing, parse_labels
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.seeds import PictureNoise
from diffsteer.errors import Mistake
from diffsteer.sampling.pipeline import trajectory
from diffsteer.sampling.solvers import SOLVERS

BATCH = 64


class Job(NamedTuple):
    """One picture to draw."""

    label: int | None
    seed: int


@dataclass(frozen=True)
class How:
    """How pictures are drawn; `resolved` fills in the model's own choices."""

    solver: str | None = None
    steps: int | None = None
    spacing: str | None = None
    guidance_scale: float | None = None

    def resolved(self, spec: ModelSpec) -> How:
        """The same with every choice made. Raises Mistake where the model cannot do it."""
        solver = self.solver or spec.solver
        steps = self.steps or (spec.steps if solver == spec.solver else default_steps(solver))
        spacing = self.spacing or (spec.spacing if solver == spec.solver else None)
        scale = spec.guidance_scale if self.guidance_scale is None else self.guidance_scale
        if scale != 1 and not spec.labelled:
            raise Mistake(
                "--guidance-scale is label guidance, and this model has no labels. "
                "If you meant the strength of a steer, write it after its colon: --steer color=#1ae680:2."
            )
        if scale != 1 and not spec.null_class:
            raise Mistake(
                "--guidance-scale needs a model trained with --label-dropout above 0 (0.1 is usual); this one knows no null class."
            )
        return How(solver, steps, spacing, scale)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Drawn:
    """pictures uint8 [N, C, H, W] in the jobs' order; x_t and x0 uint8 [steps, N, C, H, W] when the film was asked for."""

    pictures: Tensor
    jobs: tuple[Job, ...]
    x_t: Tensor | None = None
    x0: Tensor | None = None


def default_steps(solver: str) -> int:
    """Steps for a solver that is not the model's own."""
    return SOLVERS[solver].default_steps if solver in SOLVERS else 50


def jobs_for(
    spec: ModelSpec,
    labels: Sequence[str] | None = None,
    *,
    per_label: int | None = None,
    count: int | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Job]:
    """Which pictures to draw. Raises Mistake.

    With seeds every label is drawn with every seed; else `per_label` (8) pictures a label, label by label, or `count` (16 without labels)
    with the labels in turn; seeds 0, 1, 2, ..., one a picture.
    """
    if labels and not spec.labelled:
        raise Mistake("This model was trained without labels; leave --labels out and say --count.")
    ids: list[int | None] = [*parse_labels(labels or ["all"], spec.label_names)] if spec.labelled else [None]
    if seeds is not None:
        if per_label is not None or count is not None:
            raise Mistake("--seeds says which pictures to draw; leave --per-label and --count out beside it.")
        return [Job(label, seed) for label in ids for seed in seeds]
    if per_label is not None and count is not None:
        raise Mistake("--per-label and --count both say how many pictures; give one of them.")
    if per_label is not None and not spec.labelled:
        raise Mistake("--per-label needs a model with labels; say --count.")
    if count is None and spec.labelled:
        each = [label for label in ids for _ in range(per_label or 8)]
        return [Job(label, seed) for seed, label in enumerate(each)]
    return [Job(ids[index % len(ids)], index) for index in range(count or 16)]


def draw(
    denoiser: Denoiser,
    jobs: Sequence[Job],
    how: How | None = None,
    *,
    film: bool = False,
    device: str | torch.device = "cpu",
    batch: int = BATCH,
    watch: Callable[[int], None] | None = None,
) -> Drawn:
    """Draws the jobs, `batch` pictures at a time; `watch` is told of each network step done, for a progress bar. Raises Mistake."""
    spec = denoiser.spec
    how = (how or How()).resolved(spec)
    known_solver(str(how.solver))
    pictures, noisy, clean = [], [], []
    for first in range(0, len(jobs), batch):
        some = jobs[first : first + batch]
        noise = PictureNoise.from_seeds([job.seed for job in some], spec.shape, spec.process.noise)
        labels = torch.tensor([job.label for job in some], device=device) if spec.labelled else None
        states_x_t, states_x0 = [], []
        for state in walk(denoiser, noise, labels, how, device):
            if film:
                states_x_t.append(to_uint8(state.x_t).cpu())
                states_x0.append(to_uint8(state.x0).cpu())
            if watch:
                watch(state.step)
        pictures.append(to_uint8(state.x0).cpu())
        if film:
            noisy.append(torch.stack(states_x_t))
            clean.append(torch.stack(states_x0))
    whole = torch.cat(pictures)
    return Drawn(whole, tuple(jobs), torch.cat(noisy, 1), torch.cat(clean, 1)) if film else Drawn(whole, tuple(jobs))


def walk(denoiser: Denoiser, noise: PictureNoise, labels: Tensor | None, how: How, device: str | torch.device = "cpu") -> Any:
    """The steps of a resolved `How`: our own solver, or a diffusers scheduler by its class name."""
    choice = {
        "solver": str(how.solver),
        "steps": int(how.steps or 1),
        "spacing": how.spacing,
        "guidance_scale": float(how.guidance_scale or 1),
    }
    return trajectory(denoiser, noise, labels, device=device, **choice)  # type: ignore[arg-type]


def known_solver(name: str) -> None:
    """Mistake for a name that is neither a solver of ours nor a diffusers scheduler."""
    if name not in SOLVERS and not name.endswith("Scheduler"):
        raise Mistake(f"There is no solver {name!r}; there are {listing(list(SOLVERS))}, and any diffusers scheduler by its class name.")
