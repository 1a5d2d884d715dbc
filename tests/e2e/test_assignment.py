"""mdmserver at the device assignment stand-in, over TLS: tokens, syncs, profiles, and each refusal that a server meets there."""

from pathlib import Path
from typing import Any

import pytest

from mdmserver.app import MdmServer
from mdmserver.settings import Settings
from tests.e2e.assignment_office import DAY, DELTA, ORGANIZATION, SERVER, Office, office
from tests.emulator.apple.support import pki


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


# --- tokens


async def test_a_token_brings_the_account_and_every_device() -> None:
    async with office("SIM1", "SIM2", "SIM3") as o:
        status = await o.status()
        assert (status["state"], status["error"]) == ("active", None)
        assert (status["org_name"], status["server_name"]) == (ORGANIZATION, SERVER)
        assert status["server_uuid"].replace("-", "") == o.uuid
        assert await o.devices() == dict.fromkeys(["SIM1", "SIM2", "SIM3"], ("listed", None))
        assert await o.syncs() == [("full", "done")]


async def test_a_new_token_file_ends_the_old_one_at_once_and_its_upload_goes_on() -> None:
    async with office("SIM1") as o:
        file = await o.portal("POST", f"/servers/{o.uuid}/token", {})
        assert await o.refused() == "token_rejected"
        assert (await o.status())["state"] == "refused"
        await o.own("SIM2")
        await o.ask("PUT", f"/tokens/{o.token}/token", file)
        await o.settled()
        await o.sync()
        assert (await o.status())["state"] == "active"
        assert set(await o.devices()) == {"SIM1", "SIM2"}


async def test_a_token_that_was_taken_back_stays_refused() -> None:
    async with office("SIM1") as o:
        await o.portal("DELETE", f"/servers/{o.uuid}/token")
        assert await o.refused() == "token_rejected"
        assert set(await o.devices()) == {"SIM1"}  # what it knew it still knows


async def test_a_token_of_another_server_is_no_renewal() -> None:
    async with office("SIM1") as o:
        key, pem = await o.new_key(token_id=o.token)
        wanted = {"organization": ORGANIZATION, "name": "Other", "certificate": pem}
        file = await o.portal("POST", "/servers", wanted, expect=201)
        path = f"/tokens/{o.token}/token?force=1&key={key}"
        refused = await o.ask("PUT", path, file, expect=409)
        assert "SERVER_CHANGED" in refused["error"]
        assert (await o.sync())[:2] == ("delta", "done")


async def test_a_token_file_for_another_key_cannot_be_opened() -> None:
    async with office() as o:
        _, other = await o.new_key()
        file = await o.portal("POST", f"/servers/{o.uuid}/token", {"certificate": other})
        key, _ = await o.new_key()
        refused = await o.ask("POST", f"/token-keys/{key}/token", file, expect=400)
        assert "token" in refused["error"]


async def test_who_made_the_token_may_change_at_apple() -> None:
    async with office("SIM1") as o:
        path = f"/organizations/{ORGANIZATION}/people/new@example.com"
        await o.portal("PUT", path.replace(" ", "%20"), {"role": "administrator"})
        by = {"by": "new@example.com"}
        file = await o.portal("POST", f"/servers/{o.uuid}/token", by)
        await o.ask("PUT", f"/tokens/{o.token}/token", file)
        await o.settled()
        assert (await o.status())["admin_id"] == "new@example.com"


# --- syncs


async def test_what_the_portal_does_comes_with_the_next_delta() -> None:
    async with office("SIM1", "SIM2") as o:
        await o.own("SIM3")
        await o.portal("POST", "/devices/release", {"serials": ["SIM1"]})
        await o.clock.advance(DELTA + 60)
        await o.settled()
        assert await o.syncs() == [("full", "done"), ("delta", "done")]
        states = {serial: state for serial, (state, _) in (await o.devices()).items()}
        assert states == {"SIM1": "removed", "SIM2": "listed", "SIM3": "listed"}


async def test_a_device_that_goes_and_returns_is_listed_again() -> None:
    async with office("SIM1") as o:
        await o.portal("POST", "/devices/release", {"serials": ["SIM1"]})
        await o.sync()
        assert (await o.devices())["SIM1"][0] == "removed"
        await o.own("SIM1")
        await o.sync()
        assert (await o.devices())["SIM1"][0] == "listed"


