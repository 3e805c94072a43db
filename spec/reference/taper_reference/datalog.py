"""A block's payload as Datalog: symbols resolved, and nothing that its version does not have (P-08).

A value is a pair of its type and its content: `("integer", 5)`, `("set", frozenset of values)`, `("map", frozenset of
(key, value) pairs)`. A `("variable", name)` stands where a value may stand in a check.
"""

from dataclasses import dataclass
from typing import Any

from .protobuf import Message
from .refusal import require

Value = tuple[str, Any]

# The default symbol table of the Biscuit specification, 0 to 27.
DEFAULT_SYMBOLS = (
    "read write resource operation right time role owner tenant namespace user team service admin email group member "
    "ip_address client client_ip domain path version cluster node hostname nonce query"
).split()
FIRST_OWN_SYMBOL = 1024

CHECK_KINDS = {0: "check if", 1: "check all", 2: "reject if"}
UNARY = {0: "!", 1: "parens", 2: "length", 3: "type", 4: "extern"}
BINARY = dict(
    enumerate(
        "< > <= >= === contains starts_with ends_with matches + - * / && || intersection union & | ^ !== == != "
        "lazy&& lazy|| all any get extern try_or".split()
    )
)
_NEEDS_6 = {"==", "!=", "type", "lazy&&", "lazy||", "all", "any", "extern", "try_or"}


@dataclass(frozen=True)
class Predicate:
    """`name(terms)`; a fact is one without variables."""

    name: str
    terms: tuple[Value, ...]


@dataclass(frozen=True)
class Op:
    """One operation of an expression: `value`, `unary`, `binary` or `closure`; `extern` is the function it calls."""

    what: str
    operator: str = ""
    value: Value | None = None
    extern: str | None = None


Expression = tuple[Op, ...]


@dataclass(frozen=True)
class Query:
    """One query of a check; `scoped` says that it has a `trusting`."""

    head: Predicate
    body: tuple[Predicate, ...]
    expressions: tuple[Expression, ...]
    scoped: bool


@dataclass(frozen=True)
class Check:
    """`kind` is `check if`, `check all` or `reject if`."""

    kind: str
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Block:
    """What a payload says."""

    version: int
    facts: tuple[Predicate, ...]
    checks: tuple[Check, ...]


def read_block(message: Message, lowest_version: int) -> Block:
    """P-07 and P-08: the Datalog of a payload, for which `lowest_version` to 6 are the versions."""
    require(not message["rules"] and not message["scope"] and not message["publicKeys"], "P-07")
    require("context" not in message, "P-07")
    version = message.get("version", 0)
    require(lowest_version <= version <= 6, "P-08")
    symbols = message["symbols"]
    require(not set(symbols).intersection(DEFAULT_SYMBOLS), "P-08")
    reader = _Reader(symbols)
    facts = tuple(reader.predicate(fact["predicate"]) for fact in message["facts"])
    checks = tuple(reader.check(check) for check in message["checks"])
    require(version >= reader.needs, "P-08")
    return Block(version, facts, checks)


class _Reader:
    """Resolves symbols and keeps the lowest version that has everything read so far."""

    def __init__(self, symbols: list[str]) -> None:
        self.symbols = symbols
        self.needs = 3

    def need(self, version: int) -> None:
        self.needs = max(self.needs, version)

    def symbol(self, index: int) -> str:
        if index < len(DEFAULT_SYMBOLS):
            return DEFAULT_SYMBOLS[index]
        own = index - FIRST_OWN_SYMBOL
        require(0 <= own < len(self.symbols), "P-08")
        return self.symbols[own]

    def predicate(self, message: Message) -> Predicate:
        return Predicate(self.symbol(message["name"]), tuple(self.term(term) for term in message["terms"]))

    def check(self, message: Message) -> Check:
        kind = message.get("kind", 0)
        require(kind in CHECK_KINDS, "P-08")
        if "kind" in message:
            self.need(6 if CHECK_KINDS[kind] == "reject if" else 4)
        return Check(CHECK_KINDS[kind], tuple(self.query(query) for query in message["queries"]))

    def query(self, message: Message) -> Query:
        for scope in message["scope"]:
            require(bool(scope), "P-08")
            require(scope.get("scopeType", 0) in (0, 1), "P-08")
        return Query(
            self.predicate(message["head"]),
            tuple(self.predicate(predicate) for predicate in message["body"]),
            tuple(self.operations(expression["ops"]) for expression in message["expressions"]),
            bool(message["scope"]),
        )

    def operations(self, messages: list[Message]) -> Expression:
        return tuple(self.operation(message) for message in messages)

    def operation(self, message: Message) -> Op:
        require(bool(message), "P-08")
        ((what, content),) = message.items()
        if what == "value":
            return Op("value", value=self.term(content))
        if what == "closure":
            self.need(6)
            for parameter in content["params"]:
                self.symbol(parameter)
            self.operations(content["ops"])
            return Op("closure")
        operators = UNARY if what == "unary" else BINARY
        require(content["kind"] in operators, "P-08")
        operator = operators[content["kind"]]
        if operator == "!==":
            self.need(4)
        if operator in _NEEDS_6:
            self.need(6)
        # Only a call of an extern function has a name, and it has one.
        require((operator == "extern") == ("ffiName" in content), "P-08")
        extern = self.symbol(content["ffiName"]) if operator == "extern" else None
        return Op(what, operator, extern=extern)

    def term(self, message: Message) -> Value:
        require(bool(message), "P-08")
        ((kind, content),) = message.items()
        if kind in ("variable", "string"):
            return kind, self.symbol(content)
        if kind == "set":
            members = [self.term(member) for member in content["set"]]
            require(len({member[0] for member in members} - {"variable"}) <= 1, "P-08")
            require(all(member[0] != "set" for member in members), "P-08")
            return "set", frozenset(members)
        if kind == "array":
            return "array", tuple(self.term(element) for element in content["array"])
        if kind == "map":
            return "map", frozenset(
                (self.map_key(entry["key"]), self.term(entry["value"])) for entry in content["entries"]
            )
        if kind == "null":
            self.need(6)
            return "null", None
        return kind, content

    def map_key(self, message: Message) -> Value:
        require(bool(message), "P-08")
        ((kind, content),) = message.items()
        return (kind, self.symbol(content)) if kind == "string" else (kind, content)
