"""The extern functions of checks (`caveats.md`): what literal each takes (P-20) and what each says of a value.

Nothing is normalised: a value that is not in the one accepted form does not fit.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from .datalog import Value
from .pattern import Pattern, parse_pattern

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")

# --- path_within ----------------------------------------------------------------------------------

_PATH_MAX, _ROOT_MAX = 4_096, 1_024
_NO_PATH_CHARACTER = re.compile(r"[\x00-\x1f\x7f\\%]")


def is_canonical_path(path: str) -> bool:
    """One reading only: no escapes, no `.` or `..`, nothing that a file system trims."""
    if not 1 <= len(path.encode()) <= _PATH_MAX or _NO_PATH_CHARACTER.search(path) or path.startswith("~"):
        return False
    if path == "/":
        return True
    segments = path.removeprefix("/").split("/")
    return all(segment and segment[-1] not in ". " for segment in segments)


def is_root(root: str) -> bool:
    """The literal of `path_within`."""
    return is_canonical_path(root) and len(root.encode()) <= _ROOT_MAX


def path_within(path: str, root: str) -> bool:
    """Whether the path is the root or below it."""
    if not is_canonical_path(path) or path.startswith("/") != root.startswith("/"):
        return False
    return root == "/" or path == root or path.startswith(root + "/")


# --- url_host -------------------------------------------------------------------------------------

_DEFAULT_PORTS = {"https": 443, "http": 80}
_URL_MAX, _NAME_MAX = 2_048, 253
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?=[a-z]){_LABEL}\Z")
_OCTET = r"(?:0|[1-9][0-9]{0,2})"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(.*))?\Z", re.DOTALL)
# RFC 3986: pchar and "/", then "?" as well.
_PATH_CHARACTERS = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*"
_QUERY_CHARACTERS = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*"
_URL = re.compile(
    rf"(https?)://([^/?#]*)((?:/{_PATH_CHARACTERS})?)(?:\?{_QUERY_CHARACTERS})?(?:#{_QUERY_CHARACTERS})?\Z"
)


@dataclass(frozen=True)
class HostEntry:
    """`[scheme://]host[:port]`; no scheme is either, no port is that of the scheme."""

    scheme: str | None
    host: str
    port: int | None


def parse_host_entry(text: str) -> HostEntry | None:
    """An entry of `url_host`'s literal, None when it is none."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    elif scheme not in _DEFAULT_PORTS:
        return None
    split = _split_host(rest)
    if split is None:
        return None
    host, port = split
    if not is_host(host.removeprefix("*.")) or (host.startswith("*.") and not is_name(host[2:])):
        return None
    if port is not None and port == _DEFAULT_PORTS.get(scheme):
        return None
    return HostEntry(scheme or None, host, port)


def url_host(url: str, entries: list[HostEntry]) -> bool:
    """Whether the value is a plain URL of one of the entries."""
    match = _URL.match(url) if len(url.encode()) <= _URL_MAX else None
    split = _split_host(match[2]) if match else None
    if match is None or split is None:
        return False
    scheme, path = match[1], match[3]
    host, port = split
    if not is_host(host) or port == _DEFAULT_PORTS[scheme]:
        return False
    if any(re.sub("%2e", ".", segment, flags=re.IGNORECASE) in (".", "..") for segment in path.split("/")):
        return False
    effective = port if port is not None else _DEFAULT_PORTS[scheme]
    return any(_fits(entry, scheme, host, effective) for entry in entries)


def is_host(host: str) -> bool:
    """A name, an IPv4 address, or an IPv6 address in brackets."""
    if host.startswith("["):
        return host.endswith("]") and isinstance(parse_address(host[1:-1]), ipaddress.IPv6Address)
    return is_name(host) or isinstance(parse_address(host), ipaddress.IPv4Address)


def is_name(host: str) -> bool:
    """A lower-case host name whose last label begins with a letter."""
    return len(host) <= _NAME_MAX and _NAME.match(host) is not None


def _split_host(text: str) -> tuple[str, int | None] | None:
    match = _HOST_AND_PORT.match(text)
    if match is None:
        return None
    if match[2] is None:
        return match[1], None
    if not _PORT.match(match[2]) or int(match[2]) > 65_535:
        return None
    return match[1], int(match[2])


def _fits(entry: HostEntry, scheme: str, host: str, port: int) -> bool:
    if entry.scheme not in (None, scheme):
        return False
    if port != (entry.port if entry.port is not None else _DEFAULT_PORTS[scheme]):
        return False
    return host.endswith(entry.host[1:]) if entry.host.startswith("*.") else host == entry.host


