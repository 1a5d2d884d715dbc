"""The provider API over HTTP/1.1, for compat mode: what Fleet's stand-in and plain test clients speak (apple-services.md 8).

The same rules answer; beside them the events, the statistics and a health check, so that one base URL is enough.
"""

from collections.abc import Callable

from aiohttp import hdrs, web

from certs.clock import Clock
from certs.tls import peer_certificate
from emulator.apple.push_certificate import Provider
from emulator.apple.push_events import EventsDoor
from emulator.apple.push_provider import ProviderDoor, ProviderRequest
from emulator.wire import courier, push

MAX_BODY_BYTES = 64 * 1024  # more than this is not even read


class PlainProviderDoor:
    """Makes the aiohttp application of compat mode."""

    def __init__(
        self,
        door: ProviderDoor,
        provider_of: Callable[..., Provider],
        events: EventsDoor,
        facts: Callable[[], dict[str, object]],
        clock: Clock,
    ) -> None:
        self._door = door
        self._provider_of = provider_of
        self._events = events
        self._facts = facts
        self._clock = clock

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.get(courier.EVENTS_PATH, self._events.connect),
                web.get("/stats", self.stats),
                web.get("/healthz", self.healthz),
                web.route("*", "/{path:.*}", self.push),
            ]
        )
        return app

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(self._facts())

    async def healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def push(self, request: web.Request) -> web.Response:
        """One notification, or whatever else came."""
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            body = bytes(push.MAX_PAYLOAD_BYTES + 1)
        with self._clock.busy():
            answer = self._door.answer(
                ProviderRequest(
                    method=request.method,
                    path=request.rel_url.raw_path,
                    headers=[(name.lower(), value) for name, value in request.headers.items()],
                    body=body[: push.MAX_PAYLOAD_BYTES + 1],
                ),
                self._provider_of(peer_certificate(request)),
            )
        action = answer.action
        if action is not None and action.name == "hold":
            await self._clock.sleep(float(action.arguments["seconds"]))
        elif (
            action is not None
            and action.name in ("drop", "goaway", "refuse-stream")
            and request.transport is not None
        ):
            request.transport.abort()  # all that HTTP/1.1 has in their place
        headers = {push.APNS_ID: answer.apns_id}
        if answer.body:
            headers[hdrs.CONTENT_TYPE] = "application/json"
        return web.Response(status=answer.status, body=answer.body, headers=headers)
