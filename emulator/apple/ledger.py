"""What the device assignment API keeps for one MDM server: its token, its profiles, its devices and what happened to them."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal

from emulator.apple.operations import Kind, OperationLog, Roster
from emulator.apple.records import DeviceRecord, Profile
from emulator.wire.token import ServerToken

MAX_PROFILES: Final = 1000  # per token (rule 29)
ADVISED_DEVICES: Final = 200_000  # per token (rule 30)
REMEMBERED_TOKENS: Final = 100  # that are over, to be able to say so
REMEMBERED_CALLS: Final = 100

# Why a token is over: a newer one was downloaded, the portal took it back, or its Apple ID is not what it was.
End = Literal["replaced", "invalidated", "apple_id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """The one token of a server that is good."""

    token: ServerToken
    issued_at: datetime
    issued_by: str  # Apple ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request that was answered, for whoever wants to know how a server behaves."""

    at: datetime
    step: str
    outcome: str
    status: int
    devices: int = 0  # in the answer


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Found in the registry by the server's UUID; the registry changes it and keeps it."""

    uuid: str
    organization: str
    name: str
    admin_id: str | None = None  # Apple ID of who made the server; None: the organisation's first
    certificate: bytes | None = None  # DER; what token files are encrypted to
    token: IssuedToken | None = None
    ended: dict[str, End] = field(default_factory=dict)  # access tokens that are over
    former_keys: list[str] = field(default_factory=list)  # consumer keys that were the server's
    blocked: bool = False  # ACCESS_DENIED
    discovery_url: str | None = None  # of account-driven enrollment
    discovery_updated: datetime | None = None
    profiles: dict[str, Profile] = field(default_factory=dict)
    operations: OperationLog = field(default_factory=OperationLog)
    roster: Roster = field(default_factory=Roster)
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=REMEMBERED_CALLS))

    @property
    def consumer_keys(self) -> Iterable[str]:
        """Every consumer key by which this server may be asked for."""
        return [*self.former_keys, *([self.token.token.consumer_key] if self.token else [])]

    def issue(self, token: IssuedToken) -> None:
        """From now on this token is good, and no other."""
        self.end_token("replaced")
        key = token.token.consumer_key
        self.former_keys = [known for known in self.former_keys if known != key]
        self.token = token

    def end_token(self, why: End) -> bool:
        """The token is over; False: there is none."""
        if self.token is None:
            return False
        token, self.token = self.token.token, None
        self.ended[token.access_token] = why
        if token.consumer_key not in self.former_keys:
            self.former_keys.append(token.consumer_key)
        while len(self.ended) > REMEMBERED_TOKENS:
            del self.ended[next(iter(self.ended))]
        del self.former_keys[:-REMEMBERED_TOKENS]
        return True

    def rename_admin(self, old: str, new: str) -> None:
        """An Apple ID changed its name; whose token it is does not change."""
        if self.admin_id == old:
            self.admin_id = new
        if self.token is not None and self.token.issued_by == old:
            self.token = replace(self.token, issued_by=new)

    def join(
        self, record: DeviceRecord, now: datetime, kind: Kind = Kind.ADDED
    ) -> tuple[int, Kind]:
        """A device comes to this server."""
        record.position = self.operations.append(kind, record.serial_number, now)
        self.roster.add(record.position, record.serial_number)
        return record.position, kind

    def leave(
        self, record: DeviceRecord, now: datetime, kind: Kind = Kind.DELETED
    ) -> tuple[int, Kind]:
        """A device goes."""
        self.roster.remove(record.position)
        record.position = -1
        return self.operations.append(kind, record.serial_number, now), kind
