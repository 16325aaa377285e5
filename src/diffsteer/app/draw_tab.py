"""The tab Draw: choose, steer, watch the pictures form, stop, keep a seed, compare, and take the pictures away.

What is drawn is what `diffsteer sample` draws by the command line that is shown. Buttons and status are drawn from the desk's ticket each
time, so a reload finds a job again, waiting, running or done.
"""

from __future__ import annotations

import asyncio
import html
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from diffsteer.app import asked as asking
from diffsteer.app import uploads
from diffsteer.app.asked import Asked
from diffsteer.app.desk import FAILED, STOPPED, WAITING, Full, Ticket
from diffsteer.app.opening import STRONGEST, as_controls
from diffsteer.app.painter import painted_over, painter
from diffsteer.app.reply import LIGHT, LONG, Update, status, told
from diffsteer.app.shared import Shared
from diffsteer.app.studio import Commission, Picture, Shown
from diffsteer.app.uploads import Upload
from diffsteer.app.words import Said, Say
from diffsteer.errors import Mistake
from diffsteer.steering.words import parse

LOOK = 0.1  # seconds between two looks at a ticket
CHIPS = 24  # so many labels are shown side by side, more in a list
GREEN = "#1ae680"


@dataclass(frozen=True)
class What:
    """What a ticket is about. folder: of all its files. mask: the file of its painted mask, where it has one."""

    asked: Asked
    sheet: bool
    folder: Path
    mask: str | None = None


@dataclass
class _Results:
    """The components that show a job."""

    status: Any
    draw: Any
    stop: Any
    looks: Any  # the row of the two previews
    noisy: Any
    clean: Any
    gallery: Any
    hint: Any
    chosen_row: Any
    chosen_words: Any
    keep: Any
    use: Any
    one: Any
    sheet: Any
    png: Any
    gif: Any
    npz: Any
    mask: Any
    command: Any
    python: Any
    token: Any
    kept_token: Any
    chosen: Any


def draw_tab(shared: Shared, say: Say) -> None:
    """Lays the tab out and ties it to the desk."""
    with gr.Row(elem_id="draw-tab"):
        with gr.Column(scale=6, min_width=320):
            results = _results(say)
        with gr.Column(scale=5, min_width=320):
            examples = gr.Row(elem_id="examples")
            controls = _controls(shared, say)
    with examples:
        for words, values in _examples(shared, say):
            example = gr.Button(words, size="sm", min_width=60)
            example.click(_setter(controls, values), None, list(controls.values()), **LIGHT)
    picture_key = gr.BrowserState("", storage_key="diffsteer-picture", secret="kept in the open")
    _tie_drawing(shared, say, results, controls, picture_key)
    _tie_picture(shared, say, results, controls, picture_key)
    _tie_chosen(shared, say, results, controls, picture_key)
    _tie_memory(shared, say, results, controls, picture_key)


# ---- layout ----------------------------------------------------------------------------------------------------------


