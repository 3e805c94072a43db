"""The root key and Biscuit's signatures (P-03, P-04, P-09, P-13); the signatures themselves are the Biscuit library's."""

from dataclasses import dataclass

import biscuit_auth

from .block import servers
from .refusal import require
from .token import Token


@dataclass(frozen=True)
class Root:
    """A trusted root key (Ed25519) of an issuer; `servers` is None when it may grant rights for all."""

    issuer: str
    key_id: int
    key: bytes
    servers: frozenset[str] | None


def verify_signatures(token: Token, roots: list[Root]) -> None:
    """P-03, P-04, P-09 and P-13."""
    issuer = token.authority.issuer
    require(token.root_key_id is not None, "P-03")
    # P-09 holds with P-03: a root key is looked up under the issuer that block 0 names.
    found = [root for root in roots if root.issuer == issuer and root.key_id == token.root_key_id]
    require(len(found) == 1, "P-03")
    root = found[0]
    require(_verify(token, root), "P-04")
    require(root.servers is None or servers(token.authority) <= root.servers, "P-13")


def _verify(token: Token, root: Root) -> bool:
    try:
        # The library's type stubs do not know of algorithms yet.
        key = biscuit_auth.PublicKey.from_bytes(root.key, biscuit_auth.Algorithm.Ed25519)  # type: ignore[call-arg, attr-defined]
        biscuit_auth.Biscuit.from_bytes(token.data, key)
    except (ValueError, biscuit_auth.BiscuitValidationError):
        return False
    return True
