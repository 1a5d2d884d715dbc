"""What an MDM server, APNs and a device say to each other about a push (apple-services.md 6, mdm.md 7).

A push is `POST /3/device/<token in hex>` with `{"mdm": "<PushMagic>"}`; the answer is an empty 200, or a status with
`{"reason": …}`. Timestamps of a 410 are milliseconds, `apns-expiration` is seconds.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Self

from certs.errors import MalformedMessage
from emulator.wire import json_object
from emulator.wire.fields import optional, required

PATH: Final = "/3/device/"  # then the token in hex
MAX_PAYLOAD_BYTES: Final = 4096
MAX_COLLAPSE_ID_BYTES: Final = 64
MAX_STORED_S: Final = 30 * 86400.0  # nothing is kept longer
PUSH_TYPE: Final = "mdm"
PRIORITIES: Final = ("10", "5", "1")

APNS_ID: Final = "apns-id"
APNS_TOPIC: Final = "apns-topic"
APNS_PUSH_TYPE: Final = "apns-push-type"
APNS_PRIORITY: Final = "apns-priority"
APNS_EXPIRATION: Final = "apns-expiration"
APNS_COLLAPSE_ID: Final = "apns-collapse-id"


class Reason(StrEnum):
    """Why APNs refuses a push, or ends a connection; the value is the wire's."""

    BAD_COLLAPSE_ID = "BadCollapseId"
    BAD_DEVICE_TOKEN = "BadDeviceToken"
    BAD_EXPIRATION_DATE = "BadExpirationDate"
    BAD_MESSAGE_ID = "BadMessageId"
    BAD_PRIORITY = "BadPriority"
    BAD_TOPIC = "BadTopic"
    DEVICE_TOKEN_NOT_FOR_TOPIC = "DeviceTokenNotForTopic"
    DUPLICATE_HEADERS = "DuplicateHeaders"
    IDLE_TIMEOUT = "IdleTimeout"
    INVALID_PUSH_TYPE = "InvalidPushType"
    MISSING_DEVICE_TOKEN = "MissingDeviceToken"
    MISSING_TOPIC = "MissingTopic"
    PAYLOAD_EMPTY = "PayloadEmpty"
    TOPIC_DISALLOWED = "TopicDisallowed"
    BAD_CERTIFICATE = "BadCertificate"
    BAD_CERTIFICATE_ENVIRONMENT = "BadCertificateEnvironment"
    EXPIRED_PROVIDER_TOKEN = "ExpiredProviderToken"
    FORBIDDEN = "Forbidden"
    INVALID_PROVIDER_TOKEN = "InvalidProviderToken"
    MISSING_PROVIDER_TOKEN = "MissingProviderToken"
    BAD_PATH = "BadPath"
    METHOD_NOT_ALLOWED = "MethodNotAllowed"
    EXPIRED_TOKEN = "ExpiredToken"
    UNREGISTERED = "Unregistered"
    PAYLOAD_TOO_LARGE = "PayloadTooLarge"
    TOO_MANY_PROVIDER_TOKEN_UPDATES = "TooManyProviderTokenUpdates"
    TOO_MANY_REQUESTS = "TooManyRequests"
    INTERNAL_SERVER_ERROR = "InternalServerError"
    SERVICE_UNAVAILABLE = "ServiceUnavailable"
    SHUTDOWN = "Shutdown"

    @property
    def status(self) -> int:
        """The HTTP status that goes with it (apple-services.md 6.3)."""
        return _STATUSES.get(self, 400)


_STATUSES: Final = {
    Reason.BAD_CERTIFICATE: 403,
    Reason.BAD_CERTIFICATE_ENVIRONMENT: 403,
    Reason.EXPIRED_PROVIDER_TOKEN: 403,
    Reason.FORBIDDEN: 403,
    Reason.INVALID_PROVIDER_TOKEN: 403,
    Reason.MISSING_PROVIDER_TOKEN: 403,
    Reason.BAD_PATH: 404,
    Reason.METHOD_NOT_ALLOWED: 405,
    Reason.EXPIRED_TOKEN: 410,
    Reason.UNREGISTERED: 410,
    Reason.PAYLOAD_TOO_LARGE: 413,
    Reason.TOO_MANY_PROVIDER_TOKEN_UPDATES: 429,
    Reason.TOO_MANY_REQUESTS: 429,
    Reason.INTERNAL_SERVER_ERROR: 500,
    Reason.SERVICE_UNAVAILABLE: 503,
    Reason.SHUTDOWN: 503,
}

# A token that got one of these will not be accepted again (apple-services.md 6.3).
TOKEN_IS_DEAD: Final = frozenset(
    {
        Reason.BAD_DEVICE_TOKEN,
        Reason.DEVICE_TOKEN_NOT_FOR_TOPIC,
        Reason.EXPIRED_TOKEN,
        Reason.UNREGISTERED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MdmPush:
    """The whole payload of a push for MDM: the device's secret word, and nothing else."""

    push_magic: str

    def to_fields(self) -> dict[str, object]:
        return {"mdm": self.push_magic}

    @classmethod
    def from_fields(cls, fields: dict[str, object]) -> Self:
        return cls(push_magic=required(fields, "mdm", str, "push."))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The body of an error, and the debug data of a GOAWAY."""

    reason: str  # a `Reason`, or a word that only a newer service knows
    timestamp: datetime | None = None  # 410: when the token was last known to be invalid

    def to_fields(self) -> dict[str, object]:
        fields: dict[str, object] = {"reason": str(self.reason)}
        if self.timestamp is not None:
            fields["timestamp"] = milliseconds(self.timestamp)
        return fields

    @classmethod
    def from_fields(cls, fields: dict[str, object]) -> Self:
        since = optional(fields, "timestamp", int, "push refusal.")
        return cls(
            reason=required(fields, "reason", str, "push refusal."),
            timestamp=None if since is None else _moment(since),
        )


def encode(message: MdmPush | Refusal) -> bytes:
    """Compact JSON."""
    return json.dumps(message.to_fields(), separators=(",", ":")).encode()


def decode_payload(data: bytes) -> MdmPush:
    """Read a payload; further keys pass. Raises MalformedMessage."""
    return MdmPush.from_fields(json_object.loads(data, "push"))


def decode_refusal(data: bytes) -> Refusal:
    """Read an error's body. Raises MalformedMessage."""
    return Refusal.from_fields(json_object.loads(data, "push refusal"))


def path_of(token: bytes) -> str:
    """Where a push for this token is posted."""
    return PATH + token.hex()


def token_of(text: str) -> bytes:
    """A token from its hexadecimal digits, of either case. Raises MalformedMessage."""
    try:
        # `fromhex` skips white space, which no token has.
        token = bytes.fromhex(text) if text.isalnum() else b""
    except ValueError:
        token = b""
    if not token:
        raise MalformedMessage("push token", "an even number of hexadecimal digits", text[:80])
    return token


def milliseconds(moment: datetime) -> int:
    """Since 1970, as in a 410."""
    return round(moment.timestamp() * 1000)


def _moment(since: int) -> datetime:
    try:
        return datetime.fromtimestamp(since / 1000, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise MalformedMessage("timestamp", "milliseconds since 1970", since) from error
