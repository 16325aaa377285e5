"""Settings: what may be written, what goes over what, and the recipes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from diffsteer import cli, config, recipebook
from diffsteer.config import (
    FROM_THE_BASE,
    LENGTHS,
    AppSettings,
    DataSettings,
    EvaluateSettings,
    FinetuneSettings,
    JudgeSettings,
    PictureRecipe,
    PlanSettings,
    SampleSettings,
    SpaceSettings,
    TrainSettings,
    as_flags,
    validated,
)
from diffsteer.errors import Mistake
from diffsteer.recipebook import recipe_command, recipe_settings, train_settings

# Promised: these flags keep their names.
PROMISED = """size network conditioning class-emb-size label-dropout prediction process batch-size accumulate lr optimizer flip ema
precision compile device seed preview-every checkpoint-every track project processes budget epochs steps"""
CHOICES = {
    "process": {"cosine", "linear", "flow", "edm"},
    "prediction": {"x0", "eps", "v", "flow"},
    "conditioning": {"none", "concat", "onehot", "add"},
    "precision": {"fp32", "bf16", "fp16"},
    "compile": {"auto", "on", "off"},
    "device": {"auto", "cpu", "cuda", "mps"},
}


def settings_of(**given: Any) -> TrainSettings:
    return train_settings(None, {"data": "digits", **given})


# ---- what may be written ---------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(number=st.decimals(min_value="0.01", max_value=5000, places=2), unit=st.sampled_from([("s", 1), ("m", 60), ("h", 3600), ("", 1)]))
def test_durations(number: Any, unit: tuple[str, int]) -> None:
    assert settings_of(budget=f"{number}{unit[0]}").budget == pytest.approx(float(number) * unit[1])


@given(seconds=st.integers(1, 10**6) | st.floats(0.01, 10_000).map(lambda value: round(value, 3)))
def test_a_duration_in_words_is_read_back(seconds: float) -> None:
    assert config.parse_duration(config.duration(seconds)) == pytest.approx(seconds)
    assert [config.duration(each) for each in (90, 1200, 7200, 5400, 0.5)] == ["90s", "20m", "2h", "90m", "0.5s"]


@pytest.mark.parametrize("wrong", ["", "soon", "5 days", "-5m", "1.2.3m", "m", "1e3s", "nan", "inf", "0m", "5m 3s", True])
def test_no_durations(wrong: Any) -> None:
    with pytest.raises(Mistake, match=r"^--budget"):
        settings_of(budget=wrong)


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 999), width=st.integers(1, 999))
def test_sizes(height: int, width: int) -> None:
    assert settings_of(size=f"{height}x{width}").size == (height, width)
    assert settings_of(size=f"{height} X {width}").size == settings_of(size=[height, width]).size == (height, width)
    assert settings_of(size=str(height)).size == settings_of(size=height).size == (height, height)


@pytest.mark.parametrize("wrong", ["", "big", "3x", "x4", "1x2x3", "-8", "8.5", [8], [8, 8, 8]])
def test_no_sizes(wrong: Any) -> None:
    with pytest.raises(Mistake, match="is no size; write 32 or HEIGHTxWIDTH"):
        settings_of(size=wrong)


def test_lists_are_words_between_commas_or_sequences() -> None:
    assert settings_of(channels="64, 128,").channels == settings_of(channels=[64, 128]).channels == (64, 128)
    assert settings_of(channels=64).channels == (64,)
    assert settings_of(track="tensorboard,wandb").track == ("tensorboard", "wandb")
    assert settings_of(figures="none").figures == settings_of(track="none").track == ()


def test_none_takes_a_number_back_and_stays_a_word_elsewhere() -> None:
    assert settings_of(clip="none").clip is None and settings_of(min_snr="none").min_snr is None
    chosen = settings_of(conditioning="none", decay="none", image_column="none")
    assert (chosen.conditioning, chosen.decay, chosen.image_column) == ("none", "none", "none")


def test_on_and_off_survive_yaml() -> None:
    read = yaml.safe_load("{data: digits, compile: off, streaming: on}")
    assert read["compile"] is False, "YAML 1.1 reads the word as a truth value"
    chosen = TrainSettings(**read)
    assert (chosen.compile, chosen.streaming) == ("off", "on")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"process": "cosin"}, "--process should be 'cosine', 'linear', 'flow' or 'edm'; 'cosin' was given."),
        ({"lr": "fast"}, "--lr should be a number; 'fast' was given."),
        ({"lr": "inf"}, "--lr should be a finite number; 'inf' was given."),
        ({"lr": 0}, "--lr should be greater than 0; 0 was given."),
        ({"steps": "2.5"}, "--steps should be a whole number; '2.5' was given."),
        ({"batch_size": 0}, "--batch-size should be at least 1; 0 was given."),
        ({"label_dropout": 1}, "--label-dropout should be less than 1; 1 was given."),
        ({"channels": "32,48"}, "--channels should be a multiple of 32; '48' was given."),
        ({"channels": ""}, "--channels names nothing."),
        ({"ema": "perhaps"}, "--ema should be true or false; 'perhaps' was given."),
        ({"track": "wandbb"}, "--track should be 'tensorboard', 'wandb' or 'trackio'; 'wandbb' was given."),
        ({"steps": 5, "epochs": 2}, "--epochs and --steps both say how long to train; give one of them."),
        ({"budget": "1m", "epochs": 2}, "--budget and --epochs both say how long to train; give one of them."),
        ({"head_dim": 64, "channels": "32,64", "attention_levels": 2}, "--head-dim 64 does not divide the channels (32, 64)"),
        ({"head_dim": 48}, "--head-dim 48 does not divide"),
        ({"network": "basic", "prediction": "eps"}, "the network basic accepts the prediction x0 only"),
        ({"network": "basic", "conditioning": "add"}, "the network basic takes no labels"),
        ({"network": "conditional-unet", "conditioning": "concat"}, "use --conditioning add or another network"),
        ({"pixel_range": "unit"}, "--pixel-range unit goes with --prediction x0"),
        ({"noise": "uniform", "process": "cosine"}, "--noise uniform goes with --process flow, not cosine"),
        ({"judge": "judges/d"}, "--judge scores the model in training; say by --score-every after how many steps"),
        ({"min_snr": 5}, "--min-snr goes with the predictions eps, v and x0, not flow"),
        ({"velocity_loss": True}, "--velocity-loss goes with --prediction x0"),
        ({"prediction": "eps"}, "--prediction eps says nothing about x0 where flow starts"),
        ({"label_droput": 0.1}, "There is no setting 'label_droput' in the settings; did you mean label_dropout?"),
        ({"qqq": 9}, "There is no setting 'qqq' in the settings; the settings are the flags"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mistake_is_one_sentence_that_says_what_is_possible(given: dict[str, Any], says: str) -> None:
    with pytest.raises(Mistake) as caught:
        settings_of(**given)
    said = str(caught.value)
    assert says.lower() in said.lower() and said.endswith((".", "?")) and "\n" not in said and not said[0].islower()


KINDS = [TrainSettings, FinetuneSettings, SampleSettings, JudgeSettings, EvaluateSettings, PlanSettings, AppSettings, SpaceSettings]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_setting_leads_to_the_help_of_its_own_command(kind: type[Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Mistake) as caught:
        validated(kind, {"qqq": 9}, "the settings")
    (command,) = re.findall(r"that diffsteer (\w+) --help lists", str(caught.value))
    assert cli.run([command, "--help"]) == 0
    own = next(name for name in reversed(kind.model_fields) if name in kind.__annotations__)
    assert f"--{own.replace('_', '-')}" in capsys.readouterr().out


def test_data_must_be_named() -> None:
    with pytest.raises(Mistake, match="No data is given"):
        train_settings(None, {})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings_of().lr = 1.0  # type: ignore[misc]


# ---- what goes over what ---------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text("# diffsteer train digits --recipe mine.yaml --out runs/mine\ndata: digits\nlr: 1e-4\nepochs: 7\nlabel-dropout: 0.3\n")
    return str(path)


def test_command_line_over_recipe_over_defaults(recipe: str) -> None:
    chosen = train_settings(recipe, {"lr": "0.5", "data": "digits-color"})
    assert (chosen.data, chosen.lr, chosen.label_dropout, chosen.epochs) == ("digits-color", 0.5, 0.3, 7)
    assert chosen.batch_size == TrainSettings.model_fields["batch_size"].default
    assert train_settings(recipe, {}).lr == 1e-4, "YAML reads 1e-4 as a word"


@pytest.mark.parametrize(("name", "value"), [("budget", "20m"), ("epochs", 3), ("steps", 11)])
def test_a_length_takes_the_place_of_the_recipes(recipe: str, name: str, value: Any) -> None:
    chosen = train_settings(recipe, {name: value})
    assert [length for length in LENGTHS if getattr(chosen, length) is not None] == [name]


def test_two_lengths_in_a_recipe_are_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "both.yaml").write_text("data: digits\nsteps: 3\nbudget: 2m\n")
    with pytest.raises(Mistake, match="--budget and --steps"):
        train_settings(str(tmp_path / "both.yaml"), {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"learning_rate: 1", "no setting 'learning_rate' in the recipe"),
        (b"label_droput: 1", "did you mean label_dropout?"),
        (b"data: [unclosed", "is no YAML"),
        (b"- a\n- b", "`setting: value`"),
        (b"data: \xff\xfe", "UTF-8"),
        (b"data: !!python/object/apply:os.system ['true']", "is no YAML"),
    ],
)
def test_a_bad_recipe_is_a_mistake(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "bad.yaml").write_bytes(text)
    with pytest.raises(Mistake, match=says.replace("?", r"\?")):
        train_settings(str(tmp_path / "bad.yaml"), {"data": "digits"})


def test_a_misspelt_recipe_is_told_its_neighbour() -> None:
    with pytest.raises(Mistake, match="did you mean seed-basic"):
        recipebook.recipe_text("seed-basik")
    with pytest.raises(Mistake, match=r"there are cifar10-fast, digits, .* and any \.yaml file"):
        recipebook.recipe_text("qqq")
    with pytest.raises(Mistake, match="no recipe file"):
        recipebook.recipe_text("nowhere.yaml")


# ---- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipebook.recipe_names())
def test_every_recipe_opens_with_its_command_and_validates(name: str) -> None:
    first = recipebook.recipe_text(name).splitlines()[0]
    words = first.removeprefix("# ").split()
    assert words[:2] == ["diffsteer", recipe_command(name)] and words[words.index("--recipe") + 1] == name and "--out" in words
    chosen = recipe_settings(name)
    given = [chosen.model, chosen.data] if isinstance(chosen, FinetuneSettings) else [chosen.data]
    assert given == words[2 : words.index("--recipe")], "the command and the recipe name the same data, and the same base"


@pytest.mark.parametrize("name", recipebook.recipe_names())
def test_a_recipe_is_shown_beside_our_defaults(name: str) -> None:
    written, rows = recipebook.load_recipe(name), {row["setting"]: row for row in recipebook.beside_defaults(name)}
    for key in set(written) - {"model", "data"}:
        chosen = recipe_settings(name)
        if getattr(chosen, key) != type(chosen).model_fields[key].get_default() and key != "epochs":
            assert key in rows, f"{key} differs and is not shown"
    assert all(row["reason"] and row["recipe"] != row["default"] for row in rows.values())
    assert not {"model", "data"} & set(rows) and set(rows) <= set(written), "only what the recipe says can differ"


def test_the_seeds_keep_the_seeds_settings() -> None:
    """What the course's notebooks do, against our defaults: no average, no null class, no warm-up, no clipping."""
    for name in ("seed-basic", "seed-unet", "seed-class-conditional", "seed-cifar10-conditional"):
        chosen = train_settings(name, {})
        assert (chosen.ema, chosen.label_dropout, chosen.warmup, chosen.decay, chosen.clip) == (False, 0, 0, "none", None)
        assert (chosen.optimizer, chosen.batch_size, chosen.last_batch, chosen.precision) == ("adam", 128, "short", "fp32")
    lesson = train_settings("seed-class-conditional", {})
    assert (lesson.process, lesson.prediction, lesson.conditioning, lesson.class_emb_size) == ("cosine", "eps", "concat", 4)
    assert (lesson.lr, lesson.epochs, lesson.solver, lesson.sample_steps) == (1e-3, 10, "ddpm", 1000)
    for name, epochs, batch, decay in (("finetune-seed", 2, 4, "none"), ("finetune-seed-script", 16, 8, "exponential")):
        cell = recipe_settings(name)
        assert (cell.optimizer, cell.lr, cell.accumulate, cell.epochs, cell.batch_size) == ("adamw", 1e-5, 2, epochs, batch)
        assert (cell.ema, cell.warmup, cell.decay, cell.clip, cell.flip) == (False, 0, decay, None, True)
    for name in ("seed-basic", "seed-unet"):
        lesson = train_settings(name, {})
        assert (lesson.pixel_range, lesson.noise, lesson.prediction, lesson.epochs) == ("unit", "uniform", "x0", 3)


