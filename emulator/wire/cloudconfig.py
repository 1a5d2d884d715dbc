"""Asking for the cloud configuration, and every form of answer (apple-services.md 3.2 to 3.4).

The request is a signed `Envelope` around a `DeviceRequest`. The answer is a `CloudConfiguration`, one of the words that mean "none",
or an error word. Keys keep the meaning they have on the wire: the device inverts, forces and drops when it stores them.
"""

from dataclasses import dataclass
from typing import Final

from emulator.wire import envelope, json_object
from emulator.wire.cloud_configuration import (
    CloudConfiguration,
    EnrollmentServer,
    ManagedUser,
    Organization,
    from_assignment,
)
from emulator.wire.cloud_errors import (
    EMPTY_WORDS,
    ERROR_CODES,
    SERVICE_UNAVAILABLE,
    CloudConfigurationError,
    error_word,
    refused,
)
from emulator.wire.device_request import (
    DeviceRequest,
    Operation,
    decode_request,
    encode_request,
)
from emulator.wire.envelope import Envelope

__all__ = [
    "CloudConfiguration",
    "CloudConfigurationError",
    "DeviceRequest",
    "EnrollmentServer",
    "Envelope",
    "ManagedUser",
    "NoConfiguration",
    "Operation",
    "Organization",
    "decode_answer",
    "decode_envelope",
    "decode_request",
    "encode_answer",
    "encode_envelope",
    "encode_request",
    "from_assignment",
]

PATH: Final = Operation.PROFILE.path
PROTOCOL_VERSION: Final = "3"  # header X-Profile-Protocol-Version
REQUEST_PROFILE_CONFIGURATION: Final = Operation.PROFILE.action


@dataclass(frozen=True, slots=True, kw_only=True)
class NoConfiguration:
    """The service knows of no configuration; setup goes on unmanaged."""

    word: str


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
    word = error_word(body)
    if status == 200:
        code = ERROR_CODES.get(word)
        if code is None or word in EMPTY_WORDS:
            return NoConfiguration(word=word)
        raise CloudConfigurationError(word, code, status=status)
    if status == 503:
        raise CloudConfigurationError(word, SERVICE_UNAVAILABLE, status=status)
    raise refused(status, body)
