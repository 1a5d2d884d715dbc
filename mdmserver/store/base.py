"""What the server remembers, and the door to it: records as frozen dataclasses, `Store` as a Protocol.

Every method of a Store is one transaction: it happened whole, or not at all. Times are aware UTC.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

Kind = Literal["acme", "scep"]
Purpose = Literal["enrollment", "renewal"]
Origin = Literal["policy", "setup", "admin"]


class DeviceState(StrEnum):
    """How far a device is with us."""

    AUTHENTICATED = "authenticated"  # Authenticate came, TokenUpdate has not
    AWAITING_CONFIGURATION = "awaiting_configuration"  # held in Setup Assistant
    ENROLLED = "enrolled"
    CHECKED_OUT = "checked_out"


class CommandState(StrEnum):
    """Where a queued command stands; the first three are open, the others final."""

    QUEUED = "queued"
    DELIVERED = "delivered"  # sent, no answer stored yet
    NOT_NOW = "not_now"
    ACKNOWLEDGED = "acknowledged"
    ERROR = "error"
    FORMAT_ERROR = "command_format_error"
    WITHDRAWN = "withdrawn"  # the server no longer wants it


OPEN: tuple[CommandState, ...] = (
    CommandState.QUEUED,
    CommandState.DELIVERED,
    CommandState.NOT_NOW,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileVersion:
    """The part of an enrollment profile that a device keeps until it is erased (rules 40, 41)."""

    version: int
    identifier: str  # the profile's PayloadIdentifier
    supervised: bool
    locked: bool
    topic: str
    server_url: str
    check_in_url: str
    sign_message: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Rule 116: how long one activation, known by its MachineInfo signer, may fetch its profile."""

    signer: bytes  # SHA-256 of the signer's certificate
    udid: str
    serial: str
    opened_at: datetime
    deadline: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A one-time SCEP challenge or ACME ClientIdentifier and the one device it is for; the secret is kept as a hash."""

    secret_sha256: bytes
    kind: Kind
    purpose: Purpose
    udid: str
    serial: str
    product: str
    os_version: str | None
    build: str
    profile_version: int
    deadline: datetime
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A certificate that SCEP or ACME gave out, and the device it was given to."""

    sha256: bytes
    udid: str
    serial: str
    product: str
    os_version: str | None
    build: str
    kind: Kind
    purpose: Purpose
    issuer: str
    profile_version: int
    issued_at: datetime
    not_after: datetime
    superseded: bool = False  # the device has used a later one since


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """One device, in its present life; what it reported last is None until it did."""

    udid: str
    serial: str | None
    product: str | None
    os_version: str | None
    build: str | None
    state: DeviceState
    certificate_sha256: bytes | None
    kind: Kind | None
    issuer: str | None
    profile_version: int
    authenticated_at: datetime
    topic: str | None = None
    push_token: bytes | None = None
    push_magic: str | None = None
    unlock_token: bytes | None = None
    enrolled_at: datetime | None = None
    last_seen: datetime | None = None
    configured_uuid: str | None = None  # CommandUUID of this enrollment's DeviceConfigured
    unenroll: bool = False  # an admin marked it
    name: str | None = None
    supervised: bool | None = None
    locked: bool | None = None
    reported_at: datetime | None = None
    profiles_listed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedCommand:
    """A command of one device and what became of it."""

    uuid: str
    udid: str
    request_type: str
    body: bytes  # the whole command plist, as it is sent
    origin: Origin = "admin"
    rule: str | None = None  # the policy rule that a command of origin "policy" mends
    state: CommandState = CommandState.QUEUED
    queued_at: datetime | None = None
    delivered_at: datetime | None = None
    deliveries: int = 0
    finished_at: datetime | None = None
    result: bytes | None = None  # the answer's whole plist, as it came


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a result did to the queue: the command as it stood before, and whether this was its first final answer."""

    command: QueuedCommand
    first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRecord:
    """One policy rule of one device as it was found last."""

    rule: str
    wanted: str | bool | None = None
    reported: str | bool | None = None
    state: str = "unknown"
    last_enforced: datetime | None = None
    failures: int = 0  # failed mends since the device last agreed


@dataclass(frozen=True, slots=True, kw_only=True)
class PushInfo:
    """Where to push to, from a TokenUpdate."""

    topic: str
    token: bytes
    magic: str
    unlock_token: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PushTarget:
    """A device that can be pushed, or could be until APNs turned its token down."""

    udid: str
    topic: str
    token: bytes
    magic: str
    off_reason: str | None = None  # until the next TokenUpdate
    off_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a device said about itself in one session; None leaves the earlier value."""

    at: datetime
    name: str | None = None
    supervised: bool | None = None
    locked: bool | None = None
    os_version: str | None = None
    build: str | None = None
    profiles_listed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Commands that every device gets once when it completes its enrollment."""

    commands: tuple[QueuedCommand, ...] = ()


class Store(Protocol):
    """Durable memory of one server."""

    async def close(self) -> None: ...

    async def server_id(self) -> str:
        """A UUID made at the first start: what stable names are derived from."""
        ...

    # the enrollment profile
    async def keep_profile_version(self, wanted: ProfileVersion) -> ProfileVersion:
        """The newest version if it says the same as `wanted`, else `wanted` under the next number."""
        ...

    async def profile_version(self, version: int) -> ProfileVersion: ...

    # rule 116
    async def open_window(self, window: Window) -> Window:
        """The signer's window: `window` itself when this is its first download."""
        ...

    async def reset_windows(self, udid: str) -> int:
        """Forget the windows of a device; how many there were."""
        ...

    # identities
    async def add_challenge(self, challenge: Challenge) -> None:
        """Keep a new challenge; unused earlier ones of the same device and purpose end."""
        ...

    async def challenge(self, secret_sha256: bytes) -> Challenge | None: ...

    async def use_challenge(self, secret_sha256: bytes, certificate: IssuedCertificate) -> bool:
        """End the challenge and keep its certificate; False (and nothing kept) if it was used or is too old."""
        ...

    async def add_certificate(self, certificate: IssuedCertificate) -> None:
        """Keep one that needed no challenge."""
        ...

    async def certificate(self, sha256: bytes) -> IssuedCertificate | None: ...

    # devices
    async def device(self, udid: str) -> DeviceRecord | None: ...

    async def devices(self) -> Sequence[DeviceRecord]: ...

    async def begin(self, device: DeviceRecord) -> None:
        """A new life: commands, policy and reports of an earlier one are forgotten, earlier certificates superseded, codes to renew them ended."""
        ...

    async def complete(
        self, udid: str, push: PushInfo, state: DeviceState, at: datetime, setup: Setup
    ) -> None:
        """Store the push data; the first time of a life also queue `setup`."""
        ...

    async def end(self, udid: str, at: datetime) -> None:
        """Checked out: open commands are withdrawn."""
        ...

    async def rebind(self, udid: str, certificate: IssuedCertificate) -> None:
        """The device changed to a renewed certificate; earlier ones are superseded."""
        ...

    async def touch(self, udid: str, at: datetime) -> None: ...

    async def report(self, udid: str, report: Report) -> None: ...

    async def configured(self, udid: str) -> None:
        """DeviceConfigured was acknowledged."""
        ...

    async def mark_unenroll(self, udid: str) -> bool:
        """False when there is no such device."""
        ...

    # the queue
    async def enqueue(self, command: QueuedCommand) -> bool:
        """False when the CommandUUID exists already."""
        ...

    async def enqueue_device_configured(self, command: QueuedCommand) -> bool:
        """Queue this enrollment's DeviceConfigured; False when it had one before or commands are still open."""
        ...

    async def next_command(
        self, udid: str, *, skip: Collection[str], origins: Iterable[Origin], at: datetime
    ) -> QueuedCommand | None:
        """The oldest open command, marked as delivered."""
        ...

    async def record_result(
        self,
        udid: str,
        uuid: str,
        state: CommandState,
        result: bytes,
        at: datetime,
    ) -> Recorded | None:
        """Store an answer once; None when this device has no such command."""
        ...

    async def open_commands(self, udid: str) -> Sequence[QueuedCommand]: ...

    async def withdraw(self, uuids: Iterable[str], at: datetime) -> None: ...

    async def commands(self, udid: str) -> Sequence[QueuedCommand]: ...

    async def command(self, uuid: str) -> QueuedCommand | None: ...

    # pushing
    async def push_target(self, udid: str) -> PushTarget | None:
        """Where to push to; None for a device that is not enrolled."""
        ...

    async def push_targets(self) -> Sequence[str]:
        """The UDIDs of all devices that can be pushed."""
        ...

    async def push_waiting(self, queued_before: datetime) -> Sequence[str]:
        """The UDIDs of those that have not fetched commands queued by then."""
        ...

    async def push_off(self, udid: str, token: bytes, reason: str, at: datetime) -> bool:
        """No more pushes until the next TokenUpdate; False when the device has another token by now."""
        ...

    # policy
    async def rules(self, udid: str) -> dict[str, RuleRecord]: ...

    async def record_rules(self, udid: str, records: Iterable[RuleRecord]) -> None: ...
