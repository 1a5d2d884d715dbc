"""A CONNECT proxy that takes a server under test to the stand-ins when it means Apple, and nowhere else (RFC 9110, 9.3.6).

For servers whose Apple URLs are constants: they honour `HTTPS_PROXY`, and the stand-ins present certificates for Apple's
names (`proxy_authority`). Every other host is a 403, and no connection ever leaves loopback: the proxy dials what it was
given at the start, never a name that a client says.
"""

import asyncio
import re
import ssl
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import structlog

from certs.hosts import is_loopback
from emulator.config import CONNECT_TIMEOUT_S
from emulator.errors import ConfigurationError

log = structlog.get_logger()

PUSH_NAMES: Final = (
    "api.push.apple.com",
    "api.sandbox.push.apple.com",
    "api.development.push.apple.com",
)
SERVICE_NAMES: Final = (
    "mdmenrollment.apple.com",
    "deviceenrollment.apple.com",
    "iprofiles.apple.com",
    "albert.apple.com",
    "deviceservices-external.apple.com",
)
NAMES: Final = (*PUSH_NAMES, *SERVICE_NAMES)
PUSH_PORTS: Final = (443, 2197)
MAX_HEAD_BYTES: Final = 8192
MAX_TUNNELS: Final = 1024
CHUNK_BYTES: Final = 64 * 1024

_REQUEST: Final = re.compile(rb"([A-Z]+) ([^ ]+) HTTP/1\.[01]")
_AUTHORITY: Final = re.compile(r"([a-z0-9.-]+|\[[0-9a-f:.]+\]):([0-9]{1,5})")

Routes = Mapping[tuple[str, int], tuple[str, int]]  # what clients say -> where the stand-in is


class ConnectProxy:
    """Listens on loopback; an async context manager."""

    def __init__(self, routes: Routes, *, port: int = 0) -> None:
        """Raises ConfigurationError for a route that leaves loopback."""
        away = [f"{host}:{port}" for host, port in routes.values() if not is_loopback(host)]
        if away:
            raise ConfigurationError("proxy", [f"{target} is not loopback" for target in away])
        self._routes = dict(routes)
        self._wanted_port = port
        self._tunnels: set[asyncio.Task[None]] = set()
        self.port = 0
        self.refused = 0
        self.connected = 0

    @property
    def url(self) -> str:
        """For `HTTPS_PROXY`."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self._wanted_port, limit=MAX_HEAD_BYTES
        )
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("proxy_started", url=self.url, names=sorted({host for host, _ in self._routes}))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tunnels:
            task.cancel()
        await asyncio.gather(*self._tunnels, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tunnels.add(task)
        task.add_done_callback(self._tunnels.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._tunnels) > MAX_TUNNELS:
                await self._refuse(writer, 503, "Service Unavailable", "too many tunnels")
                return
            target = await self._target(reader, writer)
            if target is not None:
                await self._tunnel(reader, writer, target)
        except (ConnectionError, TimeoutError, ssl.SSLError) as error:
            log.debug("proxy_connection_ended", reason=type(error).__name__)
        finally:
            writer.close()

    async def _target(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int] | None:
        """Where the client may go; None when it was refused."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            await self._refuse(writer, 431, "Request Header Fields Too Large", "head too large")
            return None
        request = _REQUEST.fullmatch(head.partition(b"\r\n")[0])
        if request is None:
            await self._refuse(writer, 400, "Bad Request", "not HTTP/1.1")
            return None
        if request[1] != b"CONNECT":
            await self._refuse(
                writer, 405, "Method Not Allowed", request[1].decode(), allow="CONNECT"
            )
            return None
        authority = _AUTHORITY.fullmatch(request[2].decode("latin-1").lower())
        if authority is None:
            await self._refuse(writer, 400, "Bad Request", "not host:port")
            return None
        asked = (authority[1].rstrip("."), int(authority[2]))
        target = self._routes.get(asked)
        if target is None:
            self.refused += 1
            await self._refuse(writer, 403, "Forbidden", f"{asked[0][:100]}:{asked[1]}")
        return target

    async def _tunnel(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        target: tuple[str, int],
    ) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                far_reader, far_writer = await asyncio.open_connection(*target)
        except (OSError, TimeoutError):
            await self._refuse(writer, 502, "Bad Gateway", "the stand-in is not there")
            return
        self.connected += 1
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_relay(reader, far_writer))
                both.create_task(_relay(far_reader, writer))
        except* ConnectionError:
            pass  # either side may hang up as it likes
        finally:
            far_writer.close()

    async def _refuse(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        words: str,
        reason: str,
        *,
        allow: str | None = None,
    ) -> None:
        log.warning("proxy_refused", status=status, reason=reason)
        text = f"{words}: this proxy leads to stand-ins of mapped names only\n".encode()
        allowed = f"Allow: {allow}\r\n" if allow else ""
        writer.write(
            f"HTTP/1.1 {status} {words}\r\nContent-Type: text/plain\r\n{allowed}"
            f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode()
            + text
        )
        await writer.drain()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until either end; a full writer holds the reader back."""
    while data := await reader.read(CHUNK_BYTES):
        if writer.is_closing():  # uvloop has no other word for it than a RuntimeError
            return
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof() and not writer.is_closing():
        with suppress(
            OSError
        ):  # the far side has reset what is to be shut: nothing is left to tell it
            writer.write_eof()


def routes_to(services: tuple[str, int], push: tuple[str, int]) -> Routes:
    """Apple's names, mapped to the stand-ins of one `AppleServices`."""
    return {
        **{(name, 443): services for name in SERVICE_NAMES},
        **{(name, port): push for name in PUSH_NAMES for port in PUSH_PORTS},
    }


def present_by_name(
    context: ssl.SSLContext, names: Collection[str], instead: ssl.SSLContext
) -> None:
    """Let a server show another identity to clients that ask for one of these names (SNI)."""

    def choose(tls: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name is not None and name.lower() in names:
            tls.context = instead

    context.sni_callback = choose
