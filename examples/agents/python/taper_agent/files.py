"""Writing what a command makes: whole or not at all, and never over a key."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from .errors import Failure
from .text import parse_json

# Bytes. No JWK is longer.
_MAX_JWK = 65_536


def replace(path: Path, data: bytes) -> None:
    """Writes a new file, mode 0600, and puts it in the place of the old one in one step.

    Only a regular file is replaced, and none that holds a private JWK. No link is followed.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise Failure(f"{path} is no regular file")
        if _is_private_jwk(path):
            raise Failure(f"{path} holds a private key, which is never overwritten")
    except FileNotFoundError:
        pass
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _is_private_jwk(path: Path) -> bool:
    with path.open("rb") as file:
        held = file.read(_MAX_JWK)
    try:
        jwk = parse_json(held)
    except ValueError:
        return False
    return isinstance(jwk, dict) and "d" in jwk
