"""Whose turn it is: jobs of several people, one at a time, a turn for each person. No Gradio and no drawing here.

A job is a generator: it yields what it has to show, and TURN where another person's job may go on before it. Tabs hand jobs in and look at
their tickets; one thread does the work. A job that raises fails alone.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

TURN = object()  # yielded by a job where it may be left for a while

# Given an event that is set when the job should stop, soon and by itself; it keeps what it has shown.
Job = Callable[[threading.Event], Iterator[Any]]

WAITING, RUNNING, FINISHED, STOPPED, FAILED = "waiting", "running", "finished", "stopped", "failed"


class Full(Exception):
    """No room for another job; `waiting` jobs are there, `own` of them of the one who asks."""

    def __init__(self, waiting: int, own: int) -> None:
        super().__init__(f"{waiting} jobs are waiting, {own} of them by the same person")
        self.waiting, self.own = waiting, own


@dataclass
class Ticket:
    """One job. cost: how much work it is; 0 where that is not known, and it tells nothing of others. what: anything that goes with it.
    shown: what it showed last. error: what it raised. looks: counts up with each change. seen: when somebody last looked at it.
    seconds: that it has had. stays: it is not forgotten."""

    token: str
    person: str
    job: Job
    cost: float
    what: Any = None
    state: str = WAITING
    shown: Any = None
    error: BaseException | None = None
    looks: int = 0
    seen: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)
    walk: Iterator[Any] | None = None
    seconds: float = 0.0
    stays: bool = False

    @property
    def over(self) -> bool:
        return self.state in (FINISHED, STOPPED, FAILED)


class Desk:
    """The queue. waiting: jobs that may wait, in all and of `each` person. patience: seconds after which a waiting job that nobody looks
    at is dropped. kept: finished tickets that can still be looked at; `forget` is told of those that cannot any more."""

    def __init__(
        self,
        waiting: int = 24,
        each: int = 3,
        patience: float = 300.0,
        kept: int = 64,
        forget: Callable[[Ticket], None] = lambda ticket: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._each, self._patience, self._kept, self._forget, self._clock = waiting, each, patience, kept, forget, clock
        self._ring: OrderedDict[str, deque[Ticket]] = OrderedDict()  # persons in the order of their turns
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()
        self._change = threading.Condition()
        self._now: Ticket | None = None
        self._closed = False
        self.pace: float | None = None  # seconds of one unit of cost, by the jobs that ended
        self._thread = threading.Thread(target=self._serve, name="desk", daemon=True)
        self._thread.start()

    def submit(self, person: str, job: Job, cost: float = 1.0, what: Any = None) -> Ticket:
        """Hands a job in. Raises Full."""
        with self._change:
            self._drop_forgotten()
            waiting = sum(map(len, self._ring.values()))
            own = len(self._ring.get(person, ()))
            if waiting >= self._most or own >= self._each:
                raise Full(waiting, own)
            ticket = Ticket(secrets.token_urlsafe(16), person, job, cost, what, seen=self._clock())
            self._ring.setdefault(person, deque()).append(ticket)
            self._tickets[ticket.token] = ticket
            self._change.notify_all()
        return ticket

    def find(self, token: object) -> Ticket | None:
        """The ticket of a token, while it is kept; looking at it keeps it in the queue."""
        with self._change:
            ticket = self._tickets.get(token) if isinstance(token, str) else None
            if ticket is not None:
                ticket.seen = self._clock()
            return ticket

    def stop(self, ticket: Ticket) -> None:
        """Ends a job: at once if it waits, else as soon as it notices."""
        with self._change:
            ticket.stopping.set()
            if ticket is self._now or ticket.over:
                return
            self._leave(ticket)
            if ticket.walk is None:
                self._end(ticket, STOPPED)
            else:  # left between two turns: the next is its last, in which it puts its things away
                self._return(ticket)
                self._ring.move_to_end(ticket.person, last=False)
                self._change.notify_all()

    def ahead(self, ticket: Ticket) -> int:
        """How many jobs get a turn before this one's first or next: one a person, and its own earlier ones."""
        with self._change:
            own = self._ring.get(ticket.person, deque())
            place = own.index(ticket) if ticket in own else 0
            before = list(self._ring).index(ticket.person) if ticket.person in self._ring else 0
            return before + place * max(1, len(self._ring)) + (self._now is not None and self._now is not ticket)

    def seconds(self, cost: float) -> float | None:
        """How long so much work takes by itself, judged by the jobs before; None before the first."""
        return None if self.pace is None else cost * self.pace

    def close(self) -> None:
        """Stops the work; the thread ends after the step that it is at."""
        with self._change:
            self._closed = True
            for ticket in self._tickets.values():
                ticket.stopping.set()
            self._change.notify_all()
        self._thread.join(timeout=5)

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or bool(self._ring))
                if self._closed:
                    return
                self._drop_forgotten()
                ticket = self._next()
            if ticket is not None:
                self._give_turn(ticket)

    def _next(self) -> Ticket | None:
        if not self._ring:
            return None
        person, queue = self._ring.popitem(last=False)
        ticket = queue.popleft()
        if queue:
            self._ring[person] = queue  # at the end
        self._now, ticket.state = ticket, RUNNING
        self._changed(ticket)
        return ticket

    def _give_turn(self, ticket: Ticket) -> None:
        started = self._clock()
        state, error = RUNNING, None
        try:
            ticket.walk = ticket.walk or ticket.job(ticket.stopping)
            for shown in ticket.walk:
                if shown is TURN:
                    break
                with self._change:
                    ticket.shown = shown
                    self._changed(ticket)
            else:
                state = STOPPED if ticket.stopping.is_set() else FINISHED
        except Exception as raised:  # whatever a job raises is that job's affair
            state, error = FAILED, raised
        with self._change:
            self._now = None
            ticket.seconds += self._clock() - started
            if state == RUNNING:
                self._return(ticket)
                return
            ticket.error = error
            if state == FINISHED and ticket.cost:
                pace = ticket.seconds / ticket.cost
                # Down at once: the first job of a process is slower than those that follow.
                self.pace = pace if self.pace is None or pace < self.pace else 0.7 * self.pace + 0.3 * pace
            self._end(ticket, state)

    # ---- with the lock held ------------------------------------------------------------------------------------------

    def _end(self, ticket: Ticket, state: str) -> None:
        ticket.state, ticket.walk = state, None
        self._changed(ticket)
        ended = [each for each in self._tickets.values() if each.over and not each.stays]
        for old in ended[: max(0, len(ended) - self._kept)]:
            del self._tickets[old.token]
            self._forget(old)

    def _return(self, ticket: Ticket) -> None:
        """Its person's next, in the last place of the ring."""
        queue = self._ring.pop(ticket.person, deque())
        queue.appendleft(ticket)
        self._ring[ticket.person] = queue

    def _leave(self, ticket: Ticket) -> None:
        queue = self._ring.get(ticket.person)
        if queue is not None and ticket in queue:
            queue.remove(ticket)
            if not queue:
                del self._ring[ticket.person]

    def _drop_forgotten(self) -> None:
        now = self._clock()
        for ticket in [ticket for queue in self._ring.values() for ticket in queue]:
            if ticket.state == WAITING and now - ticket.seen > self._patience:
                self._leave(ticket)
                self._end(ticket, STOPPED)

    def _changed(self, ticket: Ticket) -> None:
        ticket.looks += 1
        self._change.notify_all()
