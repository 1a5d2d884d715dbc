"""Asking for the cloud configuration, and every form of answer (apple-services.md 3.2 to 3.4).

The request is a signed `Envelope` around a `DeviceRequest`. The answer is a `CloudConfiguration`, one of the words that mean "none",
or an error word. Keys keep the meaning they have on the wire: the device inverts, forces and drops when it stores them.
"""

from dataclasses import dataclass
from typing import Final, Self

from certs.errors import MalformedMessage
from emulator.errors import PeerRefused
from emulator.wire import envelope, json_object
from emulator.wire.cloud_configuration import (
    CloudConfiguration,
    EnrollmentServer,
    ManagedUser,
    Organization,
    from_assignment,
)
from emulator.wire.envelope import Envelope
from emulator.wire.fields import Fields, optional, present, required

__all__ = [
    "CloudConfiguration",
    "CloudConfigurationError",
    "DeviceRequest",
    "EnrollmentServer",
    "Envelope",
    "ManagedUser",
    "NoConfiguration",
    "Organization",
    "decode_answer",
    "decode_envelope",
    "decode_request",
    "encode_answer",
    "encode_envelope",
    "encode_request",
    "from_assignment",
]

PATH: Final = "/v2/profile"
PROTOCOL_VERSION: Final = "3"  # header X-Profile-Protocol-Version
REQUEST_PROFILE_CONFIGURATION: Final = "RequestProfileConfiguration"

INVALID_CONFIGURATION: Final = 34003  # what a device reports for an answer that cannot be read
GENERIC: Final = 34000
SERVICE_DOWN: Final = 34004
SERVICE_UNAVAILABLE: Final = 34006  # 503 after the last retry

# MCCloudConfigurationErrorDomain by error word (3.4).
ERROR_CODES: Final = {
    "INVALID_PROFILE": 33002,
    "DEVICE_NOT_ENROLLED": 33005,
    "NONCE_EXPIRED": 33014,
    "INVALID_SIGNATURE": 33016,
    "PROFILE_NOT_ACTIVE": 33017,
    "CANNOT_ENROLL": 33018,
    "INVALID_DEVICE": 33023,
    "PROFILE_NOT_FOUND": 33024,
    "DEVICE_NOT_FOUND": 33025,
}
# With HTTP 200 these, and words nobody knows, mean success without a configuration.
EMPTY_WORDS: Final = frozenset(("PROFILE_NOT_FOUND", "DEVICE_NOT_FOUND", "PROFILE_NOT_ACTIVE"))
WORD_LIMIT: Final = 64  # characters; a longer text is no error word


class CloudConfigurationError(PeerRefused):
    """The service said no: its word (empty when it gave none) and the device's code for it."""

    def __init__(self, word: str, code: int, *, status: int | None = None) -> None:
        super().__init__(
            "cloud_configuration",
            f"MCCloudConfigurationErrorDomain {code}" + (f", {word}" if word else ""),
            status=status,
        )
        self.word = word
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class NoConfiguration:
    """The service knows of no configuration; setup goes on unmanaged."""

    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """The inner JSON of the envelope."""

    serial_number: str
    udid: str
    action: str = REQUEST_PROFILE_CONFIGURATION
    nonce: str | None = None  # provisional enrollment only

    def to_fields(self) -> Fields:
        return present(
            {
                "device": {"serial_number": self.serial_number, "udid": self.udid},
                "action": self.action,
                "nonce": self.nonce,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        device = required(fields, "device", dict)
        return cls(
            serial_number=required(device, "serial_number", str, "device."),
            udid=required(device, "udid", str, "device."),
            action=required(fields, "action", str),
            nonce=optional(fields, "nonce", str),
        )


def encode_request(request: DeviceRequest) -> bytes:
    """The bytes to sign and to put into the envelope."""
    return json_object.dumps(request.to_fields())


def decode_request(payload: bytes) -> DeviceRequest:
    """Read an envelope's payload. Raises MalformedMessage."""
    return DeviceRequest.from_fields(json_object.loads(payload, "payload"))


def encode_envelope(message: Envelope) -> bytes:
    """The request body."""
    return envelope.encode(message)


def decode_envelope(data: bytes) -> Envelope:
    """Read a request body. Raises MalformedMessage."""
    return envelope.decode(data)


def encode_answer(configuration: CloudConfiguration) -> bytes:
    """The document; its content type is application/json."""
    return json_object.dumps(configuration.to_fields())


def decode_answer(
    status: int, content_type: str, body: bytes
) -> CloudConfiguration | NoConfiguration:
    """Read an answer of `/v2/profile` as a device does (3.4); `content_type` without parameters.

    Raises MalformedMessage for a document that cannot be read (a device reports 34003) and CloudConfigurationError for a refusal.
    The caller repeats a 503 before it comes here.
    """
    if status in (200, 204) and not (status == 200 and content_type.lower() == "text/plain"):
        return CloudConfiguration.from_fields(json_object.loads(body, "cloud configuration"))
    word = _word(body)
    code = ERROR_CODES.get(word)
    if status == 200:
        if code is None or word in EMPTY_WORDS:
            return NoConfiguration(word=word)
        raise CloudConfigurationError(word, code, status=status)
    if status in (400, 401) and code is not None:
        raise CloudConfigurationError(word, code, status=status)
    if status == 401:
        raise CloudConfigurationError(word, GENERIC, status=status)
    if status == 503:
        raise CloudConfigurationError(word, SERVICE_UNAVAILABLE, status=status)
    raise CloudConfigurationError(word, SERVICE_DOWN, status=status)


def _word(body: bytes) -> str:
    """The error word: bare text, trimmed; empty for anything that does not look like one."""
    if len(body) > 4 * WORD_LIMIT:
        return ""
    text = body.decode("ascii", "replace").strip()
    return text if len(text) <= WORD_LIMIT and text.isprintable() else ""


def error_code(word: str) -> int:
    """The device's code for an error word. Raises MalformedMessage for a word that is none."""
    try:
        return ERROR_CODES[word]
    except KeyError:
        raise MalformedMessage("error word", "a word of the service", word) from None