def test_every_setting_has_its_reason_and_its_help() -> None:
    settings_but_data = set(TrainSettings.model_fields) - {"data"}
    assert set(recipebook.WHY_DEFAULT) == settings_but_data
    assert all(recipebook.WHY_DEFAULT.values())
    assert all(field.description and field.description.endswith((".", ")")) for field in TrainSettings.model_fields.values())
    assert set(recipebook.NOT_GIVEN) <= settings_but_data
    new_or_other = {
        key
        for key, field in FinetuneSettings.model_fields.items()
        if key not in FROM_THE_BASE | {"model", "data"} and repr(field) != repr(TrainSettings.model_fields.get(key))
    }
    assert set(recipebook.WHY_FINETUNE) == new_or_other and set(recipebook.NOT_GIVEN_FINETUNE) <= new_or_other
    assert all(FinetuneSettings.model_fields[key].description for key in new_or_other)


# ---- names and round trips -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", PROMISED.split())
def test_promised_settings_exist(flag: str) -> None:
    assert flag.replace("-", "_") in TrainSettings.model_fields


@pytest.mark.parametrize(("name", "promised"), CHOICES.items())
def test_promised_choices_exist(name: str, promised: set[str]) -> None:
    assert set(config.choices(TrainSettings.model_fields[name].annotation)) >= promised


