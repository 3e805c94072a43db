"""Calling a tool of an MCP server behind the proxy: Streamable HTTP, revision 2026-07-28, which is
stateless."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .errors import Failure, Refused
from .keys import Key
from .text import parse_json
from .wire import post

VERSION = "2026-07-28"
_ID = 1


def call_tool(url: str, token: str, key: Key, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Calls one tool; the result as the server gave it (`content`, `isError`, ...).

    What is there of `content` is a list of objects, each `text` in them a string, `isError` a boolean.

    The token is presented as it is: biscuit-python cannot seal a copy.
    """
    message = {
        "jsonrpc": "2.0",
        "id": _ID,
        "method": "tools/call",
        "params": {
            "name": tool,
            "arguments": arguments,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": VERSION,
                "io.modelcontextprotocol/clientInfo": {"name": "taper-agent-python", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    }
    # These say what the body says; the proxy compares.
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": VERSION,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    # The proof covers these very bytes.
    body = json.dumps(message, ensure_ascii=False, allow_nan=False).encode()
    answer = post(url, "application/json", body, key=key, token=token, headers=headers)
    if answer.status != 200:
        raise Refused(answer.status, answer.error())
    for candidate in _messages(answer.headers.get_content_type(), answer.body):
        match candidate:
            case {"id": int(found), "error": error} if found == _ID:
                raise Refused(answer.status, json.dumps(error, ensure_ascii=False))
            case {"id": int(found), "result": result} if found == _ID:
                return _checked(result)
    raise Failure("the server did not answer the request")


def _checked(result: Any) -> dict[str, Any]:
    if not isinstance(result, dict):
        raise Failure("the result is no object")
    content = result.get("content", [])
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise Failure("the content of the result is no list of objects")
    if not all(isinstance(part.get("text", ""), str) for part in content):
        raise Failure("a text in the result is no string")
    if not isinstance(result.get("isError", False), bool):
        raise Failure("`isError` of the result is no boolean")
    return result


def _messages(content_type: str, body: bytes) -> Iterator[Any]:
    """The JSON-RPC messages of an answer, which is one of them or a stream of events."""
    text = body.decode("utf-8")
    if content_type == "application/json":
        yield _message(text)
        return
    if content_type != "text/event-stream":
        raise Failure(f"an answer of type {content_type}")
    for event in text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
        data = [line[5:].removeprefix(" ") for line in event.split("\n") if line.startswith("data:")]
        if data:
            yield _message("\n".join(data))


def _message(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise Failure(f"the answer is no JSON: {error}") from error
