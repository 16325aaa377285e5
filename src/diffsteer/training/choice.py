"""What to train in a given time: size of the pictures, network, arithmetic, batch. Rules of thumb on what was measured on this machine.

A sequence of trials, each asked for by what those before it cost. It knows no clock and no data: `planning.py` measures, tests pretend to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

from diffsteer.config import duration
from diffsteer.diffusion.networks import usual_channels
from diffsteer.errors import Mistake
from diffsteer.training.budget import CHECKPOINTS, WARM_UP, Costs, end_seconds, previews_in, steps_in, steps_to_time

Size = tuple[int, int]  # height, width

TRIED = 64  # pictures a step while sizes and networks are compared; "steps" below are steps of so many
# Networks from small to large: how wide against the usual one, layers, and the steps from which one is worth its time. (Digits, a minute of
# one core: half the width drew at a Frechet distance of 0.35 after 630 steps, the usual width at 0.46 after 300; real digits: 0.25.)
RUNGS = ((0.5, 1, 0), (1, 1, 1_000), (1, 2, 5_000), (2, 2, 15_000), (4, 2, 50_000))
USUAL = 1
FEW = 2_000  # pictures: a network larger than the usual one would learn fewer by heart
# Pictures a step, by the steps up to which they are right: first more steps, then calmer ones. (Digits, half a minute: 0.55 with batches of
# 32, 0.61 with 64 and so 315 steps, 0.70 with 128; a minute: 0.36 with 32, 0.35 with 64 and so 630 steps.)
BATCHES = ((500, 32), (4_000, 64), (20_000, 128), (80_000, 256), (None, 512))
ENOUGH = 500  # steps: with fewer, smaller pictures are the better choice
TO_SPARE = 60_000  # steps of the usual network: then pictures of twice the side, four times the work, can be afforded
SMALLEST, LARGEST = 32, 256  # pixels a side that are proposed where the data's own size is not
LEAST = 100  # steps: fewer draw nothing but noise
FASTER = 1.15  # so much faster must half precision be
HOPELESS = 0.6  # arithmetic that has so little of fp32's speed is not tried on larger networks
MANY = 20  # passes over the data from which mirrored pictures help
ALIKE = 1.05  # how much farther from the others a mirrored picture may be than the picture itself
MEMORY = 0.8  # share of the free memory that a run may fill
SAVED, SAVING = 16, 200e6  # bytes a parameter (weight, average, Adam's two), and bytes a second
# torch.compile on a GPU: seconds at the start, and the budget from which they come back; cautious guesses. On two CPU cores it takes a
# minute or two and steps become 0 to 20 % faster (fp32, pictures of 28x28 and 8x8), so it is not proposed there.
COMPILING, PAYS_FROM = 60.0, 300.0


@dataclass(frozen=True)
class Way:
    """One way to train; batch: pictures a step."""

    size: Size
    channels: tuple[int, ...]
    layers: int
    precision: str
    batch: int


@dataclass(frozen=True)
class Trial:
    """What a way costs here: seconds of a step and of a preview, bytes at the peak. parameters: the network's.

    timed: pictures of the steps that were timed, fewer than the batch where a whole one would have taken too long.
    """

    way: Way
    step: float
    preview: float
    memory: int
    parameters: int
    timed: int

    @property
    def pictures_a_second(self) -> float:
        return self.way.batch / self.step

    def at(self, batch: int) -> Trial:
        """The same with another batch, if each picture took as long."""
        return replace(self, way=replace(self.way, batch=batch), step=self.step * batch / self.way.batch)


@dataclass(frozen=True)
class Situation:
    """What a choice depends on besides trials.

    budget: seconds for the whole command, of which imports and data take `imports` and `loading`.
    pictures, size: of the data as it is read; finest: the shorter side of the pictures on disk; sized: the user said the size.
    precisions: those to try, the plainest first. memory: free bytes. mirrored: how many times as far from the others mirrored pictures
    are as the pictures themselves. compiles: the network is compiled unless told otherwise.
    """

    budget: float
    imports: float
    loading: float
    pictures: int
    size: Size
    finest: int
    sized: bool
    precisions: tuple[str, ...]
    memory: int
    mirrored: float
    compiles: bool


@dataclass(frozen=True)
class Forecast:
    """What a run would be. seconds: from start to exit, by part; memory: bytes at the peak; previews: those after the first."""

    steps: int
    pictures: int
    epochs: float
    previews: int
    seconds: dict[str, float]
    memory: int


@dataclass(frozen=True)
class Choice:
    """The chosen way as it was measured, whether to mirror and to compile, a sentence for each decision, and all trials in order."""

    trial: Trial
    flip: bool
    compile: str
    reasons: tuple[str, ...]
    trials: tuple[Trial, ...]


def forecast(situation: Situation, trial: Trial) -> Forecast:
    """A run of this way, by the arithmetic that the run itself uses."""
    budget, step, preview = situation.budget, trial.step, trial.preview
    checkpoint = SAVED * trial.parameters / SAVING
    costs = Costs(step, preview, checkpoint, end_seconds(situation.imports))
    start = situation.imports + situation.loading + preview
    compiling = COMPILING if situation.compiles and _compile(situation) != "off" else 0.0
    timing = (WARM_UP + steps_to_time(budget, step)) * step + checkpoint + compiling
    previews = previews_in(budget, preview)
    steps = steps_in(budget - start - timing, costs, previews)
    seconds = {
        "start and data": start,
        "timing the steps": timing,
        "training": steps * step,
        "previews": previews * preview,
        "saving and the end": CHECKPOINTS * checkpoint + costs.end,
    }
    pictures = steps * trial.way.batch
    return Forecast(steps, pictures, pictures / situation.pictures, previews, seconds, trial.memory)


def choose(situation: Situation, measure: Callable[[Way], Trial]) -> Choice:
    """What to train within the budget. Raises Mistake where it is too small for anything."""
    trials = _Trials(situation, measure)
    size, by_size = _size(trials)
    network, by_network = _network(trials, size)
    trial, by_batch = _batch(trials, network)
    epochs = forecast(situation, trial).epochs
    if forecast(situation, trial).steps < LEAST:
        raise Mistake(_too_little(situation, trial))
    flip, by_flip = _flip(situation, epochs)
    reasons = (by_size, by_network, _about_precision(trials, network), by_batch, by_flip, _about_compiling(situation))
    return Choice(trial, flip, _compile(situation), reasons, tuple(trials.made.values()))


class _Trials:
    """Measures each way once."""

    def __init__(self, situation: Situation, measure: Callable[[Way], Trial]) -> None:
        self.situation, self.measure = situation, measure
        self.made: dict[Way, Trial] = {}
        self.precisions = situation.precisions

    def __call__(self, way: Way) -> Trial:
        if way not in self.made:
            self.made[way] = self.measure(way)
        return self.made[way]

    def rung(self, size: Size, rung: int) -> Trial:
        """This network in the arithmetic that suits it best."""
        wide, layers, _ = RUNGS[rung]
        channels = tuple(max(32, int(wide * usual)) for usual in usual_channels(*size))
        first, *others = [self(Way(size, channels, layers, precision, TRIED)) for precision in self.precisions]
        self.precisions = (self.precisions[0], *(trial.way.precision for trial in others if trial.step * HOPELESS <= first.step))
        best = min([first, *others], key=lambda trial: trial.step)
        return best if best.step * FASTER <= first.step else first

    def steps(self, trial: Trial) -> int:
        """Of TRIED pictures, in the budget."""
        return forecast(self.situation, trial.at(TRIED)).steps

    def fits(self, trial: Trial) -> bool:
        return trial.memory <= MEMORY * self.situation.memory


def _size(trials: _Trials) -> tuple[Size, str]:
    """The pictures' size: as it is read, or half or twice that, again and again, where the user leaves it to us."""
    situation = trials.situation
    size = own = situation.size
    if situation.sized:
        return size, f"size {_by(size)}: as you said"
    steps = first = trials.steps(trials.rung(size, 0))
    while steps < ENOUGH and max(size) > SMALLEST:
        size = (-(-size[0] // 2), -(-size[1] // 2))
        steps = trials.steps(trials.rung(size, 0))
    if size != own:
        return size, f"size {_by(size)}: at {_by(own)} the smallest network would get {first:,} steps of {TRIED} pictures"
    while steps > TO_SPARE and 2 * max(size) <= min(LARGEST, situation.finest) and trials.steps(trials.rung(size, USUAL)) > TO_SPARE:
        size = (2 * size[0], 2 * size[1])
    if size != own:
        return size, f"size {_by(size)}: the pictures are as large as that, and so is the budget"
    return size, f"size {_by(size)}: as the data is read"


def _network(trials: _Trials, size: Size) -> tuple[Trial, str]:
    """The largest network that is worth its time."""
    best = trials.rung(size, 0)
    for rung, (_, _, worth) in list(enumerate(RUNGS))[1:]:
        name = f"network {_channels(best.way)}"
        if rung > USUAL and trials.situation.pictures < FEW:
            return best, f"{name}: a larger one would learn {trials.situation.pictures:,} pictures by heart"
        if (steps := trials.steps(best)) < worth:
            return best, f"{name}: a larger one pays from {worth:,} steps of {TRIED} pictures, and even this one gets {steps:,} only"
        larger = trials.rung(size, rung)
        if (steps := trials.steps(larger)) < worth:
            wanted = f"{_channels(larger.way)} would get {steps:,} steps of {TRIED} pictures"
            return best, f"{name}: {wanted}, and pays from {worth:,}"
        if not trials.fits(larger):
            return best, f"{name}: {_channels(larger.way)} would need more memory than is free"
        best = larger
    return best, f"network {_channels(best.way)}: the largest that is proposed; the budget has room for it"


def _batch(trials: _Trials, network: Trial) -> tuple[Trial, str]:
    """The batch that suits the number of steps, the number of pictures and the memory; measured."""
    steps, pictures = trials.steps(network), trials.situation.pictures
    wanted = next(size for limit, size in BATCHES if limit is None or steps < limit)
    batch = most = min(wanted, 1 << max(3, pictures.bit_length() - 1))
    trial = trials(replace(network.way, batch=batch))
    while not trials.fits(trial) and batch > 1:
        batch //= 2
        trial = trials(replace(network.way, batch=batch))
    if not trials.fits(trial):
        raise Mistake("There is not enough free memory to train on a single picture of this size; give a smaller --size.")
    if batch < most:
        return trial, f"batch {batch}: more would need more memory than is free"
    if batch < wanted:
        return trial, f"batch {batch}: there are only {pictures:,} pictures"
    if batch < TRIED:
        return trial, f"batch {batch}: of {TRIED} there would be {steps:,} steps only, and more steps teach more than larger ones"
    return trial, f"batch {batch}: of {TRIED} there would be {steps:,} steps, {'enough' if batch == TRIED else 'more than are needed'}"


def _flip(situation: Situation, epochs: float) -> tuple[bool, str]:
    far = f"a mirrored picture is {situation.mirrored:.2f} times as far from the others as the picture itself"
    if situation.mirrored > ALIKE:
        return False, f"not mirrored: {far}, so it would be a wrong one"
    if epochs < MANY:
        return False, f"not mirrored: each picture is seen {epochs:.1f} times only"
    return True, f"mirrored: each picture is seen {epochs:.0f} times, and {far}"


def _compile(situation: Situation) -> str:
    return "off" if situation.compiles and situation.budget < PAYS_FROM else "auto"


def _about_compiling(situation: Situation) -> str:
    if not situation.compiles:
        return "not compiled: on a CPU that takes minutes and gains little"
    if _compile(situation) == "off":
        return f"not compiled: that takes about {duration(COMPILING)}, which pay from a budget of {duration(PAYS_FROM)}"
    return "compiled: more steps than are forecast, as those were measured without"


def _about_precision(trials: _Trials, network: Trial) -> str:
    chosen, (plain, *halves) = network.way.precision, trials.situation.precisions
    speeds = []
    for half in halves:
        both = [way for way in trials.made if way.precision == half and replace(way, precision=plain) in trials.made]
        speed = trials.made[replace(both[-1], precision=plain)].step / trials.made[both[-1]].step
        speeds.append(f"{half} has {speed:.2f} times {plain}'s speed here")
    return f"{chosen}: {', '.join(speeds) or 'nothing else was tried'}"


def _too_little(situation: Situation, trial: Trial) -> str:
    """The mistake's sentences, with the least budget in which this way gets LEAST steps."""
    first = 5 * (int(situation.budget) // 5 + 1)
    least = next(budget for budget in count(first, 5) if forecast(replace(situation, budget=budget), trial).steps >= LEAST)
    least = least if least < 120 else -(-least // 60) * 60
    return (
        f"A budget of {duration(situation.budget)} is too small to learn {_by(trial.way.size)} pictures on this machine: starting takes "
        f"{situation.imports + situation.loading:.0f} s and a step of the smallest network {trial.step:.2g} s. "
        f"Give --budget {duration(least)} or more, which has room for {LEAST} steps."
    )


def _channels(way: Way) -> str:
    return ",".join(map(str, way.channels)) + (f" with {way.layers} layers" if way.layers > 1 else "")


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
