"""The activation service (albert): `deviceActivation`, checks A1 to A11 of apple-services.md 9.1.

Serves the session form, the lite form (no handshake, legacy keys) and the answers to its own activation-lock page. What
opens a session is in `activation_session`, what a device takes away in `activation_record`.
"""

import base64
import hashlib
import hmac
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field

from certs.clock import Clock
from certs.errors import MalformedMessage
from emulator.apple import activation_form, activation_lock
from emulator.apple.activation_checks import (
    ActivationChecks,
    certificate_request,
    check_identity,
    device_unknown,
    read,
)
from emulator.apple.activation_lock import PENDING_LIFETIME, PendingActivation
from emulator.apple.activation_record import RecordIssuer
from emulator.apple.activation_session import COMMON_HEADERS, HandshakeService, Session
from emulator.apple.answer import Answer, Received, Refusal
from emulator.apple.memory import Memory
from emulator.apple.pki import SimPKI
from emulator.apple.planned_faults import OUTCOME, PlannedFaults
from emulator.apple.records import ActivationLock, ActivationState
from emulator.apple.registry import Registry
from emulator.config import MAX_ACTIVATION_BYTES
from emulator.settings_file import FileModel
from emulator.wire import activation, activation_info, activation_record
from emulator.wire.activation import (
    Acknowledgement,
    ActivationRecord,
    ActivationRequest,
    SessionProof,
)
from emulator.wire.activation_record import (
    BUDDYML_CONTENT_TYPE,
    HTML_CONTENT_TYPE,
    RECORD_CONTENT_TYPE,
)

ActivationMode = Literal["full", "lite", "both"]

USER_AGENTS: Final = ("iOS Device Activator (", "iTunes/")


