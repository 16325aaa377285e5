"""The tab Runs: runs side by side, their losses and previews, and what `diffsteer compare` says of them."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from diffsteer.app.desk import FAILED, Full
from diffsteer.app.lossplot import colors, loss_plot, losses
from diffsteer.app.reply import LIGHT, LONG, Update, status, told
from diffsteer.app.runs import Card
from diffsteer.app.shared import Shared
from diffsteer.app.trainer import Compared
from diffsteer.app.words import Said, Say

TICKED = 5  # of the newest runs, when the tab is opened
QUICK = 0.2  # seconds between two looks at a ticket
ROWS = ("state", "steps", "loss")


@dataclass(frozen=True)
class Comparing:
    """What a ticket of this tab is about."""

    folder: Path


def runs_tab(shared: Shared, say: Say) -> None:
    """Lays the tab out and ties it to the runs."""
    trainer, runs = shared.trainer, shared.trainer.runs
    with gr.Row():
        chosen = gr.CheckboxGroup([], label=say("runs.choose"), info=say("runs.where", runs=runs.told), elem_id="runs-chosen")
    with gr.Row():
        show = gr.Button(say("runs.show"), variant="secondary", elem_id="runs-show", min_width=120)
        compare = gr.Button(say("runs.compare"), variant="primary", elem_id="runs-compare", min_width=120)
    line = gr.HTML(status(say("runs.none")), elem_id="runs-status")
    table = gr.HTML(elem_id="runs-table")
    loss = loss_plot(say, "runs-loss")
    step = gr.Slider(0, 1, value=0, step=1, label=say("runs.step"), visible=False, elem_id="runs-step")
    previews = gr.Gallery(
        label=say("runs.previews"), show_label=False, format="png", columns=3, object_fit="contain", interactive=False, visible=False,
        buttons=[], height="auto", elem_id="runs-previews",
    )  # fmt: skip
    figure = gr.Image(
        label=say("runs.figure"), format="png", interactive=False, visible=False, buttons=["fullscreen"], elem_id="runs-figure"
    )
    page = gr.Markdown(visible=False, elem_id="runs-page")

    def cards(names: Any) -> list[Card]:
        wanted = names if isinstance(names, list) else []
        return [runs.card(name) for name in runs.names() if name in wanted]

    def shown(names: Any) -> Update:
        found = cards(names)
        most = max((card.step for card in found), default=0)
        return {
            line: status(say("runs.shown", count=len(found)) if found else say("runs.none")),
            table: _table(found, say),
            loss: losses(found),
            step: gr.update(maximum=max(1, most), value=most, visible=most > 0),
            previews: gr.update(value=_beside(shared, found, most, say), visible=any(card.previews for card in found)),
        }

    def at_step(names: Any, wanted: Any) -> Any:
        return gr.update(value=_beside(shared, cards(names), wanted if isinstance(wanted, int | float) else 0, say))

    def again(names: Any) -> Update:
        """The list as it is now, and what was chosen of it."""
        there = runs.names()
        kept = [name for name in there if name in (names or [])] or there[:TICKED]
        return {chosen: gr.update(choices=there, value=kept), **shown(kept)}

    async def put_together(request: gr.Request, names: Any) -> AsyncIterator[Update]:
        folder = shared.new_folder()
        try:
            job = trainer.compared([card.name for card in cards(names)], folder)
            ticket = shared.desk.submit(str(request.session_hash), job, cost=0.0, what=Comparing(folder))
        except (Said, Full) as error:
            folder.rmdir()
            yield {line: status(told(error, say), wrong=True)}
            return
        yield {line: status(say("runs.comparing")), compare: gr.update(interactive=False)}
        while (there := shared.desk.find(ticket.token)) is not None and not there.over:
            await asyncio.sleep(QUICK)
        found: Compared | None = None if there is None else there.shown
        if there is not None and there.state == FAILED and there.error is not None:
            words = status(told(there.error, say), wrong=True)
        elif found is None or found.wrong:
            words = status(found.wrong if found else say("state.lost"), wrong=True)
        else:
            words = status(say("runs.compared", command=found.command))
        update: Update = {line: words, compare: gr.update(interactive=True)}
        if found is not None and not found.wrong:
            update |= {
                page: gr.update(value=found.page, visible=True),
                figure: gr.update(value=found.figure, visible=found.figure is not None),
            }
        yield update

    everything = [chosen, line, table, loss, step, previews]
    show.click(again, chosen, everything, **LIGHT)
    chosen.input(shown, chosen, everything, **LIGHT)
    step.input(at_step, [chosen, step], previews, **LIGHT)
    compare.click(put_together, chosen, [line, compare, page, figure], **LONG)
    gr.context.Context.root_block.load(again, chosen, everything, **LIGHT)


def _table(cards: list[Card], say: Say) -> str:
    if not cards:
        return ""
    heads = "".join(f"<th>{html.escape(say(f'runs.column_{key}'))}</th>" for key in ("run", *ROWS))
    rows, lines = [], colors([card.name for card in cards])
    for card in cards:
        steps = f"{card.step:,}" + (f" / {card.steps:,}" if card.steps != card.step else "")
        values = (card.name, say(f"runs.state_{card.state}"), steps, "–" if card.loss is None else f"{card.loss:.4g}")
        line = f'<span class="line" style="background: {lines[card.name]}"></span>'
        rows.append(f"<tr><td>{line}" + "</td><td>".join(html.escape(value) for value in values) + "</td></tr>")
    return f'<div class="scrolls"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _beside(shared: Shared, cards: list[Card], step: float, say: Say) -> list[tuple[str, str]]:
    """Of each run the preview nearest to a step, and which one that is."""
    found = []
    for card in cards:
        if card.previews:
            at, picture = min(card.previews, key=lambda preview: abs(preview[0] - step))
            found.append((shared.trainer.runs.copied(picture, shared.looks), say("runs.at", name=card.name, step=f"{at:,}")))
    return found
