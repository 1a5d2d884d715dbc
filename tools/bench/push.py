"""Group `push`: what one push costs the stand-in, awake or stored, and what a hundred thousand tokens weigh.

The stand-in runs in a process of its own. The provider is mdmserver's client; the devices are one WebSocket of a fleet. The
time from a push to its device's connection is told as a histogram and not judged: it is wall time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from certs.clock import SystemClock
from certs.hosts import HostMap
from certs.identity import Identity
from certs.keys import load_checked
from certs.tls import client_context
from emulator.fleet.courier import Arrival, SocketCourier
from emulator.fleet.stats import Stats
from emulator.wire.courier import Subscription
from mdmserver.push_client import PushClient
from tools.bench.figure import Bound, Figure, Measurement, MeasurementFailed
from tools.bench.primitives import reference_ms
from tools.bench.push_server import PushFacts
from tools.bench.world import Servers, process_running

TOPIC: Final = "com.apple.mgmt.External.bench"
MAGIC: Final = "7B0E5E3C-2C1D-4E57-9C0F-0B8F6B2B0E4D"
PUSHES: Final = 10_000
DEVICES: Final = 1_000
TOKENS: Final = 100_000
AT_ONCE: Final = 100
QUICK: Final = 50
WARM_UP: Final = 200
GUARD_S: Final = 60.0
LATENCY: Final = "push_to_connect"


@dataclass
class Fleet:
    """Devices behind one WebSocket; a push that comes is a device that would connect now."""

    tokens: Sequence[bytes]
    stats: Stats = field(default_factory=Stats)
    arrived: int = 0
    sent_at: dict[bytes, float] = field(default_factory=dict)
    online: bool = True
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def subscriptions(self) -> list[Subscription]:
        return [
            Subscription(
                token=token.hex(), topic=TOPIC, device=token[-8:].hex(), online=self.online
            )
            for token in self.tokens
        ]

    def on_push(self, push: Arrival) -> None:
        self.arrived += 1
        sent = self.sent_at.get(push.token)
        if sent is not None:
            self.stats.observe(LATENCY, (time.perf_counter() - sent) * 1000)
        self._news.set()

    async def until(self, count: int) -> None:
        """Until so many pushes have come."""
        try:
            async with asyncio.timeout(GUARD_S):
                while self.arrived < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise MeasurementFailed(f"{self.arrived} of {count} pushes came") from None


@dataclass(frozen=True, slots=True)
class World:
    """The stand-in, its provider, and a fleet that listens."""

    servers: Servers
    client: PushClient
    courier: SocketCourier
    fleet: Fleet


@asynccontextmanager
async def running(tokens: Sequence[bytes], *, online: bool) -> AsyncIterator[World]:
    """Everything started, every token registered."""
    async with process_running("tools.bench.push_server", TOPIC) as servers:
        facts = await servers.facts(PushFacts)
        root = x509.load_pem_x509_certificate(facts.root_pem.encode())
        pem = facts.identity_pem.encode()
        key = await asyncio.to_thread(load_checked, pem)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        client = PushClient(
            facts.push_url,
            Identity(key, x509.load_pem_x509_certificate(pem)),
            roots=[root],
        )
        fleet = Fleet(tokens, online=online)
        courier = SocketCourier(
            facts.url,
            facts.token,
            fleet.subscriptions,
            fleet.on_push,
            context=client_context([root]),
            hosts=HostMap(),
            clock=SystemClock(),
        )
        await courier.listen()
        try:
            yield World(servers, client, courier, fleet)
        finally:
            await courier.close()
            await client.close()


async def awake(quick: bool) -> list[Figure]:
    """Look-up, delivery over the WebSocket, and its acknowledgement."""
    return [await _pushes("push awake", QUICK if quick else PUSHES, online=True)]


async def stored(quick: bool) -> list[Figure]:
    """Look-up, and storing in place of the one that waited."""
    return [await _pushes("push stored", QUICK if quick else PUSHES, online=False)]


async def _pushes(name: str, count: int, *, online: bool) -> Figure:
    tokens = _tokens(min(DEVICES, count))
    async with running(tokens, online=online) as world:
        await _send(world, WARM_UP)
        before_s = await world.servers.cpu_s()
        await _send(world, count)
        spent_s = await world.servers.cpu_s() - before_s
        histogram = world.fleet.stats.histogram(LATENCY)
    signature_ms = await reference_ms()
    note = ""
    if histogram is not None:
        marks = [(f"p{mark:g}", histogram.get_value_at_percentile(mark)) for mark in (50, 90, 99)]
        words = ", ".join(f"{mark} {value / 1000:.1f}" for mark, value in marks)
        note = f"push to connect {words} ms ({AT_ONCE} pushes under way)"
    return Figure(
        name=name,
        value=spent_s / count * 1000,
        unit="ms",
        primitive="rsa2048 private",
        primitive_value=signature_ms,
        reference_ms=signature_ms,
        bound=Bound("scaled", 0.2),
        note=note,
    )


async def _send(world: World, count: int) -> None:
    """Push the devices in turn, so many at once as a busy server has under way."""
    fleet, tokens = world.fleet, world.fleet.tokens
    expected = fleet.arrived + count
    numbers = iter(range(count))

    async def one_of_many() -> None:
        for number in numbers:
            token = tokens[number % len(tokens)]
            fleet.sent_at[token] = time.perf_counter()
            answer = await world.client.send(token, TOPIC, MAGIC)
            if not answer.accepted:
                raise MeasurementFailed(f"a push was refused: {answer}")

    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_ONCE, len(tokens))):
            group.create_task(one_of_many())
    if fleet.online:
        await fleet.until(expected)


async def memory(quick: bool) -> list[Figure]:
    """The process of the stand-in, with every token registered and listening."""
    count = QUICK if quick else TOKENS
    async with process_running("tools.bench.push_server", TOPIC) as servers:
        await servers.facts(PushFacts)
        empty_mb = (await servers.use()).resident_mb
    async with running(_tokens(count), online=True) as world:
        await _send(world, QUICK)
        full_mb = (await world.servers.use()).resident_mb
    return [
        Figure(
            name="push memory",
            value=full_mb,
            unit="MB",
            primitive="the same without tokens",
            primitive_value=empty_mb,
            reference_ms=await reference_ms(),
            bound=Bound("value", 300),
            note=f"{count} tokens over one WebSocket, {(full_mb - empty_mb) * 1024 / count:.2f} KB each",
        )
    ]


def _tokens(count: int) -> list[bytes]:
    return [number.to_bytes(32) for number in range(1, count + 1)]


MEASUREMENTS: Final = (
    Measurement(name="push-awake", what="one push to a device that listens", measure=awake),
    Measurement(name="push-stored", what="one push to a device that is away", measure=stored),
    Measurement(name="push-memory", what="100,000 tokens over one WebSocket", measure=memory),
)
