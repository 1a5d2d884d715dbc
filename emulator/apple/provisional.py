"""Devices added with Apple Configurator: its login and nonces, provisional enrollment, and leaving (apple-services.md 3.6, 9.2).

Configurator's identity service is not there: an `X-Apple-GS-Token` is the name of an organization, percent-encoded, and
with one organization in the portal any token is its.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import unquote

import structlog
from pydantic import ValidationError

from certs.clock import Clock
from certs.errors import MalformedMessage
from emulator.apple.answer import Answer, Received, Refusal
from emulator.apple.assignment_profile import AssignmentProfile
from emulator.apple.cloudconfig import JSON, ProvisionalStart
from emulator.apple.device_envelope import EnvelopeChecks, claimed_serial
from emulator.apple.memory import Memory
from emulator.apple.portal import PortalServer
from emulator.apple.records import Organization
from emulator.apple.registry import Registry
from emulator.wire import provisional
from emulator.wire.device_request import Operation
from emulator.wire.envelope import Envelope
from emulator.wire.provisional import Nonce, NonceRequest

log = structlog.get_logger()

NO_CACHE: Final = {"Cache-Control": "no-cache, no-store"}
NONCE_LIFETIME: Final = timedelta(hours=1)
SESSION_LIFETIME: Final = timedelta(hours=1)
MAX_DEVICES: Final = 1000  # per nonce request
NONCE_BYTES: Final = 24


@dataclass(slots=True, kw_only=True)
class Invitation:
    """What a nonce stands for: this device may join this organization."""

    organization: str
    server: PortalServer
    serial_number: str
    udid: str


class Invitations:
    """Configurator's sessions and the nonces given to them."""

    def __init__(self) -> None:
        self.sessions: Memory[str] = Memory(SESSION_LIFETIME)  # organization by session token
        self.nonces: Memory[Invitation] = Memory(NONCE_LIFETIME)


class LoginService:
    """`GET /v2/login` of Configurator: the body of the answer is a session token."""

    step = "configurator_login"

    def __init__(self, registry: Registry, invitations: Invitations, clock: Clock) -> None:
        self._registry = registry
        self._invitations = invitations
        self._clock = clock

    def headers(self) -> Mapping[str, str]:
        return NO_CACHE

    def decode(self, received: Received) -> str:
        """The organization."""
        token = received.headers.get(provisional.LOGIN_TOKEN, "")
        names = list(self._registry.organizations)
        if token and len(names) == 1:
            return names[0]
        if unquote(token) not in names:
            raise Refusal("LOGIN", 401, "UNAUTHORIZED", f"{provisional.LOGIN_TOKEN} names nobody")
        return unquote(token)

    def serial_number(self, message: str) -> str:
        return ""

    async def answer(self, message: str) -> Answer:
        token = secrets.token_urlsafe(32)
        self._invitations.sessions.put(token.encode(), message, self._clock.now())
        return Answer(body=token.encode(), outcome="session")


class NonceService:
    """`POST /v2/nonce` of Configurator: one nonce for each device that is to join."""

    step = "configurator_nonce"

    def __init__(self, invitations: Invitations, clock: Clock) -> None:
        self._invitations = invitations
        self._clock = clock

    def headers(self) -> Mapping[str, str]:
        return NO_CACHE

    def decode(self, received: Received) -> tuple[str, NonceRequest, PortalServer]:
        token = received.headers.get(provisional.SESSION_TOKEN, "")
        sessions = self._invitations.sessions
        organization = sessions.get(token.encode(errors="replace"), self._clock.now())
        if organization is None:
            raise Refusal("NONCE", 401, "UNAUTHORIZED", f"{provisional.SESSION_TOKEN} is unknown")
        try:
            request = provisional.decode_nonce_request(received.body)
            if len(request.devices) > MAX_DEVICES:
                raise MalformedMessage("devices", f"at most {MAX_DEVICES}", len(request.devices))
            return organization, request, _server(request)
        except MalformedMessage as error:
            raise Refusal("NONCE", 400, "MALFORMED", str(error)) from error

    def serial_number(self, message: tuple[str, NonceRequest, PortalServer]) -> str:
        return ""

    async def answer(self, message: tuple[str, NonceRequest, PortalServer]) -> Answer:
        organization, request, server = message
        nonces = []
        for serial, udid in request.devices:
            value = secrets.token_urlsafe(NONCE_BYTES)
            invitation = Invitation(
                organization=organization,
                server=server,
                serial_number=serial.upper(),
                udid=udid,
            )
            self._invitations.nonces.put(value.encode(), invitation, self._clock.now())
            nonces.append(Nonce(serial_number=serial, udid=udid, value=value))
        return Answer(body=provisional.encode_nonces(nonces), content_type=JSON, outcome="nonces")


