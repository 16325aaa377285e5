"""What fits into a budget: the optimizer steps left when the start, previews, scores, saving and the end have had their time.

Arithmetic on measured seconds. A run asks before its first step; a plan asks before there is a run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PREVIEWS = CHECKPOINTS = 10  # of a run, after its start
FEWEST_STEPS = 10
SCORING = 0.1  # of a budget: looks that score the model may take so much, or it is said that they take more
WARM_UP = 4  # steps before those that are timed: they compile, choose kernels, and tell how many to time


@dataclass(frozen=True)
class Costs:
    """Seconds: of an optimizer step, of a preview, of a checkpoint, of all that comes after the last of them, and of a look that scores."""

    step: float
    preview: float
    checkpoint: float
    end: float
    look: float = 0.0


def previews_in(budget: float, preview: float) -> int:
    """Previews after the first: ten, or fewer where they would take more than a tenth of the budget."""
    return max(1, min(PREVIEWS, int(budget / 10 / max(preview, 1e-3))))


def steps_to_time(budget: float, step: float) -> int:
    """How many steps are timed to know what one takes: those of 4 % of the budget, and of a minute at the most."""
    return min(200, max(4, int(min(60.0, 0.04 * budget) / step)))


def judge_seconds(budget: float) -> float:
    """How long a judge is trained for where one must be before a run of this budget: a twentieth of it, and a minute at the most."""
    return min(60.0, budget / 20)


def looks_in(steps: int, score_every: int) -> int:
    """Looks that score a run of so many steps: one every so many, and one after the last."""
    return math.ceil(steps / score_every)


def rarer_looks(budget: float, costs: Costs, steps: int, score_every: int) -> int | None:
    """Steps between looks at which they take a tenth of the budget; None where they do not take more, or where a single one does."""
    looks, allowed = looks_in(steps, score_every), int(SCORING * budget / costs.look)
    if looks <= allowed or not allowed:
        return None
    return math.ceil((steps + (looks - allowed) * costs.look / costs.step) / allowed)


def steps_in(
    left: float,
    costs: Costs,
    previews: int,
    preview_every: int | None = None,
    checkpoint_every: int | None = None,
    score_every: int | None = None,
) -> int:
    """Steps in the seconds that are left. `previews` and ten checkpoints are made, unless it is said after how many steps one is.

    score_every: steps between looks that score, None where there are none.
    """
    each, fixed = costs.step, costs.end
    if preview_every is None:
        fixed += previews * costs.preview
    else:
        each += costs.preview / preview_every
    if checkpoint_every is None:
        fixed += CHECKPOINTS * costs.checkpoint
    else:
        each += costs.checkpoint / checkpoint_every
    if score_every is not None:
        each += costs.look / score_every
        fixed += costs.look  # the one after the last step
    return max(FEWEST_STEPS, int((left - fixed) / each))


def end_seconds(imports: float) -> float:
    """About how long a run's end takes (loss curve, film, model, Python's exit) on a machine that imported us in so many seconds."""
    return max(1.0, 0.4 * imports)
