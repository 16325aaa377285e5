"""Recipes: settings in YAML files, by name in the package or by path; what is given beside them goes over them."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from diffsteer.config import FROM_THE_BASE, LENGTHS, FinetuneSettings, TrainSettings, validated
from diffsteer.errors import Mistake


def train_settings(recipe: str | None, given: Mapping[str, Any]) -> TrainSettings:
    """Settings from a recipe (a name, or a YAML file) with what was given on the command line over it. Raises Mistake."""
    settings: TrainSettings = validated(TrainSettings, _together(recipe, given, TrainSettings.command), _where(recipe))
    return settings


def finetune_settings(recipe: str | None, given: Mapping[str, Any]) -> FinetuneSettings:
    """The same for a fine-tuning; what the base decides may not be given. Raises Mistake."""
    values = _together(recipe, given, FinetuneSettings.command)
    decided = [key for key in values if key in FROM_THE_BASE]
    if decided:
        raise Mistake(f"{decided[0]} is the base's, and fine-tuning does not change it; leave it out of {_where(recipe)}.")
    settings: FinetuneSettings = validated(FinetuneSettings, values, _where(recipe))
    return settings


def recipe_settings(recipe: str) -> TrainSettings:
    """The settings of a recipe by itself, of the kind that it is for; where it names no model or data, MODEL and DATA."""
    own = load_recipe(recipe)
    if recipe_command(recipe) == FinetuneSettings.command:
        return finetune_settings(recipe, {key: key.upper() for key in ("model", "data") if key not in own})
    return train_settings(recipe, {} if "data" in own else {"data": "DATA"})


def recipe_command(recipe: str) -> str:
    """The command that a recipe is for: train, or what its opening line says."""
    words = recipe_text(recipe).splitlines()[:1]
    return FinetuneSettings.command if words and words[0].startswith("# diffsteer finetune ") else TrainSettings.command


def _together(recipe: str | None, given: Mapping[str, Any], command: str) -> dict[str, Any]:
    """The recipe's values with the given ones over them. Mistake for a recipe of another command."""
    values: dict[str, Any] = dict(load_recipe(recipe)) if recipe else {}
    if recipe and recipe_command(recipe) != command:
        raise Mistake(f"The recipe {recipe} is for diffsteer {recipe_command(recipe)}, not for {command}.")
    if any(given.get(name) is not None for name in LENGTHS):
        values = {key: value for key, value in values.items() if key not in LENGTHS}
    return {**values, **given}


def _where(recipe: str | None) -> str:
    return f"the recipe {recipe}" if recipe else "the settings"


def recipe_names() -> list[str]:
    """The recipes in the package."""
    return sorted(path.name.removesuffix(".yaml") for path in resources.files("diffsteer.recipes").iterdir() if path.name.endswith(".yaml"))


def recipe_text(recipe: str) -> str:
    """The YAML of a recipe, by name or by file. Raises Mistake."""
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise Mistake(f"There is no recipe file {recipe}.")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise Mistake(f"The recipe {recipe} is no text in UTF-8.") from None
    names = recipe_names()
    if recipe not in names:
        near = get_close_matches(recipe, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}, and any .yaml file."
        raise Mistake(f"There is no recipe {recipe!r}; {hint}")
    return (resources.files("diffsteer.recipes") / f"{recipe}.yaml").read_text(encoding="utf-8")


