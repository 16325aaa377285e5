"""The guide: its pages' snippets run, small and as they stand; both languages show the same; each page is a notebook."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from diffsteer import cli
from test_docs import blocks, clip_folder, shrunk

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MEASURED = re.compile(r"[-+]?\d[\d,.]*")


def _guide() -> ModuleType:
    """docs/guide.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("guide", DOCS / "guide.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guide = _guide()
PAGES = guide.pages()
SNIPPETED = [name for name in PAGES if "--8<--" in (DOCS / f"{name}.md").read_text(encoding="utf-8")]
BOTH = [path for name in PAGES for path in (DOCS / f"{name}.md", DOCS / f"{name}.zh.md")]


def code(page: Path) -> list[Any]:
    return [cell for cell in guide.cells(page) if cell.kind != "markdown"]


def shown(page: Path) -> list[str]:
    """The pictures of a page, in order."""
    return list(guide.PICTURE.findall(page.read_text(encoding="utf-8")))


def printed(page: Path) -> list[str]:
    """The lines that the page says a snippet prints, where they stand right after it, without their numbers."""
    after = [cell.text for before, cell in pairwise(guide.cells(page)) if before.kind != "markdown" and cell.text.startswith("```text\n")]
    return [_bare(line) for text in after for line in text.split("```")[1].splitlines()[1:] if line.strip()]


def _bare(line: str) -> str:
    return re.sub(r"\s+", " ", MEASURED.sub("#", line)).strip()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """A command as the test runs it: few steps, small networks; a training that another page has done already is not done again."""
    kept = tmp_path_factory.mktemp("runs")

    def made(line: str) -> list[str]:
        words = shrunk(line.replace(" --channels 32,32", ""), {})
        if words[0] != "train":
            return words
        run = kept / Path(words[words.index("--out") + 1]).name
        if not run.exists():
            assert cli.run([*words[: words.index("--out") + 1], str(run), *words[words.index("--out") + 2 :]]) == 0
        shutil.copytree(run, words[words.index("--out") + 1], dirs_exist_ok=True)
        return words

    return made


@pytest.mark.parametrize("name", SNIPPETED)
def test_a_pages_snippets_run_and_make_its_pictures(
    name: str, small: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = DOCS / f"{name}.md"
    for cell in code(page):
        if cell.title or cell.kind == "python":
            guide.run(cell)
            continue
        for line in cell.text.splitlines():
            if line.startswith("python tests/steering/tiny_clip.py"):
                clip_folder(tmp_path / line.split()[-1])
            else:
                assert cli.run(small(line)) == 0, f"{line}: {capsys.readouterr().err}"
    assert [picture for picture in shown(page) if not (tmp_path / picture).exists()] == []
    said = {_bare(line) for line in capsys.readouterr().out.splitlines()}
    assert set(printed(page)) <= said


@pytest.mark.slow
def test_the_guide_runs_as_it_stands(tmp_path: Path) -> None:
    """Every page in reading order, as a reader runs it, until the pictures are those of the guide in name and size."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    ended = subprocess.run([sys.executable, DOCS / "guide.py", "run", tmp_path, *SNIPPETED], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for name in SNIPPETED:
        for picture in shown(DOCS / f"{name}.md"):
            with Image.open(tmp_path / picture) as ours, Image.open(DOCS / picture) as theirs:
                assert ours.size == theirs.size, picture
        assert set(printed(DOCS / f"{name}.md")) <= {_bare(line) for line in ended.stdout.splitlines()}


@pytest.mark.parametrize("name", ["index", *PAGES])
def test_both_languages_have_the_same_snippets_and_pictures(name: str) -> None:
    english, chinese = DOCS / f"{name}.md", DOCS / f"{name}.zh.md"
    assert code(english) == code(chinese) and shown(english) == shown(chinese)
    assert blocks(english, "text") == blocks(chinese, "text")
    assert len(re.findall(r"^#+ ", english.read_text(encoding="utf-8"), re.M)) == len(
        re.findall(r"^#+ ", chinese.read_text(encoding="utf-8"), re.M)
    )


def test_every_snippet_is_shown_and_every_picture() -> None:
    texts = [path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS.glob("*.md")]]
    assert {path.name for path in (DOCS / "snippets").iterdir()} == {name for text in texts for name in guide.INCLUDE.findall(text)}
    there = {path.relative_to(DOCS).as_posix() for path in (DOCS / "pictures").rglob("*.png")}
    assert there == {name for text in texts for name in guide.PICTURE.findall(text.replace("(docs/", "("))}


def test_pictures_are_small_and_name_no_place() -> None:
    pictures = list((DOCS / "pictures").rglob("*.png"))
    assert sum(path.stat().st_size for path in pictures) < 1_500_000
    for path in pictures:
        with Image.open(path) as image:
            assert not re.search(r'"(/|[A-Z]:)', " ".join(map(str, image.info.values()))), path


@pytest.mark.parametrize("page", BOTH, ids=lambda page: page.stem)
def test_a_page_becomes_a_notebook(page: Path) -> None:
    made = guide.notebook(page)
    sources = [cell["source"] for cell in made["cells"] if cell["cell_type"] == "code"]
    assert len(sources) == len(code(page))
    for source, cell in zip(sources, code(page), strict=True):
        assert source.endswith(cell.text) and source.count("\n") <= cell.text.count("\n") + 1
    attached = [name for cell in made["cells"] for name in cell.get("attachments", {})]
    assert sorted(attached) == sorted(Path(name).name for name in shown(page))
    words = "".join(cell["source"] for cell in made["cells"] if cell["cell_type"] == "markdown")
    assert "--8<--" not in words and not re.search(r"\]\([^)]*\.md", words)
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.from_dict(made))


def test_the_readme_says_the_same_in_chinese() -> None:
    english, chinese = ROOT / "README.md", ROOT / "README_zh.md"
    for language in ("bash", "python"):
        assert blocks(english, language) == blocks(chinese, language)
    texts = [path.read_text(encoding="utf-8") for path in (english, chinese)]
    tables, pictures = ([re.findall(pattern, text, re.M) for text in texts] for pattern in (r"^\| (`[^|]*`) \|", r"!\[[^\]]*\]\(([^)]+)\)"))
    assert tables[0] == tables[1] and pictures[0] == pictures[1]
    flags = [sorted(set(re.findall(r"--[a-z][a-z-]+", text))) for text in texts]
    assert flags[0] == flags[1]
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", texts[1]):
        assert (ROOT / link).exists(), link
