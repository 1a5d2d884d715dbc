"""Pushes that go wrong by plan: over the administration, by chance, so often, for one device."""

import json
import random
from typing import Any

import pytest
from h2.errors import ErrorCodes

from certs.clock import SimulatedClock
from emulator import settings_file
from emulator.apple import serve_file
from emulator.apple.push_faults import PushFault, PushFaults
from emulator.apple.push_provider import ProviderRequest
from emulator.errors import ConfigurationError
from emulator.wire.push import Reason
from tests.emulator.apple.push_support import (
    PAYLOAD,
    TOKEN,
    Listener,
    faulty,
    provider,
)
from tests.emulator.apple.support import Client

OTHER = b"\x02" * 32


async def plan(client: Client, *faults: dict[str, object]) -> tuple[int, Any]:
    body = json.dumps({"faults": faults}).encode()
    reply = await client.admin("PUT", "/push/faults", body)
    return reply.status, reply.json()


def push_to(token: bytes = TOKEN) -> ProviderRequest:
    return ProviderRequest(method="POST", path=f"/3/device/{token.hex()}", headers=(), body=b"{}")


def taken(faults: PushFaults, token: bytes = TOKEN, step: str = "push") -> str | None:
    action = faults("server", step, push_to(token), 1)
    return None if action is None else action.name


async def test_a_planned_answer_is_given_so_often_and_no_more(client: Client) -> None:
    device = Listener(client.services)
    device.online()
    status, answer = await plan(
        client, {"action": "answer", "reason": "ServiceUnavailable", "count": 2}
    )
    assert status == 200
    assert answer == {"faults": [{"action": "answer", "reason": "ServiceUnavailable", "count": 2}]}
    async with provider(client.services) as raw:
        statuses = [(await raw.push()).status for _ in range(3)]
    assert statuses == [503, 503, 200]
    assert len(device.got) == 1
    assert (await client.admin("GET", "/push/faults")).json() == {"faults": []}


async def test_a_plan_ends_when_it_is_taken_away(client: Client) -> None:
    device = Listener(client.services)
    device.online()
    await plan(client, {"action": "lose"})
    async with provider(client.services) as raw:
        assert (await raw.push()).status == 200
        assert device.got == []
        assert (await client.admin("DELETE", "/push/faults")).json() == {"faults": []}
        assert (await raw.push()).status == 200
    assert len(device.got) == 1
    assert client.services.push.stats.lost == 1


async def test_one_device_may_have_the_trouble_alone(client: Client) -> None:
    Listener(client.services)
    Listener(client.services, OTHER)
    await plan(client, {"action": "answer", "reason": "Unregistered", "token": TOKEN.hex().upper()})
    async with provider(client.services) as raw:
        assert (await raw.push(TOKEN)).status == 410
        assert (await raw.push(OTHER)).status == 200


async def test_a_planned_delay_is_any_time_between_both(
    client: Client, clock: SimulatedClock
) -> None:
    device = Listener(client.services)
    device.online()
    await plan(client, {"action": "delay", "seconds": 10, "up_to_s": 20})
    arrived = []
    async with provider(client.services) as raw:
        for _ in range(20):
            assert (await raw.push()).status == 200
    assert client.services.push.stats.delayed == 20
    for _ in range(20):
        arrived.append(len(device.got))
        await clock.advance(1)
    assert arrived[:10] == [0] * 10
    assert 0 < arrived[15] < 20  # spread, not all at once
    await clock.advance(1)
    assert len(device.got) == 20


async def test_a_planned_duplicate_comes_again(client: Client, clock: SimulatedClock) -> None:
    device = Listener(client.services)
    device.online()
    await plan(client, {"action": "duplicate", "times": 2, "seconds": 3, "count": 1})
    async with provider(client.services) as raw:
        await raw.push()
    assert len(device.got) == 1
    await clock.advance(6)
    assert len(device.got) == 3
    assert len({push.apns_id for push in device.got}) == 1


async def test_a_planned_hold_keeps_the_answer_back(client: Client, clock: SimulatedClock) -> None:
    device = Listener(client.services)
    device.online()
    await plan(client, {"action": "hold", "seconds": 5, "count": 1})
    async with provider(client.services) as raw:
        held = raw.open()
        raw.h2.send_data(held, PAYLOAD, end_stream=True)
        assert (await raw.push()).status == 200
        assert (len(device.got), raw.answers[held].status) == (2, 0)
        await clock.advance(5)
        assert (await raw.answer(held)).status == 200


async def test_planned_ends_of_stream_and_connection(client: Client) -> None:
    device = Listener(client.services)
    device.online()
    await plan(
        client,
        {"action": "refuse-stream", "count": 1},
        {"action": "goaway", "reason": "IdleTimeout", "count": 1},
        {"action": "drop", "count": 1},
        {"step": "push_connection", "action": "goaway", "reason": "ServiceUnavailable"},
    )
    async with provider(client.services) as raw:
        await raw.until_closed()
        assert raw.goaway is not None
        assert raw.goaway.additional_data == b'{"reason":"ServiceUnavailable"}'
    left = (await client.admin("GET", "/push/faults")).json()["faults"]
    await plan(client, *left[:3])
    async with provider(client.services) as raw:
        assert (await raw.push()).reset == ErrorCodes.REFUSED_STREAM
        assert device.got == []
        assert (await raw.push()).status == 200
        await raw.until_closed()
        assert raw.goaway is not None
        assert raw.goaway.additional_data == b'{"reason":"IdleTimeout"}'
    async with provider(client.services) as raw:
        assert (await raw.push()).status == 0
        assert raw.closed
        assert raw.goaway is None
    assert len(device.got) == 1  # what was dropped did nothing