async def test_a_device_that_moves_to_another_server_is_gone_from_the_first() -> None:
    async with office("SIM1", "SIM2") as o:
        wanted = {"organization": ORGANIZATION, "name": "Other"}
        await o.portal("POST", "/servers", wanted, expect=201)
        moved = {"organization": ORGANIZATION, "server": "Other", "serials": ["SIM1"]}
        await o.portal("POST", "/devices", moved)
        await o.sync()
        states = {serial: state for serial, (state, _) in (await o.devices()).items()}
        assert states == {"SIM1": "removed", "SIM2": "listed"}


async def test_a_list_of_many_pages_comes_whole() -> None:
    serials = [f"SIM{number:05}" for number in range(2500)]
    async with office(*serials) as o:
        sync = (await o.ask("GET", f"/tokens/{o.token}/syncs"))["syncs"][0]
        assert (sync["kind"], sync["state"], sync["records"]) == ("full", "done", 2500)
        assert sync["pages"] >= 3
        assert (await o.status())["devices"]["listed"] == 2500


async def test_after_a_week_without_access_everything_is_fetched_again() -> None:
    """The cursor has expired by then (seven days)."""
    async with office("SIM1", "SIM2") as o:
        await o.portal("PATCH", f"/servers/{o.uuid}", {"blocked": True})
        await o.clock.advance(8 * DAY)
        await o.settled()
        assert (await o.latest())[1] == "failed"
        await o.portal("POST", "/devices/release", {"serials": ["SIM1"]})
        await o.portal("PATCH", f"/servers/{o.uuid}", {"blocked": False})
        await o.clock.advance(DELTA)
        await o.settled()
        assert (await o.latest())[:2] == ("full", "done")
        states = {serial: state for serial, (state, _) in (await o.devices()).items()}
        assert states == {"SIM1": "removed", "SIM2": "listed"}


@pytest.mark.parametrize("word", ["EXPIRED_CURSOR", "INVALID_CURSOR"])
async def test_a_cursor_that_apple_does_not_take_is_dropped(word: str) -> None:
    """D02: everything is fetched again, at once."""
    async with office("SIM1") as o:
        await o.own("SIM2")
        await o.fail("POST /devices/sync", {"status": 400, "body": word})
        await o.sync()
        assert (await o.latest())[:2] == ("full", "done")
        assert set(await o.devices()) == {"SIM1", "SIM2"}


async def test_an_exhausted_cursor_means_that_nothing_is_new() -> None:
    """D02."""
    async with office("SIM1") as o:
        await o.fail("POST /devices/sync", {"status": 400, "body": "EXHAUSTED_CURSOR"})
        assert (await o.sync())[:2] == ("delta", "done")


async def test_a_cursor_that_does_not_move_ends_the_sync() -> None:
    """D01: a client that trusts more_to_follow asks for ever."""
    async with office("SIM1") as o:
        await o.fail("POST /devices/sync", *[{"repeat_cursor": True}] * 50)
        asked = len((await o.portal("GET", f"/servers/{o.uuid}/calls"))["calls"])
        await o.sync()
        calls = len((await o.portal("GET", f"/servers/{o.uuid}/calls"))["calls"]) - asked
        assert calls < 10


REFUSALS = [
    ("GET /session", 403, "T_C_NOT_SIGNED", "refused"),
    ("GET /session", 403, "ACCESS_DENIED", "refused"),
    ("GET /session", 401, "token_rejected", "refused"),
    ("GET /session", 403, "token_rejected", "refused"),
    ("GET /session", 403, "signature_invalid", "refused"),
    ("GET /session", 400, "USER_AGENT_INVALID", "active"),
    ("POST /devices/sync", 500, "", "active"),
]


@pytest.mark.parametrize(("endpoint", "status", "word", "state"), REFUSALS)
async def test_a_refusal_is_shown_in_apples_word_and_the_next_sync_goes_on(
    endpoint: str, status: int, word: str, state: str
) -> None:
    """D07, D08: a sync that stops must say why, and go on once the reason is gone."""
    async with office("SIM1") as o:
        await o.own("SIM2")
        # Whatever session there is is not kept for a quarter of an hour.
        await o.fail(endpoint, *[{"status": status, "body": word}] * 20)
        _, result, error = await o.sync()
        assert result == "failed"
        assert word in (error or "")
        shown = await o.status()
        assert shown["state"] == state
        if state == "refused":
            assert shown["error"]["word"] == word
            problems = (await o.ask("GET", "/readiness"))["problems"]
            assert any(word in problem for problem in problems)
        await o.portal("DELETE", "/faults")
        await o.clock.advance(DELTA)
        await o.settled()
        assert set(await o.devices()) == {"SIM1", "SIM2"}
        assert (await o.status())["state"] == "active"


