"""The provider API's answers: each status and reason of apple-services.md 6.3 that a request can cause, in their order."""

import json
from typing import Any

import pytest
from h2.errors import ErrorCodes

from certs.clock import SimulatedClock
from certs.faults import Action
from emulator.wire.push import Reason
from tests.emulator.apple.push_support import (
    PAYLOAD,
    TOKEN,
    TOPIC,
    Listener,
    faulty,
    provider,
    push_identity,
    push_services,
)
from tests.emulator.apple.support import pki

APNS_ID = "EC1BF194-B3B2-424A-89A9-5A918A6E6B5B"
OTHER = bytes(32)
DUPLICATE_PATH = [
    (":method", "POST"),
    (":path", f"/3/device/{TOKEN.hex()}"),
    (":path", f"/3/device/{TOKEN.hex()}"),
    (":scheme", "https"),
    (":authority", "localhost"),
]


modes = pytest.mark.parametrize("mode", ["strict", "compat"])


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


async def test_a_push_is_accepted_and_delivered_once() -> None:
    async with push_services() as services, provider(services) as raw:
        device = Listener(services)
        device.online()
        answer = await raw.push(headers=[("apns-id", APNS_ID)])
        assert (answer.status, answer.headers["apns-id"], answer.body) == (200, APNS_ID, b"")
        assert [(push.payload, push.apns_id) for push in device.got] == [(PAYLOAD, APNS_ID)]


async def test_an_id_is_made_where_none_came() -> None:
    async with push_services() as services, provider(services) as raw:
        Listener(services)
        first, second = (await raw.push()).headers, (await raw.push()).headers
        assert first["apns-id"] != second["apns-id"]
        assert len(first["apns-id"]) == 36


async def test_all_that_apns_knows_may_be_said() -> None:
    async with push_services() as services, provider(services) as raw:
        Listener(services)
        answer = await raw.push(
            TOKEN.hex().upper(),
            headers=[
                ("apns-topic", TOPIC),
                ("apns-push-type", "mdm"),
                ("apns-priority", "5"),
                ("apns-expiration", "0"),
                ("apns-collapse-id", "x" * 64),
                ("content-type", "application/json"),
                ("user-agent", "a"),
                ("user-agent", "b"),
            ],
        )
        assert answer.status == 200


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        ({"path": "/3/devices/00"}, 404, "BadPath"),
        ({"path": f"/3/device/{TOKEN.hex()}/more"}, 404, "BadPath"),
        ({"path": "/3/device/"}, 400, "MissingDeviceToken"),
        ({"path": "/3/device"}, 400, "MissingDeviceToken"),
        ({"method": "PUT"}, 405, "MethodNotAllowed"),
        ({"pseudo": DUPLICATE_PATH}, 400, "DuplicateHeaders"),
        ({"headers": [("apns-topic", TOPIC)] * 2}, 400, "DuplicateHeaders"),
        ({"headers": [("apns-id", "4711")]}, 400, "BadMessageId"),
        ({"headers": [("apns-push-type", "alert")]}, 400, "InvalidPushType"),
        ({"headers": [("apns-priority", "7")]}, 400, "BadPriority"),
        ({"headers": [("apns-expiration", "soon")]}, 400, "BadExpirationDate"),
        ({"headers": [("apns-expiration", "-1")]}, 400, "BadExpirationDate"),
        ({"headers": [("apns-collapse-id", "x" * 65)]}, 400, "BadCollapseId"),
        ({"headers": [("apns-topic", "")]}, 400, "BadTopic"),
        ({"headers": [("apns-topic", "com.apple.mgmt.Other")]}, 400, "TopicDisallowed"),
        ({"token": "zz" * 32}, 400, "BadDeviceToken"),
        ({"token": "ab" * 14}, 400, "BadDeviceToken"),
        ({"payload": b""}, 400, "PayloadEmpty"),
        ({"payload": b"not json"}, 400, "PayloadEmpty"),
        ({"payload": b"[]"}, 400, "PayloadEmpty"),
        ({"payload": b'{"mdm":"' + b"x" * 4096 + b'"}'}, 413, "PayloadTooLarge"),
    ],
)
@modes
async def test_each_mistake_has_its_status_and_reason(
    mode: str, arguments: dict[str, Any], status: int, reason: str
) -> None:
    async with push_services(mode=mode) as services, provider(services) as raw:
        device = Listener(services)
        device.online()
        answer = await raw.push(**arguments)
        assert (answer.status, answer.reason) == (status, reason)
        assert len(answer.headers["apns-id"]) == 36
        assert answer.headers["content-type"] == "application/json"
        assert device.got == []
        assert services.push.stats.refused[reason] == 1
        # The connection goes on.
        assert (await raw.push()).status == 200


