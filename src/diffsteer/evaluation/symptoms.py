"""Symptoms: from what a run and its pictures show to what is wrong with it, in words, and the flag that mends it.

Pure functions: each takes numbers and returns a `Finding`, or None where all is well. `doctor.py` gathers the numbers. The limits lie
between what healthy runs of our own recipes show and what planted faults show; each says what that is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, median, stdev
from typing import Any

import torch
from torch import Tensor

from diffsteer.evaluation.brightness import SOME, picture_brightness, picture_means
from diffsteer.evaluation.copies import Copies

# Kinds of findings, the worst first: what comes later is often the consequence of what comes earlier.
KINDS = ("weights", "loss", "unfinished", "solver", "steps", "average", "range", "drift", "copies", "classes", "spikes", "clip")
SURE = 3.0  # standard errors
FEWEST_STEPS = 150  # optimizer steps: at 100 the digits are blots (27 to 102 were looked at), at 240 they are digits
FALLING = 0.12  # fall of the loss from the third quarter of a run at a constant rate to the last; the recipes' is 6 to 9 %
GROWN = 2.0  # the last losses over the lowest before them
WINDOW = 50  # losses that one loss is compared with
SPIKE, SPIKES = 3.0, 2  # times their median, and how many; healthy runs reach 1.4 times
CLIPPED, ABOVE_CLIP = 0.9, 3.0  # share of the steps, and the median norm over the limit
STALE = 0.05  # how much higher the average's loss is than the weights' own
FEWEST_OF_CLASS = 10  # pictures
HALF = 0.6  # of the data's span of values
SATURATED = 0.15  # share of all values that are 0 or 255 beyond the data's
VISIBLE = 0.04  # ten grey levels of brightness
SPREAD = 2.0  # times as alike, or as different, in brightness
CONTRAST, ROUGHNESS = 0.15, 0.2  # share of the finely drawn picture's own
STRONG_GUIDANCE = 2.0  # label guidance from which it is the first to be suspected


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    kind: one of KINDS. wrong: what, in words. seen: how that was seen, with the number. mend: what to do, with the flag.
    train: settings of a training that mends it; goes_on: that may be the same run, gone on with. draw: flags of a drawing that mend it.
    """

    kind: str
    wrong: str
    seen: str
    mend: str
    train: Mapping[str, Any] = field(default_factory=dict)
    goes_on: bool = False
    draw: tuple[str, ...] = ()

    def line(self) -> str:
        return f"{self.kind:11}{self.wrong} ({self.seen}). {self.mend}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def by_weight(findings: Sequence[Finding | None]) -> list[Finding]:
    """The findings there are, the worst first."""
    return sorted((each for each in findings if each is not None), key=lambda each: KINDS.index(each.kind))


# ---- of the training -------------------------------------------------------------------------------------------------


def bad_weights(weights: Mapping[str, Tensor], lr: float | None) -> Finding | None:
    """Weights that are not finite."""
    bad = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if not bad:
        return None
    seen = f"{len(bad)} of {len(weights)} tensors hold NaN or infinity, the first is {bad[0]}"
    return Finding("weights", "The model's weights are not finite: it draws nothing", seen, *_calmer(lr))


def bad_losses(losses: Sequence[float], norms: Sequence[float], lr: float) -> Finding | None:
    """Losses that are not finite, or that grew at the end; norms that are NaN (infinite ones are steps that fp16 leaves out)."""
    for values, name, well in ((losses, "loss", math.isfinite), (norms, "gradient norm", lambda value: not math.isnan(value))):
        step = next((step for step, value in enumerate(values, start=1) if not well(value)), None)
        if step is not None:
            return Finding("loss", f"The {name} was not finite", f"{values[step - 1]} at step {step}", *_calmer(lr))
    least = len(losses) // 8
    if least < 2:
        return None
    last, lowest = fmean(losses[-least:]), min(fmean(losses[at : at + least]) for at in range(0, len(losses) - least, least))
    if last < GROWN * lowest:
        return None
    seen = f"{last:.4g} over the last {least} steps, {lowest:.4g} before"
    return Finding("loss", "The loss grew instead of falling", seen, *_calmer(lr))


def _calmer(lr: float | None) -> tuple[str, dict[str, Any]]:
    """What is done against numbers that run away; lr: the learning rate, where it is known."""
    change: dict[str, Any] = {"clip": 1.0, "precision": "fp32"}
    if lr is None:
        return "Train anew with a smaller --lr, --clip 1 and --precision fp32.", change
    lower = _third(lr)
    return f"Train anew with a smaller --lr {lower:g} (it was {lr:g}), --clip 1 and --precision fp32.", {"lr": lower, **change}


