"""The tab Draw: choose, steer, watch the pictures form, stop, keep a seed, compare, and take the pictures away.

What is drawn is what `diffsteer sample` draws by the command line that is shown. Buttons and status are drawn from the desk's ticket each
time, so a reload finds a job again, waiting, running or done. What stands on the tab is in `draw_layout.py`, a job in `draw_job.py`.
"""

from __future__ import annotations

import html
import zlib
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from diffsteer.app import asked as asking
from diffsteer.app import uploads
from diffsteer.app.commission import Picture
from diffsteer.app.desk import Full
from diffsteer.app.draw_job import caption, follow, submit
from diffsteer.app.draw_layout import Results, controls_of, examples_of, results_of, setter
from diffsteer.app.newest import Newest
from diffsteer.app.opening import from_recipe
from diffsteer.app.painter import painted_over
from diffsteer.app.reply import LIGHT, LONG, Update, status, told
from diffsteer.app.shared import Shared
from diffsteer.app.words import Said, Say
from diffsteer.errors import Mistake


def draw_tab(shared: Shared, say: Say) -> None:
    """Lays the tab out and ties it to the desk."""
    with gr.Row(elem_id="draw-tab"):
        with gr.Column(scale=6, min_width=320):
            results = results_of(say)
        with gr.Column(scale=5, min_width=320):
            examples = gr.Row(elem_id="examples")
            controls = controls_of(shared, say)
    with examples:
        for words, values in examples_of(shared, say):
            example = gr.Button(words, size="sm", min_width=60)
            example.click(setter(controls, values), None, list(controls.values()), **LIGHT)
    picture_key = gr.BrowserState("", storage_key="diffsteer-picture", secret="kept in the open")
    newest = Newest()
    _tie_drawing(shared, say, results, controls, picture_key, newest)
    _tie_picture(shared, say, results, controls, picture_key)
    _tie_chosen(shared, say, results, controls, picture_key)
    _tie_memory(shared, say, results, controls, picture_key, newest)


# ---- a job -----------------------------------------------------------------------------------------------------------


def _tie_drawing(shared: Shared, say: Say, results: Results, controls: dict[str, Any], picture_key: Any, newest: Newest) -> None:
    values_in = {name: control for name, control in controls.items() if name not in ("recipe", "upload", "seen", "sheet")}
    outputs = [value for name, value in vars(results).items()]

    async def start(sheet: bool, request: gr.Request, given: tuple[Any, ...]) -> AsyncIterator[Update]:
        *numbers, key, before = given
        person = str(request.session_hash)
        try:
            ticket = submit(shared, dict(zip(values_in, numbers, strict=True)), shared.upload(key), person, sheet)
        except (Said, Mistake, Full) as error:
            yield {results.status: status(told(error, say), wrong=True)}
            return
        shared.begun()
        older = shared.desk.find(before)
        if older is not None and not older.over:  # nobody would see it, nor could stop it
            shared.desk.stop(older)
        async for update in newest.begin(person, begun(ticket.token)):
            yield update

    async def begun(token: str) -> AsyncIterator[Update]:
        yield {
            results.token: token,
            results.kept_token: token,
            results.chosen: None,
            results.status: status(say("state.starting")),
            results.draw: gr.update(interactive=False),
            results.stop: gr.update(interactive=True),
        }
        async for update in follow(shared, say, results, token):
            yield update

    async def draw(request: gr.Request, *given: Any) -> AsyncIterator[Update]:
        async for update in start(False, request, given):
            yield update

    async def draw_sheet(request: gr.Request, *given: Any) -> AsyncIterator[Update]:
        async for update in start(True, request, given):
            yield update

    def stop(token: str) -> Any:
        ticket = shared.desk.find(token)
        if ticket is None or ticket.over:
            return gr.skip()
        shared.desk.stop(ticket)
        return status(say("state.stopping"))

    inputs = [*values_in.values(), picture_key, results.token]
    results.draw.click(draw, inputs, outputs, **LONG)
    controls["sheet"].click(draw_sheet, inputs, outputs, **LONG)
    results.stop.click(stop, results.token, results.status, **LIGHT)


# ---- the chosen picture ----------------------------------------------------------------------------------------------


def _tie_chosen(shared: Shared, say: Say, results: Results, controls: dict[str, Any], picture_key: Any) -> None:
    def choose(token: str, event: gr.SelectData) -> Update:
        picture = _picture(shared, token, event.index)
        if picture is None:
            return {results.chosen_row: gr.update(visible=False)}
        words = [say("result.selected", caption=caption(picture, say))]
        if picture.loss is not None:
            first, last = (f"{loss:.4g}" for loss in picture.loss)
            words.append(say("result.loss", first=first, last=last))
        return {
            results.chosen_row: gr.update(visible=True),
            results.chosen_words: f'<div class="quiet">{html.escape(" · ".join(words))}</div>',
            results.one: gr.update(value=picture.path),
            results.chosen: event.index,
        }

    def keep(token: str, index: Any) -> list[Any]:
        picture = _picture(shared, token, index)
        if picture is None:
            return [gr.skip() for _ in controls]
        values = {"seed": picture.seed, "each": 1, "labels": [picture.label] if picture.label is not None else None}
        return [values[name] if values.get(name) is not None else gr.skip() for name in controls]

    def use(token: str, index: Any, by: list[str]) -> list[Any]:
        picture = _picture(shared, token, index)
        if picture is None:
            return [gr.skip() for _ in range(4)]
        upload = uploads.checked(picture.path, shared.most_upload)
        seen = uploads.thumbnail(upload, shared.about.width, shared.about.height)
        by = by if {"reference", "mask"} & set(by) else [*by, "mask"]
        return [shared.keep(upload), seen, _unpainted(shared, seen), by]

    chosen = [results.chosen_row, results.chosen_words, results.one, results.chosen]
    results.gallery.select(choose, results.token, chosen, **LIGHT)
    results.keep.click(keep, [results.token, results.chosen], list(controls.values()), **LIGHT)
    taken = [picture_key, controls["seen"], controls["mask"], controls["by"]]
    results.use.click(use, [results.token, results.chosen, controls["by"]], taken, **LIGHT)


