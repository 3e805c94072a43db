"""HTTP with proofs: a request is signed, sent, and sent once more when the server asks for a nonce."""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass
from email.message import Message
from urllib.parse import urlsplit

from .errors import Failure
from .keys import Key
from .proof import prove
from .text import parse_json

# Bytes of an answer, and seconds to wait for it.
MAX_ANSWER = 16 * 1024 * 1024
TIMEOUT = 60


@dataclass(frozen=True)
class Answer:
    """An HTTP response, read to its end."""

    status: int
    headers: Message
    body: bytes

    def error(self) -> str:
        """What a refusal says: its JSON body's `error`, else its challenge."""
        try:
            error = parse_json(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            return self.headers.get("WWW-Authenticate", "without a reason")
        return error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)


def send(method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
    """One request: no redirect is followed, and plain HTTP is for this machine only."""
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT)
    elif parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"):
        connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    else:
        raise Failure(f"{url} is neither https nor on this machine")
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    try:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read(MAX_ANSWER + 1))
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"no answer from {parts.netloc}: {error}") from error
    finally:
        connection.close()
    if len(answer.body) > MAX_ANSWER:
        raise Failure(f"the answer from {parts.netloc} is too large")
    return answer


def post(
    url: str,
    content_type: str,
    body: bytes,
    *,
    key: Key,
    token: str | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """A POST with a proof by `key`, and with the capability `token` if there is one."""
    all_headers = {"Content-Type": content_type, **(headers or {})}
    if token is not None:
        all_headers["Authorization"] = f"DPoP {token}"
    nonce: str | None = None
    for _ in range(2):
        all_headers["DPoP"] = prove(key, "POST", url, token=token, body=body, nonce=nonce)
        answer = send("POST", url, all_headers, body)
        nonce = answer.headers.get("DPoP-Nonce")
        if nonce is None or not _asks_for_nonce(answer):
            break
    return answer


def _asks_for_nonce(answer: Answer) -> bool:
    # The issuer says so in its body, the proxy in its challenge (RFC 9449 sections 8 and 9).
    if answer.status == 400:
        return answer.error() == "use_dpop_nonce"
    challenge = answer.headers.get("WWW-Authenticate", "")
    return answer.status == 401 and re.search(r'\berror="use_dpop_nonce"', challenge) is not None
