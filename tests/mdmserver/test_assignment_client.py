"""What goes over the wire to the assignment API, and what each refusal means for a token (apple-services.md 4.1-4.3)."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from oauthlib.oauth1 import SIGNATURE_HMAC_SHA1, Client

from tests.mdmserver.scripted_apple import Desk, Say, desk, device, page


def asked(d: Desk, call: str) -> list[Any]:
    return [a for a in d.apple.asked if a.call == call]


async def test_a_session_is_asked_for_with_oauth_at_the_servers_own_time() -> None:
    async with desk() as d:
        await d.token()
        (session,) = asked(d, "GET /session")
        header = session.headers["authorization"]
        given = {
            key: value.strip('"')
            for key, _, value in (part.partition("=") for part in header[6:].split(", "))
        }
        assert given["realm"] == "ADM"
        assert given["oauth_timestamp"] == str(int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()))
        again = Client(
            "CK_1",
            client_secret="CS_1",
            resource_owner_key="AT_1",
            resource_owner_secret="AS_1",
            signature_method=SIGNATURE_HMAC_SHA1,
            realm="ADM",
            nonce=given["oauth_nonce"],
            timestamp=given["oauth_timestamp"],
        ).sign(f"{d.apple.url}/session")[1]["Authorization"]
        assert again == header


async def test_every_request_carries_the_headers_that_the_service_insists_on() -> None:
    async with desk(assignment_user_agent="My Server/3") as d:
        await d.token()
        for request in d.apple.asked:
            headers = request.headers
            assert headers["content-type"] == "application/json;charset=UTF8"
            assert headers["x-server-protocol-version"] == "10"
            assert headers["user-agent"] == "My Server/3"
            assert ("x-adm-auth-session" in headers) == (request.call != "GET /session")


async def test_a_session_lives_on_between_syncs_and_a_token_that_comes_back_replaces_it() -> None:
    async with desk() as d:
        d.apple.say(
            "POST /server/devices",
            Say(page("c1", more=True), headers={"X-ADM-Auth-Session": "NEXT"}),
        )
        token = await d.token()
        await d.sync_now(token)
        assert d.apple.sessions == 1
        used = [a.headers["x-adm-auth-session"] for a in d.apple.asked[1:]]
        assert used == ["SESSION1", "SESSION1", "NEXT", "NEXT", "NEXT"]


@pytest.mark.parametrize("over", [Say("UNAUTHORIZED", status=401), Say('"FORBIDDEN"', status=403)])
async def test_an_expired_or_unknown_session_is_replaced_once_and_the_request_repeated(
    over: Say,
) -> None:
    async with desk() as d:
        d.apple.say("POST /server/devices", over, Say(page("c", device("A"))))
        token = await d.token()
        assert d.apple.sessions == 2
        assert (await d.shown(token))["state"] == "active"
        assert await d.listing(token) == {"A": "listed"}


async def test_a_service_that_refuses_every_session_is_asked_twice_and_no_more() -> None:
    async with desk() as d:
        d.apple.say("POST /server/devices", *[Say("FORBIDDEN", status=403)] * 10)
        token = await d.token()
        assert d.apple.sessions == 2
        assert len(asked(d, "POST /server/devices")) == 2
        shown = await d.shown(token)
        assert shown["error"]["word"] == "FORBIDDEN"
        assert shown["sync"]["latest"]["state"] == "failed"


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ("T_C_NOT_SIGNED", 403, "T_C_NOT_SIGNED"),
        ('"T_C_NOT_SIGNED"', 403, "T_C_NOT_SIGNED"),
        ("ACCESS_DENIED", 403, "ACCESS_DENIED"),
        ("token_rejected", 401, "token_rejected"),
        ("token_rejected", 403, "token_rejected"),
        ("token_expiredForbidden", 403, "token_expired"),
        ("signature_invalid", 403, "signature_invalid"),
        ("oauth_problem_adviceUnauthorized", 401, "oauth_problem_advice"),
        ("something\n new", 403, "something new"),
        ("", 401, "HTTP 401"),
    ],
)
async def test_a_refused_token_has_apples_word_in_its_status(
    body: str, status: int, word: str
) -> None:
    async with desk() as d:
        d.apple.say("GET /session", Say(body, status=status))
        token = await d.token()
        shown = await d.shown(token)
        assert shown["state"] == "refused"
        assert shown["error"] == {
            "word": word,
            "detail": " ".join(body.split()).strip('"'),
            "step": "assignment_session",
            "at": "2026-01-01T00:00:00Z",
        }
        assert len(asked(d, "GET /session")) == 1  # nothing is asked again until the next sync
        await d.clock.advance(12 * 3600)
        assert (await d.shown(token))["error"] is None
        assert [state for _, state, _ in await d.syncs(token)] == ["failed", "done"]


async def test_terms_that_are_not_signed_stop_a_request_at_once_although_it_is_a_403() -> None:
    async with desk() as d:
        d.apple.say("POST /server/devices", Say("T_C_NOT_SIGNED", status=403))
        token = await d.token()
        assert d.apple.sessions == 1
        assert (await d.shown(token))["error"]["step"] == "assignment_fetch"


@pytest.mark.parametrize(
    "answer", [Say("USER_AGENT_INVALID", status=400), Say("oops", status=500), Say({}, status=201)]
)
async def test_what_is_not_about_the_token_fails_the_sync_and_leaves_the_token_active(
    answer: Say,
) -> None:
    async with desk() as d:
        d.apple.say("POST /server/devices", answer)
        token = await d.token()
        shown = await d.shown(token)
        assert (shown["state"], shown["error"]) == ("active", None)
        assert f"HTTP {answer.status}" in shown["sync"]["latest"]["error"]


@pytest.mark.parametrize("wait", ["120", "Thu, 01 Jan 2026 00:02:00 GMT"])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_sync_waits_as_long_as_retry_after_asks(status: int, wait: str) -> None:
    async with desk() as d:
        d.apple.say(
            "POST /server/devices",
            Say("TOO_MANY_REQUESTS", status=status, headers={"Retry-After": wait}),
        )
        token = await d.token()
        await d.clock.advance(119)
        assert len(asked(d, "POST /server/devices")) == 1
        await d.clock.advance(1)
        first, second = (a.at for a in asked(d, "POST /server/devices"))
        assert (second - first).total_seconds() == 120
        assert await d.syncs(token) == [("full", "done", "upload")]


async def test_an_unreadable_retry_after_is_half_a_minute_and_five_waits_are_enough() -> None:
    async with desk() as d:
        d.apple.say(
            "POST /server/devices",
            *[Say("busy", status=503, headers={"Retry-After": "soon"})] * 10,
        )
        token = await d.token()
        await d.clock.advance(600)
        times = [a.at for a in asked(d, "POST /server/devices")]
        assert [(b - a).total_seconds() for a, b in pairwise(times)] == [30] * 5
        assert (await d.syncs(token))[0][1] == "failed"


async def test_an_administrator_does_not_wait_but_is_told() -> None:
    async with desk() as d:
        token = await d.token()
        d.apple.say(
            "POST /profile", Say("TOO_MANY_REQUESTS", status=429, headers={"Retry-After": "60"})
        )
        refused = await d.call("POST", f"/v1/tokens/{token}/profiles", {}, expect=502)
        assert refused["error"] == "assignment_define: HTTP 429 TOO_MANY_REQUESTS"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"auth_session_token": 7},
        {"auth_session_token": ""},
        {"auth_session_token": "x" * 1025},
        {"auth_session_token": "a\r\nb"},
    ],
)
async def test_a_session_token_that_is_none_is_refused(answer: dict[str, Any]) -> None:
    async with desk() as d:
        d.apple.say("GET /session", Say(answer))
        token = await d.token()
        error = (await d.shown(token))["sync"]["latest"]["error"]
        assert error.startswith("assignment_session: MALFORMED_ANSWER")


async def test_apples_own_service_is_never_asked() -> None:
    async with desk() as d:
        d.server.assignment.tokens._apple._url = "https://mdmenrollment.apple.com"
        token = await d.token()
        error = (await d.shown(token))["sync"]["latest"]["error"]
        assert "UNREACHABLE (mdmenrollment.apple.com is a real Apple host" in error
        assert d.apple.asked == []
