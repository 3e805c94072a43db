"""Narrowing and delegating: one more block, signed by the current holder (spec/delegation.md).

No network is needed, but the Biscuit library parses a token only if it verifies under the issuer's
root key. So the root keys are kept beside the capability (`Roots`).

The library does not know whose turn it is: a block that is signed by any other key than the current
holder's makes a valid Biscuit. The proxy refuses it (D-02).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from biscuit_auth import (
    Algorithm,
    Biscuit,
    BiscuitValidationError,
    BlockBuilder,
    Check,
    Fact,
    KeyPair,
    PrivateKey,
    PublicKey,
)

from .caveats import utc
from .errors import Failure
from .keys import Holder, Key, b64url, b64url_decode
from .text import parse_json

# P-01.
MAX_TOKEN = 12_288
# The type stubs of biscuit-python 0.4.0 do not know the algorithms.
ED25519: Any = Algorithm.Ed25519  # type: ignore[attr-defined]


class Roots:
    """The root keys of one issuer, as its `jwks.json` lists them: `kid` is the root key id."""

    def __init__(self, jwks: str | bytes) -> None:
        try:
            keys: list[dict[str, Any]] = parse_json(jwks)["keys"]
            self._keys = {
                int(jwk["kid"]): _public_key(jwk["x"])
                for jwk in keys
                if jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519"
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Failure("these are not the root keys of an issuer") from error

    def parse(self, token: str) -> Biscuit:
        """The token, when all its Biscuit signatures verify under one of these keys."""
        if not 1 <= len(token) <= MAX_TOKEN:
            raise Failure(f"a capability has 1 to {MAX_TOKEN} bytes")
        try:
            return Biscuit.from_bytes(b64url_decode(token), self._key)
        except BiscuitValidationError as error:
            raise Failure(f"it is no capability of this issuer: {error}") from error

    def _key(self, root_key_id: int | None) -> PublicKey:
        try:
            return self._keys[root_key_id]  # type: ignore[index]
        except KeyError as error:
            raise Failure(f"the issuer has no root key {root_key_id}") from error


def _public_key(x: str) -> PublicKey:
    return PublicKey.from_bytes(b64url_decode(x), ED25519)  # type: ignore[call-arg]


@dataclass(frozen=True)
class Terms:
    """What the next block says. It can only take away: whatever it allows, its parent allowed."""

    until: datetime
    """When it ends, in any time zone. Later than its parent is no error: the earliest end holds."""
    caveats: Sequence[Check] = ()
    """All of them have to pass."""
    note: str | None = None
    """A word to whoever reads the chain, at most 1,024 bytes."""
    max_depth: int | None = None
    """At most so many hand-overs, counted from the issuer."""


def narrow(roots: Roots, token: str, key: Key, terms: Terms) -> str:
    """Restricts the holder's own capability: the same key holds what comes back."""
    return _append(roots, token, key, Holder.of(key.public_jwk()), terms)


def delegate(roots: Roots, token: str, key: Key, to: dict[str, Any], terms: Terms) -> str:
    """Hands on to the holder of the public JWK `to`: only that key can use what comes back."""
    holder = Holder.of(to)
    if holder == Holder.of(key.public_jwk()):
        raise Failure("the holder cannot hand on to itself: narrow instead")
    return _append(roots, token, key, holder, terms)


def _append(roots: Roots, token: str, key: Key, holder: Holder, terms: Terms) -> str:
    block = BlockBuilder("")
    block.add_fact(Fact("holder({alg}, {key})", {"alg": holder.alg, "key": holder.key}))
    # Each block ends once, and in this shape only (P-10).
    block.add_check(Check("check if time($t), $t < {until}", {"until": utc(terms.until)}))
    for caveat in terms.caveats:
        block.add_check(caveat)
    if terms.note is not None:
        if len(terms.note.encode()) > 1024:
            raise Failure("a note has at most 1,024 bytes")
        block.add_fact(Fact("note({text})", {"text": terms.note}))
    if terms.max_depth is not None:
        if not 0 <= terms.max_depth < 2**32:
            raise Failure("a depth is 0 to 2^32 - 1")
        block.add_fact(Fact("max_depth({depth})", {"depth": terms.max_depth}))

    parent = roots.parse(token)
    signer = PrivateKey.from_bytes(key.seed(), ED25519)  # type: ignore[call-arg]
    signed = parent.third_party_request().create_block(signer, block)
    child = parent.append_third_party(KeyPair.from_private_key(signer).public_key, signed)
    # `to_base64` pads, and the profile has one spelling: without.
    return b64url(bytes(child.to_bytes()))
