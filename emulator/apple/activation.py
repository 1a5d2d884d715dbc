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

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from certs import attestation, csr, trust
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import CertsError, MalformedMessage, UntrustedCertificate
from certs.keys import spki_der
from emulator.apple import activation_form, activation_lock
from emulator.apple.activation_lock import PENDING_LIFETIME, PendingActivation
from emulator.apple.activation_record import RecordIssuer
from emulator.apple.activation_session import COMMON_HEADERS, HandshakeService, Session
from emulator.apple.answer import Answer, Received, Refusal
from emulator.apple.device_envelope import ECDSA_SHA256
from emulator.apple.memory import Memory
from emulator.apple.pki import SimPKI
from emulator.apple.registry import ActivationState, DeviceRecord, HardwareFacts, Registry
from emulator.config import MAX_ACTIVATION_BYTES
from emulator.wire import activation, activation_info, buddyml
from emulator.wire.activation import (
    Acknowledgement,
    ActivationInfo,
    ActivationRequest,
    SessionProof,
)
from emulator.wire.activation_record import BUDDYML_CONTENT_TYPE, RECORD_CONTENT_TYPE

ActivationMode = Literal["full", "lite", "both"]

USER_AGENTS: Final = ("iOS Device Activator (", "iTunes/")
DEVICE_UNKNOWN: Final = "Device Unknown"
MIN_RSA_BITS: Final = 1024
PKCS1: Final = padding.PKCS1v15()


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationSettings:
    """What a run may choose about activation."""

    mode: ActivationMode = "both"
    check_time: bool = True  # of handshakes; False for devices that live in another time
    check_dates: bool = (
        False  # of factory certificates; Apple's own CA of this kind expired in 2014
    )
    reactivation: Literal["ack", "error"] = "ack"  # how an activated device is answered (2.5)


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
    ) -> None:
        self._pki = pki
        self._registry = registry
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
        device = self._factory_signer(message)
        info = _read(message)
        certificate = (
            self._attested(message, message.session, device, info) if message.session else None
        )
        _check_identity(info, device, session)
        waiting = PendingActivation(
            device=device,
            info=info,
            request=_certificate_request(info),
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

    def _factory_signer(self, message: ActivationRequest) -> DeviceRecord:
        """A4 and A5: the registered factory key, certified by our device CA, signed the XML as received."""
        device_ca = self._pki.device_ca.certificate
        try:
            chain = [
                x509.load_der_x509_certificate(der)
                for der in activation.split_certificates(message.fair_play_cert_chain)
            ]
            if len(chain) != 2:
                raise MalformedMessage("FairPlayCertChain", "two certificates", len(chain))
            if chain[1].public_key() != device_ca.public_key():
                raise UntrustedCertificate("FairPlayCertChain[1]", "is not Sim iPhone Device CA")
            chain[0].verify_directly_issued_by(device_ca)
            if self._settings.check_dates:
                trust.check_dates(chain[0], self._clock.now())
        except (CertsError, ValueError, TypeError, InvalidSignature) as error:
            raise _bad_signature("A4", str(error) or "FC is not signed by its issuer") from error
        key = chain[0].public_key()
        device = self._registry.by_key(spki_der(key)) if isinstance(key, rsa.RSAPublicKey) else None
        if device is None or not isinstance(key, rsa.RSAPublicKey):
            raise _bad_signature("A4", "the key of FC is not registered")
        try:
            key.verify(
                message.fair_play_signature, message.activation_info_xml, PKCS1, hashes.SHA256()
            )
        except InvalidSignature as error:
            raise _bad_signature("A5", "FairPlaySignature does not fit the XML") from error
        return device

    def _attested(
        self,
        message: ActivationRequest,
        proof: SessionProof,
        device: DeviceRecord,
        info: ActivationInfo,
    ) -> x509.Certificate:
        """A6: the device's own attestation key vouches for the XML and the session."""
        try:
            certificate = x509.load_der_x509_certificate(proof.rk_certification)
            certificate.verify_directly_issued_by(self._pki.attestation.sub_ca)
            said = attestation.parse(certificate)
        except (CertsError, ValueError, TypeError, InvalidSignature) as error:
            reason = str(error) or "RKCertification is not signed by the attestation sub CA"
            raise _bad_signature("A6", reason) from error
        key = said.public_key
        if (
            not isinstance(key, ec.EllipticCurvePublicKey)
            or self._registry.by_key(spki_der(key)) is not device
        ):
            raise _bad_signature("A6", "the key of RKCertification is not this device's")
        if (said.serial_number, said.udid) != (info.serial_number, info.udid):
            raise _bad_signature("A6", "RKCertification was issued for another device")
        signed = activation.tbs_request(
            message.activation_info_xml, kp=proof.server_kp, act_request=proof.sign_act_request
        )
        try:
            key.verify(proof.rk_signature, signed, ECDSA_SHA256)
        except InvalidSignature as error:
            raise _bad_signature("A6", "RKSignature is wrong") from error
        return certificate

    def _decide(self, waiting: PendingActivation, session_id: bytes) -> Answer:
        """A9 to A11."""
        device = waiting.device
        activated = device.activation_state is ActivationState.ACTIVATED
        if activated and waiting.info.activation_state == activation_info.ACTIVATED:
            if self._settings.reactivation == "error":
                raise device_unknown("A9", "the device is activated already")
            if waiting.session is not None:
                waiting.session.used = True
            return Answer(
                body=activation.encode_answer(Acknowledgement()),
                content_type=RECORD_CONTENT_TYPE,
                outcome="acknowledged",
            )
        if device.activation_lock is None:
            return self._activate(waiting)
        now = self._clock.now()
        if self._pending.get(session_id, now) is None:  # a repeated request gets no new tries
            self._pending.put(session_id, waiting, now)
        return Answer(
            body=activation_lock.form(session_id, device.activation_lock),
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
        body = activation.encode_answer(record, legacy=waiting.session is None)
        ars = hmac.digest(self._ars_secret, body, hashlib.sha256)[:16]
        return Answer(
            body=body,
            content_type=RECORD_CONTENT_TYPE,
            headers={"ARS": base64.b64encode(ars).decode()},
            outcome="activated",
        )

    async def _unlock(self, message: LockAnswer) -> Answer:
        """A10 again, with credentials."""
        waiting = self._waiting(message)
        lock = waiting.device.activation_lock
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


def _read(message: ActivationRequest) -> ActivationInfo:
    """The XML, once its signature is known to be the device's."""
    try:
        return activation_info.decode(message.activation_info_xml)
    except MalformedMessage as error:
        raise Refusal("A2", 400, "MALFORMED", str(error)) from error


def _check_identity(info: ActivationInfo, device: DeviceRecord, session: Session | None) -> None:
    """A7: the XML names the device that signed it, and the one that opened the session."""
    hardware = device.hardware
    if hardware is None or _identifiers(info) != _registered(hardware):
        raise device_unknown("A7", "the XML differs from the registry")
    if session is not None and (session.serial_number, session.udid, _plain(session.imei)) != (
        info.serial_number,
        info.udid,
        _plain(info.imei),
    ):
        raise device_unknown("A7", "the XML differs from the session")


def _identifiers(info: ActivationInfo) -> tuple[str | None, ...]:
    return info.serial_number, info.udid, _plain(info.imei), _plain(info.meid)


def _registered(hardware: HardwareFacts) -> tuple[str | None, ...]:
    return hardware.serial_number, hardware.udid, _plain(hardware.imei), _plain(hardware.meid)


def _plain(number: str | None) -> str | None:
    """An IMEI or MEID without the blanks of its printed form."""
    return number.replace(" ", "").upper() if number else None


def _certificate_request(info: ActivationInfo) -> CertificateRequest:
    """A8."""
    try:
        if not info.device_cert_request.lstrip().startswith(b"-----BEGIN"):
            raise MalformedMessage("DeviceCertRequest", "PEM")
        request = csr.decode(info.device_cert_request)
        key = request.public_key
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_RSA_BITS:
            raise MalformedMessage("DeviceCertRequest", f"an RSA key of {MIN_RSA_BITS} bits")
    except CertsError as error:
        raise Refusal("A8", 400, "MALFORMED", str(error)) from error
    return request


def device_unknown(check: str, reason: str) -> Refusal:
    """The page whose title is a fatal error; HTTP status 200, as the real service."""
    return Refusal(
        check,
        200,
        DEVICE_UNKNOWN,
        reason,
        page=buddyml.encode_error(DEVICE_UNKNOWN),
        content_type=BUDDYML_CONTENT_TYPE,
    )


def _bad_signature(check: str, reason: str) -> Refusal:
    return Refusal(check, 401, "BAD_SIGNATURE", reason)
