"""What one HTTP request is before it meets a socket: its origin, its bytes, and what a redirect makes of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Self
from urllib.parse import quote, urljoin, urlsplit

from certs.errors import MalformedMessage
from certs.hosts import DEFAULT_PORTS, place_of

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
WRITTEN_HERE: Final = frozenset({"host", "content-length", "transfer-encoding"})
FOR_ONE_ORIGIN: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
PLAIN_PATH: Final = re.compile(r"/[a-zA-Z0-9/._~-]*")  # all of it, without a query
HOST: Final = re.compile(r"[a-zA-Z0-9._:%-]+")
URL_CHARACTERS: Final = (
    "!#$%&'()*+,/:;=?@[]~-._"  # reserved and unreserved ones (RFC 3986, section 2)
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port (RFC 6454): connections, identities and passwords belong to one."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingRequest:
    """What is about to be sent; a FaultPoint sees it as `message`."""

    method: str
    url: str
    headers: Mapping[str, str]  # names in lower case, all that the caller and the session want
    body: bytes
    device: str = ""

    @property
    def origin(self) -> Origin:
        """Raises MalformedMessage for a URL that names no place."""
        return _origin(self.url)

    def to_bytes(self) -> bytes:
        """Head and body (RFC 9112, section 3)."""
        lines = [f"{self.method} {self._target()} HTTP/1.1", f"Host: {self.origin.authority}"]
        lines += [f"{_title(name)}: {value}" for name, value in self.headers.items()]
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(self.body)}")
        lines += ["", ""]
        head, breaks = "\r\n".join(lines), len(lines) - 1
        if head.count("\r") != breaks or head.count("\n") != breaks:
            raise ValueError("a header must not contain a line break")
        return head.encode("latin-1") + self.body

    def redirected(self, status: int, location: str) -> Self:
        """The request that follows an answer of `status` and `location` (RFC 9110, section 15.4).

        Devices send a PUT or POST again as it was, also after 301 and 302; only 303 asks for a GET.
        """
        url = urljoin(self.url, location.strip())
        method, headers, body = self.method, dict(self.headers), self.body
        if status == 303 and method != "HEAD":
            method, body = "GET", b""
            headers.pop("content-type", None)
        target = replace(self, method=method, url=url, headers=headers, body=body)
        if target.origin != self.origin:
            for name in FOR_ONE_ORIGIN & headers.keys():
                del headers[name]
        return target

    def _target(self) -> str:
        path = self.url[len(place_of(self.url)) :]
        if PLAIN_PATH.fullmatch(path):
            return path
        parts = urlsplit(self.url)
        target = quote(parts.path or "/", safe=URL_CHARACTERS)
        return f"{target}?{quote(parts.query, safe=URL_CHARACTERS)}" if parts.query else target


def _origin(url: str) -> Origin:
    try:
        return _origin_of(place_of(url))
    except ValueError as error:
        raise MalformedMessage("URL", "http:// or https:// and a host", url) from error


@lru_cache(maxsize=1024)  # asked thrice for every request
def _origin_of(url: str) -> Origin:
    """Raises ValueError."""
    parts = urlsplit(url)
    host, port = (parts.hostname or "").rstrip("."), parts.port
    if ":" not in host:
        host = host.encode("idna").decode()  # RFC 3490; refuses empty and endless labels
    if parts.scheme not in DEFAULT_PORTS or not HOST.fullmatch(host):
        raise ValueError("no place")
    return Origin(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme])


def leads_to_http(url: str, location: str) -> bool:
    """Whether a Location, seen from `url`, is of a scheme that a transport speaks."""
    return urlsplit(urljoin(url, location.strip())).scheme in DEFAULT_PORTS


def merged_headers(defaults: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The caller's headers over the session's, names in lower case."""
    headers = dict(defaults)
    for name, value in wanted.items():
        lower = name.lower()
        if lower in WRITTEN_HERE:
            raise ValueError(f"the transport itself writes {name}")
        headers[lower] = value
    return headers


@lru_cache(maxsize=256)
def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))
