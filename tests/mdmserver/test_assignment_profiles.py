"""Profiles and who has them, as an administrator sees and changes it."""

from typing import Any

import pytest

from mdmserver import assignment_profiles, assignment_rules
from tests.mdmserver.scripted_apple import Desk, Say, desk, device, operation, page


async def listed(d: Desk, *serials: str) -> str:
    """A token with these devices, none of which has a profile."""
    d.apple.say("POST /server/devices", Say(page("c", *map(device, serials))))
    return await d.token()


async def define(d: Desk, token: str, expect: int = 201, **fields: Any) -> Any:
    return await d.call("POST", f"/v1/tokens/{token}/profiles", fields, expect=expect)


async def profiles_of(d: Desk, token: str) -> dict[str, str | None]:
    devices = (await d.call("GET", f"/v1/tokens/{token}/devices"))["devices"]
    return {
        shown["serial"]: shown["profile_uuid"] if shown["profile_status"] == "assigned" else None
        for shown in devices
    }


async def test_a_profile_sends_devices_here_unless_it_says_otherwise() -> None:
    async with desk() as d:
        token = await listed(d)
        defined = await define(d, token, department="IT", skip_setup_items=["Siri"])
        sent = d.apple.asked[-1].body
        assert sent == {
            "devices": [],
            **d.server.assignment_profile(),
            "department": "IT",
            "skip_setup_items": ["Siri"],
        }
        assert sent["url"] == d.server.ade_url
        uuid = defined["profile_uuid"]
        shown = await d.call("GET", f"/v1/tokens/{token}/profiles/{uuid}")
        assert shown["fields"]["department"] == "IT"
        assert (shown["default"], shown["devices"]) == (False, 0)
        listing = (await d.call("GET", f"/v1/tokens/{token}/profiles"))["profiles"]
        assert [profile["profile_uuid"] for profile in listing] == [uuid]


@pytest.mark.ade(38)
async def test_neither_name_nor_description_of_a_token_reaches_a_device() -> None:
    async with desk() as d:
        token = await listed(d)
        await d.call(
            "PATCH", f"/v1/tokens/{token}", {"name": "Secret plan", "description": "of ours"}
        )
        await define(d, token)
        assert "Secret plan" not in str(d.apple.asked[-1].body)
        assert "of ours" not in str(d.apple.asked[-1].body)


async def test_apples_refusal_of_a_definition_is_told_in_its_word_and_keeps_nothing() -> None:
    async with desk() as d:
        token = await listed(d)
        d.apple.say("POST /profile", Say("FLAGS_INVALID", status=400))
        refused = await define(d, token, expect=502, is_supervised=False)
        assert refused["error"] == "assignment_define: HTTP 400 FLAGS_INVALID"
        assert (await d.call("GET", f"/v1/tokens/{token}/profiles"))["profiles"] == []


@pytest.mark.ade(29)
async def test_the_1001st_profile_is_refused_before_apple_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert assignment_rules.MAX_PROFILES == 1000
    monkeypatch.setattr(assignment_profiles, "MAX_PROFILES", 2)
    async with desk() as d:
        token = await listed(d)
        await define(d, token)
        await define(d, token)
        asked = len(d.apple.asked)
        refused = await define(d, token, expect=409)
        assert refused["error"] == "no more than 2 profiles per token"
        assert len(d.apple.asked) == asked


@pytest.mark.ade(60)
async def test_the_eleventh_supervising_certificate_is_refused() -> None:
    async with desk() as d:
        token = await listed(d)
        await define(d, token, supervising_host_certs=["AA=="] * 10)
        assert d.apple.asked[-1].body["supervising_host_certs"] == ["AA=="] * 10
        refused = await define(d, token, expect=400, supervising_host_certs=["AA=="] * 11)
        assert refused["error"] == "supervising_host_certs: at most 10 certificates, got 11"


@pytest.mark.ade(111)
async def test_a_profile_is_assigned_by_serial_numbers_and_each_result_is_kept() -> None:
    async with desk() as d:
        token = await listed(d, "A", "B", "C")
        uuid = (await define(d, token))["profile_uuid"]
        answer = {"devices": {"A": "SUCCESS", "X": "NOT_ACCESSIBLE", "C": "FAILED"}}
        d.apple.say("POST /profile/devices", Say(answer))
        results = await d.call(
            "POST",
            f"/v1/tokens/{token}/assign",
            {"profile_uuid": uuid.lower(), "serials": [" a", "X", "C", "A"]},
        )
        assert d.apple.asked[-1].body == {"profile_uuid": uuid, "devices": ["A", "X", "C"]}
        assert results == {**answer, "succeeded": 1, "retry_after_seconds": None}
        assert await profiles_of(d, token) == {"A": uuid, "B": None, "C": None}
        failed = await d.call("GET", f"/v1/tokens/{token}/devices/C")
        assert failed["assign_error"] == "FAILED"


