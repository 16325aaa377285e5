"""How makers of losses read what they are given: words of a list, numbers above 0. What cannot be used is a Mistake."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches

from diffsteer.errors import Mistake


def one_of(what: str, given: str, choices: Sequence[str]) -> str:
    """The choice that was given, in any case and with any blanks round it. Mistake with the nearest spelling, and all of them."""
    word = given.strip().lower()
    if word in choices:
        return word
    near = get_close_matches(word, choices, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise Mistake(f"{what} cannot be {given!r}. {hint}It is one of {', '.join(choices)}.")


def above_zero(what: str, given: float) -> float:
    """A finite number above 0. Mistake for any other."""
    if not (math.isfinite(given) and given > 0):
        raise Mistake(f"{what} is a number above 0; {given:g} was given.")
    return float(given)
