"""Pictures by label and seed: what `diffsteer sample`, previews and the library's `sample` call.

In: a denoiser and a list of (label id, seed). Out: uint8 pictures in that order, and the steps on the way when they are wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsteer.data.pixels import to_uint8
from diffsteer.diffusion.conditioning import parse_labels
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.seeds import PictureNoise
from diffsteer.errors import Mistake
from diffsteer.sampling.pipeline import choose, prepare, trajectory
from diffsteer.sampling.solvers import Step
from diffsteer.steering.gradient import Steer, SteeredDenoiser
from diffsteer.steering.mixing import DenoiserLike, Mixing

BATCH = 64
MOST_STEPS = 100_000  # a hundred times what any schedule was made for


class Job(NamedTuple):
    """One picture to draw."""

    label: int | None
    seed: int


@dataclass(frozen=True)
class How:
    """How pictures are drawn; `resolved` fills in the model's own choices. What is no solver's is as in `steering.mixing.Mixing`."""

    solver: str | None = None
    steps: int | None = None
    spacing: str | None = None
    guidance_scale: float | None = None
    guidance_interval: tuple[float, float] | None = None
    guidance_rescale: float = 0.0
    dynamic_threshold: float | None = None
    autoguidance_scale: float = 1.0

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
        asked = self.guidance_interval
        interval = asked or (spec.guidance_interval if scale != 1 else (0.0, 1.0))
        chosen = replace(self, solver=solver, steps=steps, spacing=spacing, guidance_scale=scale, guidance_interval=interval)
        chosen._check_numbers()
        if scale != 1 and not spec.labelled:
            raise Mistake(
                "--guidance-scale is label guidance, and this model has no labels. "
                "If you meant the strength of a steer, write it after its colon: --steer color=#1ae680:2."
            )
        if scale != 1 and not spec.null_class:
            raise Mistake(
                "--guidance-scale needs a model trained with --label-dropout above 0 (0.1 is usual); this one knows no null class."
            )
        if scale == 1 and (asked not in (None, (0.0, 1.0)) or self.guidance_rescale):
            flag = "--guidance-rescale" if self.guidance_rescale else "--guidance-interval"
            raise Mistake(f"{flag} says how label guidance is done, and there is none: give --guidance-scale, for example 2.")
        return chosen

    def _check_numbers(self) -> None:
        for name, value in (("guidance", self.guidance_scale), ("autoguidance", self.autoguidance_scale)):
            if value is None or not math.isfinite(value):
                raise Mistake(f"--{name}{'-scale' if name == 'guidance' else ''} should be a number; {value} was given.")
        low, high = self.guidance_interval or (0.0, 1.0)
        if not 0 <= low < high <= 1:
            raise Mistake(
                f"--guidance-interval is two noise levels from 0 (clean) to 1 (noise), such as 0.2-0.9; {low:g}-{high:g} was given."
            )
        if not 0 <= self.guidance_rescale <= 1:
            raise Mistake(f"--guidance-rescale should be from 0 to 1; {self.guidance_rescale:g} was given.")
        if self.dynamic_threshold is not None and not 0.5 <= self.dynamic_threshold <= 1:
            raise Mistake(
                f"--dynamic-threshold is a share of the values from 0.5 to 1, such as 0.995; {self.dynamic_threshold:g} was given."
            )

    @property
    def mixing(self) -> Mixing:
        """The part that mixes denoisers; `resolved` first."""
        assert self.guidance_scale is not None and self.guidance_interval is not None
        return Mixing(self.guidance_scale, self.guidance_interval, self.guidance_rescale, self.dynamic_threshold, self.autoguidance_scale)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Drawn:
    """pictures uint8 [N, C, H, W] in the jobs' order; x_t and x0 uint8 [steps + 1, N, C, H, W] when the film was asked for.

    losses: of each steer by name, [steps + 1, N]: of the x0 that each step found before it was moved, and last of the picture. NaN where
    the steer did not act. notes: sentences for the user about the drawing.
    """

    pictures: Tensor
    jobs: tuple[Job, ...]
    x_t: Tensor | None = None
    x0: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def first_and_last(self) -> dict[str, tuple[float, float]]:
        """Of each steer by name, its mean loss over the pictures at the first step at which it acted, and of the pictures."""
        acted = {name: told[~told.isnan().any(1)].mean(1) for name, told in self.losses.items()}
        return {name: (float(told[0]), float(told[-1])) for name, told in acted.items()}


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
    steers: Sequence[Steer] = (),
    guide: Denoiser | None = None,
    film: bool = False,
    device: str | torch.device = "cpu",
    batch: int = BATCH,
    watch: Callable[[int], None] | None = None,
    look: Callable[[Step], None] | None = None,
) -> Drawn:
    """Draws the jobs, `batch` pictures at a time; `watch` is told of each network step done, for a progress bar. Raises Mistake.

    steers: losses that steer, together. guide: the worse model of autoguidance. look: is shown each step's state; what it raises ends the
    drawing.
    """
    how = (how or How()).resolved(denoiser.spec)
    parts = []
    with _checkpointed(denoiser.network, any(steer.checkpoint for steer in steers)):
        for first in range(0, len(jobs), batch):
            walk = _Walk(denoiser, jobs[first : first + batch], steers)
            parts.append(walk.draw(how, guide, film, device, watch, look))
    return joined(parts)


class _Walk:
    """One batch on its way from noise to pictures."""

    def __init__(self, denoiser: Denoiser, jobs: Sequence[Job], steers: Sequence[Steer]) -> None:
        self.denoiser, self.jobs, self.steers = denoiser, tuple(jobs), steers
        self.steered: SteeredDenoiser | None = None

    def draw(
        self,
        how: How,
        guide: Denoiser | None,
        film: bool,
        device: str | torch.device,
        watch: Callable[[int], None] | None,
        look: Callable[[Step], None] | None,
    ) -> Drawn:
        spec = self.denoiser.spec
        noise = PictureNoise.from_seeds([job.seed for job in self.jobs], spec.shape, spec.process.noise)
        labels = torch.tensor([job.label for job in self.jobs], device=device) if spec.labelled else None
        noisy, clean, told = [], [], []
        for state in trajectory(
            self.denoiser, noise, labels, solver=str(how.solver), steps=int(how.steps or 1), spacing=how.spacing, mixing=how.mixing,
            guide=guide, steer=self.steer if self.steers else None, device=device,
            recurrence=max((steer.recurrence for steer in self.steers), default=1),
        ):  # fmt: skip
            if film:
                noisy.append(to_uint8(state.x_t).cpu())
                clean.append(to_uint8(state.x0).cpu())
            if self.steered is not None:
                told.append(dict(self.steered.losses))
            if watch:
                watch(state.step)
            if look:
                look(state)
        losses = self._trace(told, state.x0)
        pictures = to_uint8(state.x0).cpu()
        film_x_t, film_x0 = (torch.stack(noisy), torch.stack(clean)) if film else (None, None)
        return Drawn(pictures, self.jobs, film_x_t, film_x0, losses, self._notes())

    def _notes(self) -> tuple[str, ...]:
        at_once = self.steered.pictures_at_once if self.steered else None
        if at_once is None or at_once >= len(self.jobs):
            return ()
        return (f"The gradient of {len(self.jobs)} pictures would not fit into half the free memory: it was taken {at_once} at a time.",)

    def steer(self, denoiser: DenoiserLike, times: Tensor, clip: bool) -> SteeredDenoiser:
        """Puts the steers between the solver and the denoiser."""
        spec, seeds = self.denoiser.spec, [job.seed for job in self.jobs]
        self.steered = SteeredDenoiser(denoiser, self.steers, spec.process, seeds, variance=spec.data_variance, times=times, clip=clip)
        return self.steered

    def _trace(self, told: Sequence[dict[str, Tensor]], x0: Tensor) -> dict[str, Tensor]:
        if self.steered is None:
            return {}
        last = self.steered.losses_of(x0)
        silent = torch.full((len(self.jobs),), math.nan)
        return {
            name: torch.stack([*(losses.get(name, silent).float().cpu() for losses in told[:-1]), last[name].float().cpu()])
            for name in last
        }


def joined(parts: Sequence[Drawn]) -> Drawn:
    """Batches as one drawing."""
    return Drawn(
        torch.cat([part.pictures for part in parts]),
        tuple(job for part in parts for job in part.jobs),
        None if parts[0].x_t is None else torch.cat([part.x_t for part in parts if part.x_t is not None], 1),
        None if parts[0].x0 is None else torch.cat([part.x0 for part in parts if part.x0 is not None], 1),
        {name: torch.cat([part.losses[name] for part in parts], 1) for name in parts[0].losses},
        tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


@contextmanager
def _checkpointed(network: Any, wanted: bool) -> Iterator[None]:
    """Gradient checkpointing (Chen et al. 2016) for the gradient of a steer. Mistake for a network that cannot."""
    if wanted and not getattr(network, "_supports_gradient_checkpointing", False):
        raise Mistake(f"checkpoint=on: a {type(network).__name__} cannot find its inner values again; leave it out.")
    if wanted:
        network.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if wanted:
            network.disable_gradient_checkpointing()
