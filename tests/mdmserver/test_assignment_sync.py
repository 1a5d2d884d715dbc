"""Syncs by the clock and by hand, against an assignment API that says what it is told to."""

import asyncio
from pathlib import Path

import pytest

from certs.clock import SimulatedClock
from certs.faults import Action, FaultPoint, Side
from emulator.http import HttpDoor, TrustSet
from tests.mdmserver.scripted_apple import ACCOUNT, Say, desk, device, operation, page


async def test_an_upload_is_followed_by_session_account_and_the_whole_list() -> None:
    async with desk() as d:
        d.apple.say(
            "POST /server/devices",
            Say(page("c1", device("A"), device("B"), more=True)),
            Say(page("c2", device("C"))),
        )
        token = await d.token()
        assert [asked.call for asked in d.apple.asked] == [
            "GET /session",
            "GET /account",
            "POST /server/devices",
            "POST /server/devices",
        ]
        assert [asked.body for asked in d.apple.asked[2:]] == [
            {"limit": 1000},
            {"limit": 1000, "cursor": "c1"},
        ]
        assert await d.listing(token) == {"A": "listed", "B": "listed", "C": "listed"}
        assert await d.syncs(token) == [("full", "done", "upload")]


MINUTE = 60
HOUR = 3600
DAY = 86400


@pytest.mark.ade(108)
async def test_a_delta_runs_every_twelve_hours_and_an_admins_every_fifteen_minutes() -> None:
    async with desk() as d:
        token = await d.token()
        start = d.clock.now()
        await d.clock.advance(25 * HOUR)
        asked = [a.at - start for a in d.apple.asked if a.call == "POST /devices/sync"]
        assert [a.total_seconds() for a in asked] == [12 * HOUR, 24 * HOUR]

        assert (await d.sync_now(token))["kind"] == "delta"
        refused = await d.call("POST", f"/v1/tokens/{token}/sync", {}, expect=429)
        assert refused["error"].startswith("an admin may sync every 15 minutes; possible again at")
        await d.clock.advance(15 * MINUTE)
        await d.sync_now(token)
        assert await d.syncs(token) == [
            ("full", "done", "upload"),
            ("delta", "done", "schedule"),
            ("delta", "done", "schedule"),
            ("delta", "done", "manual"),
            ("delta", "done", "manual"),
        ]


async def test_an_admins_sync_puts_off_the_next_one_by_itself() -> None:
    async with desk() as d:
        token = await d.token()
        await d.clock.advance(6 * HOUR)
        await d.sync_now(token)
        await d.clock.advance(11 * HOUR)
        assert len(await d.syncs(token)) == 2
        await d.clock.advance(HOUR)
        assert len(await d.syncs(token)) == 3


async def test_a_refusal_says_when_to_come_again() -> None:
    async with desk() as d:
        token = await d.token()
        await d.sync_now(token)
        await d.clock.advance(5 * MINUTE)
        door = HttpDoor(clock=d.clock)
        async with door.session(trust=TrustSet()) as session:
            answer = await session.request(
                "POST",
                f"{d.server.admin_url}/v1/tokens/{token}/sync",
                step="admin",
                headers={"Authorization": f"Bearer {d.server.token}"},
            )
        assert (answer.status, answer.header("Retry-After")) == (429, str(10 * MINUTE))


@pytest.mark.ade(105)
async def test_a_second_full_sync_within_seven_days_is_refused() -> None:
    async with desk() as d:
        token = await d.token()
        refused = await d.call("POST", f"/v1/tokens/{token}/sync", {"kind": "full"}, expect=429)
        assert refused["error"] == (
            "a full sync may run every 7 days; possible again at 2026-01-08T00:00:00Z"
        )
        await d.clock.advance(7 * DAY - MINUTE)
        await d.call("POST", f"/v1/tokens/{token}/sync", {"kind": "full"}, expect=429)
        assert [a.call for a in d.apple.asked].count("POST /server/devices") == 1
        await d.clock.advance(MINUTE)
        fetched = [a.body for a in d.apple.asked if a.call == "POST /server/devices"]
        assert fetched == [{"limit": 1000}] * 2


async def test_after_seven_days_the_next_sync_by_itself_is_a_full_one() -> None:
    async with desk() as d:
        token = await d.token()
        await d.clock.advance(7 * DAY)
        kinds = [kind for kind, _, _ in await d.syncs(token)]
        assert kinds == ["full", *["delta"] * 13, "full"]


