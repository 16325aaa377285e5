"""The desk: one job at a time, a turn for each person, and no job that can hurt another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from diffsteer.app.desk import FAILED, FINISHED, STOPPED, TURN, WAITING, Desk, Full, Ticket


class Gate:
    """Jobs of tests: they say what they do, and may be held before each turn."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.open = threading.Semaphore(0)

    def job(self, name: str, turns: int = 1, error: Exception | None = None) -> Callable[[threading.Event], Iterator[Any]]:
        def walk(stopping: threading.Event) -> Iterator[Any]:
            for turn in range(turns):
                assert self.open.acquire(timeout=10)
                if stopping.is_set():
                    self.did.append(f"{name} put away")
                    return
                self.did.append(f"{name}{turn}")
                yield f"{name}{turn}"
                if error is not None:
                    raise error
                if turn < turns - 1:
                    yield TURN

        return walk

    def let(self, turns: int) -> None:
        for _ in range(turns):
            self.open.release()


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk(waiting=4, each=2, kept=3)
    yield made
    made.close()


def ended(ticket: Ticket) -> str:
    for _ in range(1000):
        if ticket.over:
            return ticket.state
        threading.Event().wait(0.01)
    return ticket.state


def test_each_person_has_a_turn_in_turn(desk: Desk) -> None:
    gate = Gate()
    first = desk.submit("a", gate.job("a", 3))
    others = [desk.submit("a", gate.job("A")), desk.submit("b", gate.job("b", 2)), desk.submit("c", gate.job("c"))]
    gate.let(7)
    assert [ended(ticket) for ticket in (first, *others)] == [FINISHED] * 4
    assert gate.did == ["a0", "b0", "c0", "a1", "b1", "a2", "A0"]  # a's second job waits for its first
    assert first.shown == "a2"


def test_who_is_before_whom(desk: Desk) -> None:
    gate = Gate()
    tickets = [desk.submit(person, gate.job(person)) for person in "abc"]
    while tickets[0].state == WAITING:
        threading.Event().wait(0.01)
    assert [desk.ahead(ticket) for ticket in tickets] == [0, 1, 2]
    gate.let(3)
    assert [ended(ticket) for ticket in tickets] == [FINISHED] * 3


def test_there_is_no_room_for_more_than_it_says(desk: Desk) -> None:
    gate = Gate()
    running = desk.submit("a", gate.job("a"))
    while running.state == WAITING:
        threading.Event().wait(0.01)
    tickets = [desk.submit("a", gate.job("x")) for _ in range(2)]
    with pytest.raises(Full) as refused:
        desk.submit("a", gate.job("y"))
    assert (refused.value.waiting, refused.value.own) == (2, 2)
    tickets += [desk.submit(person, gate.job(person)) for person in "bc"]
    with pytest.raises(Full):
        desk.submit("d", gate.job("d"))
    gate.let(5)
    assert {ended(ticket) for ticket in (running, *tickets)} == {FINISHED}


def test_a_job_that_raises_fails_alone(desk: Desk) -> None:
    gate = Gate()
    bad, good = desk.submit("a", gate.job("a", error=ValueError("no"))), desk.submit("b", gate.job("b"))
    gate.let(2)
    assert (ended(bad), ended(good)) == (FAILED, FINISHED)
    assert str(bad.error) == "no" and bad.shown == "a0"


def test_a_waiting_job_stops_at_once_and_a_left_one_puts_its_things_away(desk: Desk) -> None:
    gate = Gate()
    left, other, waiting = desk.submit("a", gate.job("a", 3)), desk.submit("b", gate.job("b", 2)), desk.submit("c", gate.job("c"))
    gate.let(1)
    while "a0" not in gate.did or other.state == WAITING:
        threading.Event().wait(0.01)
    desk.stop(waiting)
    assert waiting.state == STOPPED
    desk.stop(left)
    gate.let(3)
    assert (ended(left), ended(other)) == (STOPPED, FINISHED)
    assert gate.did == ["a0", "b0", "a put away", "b1"]


def test_what_nobody_looks_at_is_dropped_and_what_is_old_forgotten() -> None:
    now, forgotten, gate = [0.0], list[Ticket](), Gate()
    desk = Desk(patience=10, kept=1, forget=forgotten.append, clock=lambda: now[0])
    running = desk.submit("a", gate.job("a"))
    while running.state == WAITING:
        threading.Event().wait(0.01)
    left, looked_at = desk.submit("b", gate.job("b")), desk.submit("c", gate.job("c"))
    running.stays = True
    now[0] = 8.0
    assert desk.find(looked_at.token) is looked_at and desk.find("nobody's") is None and desk.find(None) is None
    now[0] = 12.0
    gate.let(2)
    assert (ended(running), ended(left), ended(looked_at)) == (FINISHED, STOPPED, FINISHED)
    assert forgotten == [left] and desk.find(running.token) is running
    desk.close()


def test_the_pace_is_that_of_the_jobs_before() -> None:
    now, gate = [0.0], Gate()
    desk = Desk(clock=lambda: now[0])
    assert desk.seconds(10) is None

    def job(stopping: threading.Event) -> Iterator[Any]:
        now[0] += 4.0
        yield "done"

    assert ended(desk.submit("a", job, cost=8)) == FINISHED
    assert desk.seconds(10) == 5.0
    desk.close()
    gate.let(1)
