"""Writes the seeds of the fuzz targets: fuzz/seeds.py CORPUS_FOLDER.

What the test vectors carry, the example policies, the Datalog of the caveats' page, a few forms, and
chance.
A seed is named by its hash, so that writing twice changes nothing.
"""

import base64
import binascii
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORMS = [
    "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=a.b.c"
    "&subject_token_type=urn:ietf:params:oauth:token-type:access_token"
    "&requested_token_type=urn:taper:params:oauth:token-type:capability"
    "&scope=git:git_log+git:*&resource=https%3A%2F%2Fproxy.example%2Fgit%2Fmcp",
    "grant_type=client_credentials&client_id=dev&client_secret=s&scope=git:git_log",
    "grant_type=authorization_code&code=c&redirect_uri=http%3A%2F%2F127.0.0.1%2F&code_verifier=v&client_id=dev",
    "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=a.b.c"
    "&authorization_details=%5B%7B%22type%22%3A%22mcp%22%2C%22server%22%3A%22git%22%2C%22tools%22%3A%5B"
    "%22git_log%22%5D%2C%22resources%22%3A%7B%22repo%22%3A%5B%22acme%2Fweb%22%5D%7D%7D%5D",
]

# What proves the first record of a journal whose key stands in the target.
RECEIPT = {
    "origin": "taper.invalid/journal/issuer",
    "index": 0,
    "salt": "f9e4087ca215de9b14685cd739afbfc2",
    "payload": "{\"at_ms\":1795255712130,\"kind\":\"started\",\"role\":\"issuer\"}",
    "proof": ["Ku8+1nFjQdOl1akViqd8kcaHDMzLIw2LVGFCzQ713w0=", "NwqhM5koFs1FgZckl7Uh2Mu9nNjp6NVStNDON3sIFGY=", "JqVqybqFXt71iLuU+Cb7KG2N8QJQgUqNGgt4Gsmi/D8="],
    "checkpoint": "taper.invalid/journal/issuer\n5\nY/z8M2Cc5nDdKifB78dKTuRFKbuDaDY6rsr28fRWZdY=\n\n— taper.invalid/journal/issuer xv4A8ywbo7NbPHyL+evyudHpYT9ELAtd+cyM7GEAKhOfLiIWpH9mAmi1LN7NUDUUhQeQcgIV3xEU/u0MYed0aAsi1A0=\n",
}
# One of each on the key agent's socket, and two answers.
AGENT = [
    {"op": "list"},
    {"op": "prove", "key": "A" * 43, "htm": "POST", "htu": "https://p.example/git/mcp", "ath": "A" * 43, "nonce": "n",
     "content_digest": "sha-256=:" + "A" * 43 + "=:"},
    {"op": "append", "key": "A" * 43, "token": "t", "to": {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43},
     "until": 1795255712, "caveats": [], "max_depth": 2, "note": "n"},
    {"op": "add", "private": "{}", "name": "key.jwk", "for": 60, "delegate": True},
    {"op": "generate", "for": 60},
    {"op": "remove", "key": "A" * 43},
    {"op": "lock"},
    {"proof": "a.b.c"},
    {"error": "no"},
]
PAGES = [
    {
        "issuer": "https://issuer.example",
        "after": 0,
        "entries": [
            {"seq": 1, "at": 1, "issuer": "https://issuer.example", "what": {"grant": "g"}, "until": 9},
            {"seq": 2, "at": 1, "issuer": "https://issuer.example", "what": {"subject": {"iss": "i", "sub": "s"}}},
            {
                "seq": 3,
                "at": 1,
                "issuer": "https://issuer.example",
                "what": {"delegation": {"grant": "g", "from": "A" * 43, "to": "A" * 42 + "E"}},
            },
        ],
        "head": 3,
        "upto": 3,
        "history": "A" * 43,
        "known": {"seq": 0, "history": None},
        "time": 5,
    },
]
# Streams with each line end, comments, marks and an unfinished event; the first bytes are the target's own.
STREAMS = [
    b": hello\n\nid: 1\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":1}\n\n",
    b"\xef\xbb\xbfdata: a\r\n\r\ndata:b\rdata\r\rretry: 10\n\n",
    b"id: 1\ndata:\n\ndata: no end\n",
]
TOOL = {
    "name": "look", "title": "T", "annotations": {"readOnlyHint": True, "openWorldHint": False},
    "inputSchema": {"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "at": {"properties": {"n": {"type": "integer", "x-mcp-header": "N"}}}}},
    "_meta": {"n": [1, 1.5, -0.0, 1e21]},
}
ANSWERS = [
    {"jsonrpc": "2.0", "id": 1, "result": {"tools": [TOOL, {"name": "b"}, {"name": "c"}], "ttlMs": 0, "cacheScope": "public"}},
    {"jsonrpc": "2.0", "id": 1, "result": {
        "resources": [{"uri": "repo://a/b"}], "resourceTemplates": [{"uriTemplate": "repo://{a}"}],
        "prompts": [{"name": "p"}], "tasks": [{"taskId": "t"}], "nextCursor": "c"}},
    {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}},
]


