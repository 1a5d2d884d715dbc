"""The stand-ins as one thing to start: Apple's services on a TLS port, their administration on a plain loopback port."""

import asyncio
import hashlib
import os
import secrets
import ssl
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from certs.clock import Clock
from certs.faults import FaultPoint, no_faults
from certs.identity import Identity
from certs.plain_bodies import plain_bodies
from certs.tls import server_context
from emulator.apple.activation import ActivationMode, ActivationSettings
from emulator.apple.admin import Admin
from emulator.apple.assignment import AssignmentDesk
from emulator.apple.assignment_faults import AssignmentFaults
from emulator.apple.assignment_routes import assignment_routes
from emulator.apple.assignment_settings import AssignmentSettings
from emulator.apple.cloudconfig import CloudConfigurationSettings
from emulator.apple.device_admin import DeviceAdmin
from emulator.apple.device_services import DeviceServices
from emulator.apple.door import Door
from emulator.apple.fault_admin import FaultAdmin
from emulator.apple.pki import SimPKI
from emulator.apple.planned_faults import PlannedFaults
from emulator.apple.portal import Portal, describe
from emulator.apple.portal_admin import PortalAdmin
from emulator.apple.proxy import NAMES, ConnectProxy, present_by_name, routes_to
from emulator.apple.proxy_authority import ProxyAuthority
from emulator.apple.push import WAKE_PATHS, PushService
from emulator.apple.push_settings import PushSettings
from emulator.apple.registry import Registry
from emulator.apple.registry_file import RegistryFile
from emulator.apple.server_admin import ServerAdmin
from emulator.config import MAX_BODY_BYTES, SHUTDOWN_TIMEOUT_S
from emulator.errors import CannotListen

log = structlog.get_logger()

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1")
ASSIGNMENT_URL: Final = "https://mdmenrollment.apple.com"  # what servers sign for behind a proxy


