"""What all tabs share: the model and its drawing process, the desk, the limits, and the folder of what was drawn."""

from __future__ import annotations

import secrets
import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffsteer.app.asked import Limits
from diffsteer.app.commission import About
from diffsteer.app.desk import Desk, Ticket
from diffsteer.app.ownlosses import OwnLoss
from diffsteer.app.studio import Studio
from diffsteer.app.trainer import Trainer
from diffsteer.app.uploads import Upload

UPLOADS_KEPT = 256


@dataclass
class Shared:
    """model: as it was named on the command line. jobs: the folder whose files the page serves, a folder a job, by names nobody can guess.
    open_model: serves another model in place of this one, to everyone. clip: where the CLIP is, and as it was named. opening: values that
    the page opens with instead of its own. first: what was drawn before anyone came. uploads: pictures by the key that a browser keeps for
    them. start: names this start of the page."""

    model: str
    studio: Studio
    about: About
    desk: Desk
    limits: Limits
    jobs: Path
    most_upload: int  # bytes
    trainer: Trainer
    open_model: Callable[[str], None]
    clip: tuple[str, str] | None = None
    own: dict[str, OwnLoss] = field(default_factory=dict)
    opening: dict[str, Any] = field(default_factory=dict)
    first: Ticket | None = None
    uploads: OrderedDict[str, Upload] = field(default_factory=OrderedDict)
    start: str = field(default_factory=lambda: f"start-{secrets.token_hex(8)}")

    def __post_init__(self) -> None:
        self.looks = self.new_folder()  # copies of runs' previews

    def new_folder(self) -> Path:
        folder = self.jobs / secrets.token_urlsafe(16)
        folder.mkdir()
        return folder

    def begun(self) -> None:
        """Somebody draws: what was to be drawn before anyone came need not be any more."""
        if self.first is not None and not self.first.over:
            self.desk.stop(self.first)

    def keep(self, upload: Upload) -> str:
        """The key of a picture, a copy of which is kept."""
        folder = self.new_folder()
        copy = folder / upload.name
        shutil.copyfile(upload.path, copy)
        self.uploads[folder.name] = Upload(copy, upload.name, upload.width, upload.height)
        while len(self.uploads) > UPLOADS_KEPT:
            _, old = self.uploads.popitem(last=False)
            shutil.rmtree(old.path.parent, ignore_errors=True)
        return folder.name

    def upload(self, key: object) -> Upload | None:
        """The picture of a key, while it is kept."""
        return self.uploads.get(key) if isinstance(key, str) else None
