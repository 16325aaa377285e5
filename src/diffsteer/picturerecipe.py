"""What a PNG says about how it was drawn, as JSON in its metadata: written and read. `order.py` draws from it again."""

from __future__ import annotations

import json
from pathlib import Path

from diffsteer import __version__
from diffsteer.config import PictureRecipe, validated
from diffsteer.data import pixels
from diffsteer.errors import Mistake

KEY = "diffsteer"  # the PNG's text key


def recipe_text(recipe: PictureRecipe) -> dict[str, str]:
    """The text to write into a PNG."""
    return {KEY: json.dumps(recipe.model_dump(mode="json"), ensure_ascii=False)}


def read_recipe(path: Path) -> PictureRecipe:
    """The recipe in a PNG. Raises Mistake."""
    text = pixels.read_png_text(path).get(KEY)
    if text is None:
        raise Mistake(f"{path} holds no recipe: it was not made by diffsteer sample, or was saved again by a program that drops it.")
    try:
        values = json.loads(text)
        recipe: PictureRecipe = validated(PictureRecipe, values, "the recipe")
    except (ValueError, TypeError, AttributeError) as error:
        why = str(error) if isinstance(error, Mistake) else "It is no list of settings."
        raise Mistake(f"The recipe in {path} cannot be read by diffsteer {__version__}. {why}") from None
    return recipe
