"""Keys as JWKs (RFC 7517, RFC 8037): the agent's own, which is Ed25519, and those of other holders,
which may be P-256 too."""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidKey, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from .errors import Failure
from .text import parse_json


def b64url(data: bytes) -> str:
    """Base64url without padding, as tokens, proofs and JWKs have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64url_decode(text: str) -> bytes:
    """The bytes of base64url without padding; any other spelling is refused."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error) as error:
        raise Failure("it is not base64url") from error
    if b64url(data) != text:
        raise Failure("it is not base64url without padding")
    return data


class Key:
    """An agent's private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> Key:
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Key:
        """Reads a private JWK from a file that only its owner may read."""
        with path.open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise Failure(f"{path} may be read by others: chmod 600 {path}")
            jwk = parse_jwk(file.read())
        if jwk.get("crv") != "Ed25519" or not isinstance(jwk.get("d"), str):
            raise Failure(f"{path} holds no private Ed25519 JWK")
        key = cls(Ed25519PrivateKey.from_private_bytes(_bytes(jwk, "d", 32)))
        if key.public_jwk()["x"] != jwk.get("x"):
            raise Failure(f"the two halves of the key in {path} do not fit")
        return key

    def save(self, path: Path) -> None:
        """Writes the private JWK to a new file, mode 0600. An existing file is never overwritten."""
        jwk = self.public_jwk() | {"d": b64url(self.seed())}
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(jwk) + "\n")

    def public_jwk(self) -> dict[str, str]:
        """The public half, to be given to whoever delegates to this agent."""
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url(raw)}

    def seed(self) -> bytes:
        """The 32 secret bytes: what the JWK's `d` is, and what the Biscuit library wants."""
        return self._private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes."""
        return self._private.sign(data)


@dataclass(frozen=True)
class Holder:
    """A public key as the fact `holder(alg, key)` names it (P-12)."""

    alg: str
    key: bytes

    @classmethod
    def of(cls, jwk: dict[str, Any]) -> Holder:
        """The holder that a public JWK describes."""
        if "d" in jwk:
            raise Failure("this is a private key: whoever delegates needs the public one only")
        match jwk.get("kty"), jwk.get("crv"):
            case "OKP", "Ed25519":
                return cls("ed25519", _bytes(jwk, "x", 32))
            case "EC", "P-256":
                point = b"\x04" + _bytes(jwk, "x", 32) + _bytes(jwk, "y", 32)
                try:
                    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
                except (ValueError, InvalidKey, UnsupportedAlgorithm) as error:
                    raise Failure("the JWK is no point of P-256") from error
                compressed = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
                return cls("secp256r1", compressed)
            case _:
                raise Failure("a holder's key is an Ed25519 or P-256 JWK")


def parse_jwk(text: str) -> dict[str, Any]:
    """The members of one JWK."""
    try:
        jwk = parse_json(text)
    except ValueError as error:
        raise Failure("it is not a JWK") from error
    if not isinstance(jwk, dict):
        raise Failure("it is not a JWK")
    return jwk


def _bytes(jwk: dict[str, Any], name: str, length: int) -> bytes:
    value = jwk.get(name)
    data = b64url_decode(value) if isinstance(value, str) else b""
    if len(data) != length:
        raise Failure(f"`{name}` of the JWK is not {length} bytes")
    return data
