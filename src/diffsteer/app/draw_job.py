"""A job of the tab Draw: the page's values handed in at the desk, and the page as the job's ticket has it at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from diffsteer.app import asked as asking
from diffsteer.app.asked import Asked, Sources
from diffsteer.app.commission import Commission, Picture, Shown
from diffsteer.app.desk import FAILED, STOPPED, WAITING, Ticket
from diffsteer.app.draw_layout import Results
from diffsteer.app.reply import Update, status, told
from diffsteer.app.shared import Shared
from diffsteer.app.uploads import Upload
from diffsteer.app.words import Said, Say

LOOK = 0.1  # seconds between two looks at a ticket


@dataclass(frozen=True)
class What:
    """What a ticket is about. folder: of all its files. mask: the file of its painted mask, where it has one."""

    asked: Asked
    sheet: bool
    folder: Path
    mask: str | None = None


def submit(shared: Shared, values: Mapping[str, Any], upload: Upload | None, person: str, sheet: bool = False) -> Ticket:
    """Hands the page's values in at the desk. Raises Said, Mistake, Full."""
    folder = shared.new_folder()
    try:
        own = {name: (loss.real, loss.told) for name, loss in shared.own.items()}
        steers = asking.steers_of(values, shared.about, Sources(shared.clip, own, upload, folder))
        sweep = asking.sweep_of(values.get("sweep_key"), values.get("sweep_values"), shared.limits) if sheet else None
        asked = asking.asked(values, shared.about, steers, shared.limits, sweep)
        cost = asked.evaluations * (3.0 if steers.real else 1.0)  # a gradient through the network costs about twice the step itself
        forecast = shared.desk.seconds(cost)
        if forecast is not None and forecast > shared.limits.seconds:
            raise Said("wrong.longest", seconds=round(forecast), most=round(shared.limits.seconds))
        job = shared.studio.job(Commission(asked.settings, steers.told, folder, shared.model))
        mask = folder / "mask.png"
        return shared.desk.submit(person, job, cost, What(asked, sheet, folder, str(mask) if mask.exists() else None))
    except BaseException:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        raise


async def follow(shared: Shared, say: Say, results: Results, token: str) -> AsyncIterator[Update]:
    """What a ticket has to show, whenever it changes, until it is over."""
    last: tuple[Any, ...] = ()
    before: Shown | None = None
    while (ticket := shared.desk.find(token)) is not None:
        ahead = shared.desk.ahead(ticket) if ticket.state == WAITING else 0
        over = ticket.over  # as it is before it is shown: it may end while the page is being told
        now = (ticket.looks, ahead)
        if now != last:
            shown = ticket.shown or Shown()
            yield _view(shared, say, results, ticket, shown, before, ahead)
            last, before = now, shown
        if over:
            return
        await asyncio.sleep(LOOK)


def _view(shared: Shared, say: Say, results: Results, ticket: Ticket, shown: Shown, before: Shown | None, ahead: int) -> Update:
    """The page as a ticket has it; what is as it was before is left alone."""
    over = ticket.over
    looking = not over and shown.noisy is not None and not shown.files
    update: Update = {
        results.status: status(_state_words(shared, say, ticket, shown, ahead), wrong=ticket.state == FAILED),
        results.draw: gr.update(interactive=over),
        results.stop: gr.update(interactive=not over),
        results.looks: gr.update(visible=looking),
    }
    if looking:
        update |= {results.noisy: shown.noisy, results.clean: shown.clean}
    if before is None or shown.pictures != before.pictures or shown.files != before.files or shown.sheet != before.sheet:
        sheet = bool(ticket.what.sheet)
        update |= {
            results.gallery: gr.update(
                value=_captioned(shown.pictures, say), visible=not sheet and (over or bool(shown.pictures)), selected_index=None
            ),
            results.sheet: gr.update(value=shown.sheet, visible=sheet),
            results.chosen_row: gr.update(visible=False),
            results.hint: gr.update(visible=bool(shown.pictures)),
            **{
                getattr(results, suffix): gr.update(value=shown.files.get(suffix), interactive=suffix in shown.files)
                for suffix in ("png", "gif", "npz")
            },
        }
    if before is None:
        settings = ticket.what.asked.told
        out = "sheet.png" if ticket.what.sheet else "pictures.png"
        update |= {
            results.command: asking.command_line(shared.model, settings, out),
            results.python: asking.python_lines(shared.model, settings, shared.about.device),
            results.mask: gr.update(value=ticket.what.mask, visible=ticket.what.mask is not None),
        }
    return update


def _state_words(shared: Shared, say: Say, ticket: Ticket, shown: Shown, ahead: int) -> str:
    """What a ticket is at, in words."""
    if ticket.state == WAITING:
        seconds = shared.desk.seconds(ticket.cost)
        if ahead and seconds is not None:
            return say("state.waiting_about", ahead=ahead, seconds=max(1, round(ahead * seconds)))
        return say("state.waiting", ahead=ahead) if ahead else say("state.starting")
    if ticket.state == FAILED:
        assert ticket.error is not None
        return told(ticket.error, say)
    if ticket.state == STOPPED:
        return say("state.stopped", count=len(shown.pictures))
    if ticket.over:
        took = f"{ticket.seconds:.1f}"
        done = say("state.sheet_done", seconds=took) if ticket.what.sheet else say("state.done", count=len(shown.pictures), seconds=took)
        return " ".join([done, *shown.notes])
    if ticket.stopping.is_set():
        return say("state.stopping")
    if not shown.steps:
        return say("state.starting")
    return say("state.writing") if shown.step >= shown.steps else say("state.step", step=shown.step, steps=shown.steps)


def _captioned(pictures: tuple[Picture, ...], say: Say) -> list[tuple[str, str]]:
    return [(picture.path, caption(picture, say)) for picture in pictures]


def caption(picture: Picture, say: Say) -> str:
    if picture.label is None:
        return say("result.caption_unlabelled", seed=picture.seed)
    return say("result.caption", label=picture.label, seed=picture.seed)
