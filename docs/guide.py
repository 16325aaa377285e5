"""The guide as its readers use it: its snippets run as they stand, and its pages as notebooks.

    python docs/guide.py run FOLDER [PAGE ...]     runs the pages' snippets in reading order; their pictures land in FOLDER/pictures
    python docs/guide.py pictures FOLDER           keeps, of the pictures made there, those that the pages show, without their recipes
    python docs/guide.py notebooks FOLDER          writes each page of the guide, in both languages, as a notebook

A page is Markdown that names its snippets, files in docs/snippets; a fence with a title is a file that the reader writes.
`make docs` calls `notebooks`; mkdocs calls `on_page_markdown` and `on_page_context`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DOCS = Path(__file__).resolve().parent
INCLUDE = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
FENCE = re.compile(r'^```(bash|python)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"!\[[^\]]*\]\((pictures/[^)]+)\)")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!http)([^)]+)\)")


class Cell(NamedTuple):
    """A piece of a page: `markdown`, or code that is `bash` or `python`; `title` is the file that the code is to become, if it is one."""

    kind: str
    text: str
    title: str | None = None


def pages() -> list[str]:
    """The names of the guide's pages, in reading order."""
    sections = yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    (guide,) = [section["Guide"] for section in sections if "Guide" in section]
    return [name.removesuffix(".md") for name in guide]


def cells(page: Path) -> list[Cell]:
    """The page's text and code in order, every snippet in its place."""
    text = INCLUDE.sub(
        lambda found: (DOCS / "snippets" / found[1]).read_text(encoding="utf-8").rstrip("\n"), page.read_text(encoding="utf-8")
    )
    found, end = [], 0
    for fence in FENCE.finditer(text):
        found += [Cell("markdown", text[end : fence.start()].strip()), Cell(fence[1], fence[3].rstrip("\n"), fence[2])]
        end = fence.end()
    return [cell for cell in [*found, Cell("markdown", text[end:].strip())] if cell.text]


def run(cell: Cell) -> None:
    """A code cell, in the current folder. RuntimeError where a command of it fails."""
    from diffsteer import cli

    if cell.title:
        Path(cell.title).write_text(cell.text + "\n", encoding="utf-8")
    elif cell.kind == "python":
        exec(compile(cell.text, "cell", "exec"), {"__name__": "cell"})
    else:
        for line in cell.text.splitlines():
            program, *words = shlex.split(line)
            code = cli.run(words) if program == "diffsteer" else subprocess.run([sys.executable, *words], check=False).returncode
            if code:
                raise RuntimeError(f"{line} ended with {code}")


def notebook(page: Path) -> dict[str, Any]:
    """The page as a Jupyter notebook (nbformat 4.5), its pictures inside."""
    made: list[dict[str, Any]] = []
    for number, cell in enumerate(cells(page)):
        common = {"id": f"cell-{number}", "metadata": {}}
        if cell.kind == "markdown":
            made.append({"cell_type": "markdown", **common, **_attached(cell.text, "".join(page.suffixes[:-1]))})
        else:
            magic = f"%%writefile {cell.title}\n" if cell.title else "%%bash\n" if cell.kind == "bash" else ""
            made.append({"cell_type": "code", **common, "source": magic + cell.text, "outputs": [], "execution_count": None})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}}, "cells": made}


def _attached(text: str, language: str) -> dict[str, Any]:
    """A Markdown cell's source with its pictures attached; links lead to notebooks of the same language, or stay as words."""
    inside = {Path(name).name: {"image/png": base64.b64encode((DOCS / name).read_bytes()).decode()} for name in PICTURE.findall(text)}
    text = PICTURE.sub(lambda found: found[0].replace(found[1], f"attachment:{Path(found[1]).name}"), text)
    names = {f"{name}.md": f"{name}{language}.ipynb" for name in pages()}
    text = LINK.sub(lambda found: f"[{found[1]}]({names[found[2]]})" if found[2] in names else found[1], text)
    return {"source": text, "attachments": inside} if inside else {"source": text}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The measured results, outside this folder for readers of the files, are inside it on the site (docs/results is a link to them)."""
    return markdown.replace("](../benchmarks/results/", "](results/")


def on_page_context(context: Any, page: Any, config: Any, **_: Any) -> None:
    """The choice of language leads to the same page."""
    name = page.url.removeprefix("zh/")
    for language, place in zip(config.extra["alternate"], ("", "zh/"), strict=True):
        language["link"] = place + name


def main(verb: str, folder: str, *names: str) -> None:
    """What the command line asks for."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    if verb == "notebooks":
        for page in [DOCS / f"{name}{language}.md" for name in pages() for language in ("", ".zh")]:
            (out / f"{page.stem}.ipynb").write_text(json.dumps(notebook(page), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    elif verb == "pictures":
        for name in pages():
            _keep(out, PICTURE.findall((DOCS / f"{name}.md").read_text(encoding="utf-8")))
    elif verb == "run":
        os.chdir(out)
        for name in names or pages():
            for cell in cells(DOCS / f"{name}.md"):
                if cell.kind != "markdown":
                    run(cell)


def _keep(folder: Path, names: list[str]) -> None:
    """Those of the pictures that are there, without their recipes, which name the model by its place on this machine."""
    from PIL import Image

    for name in names:
        if (folder / name).exists():
            (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
            with Image.open(folder / name) as image:
                Image.frombytes(image.mode, image.size, image.tobytes()).save(DOCS / name, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
