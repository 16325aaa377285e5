"""The story of one `diffsteer app`: the drawing process loads the model while Gradio loads; then pictures are drawn and the page is served.

Gradio's own choices are all made here, none is left to the environment.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from diffsteer.app.asked import Limits
from diffsteer.app.desk import Desk, Ticket
from diffsteer.app.door import Door
from diffsteer.app.guard import LOOPBACK, Guard, Hosts, host_name
from diffsteer.app.language import ByLanguage
from diffsteer.app.opening import opening
from diffsteer.app.ownlosses import own_losses
from diffsteer.app.shared import Shared
from diffsteer.app.studio import Studio
from diffsteer.app.trainer import Trainer
from diffsteer.config import AppSettings, validated
from diffsteer.errors import Mistake
from diffsteer.processes import term_interrupts

PORT, PORTS = 7860, 100
SPACE = "SPACE_HOST"  # what the Hub sets on a Space: the hosts that browsers ask for, with commas between
FORM = 1_000_000  # bytes that a request may have beside an upload
SHORTEST_PASSWORD = 8
SAY = partial(print, flush=True)  # a Space reads our lines through a pipe, and the one that says where we are is the last for long
TRIES, PAUSE = 5, 30.0  # wrong logins in a row, and seconds until the next is looked at


def serve(model: str | Path, *, say: Callable[[str], None] = SAY, **settings: Any) -> None:
    """Opens the web app of a model, and serves it until interrupted.

    model: as for `load`. settings: the command line's flags with underscores, for example `steer=["symmetry"], most_pictures=16`. On a
    Space of the Hub it is served where the Space looks for it. A program calls it under `if __name__ == "__main__":`, as pictures are drawn
    in a process of their own. Raises Mistake, Stopped, KeyboardInterrupt.
    """
    _open(str(model), _placed(validated(AppSettings, settings, "the settings")), say)


def _placed(settings: AppSettings) -> AppSettings:
    """The same, on a Space at the address that its proxy asks."""
    there = {"host": "0.0.0.0", "port": PORT} if os.environ.get(SPACE) else {}
    return settings.model_copy(update={key: value for key, value in there.items() if key not in settings.model_fields_set})


def _for_others(settings: AppSettings) -> bool:
    """Whether others than this machine's people are to reach the page: at its address, by a link, or through a proxy in front of it."""
    return settings.host not in LOOPBACK or settings.share or bool(settings.allow_host)


def _open(model: str, settings: AppSettings, say: Callable[[str], None]) -> None:
    if find_spec("gradio") is None:
        raise Mistake("The app needs Gradio, which is not installed: pip install 'diffsteer[app]'.")
    for name in settings.allow_host:
        if host_name(name) != name.lower() or "/" in name:
            raise Mistake(f"--allow-host {name}: give the name alone, such as draw.example.org.")
    login = _login(settings, say)
    own = own_losses(settings.losses)
    clip = None if settings.clip is None else (_absolute(settings.clip, Path.cwd()), settings.clip)  # before we go elsewhere
    allowed = settings.allow_train or not _for_others(settings)
    home = Path.cwd()
    trainer = Trainer(settings.runs, settings.data, settings.device, home, allowed)

    def begin(model: str) -> Studio:
        studio = Studio(_absolute(model, home), settings.device, None if clip is None else clip[0])
        studio.start()
        return studio

    port = settings.port or _free_port(settings.host)
    with term_interrupts(), _place() as folder:
        door = Door(model, begin)
        try:
            while True:
                _serve(settings.model_copy(update={"port": port}), say, login, clip, own, folder, trainer, door)
                door.let_in()
                settings = settings.model_copy(update={"steer": ()})  # the page was to open so with the first model
        finally:
            door.close()


