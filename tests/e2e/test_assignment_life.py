"""A token from its first sync to its end, at the stand-in over TLS: what slows it down, what ends it, and who leaves."""

import asyncio
from typing import Any

import aiohttp
import pytest

from emulator.apple.assignment_settings import AssignmentSettings
from emulator.wire.device_request import DeviceRequest, Operation, encode_request
from emulator.wire.envelope import encode
from tests.e2e.assignment_office import DAY, DELTA, ORGANIZATION, SERVER, Office, office
from tests.emulator.apple.support import Client, Device, ec_key, pki
from tests.support import rsa_key


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    """Keys are made before the event loop runs."""
    pki()
    rsa_key(1)
    ec_key(1)


async def calls(o: Office, step: str) -> int:
    """How often Apple's side was asked for that."""
    made = (await o.portal("GET", f"/servers/{o.uuid}/calls"))["calls"]
    return sum(call["step"] == step for call in made)


# --- an end that comes by itself


async def test_after_a_year_a_token_is_over_until_it_is_renewed() -> None:
    """D09."""
    async with office("SIM1") as o:
        await o.clock.advance(365 * DAY)
        assert (await o.status())["state"] == "expired"
        asked = await calls(o, "assignment_sync")
        await o.clock.advance(2 * DELTA)
        assert await calls(o, "assignment_sync") == asked  # nothing that could not succeed
        file = await o.portal("POST", f"/servers/{o.uuid}/token", {})
        await o.ask("PUT", f"/tokens/{o.token}/token", file)
        await o.own("SIM2")
        assert (await o.sync())[1] == "done"
        assert (await o.status())["state"] == "active"
        assert set(await o.devices()) == {"SIM1", "SIM2"}


@pytest.mark.parametrize("event", ["password_changed", "left"])
async def test_a_token_dies_with_the_account_of_who_made_it(event: str) -> None:
    async with office("SIM1") as o:
        admin = (await o.status())["admin_id"]
        path = f"/organizations/{ORGANIZATION}/people/{admin}/events".replace(" ", "%20")
        await o.portal("POST", path, {"event": event})
        assert await o.refused() == "token_rejected"


# --- an end that an administrator makes


async def test_a_token_goes_when_devices_default_profile_and_profiles_are_gone() -> None:
    async with office("SIM1", "SIM2") as o:
        await o.define(default=True)
        path = f"/tokens/{o.token}"
        assert "2 devices" in (await o.ask("DELETE", path, expect=409))["error"]
        for serial in ("SIM1", "SIM2"):
            await o.ask("DELETE", f"{path}/devices/{serial}", expect=200)
        assert "default profile" in (await o.ask("DELETE", path, expect=409))["error"]
        await o.ask("DELETE", f"{path}/default-profile")
        assert "1 profiles" in (await o.ask("DELETE", path, expect=409))["error"]
        await o.ask("DELETE", f"{path}/profiles/{o.profile}")
        await o.ask("DELETE", path)
        await o.ask("GET", path, expect=404)
        asked = await calls(o, "assignment_sync")
        await o.clock.advance(8 * DAY)
        assert await calls(o, "assignment_sync") == asked


async def test_what_is_deleted_here_alone_comes_back_with_the_full_list() -> None:
    """Rule 106; what was taken away in the portal as well stays away."""
    async with office("SIM1", "SIM2", "SIM3") as o:
        for serial in ("SIM1", "SIM2"):
            await o.ask("DELETE", f"/tokens/{o.token}/devices/{serial}")
        await o.portal("POST", "/devices/release", {"serials": ["SIM2"]})
        await o.sync()
        assert set(await o.devices()) - {"SIM2"} == {"SIM3"}
        await o.clock.advance(8 * DAY)
        await o.settled()
        states = {serial: state for serial, (state, _) in (await o.devices()).items()}
        assert states.pop("SIM2", "removed") == "removed"
        assert states == {"SIM1": "listed", "SIM3": "listed"}


# --- who leaves


@pytest.mark.ade(45)
async def test_a_device_that_leaves_in_its_thirty_days_is_removed_by_the_next_delta() -> None:
    """Added with Configurator, it asks Apple's side itself to be let go; the server learns that from its sync."""
    async with office("SIM9") as o, aiohttp.ClientSession() as http:
        client, device = Client(o.services, http), Device(1, o.clock)
        assert (await client.provision(device)).status == 200
        wanted = {
            "organization": ORGANIZATION,
            "server": SERVER,
            "serials": [device.serial_number],
            "start": "enrollment",
        }
        await o.portal("POST", "/devices/configurator", wanted)
        await o.sync()
        assert (await o.devices())[device.serial_number][0] == "listed"
        await o.clock.advance(29 * DAY)
        await o.settled()
        leave = DeviceRequest(
            serial_number=device.serial_number,
            udid=device.udid,
            action=Operation.UNENROLL.action,
        )
        body = encode(device.envelope(encode_request(leave)))
        assert (await client.post(Operation.UNENROLL.path, body)).status == 200
        assert (await o.sync())[:2] == ("delta", "done")
        assert (await o.devices())[device.serial_number][0] == "removed"
        await o.clock.advance(46 * DAY)
        await o.settled()
        assert set(await o.devices()) == {"SIM9"}


