"""Challenge http-01 for DNS names (RFC 8555, section 8.3), so that ordinary ACME programs can test a server of ours.

In comes a name with a key authorization, out comes nothing, or the problem of why the name is not proved. Whoever asks
for the file, asks on loopback: no name is ever looked up, so nothing leaves the machine whatever an order names.
"""

import asyncio
import hmac
import re
from typing import Final, Protocol

import aiohttp

from certs.acme.problem import problem
from certs.errors import MalformedMessage
from certs.hosts import is_apple_host

CHALLENGE_TYPE: Final = "http-01"
DNS: Final = "dns"
TIMEOUT_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 4096  # a key authorization has about 90
WELL_KNOWN: Final = "/.well-known/acme-challenge/"

_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")


class Unreachable(Exception):
    """No answer came."""


class Http01Fetcher(Protocol):
    """Gets what the web server of a name shows."""

    async def fetch(self, name: str, path: str) -> tuple[int, bytes]:
        """Status and body. Raises Unreachable."""
        ...


class LoopbackFetcher:
    """Asks 127.0.0.1 on one port for every name; redirections are not followed."""

    def __init__(self, port: int = 80) -> None:
        self._port = port

    async def fetch(self, name: str, path: str) -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{self._port}{path}"
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, headers={"Host": name}, allow_redirects=False) as answer,
            ):
                return answer.status, await answer.content.read(MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error


def check_name(name: str) -> None:
    """Raises MalformedMessage for what is no DNS name in lower case, AcmeProblem for one that cannot be proved here."""
    if name.startswith("*."):
        raise problem("rejectedIdentifier", "a wildcard cannot be proved by http-01")
    # What ends in a number is an IPv4 address to whoever opens it, and has an identifier type of its own (RFC 8738).
    if len(name) > 253 or not _NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise MalformedMessage(DNS, "a DNS name in lower case", name)
    if is_apple_host(name):
        raise problem("rejectedIdentifier", "names of Apple's get no certificate here")


async def prove(fetcher: Http01Fetcher, name: str, token: str, key_authorization: str) -> None:
    """Raises AcmeProblem connection or incorrectResponse."""
    try:
        async with asyncio.timeout(2 * TIMEOUT_S):  # whatever the fetcher's own is
            status, body = await fetcher.fetch(name, WELL_KNOWN + token)
    except (Unreachable, TimeoutError) as error:
        raise problem("connection", f"{name} does not answer: {error}"[:200]) from error
    if status != 200:
        raise problem("incorrectResponse", f"{name} answers with status {status}")
    if not hmac.compare_digest(body.rstrip(), key_authorization.encode()):
        raise problem("incorrectResponse", f"{name} does not show the key authorization")