async def test_a_thousand_serial_numbers_go_into_one_request() -> None:
    async with desk() as d:
        token = await listed(d)
        uuid = (await define(d, token))["profile_uuid"]
        serials = [f"S{number}" for number in range(2001)]
        await d.call(
            "POST", f"/v1/tokens/{token}/assign", {"profile_uuid": uuid, "serials": serials}
        )
        sizes = [len(a.body["devices"]) for a in d.apple.asked if a.call == "POST /profile/devices"]
        assert sizes == [1000, 1000, 1]


@pytest.mark.ade(112)
async def test_the_default_profile_goes_to_devices_without_one_and_to_each_that_comes() -> None:
    async with desk() as d:
        d.apple.say(
            "POST /server/devices",
            Say(
                page("c", device("A"), device("B", profile_status="pushed", profile_uuid="F" * 32))
            ),
        )
        token = await d.token()
        defined = await define(d, token, default=True)
        assert defined["devices"] == {"A": "SUCCESS"}
        uuid = defined["profile_uuid"]
        assert (await d.shown(token))["default_profile"] == uuid

        new = operation("N", "added", "2026-01-01T06:00:00Z")
        d.apple.say("POST /devices/sync", Say(page("d", new)))
        await d.clock.advance(12 * 3600)
        assert d.apple.asked[-1].body == {"profile_uuid": uuid, "devices": ["N"]}
        assert await profiles_of(d, token) == {"A": uuid, "B": None, "N": uuid}
        assert (await d.shown(token))["devices"]["without_profile"] == 0


async def test_a_device_that_was_unassigned_by_hand_is_left_alone_by_the_default_profile() -> None:
    async with desk() as d:
        token = await listed(d, "A", "B")
        uuid = (await define(d, token, default=True))["profile_uuid"]
        await d.call("POST", f"/v1/tokens/{token}/unassign", {"serials": ["A"]})
        assert d.apple.asked[-1].call == "DELETE /profile/devices"
        d.apple.say(
            "POST /devices/sync",
            Say(page("d", operation("A", "modified", "2026-01-01T06:00:00Z"))),
        )
        await d.sync_now(token)
        assert await profiles_of(d, token) == {"A": None, "B": uuid}
        assert (await d.call("GET", f"/v1/tokens/{token}/devices/A"))["held"] is True
        await d.call("POST", f"/v1/tokens/{token}/assign", {"profile_uuid": uuid, "serials": ["A"]})
        assert await profiles_of(d, token) == {"A": uuid, "B": uuid}


async def test_throttled_devices_get_the_default_profile_when_apple_allows_it() -> None:
    async with desk() as d:
        token = await listed(d)
        uuid = (await define(d, token, default=True))["profile_uuid"]
        d.apple.say(
            "POST /devices/sync", Say(page("d", operation("A", "added", "2026-01-01T00:00:00Z")))
        )
        d.apple.say(
            "POST /profile/devices",
            Say({"devices": {"A": "THROTTLED"}, "retry_after_seconds": 90}),
        )
        await d.sync_now(token)
        assert await profiles_of(d, token) == {"A": None}
        await d.clock.advance(89)
        assert await profiles_of(d, token) == {"A": None}
        await d.clock.advance(1)
        assert await profiles_of(d, token) == {"A": uuid}


async def test_the_default_profile_waits_as_retry_after_asks() -> None:
    async with desk() as d:
        token = await listed(d)
        uuid = (await define(d, token, default=True))["profile_uuid"]
        new = operation("A", "added", "2026-01-01T00:00:00Z")
        d.apple.say("POST /devices/sync", Say(page("d", new)))
        d.apple.say("POST /profile/devices", Say("busy", status=503, headers={"Retry-After": "60"}))
        await d.sync_now(token)
        assert await profiles_of(d, token) == {"A": None}
        await d.clock.advance(60)
        assert await profiles_of(d, token) == {"A": uuid}


async def test_an_expired_token_defines_and_assigns_nothing() -> None:
    async with desk() as d:
        token = await d.token(access_token_expiry="2026-01-01T00:00:01Z")
        await d.clock.advance(1)
        asked = len(d.apple.asked)
        refused = await define(d, token, expect=409)
        assert refused["error"].startswith("token: TOKEN_EXPIRED (expired at 2026-01-01T00:00:01Z")
        assert len(d.apple.asked) == asked


async def test_a_default_profile_that_apple_does_not_know_leaves_the_sync_done() -> None:
    async with desk() as d:
        token = await listed(d)
        await define(d, token, default=True)
        d.apple.say(
            "POST /devices/sync", Say(page("d", operation("A", "added", "2026-01-01T00:00:00Z")))
        )
        d.apple.say("POST /profile/devices", Say("NOT_FOUND", status=404))
        await d.sync_now(token)
        assert (await d.syncs(token))[-1][1] == "done"
        assert await profiles_of(d, token) == {"A": None}


