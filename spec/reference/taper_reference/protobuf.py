"""Reads and writes the protobuf messages of Biscuit's `schema.proto`.

P-02: the reader refuses an unknown field, a field twice, two members of a `oneof`, a missing required field and a
packed list; `decode_exactly` then writes the message again, fields in the order of their numbers, varints as short as
they can be, and compares, so that no other spelling is left.
"""

from dataclasses import dataclass, field
from typing import Any

from .refusal import Refused, require

_VARINT, _LENGTH = 0, 2
# Protobuf's own readers stop at this depth of messages; the deepest block the profile admits needs far less.
_MAX_DEPTH = 100


@dataclass(frozen=True)
class Field:
    """A field of a message; `kind` is a scalar type of protobuf or the name of a message."""

    name: str
    kind: str
    label: str = "optional"


Message = dict[str, Any]

SCHEMA: dict[str, dict[int, Field]] = {
    "Biscuit": {
        1: Field("rootKeyId", "uint32"),
        2: Field("authority", "SignedBlock", "required"),
        3: Field("blocks", "SignedBlock", "repeated"),
        4: Field("proof", "Proof", "required"),
    },
    "SignedBlock": {
        1: Field("block", "bytes", "required"),
        2: Field("nextKey", "PublicKey", "required"),
        3: Field("signature", "bytes", "required"),
        4: Field("externalSignature", "ExternalSignature"),
        5: Field("version", "uint32"),
    },
    "ExternalSignature": {
        1: Field("signature", "bytes", "required"),
        2: Field("publicKey", "PublicKey", "required"),
    },
    "PublicKey": {1: Field("algorithm", "enum", "required"), 2: Field("key", "bytes", "required")},
    "Proof": {1: Field("nextSecret", "bytes", "oneof"), 2: Field("finalSignature", "bytes", "oneof")},
    "Block": {
        1: Field("symbols", "string", "repeated"),
        2: Field("context", "string"),
        3: Field("version", "uint32"),
        4: Field("facts", "Fact", "repeated"),
        5: Field("rules", "Rule", "repeated"),
        6: Field("checks", "Check", "repeated"),
        7: Field("scope", "Scope", "repeated"),
        8: Field("publicKeys", "PublicKey", "repeated"),
    },
    "Scope": {1: Field("scopeType", "enum", "oneof"), 2: Field("publicKey", "int64", "oneof")},
    "Fact": {1: Field("predicate", "Predicate", "required")},
    "Rule": {
        1: Field("head", "Predicate", "required"),
        2: Field("body", "Predicate", "repeated"),
        3: Field("expressions", "Expression", "repeated"),
        4: Field("scope", "Scope", "repeated"),
    },
    "Check": {1: Field("queries", "Rule", "repeated"), 2: Field("kind", "enum")},
    "Predicate": {1: Field("name", "uint64", "required"), 2: Field("terms", "Term", "repeated")},
    "Term": {
        1: Field("variable", "uint32", "oneof"),
        2: Field("integer", "int64", "oneof"),
        3: Field("string", "uint64", "oneof"),
        4: Field("date", "uint64", "oneof"),
        5: Field("bytes", "bytes", "oneof"),
        6: Field("bool", "bool", "oneof"),
        7: Field("set", "TermSet", "oneof"),
        8: Field("null", "Empty", "oneof"),
        9: Field("array", "Array", "oneof"),
        10: Field("map", "Map", "oneof"),
    },
    "TermSet": {1: Field("set", "Term", "repeated")},
    "Array": {1: Field("array", "Term", "repeated")},
    "Map": {1: Field("entries", "MapEntry", "repeated")},
    "MapEntry": {1: Field("key", "MapKey", "required"), 2: Field("value", "Term", "required")},
    "MapKey": {1: Field("integer", "int64", "oneof"), 2: Field("string", "uint64", "oneof")},
    "Empty": {},
    "Expression": {1: Field("ops", "Op", "repeated")},
    "Op": {
        1: Field("value", "Term", "oneof"),
        2: Field("unary", "OpUnary", "oneof"),
        3: Field("binary", "OpBinary", "oneof"),
        4: Field("closure", "OpClosure", "oneof"),
    },
    "OpUnary": {1: Field("kind", "enum", "required"), 2: Field("ffiName", "uint64")},
    "OpBinary": {1: Field("kind", "enum", "required"), 2: Field("ffiName", "uint64")},
    "OpClosure": {1: Field("params", "uint32", "repeated"), 2: Field("ops", "Op", "repeated")},
}