def load_recipe(recipe: str) -> dict[str, Any]:
    """The settings of a recipe. Raises Mistake."""
    try:
        values = yaml.safe_load(recipe_text(recipe)) or {}
    except yaml.YAMLError as error:
        raise Mistake(f"The recipe {recipe} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise Mistake(f"The recipe {recipe} should be a list of `setting: value` lines.")
    return {str(key).replace("-", "_"): value for key, value in values.items()}


def beside_defaults(recipe: str) -> list[dict[str, str]]:
    """Each setting of a recipe that differs from our default: both values, and why ours is what it is."""
    settings = recipe_settings(recipe)
    finetuning = isinstance(settings, FinetuneSettings)
    why, unsaid = (WHY_DEFAULT | WHY_FINETUNE, NOT_GIVEN | NOT_GIVEN_FINETUNE) if finetuning else (WHY_DEFAULT, NOT_GIVEN)
    rows = []
    for key, field in type(settings).model_fields.items():
        value, default = _plain(key, getattr(settings, key), unsaid), _plain(key, field.get_default(), unsaid)
        if key not in ("data", "model") and value != default:
            rows.append({"setting": key, "recipe": value, "default": default, "reason": why[key]})
    return rows


def _plain(key: str, value: Any, unsaid: Mapping[str, str]) -> str:
    if value is None:
        return unsaid.get(key, "not set")
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


# What it means that a setting is not given.
NOT_GIVEN = {
    "size": "by the data",
    "image_column": "found",
    "label_column": "found",
    "caption_column": "found",
    "channels": "by picture size",
    "patch_size": "by process and size",
    "conditioning": "by the data",
    "prediction": "by the process",
    "times": "by the process",
    "velocity_loss": "for x0 by flow",
    "min_snr": "off",
    "clip": "off",
    "epochs": "30",
    "preview_every": "a tenth of the run",
    "checkpoint_every": "a tenth of the run",
    "score_every": "never",
    "judge": "trained first",
    "spacing": "the solver's own",
    "loss_ceiling": "by the losses",
}


# Why our default is what it is, shown beside a recipe's value.
WHY_DEFAULT = {
    "size": "pictures are taken as they are, but for large ones",
    "image_column": "most tables have one column of pictures",
    "label_column": "most tables have one column of labels",
    "caption_column": "most tables have at most one column of text",
    "split": "the part that is meant for training",
    "background": "paper is white",
    "skip_broken": "a picture is left out only by your word",
    "streaming": "memory is faster than the disk, while there is enough of it",
    "network": "UNet2DModel opens in stock diffusers",
    "channels": "more levels for larger pictures",
    "patch_size": "a quarter of the places to visit: four times the steps in the same time",
    "layers": "two are enough at these sizes",
    "attention_levels": "attention pays at the coarsest level; it is slow elsewhere",
    "head_dim": "heads 8 wide waste the matrix units; 32 or 64 fill them",
    "dropout": "short runs do not overfit",
    "feed_time": "a network that knows the noise level need not guess it",
    "norm_groups": "in small groups the normalisation takes out what time and label put in",
    "conditioning": "a label added to the time embedding reaches every layer",
    "class_emb_size": "the lesson's own length",
    "label_dropout": "a null class makes label guidance possible",
    "process": "flow's straight paths draw well in few steps",
    "noise": "Gaussian noise is what the theory and every solver assume",
    "prediction": "v and flow are unmoved by small errors where eps is divided by alpha",
    "pixel_range": "[-1, 1] has the noise's mean, and any last layer can reach it",
    "times": "logit-normal spends steps where the loss is hard",
    "time_shift": "from scratch, moved times helped the labels and not the distance",
    "even_times": "from scratch no difference was seen",
    "min_snr": "logit-normal times do its work already",
    "velocity_loss": "the velocity is what a step of the solver follows, so its error is what counts",
    "flip": "a mirrored digit or word is another one",
    "batch_size": "fits a laptop, and keeps the gradient calm",
    "accumulate": "more steps are worth more than larger ones",
    "lr": "right for networks of this size, with warm-up and decay",
    "optimizer": "it learns more in the same time than AdamW on all data tried",
    "weight_decay": "AdamW's usual value",
    "warmup": "the first steps know the least",
    "decay": "a rate that falls to 0 gives a better model for the same time",
    "clip": "one bad batch must not undo the run",
    "last_batch": "every step sees a full batch",
    "ema": "averaged weights draw better pictures than the last ones",
    "ema_decay": "long enough for long runs; it warms up in short ones",
    "precision": "the same numbers on every machine",
    "compile": "worth its minutes on a GPU only",
    "device": "the fastest there is",
    "processes": "one machine, one process",
    "seed": "any will do",
    "budget": "epochs are the same on every machine",
    "epochs": "long enough for a few thousand pictures",
    "steps": "epochs grow with the data",
    "preview_every": "ten pictures tell the story",
    "checkpoint_every": "a kill costs a tenth of the run at most",
    "keep": "the newest, and the one before it",
    "score_every": "looks take time that steps could have",
    "score_count": "a look should be short; errors are told with it",
    "judge": "your own classes are known best by a judge of your own data",
    "track": "metrics.jsonl and pictures are always written",
    "project": "a name to find it by",
    "solver": "dpm++2m needs 20 evaluations where ancestral sampling needs 1,000",
    "sample_steps": "enough for dpm++2m",
    "spacing": "the solver's own grid was measured for it",
    "guidance_scale": "pictures as varied as the data; 2 asks for clearer ones",
    "guidance_interval": "guidance at all noise levels is what its name means elsewhere",
    "figures": "what most runs want to see",
    "loss_ceiling": "the axis fits the losses",
}


# The same for fine-tuning, where it is not the same.
NOT_GIVEN_FINETUNE = {
    "lr": "0.0005; lora: 0.01",
    "size": "the base's",
    "prediction": "the base's",
    "label_dropout": "as the base learnt",
    "solver": "the base's",
    "sample_steps": "the base's",
    "spacing": "the base's",
    "guidance_scale": "the base's",
    "guidance_interval": "the base's",
    "lora_rank": "at 4 % of the weights",
    "classes": "keep or swap",
    "judge": "none",
}
WHY_FINETUNE = {
    "size": "what the base has learnt at one size it knows at no other",
    "prediction": "a change has to be learnt before anything else",
    "label_dropout": "a null class makes label guidance possible",
    "solver": "what draws well with the base draws well with its child",
    "sample_steps": "what draws well with the base draws well with its child",
    "spacing": "what draws well with the base draws well with its child",
    "guidance_scale": "what draws well with the base draws well with its child",
    "guidance_interval": "what draws well with the base draws well with its child",
    "batch_size": "more steps are worth more than larger ones",
    "lr": "small enough to keep what the base knows, large enough to learn in a few epochs",
    "tune": "all weights together learn the most",
    "freeze": "what is frozen cannot follow",
    "lora_rank": "small files, that can still say something",
    "classes": "what the data shows is what the model should draw",
    "consistency": "the pictures are worth more than what the base makes of them",
    "gradient_checkpointing": "memory is cheaper than time, while there is enough of it",
    "judge": "the base reads its own labels",
}
