"""The tab Train: check the pictures, see the plan, start, watch loss and previews, stop and go on."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from diffsteer.app import runs as states
from diffsteer.app import trainer as training
from diffsteer.app.desk import FAILED, WAITING, Full
from diffsteer.app.lossplot import loss_plot, losses
from diffsteer.app.newest import Newest
from diffsteer.app.reply import LIGHT, LONG, Update, status, told
from diffsteer.app.runs import ALIVE, Card
from diffsteer.app.shared import Shared
from diffsteer.app.trainer import Looked
from diffsteer.app.words import Said, Say
from diffsteer.errors import Mistake, Stopped

LOOK = 1.0  # seconds between two looks at a run
QUICK = 0.2  # between two looks at a ticket
BUDGETS = ("20s", "2m", "10m", "1h")
MOST_NAMED = 12  # classes that are named with their counts


@dataclass(frozen=True)
class LookedAt:
    """What a ticket of this tab is about."""

    folder: Path


@dataclass
class _Run:
    """The components that show a run."""

    status: Any
    chosen: Any
    loss: Any
    preview: Any
    back: Any  # slider over its previews
    stop: Any
    resume: Any
    open: Any
    command: Any
    fold: Any  # around the log
    log: Any


def train_tab(shared: Shared, say: Say) -> None:
    """Lays the tab out and ties it to the runs."""
    if not shared.trainer.allowed:
        gr.HTML(status(say("train.off")), elem_id="train-status")
        return
    with gr.Row(elem_id="train-tab"):
        with gr.Column(scale=5, min_width=320):
            controls, look, sheet, facts, start = _controls(shared, say)
        with gr.Column(scale=6, min_width=320):
            run = _run(say)
    looked = gr.State("")
    _tie_looking(shared, say, controls, look, sheet, facts, start, looked)
    _tie_running(shared, say, controls, facts, start, looked, run)
    _tie_showing(shared, say, run)


# ---- layout ----------------------------------------------------------------------------------------------------------


def _controls(shared: Shared, say: Say) -> tuple[dict[str, Any], Any, Any, Any, Any]:
    """The settings by name, as `Trainer` reads them; the two buttons, and what is found out between them."""
    offers = shared.trainer.data
    made: dict[str, Any] = {}
    first = offers[len(training.BUILT_IN)] if len(offers) > len(training.BUILT_IN) else offers[0]
    made["data"] = gr.Dropdown(list(offers), value=first, label=say("train.data"), info=say("train.more_data"), elem_id="train-data")
    starts = [(say("train.plan"), training.PLAN), (say("train.plain"), training.PLAIN)]
    starts += [(say("train.recipe", name=name), name) for name in training.RECIPES]
    starts += [(say("train.finetune", model=shared.model), training.FINETUNE)]
    made["start"] = gr.Dropdown(starts, value=training.PLAN, label=say("train.start"), elem_id="train-how")
    with gr.Row():
        budgets = [(say(f"train.budget_{budget}"), budget) for budget in BUDGETS]
        made["budget"] = gr.Dropdown(
            budgets, value="2m", allow_custom_value=True, label=say("train.budget"), elem_id="train-budget", min_width=140
        )
        made["name"] = gr.Textbox("", label=say("train.name"), max_length=64, elem_id="train-name", min_width=140)
    with gr.Accordion(say("draw.more"), open=False, elem_id="train-more"):
        for pair in (("size", "batch_size"), ("lr", "seed")):
            with gr.Row():
                for key in pair:
                    made[key] = gr.Textbox("", label=say(f"train.set_{key}"), max_length=12, elem_id=f"train-{key}", min_width=120)
    look = gr.Button(say("train.look"), variant="secondary", elem_id="train-look")
    facts = gr.HTML(f'<div class="quiet">{html.escape(say("train.look_first"))}</div>', elem_id="train-facts")
    start = gr.Button(say("train.go"), variant="primary", interactive=False, elem_id="train-start")
    sheet = gr.Image(
        label=say("train.sheet"), format="png", interactive=False, visible=False, buttons=["fullscreen"], elem_id="train-sheet"
    )
    return made, look, sheet, facts, start


def _run(say: Say) -> _Run:
    line = gr.HTML(status(say("train.none")), elem_id="train-status")
    chosen = gr.Dropdown([], label=say("train.run"), visible=False, elem_id="train-run")
    with gr.Row():
        stop = gr.Button(say("train.stop"), variant="stop", interactive=False, elem_id="train-stop", min_width=100)
        resume = gr.Button(say("train.resume"), interactive=False, elem_id="train-resume", min_width=100)
        opens = gr.Button(say("train.open"), interactive=False, elem_id="train-open", min_width=100)
    preview = gr.Image(
        label=say("train.preview"), format="png", interactive=False, visible=False, buttons=["fullscreen"], elem_id="train-preview"
    )
    back = gr.Slider(0, 1, value=0, step=1, label=say("train.back"), visible=False, elem_id="train-back")
    loss = loss_plot(say, "train-loss")
    with gr.Accordion(say("draw.same"), open=False, elem_id="train-same"):
        command = gr.Code(label=say("draw.command"), language=None, interactive=False, wrap_lines=True, show_line_numbers=False, lines=1)
    with gr.Accordion(say("train.log"), open=False, visible=False, elem_id="train-log") as fold:
        log = gr.Code(label=say("train.log"), language=None, interactive=False, wrap_lines=True, show_line_numbers=False, lines=1)
    return _Run(line, chosen, loss, preview, back, stop, resume, opens, command, fold, log)


# ---- before a training -----------------------------------------------------------------------------------------------


def _tie_looking(shared: Shared, say: Say, controls: dict[str, Any], look: Any, sheet: Any, facts: Any, start: Any, looked: Any) -> None:
    async def find_out(request: gr.Request, *given: Any) -> AsyncIterator[Update]:
        folder = shared.new_folder()
        try:
            job = shared.trainer.look(dict(zip(controls, given, strict=True)), folder)
            ticket = shared.desk.submit(str(request.session_hash), job, cost=0.0, what=LookedAt(folder))
        except (Said, Mistake, Full) as error:
            folder.rmdir()
            yield {facts: status(told(error, say), wrong=True), start: gr.update(interactive=False)}
            return
        yield {
            looked: ticket.token,
            look: gr.update(interactive=False),
            start: gr.update(interactive=False),
            sheet: gr.update(visible=False),
        }
        last: Any = None
        while (there := shared.desk.find(ticket.token)) is not None:
            over, found = there.over, there.shown
            if (over, found, there.state) != last:
                last = (over, found, there.state)
                words = say("train.waiting") if there.state == WAITING else say("train.reading")
                update: Update = {facts: status(words), look: gr.update(interactive=over)}
                if there.state == FAILED:
                    assert there.error is not None
                    update[facts] = status(told(there.error, say), wrong=True)
                elif found is not None:
                    update |= {facts: _facts(found, over, say), sheet: gr.update(value=found.sheet, visible=found.sheet is not None)}
                    update[start] = gr.update(interactive=over and found.fit)
                yield update
            if over:
                return
            await asyncio.sleep(QUICK)

    look.click(find_out, list(controls.values()), [looked, look, start, sheet, facts], **LONG)
    first = f'<div class="quiet">{html.escape(say("train.look_first"))}</div>'
    decisive = [controls[key].change for key in ("data", "start", "budget", "size")]  # what was found out is of something else now
    gr.on(decisive, lambda: [gr.update(interactive=False), first, ""], None, [start, facts, looked], **LIGHT)


def _facts(looked: Looked, over: bool, say: Say) -> str:
    """What was found out, in words."""
    report, lines = looked.report, list[str]()
    if report is not None and report["height"]:
        kind = say("page.colour" if report["channels"] == 3 else "page.grey")
        lines.append(say("train.found", count=f"{report['count']:,}", width=report["width"], height=report["height"], kind=kind))
        classes = report["classes"]
        if classes:
            named = [f"{name} {number:,}" for name, number in list(classes.items())[:MOST_NAMED]]
            lines.append(say("train.classes", count=len(classes), named=", ".join(named) + (", …" if len(classes) > MOST_NAMED else "")))
    if report is not None:
        lines += [
            *report["problems"],
            *report["notes"],
            *(f"{name}: {why}" for name, why in list(report["unreadable"].items())[:MOST_NAMED]),
        ]
    if looked.wrong and not (report and report["problems"]):
        lines.append(looked.wrong)
    if looked.plan is not None:
        ahead = looked.plan["forecast"]
        lines.append(
            say(
                "train.planned",
                steps=f"{ahead['steps']:,}",
                epochs=f"{ahead['epochs']:.1f}",
                seconds=_long(ahead["seconds"], say),
                memory=f"{ahead['memory'] / 2**30:.1f}",
            )
        )
    elif looked.fit and not over:
        lines.append(say("train.planning"))
    elif looked.fit and not looked.wrong:
        lines.append(say("train.ready"))
    wrong = bool(looked.wrong)
    items = "".join(f"<div>{'⚠ ' if wrong and not place else ''}{html.escape(line)}</div>" for place, line in enumerate(lines))
    return f'<div class="status{" wrong" if wrong else ""}" role="status" aria-live="polite">{items}</div>'


# ---- a training ------------------------------------------------------------------------------------------------------


def _tie_running(shared: Shared, say: Say, controls: dict[str, Any], facts: Any, start: Any, looked: Any, run: _Run) -> None:
    trainer, runs = shared.trainer, shared.trainer.runs
    outputs = [start, *vars(run).values()]
    newest = Newest()

    async def follow(name: Any, request: gr.Request) -> AsyncIterator[Update]:
        async for update in newest.begin(str(request.session_hash), looks(shared, say, run, name)):
            yield update

    async def begin(request: gr.Request, token: str, *given: Any) -> AsyncIterator[Update]:
        ticket = shared.desk.find(token)
        found = ticket.shown if ticket is not None and isinstance(ticket.what, LookedAt) else None
        try:
            if found is None or not found.fit:
                raise Said("train.look_first")
            name = await asyncio.to_thread(trainer.start, dict(zip(controls, given, strict=True)), found, shared.model)
        except (Said, Mistake) as error:
            yield {facts: status(told(error, say), wrong=True)}
            return
        yield {start: gr.update(interactive=False), run.chosen: gr.update(choices=runs.names(), value=name, visible=True)}
        async for update in follow(name, request):
            yield update

    async def go_on(name: Any, request: gr.Request) -> AsyncIterator[Update]:
        try:
            await asyncio.to_thread(trainer.resume, name)
        except (Said, Mistake) as error:
            yield {run.status: status(told(error, say), wrong=True)}
            return
        async for update in follow(name, request):
            yield update

    def stop(name: Any) -> Any:
        try:
            trainer.stop(name)
        except Said as error:
            return status(told(error, say), wrong=True)
        return status(say("train.stopping"))

    async def attach(request: gr.Request) -> AsyncIterator[Update]:
        """The run that goes on, or the newest one."""
        names = runs.names()
        if not names:
            yield {run.status: gr.skip()}
            return
        name = runs.busy() or names[0]
        yield {run.chosen: gr.update(choices=names, value=name, visible=True)}
        async for update in follow(name, request):
            yield update

    start.click(begin, [looked, *controls.values()], [facts, *outputs], **LONG)
    run.chosen.input(follow, run.chosen, outputs, **LONG)
    run.chosen.focus(lambda: gr.update(choices=runs.names()), None, run.chosen, **LIGHT)
    run.resume.click(go_on, run.chosen, outputs, **LONG)
    run.stop.click(stop, run.chosen, run.status, **LIGHT)
    gr.context.Context.root_block.load(attach, None, outputs, **LONG)


def _tie_showing(shared: Shared, say: Say, run: _Run) -> None:
    """What a run has made: its previews, one by one, and its model, opened in the tab Draw."""
    runs = shared.trainer.runs

    def look_back(name: Any, place: Any) -> Any:
        try:
            previews = runs.card(name).previews
        except Said:
            return gr.skip()
        if not isinstance(place, int | float) or not 0 <= place < len(previews):
            return gr.skip()
        step, picture = previews[int(place)]
        return gr.update(value=runs.copied(picture, shared.looks), label=say("train.preview_at", step=f"{step:,}"))

    async def draw_with(name: Any) -> AsyncIterator[Update]:
        yield {run.status: status(say("train.opening")), run.open: gr.update(interactive=False)}
        try:
            await asyncio.to_thread(shared.open_model, runs.place_of(name))
        except (Said, Mistake, Stopped) as error:
            yield {run.status: status(told(error, say), wrong=True), run.open: gr.update(interactive=True)}
            return
        yield {run.status: f'<div id="reopening">{status(say("train.reloading"))}</div>'}

    run.back.input(look_back, [run.chosen, run.back], run.preview, **LIGHT)
    run.open.click(draw_with, run.chosen, [run.status, run.open], **LONG).then(None, None, None, js="() => window.reopened()")


async def looks(shared: Shared, say: Say, run: _Run, name: Any) -> AsyncIterator[Update]:
    """What a run has to show, whenever it changes, until it is over."""
    before: Card | None = None
    while True:
        try:
            card = await asyncio.to_thread(shared.trainer.runs.card, name)
        except Said as error:
            yield {run.status: status(told(error, say), wrong=True)}
            return
        if card != before:
            yield _view(shared, say, run, card, before)
            before = card
        if card.state not in ALIVE:
            return
        await asyncio.sleep(LOOK)


def _view(shared: Shared, say: Say, run: _Run, card: Card, before: Card | None) -> Update:
    """The page as a run has it; what is as it was before is left alone."""
    alive = card.state in ALIVE
    update: Update = {
        run.status: status(_state_words(card, say), wrong=card.state in (states.FAILED, states.LOST)),
        run.stop: gr.update(interactive=alive),
        run.resume: gr.update(interactive=card.resumes),
        run.open: gr.update(interactive=card.has_model and not alive),
    }
    if before is None or card.curve != before.curve:
        update[run.loss] = losses([card])
    if before is None or card.previews != before.previews:
        update |= _newest(shared, say, run, card)
    if before is None or card.tail != before.tail:
        update |= {run.log: card.tail, run.fold: gr.update(visible=bool(card.tail))}
    if before is None or card.command != before.command:
        update[run.command] = card.command
    return update


def _newest(shared: Shared, say: Say, run: _Run, card: Card) -> Update:
    """The newest preview, and a slider over all of them."""
    if not card.previews:
        return {run.preview: gr.update(value=None, visible=False), run.back: gr.update(visible=False)}
    step, picture = card.previews[-1]
    last = len(card.previews) - 1
    shown = gr.update(
        value=shared.trainer.runs.copied(picture, shared.looks), label=say("train.preview_at", step=f"{step:,}"), visible=True
    )
    return {run.preview: shown, run.back: gr.update(maximum=max(1, last), value=last, visible=last > 0)}


def _state_words(card: Card, say: Say) -> str:
    values = {"name": card.name, "step": f"{card.step:,}", "steps": f"{card.steps:,}"}
    if card.state == states.RUNNING:
        if not card.step:
            return say("train.state_measuring", **values)
        left = "" if card.left is None else _long(card.left, say)
        return say("train.state_running", **values, left=left, loss=f"{card.loss:.4g}")
    if card.state == states.FINISHED:
        loss = "–" if card.loss is None else f"{card.loss:.4g}"
        return say("train.state_finished", **values, seconds=_long(card.seconds, say), loss=loss)
    return say(f"train.state_{card.state}", **values, why=card.why)


def _long(seconds: float, say: Say) -> str:
    """`2 min 10 s`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return say("long.seconds", seconds=whole)
    if whole < 3600:
        return say("long.minutes", minutes=whole // 60, seconds=whole % 60)
    return say("long.hours", hours=whole // 3600, minutes=whole % 3600 // 60)
