"""The registry: one truth for every service of Apple's side about every serial number.

A record says what the factory knows (hardware facts and the fingerprints of the two device keys), who owns the device and
which profile is assigned to it, and where its activation stands. A serial number may be owned before its device exists.
In memory; a record without its strings is under a kilobyte, so that 100,000 devices are no burden.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Generic, TypeVar

from emulator.errors import EmulatorError
from emulator.wire import cloudconfig

K = TypeVar("K", str, bytes)
PROVISIONAL_PERIOD: Final = timedelta(days=30)


class RegistryConflict(EmulatorError):
    """Registered identifiers or keys of one device came again with another device's; lists every one of them."""

    def __init__(self, conflicts: list[str]) -> None:
        self.conflicts = conflicts
        super().__init__("; ".join(conflicts))


class UnknownOwner(EmulatorError):
    """No organisation or server of the portal goes by this name."""


class ActivationState(StrEnum):
    """What the activation service remembers of a device (apple-services.md 2.7)."""

    UNACTIVATED = "Unactivated"
    ACTIVATED = "Activated"


class ProfileStatus(StrEnum):
    """Of the assignment, in the assignment API's words (apple-services.md 4.5)."""

    EMPTY = "empty"
    ASSIGNED = "assigned"
    PUSHED = "pushed"  # a device has fetched it


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """An assigned profile: the assignment API's keys (apple-services.md 4.9), those without a value absent."""

    uuid: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An MDM server as the portal knows it; the devices assigned to it get its profile."""

    name: str
    uuid: str  # 32 hex digits
    profile: Profile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """Who owns devices: what section `org` of a cloud configuration says of it, and its servers."""

    facts: cloudconfig.Organization
    servers: Mapping[str, Server] = field(default_factory=dict)  # by name

    @property
    def name(self) -> str:
        return self.facts.name


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareFacts:
    """What the factory wrote down about one device."""

    serial_number: str
    udid: str
    product_type: str
    factory_key: bytes  # SHA-256 of the SPKI of FK
    attestation_key: bytes  # SHA-256 of the SPKI of AK
    os_version: str | None = None
    build: str | None = None
    imei: str | None = None
    imei2: str | None = None
    meid: str | None = None
    wifi_mac: str | None = None
    bluetooth_mac: str | None = None
    ecid: int | None = None
    model_number: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationLock:
    """A lock that asks for credentials at activation (apple-services.md 2.8)."""

    account: tuple[str, str] | None = None  # login and password of the locking account
    escrow_hash: bytes | None = None  # PBKDF2 of the bypass code
    message: str = "This device is linked to an account."


@dataclass(slots=True, kw_only=True)
class DeviceRecord:
    """Everything known about one serial number."""

    serial_number: str
    hardware: HardwareFacts | None = None  # None: owned, but never provisioned
    organization: Organization | None = None
    server: Server | None = None
    profile: Profile | None = None
    profile_status: ProfileStatus = ProfileStatus.EMPTY
    profile_assign_time: datetime | None = None
    profile_push_time: datetime | None = None
    activation_state: ActivationState = ActivationState.UNACTIVATED
    activation_lock: ActivationLock | None = None
    provisional_until: datetime | None = None  # end of the 30 days of a Configurator-added device
    provisional_from_activation: bool = False  # the next activation starts those 30 days anew

    def assign(
        self, organization: Organization | None, server: Server | None, now: datetime
    ) -> None:
        """Give the device an owner; the status of a profile that stays the same stays, too."""
        profile = server.profile if server else None
        if profile is None:
            self.profile_status = ProfileStatus.EMPTY
            self.profile_assign_time = self.profile_push_time = None
        elif self.profile is None or self.profile.uuid != profile.uuid:
            self.profile_status = ProfileStatus.ASSIGNED
            self.profile_assign_time, self.profile_push_time = now, None
        self.organization, self.server, self.profile = organization, server, profile

    def add_provisionally(self, now: datetime, *, from_activation: bool) -> datetime:
        """Added with Apple Configurator: for 30 days the user may leave (rule 45). Returns when they end.

        They start now; `from_activation` lets the first activation after this start them anew.
        """
        self.provisional_from_activation = from_activation
        self.provisional_until = now + PROVISIONAL_PERIOD
        return self.provisional_until

    def activated(self, now: datetime) -> None:
        """The activation service issued a record."""
        self.activation_state = ActivationState.ACTIVATED
        if self.provisional_from_activation:
            self.add_provisionally(now, from_activation=False)

    def pushed(self, now: datetime) -> bool:
        """The device fetched its profile; True the first time. A repeated fetch changes nothing (9.2)."""
        if self.profile is None or self.profile_status is ProfileStatus.PUSHED:
            return False
        self.profile_status, self.profile_push_time = ProfileStatus.PUSHED, now
        return True


class Registry:
    """Records by serial number, with indexes by UDID and by key; organisations and servers by name."""

    def __init__(self) -> None:
        self.records: dict[str, DeviceRecord] = {}
        self.organizations: dict[str, Organization] = {}
        self._serials_by_udid: dict[str, str] = {}
        self._serials_by_key: dict[bytes, str] = {}

    def get(self, serial_number: str) -> DeviceRecord | None:
        return self.records.get(serial_number)

    def provisioned(self, serial_number: str, udid: str) -> DeviceRecord | None:
        """The record of a device that exists, when both identifiers are its own."""
        record = self.records.get(serial_number)
        if record is None or record.hardware is None or record.hardware.udid != udid:
            return None
        return record

    def by_udid(self, udid: str) -> DeviceRecord | None:
        serial = self._serials_by_udid.get(udid)
        return None if serial is None else self.records[serial]

    def by_key(self, spki: bytes) -> DeviceRecord | None:
        """The device to which the factory gave this key, FK or AK, by its SubjectPublicKeyInfo."""
        serial = self._serials_by_key.get(fingerprint(spki))
        return None if serial is None else self.records[serial]

    def devices(self) -> Iterator[DeviceRecord]:
        """Every record whose device exists."""
        return (record for record in self.records.values() if record.hardware is not None)

    def check(self, batch: Iterable[HardwareFacts]) -> None:
        """Raise RegistryConflict, listing everything in `batch` that belongs to another device already."""
        conflicts: list[str] = []
        udids = _Claims(self._serials_by_udid)
        keys = _Claims(self._serials_by_key)
        seen: dict[str, HardwareFacts] = {}
        for facts in batch:
            record = self.records.get(facts.serial_number)
            known = seen.get(facts.serial_number) or (record.hardware if record else None)
            conflicts += _differences(known, facts)
            seen[facts.serial_number] = facts
            owners = {
                f"UDID {facts.udid}": udids.claim(facts.udid, facts.serial_number),
                "factory_public_key": keys.claim(facts.factory_key, facts.serial_number),
                "attestation_public_key": keys.claim(facts.attestation_key, facts.serial_number),
            }
            conflicts += [
                f"{facts.serial_number}: {what} belongs to {owner}"
                for what, owner in owners.items()
                if owner is not None
            ]
        if conflicts:
            raise RegistryConflict(conflicts)

    def provision(self, facts: HardwareFacts) -> DeviceRecord:
        """Write down a device that passed `check`; the same one again renews what may change, such as its OS."""
        serial = facts.serial_number
        record = self.records.setdefault(serial, DeviceRecord(serial_number=serial))
        record.hardware = facts
        self._serials_by_udid[facts.udid] = serial
        self._serials_by_key[facts.factory_key] = serial
        self._serials_by_key[facts.attestation_key] = serial
        return record

    def remove(self, serial_number: str) -> bool:
        """Forget the device; its owner, if it has one, keeps the serial number. False: there is no such device."""
        record = self.records.get(serial_number)
        if record is None or record.hardware is None:
            return False
        del self._serials_by_udid[record.hardware.udid]
        del self._serials_by_key[record.hardware.factory_key]
        del self._serials_by_key[record.hardware.attestation_key]
        # Whoever still holds the record, such as a waiting activation, sees that the device is gone.
        record.hardware = None
        record.activation_state = ActivationState.UNACTIVATED
        record.activation_lock = None
        if record.organization is None:
            del self.records[serial_number]
        return True

    def own(
        self, serial_numbers: Iterable[str], organization: str, server: str | None, now: datetime
    ) -> None:
        """Assign serial numbers to a server of an organisation, or to the organisation alone. Raises UnknownOwner."""
        owner = self.organizations.get(organization)
        if owner is None:
            raise UnknownOwner(f"no organization {organization!r} in the portal")
        target = None if server is None else owner.servers.get(server)
        if server is not None and target is None:
            raise UnknownOwner(f"no server {server!r} in organization {organization!r}")
        for serial in serial_numbers:
            record = self.records.setdefault(serial, DeviceRecord(serial_number=serial))
            record.assign(owner, target, now)

    def add_server(self, organization: str, server: Server) -> None:
        """Give an organisation one more server, or one of its servers anew. Raises UnknownOwner."""
        owner = self.organizations.get(organization)
        if owner is None:
            raise UnknownOwner(f"no organization {organization!r} in the portal")
        servers = {**owner.servers, server.name: server}
        self.organizations[organization] = replace(owner, servers=servers)

    def release(self, serial_number: str, now: datetime) -> bool:
        """The device belongs to nobody any more, and its last server's next sync says `deleted`. False: it had no owner."""
        record = self.records.get(serial_number)
        if record is None or record.organization is None:
            return False
        record.assign(None, None, now)
        record.provisional_until, record.provisional_from_activation = None, False
        if record.hardware is None:
            del self.records[serial_number]
        return True

    def replace_owners(
        self,
        organizations: Iterable[Organization],
        owned: Mapping[str, tuple[str, str | None]],
        now: datetime,
    ) -> None:
        """Make `owned` (serial number -> organisation and server names) the whole truth about owners."""
        self.organizations = {organization.name: organization for organization in organizations}
        for serial, record in list(self.records.items()):
            if serial in owned:
                continue
            record.assign(None, None, now)
            if record.hardware is None:
                del self.records[serial]
        for serial, (organization, server) in owned.items():
            self.own([serial], organization, server, now)


class _Claims(Generic[K]):
    """Who owns a UDID or key, in the registry and then in the batch that is being checked."""

    def __init__(self, registered: Mapping[K, str]) -> None:
        self._registered: Mapping[K, str] = registered
        self._batch: dict[K, str] = {}

    def claim(self, key: K, serial_number: str) -> str | None:
        """Note the claim; the owner when that is another device."""
        owner = self._registered.get(key) or self._batch.setdefault(key, serial_number)
        return None if owner == serial_number else owner


def _differences(known: HardwareFacts | None, facts: HardwareFacts) -> list[str]:
    """What makes `facts` another device than the one known under its serial number."""
    if known is None:
        return []
    serial = facts.serial_number
    found = []
    if known.udid != facts.udid:
        found.append(f"{serial}: registered with UDID {known.udid}, not {facts.udid}")
    if known.factory_key != facts.factory_key:
        found.append(f"{serial}: registered with another factory_public_key")
    if known.attestation_key != facts.attestation_key:
        found.append(f"{serial}: registered with another attestation_public_key")
    return found


def fingerprint(spki: bytes) -> bytes:
    """By which the registry knows a key."""
    return hashlib.sha256(spki).digest()