async def test_terms_that_are_not_signed_stop_syncs_until_they_are() -> None:
    """D08, without a canned answer: the portal has new terms."""
    async with office("SIM1") as o:
        path = f"/organizations/{ORGANIZATION}".replace(" ", "%20")
        await o.portal("PATCH", path, {"terms_signed": False})
        assert await o.refused() == "T_C_NOT_SIGNED"
        await o.portal("PATCH", path, {"terms_signed": True})
        assert (await o.sync())[1] == "done"
        assert (await o.status())["error"] is None


@pytest.mark.parametrize(
    ("status", "word"), [(401, "UNAUTHORIZED"), (403, "FORBIDDEN")], ids=["401", "403"]
)
async def test_an_expired_session_is_made_anew_within_the_sync(status: int, word: str) -> None:
    async with office("SIM1") as o:
        await o.own("SIM2")
        await o.fail("POST /devices/sync", {"status": status, "body": word})
        assert (await o.sync())[1] == "done"
        assert set(await o.devices()) == {"SIM1", "SIM2"}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("wait", ["120", "Thu, 01 Jan 2026 00:18:00 GMT"])
async def test_a_sync_waits_as_retry_after_asks(status: int, wait: str) -> None:
    async with office("SIM1") as o:
        await o.own("SIM2")
        await o.fail("POST /devices/sync", {"status": status, "headers": {"Retry-After": wait}})
        await o.sync()
        assert set(await o.devices()) == {"SIM1"}
        await o.clock.advance(121)
        await o.settled()
        assert set(await o.devices()) == {"SIM1", "SIM2"}


@pytest.mark.parametrize(
    "responses",
    [
        [{"connection": "reset"}] * 2,  # a kept connection that is gone is tried once more
        [{"connection": "cut"}],
        [{"bytes": 20}],
        [{"status": 200, "body": "<html>maintenance</html>", "content_type": "text/html"}],
        [{"status": 200, "body": "{}", "content_type": "application/json"}],
    ],
    ids=["reset", "cut", "truncated", "html", "empty"],
)
async def test_an_answer_that_cannot_be_read_stores_nothing_and_loses_nothing(
    responses: list[dict[str, Any]],
) -> None:
    """D06: the cursor never passes what is stored."""
    async with office("SIM1") as o:
        await o.own("SIM2")
        await o.fail("POST /devices/sync", *responses)
        assert (await o.sync())[1] == "failed"
        assert set(await o.devices()) == {"SIM1"}
        await o.clock.advance(DELTA)
        await o.settled()
        assert set(await o.devices()) == {"SIM1", "SIM2"}


async def test_devices_that_a_delta_withheld_come_with_the_full_list() -> None:
    """D03: a bulk transfer that no delta tells of."""
    async with office("SIM1") as o:
        wanted = {"organization": ORGANIZATION, "server": SERVER, "serials": ["SIM2"]}
        await o.portal("POST", "/devices", {**wanted, "announce": False})
        await o.sync()
        assert set(await o.devices()) == {"SIM1"}
        await o.clock.advance(8 * DAY)
        await o.settled()
        assert set(await o.devices()) == {"SIM1", "SIM2"}


# --- profiles


async def test_the_default_profile_reaches_every_device_and_each_that_comes() -> None:
    async with office("SIM1", "SIM2") as o:
        answer = await o.define(default=True)
        assert answer["devices"] == {"SIM1": "SUCCESS", "SIM2": "SUCCESS"}
        assert o.at_apple("SIM1") == ("assigned", o.profile)
        await o.own("SIM3")
        await o.sync()
        assert o.at_apple("SIM3") == ("assigned", o.profile)
        assert (await o.devices())["SIM3"] == ("listed", o.profile)
        assert (await o.status())["devices"]["without_profile"] == 0
        at_apple = await o.ask("GET", f"/tokens/{o.token}/profiles/{o.profile}?at_apple=1")
        assert at_apple["at_apple"]["url"].startswith(o.server.url)


