"""What the speed benchmarks compare does the same work: the loops learn the same losses, and a table holds what its parts measured."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler

from diffsteer.data.images import load_pictures
from diffsteer.sampling.solvers import time_grid
from diffsteer.steering.mixing import levels_at

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import commands
import lesson_quality
import loop_overhead
import peers
import sampling_speed
import suite
from timing import Spread, by_turns, line, ratios, table

SMALL = {"channels": (32, 32), "patch_size": 1, "batch_size": 32, "norm_groups": 8}


# ---- the loops -------------------------------------------------------------------------------------------------------


def losses(of: loop_overhead.Training, steps: int) -> list[float]:
    return [(stepped.record[0] / stepped.record[1]).item() for stepped in islice(of.run(), steps)]


@pytest.mark.parametrize("changes", [{}, loop_overhead.AS_PLAIN], ids=["mnist-fast", "as the plain loop"])
def test_the_bare_loop_learns_what_ours_learns(changes: dict[str, object]) -> None:
    of = loop_overhead.training(load_pictures("digits"), "cpu", **{**changes, **SMALL})
    batches = [loop_overhead.ready(of, step) for step in range(6)]
    bare = [loss.item() for loss in loop_overhead.bare(of, iter(batches))]
    assert losses(of, 6) == pytest.approx(bare, abs=1e-5)
    assert len(set(bare)) == 6


def test_the_plain_loop_has_our_loss() -> None:
    of = loop_overhead.training(load_pictures("digits"), "cpu", **{**loop_overhead.AS_PLAIN, **SMALL})
    [(pixels, labels)], draws = of._read(0), of._draws(0, 32)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    x0 = (pixels.float() / 255 - 0.5) / 0.5
    plain = loop_overhead.plain_loss(of.network, scheduler, x0, draws.eps, draws.t.long(), labels).item()
    assert losses(of, 1)[0] == pytest.approx(plain, abs=1e-5)


def test_the_plain_loop_learns_from_every_picture_once_an_epoch() -> None:
    data = load_pictures("digits")
    pictures = loop_overhead.PilPictures(data)
    whole = data.at([5])
    picture, label = pictures[5]
    assert len(pictures) == data.count and label == int(whole.labels[0])
    assert torch.allclose(picture, whole.pixels[0] / 127.5 - 1, atol=1e-6)
    told = list(islice(loop_overhead.plain(data, "cpu", **SMALL), 12))
    assert sum(told[-3:]) < 0.8 * sum(told[:3])


def test_operations_are_counted_and_few_are_outside_a_captured_step() -> None:
    x = torch.ones(3)
    assert loop_overhead.asked(lambda: x.add(1).view(3, 1).mul_(2)) == 2
    counts = loop_overhead.asked_in_a_step(load_pictures("digits"), "cpu")
    assert counts["plain"] > counts["ours"] > 10 * counts["outside"]


# ---- drawing ---------------------------------------------------------------------------------------------------------


def test_evaluations_count_both_halves_of_a_guided_step() -> None:
    denoiser = sampling_speed.fast("cpu")
    spec = denoiser.spec
    low, high = spec.guidance_interval
    levels = levels_at(spec.process, time_grid(spec.process, spec.solver, spec.steps, spec.spacing)).tolist()
    guided = sum(low <= level <= high for level in levels) if spec.guidance_scale != 1 else 0
    assert sampling_speed.evaluations(denoiser) == len(levels) + guided
    assert guided > 0
    assert sampling_speed.evaluations(sampling_speed.few("cpu")) == 2


def test_each_drawing_is_of_new_seeds() -> None:
    denoiser = sampling_speed.fast("cpu")
    first, second = islice(sampling_speed.drawings(denoiser, 2, "cpu"), 2)
    assert [job.seed for job in first.jobs + second.jobs] == [0, 1, 2, 3]


# ---- times -----------------------------------------------------------------------------------------------------------


def test_loops_take_turns_and_every_other_round_goes_back() -> None:
    told: list[str] = []

    def loop(name: str) -> Iterator[None]:
        for _ in count():
            told.append(name)
            yield

    seconds = by_turns({"a": loop("a"), "b": loop("b")}, 2, {"a": 1, "b": 2}, warm_up=1)
    assert "".join(told) == "ab" + "abb" + "bba"
    assert [len(seconds[name]) for name in "ab"] == [2, 2]
    with pytest.raises(ValueError, match="ended"):
        by_turns({"short": iter([1, 2])}, 2)


def test_a_ratio_is_of_one_round() -> None:
    spread = ratios([2.0, 30.0, 5.0], [1.0, 10.0, 5.0])
    assert spread == Spread(2.0, 1.0, 3.0, 3)
    assert table([line("ours", spread, "at most 3")])[-1] == "| ours | 2.0 (1.0 to 3.0) | 3 | at most 3 |"


# ---- peers -----------------------------------------------------------------------------------------------------------


def test_a_peers_loop_works_when_it_is_asked_and_says_why_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peer_loops.py").write_text(
        """
