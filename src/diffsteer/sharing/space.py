"""A Space: a folder from which the Hub serves the web app of one model, and which starts with `python app.py` anywhere else.

It holds what a person can read and change: `app.py` (the model as one constant, one call), `requirements.txt`, `README.md` with the front
matter that the Hub reads (https://huggingface.co/docs/hub/spaces-config-reference), and the user's loss files; of a model of this computer
also its folder.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, SpaceCard, SpaceCardData

from diffsteer import __version__
from diffsteer.app.opening import file_and_function, opening
from diffsteer.app.ownlosses import OwnLoss, own_losses
from diffsteer.config import SpaceSettings
from diffsteer.diffusion.denoiser import ModelSpec
from diffsteer.errors import Mistake
from diffsteer.order import canvas_of
from diffsteer.sampling.folder import find_model, load_model
from diffsteer.sharing.card import CARD
from diffsteer.sharing.hub import Account, Kind, Uploaded, check_name, find_place, left_here, listing, text_of, upload
from diffsteer.sharing.pushing import MODEL, Parcel, Say, staged, told
from diffsteer.steering.losses import build
from diffsteer.steering.words import Words, parse

APP, REQUIREMENTS, LOSSES = "app.py", "requirements.txt", "losses"
COPY = "model"  # where a model of this computer goes, and its name in app.py
SPACE = Kind("space", (APP, REQUIREMENTS, CARD, f"{LOSSES}/*.py", *(f"{COPY}/{name}" for name in MODEL.files)), mark=APP, sdk="gradio")
# One job on the Hub's free machine, two cores: a page of pictures, within what a person waits.
MOST_PICTURES, MOST_SECONDS = 16, 120
TORCH_FOR_CPU = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Space:
    """What was written. model: its name in app.py. files: bytes by name."""

    folder: Path
    model: str
    files: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "model": self.model, "files": self.files}


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_space(model: str, folder: Path, settings: SpaceSettings, say: Say = print) -> Space:
    """Writes the Space of a model into a new folder, whole or not at all; the user's losses are tried first. Raises Mistake.

    A Hub id stands in app.py as it is; a model folder or run folder is copied into the Space.
    """
    if not folder.name:
        raise Mistake(f"{folder} is where you are; a Space is written as a new folder: give it a name.")
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise Mistake(f"{folder} is there already, and what you changed in it should not be lost: give another folder, or remove it first.")
    if settings.clip is not None and (Path(settings.clip).expanduser().exists() or settings.clip.count("/") != 1):
        raise Mistake(f"--clip {settings.clip}: a Space loads its CLIP from the Hub; give a Hub id, such as openai/clip-vit-base-patch32.")
    own = own_losses(settings.losses)
    here = Path(model).expanduser().exists()
    source = find_model(model)
    spec = load_model(str(source)).spec
    steers = list(map(parse, settings.steer))
    opening(settings.steer, own, settings.clip is not None, spec.channels == 3)
    _try(steers, own, spec)
    name = COPY if here else model
    with _whole_folder(folder) as beside:
        if here:
            with staged(source, say) as stage:
                shutil.copytree(stage, beside / COPY)
        losses = [] if settings.losses is None else sorted(Path(settings.losses).expanduser().glob("*.py"))
        for path in losses:
            (beside / LOSSES).mkdir(exist_ok=True)
            shutil.copyfile(path, beside / LOSSES / path.name)
        (beside / APP).write_text(_app(name, steers, bool(losses), settings.clip), encoding="utf-8")
        (beside / REQUIREMENTS).write_text(_requirements(losses, settings.clip is not None), encoding="utf-8")
        (beside / CARD).write_text(_readme(_title(model), None if here else model, _licence(source / CARD), list(own)), encoding="utf-8")
    return Space(folder, name, listing(folder, SPACE))


def _try(steers: Sequence[Words], own: Mapping[str, OwnLoss], spec: ModelSpec) -> None:
    """Losses of the user's are tried here, so that none breaks on the Space. Raises Mistake."""
    for words in steers:
        if words.code:
            build(replace(words, name=own[file_and_function(words)].real), canvas_of(spec, "cpu"))


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Yields the folder to write into, which becomes `folder` when the block ends well, and is removed otherwise."""
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _app(model: str, steers: Sequence[Words], losses: bool, clip: str | None) -> str:
    # No path of this computer: a loss is named by its file, which is in the Space.
    words = [str(replace(each, name=file_and_function(each)) if each.code else each) for each in steers]
    lines = [
        '"""The web app of a model: draw, steer and watch, in the browser. It starts with: python app.py"""',
        "",
        "import diffsteer",
        "",
        f"MODEL = {_quoted(model)}",
        "",
        'if __name__ == "__main__":',
        "    diffsteer.serve(",
        "        MODEL,",
        *([f"        steer=[{', '.join(map(_quoted, words))}],  # what the page opens with"] if words else []),
        *([f"        losses={_quoted(LOSSES)},  # own losses to steer by"] if losses else []),
        *([f"        clip={_quoted(clip)},  # reads sentences"] if clip is not None else []),
        f"        most_pictures={MOST_PICTURES},  # of one job",
        f"        most_seconds={MOST_SECONDS},  # that a job may be forecast to take",
        "    )",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # which Python reads as it does


def _requirements(losses: Iterable[Path], clip: bool) -> str:
    extras = "app,clip" if clip else "app"
    lines = [
        "# torch without CUDA, for a machine without a GPU; take this line out for one that has it.",
        f"--extra-index-url {TORCH_FOR_CPU}",
    ]
    return "\n".join([*lines, f"diffsteer[{extras}]=={__version__}", *_imported(losses)]) + "\n"


def _imported(losses: Iterable[Path]) -> list[str]:
    """What loss files import and diffsteer does not bring itself, in the versions that are installed here."""
    files = list(losses)
    modules: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                modules |= {each.name.split(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.split(".")[0])
    modules -= set(sys.stdlib_module_names) | {path.stem for path in files} | {"diffsteer"}
    brought = {re.split(r"[^\w.-]", each)[0].lower() for each in metadata.requires("diffsteer") or () if "extra ==" not in each}
    whose = metadata.packages_distributions()
    wanted = {name for module in modules for name in whose.get(module, ()) if name.lower() not in brought}
    return [f"{name}=={metadata.version(name)}" for name in sorted(wanted)]


def _readme(title: str, model: str | None, licence: str | None, own: Sequence[str]) -> str:
    """model: its Hub id, where it is on the Hub."""
    data = SpaceCardData(
        title=title,
        emoji="🎨",
        colorFrom="green",
        colorTo="indigo",
        sdk="gradio",
        sdk_version=_gradio(),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file=APP,
        pinned=False,
        license=licence,
        models=None if model is None else [model],
        suggested_hardware="cpu-basic",
    )
    said = [f"# {title}", f"Draw with {'the model in this folder' if model is None else f'`{model}`'}, steer it and watch, in the browser."]
    if own:
        said.append(f"Own losses to steer by, code that runs here, are in `{LOSSES}/`: {', '.join(f'`{name}`' for name in own)}.")
    said.append("The same on your own machine:")
    said.append(f"```bash\npip install -r {REQUIREMENTS}\npython {APP}\n```")
    said.append(f"`{APP}` names the model and what the page opens with. Made with diffsteer {__version__}.")
    return str(SpaceCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(said) + "\n"))


def _gradio() -> str:
    try:
        return metadata.version("gradio")
    except metadata.PackageNotFoundError:
        raise Mistake("A Space is written for the Gradio that is installed here, and none is: pip install 'diffsteer[app]'.") from None


def _licence(card: Path) -> str | None:
    """The licence that a model's card states."""
    return ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.get("license") if card.is_file() else None


