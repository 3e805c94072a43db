"""A team of agents: an orchestrator that obtains one capability and hands three sub-agents three
different slices of it. They work in parallel, and none can do another's work.

`../README.md` says how to run it. It reads `TAPER_ISSUER`, `TAPER_URL`, `TAPER_SUBJECT_TOKEN_FILE` and,
if it is not `dev`, `TAPER_CLIENT_ID`.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from taper_agent import caveats, issuer
from taper_agent.capability import Roots, Terms, delegate
from taper_agent.errors import Failure, Refused
from taper_agent.keys import Key
from taper_agent.mcp import call_tool
from taper_agent.text import parse_json, printable


@dataclass(frozen=True)
class Work:
    """What a sub-agent is there for: one tool, one repository, some minutes."""

    agent: str
    tool: str
    repository: str
    minutes: int

    def arguments(self) -> dict[str, Any]:
        more = {"revision": "HEAD"} if self.tool == "git_show" else {"max_count": 1}
        return {"repo_path": self.repository, **more}


TEAM = [
    Work("historian", "git_log", "acme/web", 10),
    Work("reviewer", "git_show", "acme/web", 5),
    Work("auditor", "git_log", "acme/payroll", 2),
]


class Orchestrator:
    """Holds a capability for every tool of the server."""

    def __init__(self, url: str, client_id: str, subject_token: str) -> None:
        self._roots = Roots(issuer.root_keys(url))
        self._key = Key.generate()
        self._token = issuer.exchange(url, client_id, subject_token, self._key, scopes=["git:*"])

    def hand_over(self, to: dict[str, Any], work: Work) -> str:
        """A slice of the capability for another key. This needs no network, and nobody's consent."""
        terms = Terms(
            until=datetime.now(UTC) + timedelta(minutes=work.minutes),
            caveats=[
                caveats.tool("git", [work.tool]),
                caveats.resource_one_of("repo", [work.repository]),
            ],
            note=work.agent,
        )
        return delegate(self._roots, self._token, self._key, to, terms)


@dataclass
class Report:
    lines: list[str] = field(default_factory=list)
    tried: int = 0
    refused: int = 0


class SubAgent:
    """Holds its own key. Only the public half leaves it, and only a capability comes back."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._key = Key.generate()

    def public_jwk(self) -> dict[str, Any]:
        return self._key.public_jwk()

    def run(self, token: str, own: Work) -> Report:
        """Does its own work, then tries the others'."""
        result = call_tool(self._url, token, self._key, own.tool, own.arguments())
        text = "".join(part.get("text", "") for part in result.get("content", []))
        first = printable((text.splitlines() or [""])[0])
        if result.get("isError"):
            raise Failure(f"{own.agent} cannot do its work: {first}")
        has = f"{own.agent} has {own.tool} of {own.repository} for {own.minutes} minutes"
        report = Report([f"{has}: {first}"])
        for other in TEAM:
            if other == own:
                continue
            report.tried += 1
            try:
                call_tool(self._url, token, self._key, other.tool, other.arguments())
                said = "it worked"
            except Refused as refusal:
                report.refused += 1
                said = explained(refusal)
            report.lines.append(f"{own.agent} tries the work of {other.agent}: {said}")
        return report


def explained(refusal: Refused) -> str:
    """What a denial says. Any other refusal, of a server that is down for example, proves nothing."""
    try:
        error = parse_json(refusal.reason)
    except ValueError:
        error = None
    match refusal.status, error:
        case 403, {"code": 4403, "data": {"rule": str(rule)}}:
            return f"refused, status 403, code 4403, rule {printable(rule)}"
    raise Failure(f"this is no denial: {printable(str(refusal))}")


def main() -> int:
    url = os.environ["TAPER_URL"]
    subject_token = Path(os.environ["TAPER_SUBJECT_TOKEN_FILE"]).read_text().strip()
    client_id = os.environ.get("TAPER_CLIENT_ID", "dev")
    orchestrator = Orchestrator(os.environ["TAPER_ISSUER"], client_id, subject_token)

    agents = [(SubAgent(url), work) for work in TEAM]
    slices = [orchestrator.hand_over(agent.public_jwk(), work) for agent, work in agents]
    with ThreadPoolExecutor(len(TEAM)) as team:
        running = [team.submit(agent.run, token, work) for (agent, work), token in zip(agents, slices)]
        reports = [each.result() for each in running]

    for report in reports:
        print("\n".join(report.lines))
    tried, refused = sum(each.tried for each in reports), sum(each.refused for each in reports)
    print(f"{tried} attempts at another's work, {refused} refused")
    return 0 if refused == tried else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failure, Refused) as error:
        sys.exit(f"failed: {printable(str(error))}")
