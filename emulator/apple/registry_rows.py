"""Rows of the registry's file: a device and a ledger without what others hold, and back."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from emulator.apple.ledger import End, IssuedToken, Ledger
from emulator.apple.operations import OperationLog
from emulator.apple.records import (
    ActivationLock,
    ActivationState,
    DeviceRecord,
    HardwareFacts,
    Organization,
    Profile,
    ProfileStatus,
    Purchase,
    Server,
)
from emulator.apple.registry import Registry


class DeviceRow(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One `DeviceRecord`; owner, server and profile by name."""

    serial_number: str
    hardware: HardwareFacts | None = None
    purchase: Purchase | None = None
    organization: str | None = None
    server: str | None = None  # UUID
    position: int = -1
    assigned_date: datetime | None = None
    assigned_by: str | None = None
    profile: str | None = None  # UUID
    profile_status: ProfileStatus = ProfileStatus.EMPTY
    profile_assign_time: datetime | None = None
    profile_push_time: datetime | None = None
    removed_profile: str | None = None
    activation_state: ActivationState = ActivationState.UNACTIVATED
    activation_lock: ActivationLock | None = None
    provisional_until: datetime | None = None
    provisional_from_activation: bool = False


class LedgerRow(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One `Ledger` without profiles and operations, which have tables of their own."""

    uuid: str
    organization: str
    name: str
    admin_id: str | None = None
    certificate: bytes | None = None
    token: IssuedToken | None = None
    ended: dict[str, End] = {}
    former_keys: list[str] = []
    blocked: bool = False
    discovery_url: str | None = None
    discovery_updated: datetime | None = None
    end: int = 0  # of its log, where the log itself is empty


_OWN = tuple(
    name
    for name in DeviceRow.__struct_fields__
    if name not in ("serial_number", "organization", "server", "profile")
)
_LEDGER = tuple(name for name in LedgerRow.__struct_fields__ if name != "end")


def device_row(record: DeviceRecord) -> DeviceRow:
    return DeviceRow(
        serial_number=record.serial_number,
        organization=record.organization.name if record.organization else None,
        server=record.server.uuid if record.server else None,
        profile=record.profile.uuid if record.profile else None,
        **{name: getattr(record, name) for name in _OWN},
    )


def restore_device(
    registry: Registry,
    row: DeviceRow,
    servers: Mapping[str, tuple[Organization, Server]],
    profiles: Mapping[str, Profile],
) -> None:
    """Put a device back where it was; raises KeyError when the file does not hold together."""
    record = registry.record(row.serial_number)
    for name in _OWN:
        setattr(record, name, getattr(row, name))
    if row.server is not None:
        record.organization, record.server = servers[row.server]
    elif row.organization is not None:
        record.organization = registry.organizations[row.organization]
    if row.profile is not None:
        record.profile = profiles[row.profile]
    registry.index(record)


def ledger_row(ledger: Ledger) -> LedgerRow:
    return LedgerRow(end=ledger.operations.end, **{name: getattr(ledger, name) for name in _LEDGER})


def restore_ledger(row: LedgerRow) -> Ledger:
    facts = {name: getattr(row, name) for name in _LEDGER}
    return Ledger(**facts, operations=OperationLog(row.end))