import sys
print('{"pictures": 16, "says": "two items"}', flush=True)
for item in range(2):
    sys.stdin.readline()
    open(sys.argv[1], "a").write("x")
    print("done", flush=True)
raise SystemExit("no more of it")
"""
    )
    monkeypatch.setattr(peers, "HERE", tmp_path)
    worked = tmp_path / "worked"
    with peers.Remote(Path(sys.executable), [str(worked)], "cpu", tmp_path / "log") as remote:
        assert (remote.pictures, remote.says) == (16, "two items")
        for times in (1, 2):
            next(remote)
            assert worked.read_text() == "x" * times
        with pytest.raises(ChildProcessError, match="no more of it"):
            next(remote)


# ---- the suite -------------------------------------------------------------------------------------------------------


def asked(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**{"full": False, "data": None, "environments": None, "diffusers_script": None, "out": None, **given})


def test_the_suites_parts_are_there_and_grow_with_what_is_asked(tmp_path: Path) -> None:
    small = [part.script for part in suite.parts(asked(), tmp_path)]
    full = [part.script for part in suite.parts(asked(full=True, data="mnist", environments="e"), tmp_path)]
    assert small == ["loop_overhead.py", "sampling_speed.py", "solver_matrix.py"]
    assert set(full) == {*small, "peers.py", "time_to_quality.py"}
    assert all((suite.HERE / script).is_file() for script in full)
    told = suite.parts(asked(full=True, data="mnist", environments="e", diffusers_script="s.py"), tmp_path)
    parts = {part.script: part for part in told}
    assert parts["peers.py"].words[:4] == ["--environments", "e", "--diffusers-script", "s.py"]
    assert all(part.result.parent == tmp_path and str(tmp_path) in part.words for part in parts.values()), "no part writes elsewhere"


def test_the_suite_measures_on_when_a_part_fails_and_keeps_what_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = line("a ratio", Spread(1.0, 0.9, 1.1, 3))
    (tmp_path / "broken.py").write_text("raise SystemExit('no such thing')")
    (tmp_path / "works.py").write_text("import sys; from pathlib import Path; Path(sys.argv[1]).write_text(sys.argv[2])")
    left, out = tmp_path / "left.json", tmp_path / "out"
    works = suite.Part(str(tmp_path / "works.py"), [str(left), json.dumps({"ratios": [mine]})], left)
    broken = suite.Part(str(tmp_path / "broken.py"), [], left)
    monkeypatch.setattr(sys, "argv", ["suite.py", "--out", str(out)])
    for parts, status in (([broken, works], 1), ([works], 0)):
        monkeypatch.setattr(suite, "parts", lambda given, folder, parts=parts: iter(parts))
        assert suite.main() == status
        said = capsys.readouterr()
        assert "| a ratio | 1.000 (0.900 to 1.100) | 3 |" in said.out
        assert ("no such thing" in said.err) == bool(status)
    kept = json.loads((out / "suite.json").read_text())
    assert kept["ratios"] == [mine] and kept["machine"]["cores"] and kept["versions"]["torch"] == torch.__version__


def test_what_other_benchmarks_leave_becomes_lines() -> None:
    matrix = {"ours": {"passed": 4, "cells": 4}, "diffusers": {"passed": 2, "cells": 4}}
    assert suite.lines_of(matrix)[0]["median"] == 2.0
    assert suite.lines_of({"runs": [{"ratio": 100.0}, {"ratio": 140.0}]})[0]["most"] == 140.0


# ---- commands --------------------------------------------------------------------------------------------------------


def test_a_command_is_timed_once(tmp_path: Path) -> None:
    first = commands.seconds(tmp_path / "kept", "--version")
    assert first > 0 and commands.seconds(tmp_path / "kept", "no such command") == first
    with pytest.raises(subprocess.CalledProcessError):
        commands.seconds(tmp_path / "failed", "no such command")
    assert not (tmp_path / "failed").exists()


def test_the_lessons_digits_are_kept_as_they_were_drawn(tmp_path: Path) -> None:
    pictures = torch.randint(256, (1000, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    lesson_quality.write_sheet(pictures, tmp_path / "sheet.png")
    assert torch.equal(lesson_quality.read_sheet(tmp_path / "sheet.png"), pictures)
    kept = lesson_quality.read_sheet(lesson_quality.SHEET)
    edges = torch.cat([kept[..., :2, :], kept[..., -2:, :]], -2).float()
    assert edges.mean() < 8 < kept.float().mean(), "a digit lies in the middle of its picture"
