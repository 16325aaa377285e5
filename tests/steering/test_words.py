"""A steer in words: what is read, that what is written is read as the same, and what is told about words that are none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diffsteer.errors import Mistake
from diffsteer.steering.words import Words, from_mapping, parse

NAMES = st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True)
FILES = st.from_regex(r"[a-z=, ]{0,5}/m\.py:[a-z_]{1,5}", fullmatch=True)
VALUES = st.text('ab"=:,.| \n1é', max_size=10) | st.text(max_size=10)
STRENGTHS = st.none() | st.floats(allow_nan=False, allow_infinity=False)


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("color=#1ae680", Words("color", "#1ae680")),
        ("symmetry", Words("symmetry")),
        ("color=", Words("color", "")),
        ("  color = turquoise , way = exact : 2 ", Words("color", "turquoise", {"way": "exact"}, 2.0)),
        ("color=#1ae680,way=shortcut,window=0.2-1.0:0.25", Words("color", "#1ae680", {"way": "shortcut", "window": "0.2-1.0"}, 0.25)),
        ('color="0.1,0.9,0.5":-1', Words("color", "0.1,0.9,0.5", {}, -1.0)),
        ("clip=a=b", Words("clip", "a=b")),
        ('clip="say ""hello"", twice"', Words("clip", 'say "hello", twice')),
    ],
)
def test_words_are_read(text: str, words: Words) -> None:
    assert parse(text) == words


@pytest.mark.parametrize(
    ("text", "value", "strength"),
    [
        ("color=red:2", "red", 2.0),
        ("color=red:1e-3", "red", 1e-3),
        ("color=red:-0.5", "red", -0.5),
        ("clip=a red rose::2", "a red rose::2", None),
        ("clip=a red rose::2:8", "a red rose::2", 8.0),
        ("clip=a rose|blurry::-1", "a rose|blurry::-1", None),
        ("clip=time: now", "time: now", None),
        ("clip=10:30 sharp", "10:30 sharp", None),
        ('clip="gpt:3"', "gpt:3", None),
        ('clip="gpt:3":4', "gpt:3", 4.0),
        ("clip=photo.jpg:", "photo.jpg:", None),
    ],
)
def test_a_strength_is_a_number_after_the_last_single_colon(text: str, value: str, strength: float | None) -> None:
    assert (parse(text).value, parse(text).strength) == (value, strength)


def test_a_file_and_function_is_a_name_and_is_code() -> None:
    words = parse("my_losses.py:redness:0.5")
    assert words == Words("my_losses.py:redness", None, {}, 0.5) and words.code
    assert parse("folder with blanks/my.py:f,range=signed").options == {"range": "signed"}
    assert parse('"runs/lr=0.1, again/my.py:f":2') == Words("runs/lr=0.1, again/my.py:f", None, {}, 2.0)
    assert not any(parse(text).code for text in ("color=my_losses.py:redness", "my_losses.py", "my_losses.py:1st", "my_losses.pyc:f"))


# ---- writing ---------------------------------------------------------------------------------------------------------


@given(NAMES | FILES, st.none() | VALUES, st.dictionaries(NAMES, VALUES, max_size=2), STRENGTHS)
@example("clip", 'a "red" rose', {}, None)
@example("clip", '5" disk', {}, 2.0)
@example("clip-seed", "gpt:3", {}, None)
@example("clip", "a:", {}, 3.0)
@example("color", "red", {}, 1 / 3)
@example("clip", " a\n", {"model": "x,y=z"}, None)
def test_what_is_written_is_read_as_the_same(name: str, value: str | None, options: dict[str, str], strength: float | None) -> None:
    words = Words(name.strip(), value, options, strength)
    assert parse(str(words)) == words


@given(st.text('ab"=:,. 1', max_size=14))
@example('1,"="=')
def test_whatever_is_read_is_written_as_the_same(text: str) -> None:
    try:
        words = parse(text)
    except Mistake:
        return
    assert parse(str(words)) == words


@pytest.mark.parametrize("text", ["color=#1ae680:2", 'color="0.1,0.9,0.5",way=exact:0.5', "clip=a red rose::2", "my.py:f:1e-05", "hue=red"])
def test_words_without_need_of_quotes_stay_as_they_were_typed(text: str) -> None:
    assert str(parse(text)) == text


# ---- mappings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ({"color": "#1ae680", "strength": 2}, "color=#1ae680:2"),
        ({"color": (0.1, 0.9, 0.5), "way": "exact"}, 'color="0.1,0.9,0.5",way=exact'),
        (
            {"brightness": 0.4, "window": (0.2, 1.0), "checkpoint": True, "copies": 4},
            "brightness=0.4,window=0.2-1.0,checkpoint=on,copies=4",
        ),
        ({"brightness": 0.4, "strength": 0.5, "window": [0, 0.5], "checkpoint": False}, "brightness=0.4,window=0-0.5,checkpoint=off:0.5"),
        ({"symmetry": None, "strength": None}, "symmetry"),
        ({"my_losses.py:redness": None, "strength": 0.5}, "my_losses.py:redness:0.5"),
        ({"clip": "gpt:3"}, 'clip="gpt:3"'),
    ],
)
def test_a_mapping_says_the_same_as_words(mapping: dict[str, Any], text: str) -> None:
    assert from_mapping(mapping) == parse(text)


# ---- what is told ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "--steer '' names no loss; write it as color=#1ae680,"),
        ("=red", "--steer '=red' names no loss"),
        (":2", "--steer ':2' names no loss"),
        ('color="red', "--steer 'color=\"red' opens a quote that it does not close."),
        ("color=0.1,0.9,0.5:2", "'0.9' is no option=value. A value with commas is quoted: color=\"0.1,0.9,0.5\"."),
        ("color=red,", "'' is no option=value"),
        ("color=red,way=exact,way=shortcut", "gives way twice"),
        ("color=red:nan", "the strength after the colon should be a finite number"),
        ("color=red:-inf", "the strength after the colon should be a finite number"),
        ("color=red:1e999", "the strength after the colon should be a finite number"),
    ],
)
def test_words_that_are_none_are_told(text: str, said: str) -> None:
    with pytest.raises(Mistake) as told:
        parse(text)
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({}, 'A steer names its loss first, for example {"color": "#1ae680", "strength": 2}.'),
        ({"color": "red", "strength": "2"}, "The strength of color is a number; '2' was given."),
        ({"color": "red", "strength": True}, "The strength of color is a number; True was given."),
        ({"color": "red", "strength": float("inf")}, "The strength of color is a number; inf was given."),
    ],
)
def test_mappings_that_are_none_are_told(mapping: dict[str, Any], said: str) -> None:
    with pytest.raises(Mistake) as told:
        from_mapping(mapping)
    assert str(told.value) == said
