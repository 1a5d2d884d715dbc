"""The provider's side of APNs: HTTP/2 by `h2`, one connection for all pushes, made at first need (apple-services.md 6).

A `send` ends in an answer or in a TransportError that says whether the push may have been taken. A GOAWAY ends the
connection: what the service had not begun is sent again on the next one by whoever asked.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, cast
from urllib.parse import urlsplit

import structlog
from cryptography import x509
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from certs.errors import MalformedMessage, TransportError
from certs.hosts import HostMap
from certs.identity import Identity
from certs.tls import client_context
from emulator.config import CONNECT_TIMEOUT_S
from emulator.wire import push
from emulator.wire.push import MdmPush, Refusal

log = structlog.get_logger()

ANSWER_TIMEOUT_S: Final = 20.0
MAX_ANSWER_BYTES: Final = 16 * 1024
FIRST_STREAMS: Final = 100  # at the same time, until the service has said how many
MOST_STREAMS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PushAnswer:
    """What APNs said: 200, or a reason."""

    status: int
    apns_id: str = ""
    refusal: Refusal | None = None

    @property
    def accepted(self) -> bool:
        return self.status == 200

    @property
    def token_is_dead(self) -> bool:
        """The token will never be accepted again; a TokenUpdate has to bring another."""
        return self.refusal is not None and self.refusal.reason in push.TOKEN_IS_DEAD

    @property
    def worth_a_retry(self) -> bool:
        return self.status == 429 or self.status >= 500


@dataclass(slots=True)
class _Exchange:
    """One push under way."""

    answer: asyncio.Future[PushAnswer]
    status: int = 0
    apns_id: str = ""
    body: bytearray = field(default_factory=bytearray)


class PushClient:
    """Pushes with one certificate to one service."""

    def __init__(
        self,
        url: str,
        identity: Identity,
        *,
        roots: Sequence[x509.Certificate],
        hosts: HostMap | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._hosts = hosts or HostMap()
        self._context = client_context(roots, identity)
        self._context.set_alpn_protocols(["h2"])
        self._connection: _Connection | None = None
        self._opening: asyncio.Task[_Connection] | None = None
        self.connections = 0

    async def send(
        self,
        token: bytes,
        topic: str,
        push_magic: str,
        *,
        expiration: datetime | None = None,
    ) -> PushAnswer:
        """One push; `expiration` None leaves storing to the service. Raises TransportError or ForbiddenHost."""
        connection = await self._open()
        headers = [
            (":method", "POST"),
            (":path", push.path_of(token)),
            (":scheme", "https"),
            (":authority", urlsplit(self.url).netloc),
            (push.APNS_TOPIC, topic),
            (push.APNS_PUSH_TYPE, push.PUSH_TYPE),
            (push.APNS_PRIORITY, "10"),
        ]
        if expiration is not None:
            headers.append((push.APNS_EXPIRATION, str(int(expiration.timestamp()))))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await connection.post(headers, push.encode(MdmPush(push_magic=push_magic)))
        except TimeoutError:
            connection.abort("no answer in time")
            raise TransportError(
                self.url, "no answer in time", timeout_s=ANSWER_TIMEOUT_S
            ) from None

    async def close(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _open(self) -> "_Connection":
        """The connection that stands, or a new one; whoever waits for the same one shares its failure."""
        if self._connection is not None and self._connection.usable:
            return self._connection
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    def _opened(self, opening: "asyncio.Task[_Connection]") -> None:
        if self._opening is opening:
            self._opening = None
        if not opening.cancelled():
            opening.exception()  # it may be that nobody waits any more

    async def _connect(self) -> "_Connection":
        where = self._hosts.resolve(self.url)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, protocol = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self.url),
                    where.host,
                    where.port,
                    ssl=self._context,
                    server_hostname=urlsplit(self.url).hostname,
                )
        except TimeoutError:
            raise TransportError(
                self.url, "no connection in time", timeout_s=CONNECT_TIMEOUT_S
            ) from None
        except (OSError, ssl.SSLError) as error:
            raise TransportError(self.url, str(error) or type(error).__name__) from error
        if not protocol.usable:
            protocol.abort("no HTTP/2")
            raise TransportError(self.url, "the service does not speak HTTP/2")
        self._connection = protocol
        self.connections += 1
        return protocol


class _Connection(asyncio.Protocol):
    """One HTTP/2 connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._exchanges: dict[int, _Exchange] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()  # for a free stream
        self._limit = FIRST_STREAMS
        self._gone = asyncio.get_running_loop().create_future()
        self._problem = "connection lost"
        self.usable = False

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is None or tls.selected_alpn_protocol() != "h2":
            return
        self.usable = True
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._h2.receive_data(data):
                self._handle(event)
        except ProtocolError as error:
            self.abort(f"HTTP/2: {error}")
            return
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        self._fail(self._problem if error is None else str(error), range(1, 2**31))
        if not self._gone.done():
            self._gone.set_result(None)
        self._make_room(len(self._waiting))

    # --- what the client asks

    async def post(self, headers: list[tuple[str, str]], body: bytes) -> PushAnswer:
        """Send one request, and wait for its answer. Raises TransportError."""
        while self.usable and not self._has_room(len(body)):
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        if not self.usable:
            raise TransportError(self._url, self._problem)
        stream_id = self._h2.get_next_available_stream_id()
        exchange = _Exchange(asyncio.get_running_loop().create_future())
        self._exchanges[stream_id] = exchange
        self._h2.send_headers(stream_id, headers)
        self._h2.send_data(stream_id, body, end_stream=True)
        self._flush()
        try:
            return await exchange.answer
        finally:
            self._exchanges.pop(stream_id, None)
            self._make_room(1)
            if not self.usable and not self._exchanges:
                self._transport.close()

    def abort(self, problem: str) -> None:
        """End it now; every push under way fails with this reason."""
        self._problem = problem
        self.usable = False
        self._transport.abort()

    async def close(self) -> None:
        """Say goodbye and wait until it is gone."""
        if self.usable:
            self.usable = False
            self._h2.close_connection()
            self._flush()
        self._transport.close()
        await self._gone

    # --- events

    def _has_room(self, size: int) -> bool:
        return (
            len(self._exchanges) < self._limit
            and self._h2.outbound_flow_control_window >= size
            and self._h2.remote_settings.initial_window_size >= size
        )

    def _handle(self, event: object) -> None:
        if isinstance(event, ResponseReceived):
            exchange = self._exchanges.get(event.stream_id)
            if exchange is not None:
                headers = dict(cast(list[tuple[str, str]], event.headers))
                exchange.status = int(headers.get(":status", "0"))
                exchange.apns_id = headers.get(push.APNS_ID, "")
        elif isinstance(event, DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            exchange = self._exchanges.get(event.stream_id)
            if exchange is not None and len(exchange.body) < MAX_ANSWER_BYTES:
                exchange.body += event.data
        elif isinstance(event, StreamEnded):
            exchange = self._exchanges.get(event.stream_id)
            if exchange is not None and not exchange.answer.done():
                exchange.answer.set_result(_answer(exchange))
        elif isinstance(event, StreamReset):
            self._fail(f"stream reset: {_name(event.error_code)}", (event.stream_id,))
        elif isinstance(event, ConnectionTerminated):
            self._go_away(event)
        elif isinstance(event, RemoteSettingsChanged | WindowUpdated):
            self._limit = min(self._h2.remote_settings.max_concurrent_streams, MOST_STREAMS)
            self._make_room(len(self._waiting))

    def _go_away(self, event: ConnectionTerminated) -> None:
        """APNs says why in the debug data (6.3)."""
        self.usable = False
        reason = _reason_in(event.additional_data)
        self._problem = f"GOAWAY {reason or _name(event.error_code)}"
        log.warning("push_goaway", reason=reason, error=_name(event.error_code))
        last = event.last_stream_id or 0
        self._fail(self._problem, [one for one in self._exchanges if one > last])
        self._make_room(len(self._waiting))
        if not self._exchanges:
            self._transport.close()

    def _fail(self, problem: str, stream_ids: Sequence[int]) -> None:
        for stream_id, exchange in self._exchanges.items():
            if stream_id in stream_ids and not exchange.answer.done():
                exchange.answer.set_exception(TransportError(self._url, problem))
                exchange.answer.exception()  # it may be that nobody waits any more

    def _make_room(self, count: int) -> None:
        """Let so many of those that wait look again."""
        while self._waiting and count > 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._transport.write(data)


def _answer(exchange: _Exchange) -> PushAnswer:
    refusal = None
    if exchange.status != 200:
        try:
            refusal = push.decode_refusal(bytes(exchange.body))
        except MalformedMessage:
            refusal = Refusal(reason=f"HTTP {exchange.status}")
    return PushAnswer(status=exchange.status, apns_id=exchange.apns_id, refusal=refusal)


def _reason_in(debug: bytes | None) -> str | None:
    try:
        return push.decode_refusal(debug or b"").reason
    except MalformedMessage:
        return None


def _name(code: ErrorCodes | int | None) -> str:
    return code.name if isinstance(code, ErrorCodes) else str(code)