# --- in_network -----------------------------------------------------------------------------------


def parse_address(text: str) -> Address | None:
    """An address in its one form: decimal IPv4, or IPv6 as RFC 5952 writes it, not IPv4-mapped, without a zone."""
    if _IPV4.match(text):
        return ipaddress.IPv4Address(text) if all(int(octet) <= 255 for octet in text.split(".")) else None
    if "%" in text or "." in text:
        return None
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return None
    return address if str(address) == text and address.ipv4_mapped is None else None


def parse_network(text: str) -> Network | None:
    """`address/length`, the bits after the length zero."""
    address_text, separator, length_text = text.partition("/")
    address = parse_address(address_text)
    if address is None or not separator or not re.match(r"(?:0|[1-9][0-9]{0,2})\Z", length_text):
        return None
    try:
        return ipaddress.ip_network((address, int(length_text)))
    except ValueError:
        return None


def in_network(text: str, networks: list[Network]) -> bool:
    """Whether the value is an address within one of the networks."""
    address = parse_address(text)
    return address is not None and any(address.version == n.version and address in n for n in networks)


# --- in_hours -------------------------------------------------------------------------------------

_MINUTE, _DAY = 60, 86_400
_HOURS = re.compile(
    r"([0-9]{2}):([0-5][0-9])/([0-9]{2}):([0-5][0-9])/(?:Z|([+-])([0-9]{2}):([0-5][0-9]))/([1-7]{1,7})\Z"
)


@dataclass(frozen=True)
class Hours:
    """Seconds of the day `[start, end)` at an offset in seconds from UTC, on days 1 (Monday) to 7."""

    start: int
    end: int
    offset: int
    days: frozenset[int]


def parse_hours(text: str) -> Hours | None:
    """The literal of `in_hours`."""
    match = _HOURS.match(text)
    if match is None:
        return None
    start = (int(match[1]) * 60 + int(match[2])) * _MINUTE
    end = (int(match[3]) * 60 + int(match[4])) * _MINUTE
    offset = 0
    if match[5]:
        offset = (int(match[6]) * 60 + int(match[7])) * _MINUTE
        if not 0 < offset <= 14 * 60 * _MINUTE:
            return None
        offset = -offset if match[5] == "-" else offset
    days = match[8]
    if start >= _DAY or not 0 < end <= _DAY or start == end or list(days) != sorted(set(days)):
        return None
    return Hours(start, end, offset, frozenset(int(day) for day in days))


def in_hours(time: int, hours: Hours) -> bool:
    """Whether the time is in the window; one over midnight belongs to the day on which it begins."""
    day, second = divmod(time + hours.offset, _DAY)
    if hours.start < hours.end:
        return hours.start <= second < hours.end and _weekday(day) in hours.days
    if second >= hours.start:
        return _weekday(day) in hours.days
    return second < hours.end and _weekday(day - 1) in hours.days


def _weekday(day: int) -> int:
    """The weekday of a day since the epoch, a Thursday."""
    return (day + 3) % 7 + 1


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    """`prepare` makes of a literal what `holds` takes, None when it does not take it; `left` is the value's type."""

    left: str
    prepare: Callable[[Value], object | None]
    holds: Callable[..., bool]


def _of_string(parse: Callable[[str], T | None]) -> Callable[[Value], T | None]:
    return lambda literal: parse(literal[1]) if literal[0] == "string" else None


def _of_strings(parse: Callable[[str], T | None]) -> Callable[[Value], list[T] | None]:
    def prepare(literal: Value) -> list[T] | None:
        kind, members = literal
        if kind != "set" or not members or any(member[0] != "string" for member in members):
            return None
        parsed = [parse(content) for _, content in members]
        return None if None in parsed else [entry for entry in parsed if entry is not None]

    return prepare


def _full_match(text: str, pattern: Pattern) -> bool:
    return pattern.matches(text)


FUNCTIONS: dict[str, Function] = {
    "path_within": Function("string", _of_string(lambda root: root if is_root(root) else None), path_within),
    "url_host": Function("string", _of_strings(parse_host_entry), url_host),
    "in_network": Function("string", _of_strings(parse_network), in_network),
    "full_match": Function("string", _of_string(parse_pattern), _full_match),
    "in_hours": Function("date", _of_string(parse_hours), in_hours),
}
