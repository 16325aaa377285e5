"""What a person's page follows: of several looks at once, which would show all in turn, only the one that was begun last goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator

from diffsteer.app.reply import Update


class Newest:
    """The look that each person's page follows, by person."""

    def __init__(self) -> None:
        self._begun: dict[str, object] = {}

    def follows(self, person: str) -> bool:
        """Whether this person's page follows something."""
        return person in self._begun

    def begin(self, person: str, looks: AsyncIterator[Update]) -> AsyncIterator[Update]:
        """These looks, until the person's page begins to follow others; from this call on it follows none but these."""
        mine = self._begun[person] = object()
        return self._until_another(person, mine, looks)

    async def _until_another(self, person: str, mine: object, looks: AsyncIterator[Update]) -> AsyncIterator[Update]:
        try:
            async for update in looks:
                if self._begun.get(person) is not mine:
                    return
                yield update
        finally:
            if self._begun.get(person) is mine:
                del self._begun[person]
