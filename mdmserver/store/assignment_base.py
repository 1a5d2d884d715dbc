"""What the server remembers of Apple's side: tokens, their keys, profiles, devices and syncs, and the door to it.

As in `base`, every method is one transaction. A page of a sync and the cursor behind it are stored by one method, so that
no cursor ever stands beyond what is stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

SyncKind = Literal["full", "delta"]
Trigger = Literal["upload", "schedule", "manual"]
Operation = Literal["added", "modified", "deleted"]


class Listing(StrEnum):
    """Where a serial number stands in the list of its token."""

    LISTED = "listed"
    REMOVED = "removed"  # Apple no longer names it; shown as removed for a while (rule 107)
    DELETED = (
        "deleted"  # an admin deleted it here; hidden until a full sync names it again (rule 106)
    )


class SyncState(StrEnum):
    """How a sync ended, or that it has not."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"  # the process ended; the next one goes on from the stored cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A key pair whose certificate goes to the portal; a token file made for it can be opened while it is kept."""

    key_id: str
    made_at: datetime
    identity_pem: bytes  # key and certificate
    token_id: str | None = None  # set: for the renewal of this token
    downloaded_at: datetime | None = None  # before that nothing can be uploaded (rule 33)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The content of a token file."""

    consumer_key: str
    consumer_secret: str
    access_token: str
    access_secret: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What `/account` said last."""

    server_name: str | None = None
    server_uuid: str | None = None
    org_name: str | None = None
    org_id: str | None = None
    admin_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why Apple refuses a token, in its own word."""

    word: str
    detail: str
    step: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far the syncs of a token are."""

    phase: SyncKind = "full"  # to which call the cursor belongs
    cursor: str | None = None
    generation: int = 0  # number of the latest full sync: rows that it saw carry it
    force_full: bool = False  # a delta failed, or its cursor expired (rule 110)
    full_started_at: datetime | None = None
    full_done_at: datetime | None = None
    last_started_at: datetime | None = None
    last_manual_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One MDM server in the portal, as we know it."""

    token_id: str
    name: str
    description: str
    apple_id: str
    credentials: Credentials
    identity_pem: bytes  # opens the next token file
    created_at: datetime
    renewed_at: datetime | None = None
    default_profile: str | None = None
    account: Account = field(default_factory=Account)
    trouble: Trouble | None = None
    position: Position = field(default_factory=Position)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignedProfile:
    """A profile as it was defined: Apple neither lists nor changes profiles."""

    token_id: str
    uuid: str
    name: str
    fields: str  # JSON, as it was sent
    defined_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDevice:
    """A serial number as the latest sync described it."""

    token_id: str
    serial: str
    listing: Listing = Listing.LISTED
    model: str | None = None
    description: str | None = None
    color: str | None = None
    asset_tag: str | None = None
    os: str | None = None
    device_family: str | None = None
    profile_status: str = "empty"
    profile_uuid: str | None = None
    profile_assign_time: datetime | None = None
    profile_push_time: datetime | None = None
    assigned_date: datetime | None = None
    assigned_by: str | None = None
    op_type: Operation | None = None
    op_date: datetime | None = None
    generation: int = 0
    first_seen: datetime | None = None
    updated_at: datetime | None = None
    removed_at: datetime | None = None
    held: bool = False  # an admin unassigned it: the default profile leaves it alone
    assign_error: str | None = None  # Apple's word when the last assignment did not succeed


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRecord:
    """One sync, running or over."""

    sync_id: int
    token_id: str
    kind: SyncKind
    trigger: Trigger
    state: SyncState
    started_at: datetime
    resumed: bool = False  # a full one that went on from the cursor of an earlier one
    finished_at: datetime | None = None
    pages: int = 0
    records: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many devices of a token stand where."""

    listed: int = 0
    removed: int = 0
    deleted: int = 0
    unassigned: int = 0  # listed, without a profile
    by_profile: Mapping[str, int] = field(default_factory=dict)  # listed, by profile UUID


class AssignmentStore(Protocol):
    """Durable memory of the assignment client."""

    # keys that wait for a token file
    async def add_key(self, key: TokenKey) -> None: ...

    async def key(self, key_id: str) -> TokenKey | None: ...

    async def key_downloaded(self, key_id: str, at: datetime) -> None: ...

    async def drop_key(self, key_id: str) -> bool: ...

    # tokens
    async def add_token(self, token: Token, key_id: str) -> None:
        """Keep a new token; the key that opened it is no longer one that waits."""
        ...

    async def renew_token(
        self,
        token_id: str,
        credentials: Credentials,
        *,
        identity_pem: bytes,
        key_id: str | None,
        apple_id: str | None,
        at: datetime,
    ) -> None:
        """Replace the credentials; the trouble of the old ones is forgotten."""
        ...

    async def token(self, token_id: str) -> Token | None: ...

    async def tokens(self) -> Sequence[Token]: ...

    async def describe_token(
        self, token_id: str, *, name: str, description: str, apple_id: str
    ) -> None: ...

    async def set_account(self, token_id: str, account: Account) -> None: ...

    async def set_trouble(self, token_id: str, trouble: Trouble | None) -> None: ...

    async def set_default_profile(self, token_id: str, uuid: str | None) -> None: ...

    async def delete_token(self, token_id: str) -> None:
        """Forget the token, its hidden devices and its syncs."""
        ...

    # profiles
    async def add_profile(self, profile: AssignedProfile) -> None: ...

    async def profile(self, token_id: str, uuid: str) -> AssignedProfile | None: ...

    async def profiles(self, token_id: str) -> Sequence[AssignedProfile]: ...

    async def drop_profile(self, token_id: str, uuid: str) -> None: ...

    # syncs
    async def begin_sync(
        self,
        token_id: str,
        kind: SyncKind,
        trigger: Trigger,
        *,
        at: datetime,
        resumed: bool,
        fresh: bool,
    ) -> SyncRecord:
        """Write down that a sync runs; `fresh` drops the cursor and begins a new full list."""
        ...

    async def store_page(
        self,
        sync_id: int,
        token_id: str,
        devices: Sequence[ListedDevice],
        *,
        kind: SyncKind,
        cursor: str,
        at: datetime,
    ) -> None:
        """Keep a page and, in the same transaction, the cursor behind it."""
        ...

    async def end_full(self, token_id: str, at: datetime) -> int:
        """The list is complete: what it did not name is removed, and deltas follow from its cursor. How many those were."""
        ...

    async def end_sync(
        self,
        sync_id: int,
        token_id: str,
        state: SyncState,
        *,
        at: datetime,
        error: str | None,
        force_full: bool,
        drop_cursor: bool = False,
    ) -> None: ...

    async def interrupt_syncs(self, at: datetime) -> int:
        """What still runs according to the store belongs to a process that ended; how many."""
        ...

    async def syncs(self, token_id: str, limit: int) -> Sequence[SyncRecord]:
        """The latest first."""
        ...

    # devices
    async def listed_devices(
        self, token_id: str, *, listing: Listing | None, after: str, limit: int
    ) -> Sequence[ListedDevice]:
        """In the order of serial numbers; None: all that are shown, so not the deleted ones."""
        ...

    async def listed_device(self, token_id: str, serial: str) -> ListedDevice | None: ...

    async def counts(self, token_id: str) -> Counts: ...

    async def without_profile(self, token_id: str, *, after: str, limit: int) -> Sequence[str]:
        """Serial numbers that the default profile is for, in order."""
        ...

    async def record_assignment(
        self, token_id: str, uuid: str, results: Mapping[str, str], at: datetime
    ) -> None: ...

    async def record_unassignment(
        self, token_id: str, results: Mapping[str, str], at: datetime
    ) -> None: ...

    async def record_disowning(
        self, token_id: str, results: Mapping[str, str], at: datetime
    ) -> None: ...

    async def delete_listed(self, token_id: str, serial: str, at: datetime) -> bool:
        """An admin deletes a device from the list; False when it is not shown there."""
        ...

    async def purge_removed(self, before: datetime) -> int:
        """Drop what was removed before that moment."""
        ...
