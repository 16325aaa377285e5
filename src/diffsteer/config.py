"""Every setting once: flags, keys of YAML recipes, defaults, help and the saved settings all come from here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from diffsteer.errors import Mistake


def parse_duration(value: Any) -> float | None:
    """Seconds from `90s`, `20m`, `2h` (or a plain number of seconds)."""
    if value is None:
        return None
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([smh]?)\s*", str(value))
    if not match:
        raise ValueError(f"{value!r} is no duration; write 90s, 20m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def duration(seconds: float) -> str:
    """The word that `parse_duration` reads as so many seconds: 90s, 20m, 2h."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds / size:.10g}{unit}"
    return f"{seconds:.10g}s"


def parse_size(value: Any) -> Any:
    """(height, width) from `32`, `32x48` or a pair."""
    if value is None or (isinstance(value, tuple | list) and len(value) == 2):
        return value
    match = re.fullmatch(r"\s*(\d+)(?:\s*[xX]\s*(\d+))?\s*", str(value))
    if not match:
        raise ValueError(f"{value!r} is no size; write 32 or HEIGHTxWIDTH, for example 32x48")
    return (int(match[1]), int(match[2] or match[1]))


def parse_list(value: Any) -> Any:
    """A tuple from `64,128`, `none`, a sequence or a single value."""
    if isinstance(value, str):
        return () if value == "none" else tuple(piece.strip() for piece in value.split(",") if piece.strip())
    return (value,) if isinstance(value, int) else value


def parse_names(value: Any) -> Any:
    """A tuple from `a,b`, `none`, or several of these."""
    return tuple(name for words in ([value] if isinstance(value, str) else value) for name in parse_list(words))


def parse_window(value: Any) -> Any:
    """Two noise levels from `0.2-0.9` or a pair."""
    if value is None or (isinstance(value, tuple | list) and len(value) == 2):
        return value
    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*-\s*(\d*\.?\d+)\s*", str(value))
    if not match:
        raise ValueError(f"{value!r} is no range of noise levels; write 0.2-0.9 (0 is clean, 1 is noise)")
    return (float(match[1]), float(match[2]))


def parse_autoguidance(value: Any) -> Any:
    """(model, scale) from `runs/early:2`, or a pair; the scale is 2 where none is said."""
    if value is None or (isinstance(value, tuple | list) and len(value) == 2):
        return value
    model, colon, scale = str(value).rpartition(":")
    try:
        return (model, float(scale)) if colon else (str(value), 2.0)
    except ValueError:
        return (str(value), 2.0)


def parse_switch(value: Any) -> Any:
    """`on` and `off` as words: YAML reads them, unquoted, as true and false."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


Size = Annotated[tuple[int, int] | None, BeforeValidator(parse_size)]
Seconds = Annotated[float | None, BeforeValidator(parse_duration)]
Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(parse_switch)]
Window = Annotated[tuple[float, float], BeforeValidator(parse_window)]
MaybeWindow = Annotated[tuple[float, float] | None, BeforeValidator(parse_window)]
Words = tuple[str, ...]  # a flag that may be given several times


FigureName = Literal["data", "corruption", "predictions", "noisy-rows", "step-sheet", "grid-64", "x-and-x0", "by-label", "guidance-scaling"]


class Settings(BaseModel):
    """Frozen; an unknown key is refused. `none` takes a number back to "not given"."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    command: ClassVar[str] = ""  # whose flags these are

    @model_validator(mode="before")
    @classmethod
    def _none_in_words(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: None if value == "none" and _takes_no_word_none(cls.model_fields.get(key)) else value for key, value in values.items()}


