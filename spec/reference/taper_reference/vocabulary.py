"""The words of checks: how many terms, and which kinds of access supply them (`vocabulary.md`)."""

from dataclasses import dataclass

KINDS = frozenset(
    ("tool_call", "resource_read", "prompt_get", "completion", "task", "logging_level", "plumbing", "list_entry")
)


@dataclass(frozen=True)
class Word:
    """A word with its number of terms; `kinds` are those that supply it."""

    terms: int
    kinds: frozenset[str]


def _kinds(*names: str) -> frozenset[str]:
    assert KINDS.issuperset(names)
    return frozenset(names)


WORDS: dict[str, Word] = {
    "time": Word(1, KINDS),
    "audience": Word(1, KINDS),
    "server": Word(1, KINDS),
    "method": Word(1, KINDS),
    "tool": Word(1, _kinds("tool_call", "list_entry")),
    "args": Word(1, _kinds("tool_call")),
    "resource": Word(2, _kinds("tool_call")),
    "uri": Word(1, _kinds("resource_read", "completion", "list_entry")),
    "prompt": Word(1, _kinds("prompt_get", "completion", "list_entry")),
    "depth": Word(1, KINDS),
    "hop": Word(2, KINDS),
    "calls": Word(2, KINDS - _kinds("plumbing", "list_entry")),
    "tool_hint": Word(2, _kinds("tool_call", "list_entry")),
    "tool_digest": Word(1, _kinds("tool_call", "list_entry")),
    "body_bound": Word(1, KINDS - _kinds("list_entry")),
    "client_ip": Word(1, KINDS),
    "hour": Word(1, KINDS),
    "weekday": Word(1, KINDS),
    "taper": Word(1, KINDS),
    "issuer": Word(1, KINDS),
    "grant": Word(1, KINDS),
    "subject": Word(2, KINDS),
    "client": Word(1, KINDS),
    "actor": Word(2, KINDS),
    "for_audience": Word(1, KINDS),
    "right": Word(2, KINDS),
    "right_any_tool": Word(1, KINDS),
    "right_resource": Word(2, KINDS),
    "right_prompt": Word(2, KINDS),
    "claim": Word(2, KINDS),
}

# P-16: these stand in policies only; their facts grow with the chain.
POLICIES_ONLY = frozenset(("depth", "hop"))

# P-19: of these there may be many facts.
MANY = frozenset(
    ("resource", "tool_hint", "claim", "for_audience", "right", "right_any_tool", "right_resource", "right_prompt")
)