class Malformed(Exception):
    """The bytes are no protobuf message of this schema."""


def decode_exactly(name: str, data: bytes) -> Message:
    """P-02: the message, if writing it again yields the same bytes."""
    try:
        message = decode(name, data)
        same = encode(name, message) == data
    except Malformed as error:
        raise Refused("P-02") from error
    require(same, "P-02")
    return message


def decode(name: str, data: bytes, depth: int = 0) -> Message:
    """Reads a message; absent fields are absent from the result, repeated ones are lists."""
    if depth > _MAX_DEPTH:
        raise Malformed("too deep")
    fields = SCHEMA[name]
    message: Message = {f.name: [] for f in fields.values() if f.label == "repeated"}
    reader = _Reader(data)
    while not reader.at_end():
        tag = reader.varint()
        number, wire = tag >> 3, tag & 7
        known = fields.get(number)
        if known is None:
            raise Malformed(f"unknown field {number}")
        value = _read_value(known.kind, wire, reader, depth)
        if known.label == "repeated":
            message[known.name].append(value)
        elif known.name in message:
            raise Malformed(f"{known.name} stands there twice")
        else:
            message[known.name] = value
    for known in fields.values():
        if known.label == "required" and known.name not in message:
            raise Malformed(f"{known.name} is missing")
    if sum(f.label == "oneof" and f.name in message for f in fields.values()) > 1:
        raise Malformed("two members of a oneof")
    return message


def encode(name: str, message: Message) -> bytes:
    """Writes a message in its one spelling."""
    out = bytearray()
    for number, known in SCHEMA[name].items():
        if known.name not in message:
            continue
        values = message[known.name] if known.label == "repeated" else [message[known.name]]
        for value in values:
            out += _write_value(number, known.kind, value)
    return bytes(out)


@dataclass
class _Reader:
    data: bytes
    at: int = field(default=0)

    def at_end(self) -> bool:
        return self.at == len(self.data)

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            if self.at_end():
                raise Malformed("cut off")
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64:
                    raise Malformed("a varint above 64 bits")
                return value
        raise Malformed("a varint of more than ten bytes")

    def length_delimited(self) -> bytes:
        length = self.varint()
        end = self.at + length
        if end > len(self.data):
            raise Malformed("cut off")
        chunk = self.data[self.at : end]
        self.at = end
        return chunk


def _read_value(kind: str, wire: int, reader: _Reader, depth: int) -> Any:
    if kind in ("uint32", "uint64", "int64", "enum", "bool"):
        if wire != _VARINT:
            raise Malformed("wrong wire type")
        return _narrow(kind, reader.varint())
    if wire != _LENGTH:
        raise Malformed("wrong wire type")
    chunk = reader.length_delimited()
    if kind == "bytes":
        return chunk
    if kind == "string":
        try:
            return chunk.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("no UTF-8") from error
    return decode(kind, chunk, depth + 1)


def _narrow(kind: str, value: int) -> int | bool:
    """What a reader makes of a varint: 32-bit types keep the low bits, signed ones are two's complement."""
    if kind == "bool":
        return value != 0
    if kind == "uint32":
        return value & 0xFFFF_FFFF
    if kind == "enum":
        low = value & 0xFFFF_FFFF
        return low - (1 << 32) if low >= 1 << 31 else low
    if kind == "int64" and value >= 1 << 63:
        return value - (1 << 64)
    return value


def _write_value(number: int, kind: str, value: Any) -> bytes:
    if kind in ("uint32", "uint64", "int64", "enum", "bool"):
        return _write_varint(number << 3 | _VARINT) + _write_varint(int(value) & 0xFFFF_FFFF_FFFF_FFFF)
    if kind == "bytes":
        chunk = bytes(value)
    elif kind == "string":
        chunk = value.encode("utf-8")
    else:
        chunk = encode(kind, value)
    return _write_varint(number << 3 | _LENGTH) + _write_varint(len(chunk)) + chunk


def _write_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
