"""The page's words: all there in both languages, with the same blanks."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

from diffsteer.app import words
from diffsteer.app.words import WORDS, Said, say

APP = Path(words.__file__).parent


def blanks(text: str) -> list[str]:
    return sorted(str(name) for _, name, _, _ in string.Formatter().parse(text) if name is not None)


@pytest.mark.parametrize("key", WORDS)
def test_both_languages_have_the_same_blanks(key: str) -> None:
    english, chinese = WORDS[key]
    assert english.strip() and chinese.strip()
    assert blanks(english) == blanks(chinese)


def test_chinese_is_written_as_chinese_is() -> None:
    for key, (_, chinese) in WORDS.items():
        if re.search(r"[\u4e00-\u9fff]", chinese):
            assert not re.search(r"[\u4e00-\u9fff] ?[,;:!?](?!\w)", chinese), f"{key}: half-width punctuation after Chinese"
            assert not re.search(r"[\u4e00-\u9fff]\.(\s|$)", chinese), key


def test_every_key_is_used_and_every_used_key_is_there() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in APP.glob("*.py") if path.name != "words.py")
    used = set(re.findall(r'"((?:page|draw|result|steer|sweep|example|state|train|runs|long|wrong|upload)\.[a-z_-]+)"', source))
    families = set(re.findall(r'f["\']?((?:draw|result|steer|sweep|train|runs)\.(?:preset_|budget_|set_|state_|column_)?)\{', source))
    assert used <= set(WORDS)
    assert not [key for key in WORDS if key not in used and not any(key.startswith(family) for family in families)]


def test_what_is_said_is_said_in_the_persons_language() -> None:
    said = Said("wrong.number", what="draw.seed")
    assert str(said) == "First seed: a number is needed."
    assert said.told(say("zh")) == "起始随机种子：需要一个数字。"
