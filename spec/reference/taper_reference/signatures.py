"""The root key and Biscuit's signatures (P-03, P-04, P-09, P-13); the signatures are left to the Biscuit library."""

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
    of_this_id = [root for root in roots if root.key_id == token.root_key_id]
    require(bool(of_this_id), "P-03")
    of_issuer = [root for root in of_this_id if root.issuer == token.authority.issuer]
    require(bool(of_issuer), "P-09")
    root = (of_issuer or of_this_id)[0]
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
