"""The measured side: virtual devices with a store, as a fleet runs them, and the servers' process that they talk to."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec
from cryptography import x509

from certs.clock import SystemClock
from certs.faults import FaultPoint, no_faults
from certs.keys import FreshKeys, KeySource, KeySpec, PrivateKey, generate, load_own, to_der
from certs.transport import Timing
from emulator.device.device import Device
from emulator.device.snapshot import freeze
from emulator.device.surroundings import AppleEndpoints, Behaviour, Surroundings
from emulator.fleet.admin_client import AdminClient
from emulator.fleet.fleet import FleetFile, Group, plan
from emulator.fleet.provision import FactoryKeys, assign, register
from emulator.fleet.runner import Runner
from emulator.fleet.store import DeviceRow, FleetStore
from emulator.http import HttpDoor, TrustSet
from tools.bench.servers import ORGANIZATION, SERVER, Kind, ServerFacts, ServerUse

KeyMode = Literal["pool", "fresh"]
Signer = Literal["apple", "same-key"]
Persona = tuple[str, str]  # product type, OS version
Answer = TypeVar("Answer", bound=msgspec.Struct)

START_TIMEOUT_S: Final = 60.0
ANSWER_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 15.0
CONCURRENCY: Final = 10
AWAITING_POLL_S: Final = 0.2


class ServersFailed(Exception):
    """The servers' process did not start or went away."""


class Servers:
    """The other process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def facts(self, kind: type[Answer]) -> Answer:
        """What it prints when all servers listen."""
        return await self._read(kind, START_TIMEOUT_S)

    async def tell(self, content: object) -> None:
        """Write one JSON line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(content) + b"\n")
        await self._process.stdin.drain()

    async def use(self) -> ServerUse:
        """What it used since its start."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"use\n")
        return await self._read(ServerUse, ANSWER_TIMEOUT_S)

    async def cpu_s(self) -> float:
        """CPU seconds it used since its start."""
        return (await self.use()).cpu_s

    async def _read(self, kind: type[Answer], timeout_s: float) -> Answer:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
            return msgspec.json.decode(line, type=kind)
        except (TimeoutError, msgspec.DecodeError) as error:
            raise ServersFailed(f"no {kind.__name__} from the servers' process") from error

    async def stop(self) -> None:
        """End of stdin; whoever does not heed it is killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def process_running(module: str, *arguments: str) -> AsyncIterator[Servers]:
    """Start `python -m module` as the other process, stop it at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    servers = Servers(process)
    try:
        yield servers
    finally:
        await servers.stop()


def servers_running(kind: Kind) -> AbstractAsyncContextManager[Servers]:
    """The Apple stand-ins and mdmserver in the other process."""
    return process_running("tools.bench.servers", kind)


def make_keys(count: int) -> list[bytes]:
    """RSA-2048 keys as DER, made before any clock starts; a workload loads each as a key object of its own."""
    with ThreadPoolExecutor(2) as threads:
        return [to_der(key) for key in threads.map(generate, ["rsa2048"] * count)]


class LoadedKeys:
    """RSA keys made ahead, each given once: what `KeyPool` is in a fleet. Raises LookupError when there are no more."""

    def __init__(self, ders: Sequence[bytes]) -> None:
        self._keys = [load_own(der) for der in ders]

    async def take(self, spec: KeySpec) -> PrivateKey:
        if spec == "rsa2048":
            return self._keys.pop()
        return generate(spec)


@dataclass(kw_only=True)
class Fleet:
    """The devices of one workload in their store, and the runner that runs them."""

    store: FleetStore
    surroundings: Surroundings
    runner: Runner
    steps: Counter[str] = field(default_factory=Counter)  # requests sent, by step

    def reset(self) -> None:
        self.steps.clear()


@dataclass(kw_only=True)
class World:
    """What all workloads share."""

    servers: Servers
    facts: ServerFacts
    folder: Path
    rsa_keys: Sequence[bytes]
    faults: FaultPoint = no_faults
    clock: SystemClock = field(default_factory=SystemClock)
    _made: int = 0

    @asynccontextmanager
    async def fleet(
        self, *, devices: int, persona: Persona, keys: KeyMode, signer: Signer
    ) -> AsyncIterator[Fleet]:
        """Devices of one kind, made and assigned, factory keys included, none switched on yet."""
        self._made += 1
        name = f"bench-{self._made}"
        file = FleetFile(
            name=name,
            seed=self._made,
            groups=(
                Group(
                    count=devices,
                    model=(persona[0],),
                    os_version=(persona[1],),
                    organization=ORGANIZATION,
                    server=SERVER,
                ),
            ),
        )
        half = (
            len(self.rsa_keys) - devices
        )  # the last ones are factory keys, the others are for the road
        trust = TrustSet().with_roots(x509.load_pem_x509_certificate(self.facts.root_pem.encode()))
        source: KeySource = FreshKeys() if keys == "fresh" else LoadedKeys(self.rsa_keys[:half])
        surroundings = Surroundings(
            door=HttpDoor(clock=self.clock, faults=self.faults),
            clock=self.clock,
            keys=source,
            apple=AppleEndpoints(
                activation_url=self.facts.url,
                cloud_configuration_url=self.facts.url,
                attestation_url=self.facts.url,
            ),
            trust=trust,
            behaviour=Behaviour(scep_signer=signer, awaiting_poll_s=AWAITING_POLL_S),
            faults=self.faults,
        )
        async with FleetStore(self.folder / f"{name}.sqlite") as store:
            await self._manufacture(file, store, trust, LoadedKeys(self.rsa_keys[half:]))
            runner = Runner(store, surroundings, concurrency=CONCURRENCY)
            fleet = Fleet(store=store, surroundings=surroundings, runner=runner)

            def on_timing(timing: Timing) -> None:
                fleet.steps[timing.step] += 1

            surroundings.door.on_timing = on_timing
            yield fleet

    async def _manufacture(
        self, file: FleetFile, store: FleetStore, trust: TrustSet, source: KeySource
    ) -> None:
        plans = plan(file)
        own = [await FactoryKeys.make(source) for _ in plans]
        async with HttpDoor(clock=self.clock).session(trust=trust) as transport:
            admin = AdminClient(
                transport=transport,
                url=self.facts.admin_url,
                token=self.facts.token,
                step="registry",
            )
            pairs = [(device.hardware, keys) for device, keys in zip(plans, own, strict=True)]
            identities = await register(admin, pairs)
            await assign(admin, plans)
        rows = []
        for device, identity in zip(plans, identities, strict=True):
            made = Device.manufacture(device.hardware, identity)
            rows.append(
                DeviceRow(
                    serial=device.hardware.serial_number,
                    position=device.position,
                    udid=device.hardware.udid,
                    state=made.state.name,
                    snapshot=freeze(made),
                )
            )
        await store.save_all(rows)
