"""The commands: each turns its arguments into settings, makes one call into the library, and prints the result and what to run next."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, create_model

from diffsteer import config
from diffsteer.config import DataSettings, TrainSettings
from diffsteer.errors import Mistake

FLAT = Parameter(name="*")


def _say(line: str = "") -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _flags(schema: type[BaseModel], name: str, without: tuple[str, ...] = ()) -> Any:
    """The schema's fields as optional flags: None where not given, so that a recipe can stand between them and the defaults.

    Values are checked by the schema itself, after the recipe is read.
    """
    fields: dict[str, Any] = {}
    for key, field in schema.model_fields.items():
        if key in without:
            continue
        default = field.get_default()
        shown = "" if default is None else f" [default: {','.join(map(str, default)) if isinstance(default, tuple) else default}]"
        kind = bool if field.annotation is bool else str
        help_text = f"{field.description}{shown}"
        parameter = Parameter(name=f"--{key.replace('_', '-')}", help=help_text, show_default=False, allow_leading_hyphen=True)
        fields[key] = (Annotated[kind | None, parameter], None)
    return create_model(name, __config__=ConfigDict(frozen=True), **fields)


if TYPE_CHECKING:

    class DataFlags(BaseModel): ...

    class TrainFlags(BaseModel): ...
else:
    DataFlags = _flags(DataSettings, "DataFlags")
    TrainFlags = _flags(TrainSettings, "TrainFlags", without=("data",))


def _given(flags: BaseModel | None) -> dict[str, Any]:
    """The flags that were given; `none` is how None is written."""
    values = {} if flags is None else flags.model_dump(exclude_none=True)
    return {key: None if value == "none" and key in ("clip",) else value for key, value in values.items()}


# ---- check -----------------------------------------------------------------------------------------------------------


def check(
    data: str,
    *,
    out: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
    flags: Annotated[DataFlags | None, FLAT] = None,
) -> None:
    """Read every picture and say what is odd; draw what the model will see.

    Example: diffsteer check photos/ --out sheet

    Parameters
    ----------
    data
        Built-in name, Hub id, folder of pictures, parquet file or data-set folder.
    out
        Folder for sheet.png.
    json_
        Print one machine-readable object.
    """
    from diffsteer.data.check import check as look

    options = config.validated(DataSettings, _given(flags), "the settings").model_dump()
    options.pop("streaming")
    options.pop("skip_broken")
    report = look(data, out=out, **options)
    if json_:
        _say(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        for line in report.lines():
            _say(line)
    if not report.ok:
        raise Mistake(f"{data} cannot be trained on as it is; what stands in the way is listed above.")
    if not json_:
        _say(f"next: diffsteer train {data} --out runs/first --budget 10m")


# ---- train -----------------------------------------------------------------------------------------------------------


def train(
    data: str | None = None,
    *,
    out: Path | None = None,
    recipe: str | None = None,
    dry_run: bool = False,
    json_: Annotated[bool, Parameter(name="--json")] = False,
    flags: Annotated[TrainFlags | None, FLAT] = None,
) -> None:
    """Train a model into a run folder, or go on with one: the same command again resumes.

    Example: diffsteer train photos/ --out runs/photos --budget 20m

    Parameters
    ----------
    data
        Built-in name, Hub id, folder of pictures, parquet file or data-set folder; a recipe may name it.
    out
        The run folder.
    recipe
        A recipe's name (see: diffsteer recipes) or a YAML file; flags go over it.
    dry_run
        Print the resolved settings, shapes and parameters, and stop.
    json_
        Print the result as one machine-readable object.
    """
    given = _given(flags)
    if data is not None:
        given["data"] = data
    settings = config.train_settings(recipe, given)
    if dry_run:
        _dry_run(settings)
        return
    if out is None:
        raise Mistake("Say where the run goes: --out runs/first.")
    from diffsteer.processes import is_main_process, relaunch

    if relaunch(settings.processes):
        return
    from diffsteer import run

    result = run.train(settings, out, say=(lambda _: None) if json_ else _say, started=_process_start())
    if not is_main_process():
        return
    if json_:
        values = {"out": str(result.out), "steps": result.steps, "loss": result.loss, "seconds": result.seconds}
        _say(json.dumps({**values, "already_finished": result.already_finished}))
        return
    if result.already_finished:
        _say(f"{out} is finished; nothing was done. --steps or --epochs with a larger number goes on.")
    _say(
        f"done     {result.steps} steps, loss {result.loss:.6f} (mean of the last 100), {result.seconds:.0f} s of training; model in {out}/model"
    )
    _say(f"pictures {out}/previews/previews.gif, {out}/figures/")
    _say(f"next: diffsteer sample {out} --out {Path(out).name}.png")


def _dry_run(settings: TrainSettings) -> None:
    """Prints every setting, those that differ from the default marked, then what they make of the data."""
    from diffsteer import run

    defaults = {key: field.get_default() for key, field in TrainSettings.model_fields.items()}
    for key, value in settings.model_dump(mode="json").items():
        default = defaults[key]
        differs = getattr(settings, key) != default
        shown = f"   # default: {default}" if differs and key != "data" else ""
        _say(f"{'*' if differs else ' '} {key}: {value}{shown}")
    for line in run.outlook(settings):
        _say(line)


def _process_start() -> float:
    """When this command began, imports included: what a budget counts from."""
    import psutil

    return psutil.Process().create_time()


# ---- sample ----------------------------------------------------------------------------------------------------------


def sample(
    model: str | None = None,
    *,
    out: str | None = None,
    labels: str | None = None,
    per_label: int | None = None,
    count: int | None = None,
    seeds: str | None = None,
    solver: str | None = None,
    steps: int | None = None,
    spacing: str | None = None,
    guidance_scale: float | None = None,
    film: bool = False,
    columns: int | None = None,
    invert: bool = False,
    precision: str = "fp32",
    device: str = "auto",
    batch_size: int = 64,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    overwrite: bool = False,
    dry_run: bool = False,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Draw pictures with a model.

    Example: diffsteer sample runs/photos --labels cat,dog --per-label 8 --out pets.png

    Parameters
    ----------
    model
        Model folder, run folder, Hub id or any diffusers pipeline folder with a UNet2DModel.
    out
        x.png a grid, x.gif a film, x.npz arrays, a folder of PNGs otherwise.
    labels
        Names, numbers, ranges or all: cat,dog or 0-9.
    per_label
        Pictures a label (8).
    count
        Pictures in all, labels in turn (16 without labels).
    seeds
        Every label is drawn with every seed: 0-63 or 1,2,5-10.
    solver
        mix, ddpm, ddim, euler, heun, dpm++2m, unipc, seed-004, or a diffusers scheduler's class name.
    steps
        Solver steps.
    spacing
        How times are spaced: even, angle, karras, leading, trailing, linspace.
    guidance_scale
        Label guidance; 1 is off. The model must have been trained with label dropout.
    film
        Also write a film of x beside the predicted picture (GIF), and a sheet of chosen steps (PNG).
    columns
        Columns of the grid.
    invert
        Show grey pictures as ink on paper.
    precision
        fp32, bf16 or fp16; other than fp32, pictures depend a little on their batch.
    device
        auto, cpu, cuda or mps.
    batch_size
        Pictures drawn at a time; it changes no picture.
    from_
        A PNG made before: draw it again from the recipe it holds.
    overwrite
        Replace an existing file.
    dry_run
        Print what would be drawn, and stop.
    json_
        Print the result as one machine-readable object.
    """
    from diffsteer import drawing

    order = drawing.Order(
        model=model, labels=labels, per_label=per_label, count=count, seeds=seeds, solver=solver, steps=steps, spacing=spacing,
        guidance_scale=guidance_scale, film=film, columns=columns, invert=invert, precision=precision, device=device, batch_size=batch_size,
        again=from_, overwrite=overwrite,
    )  # fmt: skip
    if dry_run:
        for line in drawing.outlook(order):
            _say(line)
        return
    if out is None:
        raise Mistake("Say where the pictures go: --out pictures.png (a grid), x.gif (a film), x.npz (arrays) or a folder.")
    written = drawing.sample_to(order, out)
    if json_:
        _say(json.dumps(written.to_dict()))
        return
    for line in written.lines():
        _say(line)