def test_choices_are_found_inside_other_types() -> None:
    assert config.choices(TrainSettings.model_fields["track"].annotation) == ("tensorboard", "wandb", "trackio")
    assert config.choices(TrainSettings.model_fields["channels"].annotation) == ()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"size": "32x48", "channels": "64,128", "budget": "90s", "track": "wandb,tensorboard", "clip": "none", "compile": "off"},
        {"lr": 1e-5, "ema_decay": 0.99999, "min_snr": 5, "process": "cosine", "figures": "none", "steps": 3},
        {"data": "Wörter & mehr/图", "project": "on", "split": "off"},
    ],
)
def test_settings_survive_yaml(given: dict[str, Any]) -> None:
    chosen = settings_of(**given)
    text = yaml.safe_dump(chosen.model_dump(mode="json"), allow_unicode=True)
    assert TrainSettings(**yaml.safe_load(text)) == chosen
    assert config.differing(yaml.safe_load(text), chosen.model_dump(mode="json")) == []


@pytest.mark.parametrize("name", recipebook.recipe_names())
def test_recipes_survive_yaml(name: str) -> None:
    chosen = recipe_settings(name)
    assert type(chosen)(**yaml.safe_load(yaml.safe_dump(chosen.model_dump(mode="json")))) == chosen


