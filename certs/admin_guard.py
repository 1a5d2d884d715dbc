"""Guards every admin port: the right Host, no foreign Origin, and a bearer token (design.md 4.7).

The token is made at the first start and kept in a file that only its owner can read. The Host check keeps out a page whose
name was rebound to our address; the Origin check a page that a browser has open elsewhere.
"""

import hmac
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from certs.errors import MalformedMessage, shorten
from certs.whole_file import write_once

log = structlog.get_logger()

MIN_TOKEN_LENGTH: Final = 16
_HOST: Final = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def load_token(path: Path) -> str:
    """The token of `path`, made there (0600) on first use. Raises MalformedMessage for one too weak to guard anything."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        if path.stat().st_mode & 0o077:
            log.warning("token_file_was_open_to_others", path=str(path))
            path.chmod(0o600)
        data = path.read_bytes()
    else:
        data = write_once(path, secrets.token_urlsafe(32).encode() + b"\n")
    token = data.strip().decode(errors="replace")
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or any(c.isspace() for c in token):
        raise MalformedMessage(
            str(path), f"one token of at least {MIN_TOKEN_LENGTH} ASCII characters (or no file)"
        )
    return token


def admin_middleware(token: str, hosts: Callable[[], set[str]]) -> Middleware:
    """Let a request through when Host, Origin and token are right; else 421, 403 or 401 and one log line.

    `hosts` names what may stand in the Host header: `name:port`, or `name` for any port. It is asked at each request,
    as the port is known only once the server listens.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        allowed = {host.lower() for host in hosts()}
        host = request.headers.get("Host", "")
        origin = request.headers.get("Origin")
        if not _is_allowed(host, allowed):
            return _refuse(request, 421, "host", "this server does not go by that name")
        if origin is not None and not _is_allowed(origin.partition("://")[2], allowed):
            return _refuse(request, 403, "origin", "requests from other web sites are refused")
        given = _bearer(request)
        if given is None or not hmac.compare_digest(given, token.encode()):
            refusal = _refuse(request, 401, "token", "a bearer token is needed")
            challenge = 'Bearer realm="admin"'
            if given is not None:
                challenge += ', error="invalid_token"'  # RFC 6750, section 3.1
            refusal.headers["WWW-Authenticate"] = challenge
            return refusal
        return await handler(request)

    return guard


def _is_allowed(host: str, allowed: set[str]) -> bool:
    """`host` as it came, with or without its port; an IPv6 address stands in brackets."""
    parts = _HOST.fullmatch(host.lower())
    return parts is not None and (parts[0] in allowed or parts["name"] in allowed)


def _bearer(request: web.Request) -> bytes | None:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        return None
    return value.strip().encode(errors="surrogateescape")


def _refuse(request: web.Request, status: int, reason: str, detail: str) -> web.Response:
    log.warning(
        "admin_request_refused",
        reason=reason,
        status=status,
        method=request.method,
        path=shorten(request.path),
        host=shorten(request.headers.get("Host")),
        origin=shorten(request.headers.get("Origin")),
        remote=request.remote,
    )
    return web.json_response({"error": reason, "detail": detail}, status=status)