# ---- recipes, demo ---------------------------------------------------------------------------------------------------


def recipes(action: str | None = None, name: str | None = None, *, json_: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """List the recipes, or show one: its YAML, and its values beside our defaults.

    Example: diffsteer recipes show seed-class-conditional

    Parameters
    ----------
    action
        show, or nothing for the list.
    name
        The recipe to show.
    json_
        Print one machine-readable object.
    """
    if action is None:
        listed = {each: config.recipe_text(each).splitlines()[0].lstrip("# ") for each in config.recipe_names()}
        _say(json.dumps(listed) if json_ else "\n".join(f"{each:28} {line}" for each, line in listed.items()))
        if not json_:
            _say("next: diffsteer recipes show NAME")
        return
    if action != "show" or name is None:
        raise Mistake("Write diffsteer recipes, or diffsteer recipes show NAME.")
    text = config.recipe_text(name)
    rows = config.beside_defaults(name)
    if json_:
        _say(json.dumps({"name": name, "settings": yaml.safe_load(text), "beside_defaults": rows}))
        return
    _say(text.rstrip())
    _say()
    _say(f"{'setting':18} {'the seed' if name.startswith('seed-') else name:28} {'our default':28} why ours differs")
    for row in rows:
        _say(f"{row['setting']:18} {row['recipe']:28} {row['default']:28} {row['reason']}")
    _say(f"next: diffsteer train {config.load_recipe(name).get('data', 'DATA')} --recipe {name} --out runs/{name}")


def demo(*, out: Path = Path("demo")) -> None:
    """The story so far on built-in data: check, train, sample; pictures at the end. Under 4 minutes on two cores.

    Example: diffsteer demo --out demo

    Parameters
    ----------
    out
        Folder for the run and its pictures.
    """
    from diffsteer.demo import demo as tell

    tell(out, _say, _process_start())
