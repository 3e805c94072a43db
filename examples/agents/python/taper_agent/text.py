"""Text of others: JSON that may be none, and characters that a terminal must not get."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

# Letters and marks that show nothing, or choose how what stands before them is shown.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


def parse_json(text: str | bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """The value; a `ValueError` when it is no JSON, or nested more deeply than Python's reader goes."""
    try:
        return json.loads(text, parse_constant=parse_constant)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def printable(text: str) -> str:
    """`text` for a terminal, which must not take commands from it, nor show it as another text.

    Lines and tabs stay. What is not plainly visible is written `\\u{..}`: control and format characters,
    line and paragraph separators, spaces but the plain one, surrogates, private and unassigned
    characters. A backslash is doubled.
    """
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character == "\\":
        return "\\\\"
    visible = unicodedata.category(character)[0] in "LMNPS" and _BLANK.match(character) is None
    return character if visible or character in "\n\t " else f"\\u{{{ord(character):x}}}"
