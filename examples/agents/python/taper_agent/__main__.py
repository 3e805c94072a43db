"""The command line: `python -m taper_agent COMMAND --help`.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 it cannot be
done, 2 the issuer or the proxy refused, 64 usage.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from biscuit_auth import BiscuitBlockError, BiscuitBuildError, Check, DataLogError

from . import caveats, files, issuer, mcp
from .capability import Roots, Terms, delegate, narrow
from .errors import Failure, Refused
from .keys import Key, parse_jwk
from .proof import prove
from .text import parse_json, printable

# What the Biscuit library throws, and what Python does when a number or a structure is too large.
_OF_LIBRARIES = (DataLogError, BiscuitBlockError, BiscuitBuildError)
_TOO_LARGE = (OverflowError, RecursionError)

# RFC 3339 section 5.6, in whole seconds.
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})"


def main(words: list[str]) -> int:
    args = _parser().parse_args(words)
    try:
        code: int = args.run(args)
        return code
    except Refused as refusal:
        print(f"refused: {printable(str(refusal))}", file=sys.stderr)
        return 2
    except (Failure, OSError, ValueError, *_OF_LIBRARIES, *_TOO_LARGE) as failure:
        print(f"failed: {printable(str(failure))}", file=sys.stderr)
        return 1


def _keygen(args: argparse.Namespace) -> int:
    key = Key.generate()
    key.save(args.out)
    print(json.dumps(key.public_jwk()))
    return 0


def _roots(args: argparse.Namespace) -> int:
    found = issuer.root_keys(args.issuer)
    Roots(found)
    files.replace(args.out, found)
    return 0


def _obtain(args: argparse.Namespace) -> int:
    token = issuer.exchange(
        args.issuer,
        args.client_id,
        _read(args.subject_token),
        Key.load(args.key),
        scopes=args.scope,
        authorization_details=args.authorization_details,
    )
    _deliver(token, args.out)
    return 0


def _narrow(args: argparse.Namespace) -> int:
    token = narrow(_read_roots(args), _read(args.capability), Key.load(args.key), _terms(args))
    _deliver(token, args.out)
    return 0


def _delegate(args: argparse.Namespace) -> int:
    to = parse_jwk(args.to if args.to.lstrip().startswith("{") else _read(Path(args.to)))
    token = delegate(_read_roots(args), _read(args.capability), Key.load(args.key), to, _terms(args))
    _deliver(token, args.out)
    return 0


def _prove(args: argparse.Namespace) -> int:
    token = _read(args.token) if args.token else None
    body = args.body.read_bytes() if args.body else None
    key = Key.load(args.key)
    print(prove(key, args.method, args.url, token=token, body=body, nonce=args.nonce))
    return 0


def _call(args: argparse.Namespace) -> int:
    arguments = {name: _value(values[0]) for name, values in _grouped(args.arguments).items()}
    if len(arguments) < len(args.arguments):
        raise Failure("an argument is there twice")
    key, token = Key.load(args.key), _read(args.token)
    result = mcp.call_tool(args.url, token, key, args.tool, arguments)
    for part in result.get("content", []):
        print(printable(part["text"] if "text" in part else json.dumps(part, ensure_ascii=False)))
    return 1 if result.get("isError") else 0


def _terms(args: argparse.Namespace) -> Terms:
    now = datetime.now(UTC)
    until = args.until or now + args.lifetime
    if until <= now:
        raise Failure("the end is not in the future")
    return Terms(until, _caveats(args), args.note, args.max_depth)


def _caveats(args: argparse.Namespace) -> list[Check]:
    """One caveat for each kind of restriction; several values of one kind are alternatives."""
    made: list[Check] = []
    tools = _grouped(args.tool, ":")
    if len(tools) > 1:
        raise Failure("tools of two servers in one block would allow none of them")
    made += [caveats.tool(server, names) for server, names in tools.items()]
    if args.server:
        made.append(caveats.server(args.server))
    for kind, names in _grouped(args.resource).items():
        if names[0].endswith("*") and len(names) == 1:
            made.append(caveats.resource_below(kind, names[0].removesuffix("*")))
        elif any(name.endswith("*") for name in names):
            raise Failure("a value that ends with `*` stands alone")
        else:
            made.append(caveats.resource_one_of(kind, names))
    for name, texts in _grouped(args.arg).items():
        values: list[caveats.Value] = [_value(text) for text in texts]
        if len(values) == 1:
            made.append(caveats.argument_equals(_pointer(name), values[0]))
        else:
            made.append(caveats.argument_one_of(_pointer(name), values))
    for name, text in _pairs(args.arg_range):
        bounds = re.fullmatch(r"(-?\d+)?\.\.(-?\d+)?", text)
        if bounds is None:
            raise Failure(f"`{text}` is no range: 1..10, 1.. or ..10")
        least, most = (None if bound is None else int(bound) for bound in bounds.groups())
        made.append(caveats.argument_range(_pointer(name), least, most))
    if args.not_before:
        made.append(caveats.not_before(args.not_before))
    return made


def _grouped(words: Iterable[str], separator: str = "=") -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, value in _pairs(words, separator):
        groups.setdefault(name, []).append(value)
    return groups


def _pairs(words: Iterable[str], separator: str = "=") -> Iterable[tuple[str, str]]:
    for word in words:
        name, found, value = word.partition(separator)
        if not name or not found:
            raise Failure(f"`{word}` is not NAME{separator}VALUE")
        yield name, value


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return parse_json(text, _no_constant)
    except ValueError:
        return text


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _pointer(name: str) -> str:
    """A plain name is a member of the arguments (RFC 6901 section 3 escapes its `~` and `/`)."""
    return name if name.startswith("/") else "/" + name.replace("~", "~0").replace("/", "~1")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()


def _read_roots(args: argparse.Namespace) -> Roots:
    return Roots(args.roots.read_bytes())


def _deliver(token: str, out: Path | None) -> None:
    if out is None:
        print(token)
        return
    files.replace(out, f"{token}\n".encode())


def _time(text: str) -> datetime:
    if re.fullmatch(_TIME, text) is None:
        raise ValueError("not a time such as 2030-01-31T09:30:00Z")
    # Some versions take the hour 24 for the next day.
    if text[11:13] == "24":
        raise ValueError("there is no hour 24")
    return datetime.fromisoformat(text)


def _duration(text: str) -> timedelta:
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not text or parts is None:
        raise ValueError("not a duration such as 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    try:
        return timedelta(hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError as error:
        raise ValueError("too long") from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="taper_agent", description="Hold, narrow, hand on and present capabilities.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    keygen = command("keygen", _keygen, "Makes a key and prints its public JWK.")
    keygen.add_argument("--out", type=Path, required=True, help="a new file for the private JWK")

    roots = command("roots", _roots, "Fetches the issuer's root keys, for working offline.")
    roots.add_argument("--issuer", required=True, metavar="URL")
    roots.add_argument("--out", type=Path, required=True)

    obtain = command("obtain", _obtain, "Exchanges an access token for a capability.")
    obtain.add_argument("--issuer", required=True, metavar="URL")
    obtain.add_argument("--client-id", required=True)
    obtain.add_argument("--subject-token", type=Path, required=True, help="a file with the access token")
    obtain.add_argument("--key", type=Path, required=True, help="the file with our private JWK")
    obtain.add_argument("--scope", action="append", metavar="SERVER:TOOL", help="or SERVER:*; may repeat")
    obtain.add_argument("--authorization-details", metavar="JSON", help="RFC 9396")
    obtain.add_argument("--out", type=Path, help="a file for the capability")

    to = command("delegate", _delegate, "Hands the capability on to another key.")
    to.add_argument("--to", required=True, metavar="JWK", help="the public JWK, or a file with it")
    for added in (to, command("narrow", _narrow, "Restricts our own capability.")):
        added.add_argument("capability", type=Path, help="a file with the capability")
        added.add_argument("--key", type=Path, required=True, help="the current holder's private JWK")
        added.add_argument("--roots", type=Path, required=True, help="the issuer's root keys")
        added.add_argument("--out", type=Path, help="a file for the new capability")
        end = added.add_mutually_exclusive_group(required=True)
        end.add_argument("--until", type=_time, metavar="TIME", help="2030-01-31T09:30:00Z")
        end.add_argument("--for", type=_duration, dest="lifetime", metavar="DURATION", help="1h30m")
        for option, form in (
            ("--tool", "SERVER:TOOL"),
            ("--server", "SERVER"),
            ("--resource", "KIND=VALUE"),
            ("--arg", "NAME=VALUE"),
            ("--arg-range", "NAME=MIN..MAX"),
        ):
            added.add_argument(option, action="append", default=[], metavar=form, help="may repeat")
        added.add_argument("--not-before", type=_time, metavar="TIME")
        added.add_argument("--max-depth", type=int, metavar="N", help="hand-overs from the issuer on")
        added.add_argument("--note", help="a word to whoever reads the chain")

    proof = command("prove", _prove, "Prints a DPoP proof for one request.")
    proof.add_argument("--key", type=Path, required=True)
    proof.add_argument("--method", default="POST")
    proof.add_argument("--url", required=True)
    proof.add_argument("--token", type=Path, help="a file with the capability that is presented")
    proof.add_argument("--body", type=Path, help="a file with the exact bytes that are sent")
    proof.add_argument("--nonce", help="the server's DPoP-Nonce")

    call = command("call", _call, "Calls a tool through the proxy.")
    call.add_argument("--url", required=True, help="the MCP server, as its proxy gives it")
    call.add_argument("--token", type=Path, required=True, help="a file with the capability")
    call.add_argument("--key", type=Path, required=True, help="its holder's private JWK")
    call.add_argument("tool")
    call.add_argument("arguments", nargs="*", metavar="NAME=VALUE")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
