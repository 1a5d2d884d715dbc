"""Opening an activation session: `drmHandshake`, checks H1 to H5 of apple-services.md 9.1.

The reply is signed with the activation service key; the session that it opens is good for one activation within 5 minutes.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from certs.clock import Clock
from certs.errors import MalformedMessage
from certs.keys import spki_der
from emulator.apple.answer import Answer, Received, Refusal
from emulator.apple.claims import fingerprint
from emulator.apple.device_envelope import ECDSA_SHA256
from emulator.apple.memory import Memory
from emulator.apple.registry import Registry
from emulator.wire import activation
from emulator.wire.activation import HandshakeReply, HandshakeRequest, IngestBody

SESSION_LIFETIME: Final = timedelta(minutes=5)
REPLAY_WINDOW: Final = timedelta(minutes=10)
CLOCK_DIFFERENCE: Final = timedelta(minutes=10)  # between a device's time and ours
XML: Final = "application/xml"

# What the real service sends with every answer (2.1).
COMMON_HEADERS: Final = {
    "Server": "Apple",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "X-XSS-Protection": "1; mode=block",
    "Strict-Transport-Security": "max-age=31536000; includeSubdomains",
}


@dataclass(slots=True, kw_only=True)
class Session:
    """One handshake that waits for its activation."""

    serial_number: str
    udid: str
    imei: str | None
    sign_act_request: bytes  # what the request must show: it has seen our reply
    used: bool = False


class HandshakeService:
    """`POST /deviceservices/drmHandshake`."""

    step = "drm_handshake"

    def __init__(
        self,
        registry: Registry,
        service_key: ec.EllipticCurvePrivateKey,
        clock: Clock,
        *,
        enabled: bool = True,
        check_time: bool = True,
    ) -> None:
        self._registry = registry
        self._service_key = service_key
        self._clock = clock
        self._enabled = enabled  # False where only lite activation is served
        self._check_time = check_time  # False for devices that live in another time
        self.sessions: Memory[Session] = Memory(SESSION_LIFETIME)
        self._seen: Memory[bool] = Memory(REPLAY_WINDOW)

    def headers(self) -> Mapping[str, str]:
        return {
            **COMMON_HEADERS,
            "Cache-Control": "no-cache, no-store, max-age=0, must-revalidate",
            "Pragma": "no-cache",
            "Expires": "0",
            "Referrer-Policy": "no-referrer",
            "X-B3-TraceId": secrets.token_hex(8),
        }

    def decode(self, received: Received) -> HandshakeRequest:
        if not self._enabled:
            raise Refusal("H1", 400, "MALFORMED", "only lite activation is served here")
        try:
            return activation.decode_handshake_request(received.body)
        except MalformedMessage as error:
            raise Refusal("H1", 400, "MALFORMED", str(error)) from error

    def serial_number(self, message: HandshakeRequest) -> str:
        return IngestBody.decode(message.ingest_body).serial_number

    async def answer(self, message: HandshakeRequest) -> Answer:
        now = self._clock.now()
        made = activation.handshake_time(message.handshake_request_message)
        if self._check_time and abs(now - made) > CLOCK_DIFFERENCE:
            raise Refusal("H1", 400, "MALFORMED", f"the request was made at {made:%FT%TZ}")
        said = IngestBody.decode(message.ingest_body)
        self._check_signature(message, said)
        if self._seen.get(message.handshake_request_message, now):
            raise Refusal("H5", 409, "REPLAY", "this HandshakeRequestMessage was used before")
        self._seen.put(message.handshake_request_message, True, now)
        session_id = secrets.token_bytes(16)
        reply = self._reply(message, session_id)
        session = Session(
            serial_number=said.serial_number,
            udid=said.udid,
            imei=said.imei,
            sign_act_request=activation.sign_act_request(reply.handshake_response_message),
        )
        self.sessions.put(session_id, session, now)
        return Answer(
            body=activation.encode_handshake_reply(reply), content_type=XML, outcome="session"
        )

    def _check_signature(self, message: HandshakeRequest, said: IngestBody) -> None:
        """H3 and H4: the registered attestation key of this very device signed what it says."""
        record = self._registry.provisioned(said.serial_number, said.udid)
        if record is None or record.hardware is None:
            raise Refusal("H3", 403, "UNKNOWN_DEVICE", "serial number and UDID are not registered")
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), message.sig_key)
        except ValueError as error:
            raise Refusal(
                "H4", 401, "BAD_SIGNATURE", "X-Apple-Sig-Key is no P-256 point"
            ) from error
        if fingerprint(spki_der(key)) != record.hardware.attestation_key:
            raise Refusal("H4", 401, "BAD_SIGNATURE", "X-Apple-Sig-Key is not the registered key")
        try:
            key.verify(message.signature, message.ingest_body, ECDSA_SHA256)
        except InvalidSignature as error:
            raise Refusal("H4", 401, "BAD_SIGNATURE", "X-Apple-Signature is wrong") from error

    def _reply(self, message: HandshakeRequest, session_id: bytes) -> HandshakeReply:
        kp = activation.server_kp(session_id, secrets.token_bytes(68))
        fdr_blob, su_info = secrets.token_bytes(32), bytes(366)
        signed = activation.tbs_handshake(
            message.handshake_request_message, fdr_blob=fdr_blob, kp=kp, su_info=su_info
        )
        signature = self._service_key.sign(signed, ECDSA_SHA256)
        return HandshakeReply(
            server_kp=kp,
            fdr_blob=fdr_blob,
            su_info=su_info,
            handshake_response_message=activation.handshake_response_message(signature),
        )
