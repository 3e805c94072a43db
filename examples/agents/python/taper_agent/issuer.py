"""The issuer: its root keys, and the exchange of an OAuth token for a capability (RFC 8693)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode, urlsplit

from .errors import Failure, Refused
from .keys import Key
from .text import parse_json
from .wire import post, send

CAPABILITY = "urn:taper:params:oauth:token-type:capability"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


def metadata(issuer: str) -> dict[str, Any]:
    """The issuer's metadata (RFC 8414), which must name this very issuer."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    document = _get(f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}")
    found = parse_json(document)
    if not isinstance(found, dict) or found.get("issuer") != issuer:
        raise Failure(f"{issuer} answers with the metadata of another issuer")
    return found


def root_keys(issuer: str) -> bytes:
    """The issuer's root keys, a JWK set, for `capability.Roots`."""
    return _get(_endpoint(issuer, "jwks_uri"))


def exchange(
    issuer: str,
    client_id: str,
    subject_token: str,
    key: Key,
    *,
    scopes: list[str] | None = None,
    authorization_details: str | None = None,
) -> str:
    """A capability of `issuer`, bound to `key`, for what `scopes` (`server:tool`, `server:*`) or
    `authorization_details` (RFC 9396, JSON) ask for."""
    form = {
        "grant_type": TOKEN_EXCHANGE,
        "client_id": client_id,
        "subject_token": subject_token,
        "subject_token_type": ACCESS_TOKEN,
        "requested_token_type": CAPABILITY,
    }
    if scopes:
        form["scope"] = " ".join(scopes)
    if authorization_details is not None:
        form["authorization_details"] = authorization_details
    endpoint = _endpoint(issuer, "token_endpoint")
    answer = post(endpoint, "application/x-www-form-urlencoded", urlencode(form).encode(), key=key)
    if answer.status != 200:
        raise Refused(answer.status, answer.error())
    match parse_json(answer.body):
        case {"token_type": "DPoP", "issued_token_type": issued, "access_token": str(capability)}:
            if issued == CAPABILITY:
                return capability
    raise Failure("the issuer gave something else than a capability")


def _endpoint(issuer: str, name: str) -> str:
    """An address out of the metadata, which is as safe to call as the issuer itself."""
    url = metadata(issuer).get(name)
    if not isinstance(url, str) or urlsplit(url).scheme != urlsplit(issuer).scheme:
        raise Failure(f"the metadata of {issuer} have no usable `{name}`")
    return url


def _get(url: str) -> bytes:
    answer = send("GET", url, {"Accept": "application/json"})
    if answer.status != 200:
        raise Failure(f"{url}: status {answer.status}")
    return answer.body
