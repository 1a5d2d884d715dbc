"""Profiles of the assignment API: define, read, assign, unassign, results by serial number, limits (apple-services.md 4.9)."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from certs.clock import SimulatedClock
from emulator.apple.ledger import MAX_PROFILES
from emulator.apple.pace import Pace
from emulator.apple.records import Profile
from tests.emulator.apple.assignment_support import (
    OTHER_UUID,
    URL,
    Ade,
    Started,
    good,
    portal,
    signed_up,
)
from tests.emulator.apple.support import Client, Device
from tests.support import VECTORS, needs_vectors


async def refused(ade: Ade, method: str, path: str, content: Any = None) -> tuple[int, str]:
    status, word, _ = (await ade.ask(method, path, content)).refusal
    return status, word


def profile(**keys: Any) -> dict[str, Any]:
    """A definition; None takes a key away."""
    keys = {"profile_name": "P", "url": URL, **keys}
    return {key: value for key, value in keys.items() if value is not None}


# ---- define and read ----


async def test_every_definition_is_a_new_profile_that_can_be_read(ade: Ade) -> None:
    keys = profile(is_supervised=True, skip_setup_items=["Siri", "Whatever"], org_magic="M")
    first = good(await ade.ask("POST", "/profile", keys))
    second = good(await ade.ask("POST", "/profile", keys))
    assert first["devices"] == {}
    uuid = first["profile_uuid"]
    assert len(uuid) == 32
    assert uuid == uuid.upper() != second["profile_uuid"]
    read = good(await ade.ask("GET", f"/profile?profile_uuid={uuid}"))
    assert read == {
        "profile_uuid": uuid,
        "profile_name": "P",
        "url": URL,
        "org_magic": "M",
        "skip_setup_items": ["Siri", "Whatever"],
        "allow_pairing": True,
        "is_supervised": True,
        "is_mandatory": False,
        "is_mdm_removable": True,
        "await_device_configured": False,
        "is_multi_user": False,
        "is_return_to_service": False,
        "auto_advance_setup": False,
        "do_not_use_profile_from_backup": False,
    }


async def test_unknown_members_are_ignored(ade: Ade) -> None:
    """One client spells the flags without `is_`, and the service does not mind."""
    keys = profile(supervised=True, mdm_removable=False, later={"a": [1]}, department=None)
    uuid = good(await ade.ask("POST", "/profile", keys))["profile_uuid"]
    read = good(await ade.ask("GET", f"/profile?profile_uuid={uuid}"))
    assert read["is_supervised"] is False
    assert not {"supervised", "mdm_removable", "later"} & set(read)


@needs_vectors
@pytest.mark.vectors
async def test_a_clients_published_request_is_taken(ade: Ade) -> None:
    path = VECTORS / "dep" / "petarov-create-profile-L41-request.json"
    content = json.loads(path.read_text())
    answer = good(await ade.ask("POST", "/profile", content))
    assert answer["devices"] == dict.fromkeys(content["devices"], "NOT_ACCESSIBLE")


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"profile_name": None}, "CONFIG_NAME_REQUIRED"),
        ({"profile_name": ""}, "CONFIG_NAME_REQUIRED"),
        ({"profile_name": None, "url": "x"}, "CONFIG_NAME_REQUIRED"),
        ({"profile_name": "n" * 126}, "CONFIG_NAME_INVALID"),
        ({"url": None}, "CONFIG_URL_REQUIRED"),
        ({"url": ""}, "CONFIG_URL_REQUIRED"),
        ({"url": "http://mdm.example.com"}, "CONFIG_URL_INVALID"),
        ({"url": "https://x/" + "a" * 2000}, "CONFIG_URL_INVALID"),
        ({"configuration_web_url": "ftp://x"}, "CONFIG_URL_INVALID"),
        ({"department": "d" * 126}, "DEPARTMENT_INVALID"),
        ({"support_phone_number": "5" * 51}, "SUPPORT_PHONE_INVALID"),
        ({"support_email_address": "e" * 251}, "SUPPORT_EMAIL_INVALID"),
        ({"org_magic": ""}, "MAGIC_INVALID"),
        ({"org_magic": "m" * 257}, "MAGIC_INVALID"),
        ({"language": "english", "region": "US"}, "LOCALE_INVALID"),
        ({"language": "en", "region": "usa"}, "LOCALE_INVALID"),
        ({"is_mdm_removable": False}, "FLAGS_INVALID"),
        ({"is_mdm_removable": False, "is_supervised": False}, "FLAGS_INVALID"),
        ({"is_mdm_removable": False, "department": "d" * 126}, "DEPARTMENT_INVALID"),
        ({"is_multi_user": True, "is_return_to_service": True}, "FLAGS_INVALID"),
        ({"is_supervised": "yes"}, "MALFORMED_REQUEST_BODY"),
        ({"is_mdm_removable": 0}, "MALFORMED_REQUEST_BODY"),
        ({"anchor_certs": ["no base64"]}, "MALFORMED_REQUEST_BODY"),
        ({"skip_setup_items": "Siri"}, "MALFORMED_REQUEST_BODY"),
        ({"devices": "SIM1"}, "MALFORMED_REQUEST_BODY"),
        ({"devices": [1]}, "MALFORMED_REQUEST_BODY"),
    ],
)
async def test_a_profile_that_cannot_be_is_refused_in_the_apis_word(
    ade: Ade, keys: Mapping[str, Any], word: str
) -> None:
    assert await refused(ade, "POST", "/profile", profile(**keys)) == (400, word)
    _, _, ledger = ade.services.registry.server("F6E1E81A93837E1E87D6F4D99E235117")
    assert ledger.profiles == {}


@pytest.mark.parametrize(
    "keys",
    [
        {"is_mdm_removable": False, "is_supervised": True},
        {"language": "en", "region": "US"},
        {"language": "", "region": "", "department": ""},
        {"department": "d" * 125, "org_magic": "m" * 256, "profile_name": "n" * 125},
    ],
)
async def test_a_profile_at_its_limits_is_taken(ade: Ade, keys: Mapping[str, Any]) -> None:
    good(await ade.ask("POST", "/profile", profile(**keys)))


@pytest.mark.ade(29)
async def test_the_thousand_and_first_profile_of_a_token_is_refused(ade: Ade) -> None:
    _, _, ledger = ade.services.registry.server("F6E1E81A93837E1E87D6F4D99E235117")
    for number in range(MAX_PROFILES - 1):
        uuid = f"{number:032X}"
        ledger.profiles[uuid] = Profile(uuid=uuid, fields={})
    await ade.define()
    assert await refused(ade, "POST", "/profile", profile()) == (400, "PROFILE_LIMIT_REACHED")


async def test_a_profile_is_read_by_any_spelling_of_its_uuid(ade: Ade) -> None:
    uuid = await ade.define()
    dashed = f"{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}".lower()
    assert good(await ade.ask("GET", f"/profile?profile_uuid={dashed}"))["profile_uuid"] == uuid


async def test_profiles_of_others_are_not_found(
    client: Client, clock: SimulatedClock, ade: Ade
) -> None:
    uuid = await ade.define()
    other = await signed_up(client, clock, OTHER_UUID)
    path = f"/profile?profile_uuid={uuid}"
    assert await refused(other, "GET", path) == (404, "NOT_FOUND")
    content = {"profile_uuid": uuid, "devices": ["SIM1"]}
    assert await refused(other, "PUT", "/profile/devices", content) == (404, "NOT_FOUND")
    assert await refused(ade, "GET", "/profile") == (400, "PROFILE_UUID_REQUIRED")
    content = {"devices": ["SIM1"]}
    assert await refused(ade, "PUT", "/profile/devices", content) == (400, "PROFILE_UUID_REQUIRED")


# ---- assign ----


@pytest.mark.ade(111)
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_assigning_answers_for_each_serial_number(ade: Ade, method: str) -> None:
    await ade.assign_in_portal("OTHER", server="Test")
    uuid = await ade.define()
    await ade.clock.advance(60)
    devices = ["SIM1", "OTHER", "NOBODY", "SIM1"]
    reply = await ade.ask(method, "/profile/devices", {"profile_uuid": uuid, "devices": devices})
    assert good(reply) == {
        "profile_uuid": uuid,
        "devices": {"SIM1": "SUCCESS", "OTHER": "NOT_ACCESSIBLE", "NOBODY": "NOT_ACCESSIBLE"},
    }
    device = (await ade.fetch())["devices"][0]
    assert (device["profile_status"], device["profile_uuid"]) == ("assigned", uuid)
    assert device["profile_assign_time"] == "2026-01-01T00:01:00Z"
    assert "profile_push_time" not in device


async def test_a_definition_assigns_its_devices_at_once(ade: Ade) -> None:
    uuid = await ade.define("SIM1", "SIM2")
    devices = (await ade.fetch())["devices"]
    assert [device.get("profile_uuid") for device in devices] == [uuid, uuid, None]


async def test_unassigning_says_what_was_there(ade: Ade) -> None:
    uuid = await ade.define("SIM1")
    results = await ade.results("DELETE", "/profile/devices", devices=["SIM1", "SIM2", "NOBODY"])
    assert results == {"SIM1": "SUCCESS", "SIM2": "SUCCESS", "NOBODY": "NOT_ACCESSIBLE"}
    first, second, _ = (await ade.fetch())["devices"]
    assert (first["profile_status"], first["profile_uuid"]) == ("removed", uuid)
    assert "profile_assign_time" in first
    assert (second["profile_status"], "profile_uuid" in second) == ("empty", False)
    await ade.results("PUT", "/profile/devices", profile_uuid=uuid, devices=["SIM1"])
    assert (await ade.fetch())["devices"][0]["profile_status"] == "assigned"


async def test_a_removed_profile_may_leave_no_trace(started: Started) -> None:
    async with started(unassign_status="empty") as ade:
        await ade.define("SIM1")
        await ade.results("DELETE", "/profile/devices", devices=["SIM1"])
        (device,) = (await ade.fetch())["devices"]
        assert device["profile_status"] == "empty"
        assert not {"profile_uuid", "profile_assign_time"} & set(device)


async def test_a_device_that_changes_servers_leaves_its_profile_behind(
    client: Client, clock: SimulatedClock, ade: Ade
) -> None:
    await ade.define("SIM1")
    await ade.assign_in_portal("SIM1", server="Test")
    other = await signed_up(client, clock, OTHER_UUID)
    assert (await other.fetch())["devices"][0]["profile_status"] == "empty"


@pytest.mark.ade(39)
async def test_a_device_that_fetches_its_profile_is_pushed_and_the_sync_says_so(
    ade: Ade, client: Client, device: Device
) -> None:
    await ade.assign_in_portal(device.serial_number)
    envelope = device.envelope(device.configuration_request())
    assert (await client.configuration(envelope)).body == b"PROFILE_NOT_FOUND"
    uuid = await ade.define(device.serial_number, is_supervised=True)
    cursor = await ade.caught_up()
    await ade.clock.advance(60)
    document = (await client.configuration(envelope)).json()
    assert document["config"]["url"] == URL
    await client.configuration(envelope)  # a repeated fetch is no news
    ade.session = ""
    (told,) = (await ade.sync(cursor))["devices"]
    assert (told["op_type"], told["profile_status"], told["profile_uuid"]) == (
        "modified",
        "pushed",
        uuid,
    )
    assert told["profile_push_time"] == told["op_date"] == "2026-01-01T00:01:00Z"


@pytest.mark.ade(40)
async def test_a_profile_assigned_anew_waits_for_the_next_activation(ade: Ade) -> None:
    uuid = await ade.define("SIM1")
    ade.record("SIM1").pushed(ade.clock.now())
    await ade.results("PUT", "/profile/devices", profile_uuid=uuid, devices=["SIM1"])
    assert (await ade.fetch())["devices"][0]["profile_status"] == "assigned"


async def test_the_portals_own_profile_is_the_servers_too(
    client: Client, clock: SimulatedClock
) -> None:
    server = {"name": "S", "profile": {"url": URL}, "devices": ["SIM1", "SIM2"]}
    client.services.apply(portal(servers=[server]))
    (uuid,) = client.services.registry.ledgers
    ade = await signed_up(client, clock, uuid)
    own = (await ade.fetch())["devices"][0]["profile_uuid"]
    assert good(await ade.ask("GET", f"/profile?profile_uuid={own}"))["url"] == URL
    mine = await ade.define("SIM1")
    # The portal read again leaves what the server assigned, as long as its own profile is the same.
    client.services.apply(portal(servers=[server]))
    uuids = [device["profile_uuid"] for device in (await ade.fetch())["devices"]]
    assert uuids == [mine, own]
    server["profile"] = {"url": URL, "department": "IT"}
    client.services.apply(portal(servers=[server]))
    after = {device["profile_uuid"] for device in (await ade.fetch())["devices"]}
    assert len(after) == 1
    assert not after & {mine, own}


async def test_without_a_profile_of_the_portal_a_server_keeps_its_own(ade: Ade) -> None:
    uuid = await ade.define("SIM1")
    ade.services.apply(portal("SIM1", "SIM2"))
    first, second = (await ade.fetch())["devices"]
    assert (first["profile_uuid"], second["profile_status"]) == (uuid, "empty")


# ---- limits ----


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/profile"),
        ("PUT", "/profile/devices"),
        ("DELETE", "/profile/devices"),
        ("POST", "/devices/disown"),
    ],
)
async def test_a_thousand_serial_numbers_are_taken_and_one_more_is_not(
    ade: Ade, method: str, path: str
) -> None:
    """Bug D05."""
    uuid = await ade.define()
    content = profile(profile_uuid=uuid, devices=[f"X{number}" for number in range(1001)])
    assert await refused(ade, method, path, content) == (400, "MALFORMED_REQUEST_BODY")
    content["devices"].pop()
    assert len(good(await ade.ask(method, path, content))["devices"]) == 1000


async def test_the_limit_of_serial_numbers_is_a_switch(started: Started) -> None:
    async with started(max_serials=0) as ade:
        devices = [f"X{number}" for number in range(3000)]
        assert len(await ade.results("DELETE", "/profile/devices", devices=devices)) == 3000


@pytest.mark.parametrize(
    ("version", "word", "wait"),
    [(8, "FAILED", None), (9, "THROTTLED", None), (10, "THROTTLED", 20)],
)
async def test_more_assignments_than_a_minute_has_are_throttled(
    started: Started,
    version: int,
    word: str,
    wait: int | None,
) -> None:
    async with started(assigned_per_minute=6) as ade:
        devices = [f"X{number}" for number in range(8)]
        await ade.assign_in_portal(*devices)
        uuid, ade.version = await ade.define(), version
        content = {"profile_uuid": uuid, "devices": devices}
        answer = good(await ade.ask("PUT", "/profile/devices", content))
        assert list(answer["devices"].values()) == ["SUCCESS"] * 6 + [word] * 2
        assert answer.get("retry_after_seconds") == wait
        await ade.clock.advance(20)
        content["devices"] = devices[6:]
        answer = good(await ade.ask("PUT", "/profile/devices", content))
        assert set(answer["devices"].values()) == {"SUCCESS"}


@pytest.mark.ade(32)
async def test_pages_come_at_three_thousand_devices_a_minute_where_the_switch_says_so(
    started: Started,
) -> None:
    async with started(devices_per_minute=3000) as ade:
        await ade.assign_in_portal(*(f"X{number}" for number in range(99)))
        await ade.sign_in()
        waiting = asyncio.create_task(ade.fetch(limit=1000))
        while not ade.clock._timers:  # noqa: ASYNC110 - the page is being held back
            await asyncio.sleep(0)
        await ade.clock.advance(1.9)
        assert not waiting.done()
        await ade.clock.advance(0.1)
        assert len((await waiting)["devices"]) == 100


def test_the_pace_is_each_servers_own_and_adds_up() -> None:
    pace, now = Pace(3000), SimulatedClock().now()
    assert [pace.delay_s("A", 1000, now) for _ in range(2)] == [20, 40]
    assert pace.delay_s("B", 50, now) == 1
    assert pace.delay_s("B", 0, now) == 0
    assert Pace().delay_s("A", 10**6, now) == 0


async def test_a_fetch_that_begins_too_soon_is_in_the_log(ade: Ade) -> None:
    await ade.fetch()
    with capture_logs() as lines:
        await ade.fetch()
        await ade.clock.advance(1)
        await ade.fetch()
    assert [line["event"] for line in lines].count("fetch_too_soon") == 1


# ---- bodies ----


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000, b'{"a": NaN}', b"<plist/>"]
)
@pytest.mark.parametrize("path", ["/server/devices", "/devices/sync", "/profile", "/devices"])
async def test_what_is_no_json_object_is_malformed(ade: Ade, path: str, body: bytes) -> None:
    await ade.sign_in()
    reply = await ade.send("POST", path, body, headers={"X-ADM-Auth-Session": ade.session})
    assert reply.refusal == (400, "MALFORMED_REQUEST_BODY", "text/plain")


@pytest.mark.parametrize(
    "content", [{"limit": 0}, {"limit": -1}, {"limit": "10"}, {"limit": True}, {"cursor": 7}]
)
async def test_a_page_request_of_wrong_types_is_malformed(ade: Ade, content: Any) -> None:
    word = await refused(ade, "POST", "/server/devices", content)
    assert word == (400, "MALFORMED_REQUEST_BODY")


async def test_a_body_above_ten_megabytes_is_a_413(ade: Ade) -> None:
    await ade.sign_in()
    headers = {"X-ADM-Auth-Session": ade.session}
    big = b'{"devices": ["' + b"X" * 10 * 1024 * 1024 + b'"]}'
    reply = await ade.send("POST", "/devices", big, headers=headers)
    assert reply.status == 413
    assert (await ade.fetch())["more_to_follow"] is False


async def test_ten_megabytes_of_serial_numbers_are_answered(ade: Ade) -> None:
    devices = [f"X{number:011d}" for number in range(300_000)]
    reply = await ade.ask("POST", "/profile/devices", {"profile_uuid": "A", "devices": devices})
    assert reply.refusal == (400, "MALFORMED_REQUEST_BODY", "text/plain")
