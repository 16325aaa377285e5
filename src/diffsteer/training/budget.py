"""What fits into a budget: the optimizer steps left when the start, previews, saving and the end have had their time.

Arithmetic on measured seconds. A run asks before its first step; a plan asks before there is a run.
"""

from __future__ import annotations

from dataclasses import dataclass

PREVIEWS = CHECKPOINTS = 10  # of a run, after its start
FEWEST_STEPS = 10
WARM_UP = 4  # steps before those that are timed: they compile, choose kernels, and tell how many to time


@dataclass(frozen=True)
class Costs:
    """Seconds: of an optimizer step, of a preview, of a checkpoint, and of all that comes after the last of them."""

    step: float
    preview: float
    checkpoint: float
    end: float


def previews_in(budget: float, preview: float) -> int:
    """Previews after the first: ten, or fewer where they would take more than a tenth of the budget."""
    return max(1, min(PREVIEWS, int(budget / 10 / max(preview, 1e-3))))


def steps_to_time(budget: float, step: float) -> int:
    """How many steps are timed to know what one takes: those of 4 % of the budget, and of a minute at the most."""
    return min(200, max(4, int(min(60.0, 0.04 * budget) / step)))


def steps_in(left: float, costs: Costs, previews: int, preview_every: int | None = None, checkpoint_every: int | None = None) -> int:
    """Steps in the seconds that are left. `previews` and ten checkpoints are made, unless it is said after how many steps one is."""
    each, fixed = costs.step, costs.end
    if preview_every is None:
        fixed += previews * costs.preview
    else:
        each += costs.preview / preview_every
    if checkpoint_every is None:
        fixed += CHECKPOINTS * costs.checkpoint
    else:
        each += costs.checkpoint / checkpoint_every
    return max(FEWEST_STEPS, int((left - fixed) / each))


def end_seconds(imports: float) -> float:
    """About how long a run's end takes (loss curve, film, model, Python's exit) on a machine that imported us in so many seconds."""
    return max(1.0, 0.4 * imports)
