"""The wake channel of a whole fleet process: one WebSocket for all its devices (`emulator.wire.courier`).

What is not on the wire yet is one push per token; what is on the wire is kept until the fleet acknowledges it. A fleet that
does not acknowledge in time has stopped reading: its connection is dropped, and its pushes go back into the store.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from certs.clock import Clock
from certs.errors import MalformedMessage
from emulator.apple.push_stats import PushStats
from emulator.apple.push_tokens import Notification, PushTokens, TooManyTokens
from emulator.wire import courier
from emulator.wire.courier import Ack, ClientFrame, Forget, Hello, Offline, Online
from emulator.wire.push import token_of

log = structlog.get_logger()

ACK_TIMEOUT_S: Final = 10.0  # by the injected clock
HEARTBEAT_S: Final = 30.0
BATCH: Final = 256  # pushes in one message
MAX_ON_THE_WIRE: Final = 10_000  # unacknowledged pushes; beyond that they wait, one per token
MAX_COURIERS: Final = 256


class CourierDoor:
    """Accepts the WebSockets of fleets."""

    def __init__(self, tokens: PushTokens, stats: PushStats, clock: Clock) -> None:
        self._tokens = tokens
        self._stats = stats
        self._clock = clock
        self.open: set[CourierSocket] = set()

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """`GET /courier`, upgraded."""
        if len(self.open) >= MAX_COURIERS:
            raise web.HTTPServiceUnavailable(text="too many wake connections")
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=courier.MAX_MESSAGE_BYTES, compress=False
        )
        await socket.prepare(request)
        channel = CourierSocket(socket, request, self._tokens, self._stats, self._clock)
        self.open.add(channel)
        log.info("courier_connected", remote=request.remote)
        try:
            await channel.run()
        finally:
            self.open.discard(channel)
            log.info("courier_gone", remote=request.remote, hellos=channel.hellos)
        return socket

    async def close(self) -> None:
        """Say goodbye to every fleet."""
        closing = [channel.close() for channel in list(self.open)]
        await asyncio.gather(*closing, return_exceptions=True)


@dataclass(slots=True)
class _Sent:
    """A push on the wire."""

    at: datetime
    push: Notification
    returned: bool = False  # its device left before it could arrive


class CourierSocket:
    """One fleet process; a `WakeChannel` for all its tokens."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        request: web.Request,
        tokens: PushTokens,
        stats: PushStats,
        clock: Clock,
    ) -> None:
        self._socket = socket
        self._request = request
        self._tokens = tokens
        self._stats = stats
        self._clock = clock
        self._outbox: dict[bytes, Notification] = {}
        self._on_the_wire: deque[_Sent] = deque()
        self._latest: dict[bytes, _Sent] = {}  # of those, the last of each token
        self._acknowledged = 0
        self._wake = asyncio.Event()
        self.hellos = 0

    # --- WakeChannel

    def deliver(self, push: Notification) -> None:
        if push.token in self._outbox:
            self._tokens.coalesced()
        self._outbox[push.token] = push
        self._wake.set()

    def superseded(self, token: bytes) -> None:
        push = self._outbox.pop(token, None)
        if push is not None:
            self._tokens.give_back(push)

    # --- the connection

    async def run(self) -> None:
        """Serve it until it ends; then nothing of it is lost."""
        helpers = [asyncio.create_task(self._write()), asyncio.create_task(self._watch())]
        try:
            async for message in self._socket:
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                try:
                    for frame in courier.decode_client(message.data):
                        await self._handle(frame)
                except (MalformedMessage, TooManyTokens) as error:
                    await self._refuse(str(error))
                    break
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            self._tokens.disconnect_all(self)
            self._give_back()

    async def close(self) -> None:
        await self._socket.close(code=WSCloseCode.GOING_AWAY)

    async def _handle(self, frame: ClientFrame) -> None:
        match frame:
            case Ack(count=count):
                self._acknowledge(count)
            case Online(token=token):
                if not self._tokens.connect(token_of(token), self):
                    raise MalformedMessage("online.token", "a registered token", token[:80])
            case Offline(token=token):
                self._offline(token_of(token))
            case Forget(token=token):
                self._tokens.forget(token_of(token))
            case Hello(devices=devices):
                for device in devices:
                    own = token_of(device.token)
                    self._tokens.register(own, device.topic, device.device)
                    if device.online:
                        self._tokens.connect(own, self)
                self.hellos += 1
                await self._say(courier.encode(courier.Registered(self.hellos)))

    def _offline(self, token: bytes) -> None:
        """What was not acknowledged before this came, the device will not have taken any more: it waits for its return."""
        self._tokens.disconnect(token, self)
        sent = self._latest.pop(token, None)
        push = self._outbox.pop(token, None)
        if sent is not None:
            sent.returned = True
            push = push or sent.push
        if push is not None:
            self._tokens.give_back(push)

    def _acknowledge(self, count: int) -> None:
        if count > self._acknowledged + len(self._on_the_wire):
            raise MalformedMessage("ack.count", "no more than was sent", count)
        while self._acknowledged < count:
            sent = self._on_the_wire.popleft()
            self._acknowledged += 1
            if not sent.returned:
                self._tokens.delivered(sent.push)
            if self._latest.get(sent.push.token) is sent:
                del self._latest[sent.push.token]
        if self._outbox:
            self._wake.set()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox and len(self._on_the_wire) < MAX_ON_THE_WIRE:
                batch = list(islice(self._outbox.values(), BATCH))
                now = self._clock.now()
                for push in batch:
                    del self._outbox[push.token]
                    sent = self._latest[push.token] = _Sent(now, push)
                    self._on_the_wire.append(sent)
                await self._say(courier.encode(*(_frame(push, now) for push in batch)))

    async def _say(self, message: bytes) -> None:
        try:
            await self._socket.send_frame(message, WSMsgType.TEXT)
        except ConnectionError:  # the reader sees it, too, and ends everything
            log.debug("courier_write_failed", remote=self._request.remote)

    async def _refuse(self, reason: str) -> None:
        log.warning("courier_refused", reason=reason, remote=self._request.remote)
        await self._say(courier.encode(courier.Refused(reason)))
        await self._socket.close(code=WSCloseCode.POLICY_VIOLATION)

    async def _watch(self) -> None:
        """Drop a fleet that no longer reads."""
        while True:
            await self._clock.sleep(ACK_TIMEOUT_S / 2)
            if not self._on_the_wire:
                continue
            if self._clock.now() - self._on_the_wire[0].at >= timedelta(seconds=ACK_TIMEOUT_S):
                self._stats.couriers_dropped += 1
                log.warning(
                    "courier_dropped",
                    reason="stopped reading",
                    unacknowledged=len(self._on_the_wire),
                    remote=self._request.remote,
                )
                if self._request.transport is not None:
                    self._request.transport.abort()
                return

    def _give_back(self) -> None:
        """The newest of each token."""
        latest, self._latest = self._latest, {}
        outbox, self._outbox = self._outbox, {}
        self._on_the_wire.clear()
        newest = {token: sent.push for token, sent in latest.items()} | outbox
        for push in newest.values():
            self._tokens.give_back(push)


def _frame(push: Notification, now: datetime) -> courier.Push:
    return courier.Push(
        token=push.token.hex(),
        apns_id=push.apns_id,
        payload=msgspec.Raw(push.payload),
        stored=push.stored,
        age_ms=max(0, round((now - push.accepted_at).total_seconds() * 1000)),
    )
