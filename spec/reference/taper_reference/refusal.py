"""A refusal is the number of the rule that refuses, as the pages of `spec/` have it."""


class Refused(Exception):
    """The presentation breaks `rule`."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


def require(holds: bool, rule: str) -> None:
    """Refuses by `rule` unless it holds."""
    if not holds:
        raise Refused(rule)
