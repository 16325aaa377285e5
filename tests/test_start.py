"""The start is light, the way is shown, and imports point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffsteer
from diffsteer.cli import COMMANDS, run

PACKAGE = Path(diffsteer.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


# ---- the start -------------------------------------------------------------------------------------------------------


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh Python holds after running `code`."""
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('LOADED', *sorted({{name.split('.')[0] for name in sys.modules}}))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(told.stdout.split("LOADED")[1].split())


def test_importing_loads_nothing_heavy() -> None:
    assert not loaded_by("import diffsteer; dir(diffsteer)") & {"torch", "pydantic", "cyclopts", "diffusers", "numpy", "yaml"}


def test_help_loads_nothing_heavy() -> None:
    loaded = loaded_by("from diffsteer.cli import run; run(['--help'])")
    assert "cyclopts" in loaded
    assert not loaded & {"torch", "pydantic", "diffusers", "matplotlib", "numpy", "datasets", "PIL", "yaml"}


def test_help_of_a_command_loads_no_torch() -> None:
    loaded = loaded_by("from diffsteer.cli import run; run(['train', '--help']); run(['recipes'])")
    assert "pydantic" in loaded
    assert not loaded & {"torch", "diffusers", "matplotlib", "numpy", "datasets", "PIL"}


def test_the_public_names_are_there() -> None:
    for name in diffsteer.__all__:
        assert getattr(diffsteer, name) is not None
    assert sorted(dir(diffsteer)) == sorted(diffsteer.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = diffsteer.trian


# ---- the way is shown ------------------------------------------------------------------------------------------------


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    said = capsys.readouterr().out
    assert all(f"│ {command} " in said for command in COMMANDS)
    assert "--debug" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"Example: diffsteer {command}" in said
    assert COMMANDS[command][0] in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["trian", "digits"], 'Did you mean "train"?'),
        (["sampel"], 'Did you mean "sample"?'),
        (["train", "digits", "--label-droput", "0.1"], "Did you mean --label-dropout?"),
        (["sample", "runs/x", "--seed", "0-3"], "Did you mean --seeds?"),
    ],
)
def test_a_misspelt_word_is_told_its_neighbour(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    said = capsys.readouterr()
    assert hint in said.err and said.err.startswith("diffsteer: ") and said.err.count("\n") == 1
    assert said.out == "" and "Available commands" not in said.err


# ---- imports point one way -------------------------------------------------------------------------------------------

# What each part of the package may import of the others; a part may always import itself. Read from the top down.
ARROWS: dict[str, set[str]] = {
    "cli": {"errors", "config", "commands"},
    "commands": {
        "config",
        "recipebook",
        "errors",
        "run",
        "planning",
        "drawing",
        "evaluating",
        "comparing",
        "doctor",
        "app",
        "sharing",
        "order",
        "demo",
        "processes",
        "data",
    },
    "app": {"order", "placing", "sweep", "picturerecipe", "sampling", "steering", "data", "device", "config", "errors"}
    | {"recipebook", "runfolder", "runprocess", "processes"},
    "demo": {"run", "drawing", "evaluating", "judging", "evaluation", "order", "recipebook", "diffusion", "data", "config", "errors"},
    "api": {
        "run",
        "evaluating",
        "order",
        "recipebook",
        "processes",
        "sampling",
        "steering",
        "diffusion",
        "data",
        "device",
        "config",
        "errors",
    },
    "drawing": {"sweep", "placing", "order", "progress", "sampling", "device", "errors"},
    "progress": set(),
    "preparing": {"base", "sampling", "steering", "training", "data", "device", "config", "errors"},
    "tracking": {"config"},
    "fitting": {"training"},
    "scoring": {"judging", "progress", "evaluation", "training", "sampling", "diffusion", "data", "config", "errors"},
    "judging": {"progress", "evaluation", "training", "sampling", "diffusion", "data", "errors"},
    "evaluating": {
        "judging",
        "order",
        "progress",
        "runfolder",
        "evaluation",
        "training",
        "sampling",
        "steering",
        "diffusion",
        "data",
        "device",
        "config",
        "errors",
    },
    "sharing": {
        "app",
        "order",
        "comparable",
        "record",
        "runfolder",
        "evaluation",
        "sampling",
        "steering",
        "diffusion",
        "data",
        "config",
        "errors",
    },
    "comparing": {"comparable", "record", "curves", "evaluation", "data", "config", "errors"},
    "comparable": {"record"},
    "record": {"runfolder", "sampling", "training", "config", "errors"},
    "doctor": {"runfolder", "progress", "evaluation", "sampling", "training", "diffusion", "data", "device", "config", "errors"},
    "sweep": {"order", "sampling", "data", "config", "errors"},
    "placing": {"figures", "order", "picturerecipe", "sampling", "steering", "data", "config", "errors"},
    "order": {"picturerecipe", "sampling", "steering", "diffusion", "device", "config", "errors"},
    "picturerecipe": {"data", "config", "errors"},
    "base": {"runfolder", "previews", "evaluation", "sampling", "diffusion", "data", "config", "errors"},
    "run": {
        "base",
        "curves",
        "figures",
        "preparing",
        "previews",
        "scoring",
        "tracking",
        "fitting",
        "progress",
        "runfolder",
        "runprocess",
        "processes",
        "sampling",
        "training",
        "diffusion",
        "data",
        "config",
        "errors",
    },
    "planning": {"preparing", "previews", "recipebook", "evaluation", "training", "diffusion", "data", "device", "config"},
    "curves": {"steering", "diffusion", "data"},
    "figures": {"curves", "sampling", "diffusion", "data"},
    "previews": {"sampling", "diffusion", "data"},
    "runfolder": {"config", "data", "runprocess", "errors"},
    "runprocess": {"data", "errors"},
    "evaluation": {"sampling", "steering", "training", "diffusion", "data", "errors"},
    "sampling": {"steering", "diffusion", "data", "errors"},
    "steering": {"diffusion", "data", "device", "errors"},
    "training": {"diffusion", "data", "config", "errors"},
    "diffusion": {"errors"},
    "data": {"device", "errors"},
    "processes": {"errors"},
    "device": {"cgroup", "errors"},
    "cgroup": set(),
    "recipebook": {"config", "errors"},
    "config": {"errors"},
    "errors": set(),
    "__init__": {"api", "app", "data"},
}

# The homes of every outside library: files, or folders that end in /. What is everybody's: torch, numpy, PIL, tqdm.
HOMES: dict[str, set[str]] = {
    "accelerate": {"preparing.py", "run.py", "fitting.py", "tracking.py", "training/loop.py"},
    "cyclopts": {"cli.py", "commands.py"},
    "datasets": {"data/tables.py"},
    "gradio": {"app/"},
    "starlette": {"app/serve.py"},
    "diffusers": {"training/build.py", "diffusion/networks.py", "sampling/folder.py", "sampling/pipeline.py", "sampling/schedulers.py"},
    # Downloads are at home where what is downloaded is read; all that is uploaded, in sharing/.
    "huggingface_hub": {
        "data/network.py",
        "sampling/folder.py",
        "steering/encoders.py",
        "sharing/card.py",
        "sharing/hub.py",
        "sharing/metadata.py",
        "sharing/space.py",
    },
    "kornia": {"steering/cutouts.py"},
    # A figure of what was measured is made where it is measured, which may not import what draws a run.
    "matplotlib": {"curves.py", "evaluation/scorecard.py"},
    "numpy": {"data/", "tracking.py"},
    "open_clip": {"steering/encoders.py"},
    "PIL": {
        "data/",
        "curves.py",
        "figures.py",
        "previews.py",
        "api.py",
        "sweep.py",
        "tracking.py",
        "steering/colors.py",
        "evaluation/",
        "app/uploads.py",
        "app/asked.py",
        "app/painter.py",
    },
    "pandas": {"app/lossplot.py"},
    "peft": {"training/lora.py"},
    "psutil": {"commands.py", "planning.py", "runprocess.py", "device.py", "evaluation/cost.py"},
    "trackio": {"tracking.py"},
    "pydantic": {"config.py", "commands.py", "cli.py"},
    "safetensors": {
        "training/checkpoint.py",
        "training/lora.py",
        "sampling/folder.py",
        "diffusion/judge.py",
        "steering/encoders.py",
        "evaluation/cache.py",
    },
    "sklearn": {"data/builtin.py"},
    "torch": {
        "run.py",
        "preparing.py",
        "fitting.py",
        "base.py",
        "planning.py",
        "evaluating.py",
        "judging.py",
        "scoring.py",
        "doctor.py",
        "curves.py",
        "placing.py",
        "sweep.py",
        "api.py",
        "figures.py",
        "previews.py",
        "processes.py",
        "device.py",
        "app/worker.py",
    }
    | {"data/", "diffusion/", "sampling/", "steering/", "training/", "evaluation/", "sharing/"},
    "torch_fidelity": {"evaluation/inception.py"},
    "tqdm": {"run.py", "progress.py"},
    "transformers": {"steering/encoders.py", "steering/classifiers.py"},
    "yaml": {"recipebook.py", "runfolder.py", "commands.py", "order.py"},
}
# These know nothing of torch: they must load at once.
LIGHT = ("cli", "commands", "config", "errors", "__init__")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module a file imports, and whether it does so when it is itself imported (not inside a function or for typing only)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (isinstance(node, ast.If) and _for_typing(node))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, id(node) not in inside) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            module = str(node.module)
            deeper = [f"{module}.{name.name}" for name in node.names if f"{module}.{name.name}".replace(".", "/") in MODULES]
            yield from ((name, id(node) not in inside) for name in deeper or [module])


