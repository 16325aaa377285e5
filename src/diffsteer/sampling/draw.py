"""Pictures by label and seed: what `diffsteer sample`, previews and the library's `sample` call.

In: a denoiser and a list of (label id, seed). Out: uint8 pictures in that order, and the steps on the way when they are wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsteer.data.pixels import to_uint8
from diffsteer.diffusion.conditioning import parse_labels
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.seeds import PictureNoise
from diffsteer.errors import Mistake
from diffsteer.sampling.pipeline import choose, prepare, trajectory

BATCH = 64
MOST_STEPS = 100_000  # a hundred times what any schedule was made for


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
        solver, steps, spacing = choose(spec, self.solver, self.steps, self.spacing)
        if steps > MOST_STEPS:
            raise Mistake(f"--steps should be at most {MOST_STEPS}; {steps} was given.")
        try:
            prepare(spec.process, solver, steps, spacing)
        except ValueError as error:
            said = str(error)
            raise Mistake(f"{said[:1].upper()}{said[1:]}{'' if said.endswith('?') else '.'}") from None
        scale = spec.guidance_scale if self.guidance_scale is None else self.guidance_scale
        if not math.isfinite(scale):
            raise Mistake(f"--guidance-scale should be a number; {scale} was given.")
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
    if labels is not None and not spec.labelled:
        raise Mistake("This model was trained without labels; leave --labels out and say --count.")
    for flag, given in (("--labels", labels), ("--seeds", seeds)):
        if given is not None and not len(given):
            raise Mistake(f"{flag} names nothing to draw.")
    for flag, number in (("--per-label", per_label), ("--count", count)):
        if number is not None and number < 1:
            raise Mistake(f"{flag} should be at least 1; {number} was given.")
    ids: list[int | None] = [*parse_labels(["all"] if labels is None else labels, spec.label_names)] if spec.labelled else [None]
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
    pictures, noisy, clean = [], [], []
    for first in range(0, len(jobs), batch):
        some = jobs[first : first + batch]
        noise = PictureNoise.from_seeds([job.seed for job in some], spec.shape, spec.process.noise)
        labels = torch.tensor([job.label for job in some], device=device) if spec.labelled else None
        states_x_t, states_x0 = [], []
        for state in trajectory(denoiser, noise, labels, device=device, **how.as_dict()):
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
