"""What a device asks the cloud configuration service for: the inner JSON of the signed envelope (apple-services.md 3.2)."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from emulator.wire import json_object
from emulator.wire.fields import Fields, optional, present, required
from emulator.wire.json_object import required_bytes, text_of


class Operation(Enum):
    """One path of the service, and the action that belongs to it."""

    PROFILE = ("/v2/profile", "RequestProfileConfiguration")
    ENROLL = ("/v2/enroll", "RequestProvisionalEnrollment")
    UNENROLL = ("/v2/unenroll", "RequestUnenrollProvisionalDevice")
    REGISTER = ("/deviceRegister", "RequestDeviceRegister")
    START_MIGRATION = ("/startMdmMigration", "StartMdmMigration")
    END_MIGRATION = ("/endMdmMigration", "EndMdmMigration")

    def __init__(self, path: str, action: str) -> None:
        self.path = path
        self.action = action


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRegistration:
    """What `/deviceRegister` puts into section `device`."""

    app_push_token: bytes = field(repr=False)
    push_topic: str
    is_mdm_migration_capable: bool = False
    mdm_migration_capability_description: str | None = None

    def to_fields(self) -> Fields:
        return present(
            {
                "app_push_token": text_of(self.app_push_token),
                "push_topic": self.push_topic,
                "is_mdm_migration_capable": self.is_mdm_migration_capable,
                "mdm_migration_capability_description": self.mdm_migration_capability_description,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        where = "device."
        return cls(
            app_push_token=required_bytes(fields, "app_push_token", where),
            push_topic=required(fields, "push_topic", str, where),
            is_mdm_migration_capable=optional(fields, "is_mdm_migration_capable", bool, where)
            or False,
            mdm_migration_capability_description=optional(
                fields, "mdm_migration_capability_description", str, where
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """The inner JSON of the envelope."""

    serial_number: str
    udid: str
    action: str = Operation.PROFILE.action
    nonce: str | None = None  # provisional enrollment only
    push: PushRegistration | None = None  # registration only
    server_uid: str | None = None  # the end of a migration only, like `status`
    status: str | None = None

    def to_fields(self) -> Fields:
        push = self.push.to_fields() if self.push else {}
        return present(
            {
                "device": {"serial_number": self.serial_number, "udid": self.udid, **push},
                "action": self.action,
                "nonce": self.nonce,
                "server_uid": self.server_uid,
                "status": self.status,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        device = required(fields, "device", dict)
        action = required(fields, "action", str)
        ends = action == Operation.END_MIGRATION.action
        enrolls = action == Operation.ENROLL.action
        return cls(
            serial_number=required(device, "serial_number", str, "device."),
            udid=required(device, "udid", str, "device."),
            action=action,
            nonce=(required if enrolls else optional)(fields, "nonce", str),
            push=PushRegistration.from_fields(device)
            if action == Operation.REGISTER.action
            else None,
            server_uid=required(fields, "server_uid", str) if ends else None,
            status=required(fields, "status", str) if ends else None,
        )


def encode_request(request: DeviceRequest) -> bytes:
    """The bytes to sign and to put into the envelope."""
    return json_object.dumps(request.to_fields())


def decode_request(payload: bytes) -> DeviceRequest:
    """Read an envelope's payload. Raises MalformedMessage."""
    return DeviceRequest.from_fields(json_object.loads(payload, "payload"))
