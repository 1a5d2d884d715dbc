"""What the registry holds and its file does not hold yet; empty, and of no weight, where there is no file."""

from dataclasses import dataclass, field
from datetime import datetime

from emulator.apple.ledger import Ledger
from emulator.apple.operations import Kind, ms_of
from emulator.apple.records import Profile

OperationRow = tuple[str, int, int, str, int]  # server, position, kind, serial number, milliseconds


class _Nothing(set[str]):
    """Where there is no file: a set that stays empty."""

    def add(self, element: str) -> None:
        pass


@dataclass(slots=True)
class Unsaved:
    """Changes since the last commit, each named by what changed: the file takes what is true when it writes."""

    kept: bool = True  # False: there is no file
    organizations: bool = False
    devices: set[str] = field(init=False)
    ledgers: set[str] = field(init=False)
    profiles: list[tuple[str, Profile]] = field(default_factory=list)
    operations: list[OperationRow] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)  # servers that left the portal

    def __post_init__(self) -> None:
        self.devices = set() if self.kept else _Nothing()
        self.ledgers = set() if self.kept else _Nothing()

    def __bool__(self) -> bool:
        return bool(
            self.devices
            or self.ledgers
            or self.operations
            or self.profiles
            or self.gone
            or self.organizations
        )

    def operation(
        self, ledger: Ledger, entry: tuple[int, Kind], serial_number: str, now: datetime
    ) -> None:
        """An operation was logged."""
        if self.kept:
            position, kind = entry
            self.operations.append((ledger.uuid, position, kind, serial_number, ms_of(now)))

    def profile(self, ledger: Ledger, profile: Profile) -> None:
        """A server defined a profile."""
        if self.kept:
            self.profiles.append((ledger.uuid, profile))

    def dropped(self, uuid: str) -> None:
        """A server left the portal."""
        if self.kept:
            self.ledgers.discard(uuid)
            self.profiles = [row for row in self.profiles if row[0] != uuid]
            self.operations = [row for row in self.operations if row[0] != uuid]
            self.gone.append(uuid)

    def again(self, unsaved: "Unsaved") -> None:
        """What could not be written is to be written after all."""
        self.organizations = self.organizations or unsaved.organizations
        self.devices |= unsaved.devices
        self.ledgers |= unsaved.ledgers
        self.profiles = unsaved.profiles + self.profiles
        self.operations = unsaved.operations + self.operations
        self.gone = unsaved.gone + self.gone
