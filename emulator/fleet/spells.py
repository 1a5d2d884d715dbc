"""Offline spells: devices that are out of reach for a while, each in its own rhythm, all from one seed.

One task and one heap for the whole fleet: a device that sleeps costs a heap entry. What is pushed meanwhile waits at the
stand-in, one push per device, and wakes it when it returns.
"""

import heapq
import random
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from certs.clock import Clock
from emulator.fleet.wake import Waker
from emulator.settings_file import FileModel

MIN_SPELL_S: Final = 0.1


class OfflineSpells(FileModel):
    """How often and how long; both are means of exponential distributions."""

    every_s: float = Field(gt=0, description="mean time that a device is in reach")
    for_s: float = Field(gt=0, description="mean time that it is not")


async def run_spells(
    waker: Waker, serials: Sequence[str], spells: OfflineSpells, *, seed: int, clock: Clock
) -> None:
    """Take devices offline and back until cancelled; then all are back."""
    chance = random.Random(seed)
    now_s = 0.0

    def later(mean_s: float) -> float:
        return now_s + max(MIN_SPELL_S, chance.expovariate(1 / mean_s))

    events = [(later(spells.every_s), serial, True) for serial in serials]
    heapq.heapify(events)
    try:
        while events:
            due_s, serial, goes = heapq.heappop(events)
            await clock.sleep(due_s - now_s)
            now_s = due_s
            if goes:
                waker.offline([serial])
            else:
                waker.online([serial])
            heapq.heappush(
                events, (later(spells.for_s if goes else spells.every_s), serial, not goes)
            )
    finally:
        waker.online(serials)
