"""DPoP proofs (RFC 9449), with `content_digest` over the body (spec/presentation.md)."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time

from .keys import Key, b64url


def prove(
    key: Key,
    method: str,
    url: str,
    *,
    token: str | None = None,
    body: bytes | None = None,
    nonce: str | None = None,
) -> str:
    """The value of a `DPoP` header, for one request only.

    `token` is the exact text that is presented, `body` the exact bytes that are sent, `nonce` the one
    that the server gave.
    """
    header = {"typ": "dpop+jwt", "alg": "EdDSA", "jwk": key.public_jwk()}
    claims: dict[str, str | int] = {
        "jti": b64url(secrets.token_bytes(16)),
        "htm": method,
        "htu": url.split("?")[0].split("#")[0],
        "iat": int(time.time()),
    }
    if token is not None:
        claims["ath"] = b64url(hashlib.sha256(token.encode("ascii")).digest())
    if body is not None:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode("ascii")
        claims["content_digest"] = f"sha-256=:{digest}:"
    if nonce is not None:
        claims["nonce"] = nonce
    parts = [b64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)]
    signing_input = ".".join(parts)
    return f"{signing_input}.{b64url(key.sign(signing_input.encode('ascii')))}"
