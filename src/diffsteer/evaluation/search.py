"""The strength of a steer by search (Ye et al. 2024, TFG, section 4.3, over strength alone): doubled or halved while that helps."""

from __future__ import annotations

from collections.abc import Callable

LEAST, MOST = 1 / 16, 16.0


def best_factor(merit: Callable[[float], float]) -> float:
    """The factor of the strength, a power of two from 1/16 to 16, from which neither twice nor half has more merit; ties keep the
    weaker."""
    best, at = 1.0, merit(1.0)
    for turn in (2.0, 0.5):
        factor = best * turn
        while LEAST <= factor <= MOST:
            found = merit(factor)
            if found < at or (found == at and turn > 1):
                break
            best, at = factor, found
            factor *= turn
        if best != 1.0:
            break
    return best
