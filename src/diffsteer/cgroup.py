"""How much memory a container leaves: Linux control groups, in their second version and their first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class _Version(NamedTuple):
    """controller: as /proc/self/cgroup calls it. cache: the line of memory.stat with file pages that the kernel gives up when asked."""

    controller: str
    folder: str
    limit: str
    usage: str
    cache: str


VERSIONS = (
    _Version("", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    _Version("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def memory_left(root: Path = Path("/")) -> int | None:
    """Bytes that the groups of this process still allow; None where there are none, or none with a limit."""
    return min(_left(root), default=None)


def _left(root: Path) -> Iterator[int]:
    """Of every group of this process that has a limit: its own, and those above, which count for it too."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for version in VERSIONS:
            if version.controller in controllers.split(","):
                top = root / version.folder
                own = top / path.lstrip("/")
                for group in (own, *own.parents):  # in a container the own one may lie at the top, under the path that it has outside
                    if group.is_relative_to(top):
                        yield from _left_in(group, version)


def _left_in(group: Path, version: _Version) -> Iterator[int]:
    try:
        limit, usage = int((group / version.limit).read_text()), int((group / version.usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # not there, or "max"
        return
    yield max(0, limit - usage + int(stat.get(version.cache, 0)))
