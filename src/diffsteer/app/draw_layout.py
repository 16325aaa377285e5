"""What stands on the tab Draw: the components that show a job, those that a person sets, the examples, and the values that it opens with.
What they do is in `draw_tab.py`.
"""

from __future__ import annotations

import html
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from diffsteer.app import asked as asking
from diffsteer.app.opening import STRONGEST
from diffsteer.app.painter import painter
from diffsteer.app.reply import LIGHT, status
from diffsteer.app.shared import Shared
from diffsteer.app.words import Say

CHIPS = 24  # so many labels are shown side by side, more in a list
GREEN = "#1ae680"
LARGE, FEW = 128 * 128, 4  # pixels from which a picture takes long, and how many of those are drawn when nobody says how many


@dataclass
class Results:
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


def results_of(say: Say) -> Results:
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
    return Results(
        line, draw, stop, looks, noisy, clean, gallery, hint, chosen_row, chosen_words, keep, use, one, sheet, png, gif, npz, mask,
        command, python, gr.State(""), kept_token, gr.State(None),
    )  # fmt: skip


def controls_of(shared: Shared, say: Say) -> dict[str, Any]:
    """The page's values by name; each name is a key of `asked.asked` or `asked.steers_of`."""
    about, made = shared.about, {}
    if about.labels:
        kind = gr.CheckboxGroup if len(about.labels) <= CHIPS else gr.Dropdown
        many = {} if len(about.labels) <= CHIPS else {"multiselect": True}
        made["labels"] = kind(list(about.labels), value=_first_labels(shared), label=say("draw.labels"), elem_id="labels", **many)
    with gr.Row():
        made["each"] = gr.Radio(
            list(shared.limits.counts),
            value=_first_count(shared),
            label=say("draw.each" if about.labels else "draw.count"),
            elem_id="each",
            min_width=200,
        )
        with gr.Column(min_width=140):
            made["seed"] = gr.Number(0, precision=0, minimum=0, label=say("draw.seed"), elem_id="seed")
            dice = gr.Button(say("draw.dice"), size="sm", elem_id="dice")
    dice.click(lambda: random.randrange(10_000), None, made["seed"], **LIGHT)
    made |= _steercontrols_of(shared, say)
    with gr.Accordion(say("draw.more"), open=False, elem_id="more"):
        own = say("draw.own", name=about.own_solver)
        solvers = [(own, ""), *((name, name) for name in about.spacings)]
        made["solver"] = gr.Dropdown(solvers, value="", label=say("draw.solver"), elem_id="solver")
        with gr.Row():
            made["steps"] = gr.Number(
                shared.limits.first_steps(about), precision=0, minimum=1, label=say("draw.steps"), elem_id="steps", min_width=100
            )
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


def _steercontrols_of(shared: Shared, say: Say) -> dict[str, Any]:
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
    """Sixteen without labels; of large pictures, which take long, fewer."""
    large = shared.about.height * shared.about.width > LARGE
    return 1 if shared.about.labels else shared.limits.most_of(FEW if large else 16)


def first_values(shared: Shared) -> dict[str, Any]:
    """The values that the page opens with."""
    about = shared.about
    chosen = {
        "labels": _first_labels(shared),
        "each": _first_count(shared),
        "seed": 0,
        "solver": "",
        "steps": shared.limits.first_steps(about),
    }
    return chosen | ({"guidance": about.own_guidance} if about.guidance else {}) | shared.opening


def examples_of(shared: Shared, say: Say) -> list[tuple[str, dict[str, Any]]]:
    """A row of buttons: (words, values that they set)."""
    about = shared.about
    start = {**first_values(shared), "by": []}
    four = shared.limits.most_of(4)
    made = []
    if about.labels:
        label = about.labels[min(3, len(about.labels) - 1)]
        made += [(say("example.all"), start), (say("example.four", label=label), {**start, "labels": [label], "each": four})]
    else:
        made += [(say("example.some", count=start["each"]), start)]
    if about.channels == 3:
        made += [(say("example.green"), {**start, "by": ["color"], "color": GREEN, "color_strength": 1})]
    made += [(say("example.symmetric"), {**start, "by": ["symmetry"], "mirror": asking.MIRRORS[0], "symmetry_strength": 1})]
    if about.guidance:
        made += [(say("example.guided"), {**start, "guidance": 3})]
    return made


def setter(controls: Mapping[str, Any], values: Mapping[str, Any]) -> Callable[[], list[Any]]:
    def set_values() -> list[Any]:
        return [values.get(name, gr.skip()) for name in controls]

    return set_values