async def test_a_disowned_device_is_removed_and_only_on_purpose() -> None:
    async with desk() as d:
        token = await listed(d, "A", "B")
        refused = await d.call("POST", f"/v1/tokens/{token}/disown", {"serials": ["A"]}, expect=400)
        assert refused["error"].startswith("for_good: expected true")
        await d.call("POST", f"/v1/tokens/{token}/disown", {"serials": ["A"], "for_good": True})
        assert d.apple.asked[-1].call == "POST /devices/disown"
        assert await d.listing(token) == {"A": "removed", "B": "listed"}


async def test_a_profile_that_devices_have_is_not_forgotten() -> None:
    async with desk() as d:
        token = await listed(d, "A")
        uuid = (await define(d, token))["profile_uuid"]
        await d.call("POST", f"/v1/tokens/{token}/assign", {"profile_uuid": uuid, "serials": ["A"]})
        refused = await d.call("DELETE", f"/v1/tokens/{token}/profiles/{uuid}", expect=409)
        assert refused["error"] == f"1 devices have {uuid}: assign another one first"
        await d.call("POST", f"/v1/tokens/{token}/unassign", {"serials": ["A"]})
        await d.call("DELETE", f"/v1/tokens/{token}/profiles/{uuid}")
        await d.call("GET", f"/v1/tokens/{token}/profiles/{uuid}", expect=404)


@pytest.mark.ade(30)
async def test_one_device_more_than_a_token_and_a_profile_may_have_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert assignment_rules.MAX_DEVICES == 200_000
    monkeypatch.setattr("mdmserver.assignment.MAX_DEVICES", 2)
    monkeypatch.setattr("mdmserver.assignment_sync.MAX_DEVICES", 2)
    async with desk() as d:
        token = await listed(d, "A", "B")
        uuid = (await define(d, token, default=True))["profile_uuid"]
        assert (await d.shown(token))["warnings"] == []
        d.apple.say(
            "POST /devices/sync", Say(page("d", operation("C", "added", "2026-01-01T00:00:00Z")))
        )
        await d.sync_now(token)
        assert (await d.shown(token))["warnings"] == [
            "3 devices, more than 2 per token: syncs may fail, split it",
            f"3 devices have profile {uuid}, more than 2",
        ]


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "words"),
    [
        ("POST", "/assign", {"serials": ["A"]}, 400, "profile_uuid: expected string"),
        ("POST", "/assign", {"profile_uuid": "F" * 32, "serials": ["A"]}, 404, "no profile"),
        ("POST", "/assign", {"profile_uuid": "F" * 32, "serials": [1]}, 400, "serials[0]"),
        ("POST", "/unassign", {"serials": []}, 400, "at least one serial number"),
        ("POST", "/unassign", [], 400, "request: expected a JSON object"),
        ("PUT", "/default-profile", {"profile_uuid": "F" * 32}, 404, "there is no profile"),
        ("POST", "/sync", {"kind": "partial"}, 400, "kind: expected full or delta"),
        ("POST", "/profiles", {"default": "yes"}, 400, "default: expected boolean"),
        ("GET", "/devices?limit=0", None, 400, "limit: expected a number from 1 to 1000"),
        ("GET", "/devices?limit=1001", None, 400, "limit: expected"),
        ("GET", "/devices?state=lost", None, 400, "state: expected listed or removed"),
        ("GET", "/devices/A", None, 404, "there is no device A"),
        ("DELETE", "/profiles/F", None, 404, "there is no profile F"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_before_apple_is_asked(
    method: str, path: str, content: Any, status: int, words: str
) -> None:
    async with desk() as d:
        token = await listed(d)
        asked = len(d.apple.asked)
        refused = await d.call(method, f"/v1/tokens/{token}{path}", content, expect=status)
        assert words in refused["error"]
        assert len(d.apple.asked) == asked


async def test_what_belongs_to_an_unknown_token_is_a_404() -> None:
    async with desk() as d:
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/sync"), ("GET", "/devices")):
            refused = await d.call(method, f"/v1/tokens/nobody{path}", expect=404)
            assert refused["error"] == "there is no token nobody"


async def test_devices_are_read_page_by_page_in_the_order_of_their_serial_numbers() -> None:
    async with desk() as d:
        token = await listed(d, "C", "A", "B")
        path = f"/v1/tokens/{token}/devices"
        first = await d.call("GET", f"{path}?limit=2")
        assert [shown["serial"] for shown in first["devices"]] == ["A", "B"]
        rest = await d.call("GET", f"{path}?after=B&state=listed")
        assert [shown["serial"] for shown in rest["devices"]] == ["C"]
        assert (await d.call("GET", f"{path}?state=removed"))["devices"] == []


async def test_apples_own_view_of_a_profile_can_be_asked_for() -> None:
    async with desk() as d:
        token = await listed(d)
        uuid = (await define(d, token))["profile_uuid"]
        d.apple.honest["GET /profile"] = lambda _: {"profile_uuid": uuid, "url": "https://x"}
        shown = await d.call("GET", f"/v1/tokens/{token}/profiles/{uuid}?at_apple=1")
        assert shown["at_apple"] == {"profile_uuid": uuid, "url": "https://x"}
