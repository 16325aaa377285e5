"""The engine: losses move x0, and a denoiser becomes a steered denoiser. Solvers never hear of it.

With l the strength-weighted losses of a picture, d their gradient in x0 and J = d x0 / d x_t, x0 moves by -m:

- `exact` (Chung et al. 2023, DPS, without their normalisation): m = sigma^2 / alpha * J^T d, one forward pass shared with the step;
- `shortcut` (He et al. 2024, MPGD, without their weights): m = C d, C = sigma^2 v / (alpha^2 v + sigma^2), v the data's variance per value:
  no gradient through the network, and equal to `exact` for Gaussian data;
- `covariance`: `exact` divided by 1 + (sigma^2 / alpha) * max(0, <d, J^T d>) / (2 l), the covariance of x0 given x_t along the gradient.
  It is the posterior of Song et al. 2023 (PiGDM, eq. 8) for one residual, and never moves x0 further than twice what would end the loss.

By Tweedie's formula sigma^2 / alpha * J is Cov[x0 | x_t], so strength 1 is the weight of Bayes' rule in all three. Losses that are linear
observations (`observation.py`) are solved for instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from diffsteer.diffusion.process import Process
from diffsteer.diffusion.seeds import generator_for
from diffsteer.steering.contract import Loss, Moment, NoisyLoss
from diffsteer.steering.memory import pictures_that_fit
from diffsteer.steering.mixing import DenoiserLike
from diffsteer.steering.observation import Observation, solved
from diffsteer.steering.strength import BAYES, CLEAN, SCALINGS, Level, indexed_by_step, level_at

WAYS = ("covariance", "exact", "shortcut")


@dataclass(frozen=True)
class Steer:
    """One loss, and how it moves x0.

    strength: the loss's weight; 1 is the weight of Bayes' rule, 0 is no steer at all.
    way: `covariance`, `exact` or `shortcut`. scaling: `bayes`, or a weight of the course's.
    window: noise levels (0 clean, 1 noise) outside which it does nothing.
    copies, spread: Monte-Carlo smoothing (Song et al. 2023, LGD-MC, eq. 8): the loss becomes -log mean exp(-loss) over this many noisy
        copies of x0, their noise `spread` standard deviations of x0 given x_t (for Gaussian data). 0 copies is off.
    inner: moves on x0 alone after the one through the network (the mean guidance of TFG, Ye et al. 2024, algorithm 1; the backward guidance
        of UGD, Bansal et al. 2023); the two share the strength equally.
    recurrence: how often each step is taken, noise put back between (FreeDoM, Yu et al. 2023; UGD; TFG).
    most: the largest root mean square that a picture's move may have, in [-1, 1] units; None is no limit.
    checkpoint: forget the network's inner values and find them again for the gradient: less memory, about a third more time.
    cell: whether `scaling=seed` means the course's CLIP cell rather than its colour cell.
    """

    loss: Loss
    name: str = "loss"
    strength: float = 1.0
    way: str = "covariance"
    scaling: str = BAYES
    window: tuple[float, float] = (0.0, 1.0)
    copies: int = 0
    spread: float = 1.0
    inner: int = 0
    recurrence: int = 1
    most: float | None = None
    checkpoint: bool = False
    cell: str = "color"

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise ValueError(f"unknown way {self.way!r}; there are {', '.join(WAYS)}")
        if self.scaling != BAYES and self.scaling not in SCALINGS:
            raise ValueError(f"unknown scaling {self.scaling!r}; there are {BAYES}, {', '.join(SCALINGS)}")
        if self.scaling != BAYES and self.way == "covariance":
            raise ValueError(f"scaling {self.scaling} goes with the ways exact and shortcut: covariance has the scale of Bayes' rule")
        if not math.isfinite(self.strength):
            raise ValueError(f"the strength should be a finite number; {self.strength} was given")
        if not 0 <= self.window[0] < self.window[1] <= 1:
            raise ValueError(f"the window is two noise levels from 0 (clean) to 1 (noise), the lower first; {self.window} was given")
        if self.most is not None and not self.most > 0:
            raise ValueError(f"most, the largest move, should be above 0; {self.most:g} was given")

    def acts_at(self, level: Level) -> bool:
        """Whether it moves x0 at this level; the course's steps have no meaning where x_t holds nothing of x0."""
        inside = self.window[0] <= level.noise_level <= self.window[1]
        return self.strength != 0 and inside and (self.scaling == BAYES or level.alpha > 0)


