"""From a trained network to one that learns new pictures: other labels, channels and sizes, and which of its weights are learnt.

What can be kept is kept exactly: where only the size, the prediction or the labels change, the first answer for a known label is the
base's, and a network that goes from grey to colour answers grey as before. Called by the run, in place of `build.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffsteer.config import FinetuneSettings, validated
from diffsteer.data.batch import Pictures
from diffsteer.diffusion import networks
from diffsteer.diffusion.conditioning import listing
from diffsteer.diffusion.denoiser import ModelSpec
from diffsteer.diffusion.seeds import generator_for
from diffsteer.errors import Mistake
from diffsteer.training.lora import add_lora

RATE, RATES = 5e-4, {"lora": 1e-2}  # what is learnt and which optimizer does it: docs/fine-tuning.md has the measurements
# How far new labels begin from one another, in deviations of the base's: from one row for all, a hundred steps do not part them
# (docs/what-was-tried.md).
APART = 3.0
LABEL_DROPOUT = 0.1  # where the base has a null class
# Of a network that answers with the path's end: every time counts alike, its teacher's guidance is in it, and ddpm begins each step with
# fresh noise.
CONSISTENT: dict[str, Any] = {
    "times": "uniform",
    "label_dropout": 0.0,
    "solver": "ddpm",
    "sample_steps": 2,
    "spacing": None,
    "guidance_scale": 1.0,
    "guidance_interval": (0.0, 1.0),
}
# Of one that did, and learns pictures' mean again, which is drawn from in steps.
MEAN_AGAIN: dict[str, Any] = {"solver": ModelSpec.solver, "sample_steps": ModelSpec.steps, "spacing": None}
CHANNELS = {1: "grey", 3: "colour"}


class Adapted(NamedTuple):
    """A network to be fine-tuned, how it is read, how it is read before its first step, and sentences about what became of it."""

    network: nn.Module
    spec: ModelSpec
    before: ModelSpec
    notes: tuple[str, ...]


def settled(settings: FinetuneSettings, network: nn.Module, base: ModelSpec, weights: str) -> FinetuneSettings:
    """The settings with what the base decides filled in; `weights` is the hash of its own. Raises Mistake."""
    prediction = settings.prediction or base.prediction
    if prediction != base.prediction and (base.pixel_range == "unit" or isinstance(network, networks.BasicUNet)):
        raise Mistake(f"{settings.model} predicts {base.prediction} in [0, 1] and can learn nothing else; leave --prediction out.")
    facts = {
        "base_weights": weights,
        "network": _word(network),
        "dropout": _unet_config(network).get("dropout", 0.0),
        "feed_time": base.feed_time,
        "conditioning": _conditioning(settings, network, base),
        "process": base.process.name,
        "noise": base.process.noise,
        "pixel_range": base.pixel_range,
        "prediction": prediction,
    }
    wishes = {
        "size": (base.height, base.width),
        "lr": RATES.get(settings.tune, RATE),
        "label_dropout": LABEL_DROPOUT if base.null_class else 0.0,
        "solver": base.solver,
        "sample_steps": base.steps,
        "spacing": base.spacing if settings.solver in (None, base.solver) else None,
        "guidance_scale": base.guidance_scale,
        "guidance_interval": base.guidance_interval,
    }
    if settings.consistency:
        wishes |= CONSISTENT
    elif base.consistency:
        wishes |= MEAN_AGAIN
    given = settings.model_dump()
    unsaid = {name: value for name, value in wishes.items() if given[name] is None}
    whole: FinetuneSettings = validated(FinetuneSettings, {**given, **unsaid, **facts}, "the settings")
    return whole


def adapted(network: nn.Module, base: ModelSpec, data: Pictures, settings: FinetuneSettings) -> Adapted:
    """The base's network, made ready for this data by settled settings; it is changed, or another takes its place. Raises Mistake."""
    names, null = _labels(base, data, settings)
    spec = replace(
        base,
        prediction=settings.prediction or base.prediction,
        height=data.height,
        width=data.width,
        channels=data.channels,
        conditioning=settings.conditioning or "none",
        label_names=names,
        null_class=null,
        data_mean=data.mean,
        data_variance=data.variance,
        solver=settings.solver or base.solver,
        steps=settings.sample_steps or base.steps,
        spacing=settings.spacing,
        guidance_scale=base.guidance_scale if settings.guidance_scale is None else settings.guidance_scale,
        guidance_interval=settings.guidance_interval or base.guidance_interval,
        consistency=settings.consistency,
    )
    _check_size(network, spec, settings)
    if settings.consistency:
        _check_taught(base, spec, settings)
    made, changed = _reshaped(network, base, spec, keep_rows=settings.tune == "lora")
    made.requires_grad_(True)
    if settings.tune == "lora":
        if changed:
            raise Mistake(
                f"--tune lora leaves the base as it is, and here its {_joined(changed)} would change; use --tune last-blocks or all, "
                f"or pictures of the base's kind ({CHANNELS[base.channels]}{_so_many(base)})."
            )
        add_lora(made, settings.lora_rank, _kept(made, settings.freeze), labels=names != base.label_names, seed=settings.seed)
    else:
        _choose(made, settings, changed)
    if settings.gradient_checkpointing:
        _checkpoint_gradients(made)
    notes = tuple(_notes(made, base, spec, data, settings))
    return Adapted(made, spec, replace(spec, prediction=base.prediction, consistency=base.consistency), notes)


