"""Server-sent events for one token, and compat mode: HTTP/1.1, no certificate, any token (apple-services.md 8)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from certs.clock import SimulatedClock
from certs.tls import client_context
from emulator.apple import push_events
from emulator.apple.app import AppleServices
from tests.emulator.apple.push_support import (
    GUARD_S,
    PAYLOAD,
    TOKEN,
    TOPIC,
    faulty,
    provider,
    push_identity,
    push_services,
)
from tests.emulator.apple.support import pki

# As Fleet's simulated hosts make them: "token" and the serial number, in hex, of any even length.
SHORT = b"tokenSIM0000001".hex()
PING = f"event: ping\ndata: {PAYLOAD.decode()}\n\n"


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


class Plain:
    """HTTP/1.1 to the plain port of compat mode."""

    def __init__(self, services: AppleServices, http: aiohttp.ClientSession) -> None:
        self.url = f"http://127.0.0.1:{services.push.plain_port}"
        self.services = services
        self.http = http

    async def push(
        self, token: str = SHORT, body: bytes = PAYLOAD, **headers: str
    ) -> tuple[int, str | None]:
        async with self.http.post(
            f"{self.url}/3/device/{token}", data=body, headers=headers
        ) as answer:
            text = await answer.text()
            reason = (await answer.json())["reason"] if text else None
            return answer.status, reason

    def events(self, token: str = SHORT, **headers: str) -> Any:
        return self.http.get(f"{self.url}/events?token={token}", headers=headers)


@asynccontextmanager
async def compat(clock: SimulatedClock | None = None, **settings: Any) -> AsyncIterator[Plain]:
    wanted: dict[str, Any] = {"mode": "compat", "plain_port": 0, "token_bytes": None} | settings
    async with (
        push_services(clock, **wanted) as services,
        aiohttp.ClientSession() as http,
    ):
        yield Plain(services, http)


async def read(response: aiohttp.ClientResponse, wanted: int) -> str:
    async with asyncio.timeout(GUARD_S):
        return (await response.content.readexactly(wanted)).decode()


async def test_a_connected_device_is_pinged_at_once() -> None:
    async with compat() as plain, plain.events() as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert await plain.push() == (200, None)
        assert await read(response, len(PING)) == PING
        assert plain.services.push.stats.stored == 0


async def test_what_came_before_the_first_connection_waits_for_it() -> None:
    async with compat() as plain:
        await plain.push(body=b'{"mdm":"first"}')
        await plain.push()
        async with plain.events(SHORT.upper()) as response:
            assert await read(response, len(PING)) == PING
        stats = plain.services.push.stats
        assert (stats.stored, stats.coalesced, stats.delivered_on_connect) == (2, 1, 1)


async def test_the_newest_connection_wins_and_ends_the_older() -> None:
    async with compat() as plain, plain.events() as older, plain.events() as newer:
        assert await older.content.read() == b""
        await plain.push()
        assert await read(newer, len(PING)) == PING


async def test_a_payload_of_several_lines_is_one_event() -> None:
    async with compat() as plain, plain.events() as response:
        await plain.push(body=b'{\n  "mdm":\r\n "M"\n}')
        event = await read(response, len('event: ping\ndata: {   "mdm":   "M" }\n\n'))
        assert event == 'event: ping\ndata: {   "mdm":   "M" }\n\n'


async def test_a_device_that_hangs_up_leaves_its_pushes_to_the_store() -> None:
    async with compat() as plain:
        async with plain.events():
            pass
        async with asyncio.timeout(GUARD_S):
            while plain.services.push.gauges().wake_connections:
                await plain.push()
        await plain.push()
        assert plain.services.push.tokens.counts()[1] == 1


async def test_keep_alives_find_out_who_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_events, "KEEP_ALIVE_S", 0.01)
    async with compat() as plain, plain.events() as response:
        assert await read(response, 26) == ": keepalive\n\n" * 2


async def test_a_device_that_stops_reading_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_events, "WRITE_DEADLINE_S", 0.05)
    payload = b'{"mdm":"' + b"x" * 4000 + b'"}'
    async with compat() as plain, plain.events() as response:
        connection = response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.pause_reading()
        async with asyncio.timeout(60):
            while plain.services.push.gauges().wake_connections:
                await plain.push(body=payload)
        assert plain.services.push.stats.returned >= 1
        connection.transport.abort()


async def test_stopping_ends_the_streams() -> None:
    async with compat() as plain, plain.events() as response:
        await plain.services.push.stop()
        assert await response.content.read() == b""


async def test_web_pages_do_not_listen() -> None:
    async with compat() as plain, plain.events(Origin="https://evil.example") as response:
        assert response.status == 403


async def test_strict_mode_knows_its_tokens() -> None:
    async with push_services() as services, provider(services) as raw:
        context = client_context([services.pki.tls_ca.certificate])
        url = f"{services.url}/events?token={TOKEN.hex()}"
        async with aiohttp.ClientSession() as http:
            async with http.get(url, ssl=context) as response:
                assert response.status == 404
            async with http.get(f"{services.url}/events?token=zz", ssl=context) as response:
                assert response.status == 400
            async with http.get(f"{url}&topic={TOPIC}", ssl=context) as response:
                assert (await raw.push()).status == 200
                assert await read(response, len(PING)) == PING


# --- compat mode as a provider sees it


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({}, (200, None)),
        ({"token": TOKEN.hex()}, (200, None)),
        ({"token": "abc"}, (400, "BadDeviceToken")),
        ({"token": "xyz0"}, (400, "BadDeviceToken")),
        ({"token": ""}, (400, "MissingDeviceToken")),
        ({"body": b""}, (400, "PayloadEmpty")),
        ({"body": bytes(4097)}, (413, "PayloadTooLarge")),
        ({"body": bytes(100_000)}, (413, "PayloadTooLarge")),
        ({"apns-push-type": "mdm"}, (200, None)),
        ({"apns-push-type": "alert"}, (400, "InvalidPushType")),
        ({"apns-expiration": "soon"}, (400, "BadExpirationDate")),
        ({"apns-expiration": "1"}, (200, None)),
        ({"apns-id": "x"}, (400, "BadMessageId")),
        ({"apns-topic": "com.apple.mgmt.Any"}, (200, None)),
    ],
)
async def test_plain_http_is_answered_by_the_same_rules(
    arguments: dict[str, Any], answer: tuple[int, str | None]
) -> None:
    async with compat() as plain:
        assert await plain.push(**arguments) == answer


async def test_other_paths_and_methods_are_told_so() -> None:
    async with compat() as plain:
        async with plain.http.post(f"{plain.url}/4/device/00") as response:
            assert (response.status, await response.json()) == (404, {"reason": "BadPath"})
        async with plain.http.get(f"{plain.url}/3/device/00") as response:
            assert (response.status, await response.json()) == (405, {"reason": "MethodNotAllowed"})


async def test_an_expiration_of_zero_or_in_the_past_is_now_or_never() -> None:
    async with compat() as plain:
        for expiration in ("0", "1"):
            await plain.push(SHORT, PAYLOAD, **{"apns-expiration": expiration})
        assert plain.services.push.tokens.counts()[1] == 0
        assert plain.services.push.stats.discarded == 2


async def test_absent_expiration_is_a_setting() -> None:
    clock = SimulatedClock()
    async with compat(clock) as plain:
        await plain.push()
        await clock.advance(86399)
        assert plain.services.push.tokens.counts()[1] == 1
        await clock.advance(1)
        assert plain.services.push.tokens.counts()[1] == 0
    async with compat(absent_expiration_s=None) as plain:
        await plain.push()
        assert plain.services.push.stats.discarded == 1


async def test_nothing_is_stored_for_longer_than_30_days() -> None:
    clock = SimulatedClock()
    async with compat(clock) as plain:
        await plain.push(SHORT, PAYLOAD, **{"apns-expiration": "99999999999"})
        await clock.advance(30 * 86400)
        assert plain.services.push.tokens.counts()[1] == 0


async def test_a_full_registry_is_503_for_tokens_that_are_new() -> None:
    async with compat(max_tokens=1) as plain:
        assert await plain.push() == (200, None)
        assert await plain.push("ab") == (503, "ServiceUnavailable")
        assert await plain.push() == (200, None)
        async with plain.events("ab") as response:
            assert response.status == 503


async def test_the_statistics_and_the_health_stand_beside_it() -> None:
    async with compat() as plain:
        await plain.push()
        async with plain.http.get(f"{plain.url}/stats") as response:
            facts = await response.json()
        assert (facts["pushes"], facts["tokens"], facts["pending"]) == (1, 1, 1)
        async with plain.http.get(f"{plain.url}/healthz") as response:
            assert response.status == 200


async def test_over_tls_http1_and_http2_share_the_port() -> None:
    async with push_services(mode="compat") as services, aiohttp.ClientSession() as http:
        services.push.tokens.register(TOKEN, TOPIC)
        url = f"{services.push_url}/3/device/{TOKEN.hex()}"
        for identity in (None, push_identity(TOPIC)):
            context = client_context([services.pki.tls_ca.certificate], identity)
            async with http.post(url, data=PAYLOAD, ssl=context) as response:
                assert response.status == 200
            async with provider(services, identity) as raw:
                assert (await raw.push()).status == 200
        other = client_context([services.pki.tls_ca.certificate], push_identity("com.apple.mgmt.O"))
        async with http.post(url, data=PAYLOAD, ssl=other) as response:
            assert await response.json() == {"reason": "DeviceTokenNotForTopic"}


@pytest.mark.parametrize("name", ["drop", "goaway", "refuse-stream"])
async def test_faults_of_the_connection_are_a_dropped_one(name: str) -> None:
    async with (
        push_services(
            faults=faulty(name), mode="compat", plain_port=0, token_bytes=None
        ) as services,
        aiohttp.ClientSession() as http,
    ):
        plain = Plain(services, http)
        with pytest.raises(aiohttp.ClientError):
            await plain.push()
