"""The library's front: train, finetune, load, steer, sample, evaluate. The command line draws and trains nothing that these do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from diffsteer import evaluating, run
from diffsteer.config import EvaluateSettings, TrainSettings, as_flags, validated
from diffsteer.data import pixels
from diffsteer.device import find_device
from diffsteer.diffusion.denoiser import PRECISIONS, Denoiser
from diffsteer.errors import Mistake
from diffsteer.evaluating import Evaluation
from diffsteer.order import canvas_of
from diffsteer.processes import has_gpus, relaunch
from diffsteer.recipebook import finetune_settings, train_settings
from diffsteer.run import Result
from diffsteer.sampling.draw import Drawn, How, draw, jobs_for
from diffsteer.sampling.folder import load_model
from diffsteer.steering.gradient import Steer, SteeredDenoiser
from diffsteer.steering.losses import build, distinct, make_steer
from diffsteer.steering.user import checked
from diffsteer.steering.words import from_mapping, parse


def train(data: str | None = None, out: str | Path = "runs/first", *, recipe: str | None = None, **settings: Any) -> Result:
    """Trains into the run folder `out`, or goes on with the run that is there.

    settings: the command line's flags with underscores, for example `budget="2m"` or `label_dropout=0.1`. Raises Mistake, Stopped.
    """
    given = settings if data is None else {"data": data, **settings}
    return _trained(train_settings(recipe, given), out)


def finetune(model: str | Path, data: str, out: str | Path, *, recipe: str | None = None, **settings: Any) -> Result:
    """Trains a model that is there on other pictures, into the run folder `out`, or goes on with the run that is there.

    model: as for `load`. settings: the command line's flags with underscores, for example `steps=200, tune="lora"`. Raises Mistake and
    Stopped.
    """
    return _trained(finetune_settings(recipe, {"model": str(model), "data": data, **settings}), out)


def _trained(wanted: TrainSettings, out: str | Path) -> Result:
    cpu = wanted.device == "cpu" or not has_gpus(wanted.processes)
    relaunch(wanted.processes, [wanted.command, *as_flags(wanted), "--out", str(out)], cpu=cpu)
    return run.train(wanted, Path(out))  # after several processes: the finished run's result


def load(model: str | Path, *, device: str = "cpu", precision: str = "fp32") -> Denoiser:
    """A denoiser `(x_t, t, cond) -> x0` from a model folder, a run folder, a Hub id or a diffusers pipeline folder. Raises Mistake.

    Its `spec` says what it draws; its `notes`, what you should know about the folder.
    """
    if precision not in PRECISIONS:
        raise Mistake(f"precision is one of {', '.join(PRECISIONS)}; {precision!r} was given.")
    return load_model(str(model), precision, find_device(device))


@dataclass(frozen=True)
class Steered:
    """A denoiser and what steers it: `sample` draws with it, and it is a denoiser `(x_t, t, cond) -> x0` itself."""

    denoiser: Denoiser
    steers: tuple[Steer, ...]

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
        """x0 [B, C, H, W] after the steers' moves, not clamped; what is random in a loss is drawn as for seeds 0, 1, 2, ..."""
        spec = self.denoiser.spec
        return SteeredDenoiser(self.denoiser, self.steers, spec.process, range(len(x_t)), variance=spec.data_variance, clip=False)(
            x_t, t, cond
        )


def steer(
    model: Denoiser | str | Path, *losses: str | Mapping[str, Any] | Callable[..., Any], strength: float = 1.0, **options: Any
) -> Steered:
    """The model under losses, several at once: the command line's words ("color=#1ae680:2"), the same keys as a mapping
    ({"color": "#1ae680", "strength": 2}), or functions of your own.

    A function takes pictures [B, C, H, W], float32 in [0, 1], and returns one number per picture, a negative log-likelihood in nats (a
    second parameter would be given the `steering.contract.Moment`). strength and options (way, window, scaling, preset, ...) are the
    functions'. Raises Mistake.
    """
    denoiser = model if isinstance(model, Denoiser) else load(model)
    device = next(denoiser.network.parameters()).device
    canvas = canvas_of(denoiser.spec, str(device))
    if (options or strength != 1) and not any(map(callable, losses)):
        raise Mistake('strength and options go with a function; in words they stand with their loss, as in "color=#1ae680,way=exact:2".')
    steers = []
    for each in losses:
        if not (callable(each) or isinstance(each, str | Mapping)):
            raise Mistake(f'A loss is words such as "color=#1ae680", a mapping of the same keys, or a function; {each!r} is none.')
        if callable(each):
            name = getattr(each, "__name__", type(each).__name__)
            steers.append(make_steer(checked(each, name, canvas), name, strength, options))
        else:
            steers.append(build(parse(each) if isinstance(each, str) else from_mapping(each), canvas))
    return Steered(denoiser, distinct(steers))


def sample(
    model: Denoiser | Steered | str | Path,
    labels: Sequence[str | int] | None = None,
    *,
    per_label: int | None = None,
    count: int | None = None,
    seeds: Sequence[int] | None = None,
    solver: str | None = None,
    steps: int | None = None,
    spacing: str | None = None,
    guidance_scale: float | None = None,
) -> Pictures:
    """Pictures by label and seed; what is None is as the model was saved. Raises Mistake."""
    steers = model.steers if isinstance(model, Steered) else ()
    denoiser = model.denoiser if isinstance(model, Steered) else model if isinstance(model, Denoiser) else load(model)
    words = None if labels is None else [str(label) for label in labels]
    jobs = jobs_for(denoiser.spec, words, per_label=per_label, count=count, seeds=seeds)
    device = next(denoiser.network.parameters()).device
    how = How(solver, steps, spacing, guidance_scale)
    return Pictures(draw(denoiser, jobs, how, steers=steers, device=device), denoiser.spec.label_names)


def evaluate(model: str | Path, data: str, *, out: str | Path | None = None, **settings: Any) -> Evaluation:
    """Scores a model's pictures by a judge, and what a steer gained beside what it cost; files go into `out`.

    settings: the command line's flags with underscores, for example `count=200, steer=("color=#1ae680",)`. Raises Mistake.
    """
    wanted = validated(EvaluateSettings, settings, "the settings")
    return evaluating.evaluate(str(model), data, wanted, None if out is None else Path(out))


class Pictures:
    """What `sample` drew: `pixels` uint8 [N, C, H, W], `labels` (names, or None), `seeds`, and `losses`, of each steer by name [steps +
    1, N]: of the predicted pictures before each move, and of the pictures."""

    def __init__(self, drawn: Drawn, label_names: Sequence[str]) -> None:
        self.pixels = drawn.pictures
        self.labels = [None if job.label is None else label_names[job.label] for job in drawn.jobs]
        self.seeds = [job.seed for job in drawn.jobs]
        self.losses = drawn.losses

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Image.Image:
        return pixels.to_pil(self.pixels[index])

    def grid(self, columns: int = 8) -> Image.Image:
        """All pictures in one, the label under each."""
        captions = [label for label in self.labels if label is not None]
        return pixels.grid(self.pixels, columns=columns, captions=captions or None)

    def _repr_png_(self) -> bytes | None:
        """Shows itself in a notebook."""
        return self.grid()._repr_png_()