class EnvelopeService:
    """What the endpoints share that devices ask with a signed envelope."""

    def __init__(self, checks: EnvelopeChecks) -> None:
        self._checks = checks

    def headers(self) -> Mapping[str, str]:
        return NO_CACHE

    def decode(self, received: Received) -> Envelope:
        return self._checks.decode(received.body)

    def serial_number(self, message: Envelope) -> str:
        return claimed_serial(message)


class EnrollService(EnvelopeService):
    """`POST /v2/enroll`: a device shows its nonce and belongs to the organization from then on."""

    step = "provisional_enrollment"

    def __init__(
        self,
        checks: EnvelopeChecks,
        registry: Registry,
        invitations: Invitations,
        clock: Clock,
        start: ProvisionalStart,
    ) -> None:
        super().__init__(checks)
        self._registry = registry
        self._invitations = invitations
        self._clock = clock
        self._start = start

    async def answer(self, message: Envelope) -> Answer:
        record, request = self._checks.asks(message, Operation.ENROLL)
        now, serial = self._clock.now(), record.serial_number
        nonce = (request.nonce or "").encode(errors="replace")
        invitation = self._invitations.nonces.get(nonce, now)
        if invitation is None:
            raise Refusal("NONCE", 401, "NONCE_EXPIRED", "the nonce is unknown, used or too old")
        if (invitation.serial_number, invitation.udid) != (serial, request.udid):
            raise Refusal("NONCE", 401, "NONCE_EXPIRED", "the nonce is another device's")
        if record.organization is not None:
            raise Refusal("ENROLL", 401, "CANNOT_ENROLL", "an organization owns the device already")
        organization = self._registry.organizations.get(invitation.organization)
        if organization is None:
            raise Refusal("NONCE", 401, "NONCE_EXPIRED", "the organization left the portal")
        self._invitations.nonces.drop(nonce)
        server = self._joined(organization, invitation.server)
        self._registry.own([serial], organization.name, server, now)
        until = record.add_provisionally(now, from_activation=self._start == "activation")
        log.info("device_added", serial=serial, organization=organization.name, server=server)
        return Answer(
            body=provisional.encode_enrolled(int(until.timestamp() * 1000)),
            content_type=JSON,
            outcome=provisional.PROVISIONAL,
        )

    def _joined(self, organization: Organization, server: PortalServer) -> str | None:
        """The server of this name, made with Configurator's profile where there is none; None: to be assigned by hand."""
        if server.name in organization.servers:
            return server.name
        if server.profile is None:
            return None
        self._registry.add_server(organization.name, server.to_server(organization.name))
        return server.name


class UnenrollService(EnvelopeService):
    """`POST /v2/unenroll`: a device leaves its organization while its provisional period lasts."""

    step = "provisional_leave"

    def __init__(self, checks: EnvelopeChecks, registry: Registry, clock: Clock) -> None:
        super().__init__(checks)
        self._registry = registry
        self._clock = clock

    async def answer(self, message: Envelope) -> Answer:
        record, _ = self._checks.asks(message, Operation.UNENROLL)
        until, now = record.provisional_until, self._clock.now()
        if record.organization is None or until is None:
            raise Refusal("UNENROLL", 400, "CANNOT_ENROLL", "the device is not provisional")
        if now >= until:
            raise Refusal("UNENROLL", 400, "CANNOT_ENROLL", f"the period ended at {until:%FT%TZ}")
        self._registry.release(record.serial_number, now)
        log.info("device_released", serial=record.serial_number, by="user")
        return Answer(body=b"{}", content_type=JSON, outcome="released")


class NoteService(EnvelopeService):
    """`/deviceRegister`, `/startMdmMigration` and `/endMdmMigration`: checked, noted in the log, and answered `{}`."""

    def __init__(self, checks: EnvelopeChecks, operation: Operation, step: str) -> None:
        super().__init__(checks)
        self._operation = operation
        self.step = step

    async def answer(self, message: Envelope) -> Answer:
        _, request = self._checks.asks(message, self._operation)
        return Answer(body=b"{}", content_type=JSON, outcome=request.status or "noted")


def _server(request: NonceRequest) -> PortalServer:
    """The server that Configurator names, its profile held to the limits of the assignment API."""
    known = {
        key: value
        for key, value in request.profile.items()
        if key in AssignmentProfile.model_fields
    }
    try:
        return PortalServer.model_validate({"name": request.server_name, "profile": known or None})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MalformedMessage(place.replace("name", "server_name", 1), first["msg"]) from error