# ---- labels ----------------------------------------------------------------------------------------------------------


def _conditioning(settings: FinetuneSettings, network: nn.Module, base: ModelSpec) -> str:
    """How the network will be told the label: as the base was, or by a new table added to the time if one is asked for. Raises Mistake."""
    if base.labelled or settings.classes is None:
        return base.conditioning
    if settings.classes == "keep":
        raise Mistake(f"{settings.model} has no labels to keep; --classes swap makes it learn the data's.")
    if not isinstance(_inner(network), networks.UNet2DModel) or isinstance(network, networks.LabelChannelsUNet):
        raise Mistake(f"{settings.model} has no labels, and a {type(network).__name__} cannot be given any; leave --classes out.")
    return "add"


def _labels(base: ModelSpec, data: Pictures, settings: FinetuneSettings) -> tuple[tuple[str, ...], bool]:
    """(label names, whether there is a null class) of the tuned model. Raises Mistake."""
    if settings.conditioning in (None, "none"):
        return (), False
    new = [name for name in data.label_names if name not in base.label_names]
    if not data.label_names:
        raise Mistake(f"{settings.model} draws by label and {data.source} has no labels; put the pictures into one folder per class.")
    if settings.classes == "keep" and new:
        raise Mistake(
            f"--classes keep: {settings.model} does not know {listing(new)}; it knows {listing(base.label_names)}. "
            "Use --classes grow to add them, or swap to draw the data's classes only."
        )
    null = base.null_class or bool(settings.label_dropout)
    if settings.classes == "grow":
        return (*base.label_names, *new), null
    swap = settings.classes == "swap" or (settings.classes is None and new)
    return (tuple(data.label_names) if swap else base.label_names), null


def _rows(old: Tensor, base: ModelSpec, spec: ModelSpec) -> Tensor:
    """The new table of labels [R, D] from the old one: a known label keeps its row; a new one begins at a row of its own, drawn around that
    of the base's null class (or the mean of all), which is where a new null class begins."""
    known = {name: old[row] for row, name in enumerate(base.label_names)}
    unknown = old[base.null_id] if base.null_class else old.mean(0)
    spread = old[: len(base.label_names)].std(0, correction=0)

    def new(name: str) -> Tensor:
        return unknown + APART * spread * torch.randn(unknown.shape, generator=generator_for("new label", name))

    rows = [known[name] if name in known else new(name) for name in spec.label_names]
    return torch.stack([*rows, unknown] if spec.null_class else rows)


# ---- shapes ----------------------------------------------------------------------------------------------------------


