"""Pushes that go wrong by plan: over the administration, by chance, so often, for one device."""

import json
from typing import Any

import pytest

from emulator import settings_file
from emulator.apple import serve_file
from emulator.apple.push_faults import PushFault, PushFaults
from emulator.apple.push_provider import ProviderRequest
from emulator.errors import ConfigurationError
from emulator.wire.push import Reason
from tests.emulator.apple.push_support import (
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
    assert fault.to_action().arguments == {"reason": "Shutdown"}
    copies = PushFault(action="duplicate", times=3, seconds=2).to_action()
    assert copies.arguments == {"times": 3, "seconds": 2}