def test_differing_names_what_differs_and_nothing_that_may() -> None:
    old, new = settings_of(steps=3, lr=0.1).model_dump(mode="json"), settings_of(steps=9, lr=0.2, keep=5).model_dump(mode="json")
    assert config.differing(old, new) == ["lr", "steps", "keep"]
    assert config.differing(old, new, config.RESUME_MAY_CHANGE) == ["lr"]
    assert set(TrainSettings.model_fields) >= config.RESUME_MAY_CHANGE


def test_resolved_choices_follow_process_and_network() -> None:
    assert settings_of().resolved_prediction == "flow" and settings_of(process="cosine").resolved_prediction == "v"
    assert settings_of(network="basic").resolved_prediction == "x0" and settings_of(prediction="x0").resolved_prediction == "x0"
    kinds = {process: settings_of(process=process).resolved_times for process in CHOICES["process"]}
    assert kinds == {"flow": "logit-normal", "edm": "edm", "cosine": "uniform", "linear": "uniform"}
    assert settings_of(times="uniform").resolved_times == "uniform"


def test_data_settings_are_part_of_train_settings() -> None:
    assert set(DataSettings.model_fields) < set(TrainSettings.model_fields)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"pictures": []},
        {"pictures": [{"label": None, "seed": -1}]},
        {"pictures": [{"label": None, "seed": 2**63}]},
        {"guidance_scale": math.nan},
        {"shows": "code"},
        {"precision": "int8"},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_picture_recipe_takes_nothing_odd(change: dict[str, Any]) -> None:
    good = {
        "version": "0",
        "model": "m",
        "shows": "grid",
        "solver": "ddim",
        "steps": 2,
        "spacing": None,
        "guidance_scale": 1.0,
        "steer": [],
    }
    good |= {"precision": "fp32", "invert": False, "columns": None, "pictures": [{"label": None, "seed": 3}]}
    assert PictureRecipe(**good).pictures[0].seed == 3
    with pytest.raises(ValidationError):
        PictureRecipe(**{**good, **change})


