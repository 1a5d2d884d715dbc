"""What the registry holds: devices with their owner and profile, organisations with their people, MDM servers.

Values are frozen, but for `DeviceRecord`: what happens to a device is a method of its record, and each tells the registry,
which keeps the operation log and the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal, Protocol

from emulator.wire import cloudconfig

PROVISIONAL_PERIOD: Final = timedelta(days=30)

UnassignStatus = Literal["removed", "empty"]


class ActivationState(StrEnum):
    """What the activation service remembers of a device (apple-services.md 2.7)."""

    UNACTIVATED = "Unactivated"
    ACTIVATED = "Activated"


class ProfileStatus(StrEnum):
    """Of the assignment, in the assignment API's words (apple-services.md 4.5)."""

    EMPTY = "empty"
    ASSIGNED = "assigned"
    PUSHED = "pushed"  # a device has fetched it
    REMOVED = "removed"  # taken away; what it was is still said


class Role(StrEnum):
    """What a person may do in the portal."""

    ADMINISTRATOR = "administrator"
    DEVICE_ENROLLMENT_MANAGER = "device_enrollment_manager"
    PEOPLE_MANAGER = "people_manager"
    CONTENT_MANAGER = "content_manager"
    STAFF = "staff"

    @property
    def may_enroll(self) -> bool:
        """Download server tokens and assign devices (rule 120)."""
        return self in (Role.ADMINISTRATOR, Role.DEVICE_ENROLLMENT_MANAGER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with an Apple ID in the portal."""

    apple_id: str
    role: Role = Role.ADMINISTRATOR
    password: str | None = field(default=None, repr=False)  # opens locks that the server put on


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
    profile: Profile | None = None  # of every device that comes to it, before it assigns one itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """Who owns devices: what section `org` of a cloud configuration says of it, its people and its servers."""

    facts: cloudconfig.Organization
    servers: Mapping[str, Server] = field(default_factory=dict)  # by name
    people: Mapping[str, Person] = field(default_factory=dict)  # by Apple ID; none: anybody
    org_id: str = ""
    org_type: Literal["edu", "org", "tvprovider"] = "org"
    org_version: Literal["v1", "v2"] = "v2"
    terms_signed: bool = True  # else the assignment API answers T_C_NOT_SIGNED

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def admin_id(self) -> str:
        """Who acts where nobody is named: the first who may."""
        for person in self.people.values():
            if person.role.may_enroll:
                return person.apple_id
        return self.facts.email or "admin@example.com"


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
class Purchase:
    """What the portal knows of a device without ever having seen it."""

    product_type: str | None = None  # such as iPhone14,5
    description: str | None = None
    color: str | None = None
    asset_tag: str | None = None
    migration_deadline: datetime | None = None
    replaces: str | None = None  # serial number of the device that this one stands for
    replacement_date: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationLock:
    """A lock that asks for credentials at activation (apple-services.md 2.8)."""

    account: tuple[str, str] | None = None  # login and password of the locking account
    escrow_hash: bytes | None = None  # PBKDF2 of the bypass code
    message: str = "This device is linked to an account."


class Watcher(Protocol):
    """Who wants to know that a record changed."""

    def changed(self, record: "DeviceRecord") -> None:
        """Something about the device."""
        ...

    def modified(self, record: "DeviceRecord", now: datetime) -> None:
        """Something that its server's next sync tells."""
        ...


@dataclass(slots=True, kw_only=True)
class DeviceRecord:
    """Everything known about one serial number."""

    serial_number: str
    hardware: HardwareFacts | None = None  # None: owned, but never provisioned
    purchase: Purchase | None = None
    organization: Organization | None = None
    server: Server | None = None
    position: int = -1  # of its `added` in the server's log
    assigned_date: datetime | None = None  # to that server, by whom
    assigned_by: str | None = None
    profile: Profile | None = None
    profile_status: ProfileStatus = ProfileStatus.EMPTY
    profile_assign_time: datetime | None = None
    profile_push_time: datetime | None = None
    removed_profile: str | None = None  # UUID of the profile that status `removed` speaks of
    activation_state: ActivationState = ActivationState.UNACTIVATED
    activation_lock: ActivationLock | None = None
    provisional_until: datetime | None = None  # end of the 30 days of a Configurator-added device
    provisional_from_activation: bool = False  # the next activation starts those 30 days anew
    watcher: Watcher | None = field(default=None, repr=False, compare=False)

    @property
    def product_type(self) -> str | None:
        if self.hardware is not None:
            return self.hardware.product_type
        return None if self.purchase is None else self.purchase.product_type

    def give(self, profile: Profile, now: datetime) -> None:
        """Assign a profile; the device fetches it at its next activation."""
        self.profile, self.removed_profile = profile, None
        self.profile_status = ProfileStatus.ASSIGNED
        self.profile_assign_time, self.profile_push_time = now, None
        self._modified(now)

    def take(self, now: datetime, status: UnassignStatus = "removed") -> bool:
        """Take the profile away; False: there was none. A device that fetched it keeps it until it is erased (4.5)."""
        if self.profile is None:
            return False
        if status == "empty":
            self.forget_profile()
        else:
            self.removed_profile, self.profile = self.profile.uuid, None
            self.profile_status, self.profile_push_time = ProfileStatus.REMOVED, None
        self._modified(now)
        return True

    def forget_profile(self) -> None:
        """As if there had never been one: what a new owner sees."""
        self.profile, self.removed_profile = None, None
        self.profile_status = ProfileStatus.EMPTY
        self.profile_assign_time = self.profile_push_time = None
        self._changed()

    def pushed(self, now: datetime) -> bool:
        """The device fetched its profile; True the first time. A repeated fetch changes nothing (9.2)."""
        if self.profile is None or self.profile_status is ProfileStatus.PUSHED:
            return False
        self.profile_status, self.profile_push_time = ProfileStatus.PUSHED, now
        self._modified(now)
        return True

    def describe(self, purchase: Purchase, now: datetime) -> None:
        """The portal has it otherwise: an asset tag, a deadline, what it replaces."""
        self.purchase = purchase
        self._modified(now)

    def add_provisionally(self, now: datetime, *, from_activation: bool) -> datetime:
        """Added with Apple Configurator: for 30 days the user may leave (rule 45). Returns when they end.

        They start now; `from_activation` lets the first activation after this start them anew.
        """
        self.provisional_from_activation = from_activation
        self.provisional_until = now + PROVISIONAL_PERIOD
        self._changed()
        return self.provisional_until

    def activated(self, now: datetime) -> None:
        """The activation service issued a record."""
        self.activation_state = ActivationState.ACTIVATED
        if self.provisional_from_activation:
            self.add_provisionally(now, from_activation=False)
        self._changed()

    def deactivated(self) -> None:
        """The activation service takes the device for new; lock, owner and identifiers stay."""
        self.activation_state = ActivationState.UNACTIVATED
        self._changed()

    def lock(self, lock: ActivationLock) -> None:
        """From now on activation asks for credentials."""
        self.activation_lock = lock
        self._changed()

    def unlock(self) -> None:
        self.activation_lock = None
        self._changed()

    def _changed(self) -> None:
        if self.watcher is not None:
            self.watcher.changed(self)

    def _modified(self, now: datetime) -> None:
        self._changed()
        if self.watcher is not None:
            self.watcher.modified(self, now)
