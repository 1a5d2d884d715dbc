"""Running stand-ins, a client of both their ports, and a provisioned device."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from certs.clock import SimulatedClock
from emulator.apple.app import AppleServices
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