@pytest.mark.parametrize(
    "given",
    [
        {"data": "digits"},
        {"data": "digits", "size": (8, 10), "channels": (32, 64), "clip": None, "ema": False, "figures": (), "flip": True, "budget": 90.0},
        {"data": "digits", "guidance_scale": 3.0, "guidance_interval": (0.25, 0.9)},
        {"data": "a folder", "track": ("tensorboard", "wandb"), "feed_time": False, "steps": 3, "lr": 1e-05, "prediction": "v"},
    ],
)
def test_settings_come_back_from_their_flags(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run in several processes is started with is what was asked for."""
    from diffsteer import commands

    settings = train_settings(None, given)
    seen = []
    monkeypatch.setattr(commands, "_dry_run", lambda settings, *_: seen.append(settings))
    assert cli.run(["train", *as_flags(settings), "--dry-run"]) == 0
    assert seen == [settings]


def test_x0_is_learnt_by_the_velocitys_error_where_flow_draws_by_it() -> None:
    assert settings_of(prediction="x0").resolved_velocity_loss
    assert not settings_of(prediction="x0", velocity_loss=False).resolved_velocity_loss
    assert settings_of(prediction="x0", process="cosine", velocity_loss=True).resolved_velocity_loss
    for others in (
        {},
        {"prediction": "v"},
        {"prediction": "x0", "process": "cosine"},
        {"prediction": "x0", "min_snr": 5},
        {"network": "basic"},
    ):
        assert not settings_of(**others).resolved_velocity_loss
    assert not settings_of(prediction="x0", pixel_range="unit").resolved_velocity_loss