def _title(model: str) -> str:
    place = Path(model).expanduser().resolve()
    return place.parent.name if place.name == COPY else place.name


# ---- uploading -------------------------------------------------------------------------------------------------------


def space_parcel(folder: Path, repo: str, private: bool = False) -> Parcel:
    """What `push_space` would upload, by looking at this computer only. Raises Mistake."""
    check_name(repo)
    files = listing(folder, SPACE) if folder.is_dir() else {}
    missing = [name for name in (APP, REQUIREMENTS, CARD) if name not in files]
    if missing:
        raise Mistake(f"{folder} is no Space ({', '.join(missing)} missing): diffsteer space MODEL {folder} would make one.")
    return Parcel(folder, repo, private, True, files, left_here(folder, SPACE))


def push_space(folder: Path, repo: str, account: Account, *, private: bool = False, say: Say = print) -> Uploaded:
    """Uploads a Space that `write_space` made, as it is now. Raises Mistake, Stopped; after Stopped, the same goes on."""
    files = space_parcel(folder, repo, private).files
    place = find_place(account, repo, SPACE, private)
    if APP in place.files and "diffsteer" not in text_of(place, SPACE, APP):
        raise Mistake(f"The name {place.repo} is taken: that Space is of something else than diffsteer. Choose another name.")
    say(f"uploads  {len(files)} files, {told(sum(files.values()))}, to {place.repo} ({'private' if place.private else 'public'})")
    return upload(folder, place, SPACE)
