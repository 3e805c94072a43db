"""Base64url as the profile has it: no padding, no stray bits, one spelling for each sequence of bytes."""

import base64
import re

from .refusal import require

MAX_TOKEN_TEXT = 12_288

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*\Z")


def decode_base64url(text: str) -> bytes | None:
    """The bytes of `text`, or None unless it is their only spelling."""
    if not _ALPHABET.match(text) or len(text) % 4 == 1:
        return None
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return data if encode_base64url(data) == text else None


def encode_base64url(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_token(text: str) -> bytes:
    """P-01: the bytes of a capability's text."""
    require(1 <= len(text.encode()) <= MAX_TOKEN_TEXT, "P-01")
    data = decode_base64url(text)
    require(data is not None, "P-01")
    assert data is not None
    return data
