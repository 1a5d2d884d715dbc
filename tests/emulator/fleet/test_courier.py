"""The fleet's end of the wake channel: it registers, wakes, comes back after a loss, and says who could not be reached."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from certs.clock import Clock, SimulatedClock
from certs.hosts import HostMap
from certs.tls import client_context
from emulator.apple.app import AppleServices
from emulator.apple.push_tokens import Notification
from emulator.errors import PeerRefused
from emulator.fleet import courier as fleet_courier
from emulator.fleet.courier import (
    FIRST_BACK_OFF_S,
    LONGEST_BACK_OFF_S,
    Arrival,
    Courier,
    LocalCourier,
    SocketCourier,
)
from emulator.wire.courier import Subscription
from tests.emulator.apple.push_support import GUARD_S, PAYLOAD, TOKEN, TOPIC, push_services
from tests.emulator.apple.support import pki

OTHER = b"\x02" * 32


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


class RecordingClock:
    """Real time, but nobody waits: what would have been slept is written down."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self.slept: list[float] = []
        self.now = clock.now
        self.busy = clock.busy

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


class Fleet:
    """Subscriptions of two devices, and what came for them."""

    def __init__(self) -> None:
        self.devices = {token: self.subscription(token) for token in (TOKEN, OTHER)}
        self.got: list[Arrival] = []
        self._news = asyncio.Event()

    @staticmethod
    def subscription(token: bytes, online: bool = True) -> Subscription:
        return Subscription(token=token.hex(), topic=TOPIC, device=f"UDID{token[0]}", online=online)

    def subscriptions(self) -> list[Subscription]:
        return list(self.devices.values())

    def arrived(self, push: Arrival) -> None:
        self.got.append(push)
        self._news.set()

    async def until(self, count: int) -> list[Arrival]:
        async with asyncio.timeout(GUARD_S):
            while len(self.got) < count:
                self._news.clear()
                await self._news.wait()
        return self.got


def push(services: AppleServices, token: bytes = TOKEN, clock: Clock | None = None) -> None:
    """As the provider door does with a push that passed its checks."""
    now = (clock or SimulatedClock()).now()
    services.push.tokens.accept(
        Notification(
            token=token,
            payload=PAYLOAD,
            apns_id="id",
            accepted_at=now,
            expires_at=now.replace(year=now.year + 1),
        )
    )


def socket_courier(services: AppleServices, fleet: Fleet, clock: Any, **more: Any) -> SocketCourier:
    facts: dict[str, Any] = {
        "url": services.url,
        "token": services.token,
        "context": client_context([services.pki.tls_ca.certificate]),
        "hosts": HostMap(),
    } | more
    return SocketCourier(
        facts.pop("url"),
        facts.pop("token"),
        fleet.subscriptions,
        fleet.arrived,
        clock=clock,
        **facts,
    )


Made = tuple[AppleServices, Fleet, Courier]


@asynccontextmanager
async def made(kind: str) -> AsyncIterator[Made]:
    clock, fleet = SimulatedClock(), Fleet()
    async with push_services(clock) as services:
        courier: Courier = (
            LocalCourier(services.push, fleet.subscriptions, fleet.arrived, clock)
            if kind == "local"
            else socket_courier(services, fleet, clock)
        )
        yield services, fleet, courier
        await courier.close()