# --- throttled, two at once


async def test_throttled_devices_get_the_default_profile_when_they_may() -> None:
    settings = AssignmentSettings(assigned_per_minute=2)
    serials = [f"SIM{number}" for number in range(5)]
    async with office(*serials, settings=settings) as o:
        answer = await o.define(default=True)
        assert sorted(answer["devices"].values()) == ["SUCCESS"] * 2 + ["THROTTLED"] * 3
        await o.clock.advance(10 * 60)
        await o.settled()
        assert {o.at_apple(serial) for serial in serials} == {("assigned", o.profile)}
        assert (await o.status())["devices"]["without_profile"] == 0


async def test_of_two_syncs_at_once_one_runs() -> None:
    """D11."""
    async with office("SIM1") as o:
        await o.clock.advance(16 * 60)
        asked = await calls(o, "assignment_sync")
        path = f"/tokens/{o.token}/sync"
        server = o.server

        async def press() -> int:
            try:
                await o._call(server.admin_url, server.token, "POST", f"/v1{path}", {}, 202)
            except AssertionError:
                return 0
            return 1

        assert sum(await asyncio.gather(press(), press())) == 1
        await o.settled()
        assert await calls(o, "assignment_sync") == asked + 1


# --- cursors and words


async def test_a_cursor_of_another_token_is_refused_and_everything_fetched_again() -> None:
    async with office("SIM1") as o:
        store = o.server.store.assignment
        first = o.token
        key, pem = await o.new_key()
        other = {"organization": ORGANIZATION, "name": "Other", "certificate": pem}
        file = await o.portal("POST", "/servers", other, expect=201)
        answer = await o.ask("POST", f"/token-keys/{key}/token", file, expect=201)
        await o.settled()
        strange = await store.token(answer["token_id"])
        assert strange is not None
        assert strange.position.cursor is not None
        latest = (await store.syncs(first, 1))[0]
        await store.store_page(
            latest.sync_id, first, [], kind="full", cursor=strange.position.cursor, at=o.clock.now()
        )
        await store.end_full(first, o.clock.now())
        await o.own("SIM2")
        await o.sync()
        assert [kind for kind, _ in await o.syncs()] == ["full", "delta", "full"]
        assert set(await o.devices()) == {"SIM1", "SIM2"}


async def test_words_in_quotes_are_the_same_words() -> None:
    """As Apple's simulator sends them."""
    async with office("SIM1", settings=AssignmentSettings(quoted_errors=True)) as o:
        path = f"/organizations/{ORGANIZATION}".replace(" ", "%20")
        await o.portal("PATCH", path, {"terms_signed": False})
        assert await o.refused() == "T_C_NOT_SIGNED"
        assert (await o.status())["error"]["word"] == "T_C_NOT_SIGNED"


@pytest.mark.parametrize("replaced", ["403 token_rejected", "403 signature_invalid"])
async def test_each_answer_to_a_replaced_token_stops_the_syncs(replaced: Any) -> None:
    """D08: the real service was seen to give each of them."""
    async with office("SIM1", settings=AssignmentSettings(replaced_token=replaced)) as o:
        await o.portal("POST", f"/servers/{o.uuid}/token", {})
        assert await o.refused() == replaced.removeprefix("403 ")
        assert (await o.status())["state"] == "refused"


# --- devices that leave through other doors


@pytest.mark.parametrize("way", ["portal file", "release"])
async def test_whichever_way_the_portal_lets_a_device_go_the_next_delta_says_so(way: str) -> None:
    async with office("SIM1", "SIM2") as o:
        if way == "release":
            await o.portal("POST", "/devices/release", {"serials": ["SIM1"]})
        else:
            server = {"name": SERVER, "devices": ["SIM2"]}
            organizations = [{"name": ORGANIZATION, "servers": [server]}]
            await o.portal("PUT", "", {"organizations": organizations})
        assert (await o.sync())[:2] == ("delta", "done")
        states = {serial: state for serial, (state, _) in (await o.devices()).items()}
        assert states == {"SIM1": "removed", "SIM2": "listed"}


# --- answers that get lost after the deed


async def test_an_assignment_whose_answer_is_lost_is_made_good_by_the_next_sync() -> None:
    async with office("SIM1") as o:
        await o.define(default=True)
        await o.own("SIM2")
        await o.fail("POST /profile/devices", *[{"connection": "drop"}] * 2)
        await o.sync()
        assert o.at_apple("SIM2") == ("assigned", o.profile)  # done, but nobody was told
        await o.sync()
        assert (await o.devices())["SIM2"] == ("listed", o.profile)
        assert (await o.status())["devices"]["without_profile"] == 0


async def test_a_definition_whose_answer_is_lost_is_an_error_and_no_profile_here() -> None:
    async with office("SIM1") as o:
        await o.fail("POST /profile", {"connection": "drop"})
        path = f"/tokens/{o.token}/profiles"
        refused = await o.ask("POST", path, {"default": True}, expect=504)
        assert "UNREACHABLE" in refused["error"]
        assert (await o.ask("GET", path))["profiles"] == []
        await o.define(default=True)
        assert o.at_apple("SIM1") == ("assigned", o.profile)