def choices(annotation: Any) -> tuple[str, ...]:
    """The words that a setting of this type may be; none when it is not a choice."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(word for inner in get_args(annotation) for word in choices(inner))


def _takes_no_word_none(field: FieldInfo | None) -> bool:
    """Whether a setting may be absent and is no text, to which `none` would be a word like any other."""
    return (
        field is not None
        and type(None) in get_args(field.annotation)
        and str not in get_args(field.annotation)
        and not choices(field.annotation)
    )


class DataSettings(Settings):
    """How pictures are read."""

    command: ClassVar[str] = "check"

    size: Size = Field(
        None, description="Side, or HEIGHTxWIDTH; default: the data's own, up to 64; 64 where its pictures are of several sizes."
    )
    image_column: str | None = Field(None, description="Name of the picture column; default: found by type.")
    label_column: str | None = Field(None, description="Name of the label column; default: found by type and name.")
    caption_column: str | None = Field(None, description="Name of the caption column; default: found by type and name.")
    split: str = Field("train", description="Which split of a data set that has several.")
    background: str = Field("white", description="Colour that transparent pictures are laid on.")
    skip_broken: bool = Field(False, description="Go on without unreadable pictures.")
    streaming: Switch = Field("auto", description="Read pictures as they are needed; auto: when memory is short.")


class TrainSettings(DataSettings):
    """Everything that decides a training run. The defaults are what `diffsteer train DATA --out RUN` does."""

    command: ClassVar[str] = "train"

    data: str = Field(description="Built-in name, Hub id, folder of pictures, parquet file or data-set folder.")

    # the model
    network: Literal["unet", "basic", "conditional-unet"] = Field("unet", description="unet: diffusers' UNet2DModel.")
    channels: Annotated[tuple[Annotated[int, Field(ge=32, multiple_of=32)], ...] | None, BeforeValidator(parse_list)] = Field(
        None, min_length=1, description="Channels of each level, multiples of 32, for example 64,128,128; default: by picture size."
    )
    patch_size: int | None = Field(
        None,
        ge=1,
        le=8,
        description="The network sees squares of so many pixels a side, and is about as many times as fast, squared; "
        "default: 2 for flow from 24 pixels a side, else 1.",
    )
    layers: int = Field(1, ge=1, description="Residual layers in each level.")
    attention_levels: int = Field(1, ge=0, description="How many of the deepest levels have attention.")
    head_dim: int = Field(32, ge=1, description="Width of an attention head.")
    # Time and label are added channel by channel before a GroupNorm: in a group of one channel it takes them out again. diffusers' 32
    # groups do that to levels of 32 channels, and leave little in those of 64.
    norm_groups: int = Field(16, ge=1, description="Groups of the normalisation; must divide 32.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout inside the network.")
    feed_time: bool = Field(True, description="Tell the network the time; --no-feed-time gives it 0 always.")
    conditioning: Literal["none", "concat", "onehot", "add"] | None = Field(
        None, description="How the network is told the label; default: add when the data has labels, else none."
    )
    class_emb_size: int = Field(4, ge=1, description="Length of the label vector for conditioning concat.")
    label_dropout: float = Field(0.1, ge=0, lt=1, description="Share of labels left out, so that label guidance works; 0: no null class.")

    # what it learns
    process: Literal["cosine", "linear", "flow", "edm"] = Field("flow", description="The noise process.")
    noise: Literal["gaussian", "uniform"] = Field("gaussian", description="Kind of noise; uniform goes with flow.")
    prediction: Literal["x0", "eps", "v", "flow"] | None = Field(None, description="What the network predicts; default: flow, or v.")
    pixel_range: Literal["signed", "unit"] = Field("signed", description="signed: [-1, 1]; unit: [0, 1], for prediction x0.")
    times: Literal["uniform", "logit-normal", "edm"] | None = Field(
        None, description="How training times are drawn; default: logit-normal for flow, edm for edm, else uniform."
    )
    time_shift: float = Field(
        1.0, gt=0, description="Train more at much noise, where class and layout are decided: the drawn sigma / alpha times this."
    )
    even_times: bool = Field(False, description="Spread the times of a step evenly: a calmer gradient, for short runs.")
    min_snr: float | None = Field(None, gt=0, description="Min-SNR weighting with this gamma (5 is usual); eps, v and x0 only.")
    velocity_loss: bool | None = Field(
        None,
        description="Measure the error of a predicted x0 as that of the velocity, which counts small noise for more; x0 only; "
        "default: where a unet predicts x0 by flow.",
    )
    flip: bool = Field(False, description="Mirror half of the pictures left to right.")

    # the optimizer
    batch_size: int = Field(128, ge=1, description="Pictures a micro-batch, over all processes.")
    accumulate: int = Field(1, ge=1, description="Micro-batches an optimizer step.")
    lr: float = Field(1e-3, gt=0, description="Peak learning rate.")
    optimizer: Literal["adam", "adamw", "muon"] = Field("muon", description="muon: orthogonal updates, and AdamW for the rest.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay (adamw, muon).")
    warmup: int = Field(100, ge=0, description="Optimizer steps over which the learning rate rises; at most a tenth of the run.")
    decay: Literal["none", "linear", "cosine", "exponential"] = Field(
        "cosine", description="How the learning rate falls, to 0 at the end; exponential: to 0.9 of itself with each epoch."
    )
    clip: float | None = Field(1.0, gt=0, description="Largest norm of the gradient; none: not clipped.")
    last_batch: Literal["fill", "short"] = Field("fill", description="fill: a batch runs on into the next epoch; short: it ends with it.")
    ema: bool = Field(True, description="Average the weights (EMA); the average is what is saved.")
    ema_decay: float = Field(0.9999, gt=0, lt=1, description="Largest decay of the average; it warms up to it.")

    # the machine
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="The network's arithmetic in training.")
    compile: Switch = Field("auto", description="torch.compile; auto: on a GPU, where there is a C++ compiler.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to train.")
    processes: int = Field(1, ge=1, description="Processes on this machine, started through accelerate.")
    seed: int = Field(0, ge=0, description="Decides order, noise, times, label dropout and first weights.")

    # how long
    budget: Seconds = Field(None, gt=0, description="Time for the whole command: 90s, 20m, 2h.")
    epochs: int | None = Field(None, ge=1, description="Passes over the data; default: 30, where neither --steps nor --budget is given.")
    steps: int | None = Field(None, ge=1, description="Optimizer steps.")

    # what is watched and kept
    preview_every: int | None = Field(None, ge=1, description="Optimizer steps between previews; default: a tenth of the run.")
    checkpoint_every: int | None = Field(None, ge=1, description="Optimizer steps between checkpoints; default: a tenth of the run.")
    keep: int = Field(2, ge=1, description="Checkpoints kept.")
    score_every: int | None = Field(
        None, ge=1, description="Optimizer steps between looks that score the model, and the last step; default: no scores."
    )
    score_count: int = Field(200, ge=2, description="Pictures drawn for a look, in the data's shares of the labels.")
    judge: str | None = Field(
        None, description="Folder of the judge that scores, made by diffsteer judge; default: one is trained on the data first."
    )
    track: Annotated[tuple[Literal["tensorboard", "wandb", "trackio"], ...], BeforeValidator(parse_list)] = Field(
        (), description="Trackers, for example tensorboard,wandb."
    )
    project: str = Field("diffsteer", description="Project name for trackers.")

    # how its pictures are drawn when sample is not told otherwise
    solver: str = Field("dpm++2m", description="Solver written into the model.")
    sample_steps: int = Field(20, ge=1, description="Steps written into the model.")
    spacing: str | None = Field(None, description="Time spacing written into the model; default: the solver's own.")
    guidance_scale: float = Field(1.0, description="Label guidance written into the model; 1 is off.")
    guidance_interval: Window = Field((0.0, 1.0), description="Its noise levels written into the model, 0 clean to 1 noise: 0.2-0.9.")

    # what is drawn at the end, into RUN/figures
    figures: Annotated[tuple[FigureName, ...], BeforeValidator(parse_list)] = Field(
        ("data", "corruption", "predictions"), description="Figures drawn at the end, besides the loss curve."
    )
    loss_ceiling: float | None = Field(None, gt=0, description="Top of the loss curve's axis; default: by the losses.")

    @model_validator(mode="after")
    def _together(self) -> Self:
        lengths = [name for name in ("budget", "epochs", "steps") if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise ValueError(f"--{lengths[0]} and --{lengths[1]} both say how long to train; give one of them")
        if self.judge is not None and self.score_every is None and self.command == "train":
            raise ValueError("--judge scores the model in training; say by --score-every after how many steps")
        if not self.settled:
            return self
        if self.network == "basic" and (self.prediction or "x0") != "x0":
            raise ValueError("the network basic accepts the prediction x0 only: its last layer is a SiLU, which cannot reach below -0.278")
        if self.network == "basic" and self.conditioning not in (None, "none"):
            raise ValueError("the network basic takes no labels; use --conditioning none or another network")
        if self.network == "conditional-unet" and self.conditioning not in (None, "add"):
            raise ValueError("the network conditional-unet adds the label to the time; use --conditioning add or another network")
        if self.pixel_range == "unit" and self.resolved_prediction != "x0":
            raise ValueError("--pixel-range unit goes with --prediction x0")
        if self.noise == "uniform" and self.process != "flow":
            raise ValueError(f"--noise uniform goes with --process flow, not {self.process}")
        if (self.patch_size or 1) > 1 and (self.network != "unet" or self.conditioning in ("concat", "onehot")):
            raise ValueError("--patch-size goes with the network unet and the conditionings none and add")
        if self.velocity_loss and (self.resolved_prediction != "x0" or self.process == "edm" or self.min_snr is not None):
            raise ValueError("--velocity-loss goes with --prediction x0, without --min-snr, and not with --process edm")
        if self.min_snr is not None and self.resolved_prediction == "flow":
            raise ValueError("--min-snr goes with the predictions eps, v and x0, not flow")
        if self.process == "flow" and self.resolved_prediction == "eps":
            raise ValueError("--prediction eps says nothing about x0 where flow starts, at alpha 0; use flow, v or x0")
        if 32 % self.norm_groups:
            raise ValueError(f"--norm-groups should be 1, 2, 4, 8, 16 or 32; {self.norm_groups} was given")
        if self.network == "unet" and self.attention_levels:
            # Where channels are unsaid, the two deepest levels are multiples of 64 at every size, and all are of 32.
            unsaid = (64,) if self.attention_levels <= 2 else (32,)
            attended = self.channels[-self.attention_levels :] if self.channels else unsaid
            if any(width % self.head_dim for width in attended):
                raise ValueError(f"--head-dim {self.head_dim} does not divide the channels {attended} of the levels with attention")
        return self

    @property
    def settled(self) -> bool:
        """Whether process, network and prediction are known, so that it can be said whether they go together."""
        return True

    @property
    def resolved_prediction(self) -> str:
        if self.prediction is not None:
            return self.prediction
        if self.network == "basic":
            return "x0"
        return "flow" if self.process == "flow" else "v"

    @property
    def resolved_velocity_loss(self) -> bool:
        if self.velocity_loss is not None:
            return self.velocity_loss
        usual = self.network == "unet" and self.process == "flow" and self.pixel_range == "signed" and self.min_snr is None
        return usual and self.resolved_prediction == "x0"

    @property
    def resolved_times(self) -> str:
        return self.times or {"flow": "logit-normal", "edm": "edm"}.get(self.process, "uniform")

    def resolved_conditioning(self, labels: bool) -> str:
        """How the network is told the label of data that has labels, or has none."""
        if self.network == "conditional-unet":
            return "add"
        return self.conditioning or ("add" if labels and self.network == "unet" else "none")


# What a network is made with; a base has been made.
ARCHITECTURE = frozenset({"channels", "patch_size", "layers", "attention_levels", "head_dim", "norm_groups", "class_emb_size"})
# What fine-tuning takes from its base, or finds out about it.
FROM_THE_BASE = ARCHITECTURE | {"network", "dropout", "feed_time", "conditioning", "process", "noise", "pixel_range", "base_weights"}


class FinetuneSettings(TrainSettings):
    """Everything that decides a fine-tuning: a training run that begins with a trained model. What is in FROM_THE_BASE is not asked for;
    `training.finetune.settled` fills it in."""

    command: ClassVar[str] = "finetune"

    model: str = Field(description="Model folder, run folder, Hub id or any diffusers pipeline folder with a UNet2DModel.")
    base_weights: str | None = Field(None, description="Hash of the base's weights.")
    tune: Literal["all", "last-blocks", "lora"] = Field(
        "all", description="What is learnt: all weights, the last blocks before the picture, or small matrices beside the frozen weights."
    )
    freeze: Annotated[Words, BeforeValidator(parse_names)] = Field(
        (), description="Weights that stay as they are, by the beginnings of their names: conv_in,down_blocks.0."
    )
    lora_rank: int | None = Field(
        None, ge=1, description="Rank of the matrices of --tune lora; default: the largest, up to 16, at 4 % of the base's weights."
    )
    classes: Literal["keep", "grow", "swap"] | None = Field(
        None,
        description="keep: the data's classes are some of the model's, which keeps all; grow: the model's and the data's; swap: the data's "
        "only; default: keep where the model knows them all, else swap.",
    )
    consistency: bool = Field(
        False, description="Learn to draw in two evaluations what the base draws in all its steps, its label guidance included."
    )
    gradient_checkpointing: bool = Field(False, description="Compute parts of the network twice, to need a fraction of the memory.")
    judge: str | None = Field(None, description="Folder of a judge that reads the labels drawn before and after.")

    prediction: Literal["x0", "eps", "v", "flow"] | None = Field(None, description="Learn to predict something else; default: the base's.")
    size: Size = Field(None, description="Side, or HEIGHTxWIDTH; default: the base's.")
    label_dropout: float | None = Field(  # type: ignore[assignment]  # a number once it is settled, as are the next ones
        None, ge=0, lt=1, description="Share of labels left out; default: 0.1 where the base has a null class; else 0, and more makes one."
    )
    solver: str | None = Field(None, description="Solver written into the model; default: the base's.")  # type: ignore[assignment]
    sample_steps: int | None = Field(None, ge=1, description="Steps written into the model; default: the base's.")  # type: ignore[assignment]
    spacing: str | None = Field(None, description="Time spacing written into the model; default: the base's.")
    guidance_scale: float | None = Field(  # type: ignore[assignment]
        None, description="Label guidance written into the model, 1 is off; default: the base's."
    )
    guidance_interval: MaybeWindow = Field(  # type: ignore[assignment]
        None, description="Its noise levels written into the model; default: the base's."
    )
    batch_size: int = Field(32, ge=1, description="Pictures a micro-batch, over all processes.")
    lr: float | None = Field(  # type: ignore[assignment]
        None, gt=0, description="Peak learning rate; default: 0.0005, for --tune lora 0.01."
    )

    @property
    def settled(self) -> bool:
        return self.base_weights is not None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.consistency and self.settled and self.noise != "gaussian":
            raise ValueError("--consistency follows the paths of Gaussian noise; the base has uniform noise")
        if self.consistency and (self.min_snr is not None or self.velocity_loss):
            raise ValueError("--consistency has a loss of its own; leave --min-snr and --velocity-loss out")
        return self

    @model_serializer(mode="wrap")
    def _without_architecture(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if key not in ARCHITECTURE}


class DrawSettings(Settings):
    """How pictures are drawn, whichever they are. None means the model's own choice."""

    solver: str | None = Field(
        None, description="mix, ddpm, ddim, euler, heun, dpm++2m, unipc, seed-004, or a diffusers scheduler's class name."
    )
    steps: int | None = Field(None, ge=1, description="Solver steps.")
    spacing: str | None = Field(None, description="How times are spaced: even, angle, karras, leading, trailing, linspace.")
    guidance_scale: float | None = Field(None, description="Label guidance; 1 is off. The model must have been trained with label dropout.")
    guidance_interval: MaybeWindow = Field(None, description="Noise levels at which labels guide, 0 clean to 1 noise: 0.2-0.9.")
    guidance_rescale: float = Field(0.0, description="Share of the contrast that label guidance adds and that is taken back.")
    dynamic_threshold: float | None = Field(
        None, description="Against over-saturation: the share of values, such as 0.995, that sets a picture's range."
    )
    autoguidance: Annotated[tuple[str, float] | None, BeforeValidator(parse_autoguidance)] = Field(
        None, description="Go away from a worse model, an earlier or smaller run: MODEL or MODEL:SCALE (2)."
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Other than in fp32, pictures depend a little on their batch.")


class SampleSettings(DrawSettings):
    """Everything that decides what `diffsteer sample` draws and how it is shown."""

    command: ClassVar[str] = "sample"

    labels: str | None = Field(None, description="Names, numbers, ranges or all: cat,dog or 0-9.")
    per_label: int | None = Field(None, description="Pictures a label (8).")
    count: int | None = Field(None, description="Pictures in all, labels in turn (16 without labels).")
    seeds: str | None = Field(None, description="Every label is drawn with every seed: 0-63 or 1,2,5-10.")
    steer: Words = Field(
        (), description="Steer by a loss, name=value[,option=value...][:strength], or a YAML file of them; may be given several times."
    )
    sweep: str | None = Field(
        None, description="One sheet, a column a value: strength=0,0.25,0.5,1,2,4 (times the steers' own), or guidance-scale, steps, ..."
    )
    film: bool = Field(False, description="Also write a film of x beside the predicted picture (GIF), and a sheet of chosen steps (PNG).")
    columns: int | None = Field(None, ge=1, description="Columns of the grid.")
    invert: bool = Field(False, description="Show grey pictures as ink on paper.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to draw.")
    batch_size: int = Field(64, ge=1, description="Pictures drawn at a time; it changes no picture.")
    overwrite: bool = Field(False, description="Replace an existing file.")


class JudgeSettings(DataSettings):
    """How a judge is trained."""

    command: ClassVar[str] = "judge"

    architecture: Literal["plain", "patches"] = Field(
        "plain", description="plain: convolutions; patches: an MLP-Mixer. Let one steer and the other judge."
    )
    noise_aware: bool = Field(False, description="Also learn noisy pictures, so that it can steer by the noisy picture itself.")
    through: str | None = Field(
        None, description="Learn from what this model makes of noisy pictures: the judge to steer that model by, at every noise level."
    )
    budget: Seconds = Field(None, gt=0, description="Time for training: 30s, 2m; default: four epochs or 1,200 steps, whichever is longer.")
    seed: int = Field(0, ge=0, description="Decides first weights, order and which pictures are held out.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to train.")


class EvaluateSettings(DrawSettings, DataSettings):
    """What is drawn to be scored, and by whom."""

    command: ClassVar[str] = "evaluate"

    count: int = Field(1000, ge=2, description="Pictures drawn for each row, in the data's shares of the labels, seeds 0, 1, 2, ...")
    judge: str | None = Field(
        None,
        description="Folder of the judge that scores; default: one is trained on DATA, of another architecture than the one that steers.",
    )
    extractor: str = Field(
        "judge",
        description="Whose features are compared: judge, or Inception's, for FID and KID as papers give them: the file of its weights "
        "(pt_inception-2015-12-05-6726825d.pth; needs diffsteer[inception]).",
    )
    steer: Words = Field((), description="Score these steers, together, beside the unsteered model.")
    versus: Words = Field((), description="Another steer, scored in a row of its own; may be given several times.")
    asked: str | None = Field(
        None, description="The label that steers ask for, or each (seed by seed in turn); default: what a classifier steer says."
    )
    search: bool = Field(False, description="Search each steer's strength first, on 64 other seeds, by what the judge reads there.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to draw.")
    batch_size: int = Field(64, ge=1, description="Pictures drawn at a time; it changes no picture.")


class PlanSettings(DataSettings):
    """What a plan is asked for."""

    command: ClassVar[str] = "plan"

    budget: Annotated[float, BeforeValidator(parse_duration)] = Field(
        "20m", gt=0, validate_default=True, description="Time for the whole training, start to exit: 90s, 20m, 2h."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="The network's arithmetic; auto: the fastest here.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to train.")


class AppSettings(Settings):
    """How the web app is served, and what one job on it may be."""

    command: ClassVar[str] = "app"

    host: str = Field("127.0.0.1", description="Address to serve on; 0.0.0.0: every one that this machine has.")
    port: int | None = Field(None, ge=1, le=65535, description="Default: 7860, or the next that is free.")
    allow_host: Words = Field(
        (), description="A name that browsers know this page by: behind a proxy, or in your network; may be given several times."
    )
    auth: str | None = Field(None, description="Name to log in with, or NAME:PASSWORD; without a password one is made and printed.")
    share: bool = Field(False, description="Also serve through a public link of Gradio's, for a week; needs --auth.")
    losses: str | None = Field(None, description="Folder of .py files whose functions may be steered by; they are code, and run as you.")
    clip: str | None = Field(None, description="CLIP or SigLIP to steer by sentences with: a folder or a Hub id.")
    steer: Words = Field((), description="A steer that the page opens with: color=#1ae680, mine.py:redness:2; may be given several times.")
    runs: str = Field("runs", description="Folder of the runs that the page trains and compares.")
    data: Words = Field(
        (), description="Pictures that may be trained on from the page, besides what is built in; may be given several times."
    )
    allow_train: bool = Field(
        False,
        description="Let everyone who reaches the page train; without it nobody does where others are let in, by --host, --share or "
        "--allow-host.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to draw and train.")
    most_pictures: int = Field(64, ge=1, description="Pictures of one job.")
    most_steps: int = Field(250, ge=1, description="Solver steps of one job.")
    most_seconds: float = Field(300.0, gt=0, description="Seconds that a job may be forecast to take.")
    most_upload: int = Field(6, ge=1, le=100, description="Megabytes of an uploaded picture.")


class SpaceSettings(Settings):
    """What the page of a Space offers and opens with."""

    command: ClassVar[str] = "space"

    steer: Words = Field((), description="A steer that the page opens with: color=#1ae680, mine.py:redness:2; may be given several times.")
    losses: str | None = Field(None, description="Folder of .py files whose functions may be steered by; they are copied, and run there.")
    clip: str | None = Field(None, description="CLIP or SigLIP to steer by sentences with: a Hub id.")


class PictureRecipe(Settings):
    """What a PNG drawn by `diffsteer sample` holds, so that it can be drawn again."""

    class Picture(Settings):
        """One picture: the label's name, None in a model without labels."""

        label: str | None
        seed: int = Field(ge=0, lt=2**63)

    version: str
    model: str
    shows: Literal["grid", "picture", "film", "sweep"] = Field(
        description="What the PNG itself is: a grid, a single picture, the sheet of a film or of a sweep."
    )
    solver: str
    steps: int = Field(ge=1, le=100_000)
    spacing: str | None
    guidance_scale: float
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    dynamic_threshold: float | None = None
    autoguidance: tuple[str, float] | None = None
    steer: tuple[str, ...]
    precision: Literal["fp32", "bf16", "fp16"]
    invert: bool
    sweep: str | None = None
    columns: int | None = Field(ge=1)
    pictures: tuple[Picture, ...] = Field(min_length=1)


# Settings that may differ from a run folder's when the run is resumed: how long, and those that touch no number of the run.
RESUME_MAY_CHANGE = frozenset(
    {"budget", "epochs", "steps", "track", "project", "preview_every", "checkpoint_every", "keep", "figures", "loss_ceiling"}
    | {"score_every", "score_count", "judge"}
)
LENGTHS = ("budget", "epochs", "steps")


def validated(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """`kind(**values)`, its refusals turned into a Mistake of one sentence."""
    unknown = [key for key in values if key not in kind.model_fields]
    if unknown:
        near = get_close_matches(unknown[0].replace("-", "_"), kind.model_fields, n=1)
        flags = (
            f"the settings are the flags that diffsteer {kind.command} --help lists." if kind.command else "there is nothing of that name."
        )
        hint = f"did you mean {near[0]}?" if near else flags
        raise Mistake(f"There is no setting {unknown[0]!r} in {where}; {hint}")
    try:
        return kind(**values)
    except ValidationError as error:
        raise Mistake(explain(error)) from None


def explain(error: ValidationError) -> str:
    """A validation error in one sentence, with the flag's name."""
    first = error.errors()[0]
    flag = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else ""
    said = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    if not flag:
        return said[:1].upper() + said[1:] + "."
    if first["type"] == "missing" and first["loc"] == ("model",):
        return "No model is given; say which one to begin with, for example diffsteer finetune runs/a photos/ --out runs/b."
    if first["type"] == "missing" and first["loc"] == ("data",):
        return "No data is given; say where the pictures are, a folder such as photos/, or digits, which are built in."
    if first["type"] == "value_error":
        return f"{flag}: {said}."
    if first["type"] == "too_short":
        return f"{flag} names nothing."
    for theirs, ours in PYDANTIC_WORDS.items():
        said = said.replace(theirs, ours)
    return f"{flag} should be {said.split(', unable to')[0]}; {first['input']!r} was given."


PYDANTIC_WORDS = {
    "Input should be ": "",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "greater than or equal to": "at least",
}


def settings_kind(saved: Mapping[str, Any]) -> type[TrainSettings]:
    """Whether saved settings are of a training or of a fine-tuning."""
    return FinetuneSettings if "model" in saved else TrainSettings


def flag_value(key: str, value: Any) -> str:
    """A setting's value as its flag takes it."""
    if value is None or value == ():
        return "none"
    if key == "size":
        return f"{value[0]}x{value[1]}"
    if key == "guidance_interval":
        return f"{value[0]:g}-{value[1]:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def as_flags(settings: TrainSettings) -> list[str]:
    """The words after `diffsteer {settings.command}` for these settings: the base, the data, then a flag for each that differs from its
    default."""
    words = [settings.model, settings.data] if isinstance(settings, FinetuneSettings) else [settings.data]
    unsaid = {"model", "data"} | (FROM_THE_BASE if isinstance(settings, FinetuneSettings) else set())
    return [*words, *_flags(type(settings), {key: value for key, value in settings if key not in unsaid})]


def reading_flags(settings: Mapping[str, Any]) -> list[str]:
    """A run's settings by name -> the flags with which `diffsteer evaluate` reads its data as it did; the size is the model's."""
    read = set(DataSettings.model_fields) & set(EvaluateSettings.model_fields) - {"size"}
    return _flags(DataSettings, {key: value for key, value in settings.items() if key in read})


def _flags(kind: type[Settings], values: Mapping[str, Any]) -> list[str]:
    """A flag for each of the values that is not its setting's default, in the order of the settings."""
    words = []
    for key, field in kind.model_fields.items():
        value = values.get(key, field.get_default())
        if value == field.get_default():
            continue
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", flag_value(key, value)]
    return words


def differing(old: Mapping[str, Any], new: Mapping[str, Any], ignored: Iterable[str] = ()) -> list[str]:
    """Names of settings whose values differ."""
    return [key for key in new if key not in ignored and old.get(key) != new[key]]