async def known(services: AppleServices, condition: Callable[[], bool]) -> None:
    """Until the stand-in has heard it."""
    async with asyncio.timeout(GUARD_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


both = pytest.mark.parametrize("kind", ["local", "socket"])


@both
async def test_a_push_arrives_for_the_token_that_it_names(kind: str) -> None:
    async with made(kind) as (services, fleet, courier):
        await courier.listen()
        push(services, OTHER)
        push(services, TOKEN)
        got = await fleet.until(2)
        assert {one.token for one in got} == {TOKEN, OTHER}
        assert {(one.payload, one.stored) for one in got} == {(PAYLOAD, False)}


@both
async def test_a_device_that_returns_gets_the_one_push_that_waited(kind: str) -> None:
    async with made(kind) as (services, fleet, courier):
        await courier.listen()
        courier.offline(TOKEN)
        record = services.push.tokens.get(TOKEN)
        assert record is not None
        await known(services, lambda: record.channel is None)
        for _ in range(3):
            push(services)
        courier.online(TOKEN)
        (arrival,) = await fleet.until(1)
        assert arrival.stored
        push(services, OTHER)
        await fleet.until(2)
        assert [one.token for one in fleet.got] == [TOKEN, OTHER]


async def test_a_device_that_leaves_in_the_turn_of_its_push_gets_it_when_it_returns() -> None:
    async with made("local") as (services, fleet, courier):
        await courier.listen()
        push(services)
        courier.offline(TOKEN)
        await asyncio.sleep(0)
        assert fleet.got == []
        courier.online(TOKEN)
        (arrival,) = await fleet.until(1)
        assert arrival.stored


@both
async def test_a_token_that_is_forgotten_has_ended(kind: str) -> None:
    async with made(kind) as (services, _, courier):
        await courier.listen()
        courier.forget(TOKEN)
        await known(services, lambda: services.push.tokens.gone(TOKEN) is not None)


@both
async def test_a_registration_is_over_when_the_stand_in_knows_the_token(kind: str) -> None:
    async with made(kind) as (services, fleet, courier):
        await courier.listen()
        new = b"\x03" * 32
        await courier.register(fleet.subscription(new))
        assert new in services.push.tokens
        push(services, new)
        assert (await fleet.until(1))[0].token == new


async def test_registrations_of_one_moment_share_their_hellos() -> None:
    async with made("socket") as (services, fleet, courier):
        await courier.listen()
        new = [bytes([number]) * 32 for number in range(10, 60)]
        await asyncio.gather(*(courier.register(fleet.subscription(token)) for token in new))
        assert all(token in services.push.tokens for token in new)
        (socket,) = services.push._courier.open
        assert socket.hellos <= 3


async def test_a_lost_connection_is_made_anew_and_nothing_is_lost() -> None:
    clock, fleet = RecordingClock(SimulatedClock()), Fleet()
    async with push_services() as services:
        courier = socket_courier(services, fleet, clock)
        await courier.listen()
        for again in range(3):
            (socket,) = services.push._courier.open
            await socket.close()
            push(services)  # while nobody listens, or just after
            await fleet.until(again + 1)
        assert courier.connections == 4
        await courier.close()
    # A connection that stood makes the next back-off a first one again.
    assert len(clock.slept) == 3
    assert all(FIRST_BACK_OFF_S / 2 <= seconds <= FIRST_BACK_OFF_S for seconds in clock.slept)


async def test_the_back_off_doubles_is_spread_and_has_an_end() -> None:
    def slept(seed: int) -> list[float]:
        courier = SocketCourier(
            "https://localhost:1",
            "token",
            list,
            lambda push: None,
            context=client_context([pki().tls_ca.certificate]),
            hosts=HostMap(),
            clock=SimulatedClock(),
            seed=seed,
        )
        return [courier._back_off_s(failures) for failures in range(1, 12)]

    one, other = slept(1), slept(2)
    assert one == slept(1) != other  # by the seed of the fleet
    for number, seconds in enumerate(one):
        longest = min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0**number)
        assert longest / 2 <= seconds <= longest
    assert one[-1] <= LONGEST_BACK_OFF_S


async def test_who_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_courier, "REGISTRATION_TIMEOUT_S", 0.2)
    clock, fleet = RecordingClock(SimulatedClock()), Fleet()
    async with push_services() as services:
        url = services.url
    courier = socket_courier(services, fleet, clock, url=url)
    with pytest.raises(PeerRefused, match=f"{url}/courier: .*[Cc]onnect"):
        await courier.listen()
    await courier.close()


async def test_a_wrong_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_courier, "REGISTRATION_TIMEOUT_S", 0.5)
    clock, fleet = RecordingClock(SimulatedClock()), Fleet()
    async with push_services() as services:
        courier = socket_courier(services, fleet, clock, token="wrong")
        with pytest.raises(PeerRefused, match="401"):
            await courier.listen()
        await courier.close()


async def test_a_token_that_ended_while_nobody_could_be_told_is_told_first() -> None:
    clock, fleet = SimulatedClock(), Fleet()
    async with push_services(clock) as services:
        courier = socket_courier(services, fleet, clock)
        await courier.listen()
        (socket,) = services.push._courier.open
        await socket.close()
        await known(services, lambda: not courier._connected.is_set())
        del fleet.devices[TOKEN]
        courier.forget(TOKEN)
        await clock.advance(FIRST_BACK_OFF_S)
        await known(services, lambda: services.push.tokens.gone(TOKEN) is not None)
        assert OTHER in services.push.tokens
        await courier.close()