def _results(say: Say) -> _Results:
    line = gr.HTML(status(say("state.idle")), elem_id="status")
    with gr.Row(visible=False, elem_id="looks") as looks:
        noisy, clean = (
            gr.Image(label=say(f"draw.{name}"), format="png", interactive=False, buttons=[], elem_id=name, min_width=140)
            for name in ("noisy", "clean")
        )
    gallery = gr.Gallery(
        label=say("draw.pictures"), show_label=False, format="png", columns=4, object_fit="contain", allow_preview=False, interactive=False,
        buttons=[], height="auto", elem_id="gallery",
    )  # fmt: skip
    sheet = gr.Image(label=say("sweep.sheet"), format="png", interactive=False, visible=False, buttons=["fullscreen"], elem_id="sheet")
    with gr.Row(elem_id="act"):
        draw = gr.Button(say("draw.button"), variant="primary", elem_id="draw", min_width=120, scale=3)
        stop = gr.Button(say("draw.stop"), variant="stop", elem_id="stop", interactive=False, min_width=90, scale=1)
    hint = gr.HTML(f'<div class="quiet">{html.escape(say("result.click"))}</div>', elem_id="hint")
    with gr.Column(visible=False, elem_id="chosen") as chosen_row:
        chosen_words = gr.HTML()
        with gr.Row():
            keep = gr.Button(say("result.keep"), size="sm", elem_id="keep", min_width=100)
            use = gr.Button(say("result.use"), size="sm", elem_id="use", min_width=100)
            one = gr.DownloadButton(say("result.one"), size="sm", elem_id="one", min_width=100)
    with gr.Row(elem_id="downloads"):
        png, gif, npz = (
            gr.DownloadButton(say(f"result.{suffix}"), size="sm", interactive=False, elem_id=suffix, min_width=100)
            for suffix in ("png", "gif", "npz")
        )
    mask = gr.DownloadButton(say("steer.mask_file"), size="sm", visible=False, elem_id="mask-file")
    with gr.Accordion(say("draw.same"), open=False, elem_id="same"):
        plain: dict[str, Any] = {"language": None, "interactive": False, "wrap_lines": True, "show_line_numbers": False, "lines": 1}
        command = gr.Code(label=say("draw.command"), elem_id="command", **plain)
        python = gr.Code(label=say("draw.python"), elem_id="python", **plain)
    kept_token = gr.BrowserState("", storage_key="diffsteer-job", secret="kept in the open")
    return _Results(
        line, draw, stop, looks, noisy, clean, gallery, hint, chosen_row, chosen_words, keep, use, one, sheet, png, gif, npz, mask,
        command, python, gr.State(""), kept_token, gr.State(None),
    )  # fmt: skip


def _controls(shared: Shared, say: Say) -> dict[str, Any]:
    """The page's values by name; each name is a key of `asked.asked` or `asked.steers_of`."""
    about, made = shared.about, {}
    if about.labels:
        kind = gr.CheckboxGroup if len(about.labels) <= CHIPS else gr.Dropdown
        many = {} if len(about.labels) <= CHIPS else {"multiselect": True}
        made["labels"] = kind(list(about.labels), value=_first_labels(shared), label=say("draw.labels"), elem_id="labels", **many)
    with gr.Row():
        counts = [count for count in (1, 2, 4, 8, 16, 64) if count <= shared.limits.pictures]
        made["each"] = gr.Radio(
            counts, value=_first_count(shared), label=say("draw.each" if about.labels else "draw.count"), elem_id="each", min_width=200
        )
        with gr.Column(min_width=140):
            made["seed"] = gr.Number(0, precision=0, minimum=0, label=say("draw.seed"), elem_id="seed")
            dice = gr.Button(say("draw.dice"), size="sm", elem_id="dice")
    dice.click(lambda: random.randrange(10_000), None, made["seed"], **LIGHT)
    made |= _steer_controls(shared, say)
    with gr.Accordion(say("draw.more"), open=False, elem_id="more"):
        own = say("draw.own", name=about.own_solver)
        solvers = [(own, ""), *((name, name) for name in about.solvers)]
        made["solver"] = gr.Dropdown(solvers, value="", label=say("draw.solver"), elem_id="solver")
        with gr.Row():
            made["steps"] = gr.Number(about.own_steps, precision=0, minimum=1, label=say("draw.steps"), elem_id="steps", min_width=100)
            if about.guidance:
                made["guidance"] = gr.Number(about.own_guidance, step=0.5, label=say("draw.guidance"), elem_id="guidance", min_width=140)
        made["recipe"] = gr.File(label=say("draw.recipe"), file_types=[".png"], height=160, elem_id="recipe")
    with gr.Accordion(say("sweep.fold"), open=False, elem_id="sweep"):
        offered = [key for key in asking.SWEEPS if about.guidance or key != "guidance-scale"]
        with gr.Row():
            made["sweep_key"] = gr.Dropdown(
                [(say(f"sweep.{key}"), key) for key in offered], value="steps", label=say("sweep.key"), elem_id="sweep-key", min_width=140
            )
            made["sweep_values"] = gr.Textbox(
                asking.SWEEPS["steps"], label=say("sweep.values"), max_length=200, elem_id="sweep-values", min_width=140
            )
        made["sheet"] = gr.Button(say("sweep.button"), elem_id="draw-sheet")
        made["sweep_key"].input(asking.SWEEPS.get, made["sweep_key"], made["sweep_values"], **LIGHT)
    return made


