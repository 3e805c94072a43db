"""Presents a capability with every request of an `httpx2` client, as the Python SDK of MCP uses one."""

from __future__ import annotations

import re
from collections.abc import Generator

import httpx2
from taper_agent.keys import Key
from taper_agent.proof import prove


class CapabilityAuth(httpx2.Auth):
    """`Authorization: DPoP` and a fresh proof for each request, which covers its body.

    A server that demands a nonce gets it at once, and again in the proofs that follow.
    """

    requires_request_body = True

    def __init__(self, token: str, key: Key) -> None:
        self._token = token
        self._key = key
        self._nonce: str | None = None

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Signs the request, and once more if the server asks for a nonce."""
        for _ in range(2):
            request.headers["Authorization"] = f"DPoP {self._token}"
            request.headers["DPoP"] = prove(
                self._key,
                request.method,
                str(request.url),
                token=self._token,
                body=request.content or None,
                nonce=self._nonce,
            )
            response = yield request
            self._nonce = response.headers.get("DPoP-Nonce", self._nonce)
            challenge = response.headers.get("WWW-Authenticate", "")
            if response.status_code != 401 or not re.search(r'\berror="use_dpop_nonce"', challenge):
                return
