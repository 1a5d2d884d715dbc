"""The multiplexed WebSocket: registration, delivery, acknowledgement, and fleets that behave badly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from certs.clock import SimulatedClock
from certs.tls import client_context
from emulator.apple import push_courier
from emulator.apple.app import AppleServices
from emulator.apple.push_tokens import Notification
from emulator.wire import courier
from emulator.wire.courier import (
    Ack,
    Forget,
    Hello,
    Offline,
    Online,
    Push,
    Refused,
    Registered,
    Subscription,
)
from tests.emulator.apple.push_support import (
    GUARD_S,
    PAYLOAD,
    TOKEN,
    TOPIC,
    RawProvider,
    provider,
    push_services,
)
from tests.emulator.apple.support import pki

OTHER = b"\x02" * 32


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


class Fleet:
    """One WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, *frames: courier.ClientFrame) -> None:
        await self.socket.send_bytes(courier.encode(*frames))

    async def hear(self) -> list[courier.ServerFrame]:
        async with asyncio.timeout(GUARD_S):
            message = await self.socket.receive()
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            return []
        return courier.decode_server(message.data)

    async def hello(self, *tokens: bytes, online: bool = True, device: str | None = None) -> None:
        await self.say(
            Hello(
                [
                    Subscription(token=token.hex(), topic=TOPIC, online=online, device=device)
                    for token in tokens
                ]
            )
        )
        assert isinstance((await self.hear())[-1], Registered)

    async def pushes(self, count: int) -> list[Push]:
        got: list[Push] = []
        while len(got) < count:
            frames = await self.hear()
            assert frames
            got += [frame for frame in frames if isinstance(frame, Push)]
        return got


@asynccontextmanager
async def fleet(
    services: AppleServices, token: str | None = None, **headers: str
) -> AsyncIterator[Fleet]:
    context = client_context([services.pki.tls_ca.certificate])
    headers = {"Authorization": f"Bearer {token or services.token}", **headers}
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(services.url + courier.PATH, headers=headers, ssl=context) as socket,
    ):
        yield Fleet(socket)


@asynccontextmanager
async def world(
    clock: SimulatedClock | None = None, **settings: Any
) -> AsyncIterator[tuple[AppleServices, RawProvider, Fleet]]:
    async with (
        push_services(clock, **settings) as services,
        provider(services) as raw,
        fleet(services) as one,
    ):
        yield services, raw, one


async def quiet(services: AppleServices) -> None:
    """Until no wake connection is left."""
    async with asyncio.timeout(GUARD_S):
        while services.push.gauges().wake_connections:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_push_reaches_the_device_of_its_token() -> None:
    async with world() as (services, raw, one):
        await one.hello(TOKEN, OTHER)
        answer = await raw.push(OTHER)
        (push,) = await one.pushes(1)
        assert (push.token, bytes(push.payload)) == (OTHER.hex(), PAYLOAD)
        assert push.apns_id == answer.headers["apns-id"]
        assert (push.stored, push.age_ms) == (False, 0)
        await one.say(Ack(1))
        await one.hello(TOKEN)  # what came before is done when this is answered
        assert services.push.stats.delivered_live == 1


async def test_pushes_for_an_offline_device_become_one_when_it_returns() -> None:
    clock = SimulatedClock()
    async with world(clock) as (services, raw, one):
        await one.hello(TOKEN)
        await one.say(Offline(TOKEN.hex()))
        await one.hello(OTHER)
        for _ in range(3):
            assert (await raw.push()).status == 200
        await clock.advance(90)
        await one.say(Online(TOKEN.hex()))
        (push,) = await one.pushes(1)
        assert (push.stored, push.age_ms) == (True, 90_000)
        assert services.push.stats.coalesced == 2


async def test_a_push_that_meets_a_device_on_its_way_out_waits_for_its_return() -> None:
    """It was on the wire when the device left; the fleet drops it, and says so by leaving before it acknowledges."""
    async with world() as (services, raw, one):
        await one.hello(TOKEN, OTHER)
        await raw.push()
        await raw.push(OTHER)
        await one.pushes(2)
        await one.say(Offline(TOKEN.hex()), Ack(2))
        await one.hello(OTHER)
        assert services.push.tokens.counts() == (1, 1, 0)
        await one.say(Online(TOKEN.hex()))
        (push,) = await one.pushes(1)
        assert (push.token, push.stored) == (TOKEN.hex(), True)
        await one.say(Ack(3))
        await one.hello(OTHER)
        stats = services.push.stats
        assert (stats.delivered_live, stats.delivered_on_connect) == (1, 1)