def _steer_controls(shared: Shared, say: Say) -> dict[str, Any]:
    """A choice of steers, and for each what it needs, shown when it is chosen."""
    about = shared.about
    kinds = [*(["color"] if about.channels == 3 else []), "brightness", "symmetry", *(["clip"] if shared.clip else []), "reference", "mask"]
    choices = [(say(f"steer.{kind}"), kind) for kind in kinds] + [(say("steer.own", name=name), name) for name in shared.own]
    missing = [say("steer.grey_model")] * (about.channels != 3) + [say("steer.no_clip")] * (not shared.clip)
    start = shared.opening
    made = {"by": gr.CheckboxGroup(choices, value=start.get("by", []), label=say("steer.by"), info=" ".join(missing) or None, elem_id="by")}
    groups = {}

    def strength(kind: str) -> Any:
        return gr.Slider(
            0,
            STRONGEST,
            value=start.get(f"{kind}_strength", 1),
            step=0.1,
            label=say("steer.strength"),
            elem_id=f"{kind}-strength",
            min_width=160,
        )

    def group(name: str) -> Any:
        return gr.Group(visible=name in unfolded(start.get("by", [])), elem_classes="steer")

    def unfolded(chosen: list[str]) -> set[str]:
        """The groups that these steers need."""
        wanted = set(chosen) | ({"picture"} if {"reference", "mask"} & set(chosen) else set())
        return wanted | ({"own"} if set(shared.own) & wanted else set())

    with group("color") as groups["color"], gr.Row():
        made["color"] = gr.ColorPicker(start.get("color", GREEN), label=say("steer.the_color"), elem_id="color", min_width=120)
        made["color_strength"] = strength("color")
    with group("brightness") as groups["brightness"], gr.Row():
        made["brightness"] = gr.Slider(
            0, 1, value=start.get("brightness", 0.4), step=0.05, label=say("steer.the_brightness"), elem_id="brightness", min_width=160
        )
        made["brightness_strength"] = strength("brightness")
    with group("symmetry") as groups["symmetry"], gr.Row():
        mirrors = [(say(f"steer.{name.replace('-', '_')}"), name) for name in asking.MIRRORS]
        mirror = start.get("mirror", asking.MIRRORS[0])
        made["mirror"] = gr.Radio(mirrors, value=mirror, label=say("steer.the_mirror"), elem_id="mirror", min_width=160)
        made["symmetry_strength"] = strength("symmetry")
    with group("clip") as groups["clip"]:
        made["sentence"] = gr.Textbox(
            start.get("sentence", ""), label=say("steer.the_sentence"), max_length=asking.LONGEST_SENTENCE, elem_id="sentence"
        )
        made["clip_strength"] = strength("clip")
    with group("own") as groups["own"]:
        named = "".join(f"<li><code>{html.escape(own.name)}</code> SHA-256 {own.sha256[:16]}…</li>" for own in shared.own.values())
        gr.HTML(f'<ul class="quiet">{named}</ul>')
        made["own_strength"] = strength("own")
    with group("picture") as groups["picture"], gr.Row():
        made["upload"] = gr.File(
            label=say("steer.upload"), file_types=[".png", ".jpg", ".jpeg", ".webp"], height=160, elem_id="upload", min_width=160
        )
        made["seen"] = gr.Image(
            label=say("steer.seen"), format="png", interactive=False, buttons=[], height=160, elem_id="seen", min_width=120
        )
    with group("reference") as groups["reference"], gr.Row():
        likes = [(say(f"steer.{name}"), name) for name in asking.LIKE]
        made["like"] = gr.Radio(likes, value=asking.LIKE[0], label=say("steer.by_what"), elem_id="like", min_width=160)
        made["reference_strength"] = strength("reference")
    with group("mask") as groups["mask"], gr.Column():
        made["mask"] = painter(about.width, about.height, say("steer.paint"), asking.preset_mask("none", about))
        forms = [(say(f"steer.preset_{form}"), form) for form in ("none", "left", "right", "top", "bottom", "centre")]
        preset = gr.Dropdown(forms, value=None, label=say("steer.preset"), elem_id="preset")
        preset.input(lambda form: asking.preset_mask(form, about), preset, made["mask"], **LIGHT)

    def unfold(chosen: list[str]) -> list[Any]:
        return [gr.update(visible=name in unfolded(chosen)) for name in groups]

    made["by"].change(unfold, made["by"], list(groups.values()), **LIGHT)
    return made