class SteeredDenoiser:
    """A denoiser under steers, for one batch of one drawing: `(x_t, t, cond) -> x0`, held in [-1, 1] if `clip`.

    times: the solver's grid [N], which the course's scalings need. seeds: one a picture. variance: the data's, per value.
    losses: name -> [B], unweighted, of the last call. pictures_at_once: how many pictures a gradient is taken for at a time, once known.
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        steers: Sequence[Steer],
        process: Process,
        seeds: Sequence[int],
        *,
        variance: float = 1.0,
        times: Tensor | None = None,
        clip: bool = True,
    ) -> None:
        self.denoiser, self.process, self.seeds, self.variance, self.clip = denoiser, process, tuple(seeds), variance, clip
        self.steers = tuple(steers)
        self.times = None if times is None else times.double().cpu()
        self.calls = 0
        self.losses: dict[str, Tensor] = {}
        self.pictures_at_once: int | None = None

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
        """x0 [B, C, H, W] after the steers' moves, without a gradient. t: one time for all, a number or [B]; ValueError where it is not."""
        times = torch.as_tensor(t, dtype=torch.float64, device="cpu").flatten()
        if (times != times[0]).any():
            raise ValueError("steers act on pictures of one time; call this once for each time")
        level, time = level_at(self.process, float(times[0])), times[0]
        acting = [steer for steer in self.steers if steer.acts_at(level)]
        at_once = self._at_once(acting, x_t, time, cond, level)
        x0, losses = [], []
        for first in range(0, len(x_t), at_once):
            some = slice(first, first + at_once)
            labels = None if cond is None else cond[some]
            moved, told = self._steered(acting, x_t[some], time, labels, level, self.seeds[some])
            x0.append(moved)
            losses.append(told)
        self.losses = {name: torch.cat([told[name] for told in losses]) for name in losses[0]}
        self.calls += 1
        return torch.cat(x0)

    def finish(self, x0: Tensor) -> Tensor:
        """The last picture, with what was observed without error put back, whatever the solver's last step did to it."""
        for steer in self.steers:
            x0 = steer.loss.restored(x0) if isinstance(steer.loss, Observation) and steer.strength != 0 else x0
        return x0

    @torch.no_grad()
    def losses_of(self, x0: Tensor) -> dict[str, Tensor]:
        """Name -> [B]: every steer's loss of finished pictures [B, C, H, W] in [-1, 1]."""
        moment = Moment(self.seeds, self.calls, 0.0, 0.0, x0)
        return {steer.name: steer.loss((x0 + 1) / 2, moment).detach() for steer in self.steers}

    # ---- one batch ---------------------------------------------------------------------------------------------------

    def _steered(
        self, acting: Sequence[Steer], x_t: Tensor, t: Tensor, cond: Tensor | None, level: Level, seeds: tuple[int, ...]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        through = any(_needs_network(steer) for steer in acting)
        with torch.set_grad_enabled(through):
            x = x_t.detach().requires_grad_(through)
            answer = self.denoiser(x, t, cond)
        x0 = answer.detach()
        moment = Moment(seeds, self.calls, float(t), level.noise_level, x_t.detach() / level.size)
        losses: dict[str, Tensor] = {}
        bayes, course = x0.clone(), torch.zeros_like(x0)  # x0 after the moves of Bayes' rule; the course's moves of x_t, over alpha

        groups = _grouped([steer for steer in acting if not _is_solved(steer) and not isinstance(steer.loss, NoisyLoss)])
        once = not any(map(_is_solved, acting)) and sum(way != "shortcut" for (way, _, _), _ in groups) == 1

        def through_network(d: Tensor) -> Tensor:
            """J^T d; a graph that will be used once is let go on the way back, which halves the peak."""
            return torch.autograd.grad(answer, x, d, retain_graph=not once)[0] if answer.requires_grad else torch.zeros_like(d)

        for steer in filter(_is_solved, acting):
            covariance = self._covariance(steer, level, through_network)
            assert isinstance(steer.loss, Observation)
            losses[steer.name] = steer.loss((x0 + 1) / 2, moment).detach()
            bayes += _limited(solved(steer.loss, x0, covariance, steer.strength), steer.most)
        for steer in (steer for steer in acting if isinstance(steer.loss, NoisyLoss)):
            move, losses[steer.name] = _of_noisy(steer, x_t, level, moment)
            bayes -= _limited(move, steer.most)
        for (way, scaling, _), group in groups:
            loss, d, told = _loss_and_gradient(group, x0, moment, level.prior_covariance(self.variance))
            losses |= told
            if scaling == BAYES:
                bayes -= self._move(group, way, loss, d, through_network, level, x0, moment)
            else:
                pulled = through_network(d) if way == "exact" else d / level.alpha
                course -= _limited(self._course_weight(group[0], level) * pulled / level.alpha, group[0].most)
        for steer in acting:
            bayes = steer.loss.restored(bayes) if isinstance(steer.loss, Observation) else bayes
        return self._told_to_the_solver(bayes, course, t, level, any(steer.scaling != BAYES for steer in acting)), losses

    def _move(
        self,
        group: Sequence[Steer],
        way: str,
        loss: Tensor,
        d: Tensor,
        through_network: Callable[[Tensor], Tensor],
        level: Level,
        x0: Tensor,
        moment: Moment,
    ) -> Tensor:
        """m of Bayes' rule, [B, C, H, W]."""
        steer, prior = group[0], level.prior_covariance(self.variance)
        share = 0.5 if steer.inner else 1.0
        if way == "shortcut":
            move = prior * d
        else:
            move = self._covariance(steer, level, through_network)(d)
            if way == "covariance":
                # <d, m> is (sigma^2 / alpha) <d, J^T d>; a loss may be negative where it is no likelihood, and its size is what counts
                along = _dot(d, move).clamp_min(0)
                move = move / (1 + torch.where(along > 0, along / (2 * loss.abs()), 0.0))[:, None, None, None]
        move = share * move
        for _ in range(steer.inner):
            _, d, _ = _loss_and_gradient(group, x0 - move, moment, prior)
            move = move + (1 - share) / steer.inner * prior * d
        return _limited(move, steer.most)

    def _covariance(self, steer: Steer, level: Level, through_network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """d -> Cov[x0 | x_t] d: through the network by Tweedie's formula, or as for Gaussian data where x_t says nothing of x0."""
        if steer.way == "shortcut" or level.alpha == 0:
            return lambda d: level.prior_covariance(self.variance) * d
        return lambda d: level.sigma**2 / level.alpha * through_network(d)

    # ---- the course's steps ------------------------------------------------------------------------------------------

    def _course_weight(self, steer: Steer, level: Level) -> float:
        if steer.scaling == "seed" and steer.cell == "clip":
            return indexed_by_step(self.process, self.calls)
        return SCALINGS[steer.scaling](level.alpha_bar)

    def _told_to_the_solver(self, x0: Tensor, moved: Tensor, t: Tensor, level: Level, course: bool) -> Tensor:
        """x0 for the solver, of x0 after Bayes' moves and the course's move of it.

        The course moves x_t and keeps the noise estimate of the unmoved x0; a solver that is told an x0 finds its own noise estimate from
        it and x_t. For DDIM's step (alpha', sigma') the x0 that leads where the course's own step leads is
        (alpha' * clip(x0 + moved) - k * x0) / (alpha' - k), k = sigma' alpha / sigma.
        """
        if not course:
            return x0.clamp(-1, 1) if self.clip else x0
        if self.times is None:
            raise ValueError("the course's scalings need the solver's times")
        moved = (x0 + moved).clamp(-1, 1) if self.clip else x0 + moved
        then = self.times[self.times < float(t) - 1e-9]
        after = level_at(self.process, then[0]) if len(then) else CLEAN
        k = after.sigma * level.alpha / level.sigma
        return (after.alpha * moved - k * x0) / (after.alpha - k)

    # ---- memory ------------------------------------------------------------------------------------------------------

    def _at_once(self, acting: Sequence[Steer], x_t: Tensor, t: Tensor, cond: Tensor | None, level: Level) -> int:
        """How many pictures go through the network with a gradient at a time; found by trying two, once."""
        if len(x_t) == 1 or not any(_needs_network(steer) for steer in acting):
            return len(x_t)
        if self.pictures_at_once is None:

            def trial(count: int) -> object:
                x = x_t[:count].detach().requires_grad_()
                return self.denoiser(x, t, None if cond is None else cond[:count])

            self.pictures_at_once = pictures_that_fit(trial, x_t.device)
        return min(self.pictures_at_once, len(x_t))


def _is_solved(steer: Steer) -> bool:
    return isinstance(steer.loss, Observation) and steer.way != "exact"


def unused_options(steer: Steer) -> tuple[str, tuple[str, ...]]:
    """Why some options of a steer have no effect, and which; none where all have."""
    if isinstance(steer.loss, NoisyLoss):
        return "it looks at the noisy picture itself", ("way", "scaling", "preset", "copies", "spread", "inner", "checkpoint")
    if _is_solved(steer):
        return "what is observed is solved for; way=exact makes it a loss", ("scaling", "copies", "spread", "inner")
    return ("there are no copies", ("spread",)) if not steer.copies else ("", ())


def _needs_network(steer: Steer) -> bool:
    """Whether its gradient goes through the network."""
    return steer.way != "shortcut" and not isinstance(steer.loss, NoisyLoss)


def _of_noisy(steer: Steer, x_t: Tensor, level: Level, moment: Moment) -> tuple[Tensor, Tensor]:
    """(m, loss) of a loss of x_t itself: m = sigma^2 / alpha * its gradient in x_t (Dhariwal & Nichol 2021, eq. 10, as a move of x0)."""
    assert isinstance(steer.loss, NoisyLoss)
    if level.alpha == 0:
        return torch.zeros_like(x_t), steer.loss.of_noisy(moment.x_t, moment).detach()
    with torch.enable_grad():
        leaf = x_t.detach().requires_grad_()
        loss = steer.loss.of_noisy(leaf / level.size, moment)
        d = torch.autograd.grad(loss.sum(), leaf)[0]
    return steer.strength * level.sigma**2 / level.alpha * d, loss.detach()


def _grouped(steers: Sequence[Steer]) -> list[tuple[tuple[str, str, object], list[Steer]]]:
    """Steers that share a way, a scaling and a limit are one loss, their sum: one gradient through the network serves them all."""

    def key(steer: Steer) -> tuple[str, str, tuple[object, ...]]:
        return steer.way, steer.scaling, (steer.cell if steer.scaling == "seed" else "", steer.inner, steer.most or 0.0)

    return [(name, list(group)) for name, group in groupby(sorted(steers, key=key), key)]


def _loss_and_gradient(
    group: Sequence[Steer], x0: Tensor, moment: Moment, prior_covariance: float
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(l [B], d [B, C, H, W], name -> unweighted loss [B]) of steers taken together, strengths included."""
    with torch.enable_grad():
        leaf = x0.detach().requires_grad_()
        each = [_smoothed(steer, leaf, moment, prior_covariance**0.5) for steer in group]
        weighted = torch.stack([total for total, _ in each]).sum(0)  # [B]
        d = torch.autograd.grad(weighted.sum(), leaf)[0]
    return weighted.detach(), d.to(x0.dtype), {steer.name: told.detach() for steer, (_, told) in zip(group, each, strict=True)}


def _smoothed(steer: Steer, x0: Tensor, moment: Moment, deviation: float) -> tuple[Tensor, Tensor]:
    """(strength * loss, loss), [B] each; with copies, -log mean exp(-strength * loss) over noisy copies of x0."""
    if not steer.copies:
        loss = steer.loss((x0 + 1) / 2, moment)
        return steer.strength * loss, loss
    noise = torch.stack([_copies_noise(seed, moment.call, steer.copies, x0) for seed in moment.seeds])  # [B, copies, C, H, W]
    copies = (x0[:, None] + steer.spread * deviation * noise).flatten(0, 1)
    repeated = moment._replace(
        seeds=tuple(seed for seed in moment.seeds for _ in range(steer.copies)), x_t=moment.x_t.repeat_interleave(steer.copies, 0)
    )
    loss = steer.loss((copies + 1) / 2, repeated).unflatten(0, (len(x0), steer.copies))
    exponents = -steer.strength * loss
    smooth = -(exponents.logsumexp(1) - torch.tensor(float(steer.copies), dtype=loss.dtype, device=loss.device).log())
    return smooth, loss.mean(1)


def _copies_noise(seed: int, call: int, copies: int, x0: Tensor) -> Tensor:
    """Noise of one picture's copies, a function of (seed, call): [copies, C, H, W]."""
    noise = torch.randn((copies, *x0.shape[1:]), generator=generator_for(seed, "copies", call), dtype=x0.dtype)
    return noise.to(x0.device)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of each picture, [B]."""
    return (a * b).flatten(1).sum(1)


def _limited(move: Tensor, most: float | None) -> Tensor:
    """The move, each picture's scaled down to a root mean square of at most `most`."""
    if most is None:
        return move
    size = move.flatten(1).square().mean(1).sqrt()
    return move * (most / size.clamp_min(1e-12)).clamp(max=1)[:, None, None, None]
