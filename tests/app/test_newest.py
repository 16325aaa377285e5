"""A page that follows one job after another shows the last one only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from diffsteer.app.newest import Newest
from diffsteer.app.reply import Update


async def looks(name: str, count: int, step: asyncio.Event) -> AsyncIterator[Update]:
    for number in range(count):
        yield {name: number}
        await step.wait()


async def of_two_only_the_second_goes_on() -> tuple[list[Update], list[Update], Newest]:
    newest, step = Newest(), asyncio.Event()
    first = newest.begin("ada", looks("first", 3, step))
    seen = [await anext(first)]
    second = newest.begin("ada", looks("second", 3, step))
    other = newest.begin("bob", looks("other", 1, step))
    step.set()
    seen += [update async for update in first]
    assert newest.follows("ada") and newest.follows("bob")
    assert [update async for update in other] == [{"other": 0}]
    return seen, [update async for update in second], newest


def test_the_older_look_ends_as_soon_as_another_begins() -> None:
    first, second, newest = asyncio.run(of_two_only_the_second_goes_on())
    assert first == [{"first": 0}]
    assert second == [{"second": 0}, {"second": 1}, {"second": 2}]
    assert not newest.follows("ada") and not newest.follows("bob")