def _picture(shared: Shared, token: str, index: Any) -> Picture | None:
    ticket = shared.desk.find(token)
    pictures = ticket.shown.pictures if ticket is not None and ticket.shown is not None else ()
    return pictures[index] if isinstance(index, int) and 0 <= index < len(pictures) else None


# ---- the person's own picture ----------------------------------------------------------------------------------------


def _tie_picture(shared: Shared, say: Say, results: Results, controls: dict[str, Any], picture_key: Any) -> None:
    def take(path: str | None) -> Update:
        """An upload is looked at before it is decoded; what cannot be used is taken out again."""
        if path is None:
            return {picture_key: "", controls["seen"]: None, controls["mask"]: _unpainted(shared, None)}
        try:
            upload = uploads.checked(path, shared.most_upload)
            seen = uploads.thumbnail(upload, shared.about.width, shared.about.height)
        except Said as error:
            wrong = status(told(error, say), wrong=True)
            return {results.status: wrong, controls["upload"]: None, picture_key: "", controls["seen"]: None}
        return {picture_key: shared.keep(upload), controls["seen"]: seen, controls["mask"]: _unpainted(shared, seen)}

    def load(path: str | None) -> Update:
        """The settings in a picture of ours."""
        if path is None:
            return {results.status: gr.skip()}
        try:
            recipe = uploads.recipe_in(uploads.checked(path, shared.most_upload))
            values, left_out = from_recipe(recipe, shared.model, shared.about, shared.limits, shared.own, shared.clip is not None)
        except (Said, Mistake) as error:
            return {results.status: status(told(error, say), wrong=True), controls["recipe"]: None}
        words = say("state.left_out", names=", ".join(left_out)) if left_out else say("state.loaded")
        return {results.status: status(words), **{controls[name]: value for name, value in values.items() if name in controls}}

    taken = [results.status, controls["upload"], picture_key, controls["seen"], controls["mask"]]
    controls["upload"].change(take, controls["upload"], taken, **LIGHT)
    controls["recipe"].upload(load, controls["recipe"], [results.status, *controls.values()], **LIGHT)


def _unpainted(shared: Shared, seen: Any) -> str:
    """The mask painter over a picture, nothing painted."""
    return painted_over(seen, asking.preset_mask("none", shared.about))


# ---- reload ----------------------------------------------------------------------------------------------------------


def _tie_memory(shared: Shared, say: Say, results: Results, controls: dict[str, Any], picture_key: Any, newest: Newest) -> None:
    """Settings live in the browser; a reload brings them back, and finds the job again."""
    kept = {name: control for name, control in controls.items() if name not in ("recipe", "upload", "seen", "sheet", "mask")}
    begun = "".join(f" {key}={value}" for key, value in shared.opening.items())  # what is remembered of another start would undo this one
    choices = [[value for _, value in getattr(control, "choices", None) or ()] for control in kept.values()]
    offered = zlib.crc32(repr(choices).encode())  # a page with other labels, steers or counts cannot show what is remembered of this one
    memory = gr.BrowserState({}, storage_key=f"diffsteer-draw {shared.model}{begun} {offered:08x}", secret="kept in the open")
    names = ", ".join(repr(name) for name in kept)
    remember = f"(...values) => [Object.fromEntries([{names}].map((name, i) => [name, values[i]]))]"
    gr.on([control.change for control in kept.values()], None, list(kept.values()), [memory], js=remember, show_progress="hidden")

    def recall(values: Any, key: str) -> Update:
        values = values if isinstance(values, dict) else {}
        update: Update = {control: values[name] for name, control in kept.items() if values.get(name) is not None}
        upload = shared.upload(key)
        if upload is not None:
            seen = uploads.thumbnail(upload, shared.about.width, shared.about.height)
            update |= {controls["seen"]: seen, controls["mask"]: _unpainted(shared, seen)}
        return update or {controls["seen"]: gr.skip()}  # Gradio takes an empty dict for a value

    async def attach(token: str, request: gr.Request) -> AsyncIterator[Update]:
        person = str(request.session_hash)
        if newest.follows(person):  # a hand that was quicker than the page
            yield {results.status: gr.skip()}
            return
        async for update in newest.begin(person, found(token)):
            yield update

    async def found(token: str) -> AsyncIterator[Update]:
        """The job of before the reload, or what was drawn before anyone came."""
        ticket = shared.desk.find(token)
        if ticket is not None:
            yield {results.token: token}
            async for update in follow(shared, say, results, token):
                yield update
        elif shared.first is not None:
            async for update in follow(shared, say, results, shared.first.token):
                drawn = shared.first.shown is not None and bool(shared.first.shown.pictures)
                words = say(("state.first" if drawn else "state.idle") if shared.first.over else "state.starting")
                yield {**update, results.status: status(words), results.draw: gr.skip(), results.stop: gr.skip()}
            yield {results.token: shared.first.token}

    page = gr.context.Context.root_block
    loaded = page.load(recall, [memory, picture_key], [*kept.values(), controls["seen"], controls["mask"]], **LIGHT)
    loaded.then(attach, results.kept_token, list(vars(results).values()), **LONG)
