"""Check-in messages: what a device sends to `CheckInURL` (mdm.md 3).

Every message names its sender by UDID or, in User Enrollment, by EnrollmentID: exactly one of them.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Self

from certs.errors import MalformedMessage
from emulator.wire import plist
from emulator.wire.fields import Fields, optional, present, required

CONTENT_TYPE: Final = "application/x-apple-aspen-mdm-checkin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """The identity keys that check-in messages and command results share."""

    udid: str | None = None
    enrollment_id: str | None = None
    # The user channel: Shared iPad (the all-F UserID and a short name) and macOS.
    user_id: str | None = None
    user_short_name: str | None = None
    user_long_name: str | None = None
    enrollment_user_id: str | None = None

    def __post_init__(self) -> None:
        if (self.udid is None) is (self.enrollment_id is None):
            raise MalformedMessage("UDID", "either UDID or EnrollmentID")

    @property
    def enrollment(self) -> str:
        """The UDID or the EnrollmentID."""
        return self.udid or self.enrollment_id or ""

    @property
    def is_user_channel(self) -> bool:
        """True when a user of the device speaks, not the device."""
        return self.user_id is not None or self.enrollment_user_id is not None

    def sender_fields(self) -> Fields:
        return {
            "UDID": self.udid,
            "EnrollmentID": self.enrollment_id,
            "UserID": self.user_id,
            "UserShortName": self.user_short_name,
            "UserLongName": self.user_long_name,
            "EnrollmentUserID": self.enrollment_user_id,
        }


def sender(fields: Fields) -> dict[str, str | None]:
    """The arguments of `Sender` as they came."""
    return {
        "udid": optional(fields, "UDID", str),
        "enrollment_id": optional(fields, "EnrollmentID", str),
        "user_id": optional(fields, "UserID", str),
        "user_short_name": optional(fields, "UserShortName", str),
        "user_long_name": optional(fields, "UserLongName", str),
        "enrollment_user_id": optional(fields, "EnrollmentUserID", str),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticate(Sender):
    """About to enroll: the server forgets what it knew of this device (3.1)."""

    topic: str
    os_version: str | None = None
    build_version: str | None = None
    product_name: str | None = None  # such as iPhone14,5
    serial_number: str | None = None
    imei: str | None = None
    meid: str | None = None
    # Macs send these; iOS does not.
    device_name: str | None = None
    model: str | None = None
    model_name: str | None = None
    challenge: bytes | None = field(default=None, repr=False)

    def to_fields(self) -> Fields:
        return {
            "MessageType": "Authenticate",
            "Topic": self.topic,
            "OSVersion": self.os_version,
            "BuildVersion": self.build_version,
            "ProductName": self.product_name,
            "SerialNumber": self.serial_number,
            "IMEI": self.imei,
            "MEID": self.meid,
            "DeviceName": self.device_name,
            "Model": self.model,
            "ModelName": self.model_name,
            "Challenge": self.challenge,
            **self.sender_fields(),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            **sender(fields),
            topic=required(fields, "Topic", str),
            os_version=optional(fields, "OSVersion", str),
            build_version=optional(fields, "BuildVersion", str),
            product_name=optional(fields, "ProductName", str),
            serial_number=optional(fields, "SerialNumber", str),
            imei=optional(fields, "IMEI", str),
            meid=optional(fields, "MEID", str),
            device_name=optional(fields, "DeviceName", str),
            model=optional(fields, "Model", str),
            model_name=optional(fields, "ModelName", str),
            challenge=optional(fields, "Challenge", bytes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUpdate(Sender):
    """Where to push to. The first completes an enrollment; later ones replace the token (3.2)."""

    topic: str
    token: bytes = field(repr=False)  # APNs device token, opaque
    push_magic: str = field(repr=False)
    unlock_token: bytes | None = field(default=None, repr=False)  # its absence revokes nothing
    # True: held in Setup Assistant until DeviceConfigured. None leaves the key out; recorded iOS devices send an explicit false.
    awaiting_configuration: bool | None = False
    not_on_console: bool | None = None  # macOS

    def to_fields(self) -> Fields:
        return {
            "MessageType": "TokenUpdate",
            "Topic": self.topic,
            "Token": self.token,
            "PushMagic": self.push_magic,
            "UnlockToken": self.unlock_token,
            "AwaitingConfiguration": self.awaiting_configuration,
            "NotOnConsole": self.not_on_console,
            **self.sender_fields(),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            **sender(fields),
            topic=required(fields, "Topic", str),
            token=required(fields, "Token", bytes),
            push_magic=required(fields, "PushMagic", str),
            unlock_token=optional(fields, "UnlockToken", bytes),
            awaiting_configuration=optional(fields, "AwaitingConfiguration", bool),
            not_on_console=optional(fields, "NotOnConsole", bool),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOut(Sender):
    """The enrollment profile is gone; sent once, best effort (3.3)."""

    topic: str | None = None

    def to_fields(self) -> Fields:
        return {"MessageType": "CheckOut", "Topic": self.topic, **self.sender_fields()}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(**sender(fields), topic=optional(fields, "Topic", str))


@dataclass(frozen=True, slots=True, kw_only=True)
class GetToken(Sender):
    """Asks for a token of a named service; the answer is a plist with `TokenData` (3.4)."""

    token_service_type: str  # com.apple.maid or com.apple.watch.pairing
    token_parameters: Fields | None = None

    def to_fields(self) -> Fields:
        return {
            "MessageType": "GetToken",
            "TokenServiceType": self.token_service_type,
            "TokenParameters": self.token_parameters,
            **self.sender_fields(),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            **sender(fields),
            token_service_type=required(fields, "TokenServiceType", str),
            token_parameters=optional(fields, "TokenParameters", dict),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetBootstrapToken(Sender):
    """Escrows a bootstrap token; without one, or with an empty one, the server deletes its own (3.6)."""

    bootstrap_token: bytes | None = field(default=None, repr=False)
    awaiting_configuration: bool | None = None

    def to_fields(self) -> Fields:
        return {
            "MessageType": "SetBootstrapToken",
            "BootstrapToken": self.bootstrap_token,
            "AwaitingConfiguration": self.awaiting_configuration,
            **self.sender_fields(),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            **sender(fields),
            bootstrap_token=optional(fields, "BootstrapToken", bytes),
            awaiting_configuration=optional(fields, "AwaitingConfiguration", bool),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GetBootstrapToken(Sender):
    """Asks for the escrowed token; the answer is a plist with `BootstrapToken` (3.6)."""

    def to_fields(self) -> Fields:
        return {"MessageType": "GetBootstrapToken", **self.sender_fields()}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(**sender(fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAuthenticate(Sender):
    """A macOS user asks to be managed; the second message answers the server's digest challenge."""

    digest_response: str | None = field(default=None, repr=False)

    def to_fields(self) -> Fields:
        return {
            "MessageType": "UserAuthenticate",
            "DigestResponse": self.digest_response,
            **self.sender_fields(),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        message = cls(**sender(fields), digest_response=optional(fields, "DigestResponse", str))
        if not message.is_user_channel:
            raise MalformedMessage("UserID", "string")
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclarativeManagement(Sender):
    """Asks a declarative endpoint; status reports carry JSON in `data` (6)."""

    endpoint: str  # tokens, declaration-items, status, declaration/…
    data: bytes | None = None

    def to_fields(self) -> Fields:
        return {
            "MessageType": "DeclarativeManagement",
            "Endpoint": self.endpoint,
            "Data": self.data,
            **self.sender_fields(),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            **sender(fields),
            endpoint=required(fields, "Endpoint", str),
            data=optional(fields, "Data", bytes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnToService(Sender):
    """The user or an idle time-out wants the device erased and enrolled again (3.5, iOS 26)."""

    def to_fields(self) -> Fields:
        return {"MessageType": "ReturnToService", **self.sender_fields()}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(**sender(fields))


Message = (
    Authenticate
    | TokenUpdate
    | CheckOut
    | GetToken
    | SetBootstrapToken
    | GetBootstrapToken
    | UserAuthenticate
    | DeclarativeManagement
    | ReturnToService
)

MESSAGES: Final[dict[str, Any]] = {
    kind.__name__: kind
    for kind in (
        Authenticate,
        TokenUpdate,
        CheckOut,
        GetToken,
        SetBootstrapToken,
        GetBootstrapToken,
        UserAuthenticate,
        DeclarativeManagement,
        ReturnToService,
    )
}


def encode(message: Message) -> bytes:
    """The message as XML."""
    return plist.dumps(present(message.to_fields()))


def decode(data: bytes) -> Message:
    """Read one check-in message. Raises MalformedMessage, also for a MessageType that is none."""
    fields = plist.loads(data, "check-in message")
    name = required(fields, "MessageType", str)
    if name not in MESSAGES:
        raise MalformedMessage("MessageType", "a check-in message", name)
    message: Message = MESSAGES[name].from_fields(fields)
    return message
