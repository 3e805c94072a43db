"""An MCP client on the Python SDK, with proofs of its own (`capability_auth.py`), or through the sidecar.

    python client.py --url URL --token FILE --key FILE [--era legacy|modern|auto] [TOOL [NAME=VALUE]...]...
    python client.py --url URL --header 'Authorization: Bearer ...' ...
    python client.py ... -- PROGRAM [ARGUMENT]...      an MCP server over stdio, such as `taper bridge`

Lists the tools and calls those that are named. Prints one line of JSON, and exits with 1 when something was
refused; an error is {"message", "code", "data"}:
    {"era", "version", "tools": [...], "calls": [{"tool", "result" or "error"}, ...]}, or {"error"}
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
from capability_auth import CapabilityAuth
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from taper_agent.keys import Key

MODERN = "2026-07-28"
MODES = {"legacy": "legacy", "modern": MODERN, "auto": "auto"}


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line; `program` is what stands behind `--`."""
    parser = argparse.ArgumentParser(description="An MCP client that presents a capability.")
    parser.add_argument("--url")
    parser.add_argument("--token", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--era", choices=MODES, default="auto")
    parser.add_argument("calls", nargs="*", metavar="TOOL NAME=VALUE")
    split = argv.index("--") if "--" in argv else len(argv)
    known = parser.parse_intermixed_args(argv[:split])
    known.program = argv[split + 1 :]
    return known


def value(text: str) -> Any:
    """A value is JSON where it is some, else a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


async def connect(asked: argparse.Namespace, stack: AsyncExitStack) -> Client:
    """The SDK's client, over stdio or over an HTTP client that authorizes itself."""
    mode = MODES[asked.era]
    if asked.program:
        command, *rest = asked.program
        return await stack.enter_async_context(
            Client(StdioServerParameters(command=command, args=rest), mode=mode)
        )
    auth = None
    if asked.token:
        auth = CapabilityAuth(asked.token.read_text().strip(), Key.load(asked.key))
    headers = dict(line.split(": ", 1) for line in asked.header)
    http = await stack.enter_async_context(httpx2.AsyncClient(auth=auth, headers=headers, timeout=60))
    return await stack.enter_async_context(
        Client(streamable_http_client(asked.url, http_client=http), mode=mode)
    )


def calls(words: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """A word without `=` is a tool, what follows are its arguments."""
    found: list[tuple[str, dict[str, Any]]] = []
    for word in words:
        name, equals, text = word.partition("=")
        if equals:
            found[-1][1][name] = value(text)
        else:
            found.append((name, {}))
    return found


def refused(error: MCPError) -> dict[str, Any]:
    """What a refusal says."""
    return {"message": error.message, "code": error.code, "data": error.data}


async def run(asked: argparse.Namespace, said: dict[str, Any]) -> None:
    """Does what is asked, and says what came of it."""
    async with AsyncExitStack() as stack:
        client = await connect(asked, stack)
        said["version"] = client.protocol_version
        said["era"] = "modern" if client.protocol_version >= MODERN else "legacy"
        said["tools"] = [tool.name for tool in (await client.list_tools()).tools]
        said["calls"] = []
        for tool, named in calls(asked.calls):
            done: dict[str, Any] = {"tool": tool}
            try:
                result = await client.call_tool(tool, named)
                done["result"] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
            except MCPError as error:
                done["error"] = refused(error)
            said["calls"].append(done)


def main() -> int:
    """Runs the client; its exit code."""
    said: dict[str, Any] = {"era": None, "version": None}
    try:
        asyncio.run(run(arguments(sys.argv[1:]), said))
    except* MCPError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, MCPError):
            said["error"] = refused(error)
    print(json.dumps(said))
    return 1 if "error" in said or any("error" in done for done in said.get("calls", [])) else 0


if __name__ == "__main__":
    sys.exit(main())