@pytest.mark.ade(110)
async def test_after_a_failed_delta_the_next_sync_is_full_and_the_seven_days_do_not_bar_it() -> (
    None
):
    async with desk() as d:
        d.apple.say("POST /devices/sync", Say("internal error", status=500))
        token = await d.token()
        await d.sync_now(token)
        shown = await d.shown(token)
        assert shown["sync"]["latest"]["error"] == "assignment_sync: HTTP 500 internal error"
        assert shown["sync"]["next_is_full"] is True
        d.apple.say("POST /server/devices", Say(page("c", device("NEW"))))
        await d.clock.advance(12 * HOUR)
        assert d.apple.asked[-1].body == {"limit": 1000}
        assert await d.listing(token) == {"NEW": "listed"}
        await d.clock.advance(12 * HOUR)
        assert await d.syncs(token) == [
            ("full", "done", "upload"),
            ("delta", "failed", "manual"),
            ("full", "done", "schedule"),
            ("delta", "done", "schedule"),
        ]


@pytest.mark.ade(109)
async def test_a_sync_that_takes_longer_than_fifteen_minutes_is_ended() -> None:
    async with desk(faults=slow("assignment_fetch", at=2, seconds=HOUR)) as d:
        d.apple.say("POST /server/devices", Say(page("c1", device("A"), more=True)))
        token = await d.token()
        running = await d.shown(token)
        assert running["sync"]["running_since"] == "2026-01-01T00:00:00Z"
        refused = await d.call("POST", f"/v1/tokens/{token}/sync", {}, expect=409)
        assert refused["error"] == "a sync runs since 2026-01-01T00:00:00Z"

        await d.clock.advance(15 * MINUTE - 1)
        assert await d.syncs(token) == [("full", "running", "upload")]
        await d.clock.advance(1)
        ended = (await d.shown(token))["sync"]
        assert ended["running_since"] is None
        assert ended["latest"]["state"] == "timed_out"
        assert ended["latest"]["error"] == "not finished after 15 minutes"
        assert ended["latest"]["finished_at"] == "2026-01-01T00:15:00Z"


async def test_a_full_sync_that_ran_out_of_time_keeps_its_pages_and_goes_on_from_its_cursor() -> (
    None
):
    async with desk(faults=slow("assignment_fetch", at=2, seconds=HOUR)) as d:
        d.apple.say(
            "POST /server/devices",
            Say(page("c1", device("A"), more=True)),
            Say(page("c2", device("B"))),
        )
        token = await d.token()
        await d.clock.advance(15 * MINUTE)
        assert await d.listing(token) == {"A": "listed"}
        await d.clock.advance(15 * MINUTE)
        assert d.apple.asked[-1].body == {"cursor": "c1", "limit": 1000}
        assert await d.listing(token) == {"A": "listed", "B": "listed"}
        assert await d.syncs(token) == [
            ("full", "timed_out", "upload"),
            ("full", "done", "schedule"),
        ]


async def test_a_delta_that_ran_out_of_time_is_a_failed_one() -> None:
    async with desk(faults=slow("assignment_sync", at=1, seconds=HOUR)) as d:
        token = await d.token()
        await d.sync_now(token)
        await d.clock.advance(15 * MINUTE)
        shown = await d.shown(token)
        assert shown["sync"]["latest"]["state"] == "timed_out"
        assert shown["sync"]["next_is_full"] is True


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"server_uuid": "0" * 32}, "SERVER_CHANGED"),
        ({"org_id": "666"}, "ORGANIZATION_CHANGED"),
    ],
)
async def test_a_token_that_speaks_for_another_server_brings_no_devices(
    change: dict[str, str], word: str
) -> None:
    async with desk() as d:
        token = await d.token()
        d.apple.say("GET /account", Say({**ACCOUNT, **change}))
        await d.sync_now(token)
        shown = await d.shown(token)
        assert shown["error"]["word"] == word
        assert shown["server_uuid"] == ACCOUNT["server_uuid"]
        assert d.apple.calls() == ["POST /server/devices"]


@pytest.mark.ade(106)
async def test_a_device_deleted_here_comes_back_at_the_next_full_sync_and_not_before() -> None:
    async with desk() as d:
        d.apple.honest["POST /server/devices"] = lambda _: page("c", device("A"), device("B"))
        token = await d.token()
        await d.call("DELETE", f"/v1/tokens/{token}/devices/A")
        await d.call("GET", f"/v1/tokens/{token}/devices/A", expect=404)
        d.apple.say(
            "POST /devices/sync", Say(page("d", operation("A", "modified", "2026-01-01T12:00:00Z")))
        )
        await d.sync_now(token)
        assert await d.listing(token) == {"B": "listed"}
        await d.clock.advance(7 * DAY)
        assert await d.listing(token) == {"A": "listed", "B": "listed"}


