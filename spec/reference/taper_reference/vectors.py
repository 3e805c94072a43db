"""Reads test vectors (`vectors/README.md`)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .decide import Access
from .proof import NonceKey, Request
from .refusal import Refused, without
from .signatures import Root
from .text import decode_base64url
from .verify import Presentation, verify
from .vocabulary import KINDS

_MEMBERS = frozenset("description time roots token proof request access policy expected rule without".split())


@dataclass(frozen=True)
class Verdict:
    """`accepted`, or `refused` with the rule."""

    expected: str
    rule: str | None

    def __str__(self) -> str:
        return self.expected if self.rule is None else f"{self.expected} {self.rule}"

    def flipped(self) -> "Verdict":
        """The opposite: a refusal becomes an acceptance, an acceptance a refusal by a rule that no vector has."""
        return Verdict("accepted", None) if self.expected == "refused" else Verdict("refused", "R-15")


@dataclass(frozen=True)
class Vector:
    """One file; `otherwise` is its member `without`."""

    presentation: Presentation
    verdict: Verdict
    otherwise: str | None


def read_vector(path: Path) -> Vector:
    """The vector of a file; ValueError or KeyError when it is not of the format."""
    vector = json.loads(path.read_bytes(), object_pairs_hook=_object)
    if set(vector) != _MEMBERS:
        raise ValueError(f"members differ: {sorted(_MEMBERS ^ set(vector))}")
    verdict = Verdict(vector["expected"], vector["rule"])
    if (verdict.expected, verdict.rule is None) not in (("accepted", True), ("refused", False)):
        raise ValueError("`rule` stands with `refused`, and only there")
    if (vector["without"] is None) != (verdict.rule is None):
        raise ValueError("`without` stands with `refused`, and only there")
    presentation = Presentation(
        time=vector["time"],
        roots=[_root(root) for root in vector["roots"]],
        token=vector["token"],
        proof=vector["proof"],
        request=_request(vector["request"]),
        access=_access(vector["access"]),
        policies=vector["policy"],
    )
    return Vector(presentation, verdict, vector["without"])


def judge(presentation: Presentation) -> Verdict:
    """What this verifier says."""
    try:
        verify(presentation)
    except Refused as refusal:
        return Verdict("refused", refusal.rule)
    return Verdict("accepted", None)


def judge_without(rule: str, presentation: Presentation) -> Verdict | None:
    """What this verifier says when it leaves out one rule, None when it cannot go on without it."""
    with without(rule):
        try:
            return judge(presentation)
        except Exception:  # noqa: BLE001  what comes after a rule may rely on it in any way
            return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a member stands there twice")
    return dict(pairs)


def _root(root: dict[str, Any]) -> Root:
    servers = root["servers"]
    return Root(root["issuer"], root["key_id"], _bytes(root["key"]), None if servers is None else frozenset(servers))


def _request(request: dict[str, Any]) -> Request:
    nonce = request["nonce"]
    return Request(
        request["method"],
        request["url"],
        _bytes(request["body"]),
        None if nonce is None else NonceKey(_bytes(nonce["key"]), nonce["demanded"]),
    )


def _access(access: dict[str, Any]) -> Access:
    if access["kind"] not in KINDS:
        raise ValueError(f"no kind of access: {access['kind']}")
    members = dict(access)
    members["resources"] = tuple((kind, value) for kind, value in access["resources"])
    members["calls"] = tuple((counter, n) for counter, n in access["calls"])
    return Access(**members)


def _bytes(text: str) -> bytes:
    data = decode_base64url(text)
    if data is None:
        raise ValueError("no base64url")
    return data
