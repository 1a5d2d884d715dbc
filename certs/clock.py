"""Time, injected everywhere, so that a test can move a fleet by a week in a millisecond.

Wall time is an aware UTC `datetime`; durations are seconds. All sleeps and scheduled time-outs of devices
and servers go through a `Clock`; only socket time-outs use real time.
"""

import asyncio
import heapq
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from itertools import count
from types import TracebackType
from typing import Final, Protocol


class Clock(Protocol):
    """What a part may ask of time."""

    def now(self) -> datetime: ...

    async def sleep(self, seconds: float) -> None: ...

    def busy(self) -> "BusyScope":
        """Mark a Transport request or a server handler as in flight: simulated time stands still meanwhile."""
        ...


class BusyScope(Protocol):
    """The context manager that `Clock.busy` returns."""

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None: ...


NOT_COUNTED: Final = nullcontext()


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    def busy(self) -> BusyScope:
        return NOT_COUNTED


class SkewedClock:
    """A clock that goes as another does, but shows a time that is off by some seconds: one device's wrong clock."""

    def __init__(self, clock: Clock, skew_s: float) -> None:
        self._clock = clock
        self._skew = timedelta(seconds=skew_s)

    def now(self) -> datetime:
        return self._clock.now() + self._skew

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)

    def busy(self) -> BusyScope:
        return self._clock.busy()


class SimulatedClock:
    """Time that moves only when `advance` is called, from one due timer to the next."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._timers: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._order = count()
        self._in_flight = 0

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        due = self._now + timedelta(seconds=seconds)
        timer = asyncio.get_running_loop().create_future()
        heapq.heappush(self._timers, (due, next(self._order), timer))
        await timer

    @contextmanager
    def busy(self) -> Iterator[None]:
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def advance(self, seconds: float, *, guard_s: float = 30.0) -> None:
        """Move time forward by `seconds`, waking each sleeper at its own moment.

        Waits (in real time, at most `guard_s` at each stop) until no request or handler is in flight.
        """
        target = self._now + timedelta(seconds=seconds)
        await self._settle(guard_s)
        while self._timers and self._timers[0][0] <= target:
            due, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, due)
            if not timer.done():
                timer.set_result(None)
            await self._settle(guard_s)
        self._now = target

    async def _settle(self, guard_s: float) -> None:
        """Let every task run until it waits for a timer or a socket, and sockets until they are quiet."""
        deadline = time.monotonic() + guard_s
        quiet = 0
        while quiet < 5:
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._in_flight == 0 else 0
            if self._in_flight:
                await asyncio.sleep(0.001)
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"{self._in_flight} requests still in flight after {guard_s} s"
                    )
