"""The server that group `certs` measures, in a process of its own, and the connections to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.attestation import AttestationAuthority
from certs.clock import SystemClock
from certs.keys import KeySpec
from certs.transport import HttpResponse, Transport
from emulator.http import HttpDoor, TrustSet
from tools.bench.certs_server import CertsFacts
from tools.bench.world import Servers, process_running

QUICK: Final = 3
AT_ONCE: Final = 8
WARM_UP: Final = 8
ROUNDS: Final = 8  # of which the one that nothing disturbed counts
CA_KEY: Final[KeySpec] = "p256"


@dataclass(frozen=True, slots=True)
class World:
    """The server, the devices' HTTP to it, and its answers to the two questions."""

    servers: Servers
    facts: CertsFacts
    transports: Sequence[Transport]  # a connection each
    authority: AttestationAuthority
    clock: SystemClock

    async def questions(self) -> dict[str, HttpResponse]:
        """GetCACert and GetCACaps, asked once."""
        url = f"{self.facts.scep_url}?operation="
        return {
            step: await self.transports[0].request("GET", url + operation, step=step)
            for step, operation in (("get_ca_cert", "GetCACert"), ("get_ca_caps", "GetCACaps"))
        }


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    """The server's process, and the connections to it."""
    clock = SystemClock()
    authority = AttestationAuthority.create(clock)
    async with process_running("tools.bench.certs_server", CA_KEY) as servers:
        await servers.tell(authority.root.public_bytes(Encoding.PEM).decode())
        facts = await servers.facts(CertsFacts)
        trust = TrustSet().with_roots(x509.load_pem_x509_certificate(facts.root_pem.encode()))
        door = HttpDoor(clock=clock)
        async with AsyncExitStack() as stack:
            sessions = [
                await stack.enter_async_context(door.session(trust=trust)) for _ in range(AT_ONCE)
            ]
            yield World(servers, facts, sessions, authority, clock)


async def together(
    world: World, numbers: Iterable[int], work: Callable[[Transport, int], Awaitable[None]]
) -> None:
    """Each number once, over as many connections as a busy server has at the same time."""
    waiting = iter(numbers)

    async def one_of_many(transport: Transport) -> None:
        for number in waiting:
            await work(transport, number)

    async with asyncio.TaskGroup() as group:
        for transport in world.transports:
            group.create_task(one_of_many(transport))


def rounds_of(quick: bool) -> int:
    return 1 if quick else ROUNDS
