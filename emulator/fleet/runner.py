"""Runs many devices at once: each from its store row, through its step, back into its row.

An idle device is a row; only the devices being run exist as objects, at most `concurrency` of them. Each turns its own
EmulatorError into an outcome, so that a failure is a number in the report and the run goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import Final
from weakref import WeakValueDictionary

import structlog

from certs.names import common_name
from certs.transport import Timing
from emulator.device.device import Device
from emulator.device.session import check_in
from emulator.device.setup_assistant import EnrollmentWay, set_up
from emulator.device.snapshot import freeze, thaw
from emulator.device.state import State
from emulator.device.surroundings import Surroundings
from emulator.errors import EmulatorError, PeerRefused
from emulator.fleet.progress import Progress, Silent
from emulator.fleet.stats import Stats
from emulator.fleet.store import DeviceRow, FleetStore

log = structlog.get_logger()

DEFAULT_CONCURRENCY: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one device stands after its run, in its own words."""

    serial: str
    udid: str
    model: str
    os_version: str
    identity: str | None  # "acme" or "scep" while enrolled
    state: str  # home, not_assigned, locked_out, refused, failed, or the step it stands at
    supervised: bool | None  # None while unmanaged
    locked: bool | None
    name: str | None
    issuer: str | None = None  # common name of the identity's issuer, while enrolled
    error: str | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None


class Runner:
    """Runs devices of one store in one set of surroundings."""

    def __init__(
        self,
        store: FleetStore,
        surroundings: Surroundings,
        *,
        stats: Stats | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        on_settled: Callable[[Device], None] = lambda device: None,
    ) -> None:
        """`on_settled` hears of each device whose run is over."""
        self.store = store
        self.stats = stats or Stats()
        self.concurrency = concurrency
        self.reads_anew = False  # a row that was given may be old: others wake devices, too
        self._surroundings = surroundings
        self._on_settled = on_settled
        # One run of a device at a time, whoever asks for it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def enroll(
        self, rows: Sequence[DeviceRow], way: EnrollmentWay, progress: Progress | None = None
    ) -> list[Outcome]:
        """Take every device from where it stands to its home screen."""

        async def run(device: Device, surroundings: Surroundings) -> None:
            await set_up(device, surroundings, way)

        return await self._run_all(rows, run, progress)

    async def check_in(
        self, rows: Sequence[DeviceRow], progress: Progress | None = None
    ) -> list[Outcome]:
        """Let every enrolled device ask its server for commands once; others are left as they are."""

        async def run(device: Device, surroundings: Surroundings) -> None:
            if device.enrollment is not None:
                await check_in(device, surroundings)

        return await self._run_all(rows, run, progress)

    async def wake(self, serial: str) -> Outcome | None:
        """Let one device check in, as its row stands now; None when there is no such device."""
        row = await self.store.find(serial)
        return None if row is None else (await self.check_in([row]))[0]

    async def keep_checking_in(
        self, rows: Sequence[DeviceRow], every_s: float, rounds: int | None = None
    ) -> list[Outcome]:
        """Let each device check in every `every_s` seconds, the fleet spread evenly over that time.

        Returns the last outcome of each device after `rounds` turns; without `rounds` it goes on until cancelled.
        """

        async def one(number: int, row: DeviceRow) -> list[Outcome]:
            clock = self._surroundings.clock
            await clock.sleep(every_s * number / len(rows))
            for turn in count(1):
                fresh = await self.store.find(row.serial)
                outcomes = await self.check_in([fresh] if fresh else [])
                if turn == rounds:
                    return outcomes
                await clock.sleep(every_s)
            return []

        turns = await asyncio.gather(*(one(number, row) for number, row in enumerate(rows)))
        return [outcome for outcomes in turns for outcome in outcomes]

    async def act(
        self, row: DeviceRow, action: Callable[[Device, Surroundings], Awaitable[None]]
    ) -> Outcome:
        """Let one device do something and store it; an EmulatorError goes to the caller."""
        async with self._turn(row):
            device, surroundings = self._wake(await self._current(row))
            await action(device, surroundings)
            await self._save(row, device)
            self._on_settled(device)
            return self._describe(device)

    async def _run_all(
        self,
        rows: Sequence[DeviceRow],
        action: Callable[[Device, Surroundings], Awaitable[None]],
        progress: Progress | None,
    ) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        waiting = iter(rows)
        shown = progress or Silent()

        async def worker(queue: Iterable[DeviceRow]) -> None:
            for row in queue:
                outcome = await self._run_one(row, action)
                outcomes[row.position] = outcome
                shown.done(failed=outcome.failed)

        # The workers share one iterator: each takes the next device when it is done with its last.
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.concurrency, len(rows))):
                group.create_task(worker(waiting))
        return [outcomes[row.position] for row in rows]

    async def _run_one(
        self, row: DeviceRow, action: Callable[[Device, Surroundings], Awaitable[None]]
    ) -> Outcome:
        async with self._turn(row):
            device, surroundings = self._wake(await self._current(row))
            with structlog.contextvars.bound_contextvars(
                device=row.serial, udid=device.hardware.udid
            ):
                try:
                    await action(device, surroundings)
                    outcome = self._describe(device)
                except EmulatorError as error:
                    outcome = replace(
                        self._describe(device), state=_kind(device, error), error=str(error)
                    )
                    log.warning("device failed", state=device.state.name, error=str(error))
                await self._save(row, device, outcome)
                self._on_settled(device)
            return outcome

    def _describe(self, device: Device) -> Outcome:
        return describe(device, self._surroundings.clock.now())

    def _turn(self, row: DeviceRow) -> asyncio.Lock:
        return self._turns.setdefault(row.serial, asyncio.Lock())

    async def _current(self, row: DeviceRow) -> DeviceRow:
        """The device as it is now."""
        return (await self.store.find(row.serial) or row) if self.reads_anew else row

    def _wake(self, row: DeviceRow) -> tuple[Device, Surroundings]:
        device = thaw(row.snapshot)

        async def checkpoint(changed: Device) -> None:
            await self._save(row, changed)

        def on_timing(_: Device, timing: Timing) -> None:
            self.stats.record(timing)

        around = replace(self._surroundings, checkpoint=checkpoint, on_timing=on_timing)
        return device, around.of(device)

    async def _save(self, row: DeviceRow, device: Device, outcome: Outcome | None = None) -> None:
        await self.store.save(
            replace(
                row,
                state=device.state.name,
                snapshot=freeze(device),
                outcome=outcome.state if outcome else None,
                error=outcome.error if outcome else None,
            )
        )


def describe(device: Device, now: datetime) -> Outcome:
    """What a device would say of itself."""
    enrollment = device.enrollment
    return Outcome(
        serial=device.hardware.serial_number,
        udid=device.hardware.udid,
        model=device.hardware.model.product_type,
        os_version=device.hardware.os_version,
        identity=None if enrollment is None else enrollment.identity_kind,
        state=_STATES.get(device.state, device.state.name.lower()),
        supervised=None if enrollment is None else device.supervised,
        locked=None if enrollment is None else device.locked and not device.is_provisional(now),
        name=None if enrollment is None else device.name,
        issuer=None if device.identity is None else common_name(device.identity.certificate.issuer),
    )


def _kind(device: Device, error: EmulatorError) -> str:
    """What the report calls a run that ended in an error; a locked device stays where it is until somebody opens it."""
    if device.state is State.LOCKED_OUT:
        return State.LOCKED_OUT.value
    return "refused" if isinstance(error, PeerRefused) else "failed"


_STATES: Final = {State.ENROLLED: "home", State.HOME_UNMANAGED: "not_assigned"}