async def test_a_token_that_nobody_registered_is_bad_in_strict_mode_and_new_in_compat_mode() -> (
    None
):
    async with push_services() as services, provider(services) as raw:
        answer = await raw.push(OTHER)
        assert (answer.status, answer.reason) == (400, "BadDeviceToken")
        assert services.push.stats.pushes == 0
    async with push_services(mode="compat") as services, provider(services) as raw:
        assert (await raw.push(OTHER)).status == 200
        device = Listener(services, OTHER)
        device.online()
        assert len(device.got) == 0  # in the next turn of the loop
        await raw.push(OTHER)
        assert [push.stored for push in device.got] == [True, False]


async def test_of_several_mistakes_the_first_in_order_is_told() -> None:
    mistakes = [("apns-id", "x"), ("apns-push-type", "x"), ("apns-priority", "x")]
    async with push_services() as services, provider(services) as raw:
        for wanted in ("BadMessageId", "InvalidPushType", "BadPriority"):
            assert (await raw.push(OTHER, b"", headers=mistakes)).reason == wanted
            del mistakes[0]
        assert (await raw.push(OTHER, b"")).reason == "PayloadEmpty"


async def test_a_payload_of_4096_bytes_is_allowed() -> None:
    payload = b'{"mdm":"' + b"x" * (4096 - 10) + b'"}'
    assert len(payload) == 4096
    async with push_services() as services, provider(services) as raw:
        Listener(services)
        assert (await raw.push(payload=payload)).status == 200


@modes
async def test_a_token_is_good_for_its_topic_alone(mode: str) -> None:
    other = "com.apple.mgmt.Other"
    async with (
        push_services(mode=mode) as services,
        provider(services, push_identity(other)) as raw,
    ):
        Listener(services)
        answer = await raw.push()
        assert (answer.status, answer.reason) == (400, "DeviceTokenNotForTopic")


@modes
async def test_a_certificate_with_several_topics_needs_the_header(mode: str) -> None:
    identity = push_identity(TOPIC, "com.apple.mgmt.Other")
    async with push_services(mode=mode) as services, provider(services, identity) as raw:
        Listener(services)
        assert (await raw.push()).reason == "MissingTopic"
        assert (await raw.push(headers=[("apns-topic", TOPIC)])).status == 200


@modes
async def test_a_token_that_ended_is_410_with_milliseconds(mode: str) -> None:
    clock = SimulatedClock()
    async with push_services(clock, mode=mode) as services, provider(services) as raw:
        tokens = services.push.tokens
        tokens.register(TOKEN, TOPIC, "UDID-1")
        assert (await raw.push()).status == 200
        ended = clock.now()
        tokens.register(OTHER, TOPIC, "UDID-1")  # the device was erased and enrolled again
        await clock.advance(60)
        answer = await raw.push()
        assert answer.status == 410
        assert json.loads(answer.body) == {
            "reason": "Unregistered",
            "timestamp": round(ended.timestamp() * 1000),
        }
        assert (await raw.push(OTHER)).status == 200


async def test_an_ended_token_is_forgotten_after_30_days() -> None:
    clock = SimulatedClock()
    async with push_services(clock) as services, provider(services) as raw:
        services.push.tokens.register(TOKEN, TOPIC)
        services.push.tokens.forget(TOKEN, Reason.EXPIRED_TOKEN)
        assert (await raw.push()).reason == "ExpiredToken"
        await clock.advance(30 * 86400)
        assert (await raw.push()).reason == "BadDeviceToken"


@modes
async def test_too_many_pushes_a_minute_are_429(mode: str) -> None:
    clock = SimulatedClock()
    async with (
        push_services(clock, mode=mode, per_token_per_minute=2) as services,
        provider(services) as raw,
    ):
        Listener(services)
        assert [(await raw.push()).status for _ in range(3)] == [200, 200, 429]
        await clock.advance(60)
        assert (await raw.push()).status == 200


# --- faults


@modes
@pytest.mark.parametrize("reason", list(Reason))
async def test_every_reason_can_be_provoked(mode: str, reason: Reason) -> None:
    fault = faulty("answer", reason=reason.value)
    async with push_services(mode=mode, faults=fault) as services, provider(services) as raw:
        device = Listener(services)
        device.online()
        answer = await raw.push()
        assert (answer.status, answer.reason) == (reason.status, reason.value)
        assert ("timestamp" in json.loads(answer.body)) == (reason.status == 410)
        assert device.got == []


