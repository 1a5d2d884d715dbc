"""The workloads: what devices do, how often, and which floor they are held against."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

from emulator.device.device import Device
from emulator.device.session import Session
from emulator.device.setup_assistant import AutomatedEnrollment
from emulator.device.surroundings import Surroundings
from emulator.errors import EmulatorError
from emulator.fleet.runner import Outcome
from emulator.fleet.store import DeviceRow
from tools.bench import floor, primitives
from tools.bench.counter import OperationCounter
from tools.bench.floor import Step
from tools.bench.operation import Operation, Operations
from tools.bench.primitives import Samples
from tools.bench.servers import Kind
from tools.bench.world import Fleet, KeyMode, Persona, ServersFailed, Signer, World

SCEP_DEVICE: Final[Persona] = ("iPad7,5", "17.7.2")  # A10: too old a chip for attestation
ACME_DEVICE: Final[Persona] = ("iPhone14,5", "18.1")
WARM_UP: Final = (
    2  # devices that go first: imports, caches and TLS contexts are nobody's first time
)
CYCLING: Final = 10  # devices that share the cycles of a workload
KEYS_PER_DEVICE: Final = 3  # factory, identity, signer


Way = Literal["enroll", "keep-alive", "new connection"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One row of the report."""

    name: str
    what: str
    server: Kind
    persona: Persona
    steps: tuple[Step, ...]
    keys: KeyMode = "pool"
    signer: Signer = "same-key"
    way: Way = "enroll"

    @property
    def identity(self) -> str:
        """By which protocol the device gets its identity."""
        return "scep" if self.persona == SCEP_DEVICE else "acme"

    @property
    def takes_fewer(self) -> bool:
        """Fresh RSA keys take 40 ms each."""
        return self.keys == "fresh"


WORKLOADS: Final = (
    Workload(
        name="scep",
        what="enrollment, SCEP RSA-2048, signer same-key",
        server="p384",
        persona=SCEP_DEVICE,
        steps=floor.enrollment("rsa2048"),
    ),
    Workload(
        name="scep-apple",
        what="enrollment, SCEP RSA-2048, signer apple",
        server="p384",
        persona=SCEP_DEVICE,
        signer="apple",
        steps=floor.enrollment("rsa2048", throw_away=True),
    ),
    Workload(
        name="scep-fresh",
        what="enrollment, SCEP RSA-2048, signer same-key",
        server="p384",
        persona=SCEP_DEVICE,
        keys="fresh",
        steps=floor.enrollment("rsa2048", fresh=True),
    ),
    Workload(
        name="acme-p256",
        what="enrollment, ACME P-256, attested",
        server="p256",
        persona=ACME_DEVICE,
        steps=floor.enrollment("p256"),
    ),
    Workload(
        name="acme-p384",
        what="enrollment, ACME P-384, attested",
        server="p384",
        persona=ACME_DEVICE,
        steps=floor.enrollment("p384"),
    ),
    Workload(
        name="cycle-rsa",
        what="cycle, connection kept, Mdm-Signature RSA-2048",
        server="p384",
        persona=SCEP_DEVICE,
        way="keep-alive",
        steps=floor.cycle("rsa2048"),
    ),
    Workload(
        name="cycle-p256",
        what="cycle, connection kept, Mdm-Signature P-256",
        server="p256",
        persona=ACME_DEVICE,
        way="keep-alive",
        steps=floor.cycle("p256"),
    ),
    Workload(
        name="connect-rsa",
        what="cycle, new connection, own identity RSA-2048",
        server="unsigned",
        persona=SCEP_DEVICE,
        way="new connection",
        steps=floor.connected_cycle("rsa2048"),
    ),
    Workload(
        name="connect-p256",
        what="cycle, new connection, own identity P-256",
        server="unsigned",
        persona=ACME_DEVICE,
        way="new connection",
        steps=floor.connected_cycle("p256"),
    ),
)


