"""Makes good presentations with the Biscuit library, for tests of the verifier."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from biscuit_auth import Algorithm, Biscuit, BiscuitBuilder, BlockBuilder, KeyPair, PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from taper_reference.decide import Access
from taper_reference.proof import Request
from taper_reference.signatures import Root
from taper_reference.text import encode_base64url
from taper_reference.verify import Presentation

NOW = 1_800_000_000
URL = "https://proxy.example/git/mcp"
ISSUER = "https://issuer.example"
BODY = b'{"jsonrpc":"2.0"}'
EXPIRY = "check if time($t), $t < 2027-01-15T09:00:00Z;"

ROOT_KEY = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
ALICE = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)
BOB = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)


def holder_fact(key: Ed25519PrivateKey) -> str:
    """The fact that names the key."""
    return f'holder("ed25519", hex:{key.public_key().public_bytes_raw().hex()});'


def authority_facts(holder: Ed25519PrivateKey = ALICE) -> str:
    """The facts of a good block 0."""
    return f"""
        taper(1); issuer("{ISSUER}"); grant("AAAAAAAAAAAAAAAAAAAAAA"); subject("https://idp.example", "alice");
        client("agent"); {holder_fact(holder)} for_audience("{URL}"); right("git", "git_log");
        right_resource("git", "file:///srv/"); claim("groups", "eng");
        issued_at(2027-01-15T07:00:00Z); max_depth(2);
    """


def issue(source: str) -> Biscuit:
    """A token whose block 0 is the source."""
    builder = BiscuitBuilder(source)
    builder.set_root_key_id(7)
    return builder.build(_biscuit_key(ROOT_KEY))


def hand_on(token: Biscuit, signer: Ed25519PrivateKey, source: str) -> Biscuit:
    """The token with a third-party block of the signer."""
    block = token.third_party_request().create_block(_biscuit_key(signer), BlockBuilder(source))
    return token.append_third_party(KeyPair.from_private_key(_biscuit_key(signer)).public_key, block)


def _biscuit_key(key: Ed25519PrivateKey) -> PrivateKey:
    # The library's type stubs do not know of algorithms yet.
    return PrivateKey.from_bytes(key.private_bytes_raw(), Algorithm.Ed25519)  # type: ignore[call-arg, attr-defined]


@dataclass
class Case:
    """A good presentation, each part of which may be changed before it is put together."""

    token: str = field(default_factory=lambda: issue(authority_facts() + EXPIRY).to_base64().rstrip("="))
    signer: Ed25519PrivateKey = ALICE
    header: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    access: dict[str, Any] = field(default_factory=dict)
    policies: list[str] = field(default_factory=lambda: ["allow if true;"])
    time: int = NOW

    def presentation(self) -> Presentation:
        """All of it, with a proof of the signer."""
        access: dict[str, Any] = {
            "kind": "tool_call", "audience": URL, "server": "git", "method": "tools/call", "tool": "git_log",
            "arguments": "{}", "resources": (), "uri": None, "prompt": None, "client_ip": None, "calls": (),
        }  # fmt: skip
        request = Request("POST", URL, BODY, None)
        root = Root(ISSUER, 7, ROOT_KEY.public_key().public_bytes_raw(), None)
        access |= self.access
        return Presentation(self.time, [root], self.token, self.proof(), request, Access(**access), self.policies)

    def proof(self) -> str:
        """The proof of the signer."""
        x = encode_base64url(self.signer.public_key().public_bytes_raw())
        header = {"typ": "dpop+jwt", "alg": "EdDSA", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": x}}
        digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
        claims = {
            "htm": "POST", "htu": URL, "iat": NOW, "jti": "1", "content_digest": f"sha-256=:{digest}:",
            "ath": encode_base64url(hashlib.sha256(self.token.encode()).digest()),
        }  # fmt: skip
        parts = [encode_base64url(json.dumps(part).encode()) for part in (header | self.header, claims | self.claims)]
        signed = ".".join(parts)
        return f"{signed}.{encode_base64url(self.signer.sign(signed.encode()))}"
