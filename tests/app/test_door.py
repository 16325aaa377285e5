"""Another model in the place of the one that is served: loaded first, one at a time, and all as it was where it cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from diffsteer.app import door
from diffsteer.app.door import Door
from diffsteer.errors import Mistake


class Loaded:
    """A drawing process, as far as the door knows one."""

    def __init__(self, model: str) -> None:
        self.model, self.closed = model, False

    def about(self) -> None:
        if self.model == "none":
            raise Mistake("There is no model none.")

    def close(self) -> None:
        self.closed = True


def test_another_model_is_let_in_when_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "ANSWER", 0.0)
    begun: list[Any] = []
    there = Door("one", lambda model: begun.append(Loaded(model)) or begun[-1])  # type: ignore[arg-type,return-value,func-returns-value]
    with pytest.raises(Mistake, match="no model none"):
        there.open("none")
    assert begun[1].closed and not there.changes.is_set() and there.model == "one"
    there.open("two")
    with pytest.raises(Mistake, match="at this moment"):
        there.open("three")
    assert there.changes.wait(10) and there.model == "one" and not begun[0].closed
    there.let_in()
    assert there.model == "two" and begun[0].closed and not there.changes.is_set()
    there.open("three")
    there.close()
    assert all(each.closed for each in begun)
