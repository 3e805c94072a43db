"""The pattern dialect of `full_match`: a parser for its grammar and a matcher without backtracking."""

from dataclasses import dataclass

_PATTERN_MAX, _VALUE_MAX, _SIZE_MAX, _DEPTH_MAX, _COUNT_MAX = 256, 1_024, 256, 8, 64
_SPECIAL = "\\.*+?{}[]()|^$"
_ESCAPABLE = _SPECIAL + "-&~"
_NO_MEMBER = "[]\\^-&~"

Ranges = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Set:
    """One character within the ranges, or outside of them."""

    ranges: Ranges
    negated: bool
    literal: bool = False

    def size(self) -> int:
        """1 within ASCII, else 4 for each item and once more."""
        if self.literal or not (self.negated or any(high > "\x7f" for _, high in self.ranges)):
            return 1
        return 4 * (len(self.ranges) + 1)

    def has(self, character: str) -> bool:
        return any(low <= character <= high for low, high in self.ranges) != self.negated


@dataclass(frozen=True)
class _Sequence:
    parts: tuple["_Node", ...]


@dataclass(frozen=True)
class _Choice:
    branches: tuple["_Node", ...]


@dataclass(frozen=True)
class _Repeat:
    """`most` is None without an upper bound; `counted` when braces say so."""

    node: "_Node"
    least: int
    most: int | None
    counted: bool


_Node = _Set | _Sequence | _Choice | _Repeat


class _Invalid(Exception):
    """The text is no pattern of the dialect."""


class Pattern:
    """A pattern as a nondeterministic automaton; every value takes one pass over it."""

    def __init__(self, node: _Node) -> None:
        # A state is a set with the state after it, or the states that it stands for.
        self._states: list[tuple[_Set, int] | list[int]] = [[]]
        self._start = self._add(node, 0)

    def matches(self, text: str) -> bool:
        """Whether the whole text, of at most 1,024 bytes, matches."""
        if len(text.encode()) > _VALUE_MAX:
            return False
        current = self._closure({self._start})
        for character in text:
            after = set()
            for state in current:
                step = self._states[state]
                if isinstance(step, tuple) and step[0].has(character):
                    after.add(step[1])
            current = self._closure(after)
        return 0 in current

    def _closure(self, states: set[int]) -> set[int]:
        seen, waiting = set(states), list(states)
        while waiting:
            step = self._states[waiting.pop()]
            if isinstance(step, list):
                for state in step:
                    if state not in seen:
                        seen.add(state)
                        waiting.append(state)
        return seen

    def _add(self, node: _Node, after: int) -> int:
        """Adds the states of the node before `after` and returns where they begin."""
        match node:
            case _Set():
                return self._push((node, after))
            case _Sequence(parts):
                for part in reversed(parts):
                    after = self._add(part, after)
                return after
            case _Choice(branches):
                return self._push([self._add(branch, after) for branch in branches])
            case _Repeat(inner, least, most, _):
                if _size(inner) == 0:
                    # It matches the empty text alone, and nested counts of it would multiply for nothing.
                    return after
                if most is None:
                    loop = self._push([after])
                    begin = self._add(inner, loop)
                    self._states[loop] = [begin, after]
                    after = loop
                else:
                    end = after
                    for _ in range(most - least):
                        after = self._push([self._add(inner, after), end])
                for _ in range(least):
                    after = self._add(inner, after)
                return after

    def _push(self, step: tuple[_Set, int] | list[int]) -> int:
        self._states.append(step)
        return len(self._states) - 1


def parse_pattern(text: str) -> Pattern | None:
    """The pattern, None when the text is none of the dialect."""
    if not 1 <= len(text.encode()) <= _PATTERN_MAX:
        return None
    parser = _Parser(text)
    try:
        node = parser.alternatives(0)
        if parser.peek() is not None or _size(node) > _SIZE_MAX:
            return None
    except _Invalid:
        return None
    return Pattern(node)


def _size(node: _Node) -> int:
    match node:
        case _Set():
            return node.size()
        case _Sequence(parts) | _Choice(parts):
            return sum(_size(part) for part in parts)
        case _Repeat(inner, least, most, counted):
            if not counted:
                return _size(inner)
            return _size(inner) * (least + 1 if most is None else most)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str | None:
        return self.text[self.at] if self.at < len(self.text) else None

    def take(self) -> str:
        character = self.peek()
        if character is None or character < " " or "\x7f" <= character <= "\x9f":
            raise _Invalid
        self.at += 1
        return character

    def accept(self, character: str) -> bool:
        if self.peek() != character:
            return False
        self.at += 1
        return True

    def expect(self, character: str) -> None:
        if not self.accept(character):
            raise _Invalid

    def alternatives(self, depth: int) -> _Node:
        branches = [self.branch(depth)]
        while self.accept("|"):
            branches.append(self.branch(depth))
        return branches[0] if len(branches) == 1 else _Choice(tuple(branches))

    def branch(self, depth: int) -> _Node:
        parts = [self.repeat(depth)]
        while self.peek() not in (None, "|", ")"):
            parts.append(self.repeat(depth))
        return _Sequence(tuple(parts))

    def repeat(self, depth: int) -> _Node:
        atom = self.atom(depth)
        if self.accept("*"):
            return _Repeat(atom, 0, None, False)
        if self.accept("+"):
            return _Repeat(atom, 1, None, False)
        if self.accept("?"):
            return _Repeat(atom, 0, 1, False)
        if not self.accept("{"):
            return atom
        least = self.number()
        most: int | None = least
        if self.accept(","):
            most = None if self.peek() == "}" else self.number()
        self.expect("}")
        if most is not None and least > most:
            raise _Invalid
        return _Repeat(atom, least, most, True)

    def number(self) -> int:
        digits = ""
        while (character := self.peek()) is not None and character in "0123456789":
            digits += character
            self.at += 1
        if not digits or len(digits) > 2 or (len(digits) == 2 and digits[0] == "0") or int(digits) > _COUNT_MAX:
            raise _Invalid
        return int(digits)

    def atom(self, depth: int) -> _Node:
        character = self.take()
        if character == ".":
            return _Set((("\n", "\n"),), True)
        if character == "[":
            return self.character_class()
        if character == "(":
            if depth == _DEPTH_MAX:
                raise _Invalid
            inner = self.alternatives(depth + 1)
            self.expect(")")
            return inner
        if character == "\\":
            character = self.escaped()
        elif character in _SPECIAL:
            raise _Invalid
        return _Set(((character, character),), False, literal=True)

    def character_class(self) -> _Node:
        negated = self.accept("^")
        ranges = [self.item()]
        while not self.accept("]"):
            ranges.append(self.item())
        return _Set(tuple(ranges), negated)

    def item(self) -> tuple[str, str]:
        low = self.member()
        high = self.member() if self.accept("-") else low
        if low > high:
            raise _Invalid
        return low, high

    def member(self) -> str:
        character = self.take()
        if character == "\\":
            return self.escaped()
        if character in _NO_MEMBER:
            raise _Invalid
        return character

    def escaped(self) -> str:
        character = self.take()
        if character not in _ESCAPABLE:
            raise _Invalid
        return character
