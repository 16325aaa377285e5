"""The progress bar of drawings: steps done, their rate and the time left; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tqdm import tqdm


@contextmanager
def steps_bar(total: int, what: str = "") -> Iterator[Callable[[int], None]]:
    """Yields what is told of each step of a drawing; a solver's first item is the start, before any step."""
    with tqdm(total=total, desc=what or None, disable=not sys.stderr.isatty(), unit="step", dynamic_ncols=True, leave=False) as bar:

        def watch(step: int) -> None:
            bar.update(1 if step else 0)

        yield watch


@contextmanager
def told_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told how long it is with every step: (steps done, steps in all)."""
    with ExitStack() as stack:
        bars: list[Callable[[int], None]] = []

        def watch(step: int, steps: int) -> None:
            if not bars:
                bars.append(stack.enter_context(steps_bar(steps, what)))
            bars[0](step)

        yield watch


def roughly(seconds: float) -> str:
    """A time that was reckoned, in the unit that people would take."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def beside_bars(say: Callable[[str], None], line: str) -> None:
    """Says a line while bars are shown: they make room for it."""
    with tqdm.external_write_mode():
        say(line)
