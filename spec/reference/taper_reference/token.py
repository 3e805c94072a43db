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
    _bound_blocks(payloads)
    for block in signed:
        next_key = block["nextKey"]
        require(next_key["algorithm"] == 0 and len(next_key["key"]) == 32, "P-14")
    require("externalSignature" not in signed[0], "D-01")
    for block in signed[1:]:
        require("externalSignature" in block and block.get("version", 0) == 1, "D-01")
    authority = read_authority(read_block(payloads[0], 3))
    later = tuple(
        Later(_external_key(block), read_later(read_block(payload, 5)))
        for block, payload in zip(signed[1:], payloads[1:], strict=True)
    )
    token = Token(data, message.get("rootKeyId"), authority, later)
    _bound_chain(token.links())
    return token


def _external_key(block: Message) -> Key:
    public = block["externalSignature"]["publicKey"]
    key = Key(_ALGORITHMS.get(public["algorithm"], ""), public["key"])
    require(key.is_sound(), "P-12")
    return key


def _bound_blocks(payloads: list[Message]) -> None:
    """P-21, block by block."""
    require(len(payloads) <= 1 + 16, "P-21")
    for payload in payloads:
        require(len(payload["facts"]) <= 256, "P-21")
        require(len(payload["checks"]) <= 32, "P-21")
        require(len(payload["symbols"]) <= 512, "P-21")


def _bound_chain(links: list[Link]) -> None:
    """P-21, the checks of the whole chain but its expiries."""
    checks = [check for link in links for check in link.checks]
    operations = [
        operation
        for check in checks
        for query in check.queries
        for expression in query.expressions
        for operation in expression
    ]
    calls = [operation.extern for operation in operations if operation.operator == "extern"]
    require(len(checks) <= 64, "P-21")
    require(len(operations) <= 256, "P-21")
    require(len(calls) <= 16, "P-21")
    require(calls.count("full_match") <= 8, "P-21")