def _check_size(network: nn.Module, spec: ModelSpec, settings: FinetuneSettings) -> None:
    multiple = networks.size_multiple(network)
    if any(-side % multiple >= side for side in (spec.height, spec.width)):
        raise Mistake(
            f"{settings.model} halves its pictures, and takes them in multiples of {multiple}; {spec.height}x{spec.width} is too small for "
            f"that. Give at least --size {multiple // 2 + 1}."
        )


def _check_taught(base: ModelSpec, spec: ModelSpec, settings: FinetuneSettings) -> None:
    """The base is the teacher: it must know such pictures and labels, and a path to them. Raises Mistake."""
    if base.consistency:
        raise Mistake(
            f"--consistency: {settings.model} was tuned so before, and leads to its pictures by no path that could be taught. "
            "Tune the model that it was made from."
        )
    if base.prediction == "eps":
        raise Mistake(
            f"--consistency: {settings.model} tells the noise (eps), from which no picture follows where nearly all is noise, and there a "
            "drawing in few steps begins. Fine-tune it with --prediction v first, then tune the result with --consistency."
        )
    same = {
        "pictures of": (f"{base.height}x{base.width}", f"{spec.height}x{spec.width}"),
        "channels": (base.channels, spec.channels),
        "labels": (listing(base.label_names), listing(spec.label_names)),
        "the prediction": (base.prediction, spec.prediction),
    }
    for what, (its, asked) in same.items():
        if its != asked:
            raise Mistake(
                f"--consistency: {settings.model} is the teacher, and knows {what} {its}, not {asked}. "
                "Fine-tune it to these pictures first, then tune the result with --consistency."
            )


