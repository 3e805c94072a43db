"""A refusal is the number of the rule that refuses, as the pages of `spec/` have it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_left_out: ContextVar[str | None] = ContextVar("left_out", default=None)


class Refused(Exception):
    """The presentation breaks `rule`."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


def require(holds: bool, rule: str) -> None:
    """Refuses by `rule` unless it holds."""
    if not holds and rule != _left_out.get():
        raise Refused(rule)


@contextmanager
def without(rule: str) -> Iterator[None]:
    """Leaves out one rule, to see what it alone keeps out. For the comparison with the vectors only."""
    token = _left_out.set(rule)
    try:
        yield
    finally:
        _left_out.reset(token)
