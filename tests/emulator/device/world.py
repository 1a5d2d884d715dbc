"""A small honest world for device tests: a simulated PKI, devices from the factory, and an MDM server that does as it is told.

The MDM server is no MDM server: it checks the client certificate and the signature of every message, keeps what it got,
and answers from a script.
"""

import base64
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from aiohttp import web
from cryptography import x509

from certs import cms, names
from certs.acme.policy import AcmePolicy
from certs.acme.server import DEFAULT_POLICY, AcmeServer
from certs.authorize import Grant, KnownDevices, StaticChallenge
from certs.ca import CertificateAuthority, issue_server_identity
from certs.clock import Clock, SystemClock
from certs.faults import FaultPoint, no_faults
from certs.identity import Identity
from certs.keys import FreshKeys, KeySource, KeySpec, PrivateKey, generate, spki_der
from certs.scep.server import ScepServer
from certs.tls import peer_certificate, server_context
from certs.transport import Timing
from emulator.apple.app import AppleServices
from emulator.apple.claims import fingerprint
from emulator.apple.cloudconfig import CloudConfigurationSettings
from emulator.apple.pki import SimPKI
from emulator.apple.portal import Portal
from emulator.apple.records import HardwareFacts
from emulator.device.device import Device
from emulator.device.keychain import FactoryIdentity
from emulator.device.snapshot import freeze
from emulator.device.surroundings import AppleEndpoints, Behaviour, Surroundings
from emulator.hardware import Hardware
from emulator.http import HttpDoor, TrustSet
from emulator.wire import checkin, command, profile
from emulator.wire.command import Command
from emulator.wire.fields import Fields
from tests.support import rsa_key

TOPIC = "com.apple.mgmt.External.3f2c9a1e-5f1b-4d0e-9f7a-6f0c9f5a2b10"
PROFILE_IDENTIFIER = "com.example.enroll"
CHALLENGE = "one-time-4711"
CLOCK = SystemClock()


@cache
def pki() -> SimPKI:
    """One for all tests of a process; call it first outside an event loop."""
    return SimPKI.open(None, CLOCK)


@cache
def mdm_authority() -> tuple[CertificateAuthority, Identity, Identity]:
    """The MDM server's CA, its SCEP identity and its TLS identity."""
    ca = CertificateAuthority.create("Test MDM CA", clock=CLOCK)
    ra = ca.issue_identity(
        rsa_key(90),
        names.from_subject([[["CN", "Test RA"]]]),
        key_usage=names.key_usage(5),
        extended_key_usage=(),
    )
    return ca, ra, issue_server_identity(ca, ["127.0.0.1", "localhost"], generate("p256"))


@cache
def factory_identity(serial_number: str, udid: str, number: int) -> FactoryIdentity:
    """What provisioning gives: FK with FC, AK with AC, and the anchors."""
    sim, attestation_key = pki(), generate("p256")
    factory_key = rsa_key(number)
    return FactoryIdentity(
        factory=Identity(
            factory_key,
            sim.issue_factory_certificate(factory_key.public_key(), udid),
            (sim.device_ca.certificate,),
        ),
        attestation=Identity(
            attestation_key,
            sim.attestation.issue_device_identity(
                attestation_key.public_key(), serial_number=serial_number, udid=udid
            ),
            (sim.attestation.sub_ca,),
        ),
        anchors=sim.anchors(),
    )


def make_device(
    index: int = 0, *, product_type: str = "iPhone14,5", os_version: str | None = "18.1"
) -> Device:
    """A new device; equal arguments give the same one."""
    hardware = Hardware.from_seed(5, index, product_type=product_type, os_version=os_version)
    identity = factory_identity(hardware.serial_number, hardware.udid, index % 4)
    return Device.manufacture(hardware, identity)


class CachedKeys:
    """A KeySource whose RSA-2048 keys are made before the loop starts."""

    def __init__(self) -> None:
        self._next = 10
        self._fresh = FreshKeys()

    async def take(self, spec: KeySpec) -> PrivateKey:
        if spec == "rsa2048":
            self._next = 10 + (self._next - 9) % 4
            return rsa_key(self._next)
        return await self._fresh.take(spec)