def _reshaped(network: nn.Module, base: ModelSpec, spec: ModelSpec, keep_rows: bool) -> tuple[nn.Module, list[str]]:
    """A network for the pictures and labels of `spec`, with the old one's weights, and the names of those that changed their shape or
    meaning. keep_rows: labels of other names take over the rows of the old ones, number by number, if there are as many."""
    config = _plain_config(network)
    wanted = {**config, "in_channels": spec.channels, "out_channels": spec.channels}
    if (spec.height, spec.width) != (base.height, base.width):
        multiple = networks.size_multiple(network)
        wanted["sample_size"] = tuple(-(-side // multiple) * multiple for side in (spec.height, spec.width))
    same_rows = (base.label_names, base.null_class) == (spec.label_names, spec.null_class)
    same_rows |= keep_rows and (len(base.label_names), base.null_class) == (len(spec.label_names), spec.null_class)
    if spec.labelled and not same_rows:
        count = len(spec.label_names) + spec.null_class
        if isinstance(network, networks.PatchUNet):
            wanted["unet"] = {**config["unet"], "num_class_embeds": count}
        elif isinstance(network, networks.UNet2DModel):
            wanted["num_class_embeds"] = count
        else:
            wanted |= {"num_classes": len(spec.label_names), "null_class": spec.null_class}
    if wanted == config and same_rows:
        return network, []
    with torch.random.fork_rng():
        made = type(network).from_config(wanted)  # type: ignore[attr-defined]
    old, state = network.state_dict(), network.state_dict()
    changed = []
    if spec.labelled and not same_rows:
        changed.append(_set_rows(state, network, base, spec))
    if spec.channels != base.channels:
        changed += _set_channels(state, old, network, base, spec)
    made.load_state_dict(state)
    return made, changed


def _set_rows(state: dict[str, Tensor], network: nn.Module, base: ModelSpec, spec: ModelSpec) -> str:
    """Puts the new table of labels into `state`; its name."""
    if isinstance(network, networks.LabelChannelsUNet) and network.class_emb is None:
        # One-hot: a label's row is what its plane weighs in the first convolution, and that of the null class is nothing.
        name = "model.conv_in.weight"
        picture, planes = state[name].split([base.channels, len(base.label_names)], 1)
        table = planes.transpose(0, 1)  # [K, O, h, w]
        rows = _rows(torch.cat([table, torch.zeros_like(table[:1])]) if base.null_class else table, base, spec)
        state[name] = torch.cat([picture, rows[: len(spec.label_names)].transpose(0, 1)], 1)
        return name
    name = _table(network)
    if base.labelled:
        state[name] = _rows(state[name], base, spec)
    else:  # rows of zeros change nothing that the network knows
        width = _inner(network).time_embedding.linear_2.out_features
        state[name] = torch.zeros(len(spec.label_names) + spec.null_class, width)
    return name


def _set_channels(state: dict[str, Tensor], old: dict[str, Tensor], network: nn.Module, base: ModelSpec, spec: ModelSpec) -> list[str]:
    """Puts a first and a last convolution for other channels into `state`; their names.

    The mean of the new channels is seen as the old ones were when they were all the same, and every new channel is answered as the mean
    of the old ones: of pictures without colour the answer stays the same.
    """
    first, last = _ends(network)
    values = _values(network)  # of one channel, side by side
    weight = state[f"{first}.weight"]
    picture, labels = weight[:, : base.channels * values], weight[:, base.channels * values :]
    share = picture.unflatten(1, (base.channels, values)).sum(1, keepdim=True) / spec.channels
    state[f"{first}.weight"] = torch.cat([share.repeat(1, spec.channels, 1, 1, 1).flatten(1, 2), labels], 1)
    for kind in ("weight", "bias"):
        each = old[f"{last}.{kind}"].unflatten(0, (base.channels, values)).mean(0, keepdim=True)
        state[f"{last}.{kind}"] = each.repeat(spec.channels, *[1] * (each.ndim - 1)).flatten(0, 1)
    return [f"{first}.weight", f"{last}.weight", f"{last}.bias"]


# ---- what is learnt --------------------------------------------------------------------------------------------------


def _choose(network: nn.Module, settings: FinetuneSettings, changed: Sequence[str]) -> None:
    """Freezes what is not learnt: it gets no gradient, and no state in the optimizer. Raises Mistake."""
    frozen = _kept(network, settings.freeze)
    last = _last_blocks(network, settings) if settings.tune == "last-blocks" else ("",)
    for name, parameter in network.named_parameters():
        chosen = name in changed or _bare(name).startswith(last)
        parameter.requires_grad_(chosen and name not in frozen)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise Mistake(f"--freeze {','.join(settings.freeze)} leaves nothing to learn; freeze less.")
    for norm in network.modules():
        if isinstance(norm, nn.GroupNorm) and any(parameter.requires_grad for parameter in norm.parameters()):
            norm.register_forward_pre_hook(_with_gradient)


def _with_gradient(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    """A GroupNorm that learns behind frozen layers gets an input with a gradient, which goes no further: asked for the gradient of its
    weights alone, on channels_last, torch 2.13 crashes on a CPU."""
    (x,) = given
    return given if x.requires_grad or not torch.is_grad_enabled() else (x.detach().requires_grad_(),)


def _kept(network: nn.Module, beginnings: Sequence[str]) -> frozenset[str]:
    """The weights that `--freeze` names. Mistake for a beginning that is nobody's."""
    names = [name for name, _ in network.named_parameters()]
    found = set()
    for beginning in beginnings:
        its = [name for name in names if f"{_bare(name)}.".startswith(f"{beginning.rstrip('.')}.")]
        if not its:
            first = dict.fromkeys(_bare(name).split(".")[0] for name in names)
            raise Mistake(
                f"--freeze {beginning}: no weights begin so; there are {', '.join(first)} and their parts, such as {_bare(names[-1])}."
            )
        found.update(its)
    return frozenset(found)


def _last_blocks(network: nn.Module, settings: FinetuneSettings) -> tuple[str, ...]:
    """What the last blocks' names begin with: the second half of the way up, and what follows it."""
    unet = _inner(network)
    if not isinstance(unet, networks.UNet2DModel):
        raise Mistake(f"--tune last-blocks goes with a UNet2DModel, and {settings.model} is a {type(network).__name__}; use --tune all.")
    count = len(unet.up_blocks)
    return (*(f"up_blocks.{index}." for index in range(count // 2, count)), "conv_norm_out.", "conv_out.")


def _checkpoint_gradients(network: nn.Module) -> None:
    unet = _inner(network)
    if not isinstance(unet, networks.UNet2DModel):
        raise Mistake(f"--gradient-checkpointing goes with a UNet2DModel, not with a {type(network).__name__}; leave it out.")
    unet.enable_gradient_checkpointing()


# ---- networks and their parts ----------------------------------------------------------------------------------------


def _inner(network: nn.Module) -> Any:
    """The `UNet2DModel` inside, or the network itself."""
    return network.model if isinstance(network, networks.PatchUNet | networks.LabelChannelsUNet) else network


def _bare(name: str) -> str:
    """A weight's name as in the `UNet2DModel` inside."""
    return name.removeprefix("model.")


def _word(network: nn.Module) -> str:
    words = {networks.BasicUNet: "basic", networks.ConditionalUNet: "conditional-unet"}
    return words.get(type(network), "unet")


def _plain_config(network: Any) -> dict[str, Any]:
    return {key: value for key, value in network.config.items() if not key.startswith("_")}


def _unet_config(network: nn.Module) -> dict[str, Any]:
    return dict(_inner(network).config)


def _ends(network: nn.Module) -> tuple[str, str]:
    """Names of the first and the last convolution."""
    if isinstance(network, networks.BasicUNet):
        return "down_layers.0", "up_layers.2"
    if isinstance(network, networks.ConditionalUNet):
        return "conv0", "final"
    prefix = "" if isinstance(network, networks.UNet2DModel) else "model."
    return f"{prefix}conv_in", f"{prefix}conv_out"


def _values(network: nn.Module) -> int:
    """Channels inside for one of the picture."""
    return network.config["patch_size"] ** 2 if isinstance(network, networks.PatchUNet) else 1


def _table(network: nn.Module) -> str:
    """Name of the table of labels."""
    if isinstance(network, networks.ConditionalUNet):
        return "label_embed.weight"
    if isinstance(network, networks.LabelChannelsUNet):
        return "class_emb.weight"
    return "class_embedding.weight" if isinstance(network, networks.UNet2DModel) else "model.class_embedding.weight"


# ---- what is said ----------------------------------------------------------------------------------------------------


def _notes(network: nn.Module, base: ModelSpec, spec: ModelSpec, data: Pictures, settings: FinetuneSettings) -> Any:
    if base.labelled and spec.label_names != base.label_names:
        known = sum(name in base.label_names for name in spec.label_names)
        left = sum(name not in spec.label_names for name in base.label_names)
        yield f"labels: {len(spec.label_names)}, of which the base knows {known}; {left} of the base's are given up."
    elif spec.labelled and not base.labelled:
        yield f"labels: the base has none; it learns {listing(spec.label_names)}."
    elif data.label_names and not spec.labelled:
        yield f"labels: the base has none, so those of {data.source} are left out; --classes swap makes it learn them."
    if spec.channels != base.channels:
        yield f"The base draws {CHANNELS[base.channels]} pictures; its first and last layer now fit {CHANNELS[spec.channels]} ones."
    if (spec.height, spec.width) != (base.height, base.width):
        yield f"The base was trained at {base.height}x{base.width} and learns {spec.height}x{spec.width}."
    if spec.prediction != base.prediction:
        yield f"The base predicts {base.prediction} and has to learn {spec.prediction}: at first its answers are read wrongly."
    learnt = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    whole = sum(parameter.numel() for parameter in network.parameters())
    if learnt < whole:
        yield f"{learnt:,} of {whole:,} weights are learnt ({learnt / whole:.1%}); the others stay as they are."


def _joined(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(_bare(name).removesuffix(".weight").removesuffix(".bias") for name in names))


def _so_many(spec: ModelSpec) -> str:
    return f", {len(spec.label_names)} classes" if spec.labelled else ""
