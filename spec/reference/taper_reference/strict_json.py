"""JSON (RFC 8259) with one reading: no duplicate names, no lone surrogates, no NUL, numbers as their source text."""

import re
from dataclasses import dataclass
from typing import NoReturn

from .datalog import Value

_MAX_SAFE = 2**53 - 1
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_HEX = re.compile(r"[0-9A-Fa-f]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True)
class Number:
    """A number as it is written."""

    text: str

    def integer(self) -> int | None:
        """The number if it is an integer within ±(2^53 − 1), other than `-0`, without fraction or exponent."""
        if self.text == "-0" or not re.match(r"-?[0-9]+\Z", self.text) or len(self.text) > 17:
            return None
        value = int(self.text)
        return value if abs(value) <= _MAX_SAFE else None


Json = dict[str, "Json"] | list["Json"] | str | Number | bool | None


@dataclass(frozen=True)
class Limits:
    """How much a text may hold: containers within each other, values in all, elements of an array."""

    levels: int
    values: int
    elements: int


# the length of a proof bounds the rest.
ARGUMENTS = Limits(levels=16, values=2_048, elements=256)
PROOF = Limits(levels=16, values=4_096, elements=4_096)


class NotStrict(Exception):
    """The text is no JSON, or has a second reading."""


def parse(text: str, limits: Limits) -> Json:
    """The value of a text that is exactly one JSON value."""
    parser = _Parser(text, limits)
    value = parser.value(0)
    parser.space()
    if parser.at != len(text):
        parser.fail("something follows")
    return value


def to_term(value: Json) -> Value:
    """`vocabulary.md`, "Arguments as one map"."""
    match value:
        case None:
            return "null", None
        case bool():
            return "bool", value
        case str():
            return "string", value
        case Number(text):
            integer = value.integer()
            return ("integer", integer) if integer is not None else ("bytes", text.encode())
        case list():
            return "array", tuple(to_term(element) for element in value)
        case dict():
            return "map", frozenset((("string", name), to_term(member)) for name, member in value.items())


class _Parser:
    def __init__(self, text: str, limits: Limits) -> None:
        self.text = text
        self.limits = limits
        self.at = 0
        self.values = 0

    def fail(self, why: str) -> NoReturn:
        raise NotStrict(f"{why} at {self.at}")

    def space(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def next(self) -> str:
        """The next character after white space, empty at the end."""
        self.space()
        return self.text[self.at : self.at + 1]

    def accept(self, character: str) -> bool:
        if self.next() != character:
            return False
        self.at += 1
        return True

    def expect(self, character: str) -> None:
        if not self.accept(character):
            self.fail(f"no {character}")

    def value(self, level: int) -> Json:
        self.values += 1
        if self.values > self.limits.values:
            self.fail("too many values")
        match self.next():
            case "{":
                return self.object(level + 1)
            case "[":
                return self.array(level + 1)
            case '"':
                return self.string()
        for literal, meaning in (("true", True), ("false", False), ("null", None)):
            if self.text.startswith(literal, self.at):
                self.at += len(literal)
                return meaning
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            self.fail("no value")
        self.at = match.end()
        return Number(match[0])

    def enter(self, level: int) -> None:
        if level > self.limits.levels:
            self.fail("too deep")
        self.at += 1

    def object(self, level: int) -> Json:
        self.enter(level)
        members: dict[str, Json] = {}
        if self.accept("}"):
            return members
        while True:
            if self.next() != '"':
                self.fail("no name")
            name = self.string()
            if name in members:
                self.fail("a name twice")
            self.expect(":")
            members[name] = self.value(level)
            if self.accept("}"):
                return members
            self.expect(",")

    def array(self, level: int) -> Json:
        self.enter(level)
        elements: list[Json] = []
        if self.accept("]"):
            return elements
        while True:
            if len(elements) == self.limits.elements:
                self.fail("too many elements")
            elements.append(self.value(level))
            if self.accept("]"):
                return elements
            self.expect(",")

    def string(self) -> str:
        self.at += 1
        parts: list[str] = []
        while True:
            match = _PLAIN.match(self.text, self.at)
            assert match is not None
            parts.append(match[0])
            self.at = match.end()
            end = self.text[self.at : self.at + 1]
            self.at += 1
            if end == '"':
                break
            if end != "\\":
                self.fail("a string without end or with a control character")
            parts.append(self.escape())
        text = "".join(parts)
        if any("\ud800" <= character <= "\udfff" for character in text):
            self.fail("a lone surrogate")
        if "\0" in text:
            self.fail("U+0000")
        return text

    def escape(self) -> str:
        character = self.text[self.at : self.at + 1]
        self.at += 1
        if character in _ESCAPES:
            return _ESCAPES[character]
        if character != "u":
            self.fail("an unknown escape")
        unit = self.code_unit()
        if 0xD800 <= unit < 0xDC00 and self.text.startswith("\\u", self.at):
            self.at += 2
            low = self.code_unit()
            if not 0xDC00 <= low < 0xE000:
                self.fail("a lone surrogate")
            return chr(0x10000 + (unit - 0xD800 << 10) + (low - 0xDC00))
        return chr(unit)

    def code_unit(self) -> int:
        match = _HEX.match(self.text, self.at)
        if match is None:
            self.fail("no four hexadecimal digits")
        self.at = match.end()
        return int(match[0], 16)
