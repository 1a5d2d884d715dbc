"""A provider that can do anything over HTTP/2, and the stand-ins it pushes to."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

from certs.clock import SimulatedClock
from certs.faults import Action, FaultPoint, Side, no_faults
from certs.identity import Identity
from certs.keys import generate
from certs.tls import client_context
from emulator.apple.app import AppleServices
from emulator.apple.pki import SimPKI
from emulator.apple.push_settings import PushSettings
from emulator.apple.push_tokens import Notification
from tests.emulator.apple.support import pki

TOPIC = "com.apple.mgmt.External.3f2c9a1e-5f1b-4d0e-9f7a-6f0c9f5a2b10"
TOKEN = bytes(range(32))
PAYLOAD = b'{"mdm":"7B0E5E3C-2C1D-4E57-9C0F-0B8F6B2B0E4D"}'
GUARD_S = 30.0  # real time, on a machine that is busy with other things


def push_identity(*topics: str, of: SimPKI | None = None, **wishes: Any) -> Identity:
    """A push certificate of the Sim APNs CA; several topics, or none, where a test wants them."""
    key = generate("p256")
    authority = (of or pki()).push_ca
    subject = x509.Name(
        [
            *(x509.NameAttribute(NameOID.USER_ID, topic) for topic in topics),
            x509.NameAttribute(NameOID.COMMON_NAME, "APSP:test"),
        ]
    )
    return Identity(key, authority.issue(key.public_key(), subject, **wishes))


@asynccontextmanager
async def push_services(
    clock: SimulatedClock | None = None, *, faults: FaultPoint = no_faults, **settings: Any
) -> AsyncIterator[AppleServices]:
    """Running stand-ins with these push settings."""
    async with AppleServices(
        pki=pki(),
        clock=clock or SimulatedClock(),
        push=PushSettings(**settings),
        faults=faults,
    ) as services:
        yield services


class Listener:
    """A device on this event loop: what has come for it."""

    def __init__(self, services: AppleServices, token: bytes = TOKEN, topic: str = TOPIC) -> None:
        self.got: list[Notification] = []
        self.token = token
        self.tokens = services.push.tokens
        self.tokens.register(token, topic)
        self.channel = services.push.local(self.got.append)

    def online(self) -> None:
        self.tokens.connect(self.token, self.channel)

    def offline(self) -> None:
        self.tokens.disconnect(self.token, self.channel)


@dataclass
class Answer:
    """What came back on one stream."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: ErrorCodes | int | None = None
    ended: bool = False

    @property
    def reason(self) -> str | None:
        return json.loads(self.body)["reason"] if self.body else None


class RawProvider:
    """HTTP/2 frame by frame, with no manners of its own."""

    def __init__(
        self,
        services: AppleServices,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.services = services
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.answers: dict[int, Answer] = {}
        self.goaway: ConnectionTerminated | None = None
        self.closed = False

    async def begin(self) -> None:
        self.h2.initiate_connection()
        await self.flush()

    def open(
        self,
        token: bytes | str = TOKEN,
        headers: Iterable[tuple[str, str]] = (),
        *,
        method: str = "POST",
        path: str | None = None,
        pseudo: Sequence[tuple[str, str]] | None = None,
        end: bool = False,
    ) -> int:
        """Headers of a push; the stream's number."""
        stream_id = self.h2.get_next_available_stream_id()
        text = token if isinstance(token, str) else token.hex()
        default = [
            (":method", method),
            (":path", f"/3/device/{text}" if path is None else path),
            (":scheme", "https"),
            (":authority", "api.push.apple.com"),
        ]
        self.h2.send_headers(stream_id, [*(pseudo or default), *headers], end_stream=end)
        self.answers[stream_id] = Answer()
        return stream_id

    async def push(
        self,
        token: bytes | str = TOKEN,
        payload: bytes = PAYLOAD,
        headers: Iterable[tuple[str, str]] = (),
        **arguments: Any,
    ) -> Answer:
        """One whole push and its answer."""
        stream_id = self.open(token, headers, end=not payload, **arguments)
        if payload:
            self.h2.send_data(stream_id, payload, end_stream=True)
        await self.flush()
        return await self.answer(stream_id)

    async def answer(self, stream_id: int) -> Answer:
        """Read until the stream is over, or the connection is."""
        answer = self.answers[stream_id]
        await self.until(lambda: answer.ended or answer.reset is not None)
        return answer

    async def until(self, done: Any) -> None:
        async with asyncio.timeout(GUARD_S):
            while not done() and not self.closed:
                await self.read()

    async def until_closed(self) -> None:
        await self.until(lambda: False)

    async def read(self) -> None:
        try:
            data = await self.reader.read(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            if isinstance(event, ResponseReceived):
                answer = self.answers[event.stream_id]
                answer.headers = {str(k): str(v) for k, v in event.headers}
                answer.status = int(answer.headers[":status"])
            elif isinstance(event, DataReceived):
                self.answers[event.stream_id].body += event.data
            elif isinstance(event, StreamEnded):
                self.answers[event.stream_id].ended = True
            elif isinstance(event, StreamReset):
                self.answers[event.stream_id].reset = event.error_code
            elif isinstance(event, ConnectionTerminated):
                self.goaway = event
        await self.flush()

    async def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and not self.closed:
            self.writer.write(data)
            await self.writer.drain()

    async def gone(self) -> None:
        """Hang up, and wait until the stand-in has noticed."""
        await self.close()
        async with asyncio.timeout(GUARD_S):
            while self.services.push.gauges().provider_connections:  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(GUARD_S):
                await self.writer.wait_closed()


@asynccontextmanager
async def provider(
    services: AppleServices,
    identity: Identity | str | None = "own",
    *,
    alpn: Sequence[str] = ("h2",),
    begin: bool = True,
) -> AsyncIterator[RawProvider]:
    """Connect, with the push certificate of TOPIC unless told otherwise; None: without one."""
    own = push_identity(TOPIC) if isinstance(identity, str) else identity
    context = client_context([services.pki.tls_ca.certificate], own)
    context.set_alpn_protocols(list(alpn))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", services.push.port, ssl=context, server_hostname="localhost"
    )
    raw = RawProvider(services, reader, writer)
    if begin:
        await raw.begin()
    try:
        yield raw
    finally:
        await raw.close()


def faulty(name: str, at_step: str = "push", at: int | None = None, **arguments: Any) -> FaultPoint:
    """A FaultPoint with one action, at the nth time or always."""

    def fault(side: Side, step: str, message: object, n: int) -> Action | None:
        if step == at_step and (at is None or n == at):
            return Action(name=name, arguments=arguments)
        return None

    return fault
