"""Cursors and pages as Apple's side may send them: exhausted, lost, standing still, unreadable (apple-services.md 4.6, 4.7)."""

from typing import Any

import pytest

from tests.mdmserver.scripted_apple import Say, desk, device, page

HOUR = 3600


@pytest.mark.parametrize("word", ["EXPIRED_CURSOR", "INVALID_CURSOR"])
async def test_a_lost_cursor_is_dropped_and_a_full_sync_follows_at_once(word: str) -> None:
    async with desk() as d:
        token = await d.token()
        d.apple.say("POST /devices/sync", Say(word, status=400))
        d.apple.say("POST /server/devices", Say(page("c", device("A"))))
        await d.sync_now(token)
        assert await d.syncs(token) == [
            ("full", "done", "upload"),
            ("delta", "failed", "manual"),
            ("full", "done", "manual"),
        ]
        assert d.apple.asked[-1].body == {"limit": 1000}
        assert (await d.shown(token))["sync"]["next_is_full"] is False
        assert await d.listing(token) == {"A": "listed"}


async def test_a_fetch_cursor_that_is_exhausted_means_that_the_list_is_complete() -> None:
    async with desk() as d:
        d.apple.say(
            "POST /server/devices",
            Say(page("c1", device("A"), more=True)),
            Say("EXHAUSTED_CURSOR", status=400),
        )
        token = await d.token()
        assert await d.syncs(token) == [("full", "done", "upload")]
        await d.sync_now(token)
        assert d.apple.asked[-1].body == {"cursor": "c1", "limit": 1000}


async def test_an_exhausted_cursor_of_a_delta_means_nothing_new() -> None:
    async with desk() as d:
        token = await d.token()
        d.apple.say("POST /devices/sync", Say('"EXHAUSTED_CURSOR"', status=400))
        await d.sync_now(token)
        assert (await d.syncs(token))[-1] == ("delta", "done", "manual")


async def test_a_cursor_that_does_not_move_ends_the_sync_instead_of_asking_for_ever() -> None:
    async with desk() as d:
        token = await d.token()
        d.apple.honest["POST /devices/sync"] = lambda body: page(body["cursor"], more=True)
        before = len(d.apple.asked)
        await d.sync_now(token)
        assert d.apple.calls()[1:] == ["POST /devices/sync"]
        assert len(d.apple.asked) == before + 2  # with /account
        latest = (await d.shown(token))["sync"]["latest"]
        assert latest["error"] == (
            "assignment_sync: CURSOR_NOT_MOVING (more is to follow, but the cursor is one of before)"
        )


async def test_cursors_that_lead_in_a_circle_or_through_nothing_but_empty_pages_end_it_too() -> (
    None
):
    async with desk() as d:
        d.apple.say(
            "POST /server/devices",
            Say(page("c1", device("A"), more=True)),
            Say(page("c2", device("B"), more=True)),
            Say(page("c1", device("C"), more=True)),
        )
        token = await d.token()
        assert await d.syncs(token) == [("full", "failed", "upload")]
        d.apple.say("POST /server/devices", *(Say(page(f"e{n}", more=True)) for n in range(50)))
        await d.sync_now(token)
        assert len(d.apple.scripts["POST /server/devices"]) == 46
        assert (await d.shown(token))["sync"]["latest"]["error"].endswith(
            "(more is to follow, but 4 pages were empty)"
        )
        # A full list begins anew, rather than where it never ended.
        d.apple.scripts.clear()
        await d.clock.advance(12 * HOUR)
        assert d.apple.asked[-1].body == {"limit": 1000}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"devices": None, "cursor": "c", "more_to_follow": False}, "devices: expected array"),
        ({"devices": [], "more_to_follow": False}, "cursor: expected string"),
        (page("x" * 1001), "cursor: expected 1 to 1000 characters"),
        ({"devices": [], "cursor": "c"}, "more_to_follow: expected boolean"),
        (page("c", {"model": "iPhone"}), "serial_number: expected string"),
        (
            page("c", device("A", profile_push_time="tomorrow")),
            "profile_push_time: expected a time",
        ),
        ([], "expected a JSON object"),
        ("<html>", "expected a JSON object"),
    ],
)
async def test_a_page_that_cannot_be_read_fails_the_sync_and_stores_nothing(
    answer: Any, words: str
) -> None:
    async with desk() as d:
        d.apple.say("POST /server/devices", Say(answer))
        token = await d.token()
        latest = (await d.shown(token))["sync"]["latest"]
        assert latest["state"] == "failed"
        assert "MALFORMED_ANSWER" in latest["error"]
        assert words in latest["error"]
        assert await d.listing(token) == {}
