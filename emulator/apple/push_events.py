"""The wake channel of one token: server-sent events, as Fleet's simulated hosts expect them (apple-services.md 8).

`GET /events?token=<hex>` gives `event: ping` with the payload as data and a comment now and then. The newest connection of
a token wins; a device that stops reading is dropped after the write deadline; what was not written is stored again.
"""

import asyncio
from typing import Final

import structlog
from aiohttp import hdrs, web

from certs.errors import MalformedMessage
from emulator.apple.push_settings import PushSettings
from emulator.apple.push_tokens import Notification, PushTokens, TooManyTokens
from emulator.wire.push import token_of

log = structlog.get_logger()

KEEP_ALIVE_S: Final = 30.0
WRITE_DEADLINE_S: Final = 10.0
KEEP_ALIVE: Final = b": keepalive\n\n"


class EventsDoor:
    """Accepts the devices."""

    def __init__(self, tokens: PushTokens, settings: PushSettings) -> None:
        self._tokens = tokens
        self._settings = settings
        self.open: set[EventStream] = set()

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """`GET /events?token=…[&topic=…]`: a topic makes an unknown token known; compat mode needs none."""
        if hdrs.ORIGIN in request.headers:
            raise web.HTTPForbidden(text="not for web pages")
        token = self._token(request)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        stream = EventStream(response, self._tokens)
        self.open.add(stream)
        self._tokens.connect(token, stream)
        try:
            await stream.run()
        except (ConnectionError, TimeoutError) as error:
            log.info("event_stream_dropped", reason=type(error).__name__)
            if request.transport is not None:
                request.transport.abort()
        finally:
            self.open.discard(stream)
            self._tokens.disconnect(token, stream)
            stream.give_back()
        return response

    def close(self) -> None:
        """End every stream."""
        for stream in self.open:
            stream.superseded(b"")

    def _token(self, request: web.Request) -> bytes:
        topic = request.query.get("topic")
        try:
            token = token_of(request.query.get("token", ""))
        except MalformedMessage as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        try:
            if topic is not None or not self._settings.strict:
                self._tokens.register(token, topic)
        except TooManyTokens as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None
        if token not in self._tokens:
            raise web.HTTPNotFound(text="this token is not registered")
        return token


class EventStream:
    """One device; a `WakeChannel` with room for one push."""

    def __init__(self, response: web.StreamResponse, tokens: PushTokens) -> None:
        self._response = response
        self._tokens = tokens
        self._slot: Notification | None = None
        self._wake = asyncio.Event()
        self._over = False

    def deliver(self, push: Notification) -> None:
        if self._slot is not None:
            self._tokens.coalesced()
        self._slot = push
        self._wake.set()

    def superseded(self, token: bytes) -> None:
        self._over = True
        self.give_back()
        self._wake.set()

    def give_back(self) -> None:
        push, self._slot = self._slot, None
        if push is not None:
            self._tokens.give_back(push)

    async def run(self) -> None:
        """Write what comes until the stream is over. Raises ConnectionError, or TimeoutError for a silent reader."""
        while not self._over:
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await self._wake.wait()
            except TimeoutError:
                await self._write(KEEP_ALIVE)
                continue
            self._wake.clear()
            push, self._slot = self._slot, None
            if push is None:
                continue
            try:
                await self._write(b"event: ping\ndata: " + _one_line(push.payload) + b"\n\n")
            except BaseException:
                self._tokens.give_back(push)
                raise
            self._tokens.delivered(push)

    async def _write(self, data: bytes) -> None:
        async with asyncio.timeout(WRITE_DEADLINE_S):
            await self._response.write(data)


def _one_line(payload: bytes) -> bytes:
    """The same JSON without the line breaks that would end an event; strings in JSON hold none."""
    return payload.translate(_BLANKS)


_BLANKS: Final = bytes.maketrans(b"\r\n", b"  ")
