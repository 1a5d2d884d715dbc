"""The older way to the cloud configuration, with a substitute for Absinthe (apple-services.md 3.1 and 9.2, "Legacy option")."""

import base64
from dataclasses import dataclass
from typing import Final, Self

from certs.errors import MalformedMessage
from emulator.wire import json_object, plist
from emulator.wire.fields import Fields, required
from emulator.wire.json_object import bytes_of, required_bytes, text_of

CERTIFICATE_PATH: Final = "/resource/certificate.cer"
SESSION_PATH: Final = "/session"
PROFILE_PATH: Final = "/macProfile"
CERTIFICATE_TYPE: Final = "application/x-x509-ca-cert"
PROTOCOL_VERSION: Final = "1"  # header X-Profile-Protocol-Version
USER_AGENT: Final = "ConfigClient-1.0"
ACTION: Final = "RequestProfileConfiguration"
RANDOM_BYTES: Final = 32


def encode_session_request(random: bytes) -> bytes:
    """The body of `POST /session`."""
    return plist.dumps({"session-info-request": random})


def decode_session_request(body: bytes) -> bytes:
    """The client's random bytes. Raises MalformedMessage."""
    return _random(plist.loads(body, "session request"), "session-info-request")


def encode_session(random: bytes) -> bytes:
    """The answer to it."""
    return plist.dumps({"session-info": random})


def decode_session(body: bytes) -> bytes:
    """The service's random bytes: the session. Raises MalformedMessage."""
    return _random(plist.loads(body, "session"), "session-info")


@dataclass(frozen=True, slots=True, kw_only=True)
class MacProfileRequest:
    """The JSON that the factory key signs."""

    serial_number: str
    session: bytes
    action: str = ACTION

    def to_fields(self) -> Fields:
        return {
            "action": self.action,
            "sn": self.serial_number,
            "sim_session": text_of(self.session),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            action=required(fields, "action", str),
            serial_number=required(fields, "sn", str),
            session=required_bytes(fields, "sim_session"),
        )


def encode_request(request: MacProfileRequest) -> bytes:
    """The content to sign."""
    return json_object.dumps(request.to_fields())


def decode_request(content: bytes) -> MacProfileRequest:
    """Read the signed content. Raises MalformedMessage."""
    return MacProfileRequest.from_fields(json_object.loads(content, "content"))


def encode_body(signed: bytes) -> bytes:
    """The body of `POST /macProfile`: base64 of a CMS SignedData."""
    return base64.b64encode(signed)


def decode_body(body: bytes) -> bytes:
    """The SignedData in the body. Raises MalformedMessage."""
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedMessage("body", "base64", f"{len(body)} bytes") from None
    return bytes_of(text, "body")


def _random(fields: Fields, key: str) -> bytes:
    value = required(fields, key, bytes)
    if len(value) != RANDOM_BYTES:
        raise MalformedMessage(key, f"{RANDOM_BYTES} bytes", f"{len(value)} bytes")
    return value
