"""Steers as the page's controls have them: what can be said there, and what it is told of what cannot."""

from __future__ import annotations

from typing import Any

import pytest

from app.digits import DIGITS, LIMITS
from diffsteer.app.asked import Steers, asked
from diffsteer.app.opening import as_controls, from_recipe, opening
from diffsteer.config import PictureRecipe
from diffsteer.errors import Mistake
from diffsteer.steering.words import parse

OWN = ("mine.py:redness", "mine.py:blueness")


def test_each_control_is_set_from_its_steer() -> None:
    steer = ["color=#1AE680:2", "brightness=0.25", "symmetry=up-down:0.5", 'clip="a red, red rose":8', "losses/mine.py:redness:3"]
    assert opening(steer, OWN, clip=True, colour=True) == {
        "by": ["color", "brightness", "symmetry", "clip", "mine.py:redness"],
        "color": "#1AE680", "color_strength": 2.0, "brightness": 0.25, "brightness_strength": 1.0,
        "mirror": "up-down", "symmetry_strength": 0.5,
        "sentence": "a red, red rose", "clip_strength": 8.0, "own_strength": 3.0,
    }  # fmt: skip
    assert opening([], OWN, clip=True, colour=True) == {}
    assert opening(["symmetry"], (), clip=False, colour=False)["mirror"] == "left-right"
    two = opening(["mine.py:redness:2", "mine.py:blueness:2"], OWN, clip=False, colour=True)
    assert two == {"by": list(OWN), "own_strength": 2.0}


@pytest.mark.parametrize(
    "steer",
    [
        ["color=turquoise"],
        ["color=#1ae680,way=shortcut"],
        ["color=#1ae680:9"],
        ["symmetry:-1"],
        ["symmetry", "symmetry=up-down"],
        ["symmetry=sideways"],
        ["brightness"],
        ["brightness=2"],
        ["brightness=nan"],
        ["reference=cat.png"],
        ["mine.py:green"],
        ["mine.py:redness", "mine.py:blueness:2"],
        ["hue=#ff0000"],
        ["clip=a rose,cuts=8"],
        ["clip=" + "x" * 201],
        ["steers.yaml"],
    ],
)
def test_what_the_page_cannot_say_is_told_with_what_it_can(steer: list[str]) -> None:
    with pytest.raises(
        Mistake, match=r"^--steer .*: the page cannot open with this\. It has controls for color=#1ae680, .*mine\.py:redness"
    ):
        opening(steer, OWN, clip=True, colour=True)


def test_what_it_can_say_depends_on_the_model_and_on_what_is_at_hand() -> None:
    with pytest.raises(
        Mistake, match=r"It has controls for brightness=0\.4, .*clip \(with --clip\), functions of your own \(with --losses\): each"
    ):
        opening(["color=#1ae680"], (), clip=False, colour=False)
    with pytest.raises(Mistake, match="--steer clip=a rose:"):
        opening(["clip=a rose"], OWN, clip=False, colour=True)


def test_of_a_recipe_the_rest_is_left_out() -> None:
    values, left_out = as_controls([parse("hue=#ff0000"), parse("symmetry:2")], OWN, clip=False, colour=True)
    assert values == {"by": ["symmetry"], "mirror": "left-right", "symmetry_strength": 2.0}
    assert [words.name for words in left_out] == ["hue"]


def recipe(**changed: Any) -> PictureRecipe:
    pictures = [{"label": label, "seed": seed} for label in ("3", "7") for seed in (5, 6)]
    plain: dict[str, Any] = {
        "version": "0", "model": "/home/me/runs/d", "shows": "grid", "solver": "ddim", "steps": 9, "spacing": None, "guidance_scale": 2.0,
        "guidance_interval": (0.0, 1.0), "steer": ("symmetry",), "precision": "fp32", "invert": False, "columns": 2, "pictures": pictures,
    }  # fmt: skip
    return PictureRecipe(**{**plain, **changed})


def test_a_recipe_sets_the_page() -> None:
    values, left_out = from_recipe(recipe(), "runs/d", DIGITS, LIMITS, OWN, clip=False)
    assert left_out == []
    assert values == {
        "labels": ["3", "7"], "each": 2, "seed": 5, "solver": "ddim", "steps": 9, "guidance": 2.0,
        "by": ["symmetry"], "mirror": "left-right", "symmetry_strength": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"model": "runs/another"}, "model"),
        ({"solver": "DDIMScheduler"}, "solver"),
        ({"steps": 51}, "steps"),
        ({"spacing": "karras"}, "spacing"),
        ({"guidance_interval": (0.2, 0.9)}, "guidance-interval"),
        ({"guidance_rescale": 0.7}, "guidance-rescale"),
        ({"dynamic_threshold": 0.995}, "dynamic-threshold"),
        ({"autoguidance": ("runs/worse", 2.0)}, "autoguidance"),
        ({"precision": "bf16"}, "precision"),
        ({"sweep": "steps=2,4"}, "sweep"),
        ({"pictures": [{"label": "3", "seed": seed} for seed in (1, 5)]}, "seeds"),
        ({"pictures": [{"label": "3", "seed": seed} for seed in range(64)]}, "seeds"),  # more than a job may have here
        ({"steer": ("hue=#ff0000",)}, "hue"),
    ],
)
def test_what_a_recipe_holds_beside_that_is_named(changed: dict[str, Any], name: str) -> None:
    values, left_out = from_recipe(recipe(**changed), "runs/d", DIGITS, LIMITS, OWN, clip=False)
    assert left_out == [name]
    asked(values, DIGITS, Steers(), LIMITS)  # and the page can draw what it was set to
