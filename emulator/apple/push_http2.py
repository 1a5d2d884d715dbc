"""The provider API on the wire: HTTP/2 by `h2` under an asyncio Protocol, one object per connection (RFC 9113).

Everything a peer can make us hold is bounded: header lists, bodies (one byte more than a payload may have), streams, answers
that wait for a window, and the write buffer (reading stops while it is full). Streams above the limit are refused with
REFUSED_STREAM, a peer that resets more streams than it lets finish is told ENHANCE_YOUR_CALM and cut off.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, cast

import structlog
from cryptography import x509
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from certs.clock import Clock
from certs.faults import Action, FaultPoint
from emulator.apple.push_certificate import Provider
from emulator.apple.push_provider import ProviderAnswer, ProviderDoor, ProviderRequest
from emulator.apple.push_settings import PushSettings
from emulator.apple.push_stats import PushStats
from emulator.wire import push
from emulator.wire.push import Reason, Refusal

log = structlog.get_logger()

CONNECTION_STEP: Final = "push_connection"
MAX_HEADER_LIST_BYTES: Final = 8192
FRAME_HEADER_BYTES: Final = 9
MAX_EXCESS_BYTES: Final = 1024 * 1024  # of a payload that is too large; then the stream is reset
MAX_RESETS: Final = 100  # beyond as many streams as were allowed to finish
JSON: Final = (b"content-type", b"application/json")
STATUS_200: Final = (b":status", b"200")
ALPN: Final = "h2"

_CONFIGURATION: Final = H2Configuration(
    client_side=False,
    header_encoding=None,
    # Headers are judged here, so that a repeated one gets its answer (DuplicateHeaders); and checking twice costs twice.
    validate_inbound_headers=False,
    normalize_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)
_SEVERAL: Final = frozenset({b":method", b":path", b":scheme", b":authority"})


class _Connection(H2Connection):
    """Leaves the limit of open streams to us: h2 would end the connection where RFC 9113, 5.1.2 refuses the stream."""

    @property
    def open_inbound_streams(self) -> int:
        super().open_inbound_streams  # noqa: B018  # forgets the streams that are closed
        return 0

    @property
    def overlong(self) -> bool:
        """A frame larger than was allowed is on its way in; h2 itself looks at the length only once it is whole."""
        waiting = len(self.incoming_buffer._data)
        return waiting > self.max_inbound_frame_size + FRAME_HEADER_BYTES


@dataclass(slots=True)
class _Stream:
    """A request on its way in."""

    headers: list[tuple[bytes, bytes]]
    body: bytearray = field(default_factory=bytearray)
    excess: int = 0  # bytes thrown away; the answer went out at the first of them


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderServices:
    """What all connections share."""

    door: ProviderDoor
    provider_of: Callable[[x509.Certificate | None], Provider]
    http1: Callable[[], asyncio.Protocol] | None  # compat: who serves a client without HTTP/2
    settings: PushSettings
    stats: PushStats
    clock: Clock
    faults: FaultPoint
    open: set["ProviderConnection"] = field(default_factory=set)


class ProviderConnection(asyncio.Protocol):
    """One provider."""

    def __init__(self, services: ProviderServices) -> None:
        self._services = services
        self._streams: dict[int, _Stream] = {}  # whose end has not come
        self._busy: set[int] = set()  # answered later, or waiting for a window
        self._waiting: dict[int, bytes] = {}  # bodies that wait for a window
        self._finished = 0
        self._resets = 0
        self._closing = False
        self._held: set[asyncio.Task[None]] = set()
        self._active = False  # since the idle timer last looked

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        services = self._services
        tls = transport.get_extra_info("ssl_object")
        if tls is None or tls.selected_alpn_protocol() != ALPN:
            self._without_http2(tls)
            return
        if len(services.open) >= services.settings.max_connections:
            log.warning("push_connection_refused", reason="too many connections")
            self._transport.abort()
            return
        self._provider = services.provider_of(_certificate(tls))
        action = services.faults(
            "server", CONNECTION_STEP, self._provider, services.stats.connections + 1
        )
        services.stats.connections += 1
        services.open.add(self)
        self._h2 = _Connection(_CONFIGURATION)
        self._limit = services.settings.max_concurrent_streams
        self._announce(action)
        idle_s = services.settings.idle_timeout_s
        if idle_s is not None:
            self._hold(self._watch_idleness(idle_s))
        log.debug("push_connection", topics=self._provider.topics)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._active = True
        try:
            for event in self._h2.receive_data(data):
                self._handle(event)
                if self._closing:
                    break  # whatever else came with it is for nobody
        except ProtocolError as error:
            log.warning("push_protocol_error", error=f"{type(error).__name__}: {error}"[:200])
            self._closing = True  # h2 has put its own GOAWAY into what is to be sent
        if not self._closing and self._h2.overlong:
            log.warning("push_protocol_error", error="a frame larger than was allowed")
            self.go_away(None, error=ErrorCodes.FRAME_SIZE_ERROR)
        self._flush()
        if self._closing:
            self._transport.close()

    def pause_writing(self) -> None:
        # Who does not read answers gets no further requests read.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self._services.open.discard(self)
        self._streams.clear()
        self._waiting.clear()
        for task in self._held:
            task.cancel()

    # --- opening and ending

    def _without_http2(self, tls: ssl.SSLObject | None) -> None:
        """The real service speaks nothing else; in compat mode HTTP/1.1 takes over."""
        self._closing = True
        if self._services.http1 is None:
            log.warning("push_connection_refused", reason="no HTTP/2 by ALPN")
            self._transport.abort()
            return
        other = self._services.http1()
        self._transport.set_protocol(other)
        other.connection_made(self._transport)

    def _announce(self, action: Action | None) -> None:
        """Our settings; fault `settings` {max_concurrent_streams, initial_window_size} makes them narrow."""
        values: dict[SettingCodes, int] = {
            SettingCodes.MAX_CONCURRENT_STREAMS: self._limit,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST_BYTES,
            SettingCodes.ENABLE_CONNECT_PROTOCOL: 0,
        }
        if action is not None and action.name == "settings":
            self._limit = int(action.arguments.get("max_concurrent_streams", self._limit))
            values[SettingCodes.MAX_CONCURRENT_STREAMS] = self._limit
            window = action.arguments.get("initial_window_size")
            if window is not None:
                values[SettingCodes.INITIAL_WINDOW_SIZE] = int(window)
        self._h2.local_settings = Settings(client=False, initial_values=values)
        self._h2.initiate_connection()
        self._h2.decoder.max_header_list_size = MAX_HEADER_LIST_BYTES
        self._flush()
        if action is not None and action.name == "goaway":
            self.go_away(Reason(action.arguments.get("reason", Reason.SHUTDOWN)))

    def go_away(
        self,
        reason: Reason | None,
        *,
        debug: bytes | None = None,
        error: ErrorCodes = ErrorCodes.NO_ERROR,
    ) -> None:
        """End the connection with the reason as debug data, as APNs does."""
        if self._closing:
            return
        self._closing = True
        if debug is None and reason is not None:
            debug = push.encode(Refusal(reason=reason))
        self._h2.close_connection(error, debug)
        self._services.stats.goaways += 1
        self._flush()
        self._transport.close()

    def _hold(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._held.add(task)
        task.add_done_callback(self._held.discard)

    async def _watch_idleness(self, idle_s: float) -> None:
        self._active = True
        while self._active:
            self._active = False
            await self._services.clock.sleep(idle_s)
        self.go_away(Reason.IDLE_TIMEOUT)

    # --- events

    def _handle(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._opened(event.stream_id, event.headers)
        elif isinstance(event, DataReceived):
            self._received(event)
        elif isinstance(event, StreamEnded):
            stream = self._streams.pop(event.stream_id, None)
            if stream is not None and len(stream.body) <= push.MAX_PAYLOAD_BYTES:
                self._answer(event.stream_id, stream)
        elif isinstance(event, StreamReset):
            self._given_up(event.stream_id)
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            self._send_waiting()
        elif isinstance(event, ConnectionTerminated):
            self._closing = True

    def _opened(self, stream_id: int, headers: list[tuple[bytes, bytes]]) -> None:
        if len(self._streams) + len(self._busy) >= self._limit:
            self._h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._streams[stream_id] = _Stream(headers)

    def _received(self, event: DataReceived) -> None:
        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        room = push.MAX_PAYLOAD_BYTES + 1 - len(stream.body)
        if room > 0:
            stream.body += event.data[:room]
            if len(stream.body) > push.MAX_PAYLOAD_BYTES:
                # The answer need not wait for the rest of it (RFC 9113, 8.1).
                self._answer(event.stream_id, stream)
            return
        stream.excess += len(event.data)
        if stream.excess > MAX_EXCESS_BYTES:
            del self._streams[event.stream_id]
            self._reset(event.stream_id, ErrorCodes.NO_ERROR)

    def _given_up(self, stream_id: int) -> None:
        """The peer reset a stream; one that does little else is attacking (rapid reset)."""
        self._streams.pop(stream_id, None)
        self._busy.discard(stream_id)
        self._waiting.pop(stream_id, None)
        self._resets += 1
        self._services.stats.resets += 1
        if self._resets > MAX_RESETS + self._finished:
            log.warning("push_rapid_reset", resets=self._resets, finished=self._finished)
            self.go_away(None, error=ErrorCodes.ENHANCE_YOUR_CALM)

    # --- answers

    def _answer(self, stream_id: int, stream: _Stream) -> None:
        if self._closing:
            return
        request = _request(stream)
        if request is None:
            self._reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        answer = self._services.door.answer(request, self._provider)
        action = answer.action
        match action.name if action is not None else "":
            case "hold":
                assert action is not None
                self._busy.add(stream_id)
                self._hold(
                    self._answer_later(stream_id, answer, float(action.arguments["seconds"]))
                )
            case "drop":
                self._closing = True
                self._transport.abort()
            case "refuse-stream":
                self._reset(stream_id, ErrorCodes.REFUSED_STREAM)
            case "goaway":
                assert action is not None
                self._send(stream_id, answer)
                reason = Reason(action.arguments.get("reason", Reason.SHUTDOWN))
                self.go_away(reason, debug=action.arguments.get("debug"))
            case _:
                self._send(stream_id, answer)

    async def _answer_later(self, stream_id: int, answer: ProviderAnswer, seconds: float) -> None:
        await self._services.clock.sleep(seconds)
        if stream_id in self._busy and not self._closing:
            self._busy.discard(stream_id)
            self._send(stream_id, answer)
            self._flush()

    def _send(self, stream_id: int, answer: ProviderAnswer) -> None:
        apns_id = (push.APNS_ID.encode(), answer.apns_id.encode())
        self._finished += 1
        try:
            if not answer.body:
                self._h2.send_headers(stream_id, [STATUS_200, apns_id], end_stream=True)
                return
            status = (b":status", str(answer.status).encode())
            self._h2.send_headers(stream_id, [status, apns_id, JSON])
            self._send_body(stream_id, answer.body)
        except ProtocolError as error:  # the stream is gone meanwhile
            log.debug("push_answer_unsent", error=str(error))

    def _send_body(self, stream_id: int, body: bytes) -> None:
        """As much as the peer's window takes; the rest waits, a hundred bytes at most."""
        room = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
        if room > 0 or not body:
            self._h2.send_data(stream_id, body[:room], end_stream=len(body) <= room)
            body = body[room:]
        if body:
            self._waiting[stream_id] = body
            self._busy.add(stream_id)
        else:
            self._busy.discard(stream_id)

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for stream_id, body in waiting.items():
            try:
                self._send_body(stream_id, body)
            except ProtocolError:
                self._busy.discard(stream_id)

    def _reset(self, stream_id: int, error: ErrorCodes) -> None:
        try:
            self._h2.reset_stream(stream_id, error)
        except ProtocolError as problem:  # closed already
            log.debug("push_stream_closed", error=str(problem))
        self._waiting.pop(stream_id, None)
        self._busy.discard(stream_id)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._transport.write(data)


def _request(stream: _Stream) -> ProviderRequest | None:
    """The request in words; None for one without method or path, or with upper-case names (RFC 9113, 8.2.1)."""
    pseudo: dict[bytes, bytes] = {}
    repeated = False
    plain: list[tuple[str, str]] = []
    for name, value in stream.headers:
        if name[:1] == b":":
            repeated |= name in pseudo
            pseudo.setdefault(name, value)
            if name not in _SEVERAL:
                return None
        elif name != name.lower():
            return None
        else:
            plain.append((name.decode("latin-1"), value.decode("latin-1")))
    method, path = pseudo.get(b":method"), pseudo.get(b":path")
    if method is None or path is None:
        return None
    return ProviderRequest(
        method=method.decode("latin-1"),
        path=path.decode("latin-1"),
        headers=plain,
        body=bytes(stream.body),
        repeated_pseudo_header=repeated,
    )


def _certificate(tls: ssl.SSLObject) -> x509.Certificate | None:
    der = tls.getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(der) if der else None
