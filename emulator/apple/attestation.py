"""The attestation service: a device proves which device it is and gets a leaf for a key that it holds.

Stands in for the unpublished service behind Managed Device Attestation. The request is an `Envelope` as for the cloud
configuration; its checks are C1 to C5 of apple-services.md 9.2. Leaves are those of certificates.md 2.5.
"""

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric import ec

from certs.attestation import FRESHNESS_BYTES, AttestationAuthority
from certs.errors import MalformedMessage
from emulator import hardware
from emulator.apple.answer import Answer, Received, Refusal
from emulator.apple.cloudconfig import JSON
from emulator.apple.device_envelope import EnvelopeChecks, check_identity
from emulator.wire import attestation
from emulator.wire.attestation import AttestationRequest
from emulator.wire.envelope import Envelope


class AttestationService:
    """`POST /attestation`."""

    step = "attestation"

    def __init__(self, checks: EnvelopeChecks, authority: AttestationAuthority) -> None:
        self._checks = checks
        self._authority = authority

    def headers(self) -> Mapping[str, str]:
        return {"Cache-Control": "no-cache, no-store"}

    def decode(self, received: Received) -> Envelope:
        return self._checks.decode(received.body)

    def serial_number(self, message: Envelope) -> str:
        try:
            return attestation.decode_request(message.payload).serial_number
        except MalformedMessage:
            return ""

    async def answer(self, message: Envelope) -> Answer:
        record, said = self._checks.signer(message)
        request, key = _read(message)
        hidden = request.user_enrollment
        check_identity(request.serial_number, request.udid, record, said)
        facts = record.hardware
        assert facts is not None  # found by its key
        model = hardware.model(facts.product_type)
        # A product type that is not in the table counts as attesting (design.md 2).
        if model is not None and not model.attests:
            raise Refusal(
                "UNSUPPORTED", 403, "UNSUPPORTED", f"the {model.chip} of {model.name} cannot attest"
            )
        chain = self._authority.issue(
            key,
            serial_number=None if hidden else facts.serial_number,
            udid=None if hidden else facts.udid,
            freshness=request.freshness,
            os_version=request.os_version or facts.os_version,
            software_update_device_id=None if hidden else facts.product_type,
        )
        return Answer(
            body=attestation.encode_answer(attestation.AttestationAnswer(x5c=chain)),
            content_type=JSON,
            outcome="attested",
        )


def _read(message: Envelope) -> tuple[AttestationRequest, ec.EllipticCurvePublicKey]:
    """C4: the payload and the key to attest."""
    try:
        request = attestation.decode_request(message.payload)
        if request.action != attestation.REQUEST_ATTESTATION:
            raise MalformedMessage("action", attestation.REQUEST_ATTESTATION, request.action)
        if request.freshness is not None and len(request.freshness) > FRESHNESS_BYTES:
            raise MalformedMessage(
                "freshness", f"at most {FRESHNESS_BYTES} bytes", f"{len(request.freshness)} bytes"
            )
        key = request.load_public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise MalformedMessage("public_key", "an EC key: chips attest no other", "RSA")
        return request, key
    except MalformedMessage as error:
        raise Refusal("C4", 400, "INVALID_DEVICE", str(error)) from error