async def test_a_profile_is_assigned_taken_away_and_the_device_disowned() -> None:
    async with office("SIM1", "SIM2") as o:
        await o.define(profile_name="By hand")
        assert o.at_apple("SIM1") == ("empty", None)
        wanted = {"profile_uuid": o.profile, "serials": ["SIM1", "NOBODYS"]}
        answer = await o.ask("POST", f"/tokens/{o.token}/assign", wanted)
        assert answer["devices"] == {"SIM1": "SUCCESS", "NOBODYS": "NOT_ACCESSIBLE"}
        assert o.at_apple("SIM1") == ("assigned", o.profile)
        await o.ask("POST", f"/tokens/{o.token}/unassign", {"serials": ["SIM1"]})
        assert o.at_apple("SIM1") == ("removed", None)
        gone = {"serials": ["SIM2"], "for_good": True}
        answer = await o.ask("POST", f"/tokens/{o.token}/disown", gone)
        assert answer["devices"] == {"SIM2": "SUCCESS"}
        assert o.services.registry.record("SIM2").organization is None
        await o.sync()
        assert (await o.devices())["SIM2"][0] == "removed"


async def test_results_that_apple_refuses_are_kept_for_each_device() -> None:
    async with office("SIM1", "SIM2", "SIM3") as o:
        await o.fail(
            "POST /profile/devices", {"results": {"SIM1": "FAILED", "SIM2": "NOT_ACCESSIBLE"}}
        )
        await o.define()
        wanted = {"profile_uuid": o.profile, "serials": ["SIM1", "SIM2", "SIM3"]}
        answer = await o.ask("POST", f"/tokens/{o.token}/assign", wanted)
        assert answer["devices"] == {
            "SIM1": "FAILED",
            "SIM2": "NOT_ACCESSIBLE",
            "SIM3": "SUCCESS",
        }
        devices = (await o.ask("GET", f"/tokens/{o.token}/devices"))["devices"]
        assert [one["assign_error"] for one in devices] == ["FAILED", "NOT_ACCESSIBLE", None]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"is_mdm_removable": False, "is_supervised": False}, "FLAGS_INVALID"),
        ({"profile_name": "x" * 200}, "CONFIG_NAME_INVALID"),
        ({"url": "not a url"}, "CONFIG_URL_INVALID"),
        ({"support_phone_number": "1" * 60}, "SUPPORT_PHONE_INVALID"),
        ({"department": "x" * 200}, "DEPARTMENT_INVALID"),
    ],
    ids=["flags", "name", "url", "phone", "department"],
)
async def test_a_profile_that_apple_refuses_is_told_in_its_word(
    fields: dict[str, Any], word: str
) -> None:
    async with office("SIM1") as o:
        refused = await o.ask("POST", f"/tokens/{o.token}/profiles", fields, expect=502)
        assert word in refused["error"]
        assert (await o.ask("GET", f"/tokens/{o.token}/profiles"))["profiles"] == []


async def test_a_thousand_serial_numbers_go_into_one_request() -> None:
    """D05: more in one request are refused."""
    serials = [f"SIM{number:05}" for number in range(1500)]
    async with office(*serials) as o:
        await o.define(default=True)
        assert (await o.status())["devices"]["without_profile"] == 0
        calls = (await o.portal("GET", f"/servers/{o.uuid}/calls"))["calls"]
        assigns = [call["devices"] for call in calls if call["step"] == "assignment_assign"]
        assert sorted(assigns) == [500, 1000]


async def test_a_server_that_starts_again_goes_on_where_it_was(tmp_path: Path) -> None:
    async with office("SIM1", state=tmp_path) as o:
        await o.define(default=True)
        services, clock, token = o.services, o.clock, o.token
        await o.server.__aexit__(None, None, None)
        await o.own("SIM2")
        async with MdmServer(
            Settings(organization=ORGANIZATION, assignment_url=services.url),
            clock=clock,
            state=tmp_path,
            machine_info_roots=[pki().root],
            attestation_roots=[pki().attestation.root],
            assignment_roots=[pki().tls_ca.certificate],
        ) as server:
            again = Office(clock=clock, services=services, server=server, token=token)
            await clock.advance(DELTA)
            await again.settled()
            assert await again.syncs() == [("full", "done"), ("delta", "done")]
            assert again.at_apple("SIM2") == ("assigned", o.profile)
