"""The device assignment API (mdmenrollment): requests, device records and accounts as JSON (apple-services.md 4).

What a client gets to see depends on the `X-Server-Protocol-Version` that it sends: `to_fields` takes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self

from certs.errors import MalformedMessage
from emulator.wire import json_object
from emulator.wire.fields import Fields, optional, optional_list, present, required, required_list

CONTENT_TYPE: Final = "application/json;charset=UTF8"  # no hyphen (4.1)
SESSION: Final = "X-ADM-Auth-Session"
VERSION: Final = "X-Server-Protocol-Version"

SESSION_PATH: Final = "/session"
ACCOUNT_PATH: Final = "/account"
FETCH_PATH: Final = "/server/devices"
SYNC_PATH: Final = "/devices/sync"
DETAILS_PATH: Final = "/devices"
DISOWN_PATH: Final = "/devices/disown"
PROFILE_PATH: Final = "/profile"
ASSIGN_PATH: Final = "/profile/devices"
LOCK_PATH: Final = "/device/activationlock"
REPLACEMENT_PATH: Final = "/device/replacementDetails"
DISCOVERY_PATH: Final = "/account-driven-enrollment/profile"
BETA_PATH: Final = "/os-beta-enrollment/tokens"

NEWEST_VERSION: Final = 10
MAX_CURSOR: Final = 128  # characters; what the narrowest client stores


class OpType(StrEnum):
    """What happened to a device, in `/devices/sync`."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"


class Result(StrEnum):
    """Per serial number, in answers with HTTP 200."""

    SUCCESS = "SUCCESS"
    NOT_ACCESSIBLE = "NOT_ACCESSIBLE"
    FAILED = "FAILED"
    THROTTLED = "THROTTLED"  # from version 9 on