MODULES = {f"diffsteer/{name.removesuffix('.py').removesuffix('/__init__')}" for name in FILES}


def _for_typing(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def part(file: str) -> str:
    """The part of the package that a file or module belongs to."""
    return file.split("/")[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES)
def test_imports_point_one_way(file: str) -> None:
    ours = [module.replace(".", "/") for module, _ in imports(FILES[file]) if module.split(".")[0] == "diffsteer"]
    reached = {part(module.removeprefix("diffsteer").removeprefix("/") or "__init__") for module in ours} - {part(file), "__init__"}
    assert reached <= ARROWS[part(file)], f"{file} reaches for {reached - ARROWS[part(file)]}"


def test_the_arrows_have_no_circle() -> None:
    def below(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join([*path, name])}"
        for other in ARROWS[name]:
            below(other, (*path, name))

    for name in ARROWS:
        below(name, ())
    assert {part(file) for file in FILES} == set(ARROWS), "every part has its line, and no line is of a part that is gone"


def test_training_and_sampling_do_not_know_each_other() -> None:
    def reach(name: str) -> set[str]:
        return {name}.union(*(reach(other) for other in ARROWS[name]))

    assert "sampling" not in reach("training") and "training" not in reach("sampling")


@pytest.mark.parametrize("file", FILES)
def test_outside_libraries_stay_at_home(file: str) -> None:
    outside = {module.split(".")[0] for module, _ in imports(FILES[file])} - set(sys.stdlib_module_names) - {"diffsteer"}
    for library in outside:
        assert library in HOMES, f"{file} brings in {library}, which has no home yet"
        assert any(file == home or (home.endswith("/") and file.startswith(home)) for home in HOMES[library]), f"{library} in {file}"


def test_every_home_is_lived_in() -> None:
    found = {(module.split(".")[0], file) for file, path in FILES.items() for module, _ in imports(path)}
    empty = [
        (library, home)
        for library, homes in HOMES.items()
        for home in homes
        if not any(name == library and (file == home or (home.endswith("/") and file.startswith(home))) for name, file in found)
    ]
    assert empty == []


@pytest.mark.parametrize("name", LIGHT)
def test_what_must_load_at_once_imports_nothing_heavy(name: str) -> None:
    at_once = {module for module, first in imports(FILES[f"{name}.py"]) if first}
    light = {"cyclopts", "pydantic", "yaml", "diffsteer", *sys.stdlib_module_names}
    assert {module.split(".")[0] for module in at_once} <= light
    assert {part(module.removeprefix("diffsteer.")) for module in at_once if module.startswith("diffsteer.")} <= {
        "config",
        "recipebook",
        "errors",
    }
