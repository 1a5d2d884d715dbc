"""How fast Apple's side gives devices and takes assignments: about 3,000 a minute, as a switch (rules 32, 109)."""

from datetime import datetime, timedelta

from emulator.apple.memory import Memory

RATE = 3000  # devices a minute; by this a manual sync is too soon or not
_LONGEST = timedelta(hours=24)


class Pace:
    """Keeps, for each server, when what it was given is over."""

    def __init__(self, per_minute: int = 0) -> None:
        self._per_minute = per_minute
        self._busy_until: Memory[datetime] = Memory(_LONGEST, limit=10_000)
        self._fetching_until: Memory[datetime] = Memory(_LONGEST, limit=10_000)

    def delay_s(self, server: str, devices: int, now: datetime) -> float:
        """How much later a page of so many devices comes."""
        if not self._per_minute or not devices:
            return 0.0
        key = server.encode()
        until = max(self._busy_until.get(key, now) or now, now)
        until += timedelta(minutes=devices / self._per_minute)
        self._busy_until.put(key, until, now)
        return (until - now).total_seconds()

    def room(self, server: str, devices: int, now: datetime) -> tuple[int, float]:
        """How many of so many assignments are taken now, and in how many seconds the rest may come again."""
        if not self._per_minute:
            return devices, 0.0
        key = server.encode()
        window = timedelta(minutes=1)
        until = max(self._busy_until.get(key, now) or now, now)
        free = int((window - (until - now)) / window * self._per_minute)
        taken = max(0, min(devices, free))
        until += window * (taken / self._per_minute)
        self._busy_until.put(key, until, now)
        left = devices - taken
        wait_s = min(left, self._per_minute) * 60 / self._per_minute if left else 0.0
        return taken, wait_s

    def too_soon(self, server: str, devices: int, now: datetime) -> bool:
        """Whether a fetch begins while the one before it lasts, by the rate that Apple names."""
        key = server.encode()
        until = self._fetching_until.get(key, now)
        self._fetching_until.put(key, now + timedelta(minutes=devices / RATE), now)
        return until is not None and now < until