class AppleServices:
    """Activation, cloud configuration, attestation and push, with their registry. An async context manager."""

    def __init__(
        self,
        *,
        pki: SimPKI,
        clock: Clock,
        portal: Portal | None = None,
        activation_mode: ActivationMode = "both",
        activation_settings: ActivationSettings | None = None,
        cloud_settings: CloudConfigurationSettings | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        admin_port: int = 0,
        hosts: Sequence[str] = (),
        token: str | None = None,
        push: PushSettings | None = None,
        assignment: AssignmentSettings | None = None,
        assignment_faults: AssignmentFaults | None = None,
        state: Path | None = None,
        proxy_port: int | None = None,
        proxy_folder: Path | None = None,
        faults: FaultPoint = no_faults,
    ) -> None:
        """`hosts` are further names that the TLS certificate is for; ports 0 are chosen by the system.

        `activation_settings` holds everything about activation, its mode included; `activation_mode` alone is the short form.
        `state` is a file that keeps the registry; a `portal` then counts at the first start, and once more when it is another.
        With a `proxy_port` a CONNECT proxy leads Apple's names here; its CA is kept in `proxy_folder`.
        """
        self.pki = pki
        self._file = None if state is None else RegistryFile(state)
        self.registry = Registry() if self._file is None else self._file.registry
        self.token = token or secrets.token_urlsafe(32)
        self._clock = clock
        self._host = host
        self._port = port
        self._admin_port = admin_port
        self._names = list(dict.fromkeys([*LOOPBACK_NAMES, host, *hosts]))
        self.planned_faults = PlannedFaults()
        self._door = Door(clock, faults, self.planned_faults)
        if faults is not no_faults:
            pki.attestation.misbehave(faults)
        self.assignment_faults = assignment_faults or AssignmentFaults()
        self._assignment_door = Door(clock, faults, self.assignment_faults, subject="server")
        self._assignment = assignment or AssignmentSettings()
        self._given_portal = portal
        self._cloud_settings = cloud_settings or CloudConfigurationSettings()
        self._settings = activation_settings or ActivationSettings(mode=activation_mode)
        self._runners: list[web.AppRunner] = []
        self._exits = AsyncExitStack()
        self.push = PushService(pki, clock, push, faults)
        self.proxy: ConnectProxy | None = None
        self.proxy_authority: ProxyAuthority | None = None
        self._proxy_port = proxy_port
        self._proxy_folder = proxy_folder
        if portal is not None and self._file is None:
            portal.apply(self.registry, clock.now())

    @property
    def url(self) -> str:
        """Base URL of every service, such as `https://127.0.0.1:9443`."""
        return f"https://{_in_url(self._host)}:{self._port}"

    @property
    def admin_url(self) -> str:
        """Base URL of the administration."""
        return f"http://127.0.0.1:{self._admin_port}"

    @property
    def push_url(self) -> str:
        """Base URL of the push provider API, in place of `https://api.push.apple.com`."""
        return f"https://{_in_url(self._host)}:{self.push.port}"

    @property
    def portal(self) -> Portal:
        """The portal as it stands."""
        return Portal.from_content(describe(self.registry))

    def apply(self, portal: Portal) -> None:
        """Make this the portal."""
        portal.apply(self.registry, self._clock.now())

    async def __aenter__(self) -> Self:
        try:
            if self._file is not None:
                await self._open(self._file)
            identity = self.pki.issue_tls_identity(self._names)
            self._tls_certificate = identity.certificate
            context, push_context = self._context(identity), self.push.tls_context(identity)
            if self._proxy_port is not None:
                await self._present_apples_names(context, push_context)
            with _listening("services", self._host, self._port):
                self._port = await self._listen(self._services(), self._host, self._port, context)
            with _listening("push", self._host, self.push.settings.port):
                await self.push.start(self._host, push_context)
            with _listening("administration", "127.0.0.1", self._admin_port):
                self._admin_port = await self._listen(
                    self._administration(), "127.0.0.1", self._admin_port
                )
            if self._proxy_port is not None:
                with _listening("proxy", "127.0.0.1", self._proxy_port):
                    await self._start_proxy(self._proxy_port)
        except BaseException:
            await self._stop()
            raise
        log.info("apple_services_started", url=self.url, admin_url=self.admin_url)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()
        log.info("apple_services_stopped", url=self.url)

    def _services(self) -> web.Application:
        app = web.Application(
            middlewares=[plain_bodies, self._guarded], client_max_size=MAX_BODY_BYTES
        )
        self.push.add_device_routes(app, self.token, lambda: set(self._names))
        services = DeviceServices(
            self.pki,
            self.registry,
            self._clock,
            self._door,
            url=lambda: self.url,
            certificate=lambda: self._tls_certificate,
            planned=self.planned_faults,
            activation_settings=self._settings,
            cloud_settings=self._cloud_settings,
        )
        app.add_routes(services.routes())
        desk = AssignmentDesk(
            self.registry, self._clock, self._assignment, self.assignment_faults, self._signed_for
        )
        app.add_routes(assignment_routes(desk, self._assignment_door))
        return app

    def _administration(self) -> web.Application:
        admin = Admin(self.pki, self.registry, self._clock, self.keep)
        return admin.application(
            self.token,
            self._admin_hosts,
            [
                *self.push.admin().routes(),
                *DeviceAdmin(self.registry, self.planned_faults).routes(),
                *PortalAdmin(self.registry, self._clock).routes(),
                *ServerAdmin(self.registry, self._clock).routes(),
                *FaultAdmin(self.assignment_faults).routes(),
            ],
        )

    def _signed_for(self) -> list[str]:
        """The base URLs by which a server may have called the assignment API."""
        own = [f"https://{_in_url(name)}:{self._port}" for name in self._names]
        return [*own, ASSIGNMENT_URL, *(f"https://{_in_url(name)}" for name in self._names)]

    def _context(self, identity: Identity) -> ssl.SSLContext:
        """Clients may show a push certificate, by which MDM servers lift activation locks."""
        return server_context(identity, client_roots=[self.pki.push_ca.certificate])

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The door serves requests that end; a wake channel stays open, and time must not stand still for it."""
        if request.path in WAKE_PATHS:
            return await handler(request)

        async def kept(request: web.Request) -> web.StreamResponse:
            response = await handler(request)
            await self.keep()
            return response

        return await self._door.middleware(request, kept)

    async def _open(self, file: RegistryFile) -> None:
        """Take up what the file holds, and the portal where it has not seen this one."""
        await self._exits.enter_async_context(file)
        portal = self._given_portal
        if portal is None:
            return
        source = hashlib.sha256(portal.model_dump_json().encode()).digest()
        if file.portal_source != source:
            portal.apply(self.registry, self._clock.now())
            await file.commit()
            await file.remember_portal(source)

    async def keep(self) -> None:
        """Nothing is acknowledged before it is in the file."""
        if self._file is not None:
            await self._file.commit()

    async def _present_apples_names(self, *contexts: ssl.SSLContext) -> None:
        """Show certificates for Apple's names to clients that ask for them."""
        self.proxy_authority = await asyncio.to_thread(
            ProxyAuthority.open, self._proxy_folder, NAMES, self._clock
        )
        identity = self.proxy_authority.identity()
        instead = self._context(identity), self.push.tls_context(identity)
        for context, other in zip(contexts, instead, strict=True):
            present_by_name(context, NAMES, other)

    async def _start_proxy(self, port: int) -> None:
        host = "127.0.0.1" if self._host in ("0.0.0.0", "") else self._host
        routes = routes_to((host, self._port), (host, self.push.port))
        self.proxy = await ConnectProxy(routes, port=port).__aenter__()

    async def _listen(
        self,
        app: web.Application,
        host: str,
        port: int,
        context: ssl.SSLContext | None = None,
    ) -> int:
        """Serve `app` and return the port it got."""
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            auto_decompress=False,  # see plain_bodies
        )
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, host, port, ssl_context=context).start()
        return int(runner.addresses[0][1])

    async def _stop(self) -> None:
        proxy, self.proxy = self.proxy, None
        if proxy is not None:
            await proxy.__aexit__(None, None, None)
        await self.push.stop()
        runners, self._runners = self._runners, []
        await asyncio.gather(*(runner.cleanup() for runner in runners))
        await self._exits.aclose()

    def _admin_hosts(self) -> set[str]:
        return {f"{name}:{self._admin_port}" for name in LOOPBACK_NAMES}


@contextmanager
def _listening(service: str, host: str, port: int) -> Iterator[None]:
    """Name the port that could not be opened. Raises CannotListen."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0  # negative: no address of that name
        reason = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise CannotListen(service, host, port, reason.lower()) from error


def _in_url(host: str) -> str:
    """An IPv6 address stands in brackets; all interfaces are reached by loopback."""
    if host in ("0.0.0.0", "::", ""):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
