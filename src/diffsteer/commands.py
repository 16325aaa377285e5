"""The commands: each turns its arguments into settings, makes one call into the library, and prints the result and what to run next.

What `--help` says of a whole command stands in `cli.COMMANDS`, so that the list of commands is shown without importing this file.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, create_model

from diffsteer import config, recipebook
from diffsteer.config import (
    FROM_THE_BASE,
    AppSettings,
    DataSettings,
    EvaluateSettings,
    FinetuneSettings,
    JudgeSettings,
    PlanSettings,
    SampleSettings,
    Settings,
    SpaceSettings,
    TrainSettings,
)
from diffsteer.errors import Mistake

FLAT = Parameter(name="*")
Switch = Annotated[bool, Parameter(negative="", show_default=False)]
AsJson = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]


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
        default, words = field.get_default(), config.choices(field.annotation)
        chosen = f" [choices: {', '.join(words)}]" if words else ""
        kept = f" [default: {config.flag_value(key, default)}]" if default not in (None, ()) else ""
        kind: Any = bool if field.annotation in (bool, bool | None) else tuple[str, ...] if field.annotation == config.Words else str
        help_text = f"{field.description}{chosen}{kept}"
        parameter = Parameter(name=f"--{key.replace('_', '-')}", help=help_text, show_default=False, allow_leading_hyphen=True)
        fields[key] = (Annotated[kind | None, parameter], None)
    return create_model(name, __config__=ConfigDict(frozen=True), **fields)


if TYPE_CHECKING:

    class DataFlags(BaseModel): ...

    class PlanFlags(BaseModel): ...

    class TrainFlags(BaseModel): ...

    class FinetuneFlags(BaseModel): ...

    class SampleFlags(BaseModel): ...

    class JudgeFlags(BaseModel): ...

    class EvaluateFlags(BaseModel): ...

    class AppFlags(BaseModel): ...

    class SpaceFlags(BaseModel): ...
else:
    DataFlags = _flags(DataSettings, "DataFlags", without=("streaming",))
    PlanFlags = _flags(PlanSettings, "PlanFlags")
    TrainFlags = _flags(TrainSettings, "TrainFlags", without=("data",))
    FinetuneFlags = _flags(FinetuneSettings, "FinetuneFlags", without=("model", "data", *FROM_THE_BASE))
    SampleFlags = _flags(SampleSettings, "SampleFlags")
    JudgeFlags = _flags(JudgeSettings, "JudgeFlags", without=("streaming", "caption_column"))
    AppFlags = _flags(AppSettings, "AppFlags")
    SpaceFlags = _flags(SpaceSettings, "SpaceFlags")
    EvaluateFlags = _flags(EvaluateSettings, "EvaluateFlags", without=("size", "streaming", "caption_column"))


def _given(flags: BaseModel | None) -> dict[str, Any]:
    """The flags that were given."""
    return {} if flags is None else flags.model_dump(exclude_none=True)


# ---- check -----------------------------------------------------------------------------------------------------------


def check(
    data: str,
    *,
    out: Path | None = None,
    dry_run: Switch = False,
    json_: AsJson = False,
    flags: Annotated[DataFlags | None, FLAT] = None,
) -> None:
    """Read every picture and say what is odd; draw what the model will see.

    Parameters
    ----------
    data
        Built-in name, Hub id, folder of pictures, parquet file or data-set folder.
    out
        Folder for sheet.png.
    dry_run
        Print the resolved settings, and stop.
    json_
        Print one machine-readable object.
    """
    settings = config.validated(DataSettings, _given(flags), "the settings")
    if dry_run:
        _dry_run(settings, json_)
        return
    from diffsteer.data.check import check as look

    report = look(data, out=out, **settings.model_dump(exclude={"streaming"}))
    if json_:
        _say(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        for line in report.lines():
            _say(line)
        if out is not None and report.sheet is not None:
            _say(f"sheet: {out / 'sheet.png'}")
    if not report.ok:
        raise Mistake(f"{data} cannot be trained on as it is; what stands in the way is listed above.")
    if not json_:
        _say(f"next: diffsteer train {shlex.quote(data)} --out runs/first --budget 10m")


# ---- plan, train, finetune -------------------------------------------------------------------------------------------


def plan(data: str, *, dry_run: Switch = False, json_: AsJson = False, flags: Annotated[PlanFlags | None, FLAT] = None) -> None:
    """Measure this machine for some seconds and propose how to train within a budget; say what that would give.

    Parameters
    ----------
    data
        Built-in name, Hub id, folder of pictures, parquet file or data-set folder.
    dry_run
        Print the resolved settings, and stop.
    json_
        Print one machine-readable object.
    """
    settings = config.validated(PlanSettings, _given(flags), "the settings")
    if dry_run:
        _dry_run(settings, json_)
        return
    from diffsteer import planning

    proposal = planning.plan(data, settings, _process_start())
    if json_:
        _say(json.dumps(proposal.to_dict(), ensure_ascii=False))
        return
    for line in proposal.lines():
        _say(line)


def train(
    data: str | None = None,
    *,
    out: Path | None = None,
    recipe: str | None = None,
    dry_run: Switch = False,
    json_: AsJson = False,
    flags: Annotated[TrainFlags | None, FLAT] = None,
) -> None:
    """Train a model into a run folder, or go on with one: the same command again resumes.

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
    _run(recipebook.train_settings(recipe, given), out, dry_run, json_)