@pytest.mark.ade(107)
async def test_a_released_device_is_shown_as_removed_and_gone_by_day_45() -> None:
    async with desk() as d:
        d.apple.honest["POST /server/devices"] = lambda _: page("c", device("B"))
        d.apple.say("POST /server/devices", Say(page("c", device("A"), device("B"))))
        token = await d.token()
        released = operation("A", "deleted", "2026-01-01T00:00:01Z")
        d.apple.say("POST /devices/sync", Say(page("d", released)))
        await d.sync_now(token)
        assert await d.listing(token) == {"A": "removed", "B": "listed"}
        d.apple.asked.clear()
        await d.clock.advance(29 * DAY)
        assert (await d.listing(token))["A"] == "removed"
        await d.clock.advance(16 * DAY)
        assert await d.listing(token) == {"B": "listed"}


async def test_a_removed_device_may_be_deleted_by_hand() -> None:
    async with desk() as d:
        d.apple.say("POST /server/devices", Say(page("c", device("A"))))
        token = await d.token()
        d.apple.say(
            "POST /devices/sync", Say(page("d", operation("A", "deleted", "2026-01-02T00:00:00Z")))
        )
        await d.sync_now(token)
        await d.call("DELETE", f"/v1/tokens/{token}/devices/A")
        assert await d.listing(token) == {}
        await d.call("DELETE", f"/v1/tokens/{token}/devices/A", expect=404)


async def test_devices_that_vanish_from_the_full_list_return_with_it() -> None:
    async with desk() as d:
        lists = iter([["A", "B"], ["B"], ["A", "B"]])
        d.apple.honest["POST /server/devices"] = lambda _: page("c", *map(device, next(lists)))
        token = await d.token()
        await d.clock.advance(7 * DAY)
        assert await d.listing(token) == {"A": "removed", "B": "listed"}
        await d.clock.advance(7 * DAY)
        assert await d.listing(token) == {"A": "listed", "B": "listed"}


@pytest.mark.ade(32)
async def test_a_manual_sync_before_apple_is_through_with_all_devices_is_flagged() -> None:
    async with desk() as d:
        serials = [f"S{number:05}" for number in range(60_001)]
        pages = [serials[at : at + 1000] for at in range(0, len(serials), 1000)]
        d.apple.say(
            "POST /server/devices",
            *(
                Say(page(f"c{n}", *map(device, some), more=some is not pages[-1]))
                for n, some in enumerate(pages)
            ),
        )
        token = await d.token()
        await d.clock.advance(20 * MINUTE)
        assert (await d.sync_now(token))["warning"] == (
            "60001 devices take 21 minutes at 3000 a minute: "
            "the sync before may still be at work until 2026-01-01T00:21:00Z"
        )
        await d.clock.advance(21 * MINUTE)
        assert (await d.sync_now(token))["warning"] is None


async def test_two_requests_at_once_start_one_sync() -> None:
    async with desk() as d:
        token = await d.token()
        both = await asyncio.gather(
            *(d.call("POST", f"/v1/tokens/{token}/sync", {}, expect=None) for _ in range(2))
        )
        assert sum("error" in answer for answer in both) == 1
        await d.settled()
        assert len(await d.syncs(token)) == 2


async def test_a_server_that_ended_in_the_middle_of_a_sync_goes_on_from_its_cursor(
    tmp_path: Path,
) -> None:
    clock = SimulatedClock()
    async with desk(
        clock=clock, state=tmp_path, faults=slow("assignment_fetch", at=2, seconds=HOUR)
    ) as d:
        d.apple.say("POST /server/devices", Say(page("c1", device("A"), more=True)))
        token = await d.token()
    async with desk(clock=clock, state=tmp_path) as d:
        d.apple.say("POST /server/devices", Say(page("c2", device("B"))))
        await d.settled()
        fetched = [a.body for a in d.apple.asked if a.call == "POST /server/devices"]
        assert fetched == [{"cursor": "c1", "limit": 1000}]
        assert await d.listing(token) == {"A": "listed", "B": "listed"}
        assert [state for _, state, _ in await d.syncs(token)] == ["interrupted", "done"]


def slow(slowed: str, *, at: int, seconds: int) -> FaultPoint:
    """The server's request number `at` of one step comes late, by the clock."""

    def faults(side: Side, step: str, message: object, n: int) -> Action | None:
        if (side, step, n) == ("server", slowed, at):
            return Action(name="delay", arguments={"seconds": seconds})
        return None

    return faults
