"""What a service remembers for some minutes: bounded in number, expiring by the injected clock."""

from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

MAX_REMEMBERED: Final = 200_000  # entries; the oldest make way

V = TypeVar("V")


class Memory(Generic[V]):
    """Values by an opaque key, each for the same time from when it was put there."""

    def __init__(self, lifetime: timedelta, *, limit: int = MAX_REMEMBERED) -> None:
        self.lifetime = lifetime
        self.limit = limit
        self._values: dict[bytes, tuple[datetime, V]] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: bytes, value: V, now: datetime) -> None:
        """Remember `value` from `now` on, in place of what was there."""
        self._forget(now)
        self._values.pop(key, None)
        if len(self._values) >= self.limit:
            del self._values[next(iter(self._values))]
        self._values[key] = (now, value)

    def get(self, key: bytes, now: datetime) -> V | None:
        """The value, while it is younger than the lifetime."""
        found = self._values.get(key)
        if found is None or now - found[0] >= self.lifetime:
            return None
        return found[1]

    def age(self, key: bytes, now: datetime) -> timedelta | None:
        """How long ago the value was put there."""
        found = self._values.get(key)
        return None if found is None else now - found[0]

    def drop(self, key: bytes) -> None:
        """Forget the value now."""
        self._values.pop(key, None)

    def _forget(self, now: datetime) -> None:
        """Drop what is over, from the oldest on; lifetimes are equal, so the first that holds ends the search."""
        while self._values:
            key = next(iter(self._values))
            if now - self._values[key][0] < self.lifetime:
                return
            del self._values[key]
