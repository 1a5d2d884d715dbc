"""The push stand-in: provider API, tokens, wake channels and statistics as one thing to start (apple-services.md 6).

Providers come over HTTP/2 with a certificate of the Sim APNs CA, devices by a wake channel: in-process (`local`), one
WebSocket for a fleet process, or server-sent events for one token.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import web
from cryptography import x509

from certs.admin_guard import admin_middleware
from certs.clock import Clock
from certs.faults import FaultPoint, no_faults
from certs.handshake import LoggedHandshake
from certs.identity import Identity
from certs.tls import NO_CHECK_TIME, server_context
from emulator.apple.pki import SimPKI
from emulator.apple.push_admin import PushAdmin
from emulator.apple.push_certificate import Provider, provider_of
from emulator.apple.push_courier import CourierDoor
from emulator.apple.push_events import EventsDoor
from emulator.apple.push_faults import PushFaults
from emulator.apple.push_http1 import PlainProviderDoor
from emulator.apple.push_http2 import ALPN, ProviderConnection, ProviderServices
from emulator.apple.push_local import LocalChannel, OnPush
from emulator.apple.push_provider import ProviderDoor
from emulator.apple.push_settings import PushSettings
from emulator.apple.push_stats import Gauges, PushStats
from emulator.apple.push_tokens import PushTokens
from emulator.config import SHUTDOWN_TIMEOUT_S
from emulator.wire import courier
from emulator.wire.push import Reason

log = structlog.get_logger()

BACKLOG: Final = 512
WAKE_PATHS: Final = frozenset({courier.PATH, courier.EVENTS_PATH})  # connections that stay open


class PushService:
    """One APNs; `start` opens the provider port, `stop` says goodbye to everyone."""

    def __init__(
        self,
        pki: SimPKI,
        clock: Clock,
        settings: PushSettings | None = None,
        faults: FaultPoint = no_faults,
    ) -> None:
        self.settings = settings or PushSettings()
        self.stats = PushStats()
        self.faults = PushFaults(faults)
        self.tokens = PushTokens(clock, self.stats, limit=self.settings.max_tokens)
        self.port = 0
        self.plain_port: int | None = None
        self._pki = pki
        self._clock = clock
        self._door = ProviderDoor(self.tokens, self.settings, self.stats, clock, self.faults)
        self._courier = CourierDoor(self.tokens, self.stats, clock)
        self._events = EventsDoor(self.tokens, self.settings)
        self._local: set[LocalChannel] = set()
        self._providers = ProviderServices(
            door=self._door,
            provider_of=self._provider_of,
            http1=None if self.settings.strict else self._http1,
            settings=self.settings,
            stats=self.stats,
            clock=clock,
            faults=self.faults,
        )
        self._server: asyncio.Server | None = None
        self._plain: web.AppRunner | None = None

    # --- start and stop

    async def start(self, host: str, context: ssl.SSLContext) -> None:
        """Listen for providers; `context` comes from `tls_context`."""
        if not self.settings.strict:
            await self._start_plain()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ProviderConnection(self._providers),
            host,
            self.settings.port,
            ssl=context,
            backlog=BACKLOG,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("push_started", port=self.port, mode=self.settings.mode)

    async def stop(self) -> None:
        """GOAWAY Shutdown to providers, close to fleets and devices."""
        self._door.shutting_down = True
        self.go_away(Reason.SHUTDOWN)
        await self._door.close()
        if self._server is not None:
            self._server.close()
        self._events.close()
        await self._courier.close()
        for channel in list(self._local):
            channel.close()
        if self._plain is not None:
            await self._plain.cleanup()

    def tls_context(self, identity: Identity) -> ssl.SSLContext:
        """For the provider port: asks for a certificate of the Sim APNs CA, offers h2."""
        context = server_context(identity, client_roots=[self._pki.push_ca.certificate])
        context.set_alpn_protocols([ALPN] if self.settings.strict else [ALPN, "http/1.1"])
        context.sslobject_class = LoggedHandshake
        if self.settings.expired_certificate == "alert":
            context.verify_flags = ssl.VerifyFlags(context.verify_flags & ~NO_CHECK_TIME)
        return context

    # --- devices

    def local(self, on_push: OnPush) -> LocalChannel:
        """A wake channel for a fleet on this event loop."""
        channel = LocalChannel(self.tokens, on_push)
        self._local.add(channel)
        return channel

    def add_device_routes(
        self, app: web.Application, token: str, hosts: Callable[[], set[str]]
    ) -> None:
        """The wake channels; fleets show the bearer token of the administration."""
        guard = admin_middleware(token, hosts)

        async def connect(request: web.Request) -> web.StreamResponse:
            return await guard(request, self._courier.connect)

        app.router.add_get(courier.PATH, connect)
        app.router.add_get(courier.EVENTS_PATH, self._events.connect)

    def admin(self) -> PushAdmin:
        return PushAdmin(self._pki, self.tokens, self.stats, self.gauges, self.go_away, self.faults)

    # --- what is there

    def gauges(self) -> Gauges:
        online, pending, gone = self.tokens.counts()
        return Gauges(
            tokens=len(self.tokens),
            online=online,
            pending=pending,
            gone=gone,
            provider_connections=len(self._providers.open),
            wake_connections=len(self._courier.open) + len(self._events.open),
        )

    def go_away(self, reason: Reason) -> int:
        """End every provider connection with this reason; returns how many there were."""
        connections = list(self._providers.open)
        for connection in connections:
            connection.go_away(reason)
        return len(connections)

    def _provider_of(self, certificate: x509.Certificate | None) -> Provider:
        return provider_of(
            certificate,
            root=self._pki.push_ca.certificate,
            is_revoked=self._pki.push_ca.is_revoked,
            required=self.settings.strict,
        )

    async def _start_plain(self) -> None:
        """Compat: an aiohttp application, on the TLS port after ALPN, and on a plain port where one is wanted."""
        door = PlainProviderDoor(
            self._door, self._provider_of, self._events, self._facts, self._clock
        )
        self._plain = web.AppRunner(
            door.application(), access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S
        )
        await self._plain.setup()
        if self.settings.plain_port is not None:
            await web.TCPSite(self._plain, "127.0.0.1", self.settings.plain_port).start()
            self.plain_port = int(self._plain.addresses[0][1])

    def _http1(self) -> asyncio.Protocol:
        assert self._plain is not None
        assert self._plain.server is not None
        return self._plain.server()

    def _facts(self) -> dict[str, object]:
        return {**self.stats.as_json(), **self.gauges().as_json()}
