"""MdmServer: one HTTPS port for devices (enrollment, check-in, commands, SCEP, ACME), one HTTP port for administrators."""

import asyncio
import base64
import secrets
import socket
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs import tls
from certs.acme.server import AcmeServer
from certs.admin_guard import admin_middleware, load_token
from certs.ca import issue_server_identity
from certs.clock import Clock, SystemClock
from certs.crl_door import CrlDoor
from certs.faults import FaultPoint, no_faults
from certs.handshake import LoggedHandshake
from certs.identity import Identity
from certs.keys import generate
from certs.plain_bodies import plain_bodies
from certs.scep.server import ScepServer
from emulator.config import MAX_BODY_BYTES, SHUTDOWN_TIMEOUT_S
from mdmserver.ade import AdeDoor
from mdmserver.admin import AdminDoor, json_errors
from mdmserver.answers import answering
from mdmserver.assignment import Assignment
from mdmserver.assignment_admin import AssignmentDoor
from mdmserver.authority import (
    AUTHORITY_FOLDER,
    AcmeIdentifiers,
    Authority,
    ScepChallenges,
    subject_for,
)
from mdmserver.checkin import CheckinDoor
from mdmserver.client_identity import ClientIdentities
from mdmserver.connect import ConnectDoor
from mdmserver.devices import Devices
from mdmserver.enforcement import Enforcement
from mdmserver.enrollment import (
    ACME_PATH,
    ADE_PATH,
    CHECK_IN_PATH,
    SCEP_PATH,
    SERVER_PATH,
    EnrollmentProfiles,
)
from mdmserver.misbehave import Misbehaviour
from mdmserver.push import Pusher, check_certificate, read_identity, topic_of
from mdmserver.push_admin import PushDoor
from mdmserver.push_client import PushClient
from mdmserver.scep_renewals import ScepRenewals
from mdmserver.sessions import Sessions
from mdmserver.settings import TOPIC_PREFIX, Settings, read_certificates
from mdmserver.store.base import ProfileVersion
from mdmserver.store.sqlite import SqliteStore

log = structlog.get_logger()

BACKLOG: Final = 1024  # connections of a fleet that wakes at once
MAX_HEADER_BYTES: Final = 64 * 1024  # Mdm-Signature, and PKIOperation by GET
TOKEN_FILE: Final = "admin-token"
WILDCARDS: Final = ("0.0.0.0", "::")


