"""The memory of a container, by the files that Linux shows."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from diffsteer import device
from diffsteer.cgroup import memory_left

V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"
NO_LIMIT = 9223372036854771712  # as the first version says it


def group(folder: Path, version: str, limit: object, usage: int, cache: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == V1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


def listed(root: Path, text: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(text)
    return root


def test_a_container_of_either_version(tmp_path: Path) -> None:
    """The second shows a container its own group as the top; the first shows the group at the top, and its path as it is outside."""
    group(tmp_path / "two" / V2, V2, 1000, 400, cache=100)
    assert memory_left(listed(tmp_path / "two", "0::/\n")) == 700
    group(tmp_path / "one" / V1, V1, 1000, 400, cache=100)
    assert memory_left(listed(tmp_path / "one", "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n1:name=systemd:/docker/a\n")) == 700


def test_groups_above_count_too(tmp_path: Path) -> None:
    root = listed(tmp_path, "0::/slice/job\n")
    group(root / V2 / "slice/job", V2, "max", 300)
    group(root / V2 / "slice", V2, 500, 450)
    group(root / V2, V2, 10_000, 450)
    assert memory_left(root) == 50
    group(root / V2 / "slice", V2, 500, 600)
    assert memory_left(root) == 0


def test_without_a_limit_nothing_is_said(tmp_path: Path) -> None:
    assert memory_left(tmp_path) is None
    root = listed(tmp_path, "0::/\n")
    assert memory_left(root) is None
    group(root / V2, V2, "max", 300)
    assert memory_left(root) is None


def test_free_memory_is_the_less_of_the_machines_and_the_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = psutil.virtual_memory().total
    for left, most in ((4096, 4096), (NO_LIMIT, machine), (None, machine)):
        monkeypatch.setattr(device, "memory_left", lambda left=left: left)
        assert 4096 <= device.free_memory("cpu") <= most
