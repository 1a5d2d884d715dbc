"""One virtual device: its hardware and everything that it remembers.

Data only: what a device does lives in `setup_assistant`, `session`, `commands` and `user`, and each of them ends in a
change of the fields here. `snapshot` turns all of it into one store row and back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final, Self

import structlog

from certs.identity import Identity
from emulator.device.keychain import FactoryIdentity, IdentityKind, InstalledIdentity, Keychain
from emulator.device.profiles import InstalledProfile, ProfileStore
from emulator.device.state import MANAGED, Event, State, advance
from emulator.hardware import Hardware, version_key
from emulator.wire.cloudconfig import CloudConfiguration

log = structlog.get_logger()

ANSWERS_REMEMBERED: Final = 16  # a server repeats its last command, not its last hundred
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
REMOVE_WITH_MDM: Final = 1  # bit of an app's ManagementFlags


class After(StrEnum):
    """What a command does once its result has been delivered."""

    NOTHING = "nothing"
    RESTART = "restart"
    ERASE = "erase"
    UNENROLL = "unenroll"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """A result that the server has not accepted yet; it outlives a crash (mdm.md 4.1)."""

    command_uuid: str
    body: bytes
    after: After = After.NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A result given before, kept for a server that repeats the command."""

    request_type: str
    body: bytes
    after: After = After.NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why Setup Assistant shows an error, and where a retry starts."""

    step: str
    reason: str
    retry: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingProfile:
    """The enrollment profile between its download and the end of its installation."""

    data: bytes = field(
        repr=False
    )  # empty once its identity is there: it may hold one-time secrets
    retry: Event  # where to go back to when the installation fails
    automated: bool  # came by Automated Device Enrollment
    installed: InstalledProfile | None = None  # what will stay of it when Authenticate is accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrollment:
    """What the device knows of its management: the MDM payload's facts, its identity, its push address."""

    profile_identifier: str
    identity_uuid: str  # PayloadUUID of the identity's payload in the same profile
    identity_kind: IdentityKind
    topic: str
    server_url: str
    check_in_url: str
    access_rights: int
    sign_message: bool = False
    check_out_when_removed: bool = False
    server_capabilities: tuple[str, ...] = ()
    server_url_pins: tuple[str, ...] = ()  # payload UUIDs of pinned certificates
    check_in_url_pins: tuple[str, ...] = ()
    automated: bool = False  # by Automated Device Enrollment
    user_enrollment: bool = False  # a personal device: nothing may tell which one it is
    push_token: bytes = field(default=b"", repr=False)
    push_magic: str = field(default="", repr=False)
    unlock_token: bytes | None = field(default=None, repr=False)
    awaiting_configuration: bool = False  # as the last TokenUpdate said
    token_update_due: bool = False  # the server has not heard of this token or PushMagic yet

    def allows(self, rights: int) -> bool:
        """Whether the payload granted all of these access rights."""
        return self.access_rights & rights == rights


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """What users, servers and the world set on a device."""

    locked: bool = False  # screen locked under a passcode: NotNow for some commands
    passcode_present: bool = False
    data_roaming: bool = False
    voice_roaming: bool = False
    personal_hotspot: bool = False
    network_tethered: bool = False
    diagnostic_submission: bool = False
    app_analytics: bool = False
    locator_service: bool = False
    activation_lock: bool = False
    do_not_disturb: bool = False
    cloud_backup: bool = False
    store_account: str | None = None  # the account hash, when someone is signed in
    time_zone: str = "Etc/UTC"
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A third-party app on the device."""

    identifier: str
    name: str
    version: str  # CFBundleVersion
    short_version: str
    bundle_size: int = 52_428_800
    dynamic_size: int = 151_552
    external_version_identifier: int = 0
    managed: bool = False
    management_flags: int = 0
    device_licensed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationCache:
    """The last DevicePropertiesAttestation: given again until a new one is due (mdm.md 5.1)."""

    chain: tuple[bytes, ...]  # DER, leaf first
    nonce: bytes | None
    issued_at: datetime
    anonymous: bool = False  # made under User Enrollment: names no device


@dataclass(slots=True, kw_only=True)
class Device:
    """A virtual iPhone or iPad."""

    hardware: Hardware
    factory: FactoryIdentity
    name: str
    state: State = State.UNACTIVATED
    cloud_configuration: CloudConfiguration | None = None
    enrollment: Enrollment | None = None
    keychain: Keychain = field(default_factory=Keychain)
    profiles: ProfileStore = field(default_factory=ProfileStore)
    apps: list[App] = field(default_factory=list)
    settings: DeviceSettings = field(default_factory=DeviceSettings)
    attestation: AttestationCache | None = None
    outbox: Outbox | None = None
    answered: dict[str, Answer] = field(default_factory=dict)  # by CommandUUID, oldest first
    pending: PendingProfile | None = None
    failure: Failure | None = None
    bypass_code: bytes | None = field(default=None, repr=False)  # opens an activation lock (2.8)

    @classmethod
    def manufacture(cls, hardware: Hardware, factory: FactoryIdentity) -> Self:
        """A new device, switched off, as it leaves the factory."""
        return cls(hardware=hardware, factory=factory, name=default_name(hardware))

    def apply(self, event: Event) -> None:
        """Move along the state table and log it. Raises IllegalTransition and changes nothing."""
        before = self.state
        self.state = advance(before, event)
        log.info(
            "state",
            udid=self.hardware.udid,
            before=before.value,
            event_name=event.value,
            state=self.state.value,
        )

    # --- what the device knows of itself

    @property
    def supervised(self) -> bool:
        """Supervision comes with the cloud configuration and lasts until the device is erased."""
        return self.cloud_configuration is not None and self.cloud_configuration.is_supervised

    @property
    def removal_forbidden(self) -> bool:
        """Whether the enrollment profile has no Remove button: the cloud configuration or the profile forbids it."""
        profile = self.profiles.enrollment
        configuration = self.cloud_configuration
        if profile is None or not self.supervised:
            return False
        automated = self.enrollment is not None and self.enrollment.automated
        unremovable = configuration is not None and not configuration.is_mdm_removable
        return profile.removal_disallowed or (automated and unremovable)

    @property
    def locked(self) -> bool:
        """Locked to its management: managed, supervised, and without a way to remove the enrollment profile."""
        return self.managed and self.removal_forbidden

    @property
    def provisional_until(self) -> datetime | None:
        """When the user can no longer leave; None unless the device was added with Apple Configurator."""
        configuration = self.cloud_configuration
        if configuration is None or configuration.provisional_expiry_ms is None:
            return None
        return EPOCH + timedelta(milliseconds=configuration.provisional_expiry_ms)

    def is_provisional(self, now: datetime) -> bool:
        """Whether the user may still leave, whatever the configuration says of removal (rule 45)."""
        until = self.provisional_until
        return until is not None and now < until

    @property
    def managed(self) -> bool:
        return self.state in MANAGED and self.enrollment is not None

    @property
    def installed_identity(self) -> InstalledIdentity | None:
        """The keychain item that the MDM payload names."""
        if self.enrollment is None:
            return None
        key = (self.enrollment.profile_identifier, self.enrollment.identity_uuid)
        return self.keychain.identities.get(key)

    @property
    def identity(self) -> Identity | None:
        """The MDM identity: TLS client certificate and signer of Mdm-Signature."""
        installed = self.installed_identity
        return None if installed is None else installed.identity

    def runs(self, version: str) -> bool:
        """Whether the device's OS is `version` or newer."""
        return _known_version(self.hardware.os_version) >= _known_version(version)

    # --- what happens to a device as a whole

    def change(self, **values: object) -> None:
        """Set some of `settings`."""
        self.settings = replace(self.settings, **values)  # type: ignore[arg-type]

    def remember(self, command_uuid: str, answer: Answer) -> None:
        """Keep a result for a server that asks the same again; the oldest goes when there are too many."""
        self.answered.pop(command_uuid, None)
        self.answered[command_uuid] = answer
        while len(self.answered) > ANSWERS_REMEMBERED:
            del self.answered[next(iter(self.answered))]

    def forget_management(self) -> None:
        """Take away all that management brought: mdm.md 4.3, "Unenroll". The caller applies PROFILE_REMOVED."""
        for profile in self.profiles.all():
            if profile.enrollment or profile.managed:
                self.profiles.remove(profile.identifier)
                self.keychain.remove_profile(profile.identifier)
        self.apps = [
            app for app in self.apps if not (app.managed and app.management_flags & REMOVE_WITH_MDM)
        ]
        self.enrollment = None
        self.outbox = None
        self.answered.clear()

    def erase(self) -> None:
        """Back to how it was made; only the factory identity and the hardware stay (mdm.md 5.8)."""
        self.apply(Event.ERASED)
        fresh = Device.manufacture(self.hardware, self.factory)
        for name in Device.__slots__:
            if name != "state":
                setattr(self, name, getattr(fresh, name))
        self.apply(Event.POWERED_ON)

    def facts(self) -> Mapping[str, object]:
        """Who this is, for a log line."""
        return {"serial": self.hardware.serial_number, "udid": self.hardware.udid}


# A few hundred versions exist, and one DeviceInformation compares a hundred times.
_known_version = lru_cache(maxsize=1024)(version_key)


def default_name(hardware: Hardware) -> str:
    """What a device calls itself until somebody names it."""
    return hardware.model.family
