"""The older way to the cloud configuration, as Macs once went (apple-services.md 3.1; 9.2, "Legacy option").

A certificate, a session, and a request that the factory key signs in place of Absinthe; C6 to C8 are those of today's way.
"""

import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature as WrongSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from certs import cms
from certs.clock import Clock
from certs.cms import SignedData
from certs.errors import CertsError, MalformedMessage
from certs.keys import spki_der
from emulator.apple.answer import Answer, Received, Refusal
from emulator.apple.cloudconfig import configuration_for
from emulator.apple.memory import Memory
from emulator.apple.pki import SimPKI
from emulator.apple.records import DeviceRecord
from emulator.apple.registry import Registry
from emulator.wire import legacy_cloudconfig as legacy

NO_CACHE: Final = {"Cache-Control": "no-cache, no-store"}
SESSION_LIFETIME: Final = timedelta(minutes=10)
XML: Final = "application/xml"


class CertificateService:
    """`GET /resource/certificate.cer`."""

    step = "legacy_certificate"

    def __init__(self, certificate: Callable[[], x509.Certificate]) -> None:
        self._certificate = certificate

    def headers(self) -> Mapping[str, str]:
        return {}

    def decode(self, received: Received) -> None:
        return None

    def serial_number(self, message: None) -> str:
        return ""

    async def answer(self, message: None) -> Answer:
        return Answer(
            body=self._certificate().public_bytes(Encoding.DER),
            content_type=legacy.CERTIFICATE_TYPE,
            outcome="certificate",
        )


class SessionService:
    """`POST /session`: 32 random bytes for 32 random bytes; good for ten minutes and one request."""

    step = "legacy_session"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.sessions: Memory[bool] = Memory(SESSION_LIFETIME)

    def headers(self) -> Mapping[str, str]:
        return NO_CACHE

    def decode(self, received: Received) -> bytes:
        try:
            return legacy.decode_session_request(received.body)
        except MalformedMessage as error:
            raise Refusal("L1", 400, "INVALID_DEVICE", str(error)) from error

    def serial_number(self, message: bytes) -> str:
        return ""

    async def answer(self, message: bytes) -> Answer:
        session = secrets.token_bytes(legacy.RANDOM_BYTES)
        self.sessions.put(session, True, self._clock.now())
        return Answer(body=legacy.encode_session(session), content_type=XML, outcome="session")


class MacProfileService:
    """`POST /macProfile`."""

    step = "legacy_cloud_configuration"

    def __init__(
        self, pki: SimPKI, registry: Registry, sessions: Memory[bool], clock: Clock
    ) -> None:
        self._pki = pki
        self._registry = registry
        self._sessions = sessions
        self._clock = clock

    def headers(self) -> Mapping[str, str]:
        return NO_CACHE

    def decode(self, received: Received) -> SignedData:
        try:
            return cms.decode_signed(legacy.decode_body(received.body))
        except CertsError as error:
            raise Refusal("L2", 400, "INVALID_DEVICE", str(error)) from error

    def serial_number(self, message: SignedData) -> str:
        try:
            return legacy.decode_request(message.content or b"").serial_number
        except MalformedMessage:
            return ""

    async def answer(self, message: SignedData) -> Answer:
        record = self._signer(message)
        try:
            request = legacy.decode_request(message.content or b"")
        except MalformedMessage as error:
            raise Refusal("L2", 400, "INVALID_DEVICE", str(error)) from error
        now = self._clock.now()
        if not self._sessions.get(request.session, now):
            raise Refusal("L4", 401, "NONCE_EXPIRED", "the session is unknown, used or too old")
        if request.action != legacy.ACTION or request.serial_number != record.serial_number:
            raise Refusal("L5", 400, "INVALID_DEVICE", "sn is not the device that signed")
        self._sessions.drop(request.session)
        return configuration_for(record, self._clock)

    def _signer(self, message: SignedData) -> DeviceRecord:
        """L3: a registered factory key, certified by our device CA, signed the content."""
        try:
            certificate = cms.verify_signed(message)
            certificate.verify_directly_issued_by(self._pki.device_ca.certificate)
        except (CertsError, ValueError, TypeError, WrongSignature) as error:
            reason = str(error) or "the signer is not certified by Sim iPhone Device CA"
            raise Refusal("L3", 401, "INVALID_SIGNATURE", reason) from error
        key = certificate.public_key()
        record = self._registry.by_key(spki_der(key)) if isinstance(key, rsa.RSAPublicKey) else None
        if record is None:
            raise Refusal("L3", 401, "INVALID_SIGNATURE", "the signer's key is not registered")
        return record
