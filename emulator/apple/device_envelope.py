"""The checks that every signed envelope of a device passes: C1 to C5 of apple-services.md 9.2.

Cloud configuration and attestation share them: the attestation certificate AC proves which device asks, its key signs what
it asks.
"""

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs import attestation
from certs.errors import CertsError, MalformedMessage
from certs.keys import spki_der
from emulator.apple.answer import Refusal
from emulator.apple.pki import SimPKI
from emulator.apple.records import DeviceRecord
from emulator.apple.registry import Registry
from emulator.wire import envelope
from emulator.wire.device_request import DeviceRequest, Operation, decode_request
from emulator.wire.envelope import Envelope

ECDSA_SHA256: Final = ec.ECDSA(hashes.SHA256())


class EnvelopeChecks:
    """Who signed an envelope, according to the registry."""

    def __init__(self, pki: SimPKI, registry: Registry) -> None:
        self._registry = registry
        self._root = pki.attestation.root
        self._sub_ca = pki.attestation.sub_ca
        self._sub_ca_der = self._sub_ca.public_bytes(serialization.Encoding.DER)

    def decode(self, body: bytes) -> Envelope:
        """C1: a JSON object with four base64 members."""
        try:
            return envelope.decode(body)
        except MalformedMessage as error:
            raise Refusal("C1", 400, "INVALID_DEVICE", str(error)) from error

    def signer(self, message: Envelope) -> tuple[DeviceRecord, attestation.Attestation]:
        """C2 and C3: the device whose registered key signed the payload, and what its certificate says."""
        certificate = self._attestation_certificate(message)
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise _invalid_signature("C2", "the key of sign_cert is not on P-256")
        record = self._registry.by_key(spki_der(key))
        if record is None:
            raise _invalid_signature("C2", "the key of sign_cert is not registered")
        try:
            key.verify(message.payload_signature, message.payload, ECDSA_SHA256)
        except InvalidSignature as error:
            raise _invalid_signature("C3", "payload_signature does not fit the payload") from error
        try:
            return record, attestation.parse(certificate)
        except MalformedMessage as error:
            raise Refusal("C5", 400, "INVALID_DEVICE", str(error)) from error

    def asks(self, message: Envelope, operation: Operation) -> tuple[DeviceRecord, DeviceRequest]:
        """C2 to C5: who asks, and that it is this operation."""
        record, said = self.signer(message)
        try:
            request = decode_request(message.payload)
        except MalformedMessage as error:
            raise Refusal("C4", 400, "INVALID_DEVICE", str(error)) from error
        if request.action != operation.action:
            raise Refusal("C4", 400, "INVALID_DEVICE", f"action {request.action!r:.80}")
        check_identity(request.serial_number, request.udid, record, said)
        return record, request

    def _attestation_certificate(self, message: Envelope) -> x509.Certificate:
        try:
            certificate = x509.load_der_x509_certificate(message.sign_cert)
            if message.intermediate_cert != self._sub_ca_der:
                self._check_intermediate(message.intermediate_cert)
            certificate.verify_directly_issued_by(self._sub_ca)
        except InvalidSignature as error:
            raise _invalid_signature("C2", "a certificate is not signed by its issuer") from error
        except (ValueError, TypeError, CertsError) as error:
            raise _invalid_signature("C2", str(error)) from error
        return certificate

    def _check_intermediate(self, der: bytes) -> None:
        """Another certificate of the same sub CA is as good; raises what cryptography raises."""
        certificate = x509.load_der_x509_certificate(der)
        if _spki(certificate) != _spki(self._sub_ca):
            raise ValueError("intermediate_cert is not the attestation sub CA")
        certificate.verify_directly_issued_by(self._root)


def claimed_serial(message: Envelope) -> str:
    """The serial number in the payload, before anything is checked; empty when there is none."""
    try:
        return decode_request(message.payload).serial_number
    except MalformedMessage:
        return ""


def check_identity(
    serial_number: str, udid: str, record: DeviceRecord, said: attestation.Attestation
) -> None:
    """C5: the request, the certificate and the registry name one device."""
    hardware = record.hardware
    assert hardware is not None  # found by its key
    registered = (hardware.serial_number, hardware.udid)
    if (said.serial_number, said.udid) != registered:
        raise Refusal("C5", 400, "INVALID_DEVICE", "sign_cert was issued for another device")
    if (serial_number, udid) != registered:
        raise Refusal("C5", 400, "INVALID_DEVICE", "device is not the one that signed")


def _invalid_signature(check: str, reason: str) -> Refusal:
    return Refusal(check, 401, "INVALID_SIGNATURE", reason)


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