class ActivationSettings(FileModel):
    """What a run may choose about activation."""

    mode: ActivationMode = Field(
        "both", description="full: handshake and session; lite: one request, for load"
    )
    check_time: bool = Field(
        True, description="of handshakes; false for devices that live in another time"
    )
    # Apple's own CA of this kind expired in 2014.
    check_dates: bool = Field(False, description="of factory certificates")
    reactivation: Literal["ack", "error"] = Field(
        "ack", description="how an activated device that asks again is answered"
    )
    answer: Literal["xml", "html"] = Field(
        "xml", description="the plist as it is, or in the script of a page"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LockAnswer:
    """What somebody typed into the activation-lock page."""

    session_id: bytes
    login: str
    password: str


class ActivationService:
    """`POST /deviceservices/deviceActivation` and its older alias."""

    step = "device_activation"

    def __init__(
        self,
        pki: SimPKI,
        registry: Registry,
        handshakes: HandshakeService,
        issuer: RecordIssuer,
        clock: Clock,
        settings: ActivationSettings,
        planned: PlannedFaults | None = None,
    ) -> None:
        self._planned = planned or PlannedFaults()
        self._checks = ActivationChecks(pki, registry, clock, check_dates=settings.check_dates)
        self._sessions = handshakes.sessions
        self._issuer = issuer
        self._clock = clock
        self._settings = settings
        self._pending: Memory[PendingActivation] = Memory(PENDING_LIFETIME)
        self._ars_secret = secrets.token_bytes(32)

    def headers(self) -> Mapping[str, str]:
        return {
            **COMMON_HEADERS,
            "Cache-Control": "private, no-cache, no-store, must-revalidate, max-age=0",
            "x-client-request-id": str(uuid.uuid4()),
        }

    def decode(self, received: Received) -> ActivationRequest | LockAnswer:
        """A1 and A2."""
        if not received.user_agent.startswith(USER_AGENTS):
            raise Refusal("A1", 403, "UNKNOWN_AGENT", f"User-Agent {received.user_agent!r:.80}")
        if len(received.body) > MAX_ACTIVATION_BYTES:
            raise Refusal("A2", 413, "TOO_LARGE", f"{len(received.body)} bytes")
        try:
            fields = activation_form.decode(received.content_type, received.body)
            if activation.FORM_FIELD not in fields and "sessionId" in fields:
                return _lock_answer(fields)
            if activation.FORM_FIELD not in fields:
                raise MalformedMessage("form", f"a field {activation.FORM_FIELD}")
            message = activation.decode_activation_info(fields[activation.FORM_FIELD])
        except MalformedMessage as error:
            raise Refusal("A2", 400, "MALFORMED", str(error)) from error
        form = "lite" if message.session is None else "full"
        if self._settings.mode not in (form, "both"):
            raise Refusal("A2", 400, "MALFORMED", f"{form} activation is not served here")
        return message

    def serial_number(self, message: ActivationRequest | LockAnswer) -> str:
        if isinstance(message, LockAnswer):
            pending = self._pending.get(message.session_id, self._clock.now())
            return pending.device.serial_number if pending else ""
        try:
            return activation_info.decode(message.activation_info_xml).serial_number
        except MalformedMessage:
            return ""

    async def answer(self, message: ActivationRequest | LockAnswer) -> Answer:
        if isinstance(message, LockAnswer):
            return await self._unlock(message)
        session = self._session(message.session) if message.session else None
        device = self._checks.factory_signer(message)
        info = read(message)
        certificate = (
            self._checks.attested(message, message.session, device, info)
            if message.session
            else None
        )
        check_identity(info, device, session)
        waiting = PendingActivation(
            device=device,
            info=info,
            request=certificate_request(info),
            attestation_certificate=certificate,
            session=session,
        )
        session_id = (
            activation.session_id(message.session.server_kp)
            if message.session
            else secrets.token_bytes(16)  # lite: nothing but the lock form needs one
        )
        return self._decide(waiting, session_id)

    def _session(self, proof: SessionProof) -> Session:
        """A3."""
        try:
            session_id = activation.session_id(proof.server_kp)
        except MalformedMessage as error:
            raise Refusal("A3", 401, "SESSION", str(error)) from error
        session = self._sessions.get(session_id, self._clock.now())
        if session is None:
            raise Refusal("A3", 401, "SESSION", "no such session, or older than 5 minutes")
        if session.used:
            raise Refusal("A3", 401, "SESSION", "the session was used")
        if not hmac.compare_digest(proof.sign_act_request, session.sign_act_request):
            raise Refusal("A3", 401, "SESSION", "signActRequest does not fit the handshake reply")
        return session

    def _decide(self, waiting: PendingActivation, session_id: bytes) -> Answer:
        """A9 to A11, unless an outcome is planned for the device."""
        device = waiting.device
        action = self._planned.take(self.step, device.serial_number, (OUTCOME,))
        match action and action.arguments["outcome"]:
            case "server_error":
                raise Refusal("PLAN", 500, "SERVER_ERROR", "planned")
            case "device_unknown":
                raise device_unknown("PLAN", "planned")
            case "acknowledged":
                return self._acknowledge(waiting)
            case "activated":
                return self._activate(waiting)
            case "locked":
                waiting.lock_planned = True
                return self._ask(waiting, session_id, device.activation_lock or ActivationLock())
        activated = device.activation_state is ActivationState.ACTIVATED
        if activated and waiting.info.activation_state == activation_info.ACTIVATED:
            if self._settings.reactivation == "error":
                raise device_unknown("A9", "the device is activated already")
            return self._acknowledge(waiting)
        if device.activation_lock is None:
            return self._activate(waiting)
        return self._ask(waiting, session_id, device.activation_lock)

    def _acknowledge(self, waiting: PendingActivation) -> Answer:
        """A9."""
        if waiting.session is not None:
            waiting.session.used = True
        body, content_type = self._encoded(Acknowledgement())
        return Answer(body=body, content_type=content_type, outcome="acknowledged")

    def _ask(self, waiting: PendingActivation, session_id: bytes, lock: ActivationLock) -> Answer:
        """A10."""
        now = self._clock.now()
        if self._pending.get(session_id, now) is None:  # a repeated request gets no new tries
            self._pending.put(session_id, waiting, now)
        return Answer(
            body=activation_lock.form(session_id, lock),
            content_type=BUDDYML_CONTENT_TYPE,
            outcome="activation_lock",
        )

    def _activate(self, waiting: PendingActivation) -> Answer:
        """A11."""
        device = waiting.device
        record = self._issuer.issue(
            device, waiting.info, waiting.request, waiting.attestation_certificate
        )
        if waiting.session is not None:
            waiting.session.used = True
        device.activated(self._clock.now())
        body, content_type = self._encoded(record, legacy=waiting.session is None)
        ars = hmac.digest(self._ars_secret, body, hashlib.sha256)[:16]
        return Answer(
            body=body,
            content_type=content_type,
            headers={"ARS": base64.b64encode(ars).decode()},
            outcome="activated",
        )

    def _encoded(
        self, answer: ActivationRecord | Acknowledgement, *, legacy: bool = False
    ) -> tuple[bytes, str]:
        if self._settings.answer == "html":
            return activation_record.encode_html(answer, legacy=legacy), HTML_CONTENT_TYPE
        return activation.encode_answer(answer, legacy=legacy), RECORD_CONTENT_TYPE

    async def _unlock(self, message: LockAnswer) -> Answer:
        """A10 again, with credentials."""
        waiting = self._waiting(message)
        lock = waiting.device.activation_lock
        if lock is None and waiting.lock_planned:
            lock = ActivationLock()  # which nothing opens
        if waiting.wrong_tries >= activation_lock.MAX_TRIES:
            raise self._too_many(message)
        if lock is None or await activation_lock.opens(lock, message.login, message.password):
            self._waiting(message)  # another request may have come first meanwhile
            self._pending.drop(message.session_id)
            return self._activate(waiting)
        waiting.wrong_tries += 1
        if waiting.wrong_tries >= activation_lock.MAX_TRIES:
            raise self._too_many(message)
        return Answer(
            body=activation_lock.form(
                message.session_id, lock, alert=activation_lock.WRONG_CREDENTIALS
            ),
            content_type=BUDDYML_CONTENT_TYPE,
            outcome="wrong_credentials",
        )

    def _waiting(self, message: LockAnswer) -> PendingActivation:
        waiting = self._pending.get(message.session_id, self._clock.now())
        if waiting is None or (waiting.session is not None and waiting.session.used):
            raise Refusal("A10", 401, "SESSION", "no activation waits under this sessionId")
        if waiting.device.hardware is None:
            raise device_unknown("A10", "the device was removed from the registry")
        return waiting

    def _too_many(self, message: LockAnswer) -> Refusal:
        age = self._pending.age(message.session_id, self._clock.now())
        left = PENDING_LIFETIME - age if age is not None else PENDING_LIFETIME
        return Refusal(
            "A10",
            429,
            "TOO_MANY_TRIES",
            f"{activation_lock.MAX_TRIES} wrong tries",
            headers={"Retry-After": str(max(1, int(left.total_seconds())))},
        )


def _lock_answer(fields: Mapping[str, bytes]) -> LockAnswer:
    try:
        return LockAnswer(
            session_id=bytes.fromhex(fields["sessionId"].decode("ascii")),
            login=fields.get("login", b"").decode().strip(),
            password=fields.get("password", b"").decode(),
        )
    except ValueError as error:  # what was typed is a secret, so the error does not show it
        raise MalformedMessage("form", "login, password and sessionId as text") from error