def _third(lr: float) -> float:
    return float(f"{lr / 3:.1g}")


def unfinished(done: int, planned: int, finished: bool) -> Finding | None:
    """A run that stopped on its way."""
    if finished and done >= planned:
        return None
    mend = "The same command goes on; if it stops again at a loss that is not finite, take a smaller --lr in a new folder."
    return Finding("unfinished", "The run is not finished", f"step {done:,} of {planned:,}", mend, goes_on=True)


def few_steps(losses: Sequence[float], constant_rate: bool) -> Finding | None:
    """A finished run that was too short: by its steps, or by a loss that was still falling. A rate that falls to 0 takes the loss down at
    the end however long the run was, so the second is asked of a constant rate only. Runs over few pictures fall by heart: see `copying`.
    """
    steps = len(losses)
    if not steps:
        return None
    if steps < FEWEST_STEPS:
        more = _more(steps)
        seen = f"{steps} optimizer steps, loss {fmean(losses[-max(1, steps // 10) :]):.3g}"
        mend = f"Go on with --steps {more}, or give a longer --budget."
        return Finding("steps", "Too few steps: pictures are still blots", seen, mend, {"steps": more}, goes_on=True)
    quarter = steps // 4
    third, last = losses[-2 * quarter : -quarter], losses[-quarter:]
    fall = fmean(third) - fmean(last)
    error = math.hypot(stdev(third), stdev(last)) / math.sqrt(quarter)
    if not constant_rate or fall < max(FALLING * fmean(third), SURE * error):
        return None
    seen = f"it fell by {fall / fmean(third):.0%} from the third quarter of the run to the last, to {fmean(last):.3g}"
    mend = f"Go on with --steps {_more(steps)}; in a new run, --decay cosine and --ema get more out of as many steps."
    return Finding("steps", "Too few steps: the loss was still falling", seen, mend, {"steps": _more(steps)}, goes_on=True)


def _more(steps: int) -> int:
    return 2 * max(FEWEST_STEPS, steps)


def spikes(losses: Sequence[float], lr: float, clip: float | None) -> Finding | None:
    """Losses far above those before them, the first WINDOW left out, where everything moves. A small batch has uneven losses, so a spike is
    also eight times as far from their median, in logarithms, as half of them are (over five standard deviations)."""
    logs, found = [math.log(max(loss, 1e-12)) for loss in losses], []
    for step in range(WINDOW, len(logs)):
        before = logs[step - WINDOW : step]
        middle = median(before)
        above, usual = logs[step] - middle, median(abs(value - middle) for value in before)
        if above > max(math.log(SPIKE), 8 * usual):
            found.append((math.exp(above), step + 1))
    if len(found) < SPIKES:
        return None
    times, step = max(found)
    seen = f"{len(found)} losses over {SPIKE:g} times their neighbours', the highest {times:.1f} times at step {step}"
    if clip is None:
        return Finding("spikes", "The loss has spikes", seen, "Train anew with --clip 1.", {"clip": 1.0})
    lower = _third(lr)
    return Finding("spikes", "The loss has spikes", seen, f"Train anew with --lr {lower:g} (it was {lr:g}).", {"lr": lower})


