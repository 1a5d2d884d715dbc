"""Canned failures per endpoint, from a file and while the services run (apple-services.md 4.11; bugs.md D and S)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from certs.clock import SimulatedClock
from emulator import settings_file
from emulator.apple.app import AppleServices
from emulator.apple.assignment_faults import STEPS, AssignmentFaults, FaultsFile
from emulator.errors import ConfigurationError
from tests.emulator.apple.assignment_support import (
    OTHER_UUID,
    Ade,
    admin,
    good,
    portal,
    serials,
    signed_up,
)
from tests.emulator.apple.support import Client, pki

FILE = """
faults:
  POST /devices/sync:
    - count: 2
      response: {status: 400, body: EXPIRED_CURSOR}
    - response: {status: 429, body: TOO_MANY_REQUESTS, headers: {Retry-After: "7"}}
"""


async def plan(ade: Ade, endpoint: str, *entries: Any) -> None:
    reply = await admin(ade.client, "PUT", "/portal/faults", {"faults": {endpoint: entries}})
    assert reply.status == 200, reply.body


def response(**facts: Any) -> dict[str, Any]:
    return {"response": facts}


@pytest.fixture
async def scripted(clock: SimulatedClock, http: aiohttp.ClientSession) -> AsyncIterator[Ade]:
    """Stand-ins that were started with the file's faults."""
    faults = settings_file.parse(FILE, FaultsFile, source="faults.yaml").faults
    async with AppleServices(
        pki=pki(), clock=clock, portal=portal("SIM1"), assignment_faults=AssignmentFaults(faults)
    ) as services:
        yield await signed_up(Client(services, http), clock)


async def test_a_files_list_is_used_up_in_order(scripted: Ade) -> None:
    cursor = {"cursor": await scripted.caught_up()}
    answers = [await scripted.ask("POST", "/devices/sync", cursor) for _ in range(4)]
    assert [answer.status for answer in answers] == [400, 400, 429, 200]
    assert answers[0].body == b"EXPIRED_CURSOR"
    assert answers[2].headers["Retry-After"] == "7"


@pytest.mark.parametrize("endpoint", STEPS)
async def test_every_endpoint_has_its_own_list(ade: Ade, endpoint: str) -> None:
    await ade.sign_in()
    await plan(ade, endpoint, response(status=503, body="DOWN"))
    method, _, path = endpoint.partition(" ")
    reply = await ade.ask(method, path)
    assert reply.refusal == (503, "DOWN", "text/plain")
    assert (await ade.ask(method, path)).status != 503


async def test_a_plan_is_shown_as_it_stands_and_taken_away(ade: Ade) -> None:
    await plan(ade, "get /account", {"count": 2, **response(status=500)})
    await plan(ade, "GET /session", {"forever": True, **response(status=503)})
    await ade.sign_in()
    shown = (await admin(ade.client, "GET", "/portal/faults")).json()["faults"]
    assert shown == {
        "GET /account": [{"count": 2, "response": {"status": 500}}],
        "GET /session": [{"forever": True, "response": {"status": 503}}],
    }
    assert [(await ade.sign_in()).status for _ in range(3)] == [503] * 3
    cleared = await admin(ade.client, "DELETE", "/portal/faults")
    assert cleared.json() == {"faults": {}}
    assert (await ade.sign_in()).status == 200


async def test_a_fault_may_be_for_one_server(
    client: Client, clock: SimulatedClock, ade: Ade
) -> None:
    other = await signed_up(client, clock, OTHER_UUID)
    await plan(ade, "GET /account", {"server": "Test", **response(status=503)})
    assert (await ade.ask("GET", "/account")).status == 200
    assert (await other.ask("GET", "/account")).status == 503


async def test_a_failure_in_place_of_an_answer_changes_nothing(ade: Ade) -> None:
    uuid = await ade.define()
    await plan(ade, "PUT /profile/devices", response(status=500))
    content = {"profile_uuid": uuid, "devices": ["SIM1"]}
    assert (await ade.ask("PUT", "/profile/devices", content)).status == 500
    assert ade.record("SIM1").profile is None


@pytest.mark.parametrize(("connection", "done"), [("reset", False), ("drop", True), ("cut", True)])
async def test_a_connection_may_break_before_or_after_the_act(
    ade: Ade, connection: str, done: bool
) -> None:
    uuid = await ade.define()  # POST, as this client sends a PUT again by itself
    await plan(ade, "POST /profile/devices", response(connection=connection))
    content = {"profile_uuid": uuid, "devices": ["SIM1"]}
    with pytest.raises(aiohttp.ClientError):
        await ade.ask("POST", "/profile/devices", content)
    assert (ade.record("SIM1").profile is not None) is done


