"""The signed JSON envelope in which a device asks Apple's services (apple-services.md 3.2).

The signature is over the payload bytes exactly as they travel, before base64: they are kept, never made anew.
"""

from dataclasses import dataclass
from typing import Self

from emulator.wire import json_object
from emulator.wire.fields import Fields
from emulator.wire.json_object import required_bytes, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Four members, all required: what is asked, the signature over it, and the signer's two certificates."""

    payload: bytes  # the inner JSON
    payload_signature: bytes  # ECDSA, P-256 with SHA-256, DER
    sign_cert: bytes  # DER of the device's attestation certificate
    intermediate_cert: bytes  # DER of its issuer

    def to_fields(self) -> Fields:
        return {
            "payload": text_of(self.payload),
            "payload_signature": text_of(self.payload_signature),
            "sign_cert": text_of(self.sign_cert),
            "intermediate_cert": text_of(self.intermediate_cert),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            payload=required_bytes(fields, "payload"),
            payload_signature=required_bytes(fields, "payload_signature"),
            sign_cert=required_bytes(fields, "sign_cert"),
            intermediate_cert=required_bytes(fields, "intermediate_cert"),
        )


def encode(envelope: Envelope) -> bytes:
    """The request body."""
    return json_object.dumps(envelope.to_fields())


def decode(data: bytes) -> Envelope:
    """Read a request body, whatever its content type said. Raises MalformedMessage."""
    return Envelope.from_fields(json_object.loads(data, "envelope"))
