"""A steer in words: `name=value[,option=value...][:strength]`, or the same keys as a mapping (YAML, Python). Read here, understood in
`losses.py`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffsteer.errors import Mistake

USER_FILE = re.compile(r".+\.py:[A-Za-z_]\w*")
EXAMPLE = 'write it as color=#1ae680, color=#1ae680,way=shortcut:2 or "clip=red rose:8"'


@dataclass(frozen=True)
class Words:
    """A steer as it was asked for. name: of a loss, or `file.py:function`. value, strength: None where not given."""

    name: str
    value: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    strength: float | None = None

    @property
    def code(self) -> bool:
        """Whether it names a file of the user's, which is code."""
        return USER_FILE.fullmatch(self.name) is not None

    def __str__(self) -> str:
        """The words that are read as this steer."""
        name = _quoted(self.name, and_at="=")
        pieces = [name if self.value is None else f"{name}={_quoted(self.value)}"]
        pieces += [f"{_quoted(key, and_at='=')}={_quoted(value)}" for key, value in self.options.items()]
        return ",".join(pieces) + ("" if self.strength is None else f":{_shortly(self.strength)}")


def parse(text: str) -> Words:
    """The words of one `--steer`. Mistake where they are none."""
    rest, strength = _without_strength(text.strip())
    first, *others = _split(rest, text)
    name, value = first if len(first) == 2 else (first[0], None)
    if not name:
        raise Mistake(f"--steer {text!r} names no loss; {EXAMPLE}.")
    options: dict[str, str] = {}
    for piece in others:
        if len(piece) == 1:
            raise Mistake(f'--steer {text!r}: {piece[0]!r} is no option=value. A value with commas is quoted: color="0.1,0.9,0.5".')
        if piece[0] in options:
            raise Mistake(f"--steer {text!r} gives {piece[0]} twice.")
        options[piece[0]] = str(piece[1])
    return Words(name, value, options, strength)


def from_mapping(mapping: Mapping[str, Any]) -> Words:
    """The words of `{"color": "#1ae680", "way": "shortcut", "strength": 2}`: the loss comes first, its value may be None."""
    items = list(mapping.items())
    if not items:
        raise Mistake('A steer names its loss first, for example {"color": "#1ae680", "strength": 2}.')
    (name, value), *others = items
    options = {str(key): _as_text(option) for key, option in others if key != "strength"}
    strength = mapping.get("strength")
    if strength is not None and (isinstance(strength, bool) or not isinstance(strength, int | float) or not math.isfinite(strength)):
        raise Mistake(f"The strength of {name} is a number; {strength!r} was given.")
    return Words(str(name), None if value is None else _as_text(value), options, None if strength is None else float(strength))


def _without_strength(text: str) -> tuple[str, float | None]:
    """The text before its strength, and the strength if the text after the last colon reads as a number."""
    head, colon, tail = text.rpartition(":")
    if not colon or head.count('"') % 2 or head.endswith(":"):  # a prompt's weight stands after two colons
        return text, None
    try:
        strength = float(tail)
    except ValueError:
        return text, None
    if not math.isfinite(strength):
        raise Mistake(f"--steer {text!r}: the strength after the colon should be a finite number.")
    return head, strength


def _split(text: str, whole: str) -> list[list[str]]:
    """`a=b,c="d,e"` -> [[a, b], [c, "d,e"]]: at commas and first equal signs outside of quotes, the quotes taken off."""
    if text.count('"') % 2:
        raise Mistake(f"--steer {whole!r} opens a quote that it does not close.")
    pieces = re.findall(r'((?:[^",]|"[^"]*")*)(?:,|$)', text)
    pieces = pieces[:-1] if len(pieces) > 1 and pieces[-1] == "" and not text.endswith(",") else pieces
    return [[_unquoted(part.strip()) for part in _at_equal_sign(piece)] for piece in pieces]


def _at_equal_sign(piece: str) -> list[str]:
    found = re.fullmatch(r'((?:[^"=]|"[^"]*")*)=(.*)', piece, re.DOTALL)
    return [piece] if found is None else list(found.groups())


def _unquoted(text: str) -> str:
    """The text without its quotes; inside them two stand for one."""
    return re.sub(r'"((?:[^"]|"")*)"', lambda found: found[1].replace('""', '"'), text)


def _quoted(text: str, and_at: str = "") -> str:
    """The text, in quotes where it would be read otherwise without: at commas, quotes, blanks round it, and ends such as the 3 of gpt:3."""
    as_it_is = text == text.strip() and not _like_a_strength(text) and not any(sign in text for sign in f',"{and_at}')
    return text if as_it_is else '"' + text.replace('"', '""') + '"'


def _like_a_strength(text: str) -> bool:
    """Whether the text ends in a colon and a number, or would with a strength behind it."""
    head, colon, tail = text.rpartition(":")
    if not colon or head.endswith(":"):
        return text.endswith(":")
    try:
        float(tail or "0")
    except ValueError:
        return False
    return True


def _shortly(number: float) -> str:
    """As few digits as say the same number."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)


def _as_text(value: Any) -> str:
    """A value of YAML or Python as the command line would have it: (0.2, 1.0) becomes 0.2-1.0, True becomes on."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ("-" if len(value) == 2 else ",").join(map(str, value))
    return str(value)