async def test_an_answer_may_be_cut_short_or_called_something_else(ade: Ade) -> None:
    await plan(ade, "GET /account", response(bytes=5), response(content_type="text/html"))
    assert (await ade.ask("GET", "/account")).body == b'{"ser'
    assert (await ade.ask("GET", "/account")).content_type == "text/html"


@pytest.mark.parametrize("facts", [{}, {"status": 503}])
async def test_what_comes_may_come_later(ade: Ade, facts: dict[str, Any]) -> None:
    await ade.sign_in()
    await plan(ade, "GET /account", response(seconds=60, **facts))
    waiting = asyncio.create_task(ade.ask("GET", "/account"))
    while not ade.clock._timers:  # noqa: ASYNC110 - the answer is being held back
        await asyncio.sleep(0)
    await ade.clock.advance(59)
    assert not waiting.done()
    await ade.clock.advance(1)
    assert (await waiting).status == facts.get("status", 200)


async def test_results_may_be_forced_for_some_devices_or_all(ade: Ade) -> None:
    uuid = await ade.define()
    path, content = "/profile/devices", {"profile_uuid": uuid, "devices": ["SIM1", "SIM2"]}
    await plan(ade, f"PUT {path}", response(results={"SIM1": "FAILED"}))
    assert await ade.results("PUT", path, **content) == {"SIM1": "FAILED", "SIM2": "SUCCESS"}
    assert ade.record("SIM1").profile is None
    await plan(ade, f"PUT {path}", response(results={"*": "THROTTLED"}))
    answer = good(await ade.ask("PUT", path, content))
    assert set(answer["devices"].values()) == {"THROTTLED"}
    assert answer["retry_after_seconds"] == 1
    for endpoint, method in (("/devices/disown", "POST"), (path, "DELETE")):
        await plan(ade, f"{method} {endpoint}", response(results={"*": "FAILED"}))
        assert set((await ade.results(method, endpoint, **content)).values()) == {"FAILED"}
    assert ade.record("SIM2").profile is not None
    await plan(ade, "POST /devices", response(results={"SIM1": "NOT_ACCESSIBLE"}))
    details = good(await ade.ask("POST", "/devices", {"devices": ["SIM1"]}))
    assert details["devices"] == {"SIM1": {"response_status": "NOT_ACCESSIBLE"}}
    await plan(ade, "POST /device/activationlock", response(results={"*": "FAILED"}))
    locked = good(await ade.ask("POST", "/device/activationlock", {"device": "SIM1"}))
    assert locked["response_status"] == "FAILED"


async def test_a_cursor_may_lead_nowhere(ade: Ade) -> None:
    """Bug D01: the same cursor and more_to_follow, for as often as is planned."""
    cursor = await ade.caught_up()
    await ade.assign_in_portal("SIM9")
    await plan(ade, "POST /devices/sync", {"count": 2, **response(repeat_cursor=True)})
    for _ in range(2):
        page = await ade.sync(cursor)
        assert (page["cursor"], page["more_to_follow"]) == (cursor, True)
        assert serials(page) == ["SIM9"]
    assert (await ade.sync(cursor))["more_to_follow"] is False


@pytest.mark.parametrize(
    ("faults", "place"),
    [
        ({"POST /nowhere": []}, "faults.POST /nowhere"),
        ({"GET /account": [{}]}, "faults.GET /account.0.response"),
        ({"GET /account": [response()]}, "faults.GET /account.0.response"),
        ({"GET /account": [response(status=99)]}, "faults.GET /account.0.response.status"),
        ({"GET /account": [response(status=500, connection="drop")]}, "faults.GET /account.0"),
        ({"GET /account": [response(body="x", seconds=1)]}, "faults.GET /account.0"),
        ({"GET /account": [response(results={"A": "PERHAPS"})]}, "faults.GET /account.0"),
        ({"GET /account": [{"count": 0, **response(status=500)}]}, "faults.GET /account.0.count"),
    ],
)
async def test_a_mistake_in_a_plan_is_named_and_changes_nothing(
    ade: Ade, faults: Any, place: str
) -> None:
    reply = await admin(ade.client, "PUT", "/portal/faults", {"faults": faults})
    assert reply.status == 400
    assert any(mistake.startswith(place) for mistake in reply.json()["mistakes"])
    assert (await admin(ade.client, "GET", "/portal/faults")).json() == {"faults": {}}


def test_all_mistakes_of_a_file_are_named_at_once() -> None:
    text = FILE.replace("status: 400", "status: 7").replace("count: 2", "count: x")
    with pytest.raises(ConfigurationError) as refused:
        settings_file.parse(text, FaultsFile, source="faults.yaml")
    assert len(refused.value.mistakes) == 2
