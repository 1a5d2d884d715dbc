"""A fleet that sleeps: enrolled devices are rows and index entries until a push wakes them.

No task and no connection belongs to an idle device. A push finds its device by token, is ignored unless it carries the
device's PushMagic, and puts it into a queue; at most `concurrency` devices are awake at a time. Pushes for a device that still
waits, or is talking to its server, become one more session.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import structlog

from emulator.device.device import Device
from emulator.device.push import wakes
from emulator.device.snapshot import push_address
from emulator.fleet.courier import Arrival, Courier
from emulator.fleet.progress import Progress
from emulator.fleet.runner import Outcome, Runner
from emulator.fleet.store import DeviceRow
from emulator.wire.courier import Subscription

log = structlog.get_logger()

PUSH_TO_CONNECT: Final = (
    "push_to_connect"  # from APNs' acceptance to the start of the device's connection
)


@dataclass(slots=True)
class Sleeper:
    """What is kept in memory of one device that may be woken."""

    serial: str
    udid: str
    token: bytes
    topic: str
    push_magic: str
    online: bool = True


@dataclass(slots=True)
class _Due:
    """A device that has been pushed and has not connected yet."""

    age_ms: float  # of the first push, when it arrived
    arrived: float


class Waker:
    """Wakes the devices of one runner; also their `PushRegistration`."""

    _runner: Runner
    _courier: Courier

    def __init__(self) -> None:
        self._by_token: dict[bytes, Sleeper] = {}
        self._by_serial: dict[str, Sleeper] = {}
        self._listening = False
        self._due: dict[str, _Due] = {}
        self._awake: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self.outcomes: dict[str, Outcome] = {}  # the last of each device woken in this wave
        self._wave_from = 0.0
        self.woken: Counter[str] = Counter()  # sessions, by serial number
        self.pushes = 0
        self.ignored = 0  # unknown token, wrong PushMagic, or offline

    def attach(self, runner: Runner, courier: Courier) -> None:
        """Before anything else: who runs the devices, and how their pushes come."""
        self._runner, self._courier = runner, courier

    # --- who can be woken

    async def register(self, device: Device) -> None:
        """As `PushRegistration`: note the token and tell the stand-in."""
        enrollment = device.enrollment
        if enrollment is None:
            return
        earlier = self._by_serial.get(device.hardware.serial_number)
        sleeper = Sleeper(
            serial=device.hardware.serial_number,
            udid=device.hardware.udid,
            token=enrollment.push_token,
            topic=enrollment.topic,
            push_magic=enrollment.push_magic,
            online=earlier is None or earlier.online,
        )
        self._remember(sleeper)
        await self._courier.register(self._subscription(sleeper))

    def settle(self, device: Device) -> None:
        """After a device's run: one whose management ended or that was erased has no token any more."""
        sleeper = self._by_serial.get(device.hardware.serial_number)
        if sleeper is not None and device.enrollment is None:
            del self._by_serial[sleeper.serial]
            del self._by_token[sleeper.token]
            self._due.pop(sleeper.serial, None)
            self._courier.forget(sleeper.token)

    def subscriptions(self) -> Iterator[Subscription]:
        """Every token as it stands, for a wake channel that opens."""
        # A copy: devices may come and go while a large fleet says hello.
        return (self._subscription(sleeper) for sleeper in list(self._by_token.values()))

    def _remember(self, sleeper: Sleeper) -> None:
        earlier = self._by_serial.get(sleeper.serial)
        if earlier is not None:
            self._by_token.pop(earlier.token, None)
        self._by_serial[sleeper.serial] = self._by_token[sleeper.token] = sleeper

    def _subscription(self, sleeper: Sleeper) -> Subscription:
        return Subscription(
            token=sleeper.token.hex(),
            topic=sleeper.topic,
            device=sleeper.udid,
            online=self._listening and sleeper.online,
        )

    # --- listening

    async def listen(self, rows: Iterable[DeviceRow]) -> int:
        """Put these devices to sleep: from now on a push wakes them. Returns how many can be woken.

        Raises PeerRefused when the stand-in cannot be reached.
        """
        topics: dict[str, str] = {}  # one text for the whole fleet
        for row in rows:
            address = push_address(row.snapshot)
            if address is None or row.serial in self._by_serial:
                continue
            topic = topics.setdefault(address.topic, address.topic)
            self._remember(
                Sleeper(row.serial, row.udid, address.push_token, topic, address.push_magic)
            )
        self._listening = self._runner.reads_anew = True
        await self._courier.listen()
        log.info("fleet_listening", devices=len(self._by_token))
        return len(self._by_token)

    def offline(self, serials: Iterable[str]) -> None:
        """These devices cannot be reached; their pushes are stored, one for each."""
        for sleeper in self._known(serials):
            if sleeper.online:
                sleeper.online = False
                self._courier.offline(sleeper.token)

    def online(self, serials: Iterable[str]) -> None:
        """They are back, and get what was stored for them."""
        for sleeper in self._known(serials):
            if not sleeper.online:
                sleeper.online = True
                if self._listening:
                    self._courier.online(sleeper.token)

    def serials(self) -> list[str]:
        """Every device that can be woken."""
        return list(self._by_serial)

    def _known(self, serials: Iterable[str]) -> list[Sleeper]:
        return [self._by_serial[serial] for serial in serials if serial in self._by_serial]

    # --- waking

    def arrived(self, push: Arrival) -> None:
        """A push has come from the wake channel."""
        self.pushes += 1
        sleeper = self._by_token.get(push.token)
        if sleeper is None or not sleeper.online or not wakes(sleeper.push_magic, push.payload):
            self.ignored += 1
            log.debug("push_ignored", serial=sleeper.serial if sleeper else None)
            return
        self._due.setdefault(sleeper.serial, _Due(push.age_ms, time.perf_counter()))
        self._pump()

    def _pump(self) -> None:
        """Start as many sessions as may run; what is due for a device that is awake waits for its end."""
        room = self._runner.concurrency - len(self._awake)
        if room <= 0:
            return
        asleep = (serial for serial in self._due if serial not in self._awake)
        for serial in list(islice(asleep, room)):
            due = self._due.pop(serial)
            self._awake[serial] = asyncio.create_task(self._wake(serial, due))

    async def _wake(self, serial: str, due: _Due) -> None:
        try:
            waited_ms = (time.perf_counter() - due.arrived) * 1000
            self._runner.stats.observe(PUSH_TO_CONNECT, due.age_ms + waited_ms)
            started = time.perf_counter()
            outcome = await self._runner.wake(serial)
            if outcome is not None and started >= self._wave_from:
                self.outcomes[serial] = outcome
            self.woken[serial] += 1
        except Exception as error:
            log.exception("wake_failed", serial=serial, error=str(error))
        finally:
            del self._awake[serial]
            self._news.set()
            self._pump()

    def begin_wave(self) -> None:
        """From now on `outcomes` holds only sessions that begin later."""
        self.outcomes.clear()
        self._wave_from = time.perf_counter()

    async def wait_for(
        self, serials: Iterable[str], timeout_s: float, progress: Progress | None = None
    ) -> dict[str, Outcome]:
        """Wait until each of these devices has been woken in this wave, but not for ever; who was, and how it went."""
        missing = set(serials)
        woken: dict[str, Outcome] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while missing:
                    self._news.clear()
                    for serial in missing & self.outcomes.keys():
                        missing.discard(serial)
                        woken[serial] = self.outcomes[serial]
                        if progress is not None:
                            progress.done(failed=woken[serial].failed)
                    if missing:
                        await self._news.wait()
        except TimeoutError:
            log.warning("devices_not_woken", count=len(missing), first=sorted(missing)[:5])
        return woken

    async def wait_until_idle(self) -> None:
        """Until no device is awake or about to be."""
        while self._awake or self._due:
            self._news.clear()
            await self._news.wait()

    async def close(self) -> None:
        """Stop listening and let no session be cut off but by its own time-outs."""
        self._due.clear()
        await asyncio.gather(*self._awake.values(), return_exceptions=True)
        await self._courier.close()
