"""The decision (R-20 to R-25, with the arguments' R-27) over a verified presentation."""

import datetime
import re
from dataclasses import dataclass

from .block import Authority, servers
from .datalog import Check, Predicate, Value
from .evaluate import EvaluationError, passes
from .refusal import Refused, require
from .strict_json import ARGUMENTS, NotStrict, parse, to_term
from .token import Token
from .vocabulary import WORDS

# For these a check that names a word which the kind does not supply is skipped.
_LENIENT_KINDS = frozenset(("plumbing", "list_entry"))
_STATEMENT = re.compile(r"(allow|deny|check) if (true|false)\Z")


@dataclass(frozen=True)
class Access:
    """What the boundary read from the request and the server's profile; None where there is none."""

    kind: str
    audience: str
    server: str
    method: str
    tool: str | None
    arguments: str | None
    resources: tuple[tuple[str, str], ...]
    uri: str | None
    prompt: str | None
    client_ip: str | None
    calls: tuple[tuple[str, int], ...]
    tool_hints: tuple[tuple[str, bool], ...] = ()
    tool_digest: str | None = None


def read_arguments(access: Access) -> Value:
    """R-27: the arguments as one map, `{}` when there are none."""
    if access.arguments is None:
        return "map", frozenset()
    try:
        value = parse(access.arguments, ARGUMENTS)
    except NotStrict as error:
        raise Refused("R-27") from error
    require(isinstance(value, dict), "R-27")
    return to_term(value)


def decide(token: Token, access: Access, arguments: Value, body_bound: bool, policies: list[str], now: int) -> None:
    """R-20 to R-25; returns when the access is allowed."""
    authority = token.authority
    require((access.audience,) in authority.values("for_audience"), "R-20")
    require(_has_right(authority, access), "R-21")
    facts = _request_facts(access, arguments, body_bound, now)
    facts += [fact for fact in authority.facts if fact.name in WORDS]
    checks = [check for link in token.links() for check in link.checks]
    _run_checks([check for check in checks if not _is_skipped(check, access.kind)], facts)
    statements = {statement for policy in policies for statement in _statements(policy)}
    require(not statements & {("deny", "true"), ("check", "false")}, "R-23")
    require(("allow", "true") in statements, "R-24")


def _has_right(authority: Authority, access: Access) -> bool:
    """R-21: for the tool, the resource or the prompt that the access names; some right of the server where its kind
    names none; for plumbing nothing."""
    server = access.server
    if access.kind == "plumbing":
        return True
    if access.kind in ("task", "logging_level"):
        return server in servers(authority)
    named = [name for name in (access.tool, access.uri, access.prompt) if name is not None]
    if access.kind in ("completion", "list_entry") and len(named) != 1:
        return False
    if access.tool is not None and access.kind in ("tool_call", "completion", "list_entry"):
        pairs = authority.values("right")
        return (server, access.tool) in pairs or (server,) in authority.values("right_any_tool")
    if access.uri is not None and access.kind in WORDS["uri"].kinds:
        prefixes = [prefix for of, prefix in authority.values("right_resource") if of == server]
        return any(_is_below(access.uri, prefix) for prefix in prefixes)
    if access.prompt is not None and access.kind in WORDS["prompt"].kinds:
        return (server, access.prompt) in authority.values("right_prompt")
    return False


def _is_below(uri: str, prefix: str) -> bool:
    """Whether a canonical URI is the one named, or below it when that ends with `/`."""
    if re.search(r"[\x00-\x1f\x7f-\x9f\\%]", uri):
        return False
    segments = re.sub(r"\A[A-Za-z][A-Za-z0-9+.-]*://", "", uri).removeprefix("/").split("/")
    if any(segment in ("", ".", "..") for segment in segments[:-1]) or segments[-1] in (".", ".."):
        return False
    return uri == prefix or (prefix.endswith("/") and uri.startswith(prefix))


def _request_facts(access: Access, arguments: Value, body_bound: bool, now: int) -> list[Predicate]:
    """Every word of the request that checks may use and this kind of access supplies."""
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    candidates: list[tuple[str, Value | None]] = [
        ("time", ("date", now)),
        ("audience", ("string", access.audience)),
        ("server", ("string", access.server)),
        ("method", ("string", access.method)),
        ("tool", _string(access.tool)),
        ("args", arguments),
        ("uri", _string(access.uri)),
        ("prompt", _string(access.prompt)),
        ("body_bound", ("bool", body_bound)),
        ("client_ip", _string(access.client_ip)),
        ("tool_digest", _string(access.tool_digest)),
        ("hour", ("integer", at.hour)),
        ("weekday", ("integer", at.isoweekday())),
    ]
    facts = [Predicate(name, (value,)) for name, value in candidates if value is not None]
    facts += [Predicate("resource", (("string", kind), ("string", value))) for kind, value in access.resources]
    facts += [Predicate("tool_hint", (("string", name), ("bool", value))) for name, value in access.tool_hints]
    facts += [Predicate("calls", (("string", counter), ("integer", n))) for counter, n in access.calls]
    return [fact for fact in facts if access.kind in WORDS[fact.name].kinds]


def _string(value: str | None) -> Value | None:
    return None if value is None else ("string", value)


def _is_skipped(check: Check, kind: str) -> bool:
    (query,) = check.queries
    return kind in _LENIENT_KINDS and any(kind not in WORDS[predicate.name].kinds for predicate in query.body)


def _run_checks(checks: list[Check], facts: list[Predicate]) -> None:
    """R-22 and R-25: an error in any check denies whatever the others say, so all of them run first."""
    results = [_run(check, facts) for check in checks]
    require(None not in results, "R-25")
    require(False not in results, "R-22")


def _run(check: Check, facts: list[Predicate]) -> bool | None:
    """Whether the check passes, None for an error."""
    try:
        return passes(check, facts)
    except EvaluationError:
        return None


def _statements(policy: str) -> list[tuple[str, str]]:
    """The statements of a policy file of the vectors' small language."""
    found = []
    for text in policy.split(";"):
        if text.strip():
            match = _STATEMENT.match(" ".join(text.split()))
            if match is None:
                raise ValueError(f"no statement of the vectors' language: {text!r}")
            found.append((match[1], match[2]))
    return found
