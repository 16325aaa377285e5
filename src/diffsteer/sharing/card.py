"""The model card: what a model is, learnt from, scored and cannot do, in a README.md as the Hub reads it, with a grid of samples beside it.

In: MODEL, and the licences that only its maker knows. Out: Markdown under YAML. What nobody wrote down is said to be unknown, and what was
not measured not to have been, with the command that would. Called by `diffsteer card`, and by `pushing.py` where there is no card.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard

from diffsteer import __version__
from diffsteer.comparable import MEASURES
from diffsteer.config import FinetuneSettings, as_flags
from diffsteer.data import pixels
from diffsteer.data.whole import whole_file
from diffsteer.errors import Mistake
from diffsteer.evaluation.report import table
from diffsteer.sampling.draw import How, Job, draw
from diffsteer.sharing.facts import Known, Run, read_known
from diffsteer.sharing.hub import CARD, check_name
from diffsteer.sharing.licences import Licences
from diffsteer.sharing.metadata import metadata, metric_type, real_pictures, scores_of

SAMPLES = "samples.png"
ANYONE = "USER"  # stands for the owner of a model that has no place on the Hub yet
ROWS, COLUMNS = 10, 8  # of the grid of samples
SECONDS = 10.0  # after which it is as wide as it gets
NAMED = 20  # classes that are named
FEW = 1000  # pictures: a model of fewer is warned of


@dataclass(frozen=True)
class Card:
    """A card made: its Markdown with the YAML before it, where it was written (None: nowhere), and what its reader should be told."""

    text: str
    paths: tuple[Path, ...]
    notes: tuple[str, ...]


def write_card(
    model: str,
    out: Path | None = None,
    *,
    licences: Licences | None = None,
    name: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Card:
    """Writes the card of MODEL to `out`, and samples.png beside it; default: into the model's folder. Raises Mistake.

    name: of the model on the Hub, `owner/name`, or a name alone.
    """
    licences = licences or Licences()
    if name is not None:
        check_name(name)
    known = read_known(model)
    if out is None and not Path(model).expanduser().exists():
        raise Mistake(f"{model} is on the Hub, not here; say where its card goes: --out README.md.")
    out = known.folder / CARD if out is None else out
    if out.suffix.lower() != ".md":
        raise Mistake(f"--out {out} should be a Markdown file, such as README.md; {SAMPLES} is written beside it.")
    samples = out.with_name(SAMPLES)
    for path in (out, samples):
        if path.exists() and not overwrite and not dry_run:
            raise Mistake(f"{path} is there already; --overwrite replaces it, and what was written into it by hand.")
    text = card_text(known, licences, name or _default_name(model, known))
    if dry_run:
        return Card(text, (), _notes(known, licences))
    pixels.write_png(_sample_grid(known), samples)
    with whole_file(out) as beside:
        beside.write_text(text, encoding="utf-8")
    return Card(text, (out, samples), _notes(known, licences))


def card_text(known: Known, licences: Licences, name: str) -> str:
    """The whole card. name: `owner/name`, or a name alone; then USER stands for the owner."""
    title = name.split("/")[-1]
    repo = name if "/" in name else f"{ANYONE}/{_slug(name)}"
    sections = {
        f"# {title}": [_summary(known), f"![Samples]({SAMPLES})", _of_samples(known)],
        "## How to use it": [*_with_diffsteer(known, repo), *_with_diffusers(known, repo), *_in_the_browser(repo)],
        "## Data": _data(known, licences),
        "## Training": _training(known),
        "## Scores": _scores(known),
        "## Copies of training pictures": [_copies(known)],
        "## Limits": ["\n".join(f"- {limit}" for limit in _limits(known))],
        "## Licence": [_licence("The model", licences.model), _licence("The data that it learnt from", licences.data)],
        "": [f"*Written by diffsteer {__version__} from the files of the model and its run.*"],
    }
    body = "\n\n".join(part for head, parts in sections.items() for part in (head, *parts) if part)
    data = metadata(known, licences, title)
    return _homeless(str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")))


def _default_name(model: str, known: Known) -> str:
    if known.run is not None:
        return known.run.path.resolve().name
    return Path(model).expanduser().resolve().name if Path(model).expanduser().exists() else model


def _notes(known: Known, licences: Licences) -> tuple[str, ...]:
    said = [
        (licences.model, "the model's licence is not stated: --license NAME"),
        (licences.data, "the data's is not: --data-license NAME"),
    ]
    missing = [words for given, words in said if given is None]
    notes = [f"licence  {'; '.join(missing)}"] if missing else []
    if known.run is None:
        notes.append("run      there is none round this folder, so nothing is said of data and training")
    if known.outdated:
        notes.append("scores   older than the weights, so they are left out")
    if known.scoring is None:
        notes.append(f"scores   not measured: {_evaluate_command(known)}, then card again")
    return tuple(notes)


# ---- the page --------------------------------------------------------------------------------------------------------


def _summary(known: Known) -> str:
    spec = known.denoiser.spec
    colour = "colour" if spec.channels == 3 else "grey"
    labels = f", of whichever of its {len(spec.label_names)} classes it is asked for" if spec.labelled else ""
    return (
        f"A diffusion model that draws {colour} pictures of {spec.height}x{spec.width} pixels{labels}. It works on pixels and "
        f"has {known.parameters:,} parameters."
    )


def _of_samples(known: Known) -> str:
    spec, how = known.denoiser.spec, How().resolved(known.denoiser.spec)
    rows = "a class a row, " if spec.labelled else ""
    return f"*Drawn with {_in_words(how)}: {rows}seeds from 0 upwards, none left out.*"


def _in_words(how: How) -> str:
    guidance = f", label guidance {how.guidance_scale:g}" if how.guidance_scale != 1 else ""
    spacing = f", {how.spacing} times" if how.spacing else ""
    return f"{how.solver} in {how.steps} steps{spacing}{guidance}"


def _asked(known: Known) -> list[str]:
    """Labels for the examples."""
    return list(known.denoiser.spec.label_names[:2]) if known.denoiser.spec.labelled else []


def _with_diffsteer(known: Known, repo: str) -> list[str]:
    asked = _asked(known)
    # A name that has a comma is asked for by its number.
    words = ["--labels", ",".join(name if "," not in name else str(place) for place, name in enumerate(asked))] if asked else []
    count = ["--per-label", "4"] if asked else ["--count", "8"]
    command = shlex.join(["diffsteer", "sample", repo, *words, *count, "--out", "pictures.png"])
    given = f"labels={json.dumps(asked, ensure_ascii=False)}, per_label=4" if asked else "count=8"
    code = f'import diffsteer\n\nmodel = diffsteer.load("{repo}")\ndiffsteer.sample(model, {given}).grid(columns=4).save("pictures.png")'
    return ["### With diffsteer", _block("bash", command), _block("python", code)]


def _with_diffusers(known: Known, repo: str) -> list[str]:
    told = "### With diffusers alone"
    if known.stock:
        code = (
            "import torch\nfrom diffusers import DDIMPipeline\n\n"
            f'pipe = DDIMPipeline.from_pretrained("{repo}")\n'
            'images = pipe(batch_size=4, num_inference_steps=50, generator=torch.manual_seed(0)).images\nimages[0].save("picture.png")'
        )
        return [
            told,
            _block("python", code),
            "`DDPMPipeline` opens it as well. Their solvers differ from diffsteer's, and so do the pictures.",
        ]
    if not known.own_code:
        code = (
            f'from diffusers import DiffusionPipeline\n\npipe = DiffusionPipeline.from_pretrained("{repo}")\n'
            'pipe().images[0].save("picture.png")'
        )
        return [told, _block("python", code)]
    asked = _asked(known)
    labels = f"labels={json.dumps(asked, ensure_ascii=False)}, " if asked else ""
    code = (
        "import torch\nfrom diffusers import DiffusionPipeline\n\n"
        f'pipe = DiffusionPipeline.from_pretrained("{repo}", trust_remote_code=True)\n'
        f"generators = [torch.Generator().manual_seed(seed) for seed in range({len(asked) or 2})]\n"
        f'pipe({labels}generator=generators).images[0].save("picture.png")'
    )
    two = (known.folder / "unet" / "network.py").is_file()
    code_runs = (
        "`pipeline.py` and `unet/network.py` of this repository, which need" if two else "`pipeline.py` of this repository, which needs"
    )
    why = (
        f"`trust_remote_code=True` runs {code_runs} torch and diffusers only: look before you trust, and name the `revision` you looked "
        "at. diffsteer itself runs no code from here. Both draw the same picture for the same seed" + (" and label." if asked else ".")
    )
    return [told, _block("python", code), why]


def _in_the_browser(repo: str) -> list[str]:
    command = shlex.join(["diffsteer", "app", repo])
    told = "It opens a page on your own machine: draw, steer and watch. `diffsteer space` makes a Space of it, which the Hub serves."
    return ["### In the browser", _block("bash", command), told]


def _data(known: Known, licences: Licences) -> list[str]:
    spec, run = known.denoiser.spec, known.run
    stated = licences.data or "not stated"
    rows: list[tuple[str, str]] = []
    if run is None:
        rows.append(("pictures", "unknown: the folder alone does not say what it was trained on"))
    else:
        rows.append(("pictures", f"{run.resolved.pictures:,} of {_code(run.settings.data)}, split {_code(run.settings.split)}"))
        rows.append(("fingerprint", _code(run.resolved.data_fingerprint)))
        rows.append(("mirrored", "half of them, at random" if run.settings.flip else "none"))
    rows.append(("size", f"{spec.height}x{spec.width}, {'colour' if spec.channels == 3 else 'grey'}"))
    rows.append(("classes", _classes(known)))
    return [_facts([*rows, ("licence", stated)])]


def _classes(known: Known) -> str:
    names = known.denoiser.spec.label_names if known.run is None else known.run.resolved.label_names
    if not names:
        return "none"
    more = f" and {len(names) - NAMED} more (`diffsteer.json` has all)" if len(names) > NAMED else ""
    unused = "" if known.denoiser.spec.labelled else "; the model was not told them"
    return f"{len(names)}: {', '.join(map(_code, names[:NAMED]))}{more}{unused}"


def _training(known: Known) -> list[str]:
    spec, run = known.denoiser.spec, known.run
    network = f"{type(known.denoiser.network).__name__}, {known.parameters:,} parameters"
    rows = [
        ("network", network),
        ("labels", f"told to the network ({spec.conditioning})" if spec.labelled else "none"),
        ("process", f"{spec.process.name}, {spec.process.noise} noise"),
        ("predicts", spec.prediction),
        ("draws by", _in_words(How().resolved(spec))),
    ]
    if run is None:
        return ["How it was trained is unknown: the folder alone does not say.", _facts(rows)]
    s, trained = run.settings, run.trained
    length = f"{trained.steps:,} optimizer steps of {s.batch_size * s.accumulate} pictures ({trained.pictures:,} pictures seen)"
    if not trained.finished:
        length += f"; stopped before the {trained.planned:,} that were planned"
    rows += [
        ("length", f"{length}, {_minutes(trained.minutes[-1])} of training" if trained.minutes else length),
        ("optimizer", f"{s.optimizer}, learning rate {run.resolved.lr_schedule}"),
        ("weights", "their average over the steps (EMA)" if s.ema else "as the last step left them"),
        ("arithmetic", s.precision),
        ("seed", str(s.seed)),
    ]
    said = [] if not isinstance(s, FinetuneSettings) else [f"Begun with the weights of {_code(s.model)}."]
    return [*said, "The command that made it:", _block("bash", _command(run)), *_budget(run), _facts(rows)]


def _command(run: Run) -> str:
    return shlex.join(["diffsteer", run.settings.command, *as_flags(run.settings), "--out", run.path.resolve().name])


def _minutes(minutes: float) -> str:
    return f"{60 * minutes:.0f} seconds" if minutes < 3 else f"{minutes:.0f} minutes" if minutes < 180 else f"{minutes / 60:.1f} hours"


def _budget(run: Run) -> list[str]:
    if run.settings.budget is None:
        return []
    return [
        f"On the machine that it ran on, the budget came to {run.resolved.steps:,} steps; `--steps {run.resolved.steps}` trains as many."
    ]


def _scores(known: Known) -> list[str]:
    measured = scores_of(known)
    if not measured:
        why = (
            "The scores that there are were measured before its last training, so they are not shown."
            if known.outdated
            else "Not measured."
        )
        return [f"{why} This measures:", _block("bash", _evaluate_command(known))]
    rows: list[dict[str, object]] = [
        {
            "measure": MEASURES[kind].title if kind in MEASURES else kind,
            "value": _number(kind, score.number.value, score.number.error),
            "real pictures in their place": _number(kind, score.floor.value, score.floor.error),
            "drawn pictures": score.facts["number of drawn pictures"].words,
        }
        for kind, score in measured.items()
    ]
    assert known.scoring is not None
    seen = dict.fromkeys(score.facts["seen by"].words for score in measured.values() if score.facts["seen by"].words != "no network")
    real = dict.fromkeys(score.facts["real pictures"].words for score in measured.values())
    how = ", ".join(f"{name} {fact.words}" for name, fact in known.scoring.drawn.items() if name in ("solver", "steps", "guidance scale"))
    told = [
        f"Looked at by: {'; '.join(seen)}." if seen else "",
        f"Compared with: {'; '.join(real)}.",
        f"Drawn by: {how}." if how else "",
        "After ±, the standard error. The third column is what real pictures score in the drawn ones' place: a model cannot be expected to "
        "do better, and a value says nothing without it.",
    ]
    return [table(rows), "\n".join(f"- {line}" for line in told if line)]


def _number(kind: str, value: float, error: float | None) -> str:
    share = kind in MEASURES and MEASURES[kind].share
    said, spread = (f"{value:.1%}", error and f"{error:.1%}") if share else (f"{value:.3g}", error and f"{error:.2g}")
    return f"{said} ± {spread}" if spread else said


def _evaluate_command(known: Known) -> str:
    where = "MODEL" if known.run is None else known.run.path.name
    data = "DATA" if known.run is None else known.run.settings.data
    return shlex.join(["diffsteer", "evaluate", where, data, "--out", f"{where}/scores"])


def _copies(known: Known) -> str:
    found = known.copies
    if found is None:
        return "Not measured: whether it draws copies of its training pictures is unknown."
    base = found["baseline"]
    others = "training pictures, each beside all others" if base["left_out"] else "pictures that were held out"
    mirrored = ", mirrored too" if found["flip"] else ""
    return (
        f"Of {found['count']:,} drawn pictures {len(found['flagged']):,} ({found['rate']:.1%} ± {found['error']:.1%}) are copies, "
        f"found beside {found['train_count']:,} different pictures of {_code(found['source'])}{mirrored}; by the same rule "
        f"{base['rate']:.1%} ± {base['error']:.1%} of {base['count']:,} {others}. A copy comes nearer to its nearest training picture than "
        f"{found['limit']:.2f} times its distance to the next nine."
    )


def _limits(known: Known) -> Iterator[str]:
    """What it cannot do, each from a fact."""
    spec, run = known.denoiser.spec, known.run
    yield f"It draws {spec.height}x{spec.width} pixels and no other size."
    if spec.labelled:
        yield f"It knows {len(spec.label_names)} classes and nothing else: it is not told in words what to draw."
        if not spec.null_class:
            yield "Label guidance is not possible: it was trained with every label, and knows no picture without one."
    else:
        yield "It cannot be told what to draw; what it draws can be steered."
    if run is not None and run.resolved.pictures < FEW:
        yield f"It learnt from {run.resolved.pictures:,} pictures only: expect little variety, and likenesses of them."
    if run is not None and not run.trained.finished:
        yield f"Its training was stopped after {run.trained.steps:,} of {run.trained.planned:,} steps."
    yield from _limits_of_scores(known)
    multiple = known.denoiser.multiple
    if spec.height % multiple or spec.width % multiple:
        height, width = (side + -side % multiple for side in (spec.height, spec.width))
        yield (
            f"Inside, the network works on {height}x{width} pixels, of which the folder's own `pipeline.py` shows the middle "
            f"{spec.height}x{spec.width}; stock pipelines, such as `DDPMPipeline`, draw the padded {height}x{width}."
        )


def _limits_of_scores(known: Known) -> Iterator[str]:
    measured = scores_of(known)
    if not measured:
        yield "How good its pictures are was not measured."
    seen = measured["accuracy"].facts["seen by"].words if "accuracy" in measured else ""
    if seen:
        yield f"The accuracy is what a judge reads that errs itself ({seen}): what lies within that judge's own errors means nothing."
    if "frechet" in measured and metric_type("frechet", measured["frechet"].facts["seen by"]) != "fid":
        yield "The distances are in the features of that judge, so they cannot be set against FID or KID of papers."
    sources = {str(real_pictures(score)["source"]) for score in measured.values()}
    if known.run is not None and sources - {known.run.settings.data}:
        yield f"It was scored beside {', '.join(map(_code, sorted(sources)))}, and learnt from {_code(known.run.settings.data)}."


def _licence(of: str, name: str | None) -> str:
    if name is None:
        return f"{of}: not stated."
    return f"{of}: {_code(name)}." if name != "other" else f"{of}: another licence than the usual ones; ask its maker."


# ---- small things ----------------------------------------------------------------------------------------------------


def _sample_grid(known: Known) -> Any:
    """A column after another, a picture of each of the first classes in each, until the time is up."""
    spec = known.denoiser.spec
    labels: list[int | None] = [*range(min(ROWS, len(spec.label_names)))] if spec.labelled else [None] * 4
    columns: list[torch.Tensor] = []
    started = time.monotonic()
    while len(columns) < COLUMNS and (not columns or time.monotonic() - started < SECONDS):
        first = len(columns)
        seeds = [first] * len(labels) if spec.labelled else [row * COLUMNS + first for row in range(len(labels))]
        columns.append(draw(known.denoiser, [Job(label, seed) for label, seed in zip(labels, seeds, strict=True)]).pictures)
    pictures = torch.stack(columns, 1).flatten(0, 1)  # [rows * columns, C, H, W], row by row
    names = [spec.label_names[label] for label in labels if label is not None]
    return pixels.grid(pictures, columns=len(columns), row_labels=names or None)


def _slug(name: str) -> str:
    """A name that the Hub takes."""
    return re.sub(r"[^A-Za-z0-9_.]+|\.\.+", "-", name).strip("-.")[:60] or "model"


def _facts(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"- **{name}**: {said}" for name, said in rows)


def _code(word: str) -> str:
    """A word as it is, whatever Markdown would make of it."""
    fence = "``" if "`" in word else "`"
    pad = " " if "`" in word else ""
    return f"{fence}{pad}{word}{pad}{fence}"


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _homeless(text: str) -> str:
    """Paths below the home folder begin with ~: the maker's name on this computer is nobody's business."""
    home = str(Path.home()).rstrip("/\\")
    return re.sub(rf"{re.escape(home)}(?=[/\\])", "~", text) if home else text
