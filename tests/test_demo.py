"""The demo tells its story to the end: every picture that it names is there, and so is the next command."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from diffsteer import cli


@pytest.mark.slow
def test_the_demo_ends_with_pictures_and_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["demo", "--out", "demo"]) == 0
    said = capsys.readouterr().out
    named = re.findall(r"^   (demo/\S+\.(?:png|gif))", said, re.MULTILINE)
    assert len(named) == 8
    assert all(Path(path).stat().st_size > 1000 for path in named)
    share = re.search(
        r"^   (\S+)% ± \S+% of 200 are the digit asked for, read by a judge that is right on (\S+)% of real", said, re.MULTILINE
    )
    assert share is not None and float(share[1]) > 85 and float(share[2]) > 95
    scores = json.loads(Path("demo/scores/scores.json").read_text())["rows"][0]
    assert f"{scores['accuracy']['value']:.1%}" == f"{share[1]}%" and f"digits {scores['frechet']['value']:.2f} ± " in said
    following = said.strip().splitlines()[-1]
    assert following.startswith("next: diffsteer sample ")
    assert cli.run(shlex.split(following.removeprefix("next: diffsteer "))) == 0

    # What it draws are digits, and those asked for.
    assert cli.run(["sample", "demo/run", "--labels", "0-9", "--per-label", "20", "--out", "d.npz"]) == 0
    arrays = np.load("d.npz")
    digits = load_digits()
    read = SVC(gamma=0.5, C=10).fit(digits.data / 16, digits.target).predict(arrays["arr_0"].reshape(200, -1) / 255)
    assert (read == arrays["arr_1"]).mean() >= 0.9