class LockResult(StrEnum):
    """Of `/device/activationlock`."""

    SUCCESS = "SUCCESS"
    NOT_ACCESSIBLE = "NOT_ACCESSIBLE"
    ORG_NOT_SUPPORTED = "ORG_NOT_SUPPORTED"
    DEVICE_NOT_SUPPORTED = "DEVICE_NOT_SUPPORTED"
    DEVICE_ALREADY_LOCKED = "DEVICE_ALREADY_LOCKED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDevice:
    """One device record (4.5); what is None is left off the wire, never sent empty."""

    serial_number: str
    model: str
    description: str = ""
    color: str = ""
    asset_tag: str = ""
    os: str | None = None  # iOS, iPadOS, OSX, tvOS, visionOS
    device_family: str | None = None
    profile_status: str = "empty"
    profile_uuid: str | None = None
    profile_assign_time: datetime | None = None
    profile_push_time: datetime | None = None
    device_assigned_date: datetime | None = None
    device_assigned_by: str | None = None
    mdm_migration_deadline: datetime | None = None
    imei: tuple[str, ...] = ()  # in display grouping
    meid: tuple[str, ...] = ()
    eid: str | None = None
    ethernet_mac_address: str | None = None
    wifi_mac_address: str | None = None
    bluetooth_mac_address: str | None = None
    is_replacement_device: bool | None = None

    def to_fields(self, version: int = NEWEST_VERSION) -> Fields:
        fields: Fields = {
            "serial_number": self.serial_number,
            "model": self.model,
            "description": self.description,
            "color": self.color,
            "asset_tag": self.asset_tag,
            "profile_status": self.profile_status,
        }
        if version >= 2:
            fields["os"] = "iOS" if version < 7 and self.os == "iPadOS" else self.os
            fields["device_family"] = self.device_family
        fields["profile_uuid"] = self.profile_uuid
        fields["profile_assign_time"] = time_text(self.profile_assign_time)
        fields["profile_push_time"] = time_text(self.profile_push_time)
        fields["device_assigned_date"] = time_text(self.device_assigned_date)
        fields["device_assigned_by"] = self.device_assigned_by
        if version >= 8:
            fields["mdm_migration_deadline"] = time_text(self.mdm_migration_deadline)
        if version >= 10:
            fields["imei"] = list(self.imei) or None
            fields["meid"] = list(self.meid) or None
            fields["eid"] = self.eid
            fields["ethernet_mac_address"] = self.ethernet_mac_address
            fields["wifi_mac_address"] = self.wifi_mac_address
            fields["bluetooth_mac_address"] = self.bluetooth_mac_address
            fields["is_replacement_device"] = self.is_replacement_device
        return present(fields)

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Keys that are absent, null or empty count as not said, as the service itself sends them."""
        fields = {key: value for key, value in fields.items() if value not in (None, "")}
        return cls(
            serial_number=required(fields, "serial_number", str),
            model=optional(fields, "model", str) or "",
            description=optional(fields, "description", str) or "",
            color=optional(fields, "color", str) or "",
            asset_tag=optional(fields, "asset_tag", str) or "",
            profile_status=optional(fields, "profile_status", str) or "empty",
            imei=optional_list(fields, "imei", str) or (),
            meid=optional_list(fields, "meid", str) or (),
            is_replacement_device=optional(fields, "is_replacement_device", bool),
            os=optional(fields, "os", str),
            device_family=optional(fields, "device_family", str),
            profile_uuid=optional(fields, "profile_uuid", str),
            profile_assign_time=time_of(fields, "profile_assign_time"),
            profile_push_time=time_of(fields, "profile_push_time"),
            device_assigned_date=time_of(fields, "device_assigned_date"),
            device_assigned_by=optional(fields, "device_assigned_by", str),
            mdm_migration_deadline=time_of(fields, "mdm_migration_deadline"),
            eid=optional(fields, "eid", str),
            ethernet_mac_address=optional(fields, "ethernet_mac_address", str),
            wifi_mac_address=optional(fields, "wifi_mac_address", str),
            bluetooth_mac_address=optional(fields, "bluetooth_mac_address", str),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a record of `/devices/sync` says beside the device itself."""

    op_type: OpType
    op_date: datetime
    released_by_replacement: bool = False

    def to_fields(self, version: int = NEWEST_VERSION) -> Fields:
        fields: Fields = {"op_type": self.op_type.value, "op_date": time_text(self.op_date)}
        if version >= 10 and self.op_type is OpType.DELETED:
            fields["released_by_replacement"] = self.released_by_replacement
        return fields

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        word = required(fields, "op_type", str)
        try:
            op_type = OpType(word)
        except ValueError:
            raise MalformedMessage("op_type", "added, modified or deleted", word) from None
        op_date = time_of(fields, "op_date")
        if op_date is None:
            raise MalformedMessage("op_date", "a time")
        return cls(
            op_type=op_type,
            op_date=op_date,
            released_by_replacement=optional(fields, "released_by_replacement", bool) or False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer of fetch or sync; records are ready for the wire."""

    devices: Sequence[Fields]
    cursor: str
    more_to_follow: bool
    fetched_until: datetime | None = None  # clients go by the cursor alone

    def to_fields(self) -> Fields:
        return present(
            {
                "devices": list(self.devices),
                "fetched_until": time_text(self.fetched_until),
                "cursor": self.cursor,
                "more_to_follow": self.more_to_follow,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            devices=required_list(fields, "devices", dict),
            cursor=required(fields, "cursor", str),
            more_to_follow=required(fields, "more_to_follow", bool),
            fetched_until=time_of(fields, "fetched_until"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Of fetch and sync. Absent and null are the same: one client sends `"cursor": null`."""

    cursor: str | None = None
    limit: int | None = None

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        fields = present(fields)
        limit = optional(fields, "limit", int)
        if limit is not None and limit < 1:
            raise MalformedMessage("limit", "1 or more", limit)
        return cls(cursor=optional(fields, "cursor", str) or None, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesRequest:
    """Serial numbers, and a profile where they are to get one; None is what was not said."""

    devices: tuple[str, ...] | None = None
    profile_uuid: str | None = None

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        fields = present(fields)
        devices = optional_list(fields, "devices", str)
        uuid = optional(fields, "profile_uuid", str)
        return cls(
            devices=None
            if devices is None
            else tuple(serial.strip().upper() for serial in devices),
            profile_uuid=None if uuid is None else profile_uuid_of(uuid),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRequest:
    """Of `/device/activationlock`."""

    device: str
    escrow_key: bytes | None = None  # PBKDF2 of a bypass code; None: locked to the administrator
    lost_message: str | None = None

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        fields = present(fields)
        text = optional(fields, "escrow_key", str) or None
        try:
            key = None if text is None else bytes.fromhex(text)
        except ValueError:
            raise MalformedMessage("escrow_key", "hexadecimal digits") from None
        if key is not None and len(key) != 32:
            raise MalformedMessage("escrow_key", "64 hexadecimal digits", f"{len(key) * 2}")
        return cls(
            device=required(fields, "device", str).strip().upper(),
            escrow_key=key,
            lost_message=optional(fields, "lost_message", str) or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Which server of which organisation a token is of (4.4)."""

    server_name: str
    server_uuid: str
    admin_id: str
    org_name: str
    org_email: str = ""
    org_phone: str = ""
    org_address: str = ""
    org_id: str | None = None
    org_id_hash: str | None = None
    org_type: str | None = None  # edu, org or tvprovider
    org_version: str | None = None  # v1 or v2
    urls: tuple[Mapping[str, Any], ...] = ()

    def to_fields(self, version: int = NEWEST_VERSION) -> Fields:
        fields: Fields = {
            "server_name": self.server_name,
            "server_uuid": self.server_uuid,
            "admin_id": self.admin_id,
            "facilitator_id": self.admin_id,  # its deprecated twin
            "org_name": self.org_name,
            "org_email": self.org_email,
            "org_phone": self.org_phone,
            "org_address": self.org_address,
        }
        if version >= 3:
            fields |= {
                "org_id": self.org_id,
                "org_id_hash": self.org_id_hash,
                "org_type": self.org_type,
                "org_version": self.org_version,
                "urls": [dict(url) for url in self.urls],
            }
        return present(fields)

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        fields = present(fields)
        admin_id = optional(fields, "admin_id", str) or optional(fields, "facilitator_id", str)
        return cls(
            server_name=required(fields, "server_name", str),
            server_uuid=required(fields, "server_uuid", str),
            admin_id=admin_id or "",
            org_name=required(fields, "org_name", str),
            org_email=optional(fields, "org_email", str) or "",
            org_phone=optional(fields, "org_phone", str) or "",
            org_address=optional(fields, "org_address", str) or "",
            org_id=optional(fields, "org_id", str),
            org_id_hash=optional(fields, "org_id_hash", str),
            org_type=optional(fields, "org_type", str),
            org_version=optional(fields, "org_version", str),
            urls=optional_list(fields, "urls", dict) or (),
        )


def decode(body: bytes) -> Fields:
    """A request body; none at all is an empty object. Raises MalformedMessage."""
    return json_object.loads(body, "request") if body.strip() else {}


def profile_uuid_of(text: str) -> str:
    """As the service has it, from any spelling: 32 upper-case digits without dashes."""
    return text.strip().replace("-", "").upper()


def version_of(text: str | None) -> int:
    """`X-Server-Protocol-Version`; absent or unreadable is 1, more than we know is the newest."""
    text = (text or "").strip()
    if not (text.isascii() and text.isdigit()):
        return 1
    return max(1, min(int(text[:4]), NEWEST_VERSION))


def time_text(moment: datetime | None) -> str | None:
    """UTC, whole seconds."""
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def time_of(fields: Fields, key: str) -> datetime | None:
    """The time under `key`, None when it is absent. Raises MalformedMessage."""
    text = optional(fields, key, str)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise MalformedMessage(key, "a time such as 2026-01-31T23:59:59Z", text) from None