def test_every_reason_of_apns_is_here_with_its_status() -> None:
    """6.3, written down a second time: what stands in the code must not be its own judge."""
    statuses: dict[int, set[str]] = {}
    for reason in Reason:
        statuses.setdefault(reason.status, set()).add(reason.value)
    bad = "CollapseId DeviceToken ExpirationDate MessageId Priority Topic"
    assert statuses == {
        400: {f"Bad{word}" for word in bad.split()}
        | {"DeviceTokenNotForTopic", "DuplicateHeaders", "IdleTimeout", "InvalidPushType"}
        | {"MissingDeviceToken", "MissingTopic", "PayloadEmpty", "TopicDisallowed"},
        403: {"BadCertificate", "BadCertificateEnvironment", "Forbidden"}
        | {f"{word}ProviderToken" for word in ("Expired", "Invalid", "Missing")},
        404: {"BadPath"},
        405: {"MethodNotAllowed"},
        410: {"Unregistered", "ExpiredToken"},
        413: {"PayloadTooLarge"},
        429: {"TooManyRequests", "TooManyProviderTokenUpdates"},
        500: {"InternalServerError"},
        503: {"ServiceUnavailable", "Shutdown"},
    }


async def test_a_fault_may_choose_the_timestamp_of_a_410() -> None:
    fault = faulty("answer", reason="Unregistered", timestamp_ms=1700000000123)
    async with push_services(faults=fault) as services, provider(services) as raw:
        Listener(services)
        assert json.loads((await raw.push()).body)["timestamp"] == 1700000000123


async def test_an_accepted_push_may_be_lost() -> None:
    async with push_services(faults=faulty("lose", at=1)) as services, provider(services) as raw:
        device = Listener(services)
        device.online()
        assert [(await raw.push()).status for _ in range(2)] == [200, 200]
        assert (len(device.got), services.push.stats.lost) == (1, 1)


async def test_a_push_may_be_late() -> None:
    clock = SimulatedClock()
    fault = faulty("delay", seconds=90)
    async with push_services(clock, faults=fault) as services, provider(services) as raw:
        device = Listener(services)
        device.online()
        assert (await raw.push()).status == 200
        await clock.advance(89)
        assert device.got == []
        await clock.advance(2)
        assert len(device.got) == 1


async def test_a_push_may_come_twice() -> None:
    clock = SimulatedClock()
    fault = faulty("duplicate", times=2)
    async with push_services(clock, faults=fault) as services, provider(services) as raw:
        device = Listener(services)
        device.online()
        await raw.push()
        await clock.advance(5)
        assert [push.payload for push in device.got] == [PAYLOAD] * 3


async def test_an_answer_may_be_held_back() -> None:
    clock = SimulatedClock()
    fault = faulty("hold", at=1, seconds=30)
    async with push_services(clock, faults=fault) as services, provider(services) as raw:
        device = Listener(services)
        device.online()
        held = raw.open()
        raw.h2.send_data(held, PAYLOAD, end_stream=True)
        assert (await raw.push()).status == 200  # another stream overtakes it
        assert raw.answers[held].status == 0
        await clock.advance(31)
        assert (await raw.answer(held)).status == 200
        assert len(device.got) == 2


async def test_a_stream_may_be_refused_and_nothing_done() -> None:
    async with (
        push_services(faults=faulty("refuse-stream", at=1)) as services,
        provider(services) as raw,
    ):
        device = Listener(services)
        device.online()
        assert (await raw.push()).reset == ErrorCodes.REFUSED_STREAM
        assert device.got == []
        assert (await raw.push()).status == 200


async def test_the_connection_may_be_dropped_without_an_answer() -> None:
    async with push_services(faults=faulty("drop")) as services, provider(services) as raw:
        Listener(services)
        answer = await raw.push()
        assert (answer.status, raw.closed) == (0, True)


async def test_a_goaway_tells_its_reason_as_debug_data() -> None:
    fault = faulty("goaway", reason="Shutdown")
    async with push_services(faults=fault) as services, provider(services) as raw:
        Listener(services)
        await raw.push()
        await raw.until_closed()
        assert raw.goaway is not None
        assert raw.goaway.error_code == ErrorCodes.NO_ERROR
        assert json.loads(raw.goaway.additional_data or b"") == {"reason": "Shutdown"}


async def test_a_fault_that_does_not_exist_is_our_own_mistake() -> None:
    async with push_services(faults=faulty("explode")) as services, provider(services) as raw:
        Listener(services)
        answer = await raw.push()
        assert (answer.status, answer.reason) == (500, "InternalServerError")


async def test_a_fault_point_sees_the_request_and_counts_by_token() -> None:
    seen: list[tuple[str, int]] = []

    def look(side: str, step: str, message: object, n: int) -> Action | None:
        seen.append((step, n))
        return None

    async with push_services(faults=look) as services, provider(services) as raw:
        Listener(services)
        Listener(services, OTHER)
        for token in (TOKEN, OTHER, TOKEN):
            await raw.push(token)
    assert seen == [("push_connection", 1), ("push", 1), ("push", 1), ("push", 2)]