def from_base64url(text: str) -> bytes | None:
    """The bytes of a text in base64url without padding, if it is that."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


def of_vectors() -> Iterator[tuple[str, bytes]]:
    """What each vector carries, with the target that reads it."""
    for path in sorted((ROOT / "spec" / "vectors").rglob("*.json")):
        vector = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(vector, dict):
            continue
        token, proof = vector.get("token"), vector.get("proof")
        if isinstance(token, str) and (bytes_ := from_base64url(token)) is not None:
            yield "token_decode", bytes_
        if isinstance(proof, str):
            yield "proof_parse", proof.encode()
        arguments = (vector.get("access") or {}).get("arguments")
        if isinstance(arguments, str):
            yield "json_parse", arguments.encode()
        body = (vector.get("request") or {}).get("body")
        if isinstance(body, str) and (bytes_ := from_base64url(body)) is not None:
            yield "json_parse", bytes_
        for policy in vector.get("policy") or []:
            yield "policy_source", str(policy).encode()


def of_files() -> Iterator[tuple[str, bytes]]:
    """What stands in files for people."""
    for path in sorted(ROOT.glob("examples/policies/*.dl")) + sorted(ROOT.glob("crates/taper/policies/*.dl")):
        yield "policy_source", path.read_bytes()
    for row in (ROOT / "spec" / "caveats.md").read_text(encoding="utf-8").splitlines():
        if "| `check " in row:
            # `s` says that the rest is source.
            yield "caveat_readback", b"s" + row.split("`")[1].encode()
    for form in FORMS:
        yield "token_request", form.encode()
    header = {"alg": "EdDSA", "kid": "1", "typ": "taper-revocations+jws"}
    jws = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=") + b".." + b"A" * 86
    for page in PAGES:
        yield "feed_page", jws + b"\n" + json.dumps(page).encode()
    for line in AGENT:
        yield "agent_wire", json.dumps(line).encode()
    yield "receipt_verify", json.dumps(RECEIPT).encode()
    for number, stream in enumerate(STREAMS):
        yield "event_stream", bytes([12 + 20 * number, 1, 2, 3, 4, 5, 6, 7]) + stream
    for answer in ANSWERS:
        yield "list_answer", json.dumps(answer).encode()


def of_chance() -> Iterator[tuple[str, bytes]]:
    """For the targets whose input is a plan: long ones, as libFuzzer begins with short ones."""
    for number in range(64):
        plan = hashlib.shake_256(number.to_bytes(2)).digest(32 + number * 12)
        yield "chain_verify", plan
        yield "caveat_readback", plan


def main() -> None:
    """Writes every seed into the folder of its target."""
    corpora = Path(sys.argv[1])
    count = 0
    for target, seed in [*of_vectors(), *of_files(), *of_chance()]:
        folder = corpora / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha256(seed).hexdigest()[:40]).write_bytes(seed)
        count += 1
    print(f"{count} seeds in {corpora}")


if __name__ == "__main__":
    main()
