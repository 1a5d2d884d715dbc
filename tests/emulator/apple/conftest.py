"""Running stand-ins, a client of both their ports, and a provisioned device."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from certs.clock import SimulatedClock
from emulator.apple.app import AppleServices
from emulator.apple.assignment_settings import AssignmentSettings
from tests.emulator.apple.assignment_support import Ade, Started, portal, signed_up
from tests.emulator.apple.support import Client, Device, ec_key, pki
from tests.support import rsa_key

Start = Callable[..., Any]


@pytest.fixture(autouse=True)
def keys() -> None:
    """RSA keys are made before the event loop runs."""
    pki()
    for number in (1, 2, 3):
        rsa_key(number)
        ec_key(number)


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


@pytest.fixture
async def client(clock: SimulatedClock, http: aiohttp.ClientSession) -> AsyncIterator[Client]:
    async with AppleServices(pki=pki(), clock=clock) as services:
        yield Client(services, http)


@pytest.fixture
async def device(client: Client, clock: SimulatedClock) -> Device:
    """Registered, owned by nobody."""
    made = Device(1, clock)
    assert (await client.provision(made)).status == 200
    return made


@pytest.fixture
async def other(client: Client, clock: SimulatedClock) -> Device:
    """A second registered device."""
    made = Device(2, clock, imei="353918051234579")
    assert (await client.provision(made)).status == 200
    return made


@pytest.fixture
async def ade(client: Client, clock: SimulatedClock) -> Ade:
    """An MDM server with three devices and a token."""
    client.services.apply(portal("SIM1", "SIM2", "SIM3"))
    return await signed_up(client, clock)


@pytest.fixture
def started(clock: SimulatedClock, http: aiohttp.ClientSession) -> Started:
    """Stand-ins with settings of the test's own, and a server that has a token there."""

    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[Ade]:
        assignment = AssignmentSettings(**settings)
        async with AppleServices(
            pki=pki(), clock=clock, portal=portal("SIM1"), assignment=assignment
        ) as services:
            yield await signed_up(Client(services, http), clock)

    return start
