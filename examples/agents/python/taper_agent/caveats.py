"""Caveats: restrictions that a holder adds, one Datalog check each, spelled as in spec/caveats.md.

Values are parameters of the check (`{tools}` below). They are never formatted into its source, so no
value can change what the check says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

from biscuit_auth import Check

from .errors import Failure

# Integers that every JSON reader keeps exactly: those within ±(2^53 - 1).
MAX_INTEGER = 2**53 - 1

Value = bool | int | str
T = TypeVar("T")


def tool(server: str, tools: list[str]) -> Check:
    """Only these tools of one server."""
    _name(r"[a-z0-9-]{1,64}", server)
    for name in tools:
        _name(r"[A-Za-z0-9_./-]{1,128}", name)
    source = "check if server({server}), tool($tool), {tools}.contains($tool)"
    return Check(source, {"server": server, "tools": _set(tools)})


def server(servers: list[str]) -> Check:
    """Only these servers."""
    for name in servers:
        _name(r"[a-z0-9-]{1,64}", name)
    return Check("check if server($server), {servers}.contains($server)", {"servers": _set(servers)})


def resource_one_of(kind: str, values: list[str]) -> Check:
    """Every resource of this kind that the call names is one of these, and there is one."""
    _name(r"[a-z0-9_-]{1,64}", kind)
    source = "check all resource({kind}, $value), {values}.contains($value)"
    return Check(source, {"kind": kind, "values": _set([_text(v) for v in values])})


def resource_below(kind: str, prefix: str) -> Check:
    """Every resource of this kind that the call names starts so, and there is one."""
    _name(r"[a-z0-9_-]{1,64}", kind)
    if not prefix.endswith("/"):
        raise Failure("a resource prefix ends with `/`, so that it cannot match half a name")
    source = "check all resource({kind}, $value), $value.starts_with({prefix})"
    return Check(source, {"kind": kind, "prefix": _text(prefix)})


def argument_equals(pointer: str, value: Value) -> Check:
    """The argument at this RFC 6901 pointer is this value, of this type."""
    get, members = _argument(pointer)
    return Check(f"check if args($args), {get} === {{value}}", members | {"value": _value(value)})


def argument_one_of(pointer: str, values: Sequence[Value]) -> Check:
    """The argument is one of these values, which are of one type."""
    # Python thinks that True == 1, so a mixed list would lose members in the set.
    if len({type(value) for value in values}) > 1:
        raise Failure("the values of a list are of one type")
    get, members = _argument(pointer)
    wanted = _set([_value(value) for value in values])
    return Check(f"check if args($args), {{values}}.contains({get})", members | {"values": wanted})


def argument_range(pointer: str, least: int | None = None, most: int | None = None) -> Check:
    """The argument is an integer from `least` to `most`, both included; one may be left out."""
    if least is None and most is None or least is not None and most is not None and least > most:
        raise Failure("the range is empty")
    get, parameters = _argument(pointer)
    source = "check if args($args)"
    if least is not None:
        source += f", {get} >= {{least}}"
        parameters["least"] = _value(least)
    if most is not None:
        source += f", {get} <= {{most}}"
        parameters["most"] = _value(most)
    return Check(source, parameters)


def not_before(time: datetime) -> Check:
    """Not before this time, which has a time zone."""
    return Check("check if time($time), $time >= {at}", {"at": utc(time)})


def utc(time: datetime) -> datetime:
    """The same moment in UTC, the one time zone that the Biscuit library takes."""
    if time.utcoffset() is None:
        raise Failure("a time has a time zone")
    return time.astimezone(UTC)


def _argument(pointer: str) -> tuple[str, dict[str, object]]:
    """`$args.get({m0}).get({m1})` for a pointer of two members, and the members by parameter."""
    parts = pointer.split("/")[1:]
    if not pointer.startswith("/") or len(parts) > 8 or re.search(r"~(?![01])", pointer):
        raise Failure("an argument is named by an RFC 6901 pointer of 1 to 8 members, such as `/repo_path`")
    members = [part.replace("~1", "/").replace("~0", "~") for part in parts]
    for member in members:
        if not 1 <= len(member.encode()) <= 128:
            raise Failure("a member of a pointer has 1 to 128 bytes")
    names = [f"m{i}" for i in range(len(members))]
    get = "$args" + "".join(f".get({{{name}}})" for name in names)
    return get, dict(zip(names, members))


def _name(pattern: str, name: str) -> None:
    if re.fullmatch(pattern, name) is None:
        raise Failure(f"{name!r} is no name: {pattern}")


def _set(values: Sequence[T]) -> set[T]:
    if not 1 <= len(values) <= 64:
        raise Failure("a list has 1 to 64 values")
    return set(values)


def _text(value: str) -> str:
    if not 1 <= len(value.encode()) <= 1024:
        raise Failure("a string has 1 to 1,024 bytes")
    return value


def _value(value: Value) -> Value:
    match value:
        case str() if len(value.encode()) <= 1024:
            return value
        case bool():
            return value
        case int() if abs(value) <= MAX_INTEGER:
            return value
    raise Failure("a value is a boolean, an integer within ±(2^53 - 1), or a string of at most 1,024 bytes")
