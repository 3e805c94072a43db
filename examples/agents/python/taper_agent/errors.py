"""What can go wrong, as two kinds: it cannot be done, and somebody said no."""

from __future__ import annotations


class Failure(Exception):
    """It cannot be done: a wrong file, an argument that makes no sense, an answer that is none."""


class Refused(Exception):
    """The issuer or the proxy said no."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"status {status}, {reason}")
        self.status = status
        self.reason = reason