async def test_a_push_that_arrived_before_its_device_left_does_not_come_again() -> None:
    async with world() as (services, raw, one):
        await one.hello(TOKEN)
        await raw.push()
        await one.pushes(1)
        await one.say(Ack(1), Offline(TOKEN.hex()), Online(TOKEN.hex()))
        await one.hello(OTHER)  # the answer to this is all that comes
        assert services.push.stats.delivered_live == 1
        assert services.push.stats.stored == 0


async def test_a_token_may_be_known_before_its_device_listens() -> None:
    async with world() as (services, raw, one):
        await one.hello(TOKEN, online=False)
        await raw.push()
        assert services.push.tokens.counts() == (0, 1, 0)
        await one.say(Online(TOKEN.hex()))
        assert len(await one.pushes(1)) == 1


async def test_a_forgotten_token_is_410() -> None:
    async with world() as (_, raw, one):
        await one.hello(TOKEN)
        await one.say(Forget(TOKEN.hex()))
        await one.hello(OTHER)
        assert (await raw.push()).status == 410


async def test_a_device_that_enrolled_again_leaves_its_old_token_behind() -> None:
    async with world() as (_, raw, one):
        await one.hello(TOKEN, device="UDID-1")
        await one.hello(OTHER, device="UDID-1")
        assert (await raw.push()).reason == "Unregistered"
        assert (await raw.push(OTHER)).status == 200


async def test_many_pushes_share_messages() -> None:
    tokens = [number.to_bytes(32) for number in range(1, 601)]
    async with world() as (services, raw, one):
        await one.hello(*tokens)
        for token in tokens:
            raw.h2.send_data(raw.open(token), PAYLOAD, end_stream=True)
        await raw.flush()
        got = await one.pushes(600)
        assert {push.token for push in got} == {token.hex() for token in tokens}
        await one.say(Ack(600))
        await one.hello(TOKEN)
        assert services.push.stats.delivered_live == 600


async def test_what_was_not_acknowledged_waits_for_the_next_connection() -> None:
    async with push_services() as services, provider(services) as raw:
        async with fleet(services) as one:
            await one.hello(TOKEN, OTHER)
            await raw.push()
            await raw.push(OTHER)
            first = await one.pushes(2)
            await one.say(Ack(1))
            await one.hello(b"\x03" * 32)
        await quiet(services)
        unacknowledged = first[1].token
        async with fleet(services) as one:
            await one.hello(TOKEN, OTHER)
            (push,) = await one.pushes(1)
            assert (push.token, push.stored) == (unacknowledged, True)
        assert services.push.stats.returned >= 1


async def test_a_fleet_that_stops_reading_is_dropped_and_its_pushes_stay() -> None:
    clock = SimulatedClock()
    async with push_services(clock) as services, provider(services) as raw:
        async with fleet(services) as one:
            await one.hello(TOKEN, OTHER)
            for _ in range(5):
                assert (await raw.push()).status == 200
            assert (await raw.push(OTHER)).status == 200
            await clock.advance(push_courier.ACK_TIMEOUT_S + push_courier.ACK_TIMEOUT_S / 2)
            await quiet(services)
            assert services.push.stats.couriers_dropped == 1
        assert services.push.tokens.counts() == (0, 2, 0)
        async with fleet(services) as one:
            await one.hello(TOKEN, OTHER)
            assert len(await one.pushes(2)) == 2


async def test_a_socket_that_is_not_read_holds_no_more_than_its_buffers() -> None:
    """Ten pushes of four kilobytes for each of a thousand devices: 40 MB that nobody takes."""
    payload = b'{"mdm":"' + b"x" * 4000 + b'"}'
    tokens = [number.to_bytes(32) for number in range(1, 1001)]
    clock = SimulatedClock()
    async with push_services(clock) as services, fleet(services) as one:
        await one.hello(*tokens)
        (channel,) = services.push._courier.open
        transport = channel._request.transport
        assert transport is not None
        response = one.socket._response
        assert response.connection is not None
        assert response.connection.transport is not None
        response.connection.transport.pause_reading()
        largest = 0
        for _ in range(10):
            for token in tokens:
                services.push.tokens.accept(
                    Notification(
                        token=token,
                        apns_id="id",
                        payload=payload,
                        accepted_at=clock.now(),
                        expires_at=clock.now() + timedelta(days=1),
                    )
                )
            for _ in range(20):
                await asyncio.sleep(0)
            largest = max(largest, transport.get_write_buffer_size())
        assert 0 < len(channel._outbox) <= len(tokens)
        assert largest < 4 * 1024 * 1024  # a batch, and what the socket's own limit lets in before
        await clock.advance(push_courier.ACK_TIMEOUT_S + push_courier.ACK_TIMEOUT_S / 2)
        response.connection.transport.abort()
        await quiet(services)
        assert services.push.stats.couriers_dropped == 1
        assert services.push.tokens.counts() == (0, len(tokens), 0)  # one each, and all are there