async def test_a_planned_410_may_say_since_when(client: Client) -> None:
    Listener(client.services)
    fault = {"action": "answer", "reason": "Unregistered", "timestamp_ms": 1_700_000_000_123}
    await plan(client, fault)
    async with provider(client.services) as raw:
        assert json.loads((await raw.push()).body)["timestamp"] == 1_700_000_000_123


async def test_tokens_that_nobody_registered_use_no_fault_up_and_no_memory(client: Client) -> None:
    Listener(client.services)
    await plan(client, {"action": "answer", "reason": "Shutdown", "count": 1})
    async with provider(client.services) as raw:
        for number in range(50):
            assert (await raw.push(number.to_bytes(32))).reason == "BadDeviceToken"
        assert (await raw.push()).reason == "Shutdown"
    assert len(client.services.push.tokens) == 1


async def test_settings_of_a_connection_are_planned_too(client: Client) -> None:
    Listener(client.services)
    fault = {"step": "push_connection", "action": "settings", "max_concurrent_streams": 1}
    assert (await plan(client, fault))[0] == 200
    async with provider(client.services) as raw:
        await raw.push()
        assert raw.h2.remote_settings.max_concurrent_streams == 1


@pytest.mark.parametrize(
    ("fault", "mistake"),
    [
        ({"action": "answer"}, "faults.0: action answer needs a reason"),
        ({"action": "answer", "reason": "Nonsense"}, "faults.0.reason"),
        ({"action": "delay"}, "faults.0: action delay needs seconds"),
        ({"action": "settings"}, "belongs to step push_connection"),
        ({"action": "lose", "step": "push_connection"}, "knows settings and goaway"),
        (
            {"action": "goaway", "step": "push_connection", "token": "00"},
            "a connection is for no token",
        ),
        ({"action": "delay", "seconds": 5, "up_to_s": 4}, "is no less than seconds"),
        ({"action": "hold", "seconds": 5, "up_to_s": 9}, "up_to_s belongs to delay"),
        (
            {"action": "answer", "reason": "Shutdown", "timestamp_ms": 1},
            "timestamp_ms belongs to Unregistered and ExpiredToken",
        ),
        ({"action": "lose", "token": "xyz"}, "an even number of hexadecimal digits"),
        ({"action": "lose", "share": 0}, "faults.0.share"),
        ({"action": "vanish"}, "faults.0.action"),
        ({"action": "lose", "colour": "red"}, "faults.0.colour"),
    ],
)
async def test_a_plan_with_a_mistake_is_refused_and_the_plan_before_stays(
    client: Client, fault: dict[str, object], mistake: str
) -> None:
    await plan(client, {"action": "lose"})
    status, answer = await plan(client, fault)
    assert status == 400
    assert mistake in answer["error"]
    assert client.services.push.faults.shown() == [{"action": "lose"}]


def test_a_share_hits_that_part_of_the_pushes_the_same_for_the_same_seed() -> None:
    def hits(seed: int) -> list[bool]:
        faults = PushFaults(seed=seed)
        faults.plan([PushFault(action="lose", share=0.2)])
        return [taken(faults) == "lose" for _ in range(2000)]

    assert hits(1) == hits(1) != hits(2)
    assert 340 < sum(hits(1)) < 460


def test_the_first_that_fits_is_used_and_a_given_fault_point_comes_before_all() -> None:
    faults = PushFaults()
    assert not faults
    faults.plan(
        [
            PushFault(action="lose", token=OTHER.hex()),
            PushFault(action="duplicate", count=1),
            PushFault(action="drop"),
        ]
    )
    assert faults
    assert [taken(faults), taken(faults), taken(faults, OTHER)] == ["duplicate", "drop", "lose"]
    assert taken(faults, step="push_connection") is None
    given = PushFaults(faulty("hold", seconds=1))
    given.plan([PushFault(action="lose")])
    assert given
    assert taken(given) == "hold"


def test_the_settings_file_plans_pushes(tmp_path: Any) -> None:
    path = tmp_path / "apple.yaml"
    path.write_text(
        "faults: {push: [{action: lose, share: 0.01}, {action: answer, reason: ExpiredToken}]}\n"
    )
    first, second = serve_file.read(path).faults.push
    assert (first.action, first.share) == ("lose", 0.01)
    assert second.reason is Reason.EXPIRED_TOKEN
    path.write_text("faults: {push: [{action: hold}]}\n")
    with pytest.raises(ConfigurationError, match=r"faults.push.0: action hold needs seconds"):
        serve_file.read(path)


def test_every_action_that_can_be_planned_is_one_that_is_carried_out() -> None:
    content = {"action": "answer", "reason": "Shutdown"}
    fault = settings_file.validate(content, PushFault, source="test")
    chance = random.Random(1)
    assert fault.to_action(chance).arguments == {"reason": "Shutdown"}
    copies = PushFault(action="duplicate", times=3, seconds=2).to_action(chance)
    assert copies.arguments == {"times": 3, "seconds": 2}
