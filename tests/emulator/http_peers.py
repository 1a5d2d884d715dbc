"""Servers that the tests of `emulator.http` talk to: honest ones, and raw ones that say exactly what they are told."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import NameOID

from certs.ca import CertificateAuthority, issue_server_identity
from certs.clock import SimulatedClock
from certs.identity import Identity
from certs.keys import PrivateKey, generate
from certs.tls import server_context
from emulator.http import TrustSet

START = datetime(2026, 6, 1, 12, tzinfo=UTC)

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class World:
    """One CA, its server identity for 127.0.0.1 and some names, and the clock both sides live by."""

    clock: SimulatedClock
    ca: CertificateAuthority
    server: Identity

    @property
    def trust(self) -> TrustSet:
        return TrustSet().with_roots(self.ca.certificate)

    @property
    def context(self) -> ssl.SSLContext:
        return server_context(self.server, client_roots=[self.ca.certificate])

    def device(self, name: str, key: PrivateKey | None = None) -> Identity:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self.ca.issue_identity(key or generate("p256"), subject)


def make_world(*hosts: str) -> World:
    clock = SimulatedClock(START)
    ca = CertificateAuthority.create("Test CA", clock=clock)
    names = hosts or ("127.0.0.1", "localhost", "mdm.example.test")
    return World(clock, ca, issue_server_identity(ca, names, generate("p256")))


@dataclass
class Peer:
    """A running server and what it has seen."""

    port: int = 0
    scheme: str = "https"
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def raw_server(talk: Talk, context: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """Run `talk` for each connection; it reads and writes bytes as it likes."""
    peer = Peer(scheme="https" if context else "http")
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        await asyncio.sleep(0)  # a connection that was just accepted gets its task
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await server.wait_closed()


def says(*answers: bytes, then_close: bool = False) -> Talk:
    """Give these answers, one for each request of a connection, and then stay silent (or hang up)."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()
        if not then_close:
            await reader.read()

    return talk


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return head + await reader.readexactly(length)


@asynccontextmanager
async def web_server(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    context: ssl.SSLContext | None,
) -> AsyncIterator[Peer]:
    """An ordinary aiohttp server with one handler for every path."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield Peer(port=runner.addresses[0][1], scheme="https" if context else "http")
    finally:
        await runner.cleanup()
