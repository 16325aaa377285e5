"""Which numbers of a comparison may share a column, and which of a column is the best.

In: for each run its losses or scores, with the facts they rest on (`record.py`). Out: groups of equal facts, and a column for each measure
of a group, so that no column holds two numbers that cannot be compared. Called by `comparing.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import mean, stdev
from string import ascii_uppercase
from typing import Any, Generic, TypeVar

from diffsteer.record import Fact, Facts, Number, Scoring, Trained

LAST = 100  # steps whose mean loss is told
SIGNIFICANT = 2  # standard errors of a difference
BEST, TIED = "*", "≈"
UNKNOWN = Fact(None, "not known")
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Measure:
    """title: of its column. badness: smallest for the best value; None where none is best. share: whether it is told in per cent."""

    title: str
    badness: Callable[[float], float] | None = None
    share: bool = False


# In the order of the columns. A measure that is not here comes after them, with no best.
MEASURES = {
    "loss": Measure("loss", lambda loss: loss),
    "accuracy": Measure("accuracy", lambda share: -share, share=True),
    "frechet": Measure("Frechet", lambda distance: distance),
    "kid": Measure("KID", lambda distance: distance),
    "precision": Measure("precision", lambda share: -share),
    "recall": Measure("recall", lambda share: -share),
    "density": Measure("density"),
    "coverage": Measure("coverage", lambda share: -share),
    "variety": Measure("variety", lambda ratio: abs(ratio - 1)),
    "brightness": Measure("brightness", lambda distance: distance),
}


@dataclass(frozen=True)
class Group(Generic[Thing]):
    """What may be set against one another, by run. letter: none where this is the only group. apart: what differs from the first group."""

    letter: str
    facts: Facts
    apart: Mapping[str, str]
    members: Mapping[str, Thing]

    def named(self, title: str) -> str:
        return f"{title} ({self.letter})" if self.letter else title


@dataclass(frozen=True)
class Column:
    """One measure of the runs of one group. kind: its name in the scores, or loss. floor: what real pictures score."""

    kind: str
    group: Group[Any]
    numbers: Mapping[str, Number]
    floor: Number | None = None

    @property
    def measure(self) -> Measure:
        return MEASURES.get(self.kind, Measure(self.kind.replace("_", " ")))

    @property
    def title(self) -> str:
        return self.group.named(self.measure.title)

    @property
    def leaders(self) -> list[str]:
        """The best run, and all whose difference from it is within its error; empty where nothing can be compared."""
        badness = self.measure.badness
        if badness is None:
            return []
        known = {run: (badness(number.value), number.error) for run, number in self.numbers.items() if number.error is not None}
        if len(known) < 2:
            return []
        best, error = min(known.values())
        return [run for run, (bad, its) in known.items() if bad - best <= SIGNIFICANT * math.hypot(error, its)]

    @property
    def best(self) -> str | None:
        """The run that is better than every other by more than the error."""
        return self.leaders[0] if len(self.leaders) == 1 else None

    @property
    def tied(self) -> bool:
        """Whether the best runs do not differ beyond the error."""
        return len(self.leaders) > 1

    def cell(self, run: str) -> str | None:
        """The run's number, marked if it is the best, or one of those that are by the error."""
        number = self.numbers.get(run)
        mark = "" if run not in self.leaders else f"{TIED} " if self.tied else f"{BEST} "
        return None if number is None else mark + self.text(number)

    def text(self, number: Number) -> str:
        """A number and its error, all of a column with as many digits: to the first of the smallest error, or the second after a 1."""
        if self.measure.share:
            return f"{number.value:.1%}" + ("" if number.error is None else f" ± {number.error:.1%}")
        errors = [each.error for each in self.numbers.values() if each.error]
        if not errors or number.error is None:
            return f"{number.value:.4g}"
        place = math.floor(math.log10(min(errors)))
        digits = min(6, max(0, (min(errors) < 2 * 10**place) - place))
        return f"{number.value:.{digits}f} ± {number.error:.{digits}f}"


def grouped(things: Iterable[tuple[str, Facts, Thing]]) -> list[Group[Thing]]:
    """(run, facts, thing) -> groups in the order in which their facts first appear; of two things of one run in a group, the first."""
    found: dict[tuple[Any, ...], tuple[Facts, dict[str, Thing]]] = {}
    for run, facts, thing in things:
        found.setdefault(exact(facts), (facts, {}))[1].setdefault(run, thing)
    groups = list(found.values())
    return [
        Group(_letter(place) if len(groups) > 1 else "", facts, difference(facts, groups[0][0]), members)
        for place, (facts, members) in enumerate(groups)
    ]


def exact(facts: Facts) -> tuple[Any, ...]:
    """Equal for facts that are the same, whatever the words."""
    return tuple(fact.exact for fact in facts.values())


def difference(facts: Facts, others: Facts) -> dict[str, str]:
    """The names of the facts that differ from the others, and how, in words."""
    pairs = [(name, fact, others.get(name, UNKNOWN)) for name, fact in facts.items()]
    return {name: f"{name} {mine.words} instead of {theirs.words}" for name, mine, theirs in pairs if mine.exact != theirs.exact}


def loss_columns(runs: Mapping[str, Trained]) -> list[Column]:
    """The mean losses of the runs' last steps, a column for each objective."""
    groups = grouped((run, trained.objective, trained) for run, trained in runs.items())
    return [Column("loss", group, {run: _last_loss(trained.losses[-LAST:]) for run, trained in group.members.items()}) for group in groups]


def score_columns(scorings: Iterable[tuple[str, Scoring]]) -> list[Column]:
    """The scores of the runs, a column for each measure and all that it rests on."""
    scorings = list(scorings)
    found = {kind for _, scoring in scorings for kind in scoring.scores}
    columns = []
    for kind in [kind for kind in MEASURES if kind in found] + sorted(found - set(MEASURES)):
        for group in grouped((run, scoring.scores[kind].facts, scoring) for run, scoring in scorings if kind in scoring.scores):
            scores = {run: scoring.scores[kind] for run, scoring in group.members.items()}
            numbers = {run: score.number for run, score in scores.items()}
            columns.append(Column(kind, group, numbers, next(iter(scores.values())).floor))
    return columns


def _last_loss(losses: tuple[float, ...]) -> Number:
    return Number(mean(losses), stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else None)


def _letter(place: int) -> str:
    """A, B, ..., Z, AA, BB, ..."""
    return ascii_uppercase[place % 26] * (place // 26 + 1)