class MdmServer:
    """The whole server as an async context manager."""

    store: SqliteStore
    authority: Authority
    sessions: Sessions
    enforcement: Enforcement
    assignment: Assignment
    url: str  # https://…, what devices are told
    admin_url: str
    token: str  # the admin port's bearer token
    topic: str  # of pushes, as the enrollment profile names it
    tls_roots: tuple[x509.Certificate, ...]  # what devices must trust to reach us

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        state: Path | None = None,
        clock: Clock | None = None,
        machine_info_roots: Sequence[x509.Certificate] = (),
        attestation_roots: Sequence[x509.Certificate] = (),
        assignment_roots: Sequence[x509.Certificate] = (),
        tls_identity: Identity | None = None,
        tls_roots: Sequence[x509.Certificate] = (),
        faults: FaultPoint = no_faults,
    ) -> None:
        """`state` is a folder that outlives the process; None keeps everything in memory.

        A `tls_identity` of one's own comes with the `tls_roots` that it leads to.
        """
        self.settings = settings or Settings()
        self.state = state
        self._clock = clock or SystemClock()
        self._machine_info_roots = tuple(machine_info_roots)
        self._attestation_roots = tuple(attestation_roots)
        self._assignment_roots = tuple(assignment_roots)
        self._tls_identity = tls_identity
        self._given_roots = tuple(tls_roots)
        self._faults = faults
        self._stack = AsyncExitStack()
        self.pusher: Pusher | None = None  # None: devices are not pushed

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
        log.info("server_stopped")

    @property
    def ade_url(self) -> str:
        """What an assignment names as `url`."""
        return self.url + ADE_PATH

    def assignment_profile(self) -> dict[str, Any]:
        """The profile of the assignment API that sends devices here, with flags that agree with ours (apple-services.md 4)."""
        settings = self.settings
        return {
            "profile_name": settings.profile_name,
            "url": self.ade_url,
            "anchor_certs": [
                base64.b64encode(root.public_bytes(serialization.Encoding.DER)).decode()
                for root in self.tls_roots
            ],
            "is_supervised": settings.sends_supervised,
            "is_mandatory": True,
            "is_mdm_removable": not settings.locked,
            "await_device_configured": settings.await_configuration,
        }

    async def use_push(
        self, identity: Identity, url: str, roots: Sequence[x509.Certificate]
    ) -> None:
        """Push devices from now on. Raises ConfigurationError for a certificate of another topic than the profile's."""
        check_certificate(identity.certificate, self.topic)
        if self.pusher is not None:
            await self.pusher.close()
        self.pusher = Pusher(
            PushClient(url, identity, roots=roots), self.topic, self.store, self._clock
        )
        self._stack.push_async_callback(self.pusher.close)
        await self.pusher.start()
        log.info("push_started", url=url, topic=self.topic)

    def wake(self, udid: str) -> None:
        """There is something for this device: push it, where pushing is set up."""
        if self.pusher is not None:
            self.pusher.wake(udid)

    async def problems(self) -> list[str]:
        """What is missing for devices to come here by themselves (rule 10): one sentence each, its name first."""
        found = await self.assignment.problems()
        if self.pusher is None:
            found.append(
                "NO_PUSH_CERTIFICATE: set push_certificate and push_url, else devices must poll"
            )
        return found

    async def _start(self) -> None:
        settings, clock = self.settings, self._clock
        if self.state is not None:
            self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = self.state / AUTHORITY_FOLDER if self.state else None
        self.authority = await asyncio.to_thread(
            Authority.open, folder, settings.organization, clock=clock
        )
        self.store = await SqliteStore.open(self.state / "server.sqlite" if self.state else None)
        self._stack.push_async_callback(self.store.close)
        self.token = (
            load_token(self.state / TOKEN_FILE) if self.state else secrets.token_urlsafe(32)
        )

        listener = self._listen(settings.host, settings.port)
        port = listener.getsockname()[1]
        host = "127.0.0.1" if settings.host in WILDCARDS else settings.host
        self.url = settings.public_url or f"https://{_in_url(host)}:{port}"
        context = self._tls_context()
        server_id = await self.store.server_id()
        push_identity = await asyncio.to_thread(read_identity, settings.push_certificate)
        self.topic = (
            settings.topic
            or (push_identity and topic_of(push_identity.certificate))
            or f"{TOPIC_PREFIX}External.{server_id}"
        )
        version = await self.store.keep_profile_version(self._profile_version(server_id))
        app = self._device_app(server_id, version)
        await self._serve(app, listener, context)
        self.assignment = await self._stack.enter_async_context(
            Assignment(
                settings,
                self.store.assignment,
                clock,
                self.assignment_profile,
                roots=self._assignment_roots,
                faults=self._faults,
            )
        )

        if push_identity is not None and settings.push_url is not None:
            roots = read_certificates(settings.push_roots, "push_roots")
            await self.use_push(push_identity, settings.push_url, roots)

        admin = self._listen(settings.admin_host, settings.admin_port)
        self.admin_url = f"http://{_in_url(settings.admin_host)}:{admin.getsockname()[1]}"
        await self._serve(self._admin_app(admin.getsockname()[1]), admin, None)
        for problem in await self.problems():
            log.warning("not_ready", problem=problem)
        log.info("server_started", url=self.url, admin_url=self.admin_url, state=str(self.state))

    def _profile_version(self, server_id: str) -> ProfileVersion:
        settings = self.settings
        return ProfileVersion(
            version=0,
            identifier=settings.profile_identifier,
            supervised=settings.supervised,
            locked=settings.locked,
            topic=self.topic,
            server_url=self.url + SERVER_PATH,
            check_in_url=self.url + CHECK_IN_PATH,
            sign_message=settings.sign_message,
        )

    def _tls_context(self) -> ssl.SSLContext:
        identity = self._tls_identity
        if identity is None:
            hosts = dict.fromkeys(
                host
                for host in (
                    urlsplit(self.url).hostname or "",
                    self.settings.host,
                    "localhost",
                    "127.0.0.1",
                )
                if host and host not in WILDCARDS
            )
            identity = issue_server_identity(self.authority.tls, tuple(hosts), generate("p256"))
            self.tls_roots = (self.authority.tls.root,)
        else:
            self.tls_roots = self._given_roots or identity.chain[-1:] or (identity.certificate,)
        context = tls.server_context(identity, client_roots=self.authority.client_roots)
        context.sslobject_class = LoggedHandshake
        return context

    def _device_app(self, server_id: str, version: ProfileVersion) -> web.Application:
        settings, clock, store, authority = self.settings, self._clock, self.store, self.authority
        misbehaviour = Misbehaviour(self._faults, clock)
        profiles = EnrollmentProfiles(
            settings,
            store,
            authority,
            clock=clock,
            public_url=self.url,
            server_id=server_id,
            tls_roots=self.tls_roots,
        )
        identities = ClientIdentities(
            store, clock, revocation=authority.revocations, client_roots=authority.client_roots
        )
        devices = Devices(
            store,
            clock=clock,
            revocations=authority.revocations,
            setup_commands=settings.setup_commands,
            wake=self.wake,
        )
        self.enforcement = Enforcement(settings, store, profiles, clock=clock)
        self.sessions = Sessions(store, self.enforcement, clock)
        app = web.Application(
            middlewares=[plain_bodies, answering(clock)], client_max_size=MAX_BODY_BYTES
        )
        AdeDoor(
            settings,
            store,
            profiles,
            version,
            roots=self._machine_info_roots,
            clock=clock,
            misbehaviour=misbehaviour,
        ).add_routes(app)
        CheckinDoor(devices, identities, self.sessions, misbehaviour).add_routes(app)
        ConnectDoor(devices, identities, self.sessions, misbehaviour).add_routes(app)
        ScepServer(
            authority.scep,
            authority.ra,
            ScepChallenges(store, clock),
            clock=clock,
            faults=self._faults,
            certificate_days=settings.identity_days,
            renewals=ScepRenewals(store, clock),
            earlier=authority.scep_generations.all[:-1],
        ).add_routes(app, SCEP_PATH)
        AcmeServer(
            authority.acme,
            AcmeIdentifiers(store, clock),
            attestation_roots=self._attestation_roots,
            clock=clock,
            earlier=authority.acme_generations.all[:-1],
            allow_unattested=settings.allow_unattested,
            faults=self._faults,
            subject_for=subject_for,
            certificate_days=settings.identity_days,
            base_url=self.url,
        ).add_routes(app, ACME_PATH)
        lists = CrlDoor(authority.issuing)
        lists.publish(self.url)
        lists.add_routes(app)
        app.router.add_get("/healthz", _healthz)
        return app

    def _admin_app(self, port: int) -> web.Application:
        names = {self.settings.admin_host, "localhost", "127.0.0.1"} - set(WILDCARDS)
        hosts = {f"{_in_url(name)}:{port}" for name in names}
        app = web.Application(
            middlewares=[plain_bodies, json_errors, admin_middleware(self.token, lambda: hosts)],
            client_max_size=MAX_BODY_BYTES,
        )
        AdminDoor(
            self.store,
            self.enforcement,
            self._clock,
            self.authority.revocations,
            wake=self.wake,
        ).add_routes(app)
        AssignmentDoor(self.assignment, self.problems).add_routes(app)
        PushDoor(self.store, lambda: self.pusher).add_routes(app)
        return app

    def _listen(self, host: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self._stack.callback(listener.close)
        return listener

    async def _serve(
        self, app: web.Application, listener: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            auto_decompress=False,  # see plain_bodies
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listener, ssl_context=context, backlog=BACKLOG).start()


async def _healthz(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