def _first_labels(shared: Shared) -> list[str]:
    """None, which means all, while one of each is no more than a page of pictures."""
    labels = shared.about.labels
    return [] if len(labels) <= min(16, shared.limits.pictures) else list(labels[: min(8, shared.limits.pictures)])


def _first_count(shared: Shared) -> int:
    return 1 if shared.about.labels else min(16, shared.limits.pictures)


def first_values(shared: Shared) -> dict[str, Any]:
    """The values that the page opens with."""
    about = shared.about
    chosen = {"labels": _first_labels(shared), "each": _first_count(shared), "seed": 0, "solver": "", "steps": about.own_steps}
    return chosen | ({"guidance": about.own_guidance} if about.guidance else {}) | shared.opening


def _examples(shared: Shared, say: Say) -> list[tuple[str, dict[str, Any]]]:
    """A row of buttons: (words, values that they set)."""
    about = shared.about
    start = {**first_values(shared), "by": []}
    four = min(4, shared.limits.pictures)
    made = []
    if about.labels:
        label = about.labels[min(3, len(about.labels) - 1)]
        made += [(say("example.all"), start), (say("example.four", label=label), {**start, "labels": [label], "each": four})]
    else:
        made += [(say("example.sixteen"), start)]
    if about.channels == 3:
        made += [(say("example.green"), {**start, "by": ["color"], "color": GREEN, "color_strength": 1})]
    made += [(say("example.symmetric"), {**start, "by": ["symmetry"], "mirror": asking.MIRRORS[0], "symmetry_strength": 1})]
    if about.guidance:
        made += [(say("example.guided"), {**start, "guidance": 3})]
    return made


def _setter(controls: Mapping[str, Any], values: Mapping[str, Any]) -> Callable[[], list[Any]]:
    def set_values() -> list[Any]:
        return [values.get(name, gr.skip()) for name in controls]

    return set_values


# ---- a job -----------------------------------------------------------------------------------------------------------


def _tie_drawing(shared: Shared, say: Say, results: _Results, controls: dict[str, Any], picture_key: Any) -> None:
    values_in = {name: control for name, control in controls.items() if name not in ("recipe", "upload", "seen", "sheet")}
    outputs = [value for name, value in vars(results).items()]

    async def start(sheet: bool, request: gr.Request, given: tuple[Any, ...]) -> AsyncIterator[Update]:
        *numbers, key = given
        try:
            ticket = submit(shared, dict(zip(values_in, numbers, strict=True)), shared.upload(key), str(request.session_hash), sheet)
        except (Said, Mistake, Full) as error:
            yield {results.status: status(told(error, say), wrong=True)}
            return
        yield {
            results.token: ticket.token,
            results.kept_token: ticket.token,
            results.chosen: None,
            results.status: status(say("state.starting")),
            results.draw: gr.update(interactive=False),
            results.stop: gr.update(interactive=True),
        }
        async for update in follow(shared, say, results, ticket.token):
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

    inputs = [*values_in.values(), picture_key]
    results.draw.click(draw, inputs, outputs, **LONG)
    controls["sheet"].click(draw_sheet, inputs, outputs, **LONG)
    results.stop.click(stop, results.token, results.status, **LIGHT)


def submit(shared: Shared, values: Mapping[str, Any], upload: Upload | None, person: str, sheet: bool = False) -> Ticket:
    """Hands the page's values in at the desk. Raises Said, Mistake, Full."""
    folder = shared.new_folder()
    try:
        own = {name: (loss.real, loss.told) for name, loss in shared.own.items()}
        steers = asking.steers_of(values, shared.about, clip=shared.clip, own=own, upload=upload, folder=folder)
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


