"""Block 0 (P-05, P-06, P-10 to P-12, P-22) and later blocks (P-10, P-12, D-03, D-04, D-06): what they say."""

import re
from dataclasses import dataclass
from typing import Any

from .datalog import Block, Check, Predicate
from .keys import Key
from .refusal import require
from .text import decode_base64url

_MANY = 1 << 32
_STRING, _PAIR = ("string",), ("string", "string")

# Each fact of block 0: the types of its terms, how often it stands there at least and at most (P-05, P-22).
_AUTHORITY_FACTS: dict[str, tuple[tuple[str, ...], int, int]] = {
    "taper": (("integer",), 1, 1),
    "issuer": (_STRING, 1, 1),
    "grant": (_STRING, 1, 1),
    "subject": (_PAIR, 1, 1),
    "client": (_STRING, 1, 1),
    "actor": (_PAIR, 0, 1),
    "holder": (("string", "bytes"), 1, 1),
    "for_audience": (_STRING, 1, _MANY),
    "right": (_PAIR, 0, _MANY),
    "right_any_tool": (_STRING, 0, _MANY),
    "right_resource": (_PAIR, 0, _MANY),
    "right_prompt": (_PAIR, 0, _MANY),
    "claim": (_PAIR, 0, _MANY),
    "issued_at": (("date",), 1, 1),
    "max_depth": (("integer",), 1, 1),
}
# Each fact of a later block, the types of its terms (D-04).
_LATER_FACTS: dict[str, tuple[str, ...]] = {
    "holder": ("string", "bytes"),
    "note": _STRING,
    "max_depth": ("integer",),
}
_MAX_NOTE = 1_024
_SERVER = re.compile(r"[a-z0-9-]{1,64}\Z")
_NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}\Z")


@dataclass(frozen=True)
class Link:
    """What every block says: the holder it names, until when, how deep, and under which other checks."""

    holder: Key
    expiry: int
    max_depth: int | None
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Authority:
    """What block 0 says; `facts` are all of its facts."""

    link: Link
    issuer: str
    facts: tuple[Predicate, ...]

    def values(self, name: str) -> list[tuple[str, ...]]:
        """The contents of each fact of that name."""
        return [tuple(content for _, content in fact.terms) for fact in self.facts if fact.name == name]


def read_authority(block: Block) -> Authority:
    """Block 0."""
    for fact in block.facts:
        require(fact.name in _AUTHORITY_FACTS, "P-05")
        require(_types(fact) == _AUTHORITY_FACTS[fact.name][0], "P-05")
    for name, (_, least, most) in _AUTHORITY_FACTS.items():
        require(least <= sum(fact.name == name for fact in block.facts) <= most, "P-22")
    authority = Authority(_link(block), _only(block, "issuer"), block.facts)
    require(_only(block, "taper") == 1, "P-06")
    require(0 <= _only(block, "max_depth") < 1 << 32, "P-05")
    grant = decode_base64url(_only(block, "grant"))
    require(grant is not None and len(grant) == 16, "P-05")
    for server, *_ in _rights(authority):
        require(_SERVER.match(server) is not None, "P-11")
    for _, name in authority.values("right") + authority.values("right_prompt"):
        require(_NAME.match(name) is not None, "P-11")
    for _, prefix in authority.values("right_resource"):
        require(1 <= len(prefix.encode()) <= 1_024, "P-11")
    return authority


def servers(authority: Authority) -> set[str]:
    """The servers for which block 0 has a right of any sort."""
    return {server for (server, *_) in _rights(authority)}


def read_later(block: Block) -> Link:
    """A block after block 0."""
    for fact in block.facts:
        require(fact.name in _LATER_FACTS, "D-04")
        require(_types(fact) == _LATER_FACTS[fact.name], "D-04")
    require(_count(block, "holder") == 1, "D-03")
    require(_count(block, "note") <= 1 and _count(block, "max_depth") <= 1, "D-06")
    for fact in block.facts:
        if fact.name == "note":
            require(len(fact.terms[0][1].encode()) <= _MAX_NOTE, "D-04")
        if fact.name == "max_depth":
            require(0 <= fact.terms[0][1] < 1 << 32, "D-04")
    return _link(block)


def _link(block: Block) -> Link:
    ((algorithm, key),) = [[content for _, content in fact.terms] for fact in block.facts if fact.name == "holder"]
    holder = Key(algorithm, key)
    require(holder.is_sound(), "P-12")
    expiries = [date for check in block.checks if (date := _expiry(check)) is not None]
    require(len(expiries) == 1, "P-10")
    others = tuple(check for check in block.checks if _expiry(check) is None)
    depth = _only(block, "max_depth") if _count(block, "max_depth") else None
    return Link(holder, expiries[0], depth, others)


def _expiry(check: Check) -> int | None:
    """P-10: the date of `check if time($t), $t < DATE`, None for any other shape."""
    if check.kind != "check if" or len(check.queries) != 1:
        return None
    query = check.queries[0]
    if query.head.terms or query.scoped or len(query.body) != 1 or len(query.expressions) != 1:
        return None
    word, operations = query.body[0], query.expressions[0]
    if word.name != "time" or len(word.terms) != 1 or word.terms[0][0] != "variable" or len(operations) != 3:
        return None
    left, right, operator = operations
    if left.value != word.terms[0] or right.value is None or operator.what != "binary" or operator.operator != "<":
        return None
    kind, date = right.value
    return date if kind == "date" and date < 1 << 63 else None


def _types(fact: Predicate) -> tuple[str, ...]:
    return tuple(kind for kind, _ in fact.terms)


def _count(block: Block, name: str) -> int:
    return sum(fact.name == name for fact in block.facts)


def _only(block: Block, name: str) -> Any:
    """The content of the single term of the single fact of that name."""
    return next(fact.terms[0][1] for fact in block.facts if fact.name == name)


def _rights(authority: Authority) -> list[tuple[str, ...]]:
    names = ("right", "right_any_tool", "right_resource", "right_prompt")
    return [fact for name in names for fact in authority.values(name)]
