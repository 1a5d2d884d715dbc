"""Work that nobody waits for, in simulated time: in flight from its first step to its last, but not while it sleeps.

Without this, simulated time could pass between two steps of a background task, as if the machine had taken hours for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from types import TracebackType

from certs.clock import BusyScope, Clock


class Working:
    """The context of one background task; time stands still in it, except where it is `paused`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: BusyScope | None = None

    def __enter__(self) -> "Working":
        self._hold()
        self._outer = _working.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _working.reset(self._outer)
        self._let_go()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Wait for time, or for other work; within another pause this is none of its own."""
        if self._held is None:
            yield
            return
        self._let_go()
        try:
            yield
        finally:
            self._hold()

    def _hold(self) -> None:
        self._held = self._clock.busy()
        self._held.__enter__()

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.__exit__(None, None, None)


_working: ContextVar[Working | None] = ContextVar("working", default=None)


class BackgroundClock:
    """A Clock whose sleepers let time pass, wherever in a background task they are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now()

    def busy(self) -> BusyScope:
        return self._clock.busy()

    async def sleep(self, seconds: float) -> None:
        working = _working.get()
        if working is None:
            await self._clock.sleep(seconds)
            return
        with working.paused():
            await self._clock.sleep(seconds)