def warm_up() -> None:
    """Make every RSA key that tests use, outside an event loop."""
    pki(), mdm_authority()
    for number in (0, 1, 2, 3, 10, 11, 12, 13):
        rsa_key(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as the server saw it."""

    path: str
    message: Any  # a check-in message, or a Response
    body: bytes
    headers: dict[str, str]
    certificate: x509.Certificate | None


Answer = tuple[int, bytes] | tuple[int, bytes, str]


@dataclass
class ScriptedMdm:
    """Answers check-ins with `statuses`, and Idle or results with the next of `commands`."""

    url: str = ""
    statuses: dict[str, Answer] = field(default_factory=dict)  # by MessageType, default 200
    commands: deque[Command | Answer] = field(default_factory=deque)
    received: list[Received] = field(default_factory=list)
    profile_answer: Answer = (200, b"", profile.CONTENT_TYPE)
    machine_infos: list[bytes] = field(default_factory=list)
    profile_requests: list[dict[str, str]] = field(default_factory=list)
    redirected: list[str] = field(default_factory=list)
    challenges: StaticChallenge = field(default_factory=lambda: StaticChallenge(CHALLENGE))
    devices: KnownDevices = field(default_factory=lambda: KnownDevices({}))

    def names_of(self, path: str = "/checkin") -> list[str]:
        """The check-in messages by name, in the order received."""
        return [type(item.message).__name__ for item in self.received if item.path == path]

    @property
    def results(self) -> list[command.Response]:
        """What the device said on the command channel, Idle excepted."""
        return [
            item.message
            for item in self.received
            if item.path == "/mdm" and item.message.status is not command.Status.IDLE
        ]

    async def check_in(self, request: web.Request) -> web.Response:
        body = await request.read()
        message = checkin.decode(body)
        self._keep(request, message, body)
        return _response(self.statuses.get(type(message).__name__, (200, b"")))

    async def command(self, request: web.Request) -> web.Response:
        body = await request.read()
        self._keep(request, command.decode_response(body), body)
        if not self.commands:
            return web.Response()
        following = self.commands.popleft()
        if isinstance(following, Command):
            return _response((200, command.encode_command(following), "application/xml"))
        return _response(following)

    async def moved(self, request: web.Request) -> web.Response:
        await request.read()
        self.redirected.append(request.path)
        return web.Response(status=301, headers={"Location": f"{self.url}/mdm"})

    async def enroll(self, request: web.Request) -> web.Response:
        self.machine_infos.append(await request.read())
        self.profile_requests.append({key.lower(): value for key, value in request.headers.items()})
        return _response(self.profile_answer)

    def _keep(self, request: web.Request, message: object, body: bytes) -> None:
        certificate = peer_certificate(request)
        signature = request.headers.get("Mdm-Signature")
        if signature is not None:
            signed = cms.decode_signed(base64.b64decode(signature, validate=True))
            assert signed.content is None  # detached
            assert cms.verify_signed(signed, content=body) == certificate
        self.received.append(
            Received(
                path=request.path,
                message=message,
                body=body,
                headers={key.lower(): value for key, value in request.headers.items()},
                certificate=certificate,
            )
        )


def _response(answer: Answer) -> web.Response:
    status, body, *kind = answer
    headers = {"Content-Type": kind[0]} if kind else {}
    return web.Response(status=status, body=body, headers=headers)


@asynccontextmanager
async def scripted_mdm(
    *,
    scep_faults: FaultPoint = no_faults,
    acme_faults: FaultPoint = no_faults,
    acme_policy: AcmePolicy = DEFAULT_POLICY,
    acme_checks_names: bool = False,
    acme_allows_unattested: bool = False,
    **scep: Any,
) -> AsyncIterator[ScriptedMdm]:
    """The server on a TLS port of its own, with SCEP (`scep`: more settings of it) and ACME beside it."""
    ca, ra, identity = mdm_authority()
    server = ScriptedMdm()
    app = web.Application(client_max_size=2**24)
    app.router.add_put("/checkin", server.check_in)
    app.router.add_put("/mdm", server.command)
    app.router.add_put("/moved", server.moved)
    app.router.add_post("/enroll", server.enroll)
    scep_server = ScepServer(ca, ra, server.challenges, clock=CLOCK, faults=scep_faults, **scep)
    scep_server.add_routes(app, "/scep")
    acme = AcmeServer(
        ca,
        server.devices,
        attestation_roots=[pki().attestation.root],
        clock=CLOCK,
        faults=acme_faults,
        allow_unattested=acme_allows_unattested,
        policy=acme_policy,
        subject_for=None if acme_checks_names else lambda grant, request: request.subject,
    )
    acme.add_routes(app, "/acme")
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    context = server_context(identity, client_roots=[ca.certificate])
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    server.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def apple_services(
    *devices: Device,
    profile_keys: Fields | None = None,
    faults: FaultPoint = no_faults,
    legacy: bool = False,
) -> AsyncIterator[AppleServices]:
    """The stand-ins with these devices registered; `profile_keys` assigns all of them to one server."""
    settings = CloudConfigurationSettings(legacy=legacy)
    async with AppleServices(
        pki=pki(), clock=CLOCK, faults=faults, cloud_settings=settings
    ) as services:
        for device in devices:
            register(services, device)
        if profile_keys is not None:
            services.apply(
                _portal([device.hardware.serial_number for device in devices], profile_keys)
            )
        yield services


def register(services: AppleServices, device: Device) -> None:
    """What POST /registry/devices does, for a device whose certificates exist already."""
    hardware, own = device.hardware, device.factory
    services.registry.provision(
        HardwareFacts(
            serial_number=hardware.serial_number,
            udid=hardware.udid,
            product_type=hardware.model.product_type,
            os_version=hardware.os_version,
            build=hardware.build,
            imei=hardware.imei,
            imei2=hardware.imei2,
            meid=hardware.meid,
            factory_key=fingerprint(spki_der(own.factory.key.public_key())),
            attestation_key=fingerprint(spki_der(own.attestation.key.public_key())),
        )
    )


def _portal(serials: Sequence[str], profile_keys: Fields) -> Portal:
    return Portal.from_content(
        {
            "organizations": [
                {
                    "name": "Example Inc",
                    "servers": [
                        {"name": "Server", "profile": profile_keys, "devices": list(serials)}
                    ],
                }
            ]
        }
    )


@dataclass
class Memory:
    """A store of one device: every checkpoint as bytes, and a switch that kills at one of them."""

    snapshots: list[bytes] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    kill_at: int | None = None  # the number of the checkpoint at which the device dies
    keeps_the_last: bool = True  # whether that checkpoint still reaches the store
    checkpoints: int = 0

    async def checkpoint(self, device: Device) -> None:
        self.checkpoints += 1
        dies = self.kill_at is not None and self.checkpoints >= self.kill_at
        if not dies or self.keeps_the_last:
            self.snapshots.append(freeze(device))
        if dies:
            raise Killed

    def on_timing(self, device: Device, timing: Timing) -> None:
        self.timings.append(timing)

    @property
    def steps(self) -> list[str]:
        return [timing.step for timing in self.timings]


class Killed(BaseException):
    """kill -9: no handler of ours may run on it."""


def surroundings(
    memory: Memory | None = None,
    *,
    apple: AppleServices | None = None,
    behaviour: Behaviour | None = None,
    clock: Clock = CLOCK,
    keys: KeySource | None = None,
    trusted: bool = True,
    faults: FaultPoint = no_faults,
) -> Surroundings:
    """Everything real: TLS sockets, keys, signatures; only waits are short."""
    memory = memory or Memory()
    quick = replace(behaviour or Behaviour(), awaiting_poll_s=0.0)
    roots = (mdm_authority()[0].certificate,) if trusted else ()
    return Surroundings(
        door=HttpDoor(clock=clock, faults=faults),
        clock=clock,
        keys=keys or CachedKeys(),
        apple=None
        if apple is None
        else AppleEndpoints(
            activation_url=apple.url,
            cloud_configuration_url=apple.url,
            attestation_url=apple.url,
        ),
        trust=TrustSet().with_roots(*roots),
        behaviour=quick,
        checkpoint=memory.checkpoint,
        on_timing=memory.on_timing,
        faults=faults,
    )


def grant(device: Device) -> Grant:
    return Grant(
        reference=device.hardware.udid,
        serial_number=device.hardware.serial_number,
        udid=device.hardware.udid,
    )


def with_command(request_type: str, command_uuid: str = "C1", **fields: Any) -> Command:
    return Command(command_uuid=command_uuid, request_type=request_type, fields=fields)
