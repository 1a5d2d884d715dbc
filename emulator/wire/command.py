"""The command channel: commands of the server, and what a device answers to `ServerURL` (mdm.md 4)."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from certs.errors import MalformedMessage
from emulator.wire import plist
from emulator.wire.checkin import Sender, sender
from emulator.wire.fields import Fields, optional, present, required, required_list

CONTENT_TYPE: Final = "application/x-apple-aspen-mdm; charset=UTF-8"
ANSWER_CONTENT_TYPE: Final = "application/xml; charset=UTF-8"


class Status(StrEnum):
    """What became of a command (4.1)."""

    IDLE = "Idle"
    ACKNOWLEDGED = "Acknowledged"
    ERROR = "Error"
    COMMAND_FORMAT_ERROR = "CommandFormatError"
    NOT_NOW = "NotNow"


class MalformedCommand(MalformedMessage):
    """A command that a device answers with CommandFormatError; keeps its CommandUUID where that was readable."""

    def __init__(self, cause: MalformedMessage, command_uuid: str | None) -> None:
        super().__init__(cause.field, cause.expected, cause.got)
        self.command_uuid = command_uuid


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command; `fields` are its parameters, without RequestType."""

    command_uuid: str  # any string; the answer repeats it verbatim
    request_type: str
    fields: Fields = field(default_factory=dict)
    requires_network_tether: bool = False

    def to_fields(self) -> Fields:
        tether = {"RequestRequiresNetworkTether": True} if self.requires_network_tether else {}
        return {
            "CommandUUID": self.command_uuid,
            "Command": {**self.fields, **tether, "RequestType": self.request_type},
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        command = required(fields, "Command", dict)
        return cls(
            command_uuid=required(fields, "CommandUUID", str),
            request_type=required(command, "RequestType", str, "Command."),
            fields={
                key: value
                for key, value in command.items()
                if key not in ("RequestType", "RequestRequiresNetworkTether")
            },
            requires_network_tether=optional(
                command, "RequestRequiresNetworkTether", bool, "Command."
            )
            or False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorItem:
    """One link of an ErrorChain: the top-level error first, then its causes."""

    code: int
    domain: str
    localized_description: str | None = None
    us_english_description: str | None = None  # iOS sends it for MC* domains only

    def to_fields(self) -> Fields:
        return present(
            {
                "ErrorCode": self.code,
                "ErrorDomain": self.domain,
                "LocalizedDescription": self.localized_description,
                "USEnglishDescription": self.us_english_description,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields, where: str = "") -> Self:
        return cls(
            code=required(fields, "ErrorCode", int, where),
            domain=required(fields, "ErrorDomain", str, where),
            localized_description=optional(fields, "LocalizedDescription", str, where),
            us_english_description=optional(fields, "USEnglishDescription", str, where),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Response(Sender):
    """A device's answer to one command, or `Idle`; `fields` are the result keys."""

    status: Status
    command_uuid: str | None = None  # absent only with Idle
    fields: Fields = field(default_factory=dict)
    error_chain: tuple[ErrorItem, ...] = ()
    request_type: str | None = None  # Macs repeat it; iOS does not

    def to_fields(self) -> Fields:
        chain = [item.to_fields() for item in self.error_chain]
        return {
            **self.fields,
            "Status": self.status.value,
            "CommandUUID": self.command_uuid,
            "RequestType": self.request_type,
            "ErrorChain": chain or None,
            **self.sender_fields(),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        word = required(fields, "Status", str)
        try:
            status = Status(word)
        except ValueError:
            raise MalformedMessage("Status", " or ".join(Status), word) from None
        command_uuid = optional(fields, "CommandUUID", str)
        if command_uuid is None and status is not Status.IDLE:
            raise MalformedMessage("CommandUUID", "string")
        return cls(
            **sender(fields),
            status=status,
            command_uuid=command_uuid,
            fields={key: value for key, value in fields.items() if key not in RESERVED},
            error_chain=error_chain(fields),
            request_type=optional(fields, "RequestType", str),
        )


RESERVED: Final = frozenset(
    (
        "Status",
        "CommandUUID",
        "RequestType",
        "ErrorChain",
        "UDID",
        "EnrollmentID",
        "UserID",
        "UserShortName",
        "UserLongName",
        "EnrollmentUserID",
    )
)


def error_chain(fields: Fields, where: str = "") -> tuple[ErrorItem, ...]:
    """The ErrorChain of an answer, or of one item inside it; empty when there is none. Raises MalformedMessage."""
    if "ErrorChain" not in fields:
        return ()
    items = required_list(fields, "ErrorChain", dict, where)
    return tuple(
        ErrorItem.from_fields(item, f"{where}ErrorChain[{index}].")
        for index, item in enumerate(items)
    )


def encode_command(command: Command) -> bytes:
    """The command as a server sends it."""
    return plist.dumps(command.to_fields())


def decode_command(data: bytes) -> Command:
    """Read a command. Raises MalformedCommand."""
    fields: Fields = {}
    try:
        fields = plist.loads(data, "command")
        return Command.from_fields(fields)
    except MalformedMessage as error:
        uuid = fields.get("CommandUUID")
        raise MalformedCommand(error, uuid if isinstance(uuid, str) else None) from error


def encode_response(response: Response) -> bytes:
    """The answer as a device sends it."""
    return plist.dumps(present(response.to_fields()))


def decode_response(data: bytes) -> Response:
    """Read a device's answer. Raises MalformedMessage."""
    return Response.from_fields(plist.loads(data, "command response"))