def finetune(
    model: str | None = None,
    data: str | None = None,
    *,
    out: Path | None = None,
    recipe: str | None = None,
    dry_run: Switch = False,
    json_: AsJson = False,
    flags: Annotated[FinetuneFlags | None, FLAT] = None,
) -> None:
    """Train a model that is there on other pictures, into a run folder, or go on with one: the same command again resumes.

    Parameters
    ----------
    model
        The base: model folder, run folder, Hub id or any diffusers pipeline folder with a UNet2DModel; a recipe may name it.
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
    given = _given(flags) | {key: value for key, value in (("model", model), ("data", data)) if value is not None}
    _run(recipebook.finetune_settings(recipe, given), out, dry_run, json_)


def _run(settings: TrainSettings, out: Path | None, dry_run: bool, json_: bool) -> None:
    """Trains or fine-tunes, and tells what came of it."""
    if dry_run:
        _dry_run(settings, json_, lambda: _outlook(settings))
        return
    if out is None:
        raise Mistake("Say where the run goes: --out runs/first.")
    from diffsteer.processes import has_gpus, is_main_process, relaunch, term_interrupts

    words = [settings.command, *config.as_flags(settings), "--out", str(out), *(["--json"] if json_ else [])]
    with term_interrupts():
        if relaunch(settings.processes, words, cpu=settings.device == "cpu" or not has_gpus(settings.processes)):
            return
        from diffsteer import run

        result = run.train(settings, out, say=(lambda _: None) if json_ else _say, started=_process_start())
    if not is_main_process():
        return
    if json_:
        values = {"out": str(result.out), "steps": result.steps, "loss": result.loss, "seconds": result.seconds}
        _say(json.dumps({**values, "resumed": result.resumed, "already_finished": result.already_finished}))
        return
    if result.already_finished:
        _say(f"{out} is finished; nothing was done. --steps or --epochs with a larger number goes on.")
    loss = f"loss {result.loss:.6f} (mean of the last {min(100, result.steps)})"
    _say(f"done     {result.steps} steps, {loss}, {result.seconds:.0f} s of training; model in {out}/model")
    if result.epochs:
        most = 10
        shown = " ".join(f"{loss:.6f}" for loss in result.epochs[:most])
        _say(f"epochs   mean losses {shown}{f' ... {result.epochs[-1]:.6f}' if len(result.epochs) > most else ''}")
    _say(f"pictures {out}/previews/previews.gif, {out}/figures/")
    _say(f"next: diffsteer sample {shlex.quote(str(out))} --out {shlex.quote(out.resolve().name)}.png")


def _outlook(settings: TrainSettings) -> list[str]:
    from diffsteer import run

    return run.outlook(settings)


def _dry_run(settings: Settings, as_json: bool, outlook: Callable[[], Sequence[str]] = tuple) -> None:
    """Prints every setting, those that differ from the default marked, then what they make of model and data."""
    fields = {key: field for key, field in type(settings).model_fields.items() if not field.is_required()}
    differ = [key for key, field in fields.items() if getattr(settings, key) != field.get_default(call_default_factory=True)]
    lines = list(outlook())
    if as_json:
        _say(json.dumps({"settings": settings.model_dump(mode="json"), "differ": differ, "outlook": lines}, ensure_ascii=False))
        return
    for key, value in settings.model_dump(mode="json").items():
        marked = f"   # default: {fields[key].get_default()}" if key in differ else ""
        _say(f"{'*' if marked else ' '} {key}: {value}{marked}")
    for line in lines:
        _say(line)
    _say("next: the same command without --dry-run")


def _process_start() -> float:
    """When this command began, imports included: what a budget counts from."""
    import psutil

    return psutil.Process().create_time()


# ---- sample ----------------------------------------------------------------------------------------------------------


def sample(
    model: str | None = None,
    *,
    out: str | None = None,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    dry_run: Switch = False,
    json_: AsJson = False,
    flags: Annotated[SampleFlags | None, FLAT] = None,
) -> None:
    """Draw pictures with a model.

    Parameters
    ----------
    model
        Model folder, run folder, Hub id or any diffusers pipeline folder with a UNet2DModel.
    out
        x.png a grid, x.gif a film, x.npz arrays, a folder of PNGs otherwise; default: pictures.png, or the next free name.
    from_
        A PNG made before: draw it again from the recipe it holds.
    dry_run
        Print what would be drawn, and stop.
    json_
        Print the result as one machine-readable object.
    """
    settings = config.validated(SampleSettings, _given(flags), "the settings")
    from diffsteer import drawing
    from diffsteer.order import Order

    order = Order(model, settings, from_)
    if dry_run:
        plan = drawing.outlook(order)
        text = json.dumps(plan.to_dict(), ensure_ascii=False) if json_ else "\n".join(plan.lines())
        _say(text if json_ else f"{text}\nnext: the same command without --dry-run")
        return
    written = drawing.sample_to(order, drawing.free_name(Path()) if out is None else out)
    if json_:
        _say(json.dumps(written.to_dict(), ensure_ascii=False))
        return
    for line in written.lines():
        _say(line)


# ---- judge, evaluate -------------------------------------------------------------------------------------------------


def judge(
    data: str,
    *,
    out: Path,
    dry_run: Switch = False,
    json_: AsJson = False,
    flags: Annotated[JudgeFlags | None, FLAT] = None,
) -> None:
    """Train a small classifier of the data's classes, to steer by or to judge by.

    Parameters
    ----------
    data
        Pictures with labels, as for train.
    out
        The judge's folder.
    dry_run
        Print the resolved settings, and stop.
    json_
        Print the result as one machine-readable object.
    """
    settings = config.validated(JudgeSettings, _given(flags), "the settings")
    if dry_run:
        _dry_run(settings, json_)
        return
    from diffsteer import evaluating

    made = evaluating.make_judge(data, settings, out).spec
    if json_:
        _say(json.dumps({"out": str(out), **made.as_dict()}, ensure_ascii=False))
        return
    right = f"right on {made.accuracy:.1%} of {made.held_out:,} held out"
    _say(f"done     a judge of {len(made.label_names)} classes ({made.architecture}), {right}")
    _say(f"next: diffsteer sample MODEL --steer classifier={shlex.quote(str(out))},label={made.label_names[0]} --out steered.png")


def evaluate(
    model: str,
    data: str,
    *,
    out: Path | None = None,
    dry_run: Switch = False,
    json_: AsJson = False,
    flags: Annotated[EvaluateFlags | None, FLAT] = None,
) -> None:
    """Score a model's pictures; with --steer, what the steer gained beside what it cost.

    Parameters
    ----------
    model
        Model folder, run folder, Hub id or any diffusers pipeline folder with a UNet2DModel.
    data
        The real pictures, as for train.
    out
        Folder for scores.json, scores.md, a grid of every row with its mistakes, the nearest training pictures, and the judge.
    dry_run
        Print the resolved settings, and stop.
    json_
        Print the result as one machine-readable object.
    """
    settings = config.validated(EvaluateSettings, _given(flags), "the settings")
    from diffsteer import evaluating

    if dry_run:
        _dry_run(settings, json_, lambda: evaluating.outlook(model, data, settings))
        return
    found = evaluating.evaluate(model, data, settings, out, (lambda _: None) if json_ else _say)
    if json_:
        _say(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    for line in found.lines():
        _say(line)
    if out is not None:
        _say(f"written  {out}/scores.md, scores.json and pictures: the grid, the mistakes, the nearest training pictures")
    _say(f"next: diffsteer sample {shlex.quote(model)} --out pictures.png")


# ---- compare ---------------------------------------------------------------------------------------------------------


def compare(*runs: Path, out: Path | None = None, json_: AsJson = False) -> None:
    """Put runs into one table and one figure; numbers that cannot be compared get columns of their own.

    Parameters
    ----------
    runs
        Run folders, or model folders with scores (MODEL/scores, from diffsteer evaluate).
    out
        Folder for compare.md, compare.json and compare.png.
    json_
        Print one machine-readable object.
    """
    if out is not None and (out.is_file() or out.suffix in (".png", ".md", ".json")):
        raise Mistake(f"--out {out} should be a folder; compare.md, compare.json and compare.png are written into it.")
    from diffsteer import comparing

    found = comparing.compare(runs)
    if out is not None:
        comparing.write_comparison(found, out)
    if json_:
        _say(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    for line in found.lines():
        _say(line)
    if out is not None:
        _say(f"written  {out}/compare.md, compare.json{' and compare.png' if found.panels() else ''}")
    _say(f"next: {found.next_command()}")


# ---- doctor ----------------------------------------------------------------------------------------------------------


def doctor(run: Path, *, json_: AsJson = False) -> None:
    """Find what is wrong with a run or a model, say it in plain words, and name the flag that mends it.

    Parameters
    ----------
    run
        A run folder, or a model folder, of which less can be told.
    json_
        Print one machine-readable object.
    """
    from diffsteer.doctor import diagnose

    found = diagnose(run, (lambda _: None) if json_ else _say)
    if json_:
        _say(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    for line in found.lines():
        _say(line)
    _say(f"next: {found.command}")


# ---- card, push, space -----------------------------------------------------------------------------------------------


def card(
    model: str,
    *,
    license_: Annotated[str | None, Parameter(name="--license", show_default=False)] = None,
    data_license: str | None = None,
    name: str | None = None,
    out: Path | None = None,
    overwrite: Switch = False,
    dry_run: Switch = False,
    json_: AsJson = False,
) -> None:
    """Write the model card: data, settings, scores, copies, limits, how to load it, and a grid of samples.

    Parameters
    ----------
    model
        Run folder, of which the card can tell most, or model folder.
    license_
        The model's licence as the Hub names it: apache-2.0, mit, cc-by-4.0, ..., other.
    data_license
        The licence of the data that it learnt from, likewise.
    name
        The model's name on the Hub, user/name; default: the run's name, until diffsteer push knows.
    out
        The card, with samples.png beside it; default: README.md in the model's folder.
    overwrite
        Replace an existing card.
    dry_run
        Print the card, and write nothing.
    json_
        Print the result as one machine-readable object.
    """
    from diffsteer.sharing.card import write_card
    from diffsteer.sharing.licences import Licences

    made = write_card(model, out, licences=Licences(license_, data_license), name=name, overwrite=overwrite, dry_run=dry_run)
    if json_:
        _say(json.dumps({"files": [str(path) for path in made.paths], "notes": list(made.notes), "card": made.text}, ensure_ascii=False))
        return
    if dry_run:
        _say(made.text.rstrip())
    for path in made.paths:
        _say(f"written  {path}")
    for note in made.notes:
        _say(note)
    _say("next: the same command without --dry-run" if dry_run else f"next: diffsteer push {shlex.quote(model)} {name or 'NAME'} --dry-run")


def push(model: str, repo: str, *, space: Switch = False, private: Switch = False, dry_run: Switch = False, json_: AsJson = False) -> None:
    """Upload a model folder to the Hub, and nothing else of its run.

    Parameters
    ----------
    model
        Run folder or model folder of this computer; with --space, the folder that diffsteer space wrote.
    repo
        user/name, or a name in your own namespace.
    space
        Upload a Space.
    private
        Make the repository private, where it is new.
    dry_run
        Say what would be uploaded, and stop.
    json_
        Print the result as one machine-readable object.
    """
    from diffsteer.sharing import hub

    hub.check_name(repo)
    account = None if dry_run else hub.sign_in()  # no token, no network: said before anything heavy is loaded
    from diffsteer.sharing import pushing
    from diffsteer.sharing import space as spaces

    if account is None:
        would = spaces.space_parcel(Path(model), repo, private) if space else pushing.parcel(model, repo, private)
        _say(
            json.dumps(would.to_dict(), ensure_ascii=False)
            if json_
            else "\n".join([*would.lines(), "next: the same command without --dry-run"])
        )
        return
    say = (lambda _: None) if json_ else _say
    if space:
        done = spaces.push_space(Path(model), repo, account, private=private, say=say)
    else:
        done = pushing.push(model, repo, account, private=private, say=say)
    if json_:
        _say(json.dumps(done.to_dict()))
        return
    _say(f"done     {done.url} ({'private' if done.private else 'public'}{'' if done.changed else ', nothing had changed'})")
    _say(f"next: open {done.url}" if space else f"next: diffsteer sample {done.repo} --out pictures.png")


def space(
    model: str,
    dir_: Annotated[Path, Parameter(name="--dir")],
    *,
    dry_run: Switch = False,
    json_: AsJson = False,
    flags: Annotated[SpaceFlags | None, FLAT] = None,
) -> None:
    """Write a Space, from which the Hub serves the web app of a model.

    Parameters
    ----------
    model
        Hub id, which app.py names, or model folder or run folder, which is copied into the Space.
    dir_
        A new folder: app.py, requirements.txt, README.md, the loss files.
    dry_run
        Print the resolved settings, and stop.
    json_
        Print the result as one machine-readable object.
    """
    settings = config.validated(SpaceSettings, _given(flags), "the settings")
    if dry_run:
        _dry_run(settings, json_)
        return
    from diffsteer.sharing.space import write_space

    made = write_space(model, dir_, settings, (lambda _: None) if json_ else _say)
    if json_:
        _say(json.dumps(made.to_dict(), ensure_ascii=False))
        return
    _say(f"written  {dir_}: {', '.join(made.files)}")
    _say(f"starts   here with python app.py, in {dir_}")
    _say(f"next: diffsteer push {shlex.quote(str(dir_))} NAME --space --dry-run")


# ---- app -------------------------------------------------------------------------------------------------------------


def app(model: str, *, dry_run: Switch = False, flags: Annotated[AppFlags | None, FLAT] = None) -> None:
    """Open the web app: draw, steer and watch, in the browser.

    Parameters
    ----------
    model
        Model folder, run folder, Hub id or any diffusers pipeline folder with a UNet2DModel.
    dry_run
        Print the resolved settings, and stop.
    """
    if dry_run:
        _dry_run(config.validated(AppSettings, _given(flags), "the settings"), as_json=False)
        return
    from diffsteer.app.serve import serve

    serve(model, say=_say, **_given(flags))


# ---- recipes, demo ---------------------------------------------------------------------------------------------------


def recipes(action: str | None = None, name: str | None = None, *, json_: AsJson = False) -> None:
    """List the recipes, or show one: its YAML, and its values beside our defaults.

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
        listed = {each: recipebook.recipe_text(each).splitlines()[0].lstrip("# ") for each in recipebook.recipe_names()}
        _say(json.dumps(listed) if json_ else "\n".join(f"{each:28} {line}" for each, line in listed.items()))
        if not json_:
            _say("next: diffsteer recipes show NAME")
        return
    if action != "show" or name is None:
        raise Mistake("Write diffsteer recipes, or diffsteer recipes show NAME.")
    text = recipebook.recipe_text(name)
    rows = recipebook.beside_defaults(name)
    if json_:
        _say(json.dumps({"name": name, "settings": yaml.safe_load(text), "beside_defaults": rows}))
        return
    _say(text.rstrip())
    _say()
    _say(f"{'setting':18} {'the seed' if name.startswith('seed-') else name:28} {'our default':28} why ours differs")
    for row in rows:
        _say(f"{row['setting']:18} {row['recipe']:28} {row['default']:28} {row['reason']}")
    given, command = recipebook.load_recipe(name), recipebook.recipe_command(name)
    whose = [given.get(key, key.upper()) for key in (("model", "data") if command == FinetuneSettings.command else ("data",))]
    _say(f"next: {shlex.join(['diffsteer', command, *whose, '--recipe', name, '--out', f'runs/{Path(name).stem}'])}")


def demo(*, out: Path = Path("demo")) -> None:
    """The story so far on built-in data: check, train, sample, steer, score; pictures at the end. Under 4 minutes on two cores.

    Parameters
    ----------
    out
        Folder for the run and its pictures.
    """
    from diffsteer.demo import demo as tell

    tell(out, _say, _process_start())
