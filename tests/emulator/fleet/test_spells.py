"""Offline spells: every device in its own rhythm, the same for the same seed, and all are back at the end."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import cast

from certs.clock import SimulatedClock
from emulator.fleet.spells import OfflineSpells, run_spells
from emulator.fleet.wake import Waker

SERIALS = [f"SIM{number:07}" for number in range(50)]
HOUR = 3600.0


class Log:
    """What `run_spells` asks of a Waker."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self._start = clock.now()
        self.away: set[str] = set()
        self.events: list[tuple[float, str, bool]] = []

    def offline(self, serials: Iterable[str]) -> None:
        self._note(serials, True)

    def online(self, serials: Iterable[str]) -> None:
        self._note(serials, False)

    def _note(self, serials: Iterable[str], away: bool) -> None:
        at = (self._clock.now() - self._start).total_seconds()
        for serial in serials:
            self.events.append((round(at, 3), serial, away))
            (self.away.add if away else self.away.discard)(serial)


async def spells(seed: int, hours: float = 2.0) -> tuple[Log, list[tuple[float, str, bool]]]:
    """Two hours of a fleet whose devices are there for ten minutes and gone for five, on average."""
    clock = SimulatedClock()
    log = Log(clock)
    wanted = OfflineSpells(every_s=600, for_s=300)
    task = asyncio.create_task(
        run_spells(cast(Waker, log), SERIALS, wanted, seed=seed, clock=clock)
    )
    await asyncio.sleep(0)
    await clock.advance(hours * HOUR)
    happened = list(log.events)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return log, happened


async def test_devices_go_and_return_by_turns_each_in_its_own_rhythm() -> None:
    _, happened = await spells(7)
    for serial in SERIALS:
        own = [away for _, who, away in happened if who == serial]
        assert own == [number % 2 == 0 for number in range(len(own))]
    assert {serial for _, serial, _ in happened} == set(SERIALS)
    # 50 devices, two hours, fifteen minutes a round: some 400 leave, and no two at once.
    leaves = [at for at, _, away in happened if away]
    assert 300 < len(leaves) < 500
    assert len(set(leaves)) > len(leaves) - 10


async def test_the_same_seed_gives_the_same_spells() -> None:
    assert (await spells(7))[1] == (await spells(7))[1] != (await spells(8))[1]


async def test_at_the_end_everybody_is_back() -> None:
    log, _ = await spells(7)
    assert log.away == set()