async def test_what_one_socket_can_hold_is_one_push_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(push_courier, "MAX_ON_THE_WIRE", 2)
    monkeypatch.setattr(push_courier, "BATCH", 1)
    async with world() as (services, raw, one):
        await one.hello(TOKEN)
        for _ in range(20):
            await raw.push()
        (channel,) = services.push._courier.open
        assert len(channel._on_the_wire) <= 2
        assert len(channel._outbox) == 1
        assert services.push.stats.coalesced >= 17
        await one.say(Ack(len(await one.pushes(2))))
        await one.pushes(1)


async def test_a_token_moves_to_the_newest_socket() -> None:
    async with world() as (services, raw, one), fleet(services) as two:
        await one.hello(TOKEN)
        await two.hello(TOKEN)
        await raw.push()
        assert len(await two.pushes(1)) == 1
        await one.hello(OTHER)  # nothing but the answer to this
        assert services.push.tokens.counts()[0] == 2


@pytest.mark.parametrize(
    "message",
    [
        b"not json",
        b'{"op":"dance"}',
        b'{"op":"online","token":"zz"}',
        b'{"op":"online","token":"' + OTHER.hex().encode() + b'"}',  # never registered
        b'{"op":"ack","count":5}',  # more than was sent
        b'{"op":"hello","devices":[{"token":"ab"}]}',
    ],
)
async def test_a_message_that_makes_no_sense_ends_the_connection(message: bytes) -> None:
    async with world() as (services, _, one):
        await one.hello(TOKEN)
        await one.socket.send_bytes(message)
        (refused,) = await one.hear()
        assert isinstance(refused, Refused)
        assert await one.hear() == []
        assert one.socket.close_code == 1008
        await quiet(services)
        assert services.push.tokens.counts() == (0, 0, 0)


async def test_a_message_that_is_too_large_ends_the_connection() -> None:
    async with world() as (services, _, one):
        await one.hello(TOKEN)
        await one.socket.send_bytes(b" " * (courier.MAX_MESSAGE_BYTES + 1))
        assert await one.hear() == []
        assert one.socket.close_code in (
            1009,
            1006,
        )  # the rest of it may be in the way of the words
        await quiet(services)


async def test_more_tokens_than_the_registry_takes_are_refused() -> None:
    async with world(max_tokens=1) as (_, _, one):
        await one.say(
            Hello(
                [
                    Subscription(token=TOKEN.hex(), topic=TOPIC),
                    Subscription(token=OTHER.hex(), topic=TOPIC),
                ]
            )
        )
        (refused,) = await one.hear()
        assert isinstance(refused, Refused)
        assert "1 tokens" in refused.reason


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"token": "wrong-token-of-some-length"}, 401),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 421),
    ],
)
async def test_who_may_not_listen_is_refused(headers: dict[str, str], status: int) -> None:
    async with push_services() as services:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            async with fleet(services, **headers):
                pass
        assert refusal.value.status == status


async def test_the_number_of_sockets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_courier, "MAX_COURIERS", 1)
    async with world() as (services, _, one):
        await one.hello(TOKEN)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            async with fleet(services):
                pass
        assert refusal.value.status == 503


async def test_stopping_closes_the_sockets() -> None:
    async with push_services() as services, fleet(services) as one:
        await one.hello(TOKEN)
        heard = asyncio.create_task(one.hear())
        await services.push.stop()
        assert await heard == []
        assert one.socket.close_code == 1001


async def test_simulated_time_does_not_stand_still_for_an_open_socket() -> None:
    clock = SimulatedClock()
    async with world(clock) as (_, _, one):
        await one.hello(TOKEN)
        await clock.advance(3600, guard_s=2)
        await one.hello(OTHER)
