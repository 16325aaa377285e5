"""The story of one `diffsteer push`: a model folder, and nothing else of a run, goes to the Hub.

What would be uploaded is first copied to a folder of its own, with the code that this diffsteer writes, and opened there as a stranger
would open it. That copy is what goes, so training on, or whatever else lies in the run, cannot get in.
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsteer.data.whole import whole_file
from diffsteer.diffusion import networks
from diffsteer.errors import Mistake
from diffsteer.sampling.folder import find_model, load_model, pipeline_source
from diffsteer.sharing.card import ANYONE, CARD, SAMPLES, Licences, write_card
from diffsteer.sharing.check import check_opens
from diffsteer.sharing.hub import Account, Kind, Uploaded, check_name, find_place, left_here, listing, upload

MODEL = Kind(
    "model",
    (
        "model_index.json",
        "diffsteer.json",
        "pipeline.py",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/network.py",
        "unet/*.safetensors",
        "unet/*.safetensors.index.json",
        CARD,
        SAMPLES,
        "LICENSE",
    ),
    mark="diffsteer.json",
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Parcel:
    """What a push would upload. card: whether there is one. files: bytes by name. staying: what lies beside them and is not uploaded."""

    folder: Path
    repo: str
    private: bool
    card: bool
    files: dict[str, int]
    staying: list[str]

    def to_dict(self) -> dict[str, Any]:
        values = {"folder": str(self.folder), "repo": self.repo, "private": self.private, "card": self.card}
        return {**values, "files": self.files, "staying": self.staying}

    def lines(self) -> list[str]:
        widest = max(map(len, self.files))
        where = self.repo if "/" in self.repo else f"{self.repo}, in your own namespace"
        said = [f"would go to {where}{', private where it is new' if self.private else ''}:"]
        said += [f"  {name:{widest}}  {told(size):>9}" for name, size in self.files.items()]
        said += [] if self.card else [f"  {CARD:{widest}}  to be made, with {SAMPLES}: there is no card yet"]
        said += [f"  {'in all':{widest}}  {told(sum(self.files.values())):>9}"]
        return [*said, *([f"stays here: {', '.join(self.staying)}"] if self.staying else [])]


def parcel(model: str, repo: str, private: bool = False) -> Parcel:
    """What `push` would upload, by looking at this computer only. Raises Mistake."""
    check_name(repo)
    if not Path(model).expanduser().exists():
        raise Mistake(f"There is no folder {model} here; push takes a run folder or a model folder of this computer.")
    folder = find_model(model)
    files = _model_files(folder)
    return Parcel(folder, repo, private, CARD in files, files, left_here(folder, MODEL))


def _model_files(folder: Path) -> dict[str, int]:
    """Bytes by name of the model folder's own files. Raises Mistake."""
    files = listing(folder, MODEL)
    if not any(name.endswith(".safetensors") for name in files):
        raise Mistake(f"{folder} has no weights that may be uploaded: unet/*.safetensors is what is looked for, as pickles never are.")
    return files


def push(model: str, repo: str, account: Account, *, private: bool = False, say: Say = print) -> Uploaded:
    """Uploads the model folder of MODEL; a card is made where there is none. Raises Mistake, Stopped; after Stopped, the same goes on.

    account: as `hub.sign_in` finds it, which tells what is missing before anything heavy is loaded.
    """
    folder = parcel(model, repo, private).folder
    if not (folder / CARD).is_file():
        write_card(model, folder / CARD, licences=Licences())
        say(f"card     made {folder / CARD}, without a licence: diffsteer card MODEL --license NAME --overwrite states one")
    with staged(folder, say) as stage:
        spec = load_model(str(stage)).spec
        check_opens(stage, spec.labelled, (spec.height, spec.width))
        say("checked  opens and draws in a clean process, with diffusers alone")
        place = find_place(account, repo, MODEL, private)
        _name_in_card(stage / CARD, place.repo)
        files = listing(stage, MODEL)
        say(f"uploads  {len(files)} files, {told(sum(files.values()))}, to {place.repo} ({'private' if place.private else 'public'})")
        return upload(stage, place, MODEL)


@contextmanager
def staged(folder: Path, say: Say) -> Iterator[Path]:
    """A folder with copies of what would be uploaded, its code being this diffsteer's. Raises Mistake."""
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary) / "model"
        for name in _model_files(folder):
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, stage / name)
        for name, source in _code(stage).items():
            there = (stage / name).read_text(encoding="utf-8") if (stage / name).is_file() else None
            if there == source:
                continue
            if source is None:
                (stage / name).unlink()
                say(f"code     {name} is not used by this model, and stays here")
            else:
                (stage / name).write_text(source, encoding="utf-8")
                say(f"code     {name} was not the one that this diffsteer writes; its own goes instead")
        yield stage


def _code(stage: Path) -> dict[str, str | None]:
    """The code that belongs into the folder, by name, None for none: what others may have put there is neither run nor sent on."""
    index = json.loads((stage / "model_index.json").read_text(encoding="utf-8"))
    return {
        "pipeline.py": pipeline_source() if isinstance(index.get("_class_name"), list) else None,
        "unet/network.py": inspect.getsource(networks) if index["unet"][0] == "network" else None,
    }


def _name_in_card(card: Path, repo: str) -> None:
    """Puts the name that the model gets where the card had none to say."""
    text = card.read_text(encoding="utf-8")
    with whole_file(card) as beside:
        beside.write_text(re.sub(rf"\b{ANYONE}/[\w.-]+", repo, text), encoding="utf-8")


def told(size: int) -> str:
    """Bytes as people read them: `1.5 MiB`."""
    for unit, bytes_ in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size} B"
