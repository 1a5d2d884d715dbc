"""Where an outgoing request may go: mapped to a stand-in, straight to its host, or nowhere.

Every outgoing door (device Transport, admin clients, proxies, each redirect hop) asks a `HostMap` first, so that
no virtual device ever reaches a real Apple service.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

from certs.errors import ForbiddenHost, MalformedMessage

APPLE_DOMAINS: Final = ("apple.com", "icloud.com", "cdn-apple.com", "mzstatic.com")
DEFAULT_PORTS: Final = {"https": 443, "http": 80}
MAX_KNOWN: Final = 1024  # places whose destination a map keeps
PLACE: Final = re.compile(r"[^/]*(?://[^/?#]*)?")


def is_apple_host(host: str) -> bool:
    """True for Apple's domains and their subdomains, however they are written."""
    name = host.rstrip(".").lower()
    return any(name == domain or name.endswith(f".{domain}") for domain in APPLE_DOMAINS)


def ascii_host(host: str) -> str:
    """The name that a resolver would look up: full-width letters and other dots become plain ones (IDNA, RFC 3490).

    Raises MalformedMessage for what is no host name.
    """
    name = host.rstrip(".")
    if name.isascii():
        return name.lower()
    try:
        return name.encode("idna").decode("ascii").rstrip(".").lower()
    except UnicodeError:
        raise MalformedMessage("host", "a host name", host) from None


def is_loopback(host: str) -> bool:
    """True for `localhost` and for the addresses of the loopback range."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to connect; URL, Host header and server name (SNI) stay those of the request."""

    host: str
    port: int
    tls: bool


def place_of(url: str) -> str:
    """Of a URL the part that says where it leads, scheme and authority (RFC 3986, section 3.2).

    Decisions about a place are kept by it, as the paths of a run are without number.
    """
    place = PLACE.match(url)
    assert place is not None  # it may be empty
    return place[0]


@dataclass(frozen=True, slots=True)
class HostMap:
    """The `--map` rules of one run, by (host, port or None for every port)."""

    rules: dict[tuple[str, int | None], Destination] = field(default_factory=dict)
    _known: dict[str, Destination] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def parse(cls, rules: list[str]) -> Self:
        """Read `HOST[:PORT]=HOST:PORT` and `https://HOST[:PORT]=http://127.0.0.1:PORT` rules.

        Raises MalformedMessage for a rule that cannot be read, ForbiddenHost for an Apple name that would leave loopback.
        """
        parsed: dict[tuple[str, int | None], Destination] = {}
        for rule in rules:
            source, arrow, target = rule.partition("=")
            if not arrow:
                raise MalformedMessage("--map", "HOST[:PORT]=HOST:PORT", rule)
            host, port, _ = _endpoint(source, rule)
            target_host, target_port, scheme = _endpoint(target, rule)
            if target_port is None:
                raise MalformedMessage("--map", "a port after the target host", rule)
            tls = scheme != "http"
            if not tls and not is_loopback(target_host):
                raise MalformedMessage("--map", "plain http only to a loopback address", rule)
            if is_apple_host(target_host):
                raise ForbiddenHost(target_host)
            if is_apple_host(host) and not is_loopback(target_host):
                raise ForbiddenHost(host)
            parsed[host, port] = Destination(target_host, target_port, tls)
        return cls(parsed)

    def resolve(self, url: str) -> Destination:
        """Say where a request for `url` connects. Raises ForbiddenHost for an unmapped Apple name."""
        place = place_of(url)
        known = self._known.get(place)
        if known is None:
            known = self._resolve(place)
            if len(self._known) < MAX_KNOWN:
                self._known[place] = known
        return known

    def _resolve(self, url: str) -> Destination:
        parts = urlsplit(url)
        host = ascii_host(parts.hostname or "")
        if parts.scheme not in DEFAULT_PORTS or not host:
            raise MalformedMessage("URL", "http:// or https:// and a host", url)
        try:
            port = parts.port or DEFAULT_PORTS[parts.scheme]
        except ValueError:
            raise MalformedMessage("URL", "a port from 1 to 65535", url) from None
        mapped = self.rules.get((host, port)) or self.rules.get((host, None))
        if mapped is not None:
            # A plain request stays plain; only `https://…=http://…` takes TLS away.
            return Destination(mapped.host, mapped.port, mapped.tls and parts.scheme == "https")
        if is_apple_host(host):
            raise ForbiddenHost(host)
        return Destination(host, port, parts.scheme == "https")


def _endpoint(text: str, rule: str) -> tuple[str, int | None, str]:
    """Split `[scheme://]host[:port]`; an IPv6 host stands in brackets."""
    scheme, separator, rest = text.strip().rpartition("://")
    if separator and scheme not in DEFAULT_PORTS:
        raise MalformedMessage("--map", "http:// or https://", rule)
    parts = urlsplit(f"//{rest}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        raise MalformedMessage("--map", "a port from 1 to 65535", rule) from None
    if port == 0:
        raise MalformedMessage("--map", "a port from 1 to 65535", rule)
    if not host or parts.path or parts.query or parts.username:
        raise MalformedMessage("--map", "HOST[:PORT]", rule)
    return ascii_host(host), port, scheme
