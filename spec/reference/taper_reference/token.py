"""A capability's text as blocks, nothing of it trusted yet: the decoding step of the order of work."""

from dataclasses import dataclass

from .block import Authority, Link, read_authority, read_later
from .datalog import read_block
from .keys import Key
from .protobuf import Message, decode_exactly
from .refusal import require
from .text import decode_token

_ALGORITHMS = {0: "ed25519", 1: "secp256r1"}


@dataclass(frozen=True)
class Later:
    """A block after block 0 with the key that signed it."""

    external_key: Key
    link: Link


@dataclass(frozen=True)
class Token:
    """`data` is the token's protobuf, which the signatures are checked over."""

    data: bytes
    root_key_id: int | None
    authority: Authority
    later: tuple[Later, ...]

    def links(self) -> list[Link]:
        """Block 0 and each after it."""
        return [self.authority.link, *(block.link for block in self.later)]

    def expiry(self) -> int:
        """P-15: the earliest expiry of the chain."""
        return min(link.expiry for link in self.links())


def decode(text: str) -> Token:
    """P-01, P-02, P-05 to P-08, P-10 to P-12, P-14, P-21, P-22, D-01, D-03, D-04, D-06."""
    data = decode_token(text)
    message = decode_exactly("Biscuit", data)
    signed = [message["authority"], *message["blocks"]]
    payloads = [decode_exactly("Block", block["block"]) for block in signed]
    _bound_numbers(payloads)
    for block in signed:
        next_key = block["nextKey"]
        require(next_key["algorithm"] == 0 and len(next_key["key"]) == 32, "P-14")
    for block in signed[1:]:
        require("externalSignature" in block and block.get("version", 0) == 1, "D-01")
    authority = read_authority(read_block(payloads[0], 3))
    later = tuple(
        Later(_external_key(block), read_later(read_block(payload, 5)))
        for block, payload in zip(signed[1:], payloads[1:], strict=True)
    )
    return Token(data, message.get("rootKeyId"), authority, later)


def _external_key(block: Message) -> Key:
    public = block["externalSignature"]["publicKey"]
    key = Key(_ALGORITHMS.get(public["algorithm"], ""), public["key"])
    require(key.is_sound(), "P-12")
    return key


def _bound_numbers(payloads: list[Message]) -> None:
    """P-21."""
    require(len(payloads) <= 1 + 16, "P-21")
    checks, operations, calls = 0, 0, 0
    for payload in payloads:
        require(len(payload["facts"]) <= 256, "P-21")
        require(len(payload["checks"]) <= 32, "P-21")
        require(len(payload["symbols"]) <= 512, "P-21")
        checks += len(payload["checks"])
        for check in payload["checks"]:
            for query in check["queries"]:
                for expression in query["expressions"]:
                    all_operations = _flatten(expression["ops"])
                    operations += len(all_operations)
                    calls += sum(_is_call(operation) for operation in all_operations)
    require(checks <= 64, "P-21")
    require(operations <= 512, "P-21")
    require(calls <= 16, "P-21")


def _flatten(operations: list[Message]) -> list[Message]:
    """The operations with those inside of closures."""
    found = []
    for operation in operations:
        found.append(operation)
        found += _flatten(operation.get("closure", {}).get("ops", []))
    return found


def _is_call(operation: Message) -> bool:
    return any("ffiName" in operation.get(what, {}) for what in ("unary", "binary"))
