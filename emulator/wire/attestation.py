"""Asking the attestation service for a leaf: our substitute for Apple's (apple-services.md 9).

The request travels in the same signed `Envelope` as a cloud configuration request; the answer is the chain as base64 DER.
"""

from dataclasses import dataclass
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key

from certs.errors import MalformedMessage
from certs.keys import PublicKey
from emulator.wire import json_object
from emulator.wire.envelope import Envelope
from emulator.wire.envelope import decode as decode_envelope
from emulator.wire.envelope import encode as encode_envelope
from emulator.wire.fields import Fields, optional, present, required
from emulator.wire.json_object import bytes_of, certificate_texts, certificates, text_of

__all__ = [
    "AttestationAnswer",
    "AttestationRequest",
    "Envelope",
    "decode_answer",
    "decode_envelope",
    "decode_request",
    "encode_answer",
    "encode_envelope",
    "encode_request",
]

PATH: Final = "/attestation"
REQUEST_ATTESTATION: Final = "RequestAttestation"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationRequest:
    """The inner JSON: attest that this key lives in this device."""

    serial_number: str
    udid: str
    public_key: bytes  # SubjectPublicKeyInfo DER of the key to attest
    freshness: bytes | None = None  # what the leaf shall prove it was made for
    os_version: str | None = None
    user_enrollment: bool = False  # the leaf shall not tell which device it is
    action: str = REQUEST_ATTESTATION

    def to_fields(self) -> Fields:
        return present(
            {
                "device": {"serial_number": self.serial_number, "udid": self.udid},
                "action": self.action,
                "public_key": text_of(self.public_key),
                "freshness": None if self.freshness is None else text_of(self.freshness),
                "os_version": self.os_version,
                "user_enrollment": self.user_enrollment or None,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        device = required(fields, "device", dict)
        freshness = optional(fields, "freshness", str)
        return cls(
            serial_number=required(device, "serial_number", str, "device."),
            udid=required(device, "udid", str, "device."),
            action=required(fields, "action", str),
            public_key=json_object.required_bytes(fields, "public_key"),
            freshness=None if freshness is None else bytes_of(freshness, "freshness"),
            os_version=optional(fields, "os_version", str),
            user_enrollment=optional(fields, "user_enrollment", bool) or False,
        )

    def load_public_key(self) -> PublicKey:
        """The key to attest. Raises MalformedMessage unless it is an RSA or EC key."""
        try:
            key = load_der_public_key(self.public_key)
        except (ValueError, TypeError) as error:
            raise MalformedMessage(
                "public_key", "SubjectPublicKeyInfo in DER", str(error)
            ) from error
        if not isinstance(key, PublicKey):
            raise MalformedMessage("public_key", "an RSA or EC key", type(key).__name__)
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationAnswer:
    """The chain, leaf first, without the root."""

    x5c: tuple[x509.Certificate, ...]

    def to_fields(self) -> Fields:
        return {"x5c": certificate_texts(self.x5c)}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        required(fields, "x5c", list)
        chain = certificates(fields, "x5c")
        if not chain:
            raise MalformedMessage("x5c", "at least one certificate")
        return cls(x5c=chain)


def encode_request(request: AttestationRequest) -> bytes:
    """The bytes to sign and to put into the envelope."""
    return json_object.dumps(request.to_fields())


def decode_request(payload: bytes) -> AttestationRequest:
    """Read an envelope's payload. Raises MalformedMessage."""
    return AttestationRequest.from_fields(json_object.loads(payload, "payload"))


def encode_answer(answer: AttestationAnswer) -> bytes:
    """The answer body; its content type is application/json."""
    return json_object.dumps(answer.to_fields())


def decode_answer(data: bytes) -> AttestationAnswer:
    """Read an answer body. Raises MalformedMessage."""
    return AttestationAnswer.from_fields(json_object.loads(data, "attestation"))
