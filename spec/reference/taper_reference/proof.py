"""The proof of possession (RFC 9449): its form and claims (R-01 to R-10), its signature (R-11), the body (R-12)."""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass

from .keys import Key, compressed_p256
from .refusal import Refused, require
from .strict_json import PROOF, Json, NotStrict, Number, parse
from .text import decode_base64url, encode_base64url

_MAX_PROOF, _MAX_JTI = 4_096, 256
_MAX_AGE, _MAX_AHEAD, _MAX_NONCE_AGE = 300, 60, 300
_PRIVATE_MEMBERS = frozenset(("d",))
_INTEGER = re.compile(r"-?[0-9]+\Z")
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}
_ALGORITHM_OF_TYPE = {"OKP": "EdDSA", "EC": "ES256"}


@dataclass(frozen=True)
class NonceKey:
    """The key of this server's nonces, and whether it demands one."""

    key: bytes
    demanded: bool


@dataclass(frozen=True)
class Request:
    """The request that the proof came with; `url` is the endpoint as its operator configured it."""

    method: str
    url: str
    body: bytes
    nonce: NonceKey | None


@dataclass(frozen=True)
class Proof:
    """A proof whose form and claims hold; its signature is checked by `verify_signature`."""

    key: Key
    claims: dict[str, Json]
    signed: bytes
    signature: bytes

    def verify_signature(self) -> None:
        """R-11."""
        require(self.key.verifies(self.signature, self.signed), "R-11")

    def check_body(self, body: bytes) -> bool:
        """R-12, and whether the proof binds the body at all."""
        if "content_digest" not in self.claims:
            return False
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode("ascii")
        require(self.claims["content_digest"] == f"sha-256=:{digest}:", "R-12")
        return True


def read_proof(text: str, token: str, request: Request, now: int) -> Proof:
    """R-01 to R-10."""
    require(len(text.encode()) <= _MAX_PROOF, "R-01")
    parts = text.split(".")
    require(len(parts) == 3, "R-01")
    header = _json_object(parts[0], {"typ": str, "alg": str, "jwk": dict})
    claims = _json_object(
        parts[1], {"htm": str, "htu": str, "iat": Number, "jti": str, "ath": str, "nonce": str, "content_digest": str}
    )
    signature = decode_base64url(parts[2])
    require(signature is not None, "R-01")
    assert signature is not None
    require(header.get("typ") == "dpop+jwt" and "crit" not in header, "R-02")
    key, key_type = _read_jwk(header.get("jwk"))
    require(header.get("alg") == _ALGORITHM_OF_TYPE[key_type], "R-03")
    _check_claims(claims, token, request, now)
    return Proof(key, claims, ".".join(parts[:2]).encode("ascii"), signature)


def _json_object(part: str, types: dict[str, type]) -> dict[str, Json]:
    """R-01: an object whose members, where they are there, are of these types."""
    data = decode_base64url(part)
    require(data is not None, "R-01")
    assert data is not None
    try:
        value = parse(data.decode("utf-8"), PROOF)
    except (UnicodeDecodeError, NotStrict) as error:
        raise Refused("R-01") from error
    require(isinstance(value, dict), "R-01")
    assert isinstance(value, dict)
    for name, kind in types.items():
        member = value.get(name)
        require(name not in value or isinstance(member, kind), "R-01")
        require(not isinstance(member, Number) or _INTEGER.match(member.text) is not None, "R-01")
    return value


def _read_jwk(jwk: Json) -> tuple[Key, str]:
    """R-04: the key and its `kty`."""
    require(isinstance(jwk, dict), "R-04")
    assert isinstance(jwk, dict)
    require(not _PRIVATE_MEMBERS.intersection(jwk), "R-04")
    key: Key | None = None
    key_type = jwk.get("kty")
    if (key_type, jwk.get("crv")) == ("OKP", "Ed25519"):
        key = Key("ed25519", _coordinate(jwk, "x"))
    elif (key_type, jwk.get("crv")) == ("EC", "P-256"):
        key = compressed_p256(_coordinate(jwk, "x"), _coordinate(jwk, "y"))
    require(key is not None and key.is_sound(), "R-04")
    assert key is not None and isinstance(key_type, str)
    return key, key_type


def _coordinate(jwk: dict[str, Json], name: str) -> bytes:
    text = jwk.get(name)
    data = decode_base64url(text) if isinstance(text, str) else None
    require(data is not None and len(data) == 32, "R-04")
    assert data is not None
    return data


def _check_claims(claims: dict[str, Json], token: str, request: Request, now: int) -> None:
    require({"htm", "htu", "iat", "jti"} <= claims.keys(), "R-01")
    require(claims.get("htm") == request.method, "R-05")
    htu = claims.get("htu")
    require(isinstance(htu, str) and _endpoint(htu) == _endpoint(request.url), "R-06")
    iat = claims.get("iat")
    require(isinstance(iat, Number) and now - _MAX_AGE <= int(iat.text) <= now + _MAX_AHEAD, "R-07")
    jti = claims.get("jti")
    require(isinstance(jti, str) and 1 <= len(jti.encode()) <= _MAX_JTI, "R-08")
    ath = encode_base64url(hashlib.sha256(token.encode()).digest())
    require(claims.get("ath") == ath, "R-09")
    if request.nonce is not None and request.nonce.demanded:
        nonce = claims.get("nonce")
        require(isinstance(nonce, str) and _is_fresh(nonce, request.nonce.key, now), "R-10")


def _endpoint(url: str) -> tuple[str, str, str]:
    """Scheme and authority, the host in lower case and without a default port, and the path; nothing after it."""
    bare = url.partition("#")[0].partition("?")[0]
    scheme, _, rest = bare.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    host = host.lower().removesuffix(_DEFAULT_PORTS.get(scheme.lower(), ""))
    return scheme.lower(), user + at + host, (slash + path) or "/"


def _is_fresh(nonce: str, key: bytes, now: int) -> bool:
    """R-10: a nonce of this server, at most 300 seconds old (`vectors/README.md` has its form)."""
    data = decode_base64url(nonce)
    if data is None or len(data) != 24:
        return False
    mac = hmac.new(key, b"taper nonce v1" + data[:8], hashlib.sha256).digest()[:16]
    return hmac.compare_digest(mac, data[8:]) and 0 <= now - int.from_bytes(data[:8], "big") <= _MAX_NONCE_AGE
