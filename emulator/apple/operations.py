"""What happened to the devices of one MDM server, in order, and which devices it has: what syncs and fetches page through.

Each operation has a position in the server's log, which never changes; a cursor is a position. Both structures are flat
arrays, as one server may have 200,000 devices, and a page costs a binary search.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final

KEPT: Final = timedelta(days=7, hours=1)  # a cursor lives for seven days
PRUNE_AT: Final = 1024  # operations that are over before any is dropped: dropping moves the rest


class Kind(IntEnum):
    """Of an operation."""

    ADDED = 0
    MODIFIED = 1
    DELETED = 2
    REPLACED = 3  # deleted, because another device stands for it
    SILENT = 4  # added, but no sync tells (a known fault of bulk transfers)

    @property
    def ends(self) -> bool:
        """The device left the server."""
        return self in (Kind.DELETED, Kind.REPLACED)


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation, read back."""

    position: int
    kind: Kind
    serial_number: str
    at: datetime


class OperationLog:
    """Operations of seven days, oldest first."""

    def __init__(self, base: int = 0) -> None:
        self.base = base  # position of the oldest that is kept
        self._times = array("q")  # milliseconds since 1970, never falling
        self._kinds = array("b")
        self._serials: list[str] = []

    def __len__(self) -> int:
        return len(self._serials)

    @property
    def end(self) -> int:
        """Where the next operation will stand."""
        return self.base + len(self._serials)

    def append(self, kind: Kind, serial_number: str, now: datetime) -> int:
        """Note an operation; returns its position."""
        at = ms_of(now)
        if self._times and at < self._times[-1]:
            at = self._times[-1]  # a clock that went back must not put the log out of order
        self._prune(at)
        self.restore(kind, serial_number, at)
        return self.end - 1

    def restore(self, kind: Kind, serial_number: str, at: int) -> None:
        """Put back what a file held, in order; `at` in milliseconds."""
        self._times.append(at)
        self._kinds.append(kind)
        self._serials.append(serial_number)

    def since(self, position: int) -> Iterator[Entry]:
        """Everything from `position` on."""
        for index in range(max(0, position - self.base), len(self._serials)):
            yield Entry(
                self.base + index,
                Kind(self._kinds[index]),
                self._serials[index],
                moment_of(self._times[index]),
            )

    def _prune(self, now_ms: int) -> None:
        oldest = now_ms - int(KEPT.total_seconds() * 1000)
        if len(self._times) < PRUNE_AT or self._times[PRUNE_AT - 1] >= oldest:
            return
        over = bisect_left(self._times, oldest)
        del self._times[:over], self._kinds[:over], self._serials[:over]
        self.base += over


class Roster:
    """The devices of one server by the position at which each came; who leaves leaves a gap until there are many."""

    def __init__(self) -> None:
        self._positions = array("q")  # rising
        self._serials: list[str | None] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return (serial for serial in self._serials if serial is not None)

    def add(self, position: int, serial_number: str) -> None:
        """A device came; positions only rise."""
        if self._positions and position <= self._positions[-1]:
            raise ValueError(f"position {position} is not after {self._positions[-1]}")
        self._positions.append(position)
        self._serials.append(serial_number)
        self._count += 1

    def remove(self, position: int) -> None:
        """The device that came at `position` left."""
        index = bisect_left(self._positions, position)
        if index == len(self._positions) or self._positions[index] != position:
            raise KeyError(position)
        if self._serials[index] is not None:
            self._serials[index] = None
            self._count -= 1
        if len(self._serials) > 2 * self._count + PRUNE_AT:
            self._close_gaps()

    def between(self, position: int, until: int) -> Iterator[tuple[int, str]]:
        """Who came from `position` on and before `until`, and is still there."""
        for index in range(bisect_left(self._positions, position), len(self._serials)):
            here, serial = self._positions[index], self._serials[index]
            if here >= until:
                return
            if serial is not None:
                yield here, serial

    def _close_gaps(self) -> None:
        kept = [index for index, serial in enumerate(self._serials) if serial is not None]
        self._positions = array("q", (self._positions[index] for index in kept))
        self._serials = [self._serials[index] for index in kept]


def ms_of(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def moment_of(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