@dataclass(kw_only=True)
class Result:
    """What was measured; void as soon as anything failed."""

    workload: Workload
    passes: int = 0
    client_s: float = 0.0
    server_s: float = 0.0
    floor_s: float = 0.0  # of all passes
    requests: int = 0
    prices: dict[Operation, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Meter:
    """Adds up the CPU of this process between `begin` and `end`, and what was counted meanwhile."""

    fleet: Fleet
    counter: OperationCounter
    client_s: float = 0.0
    requests: Counter[str] = field(default_factory=Counter)
    operations: Operations = field(default_factory=Counter)
    generating_s: float = 0.0
    failures: list[str] = field(default_factory=list)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """What happens inside counts."""
        gc.collect()
        self.counter.reset()
        self.fleet.steps.clear()
        started = time.process_time()
        try:
            yield
        finally:
            self.client_s += time.process_time() - started
            self.requests.update(self.fleet.steps)
            self.operations.update(self.counter.done)
            self.generating_s += self.counter.generating_s

    def judge(self, outcomes: Sequence[Outcome], kind: str) -> None:
        """Whoever is not home with the identity that was meant has failed."""
        for outcome in outcomes:
            if outcome.error is not None:
                self.failures.append(f"{outcome.serial}: {outcome.error}")
            elif (outcome.state, outcome.identity) != ("home", kind):
                found = f"{outcome.state} with {outcome.identity}"
                self.failures.append(f"{outcome.serial}: {found}, not home with {kind}")


async def run(
    workload: Workload, world: World, *, count: int, batches: int, time_limit_s: float
) -> Result:
    """Measure one workload: prices, warm-up, the run, prices again. What goes wrong is a failure of the result."""
    result = Result(workload=workload)
    listed = floor.total(workload.steps)
    samples: Samples = {}
    await asyncio.to_thread(primitives.measure, listed, batches, samples)
    try:
        async with asyncio.timeout(time_limit_s):
            await _run(workload, world, count, listed, result)
    except TimeoutError:
        result.failures.append(f"not finished within {time_limit_s:g} s")
    except (EmulatorError, ServersFailed) as error:
        result.failures.append(str(error))
    await asyncio.to_thread(primitives.measure, listed, batches, samples)
    result.prices = primitives.prices(samples)
    result.floor_s += result.passes * sum(
        times * result.prices.get(operation, 0.0) for operation, times in listed.items()
    )
    return result


async def _run(
    workload: Workload, world: World, count: int, listed: Operations, result: Result
) -> None:
    enrolls = workload.way == "enroll"
    async with world.fleet(
        devices=count + WARM_UP
        if enrolls
        else min(CYCLING, len(world.rsa_keys) // KEYS_PER_DEVICE),
        persona=workload.persona,
        keys=workload.keys,
        signer=workload.signer,
    ) as fleet:
        meter = Meter(fleet=fleet, counter=OperationCounter(), failures=result.failures)
        rows = await fleet.store.rows()
        first, rest = (rows[:WARM_UP], rows[WARM_UP:]) if enrolls else (rows, rows)
        with meter.counter.counting():
            outcomes = await fleet.runner.enroll(first, AutomatedEnrollment())
            meter.judge(outcomes, workload.identity)
            if result.failures:
                return
            used_before_s = await world.servers.cpu_s()
            match workload.way:
                case "enroll":
                    await _enroll(fleet, rest, meter, workload.identity)
                case "keep-alive":
                    await _keep_alive(fleet, meter, count // len(rest))
                case "new connection":
                    await _connect_anew(fleet, meter, workload.identity, count // len(rest))
            result.server_s = await world.servers.cpu_s() - used_before_s
    result.passes = count if enrolls else count // len(rest) * len(rest)
    result.client_s = meter.client_s
    result.floor_s = meter.generating_s
    result.requests = meter.requests.total()
    result.failures += floor.differences(meter.operations, listed, result.passes)
    if not enrolls and meter.requests != Counter({"idle": result.passes, "command": result.passes}):
        result.failures.append(f"not one Idle and one result a cycle: {dict(meter.requests)}")


async def _enroll(fleet: Fleet, rows: Sequence[DeviceRow], meter: Meter, kind: str) -> None:
    with meter.measuring():
        outcomes = await fleet.runner.enroll(rows, AutomatedEnrollment())
    meter.judge(outcomes, kind)


async def _connect_anew(fleet: Fleet, meter: Meter, kind: str, rounds: int) -> None:
    """Each device wakes from its row, connects, runs one session, and goes back to its row."""
    for _ in range(rounds):
        rows = await fleet.store.rows()
        with meter.measuring():
            outcomes = await fleet.runner.check_in(rows)
        meter.judge(outcomes, kind)


async def _keep_alive(fleet: Fleet, meter: Meter, rounds: int) -> None:
    """Each device connects once and runs many sessions; connecting is not measured."""
    rows = await fleet.store.rows()
    together = asyncio.Barrier(len(rows) + 1)
    measured = (
        asyncio.Event()
    )  # nobody signs anything between the last arrival and the clock's start

    async def stay(device: Device, surroundings: Surroundings) -> None:
        async with Session(device, surroundings) as session:
            await session.run()
            await together.wait()
            await measured.wait()
            for _ in range(rounds):
                await session.run()
            await together.wait()

    try:
        async with asyncio.TaskGroup() as group:
            for row in rows:
                group.create_task(fleet.runner.act(row, stay))
            await together.wait()
            with meter.measuring():
                measured.set()
                await together.wait()
    except* EmulatorError as failed:
        meter.failures += [str(error) for error in failed.exceptions]
