"""CertsServer: SCEP, ACME and revocation lists of one CA folder alone, for anybody's tests, on loopback.

One port speaks plain HTTP (many SCEP clients, and where certificates say that the revocation list is), the other HTTPS
with the folder's TLS identity; both lead to the same doors.
"""

import asyncio
import secrets
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final, Self

import structlog
from aiohttp import web
from cryptography import x509

from certs import tls
from certs.acme.http01 import LoopbackFetcher
from certs.acme.policy import AcmePolicy
from certs.acme.server import AcmeServer
from certs.authorize import AnyHolder, Approval, ChallengeVerifier, DeviceAuthorizer
from certs.clock import Clock
from certs.crl_door import CrlDoor
from certs.faults import FaultPoint, no_faults
from certs.folder import CaFolder
from certs.operator_door import FILE, Operator, OperatorDoor
from certs.plain_bodies import plain_bodies
from certs.scep.approval import ManualApproval
from certs.scep.server import ScepServer

log = structlog.get_logger()

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_LINE_BYTES: Final = 64 * 1024  # PKIOperation by GET
SHUTDOWN_TIMEOUT_S: Final = 2.0
SCEP_PATH: Final = "/scep"
ACME_PATH: Final = "/acme"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Who may have a certificate, and where the doors are."""

    challenges: ChallengeVerifier
    devices: DeviceAuthorizer
    attestation_roots: tuple[x509.Certificate, ...] = ()
    allow_unattested: bool = False
    approval: Approval | None = None  # None: SCEP decides at once
    certificate_days: float = 365
    acme: AcmePolicy = field(default_factory=lambda: AcmePolicy(http01=LoopbackFetcher()))
    host: str = "127.0.0.1"
    port: int = 0
    https_port: int = 0
    faults: FaultPoint = no_faults


class CertsServer:
    """The server as an async context manager."""

    url: str  # http://…
    https_url: str

    def __init__(self, folder: CaFolder, options: ServeOptions, *, clock: Clock) -> None:
        self.folder = folder
        self._options = options
        self._clock = clock
        self._stack = AsyncExitStack()
        self.operator: Operator | None = None  # where requests that wait are decided upon

    @property
    def scep_url(self) -> str:
        return self.url + SCEP_PATH

    @property
    def acme_directory(self) -> str:
        return f"{self.https_url}{ACME_PATH}/directory"

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        options = self._options
        plain, secure = self._listen(options.port), self._listen(options.https_port)
        host = f"[{options.host}]" if ":" in options.host else options.host
        self.url = f"http://{host}:{plain.getsockname()[1]}"
        self.https_url = f"https://{host}:{secure.getsockname()[1]}"
        runner = web.AppRunner(
            self._app(),
            access_log=None,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            auto_decompress=False,  # see plain_bodies
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, plain).start()
        context = tls.server_context(self.folder.tls)
        await web.SockSite(runner, secure, ssl_context=context).start()
        if isinstance(options.approval, ManualApproval):
            await self._let_decide(options.approval)
        log.info("certs_served", url=self.url, https_url=self.https_url)

    async def _let_decide(self, approval: ManualApproval) -> None:
        """Open the operator's door, and say in the folder where it is."""
        token = secrets.token_urlsafe(32)
        door = OperatorDoor(approval, token, self._clock)
        runner = web.AppRunner(
            door.application(), access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.operator = Operator(url=f"http://127.0.0.1:{runner.addresses[0][1]}", token=token)
        folder = self.folder.root.parent
        await asyncio.to_thread(self.operator.write, folder)
        self._stack.callback((folder / FILE).unlink, missing_ok=True)

    def _app(self) -> web.Application:
        options, folder = self._options, self.folder
        app = web.Application(middlewares=[plain_bodies], client_max_size=MAX_BODY_BYTES)
        ScepServer(
            folder.ca,
            folder.ra,
            options.challenges,
            clock=self._clock,
            faults=options.faults,
            certificate_days=options.certificate_days,
            approval=options.approval,
            renewals=AnyHolder(),
            earlier=folder.generations.all[:-1],
        ).add_routes(app, SCEP_PATH)
        AcmeServer(
            folder.ca,
            options.devices,
            attestation_roots=options.attestation_roots,
            clock=self._clock,
            earlier=folder.generations.all[:-1],
            allow_unattested=options.allow_unattested,
            faults=options.faults,
            certificate_days=options.certificate_days,
            policy=options.acme,
        ).add_routes(app, ACME_PATH)
        lists = CrlDoor(dict(folder.generations.labelled()))
        lists.publish(self.url)
        lists.add_routes(app)
        return app

    def _listen(self, port: int) -> socket.socket:
        host = self._options.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
        self._stack.callback(listener.close)
        return listener