def always_clipped(norms: Sequence[float], clip: float | None) -> Finding | None:
    """Gradients that are always far above the limit: every step is as long as every other, whatever it has seen."""
    late = norms[len(norms) // 2 :]
    if clip is None or not late:
        return None
    share, middle = fmean(norm > clip for norm in late), median(late)
    if share < CLIPPED or middle < ABOVE_CLIP * clip:
        return None
    larger = float(f"{2 * middle:.1g}")
    seen = f"norm {middle:.3g} in the middle, --clip {clip:g}, {share:.0%} of the steps"
    return Finding("clip", "The gradient is always clipped", seen, f"Train anew with --clip {larger:g}.", {"clip": larger})


def stale_average(own: Tensor, average: Tensor, steps: int, ema_decay: float) -> Finding | None:
    """An average of the weights that is older than its run can bear: its losses [N], beside those of the weights themselves [N], of the
    same noisy pictures."""
    more = (average - own).double()
    higher, error = float(more.mean()), float(more.std()) / math.sqrt(len(more))
    if higher < max(STALE * float(own.double().mean()), SURE * error):
        return None
    younger = 1 - min(0.5, 4 * (1 - min(ema_decay, 1 - (1 + steps) ** -0.75)))  # a quarter of the age
    decay = float(f"{younger:.3g}")
    seen = f"its loss is {float(average.mean()):.4g}, that of the weights themselves {float(own.mean()):.4g}"
    mend = f"Train anew with --ema-decay {decay:g} (it was {ema_decay:g}), or go on with --steps {_more(steps)}."
    return Finding("average", "The average of the weights (EMA) lags behind them", seen, mend, {"ema_decay": decay})


def thin_classes(names: Sequence[str], counts: Sequence[int], tuned: bool = False) -> Finding | None:
    """Classes of which there are too few pictures to learn anything but those. tuned: by a fine-tuning, whose labels are its base's."""
    thin = [(count, name) for name, count in zip(names, counts, strict=True) if count < FEWEST_OF_CLASS]
    if not thin:
        return None
    seen = ", ".join(f"{name}: {count}" for count, name in sorted(thin)[:5]) + (f" and {len(thin) - 5} more" if len(thin) > 5 else "")
    without = "leave these classes out" if tuned else "train without labels by --conditioning none"
    mend = f"Add pictures, {FEWEST_OF_CLASS} of each at the least, or {without}."
    which = f"{len(thin)} classes have" if len(thin) > 1 else "One class has"
    return Finding("classes", f"{which} very few pictures", seen, mend)


# ---- of the pictures -------------------------------------------------------------------------------------------------
# Pictures are uint8 [N, C, H, W]; values are told as shares of white, 0 to 1.


def wrong_range(
    drawn: Tensor, real: Tensor, prediction: str, pixel_range: str, guidance: float, steps: int, tuned: bool = False
) -> Finding | None:
    """Values that fill a part of the data's range only, or that pile up at its ends. tuned: by a fine-tuning, whose range is its base's."""
    (low, high), (real_low, real_high) = _span(drawn), _span(real)
    ends, real_ends = _at_ends(drawn), _at_ends(real)
    over = float(ends.mean() - real_ends.mean())
    error = math.hypot(float(ends.std()) / math.sqrt(len(ends)), float(real_ends.std()) / math.sqrt(len(real_ends)))
    other = "unit" if pixel_range == "signed" else "signed"
    misread = prediction == "x0"  # only such a network may answer in either range
    whose = "of the base " if tuned else ""
    said = f"If the network was trained on other values, the diffsteer.json {whose}should say pixel_range {other}"
    said += "." if tuned else f"; or train anew: --pixel-range {other}."
    change = {} if tuned else {"pixel_range": other}
    if high - low < HALF * (real_high - real_low):
        wrong, seen = (
            "Pictures fill a part of the range only",
            f"values {low:.2f} to {high:.2f}, the data's {real_low:.2f} to {real_high:.2f}",
        )
        if misread:
            return Finding("range", wrong, seen, said, change)
        mend = f"Go on with --steps {_more(steps)}: a model that has learnt little draws the mean."
        return Finding("range", wrong, seen, mend, {"steps": _more(steps)}, goes_on=True)
    if over <= max(SATURATED, SURE * error):
        return None
    wrong = "Pictures are saturated"
    seen = f"{float(ends.mean()):.0%} of the values are black or white, {float(real_ends.mean()):.0%} of the data's"
    if misread and guidance < STRONG_GUIDANCE:
        return Finding("range", wrong, seen, said, change)
    mend = "Draw with --dynamic-threshold 0.995"
    mend += ", or a smaller --guidance-scale." if guidance >= STRONG_GUIDANCE else "; in a new run, --prediction v."
    return Finding("range", wrong, seen, mend, draw=("--dynamic-threshold", "0.995"))


def drift(drawn: Tensor, real: Tensor, prediction: str, guidance: float, steps: int) -> Finding | None:
    """A mean colour or brightness that is not the data's, or pictures whose brightnesses are all alike, or all over the place."""
    values, reals = picture_means(drawn) / 255, picture_means(real) / 255  # [N, C]
    away = values.mean(0) - reals.mean(0)
    error = (values.var(0) / len(values) + reals.var(0) / len(reals)).sqrt()
    channel = int(away.abs().argmax())
    name = "brightness" if drawn.shape[1] == 1 else f"the mean of {('red', 'green', 'blue')[channel]}"
    spread, usual = float(picture_brightness(drawn).std()), float(picture_brightness(real).std())
    if float(away[channel].abs()) > max(VISIBLE, (SURE + 1) * float(error[channel])):
        wrong = f"Pictures are too {'bright' if away[channel] > 0 else 'dark'}" if drawn.shape[1] == 1 else "The colours drift"
        seen = f"{name} is {float(values[:, channel].mean()):.3f}, the data's {float(reals[:, channel].mean()):.3f}"
    elif usual > VISIBLE and spread < usual / SPREAD:
        wrong, seen = "Every picture has much the same brightness", f"it spreads by {spread:.3f}, the data's by {usual:.3f}"
    elif spread > max(VISIBLE, SPREAD * usual):
        wrong, seen = "The brightness wanders from picture to picture", f"it spreads by {spread:.3f}, the data's by {usual:.3f}"
    else:
        return None
    if guidance >= STRONG_GUIDANCE:
        return Finding("drift", wrong, seen, "Draw with --guidance-scale 1, or a smaller one.", draw=("--guidance-scale", "1"))
    if prediction == "eps":
        return Finding("drift", wrong, seen, "Train anew with --prediction v: eps says little about the mean.", {"prediction": "v"})
    mend = f"Go on with --steps {_more(steps)}; the mean of a picture is learnt late."
    return Finding("drift", wrong, seen, mend, {"steps": _more(steps)}, goes_on=True)


def copying(copies: Copies, steps: int, tuned: bool = False) -> Finding | None:
    """More copies of training pictures than real pictures would show. tuned: by a fine-tuning, whose network is its base's."""
    base = copies.baseline
    if copies.rate - base.rate < SURE * math.hypot(copies.error, base.error):
        return None
    seen = f"{copies.rate:.0%} of {copies.count} drawn pictures are copies, {base.rate:.1%} of real ones by the same rule"
    change: dict[str, Any] = {"steps": max(1, steps // 2), **({"tune": "last-blocks"} if tuned else {"dropout": 0.1})}
    less = "--tune last-blocks" if tuned else "--dropout 0.1"
    flip = "" if copies.flip else ", with --flip where a mirrored picture is a good one"
    mend = f"More pictures help most; else train anew with --steps {change['steps']} (half) and {less}{flip}."
    return Finding("copies", "The model draws its training pictures", seen, mend, change)


def unsuited_solver(own: Tensor, fine: Tensor, real: Tensor | None, name: str, better: tuple[str, ...]) -> Finding | None:
    """A solver, `name`, whose pictures are not what the model holds: `own` beside `fine`, of the same seeds, drawn by the flags `better`.

    They differ in brightness, in contrast or in roughness by what can be seen; and where real pictures are given, the fine ones are nearer
    to them (ancestral sampling forgives a network what a fine solver shows).
    """
    told = [each for each in (_differ(own, fine, real, *feature) for feature in _FEATURES) if each]
    if not told:
        return None
    wrong, mend = f"The solver {name} does not draw what the model holds", f"Draw with {' '.join(better)}."
    return Finding("solver", wrong, "; ".join(told), mend, draw=better)


def _differ(own: Tensor, fine: Tensor, real: Tensor | None, name: str, measure: Callable[[Tensor], Tensor], share: float) -> str | None:
    mine, best = measure(own), measure(fine)
    away, usual = mine - best, float(best.mean())
    limit = max(share * usual if share else VISIBLE, SURE * float(away.std()) / math.sqrt(len(away)))
    truth = None if real is None else float(measure(real).mean())
    better = truth is not None and abs(float(mine.mean()) - truth) <= abs(usual - truth)
    if abs(float(away.mean())) <= limit or better:
        return None
    return f"{name} {float(mine.mean()):.3f}, finely drawn {usual:.3f}" + ("" if truth is None else f", real {truth:.3f}")


def _span(pictures: Tensor) -> tuple[float, float]:
    """The values between which 99 of 100 lie."""
    below = torch.bincount(pictures.flatten(), minlength=256).cumsum(0)  # values up to each of the 256
    last = int(below[-1]) - 1
    low, high = (int(torch.searchsorted(below, place, right=True)) for place in (int(0.005 * last), math.ceil(0.995 * last)))
    return low / 255, high / 255


def _at_ends(pictures: Tensor) -> Tensor:
    """The share of each picture's values that are 0 or 255, float64 [N]."""
    return _each(pictures, lambda some: ((some == 0) | (some == 255)).double().flatten(1).mean(1))


def _contrast(pictures: Tensor) -> Tensor:
    """The standard deviation of each picture's values, float64 [N]."""
    return _each(pictures, lambda some: some.double().flatten(1).std(1) / 255)


def _roughness(pictures: Tensor) -> Tensor:
    """The mean difference of neighbouring values in each picture, float64 [N]: noise that was left in shows here."""

    def of_some(some: Tensor) -> Tensor:
        values = some.double() / 255
        return (values.diff(dim=2).abs().flatten(1).mean(1) + values.diff(dim=3).abs().flatten(1).mean(1)) / 2

    return _each(pictures, of_some)


def _each(pictures: Tensor, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """A measure of each picture, some at a time: float64 takes eight times the memory of the pictures."""
    return torch.cat([measure(some) for some in pictures.split(SOME)])


_FEATURES = (("brightness", picture_brightness, 0.0), ("contrast", _contrast, CONTRAST), ("roughness", _roughness, ROUGHNESS))