def _serve(settings: AppSettings, say: Any, login: Any, clip: Any, own: Any, folder: Path, trainer: Trainer, door: Door) -> None:
    """Serves the page of one model, until another is to come in its place."""
    import gradio as gr
    from starlette.middleware import Middleware

    from diffsteer.app.draw_job import submit
    from diffsteer.app.draw_layout import first_values
    from diffsteer.app.page import CSS, KEYS, page, theme

    model, studio = door.model, door.studio
    about = studio.about()
    limits = Limits(settings.most_pictures, settings.most_steps, settings.most_seconds)
    desk = Desk(forget=_forget)
    jobs = folder / "jobs"
    start = opening(settings.steer, own, clip is not None, about.channels == 3)
    most = settings.most_upload * 1_000_000
    shared = Shared(model, studio, about, desk, limits, jobs, most, trainer, door.open, clip, own, start)
    shared.first = submit(shared, first_values(shared), None, "the house")
    shared.first.stays = True
    gr.set_static_paths([jobs])  # served where they lie: no copies
    hosts = Hosts(settings.host)
    for name in (*settings.allow_host, *filter(None, os.environ.get(SPACE, "").split(","))):  # a Space's own domain stands beside the Hub's
        hosts.add(name.strip())
    demo = page(shared)
    demo.queue(api_open=False, max_size=512, default_concurrency_limit=8)
    try:
        demo.launch(
            share=settings.share,
            server_name=settings.host,
            server_port=settings.port,
            auth=login,
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            show_error=False,
            max_threads=40,
            footer_links=[],
            run_history=False,
            allowed_paths=[],
            blocked_paths=[],
            root_path="",
            favicon_path=None,
            state_session_capacity=1000,
            max_file_size=most,
            enable_monitoring=False,
            strict_cors=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            num_workers=0,
            theme=theme(),
            css=CSS,
            head=KEYS,
            app_kwargs={
                "openapi_url": None,
                "docs_url": None,
                "redoc_url": None,
                "middleware": [Middleware(Guard, hosts=hosts, most=most + FORM), Middleware(ByLanguage)],
            },
        )
    except OSError:
        where = f"--host {settings.host} --port {settings.port}"
        raise Mistake(f"{where}: that port is taken, or may not be used; give another, or none.") from None
    if demo.share_url:
        hosts.add(str(urlsplit(demo.share_url).hostname))
        say(f"Open to everyone who has the login, for a week: {demo.share_url}")
    elif settings.share:
        say("The public link could not be made; serving here only.")
    if _for_others(settings) and login is None:
        say("Everyone who can reach this page can draw here; --auth NAME asks for a login.")
    for note in about.notes:
        say(note)
    say(f"Open {demo.local_url} (Ctrl-C ends it)")
    try:
        door.changes.wait()
    finally:
        desk.close()
        demo.close(verbose=False)


def _forget(ticket: Ticket) -> None:
    shutil.rmtree(ticket.what.folder, ignore_errors=True)


# ---- who may come in -------------------------------------------------------------------------------------------------


def _login(settings: AppSettings, say: Callable[[str], None]) -> Callable[[str, str], bool] | None:
    """What looks at a name and a password; None where nobody is asked. Raises Mistake."""
    if settings.auth is None:
        if settings.share:
            raise Mistake(
                "--share opens the app to everyone who has the link, so it needs a login: give --auth NAME or --auth NAME:PASSWORD."
            )
        return None
    name, _, password = settings.auth.partition(":")
    if not name or (password and len(password) < SHORTEST_PASSWORD):
        raise Mistake(f"--auth is NAME, or NAME:PASSWORD with at least {SHORTEST_PASSWORD} letters.")
    if not password:
        password = secrets.token_urlsafe(12)
        say(f"login    name {name}, password {password}   (said only here)")
    return Login(name, password)


class Login:
    """Looks at names and passwords; after some wrong ones in a row it looks at none for a while."""

    def __init__(self, name: str, password: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._right, self._clock = (name, password), clock
        self._wrong, self._until, self._lock = 0, 0.0, threading.Lock()

    def __call__(self, name: str, password: str) -> bool:
        with self._lock:
            if self._clock() < self._until:
                return False
            right = [
                secrets.compare_digest(given.encode(), wanted.encode()) for given, wanted in zip((name, password), self._right, strict=True)
            ]
            self._wrong = 0 if all(right) else self._wrong + 1
            if self._wrong >= TRIES:
                self._wrong, self._until = 0, self._clock() + PAUSE
            return all(right)


# ---- where it works --------------------------------------------------------------------------------------------------


@contextmanager
def _place() -> Iterator[Path]:
    """A folder of the app's own, and in it an empty working directory: Gradio lets functions hand out files of where they run."""
    before, environment = Path.cwd(), dict(os.environ)
    folder = Path(tempfile.mkdtemp(prefix="diffsteer-app-")).resolve()
    for name in ("jobs", "gradio", "empty"):
        (folder / name).mkdir()
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ |= {"GRADIO_TEMP_DIR": str(folder / "gradio"), "GRADIO_ANALYTICS_ENABLED": "False"}
    os.chdir(folder / "empty")
    try:
        yield folder
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ |= environment
        shutil.rmtree(folder, ignore_errors=True)


def _absolute(model: str, home: Path) -> str:
    """The model as it is found from anywhere; what is a Hub id seen from `home` stays one."""
    path = home / Path(model).expanduser()
    return str(path.resolve()) if path.exists() or (home / Path(model).parts[0]).is_dir() else model


def _free_port(host: str) -> int:
    """The first port from 7860 that nobody listens on."""
    for port in range(PORT, PORT + PORTS):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((host, port))
            except OSError:
                continue
            return port
    raise Mistake(f"All ports from {PORT} to {PORT + PORTS - 1} are taken; give one with --port.")