async def follow(shared: Shared, say: Say, results: _Results, token: str) -> AsyncIterator[Update]:
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


def _view(shared: Shared, say: Say, results: _Results, ticket: Ticket, shown: Shown, before: Shown | None, ahead: int) -> Update:
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
    return [(picture.path, _caption(picture, say)) for picture in pictures]


def _caption(picture: Picture, say: Say) -> str:
    if picture.label is None:
        return say("result.caption_unlabelled", seed=picture.seed)
    return say("result.caption", label=picture.label, seed=picture.seed)


# ---- the chosen picture ----------------------------------------------------------------------------------------------


def _tie_chosen(shared: Shared, say: Say, results: _Results, controls: dict[str, Any], picture_key: Any) -> None:
    def choose(token: str, event: gr.SelectData) -> Update:
        picture = _picture(shared, token, event.index)
        if picture is None:
            return {results.chosen_row: gr.update(visible=False)}
        words = [say("result.selected", caption=_caption(picture, say))]
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


def _tie_picture(shared: Shared, say: Say, results: _Results, controls: dict[str, Any], picture_key: Any) -> None:
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
            values, left_out = _from_recipe(shared, uploads.recipe_in(uploads.checked(path, shared.most_upload)))
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


def _from_recipe(shared: Shared, recipe: Any) -> tuple[dict[str, Any], list[str]]:
    """The page's values that draw a recipe's pictures, and what it holds that the page cannot do. Raises Said."""
    about, left_out = shared.about, []
    labels = list(dict.fromkeys(picture.label for picture in recipe.pictures if picture.label is not None))
    for label in labels:
        if label not in about.labels:
            raise Said("wrong.label", label=label[:40])
    seeds = [picture.seed for picture in recipe.pictures]
    each = len(recipe.pictures) // max(1, len(labels))
    values: dict[str, Any] = {"labels": labels, "each": each, "seed": min(seeds), "steps": recipe.steps}
    values["solver"] = recipe.solver if recipe.solver in about.solvers else ""
    if sorted(set(seeds)) != list(range(min(seeds), min(seeds) + each)) or each not in (1, 2, 4, 8, 16, 64):
        left_out.append("seeds")
        values["each"] = 1
    if recipe.solver not in about.solvers:
        left_out.append(recipe.solver)
    if about.guidance:
        values["guidance"] = recipe.guidance_scale
    steers, others = as_controls(list(map(parse, recipe.steer)), shared.own, shared.clip is not None, about.channels == 3)
    return values | steers, [*left_out, *(words.name for words in others)]


# ---- reload ----------------------------------------------------------------------------------------------------------


def _tie_memory(shared: Shared, say: Say, results: _Results, controls: dict[str, Any], picture_key: Any) -> None:
    """Settings live in the browser; a reload brings them back, and finds the job again."""
    kept = {name: control for name, control in controls.items() if name not in ("recipe", "upload", "seen", "sheet", "mask")}
    begun = "".join(f" {key}={value}" for key, value in shared.opening.items())  # what is remembered of another start would undo this one
    memory = gr.BrowserState({}, storage_key=f"diffsteer-draw {shared.model}{begun}", secret="kept in the open")
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

    async def attach(token: str) -> AsyncIterator[Update]:
        """The job of before the reload, or what was drawn before anyone came."""
        ticket = shared.desk.find(token)
        if ticket is not None:
            yield {results.token: token}
            async for update in follow(shared, say, results, token):
                yield update
        elif shared.first is not None:
            async for update in follow(shared, say, results, shared.first.token):
                words = say("state.first" if shared.first.over else "state.starting")
                yield {**update, results.status: status(words), results.draw: gr.skip(), results.stop: gr.skip()}
            yield {results.token: shared.first.token}

    page = gr.context.Context.root_block
    loaded = page.load(recall, [memory, picture_key], [*kept.values(), controls["seen"], controls["mask"]], **LIGHT)
    loaded.then(attach, results.kept_token, list(vars(results).values()), **LONG)
