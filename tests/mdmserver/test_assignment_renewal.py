"""The renewal of a token: which files are taken, which are not, and what they change (apple-services.md 5.4)."""

import pytest

from tests.mdmserver.scripted_apple import (
    ACCOUNT,
    Say,
    create,
    desk,
    renew,
    renewable,
)

DAY = 86400


async def test_a_renewed_token_is_used_from_then_on() -> None:
    async with desk() as d:
        token, certificate = await renewable(d)
        d.apple.asked.clear()
        renewed = await renew(
            d, token, d.token_file(certificate, access_token="AT_2", access_secret="AS_2")
        )
        assert renewed["expires_at"] == "2027-01-03T00:00:00Z"
        assert renewed["renewed_at"] == "2026-01-03T00:00:00Z"
        await d.settled()
        sessions = [a for a in d.apple.asked if a.call == "GET /session"]
        assert all('oauth_token="AT_2"' in a.headers["authorization"] for a in sessions)
        assert (await d.syncs(token))[-1] == ("delta", "done", "upload")


async def test_a_renewal_with_another_consumer_key_needs_force() -> None:
    async with desk() as d:
        token, certificate = await renewable(d)
        body = d.token_file(certificate, consumer_key="CK_other")
        refused = await renew(d, token, body, expect=409)
        assert refused["error"].startswith("the file's consumer key is not the one of this token")
        assert (await d.shown(token))["consumer_key"] == "CK_1"
        await renew(d, token, body, query="?force=1")
        assert (await d.shown(token))["consumer_key"] == "CK_other"


async def test_an_older_file_than_the_one_in_use_needs_force() -> None:
    async with desk() as d:
        token, certificate = await renewable(d)
        body = d.token_file(certificate, access_token_expiry="2026-12-31T00:00:00Z")
        refused = await renew(d, token, body, expect=409)
        assert "before the one in use (2027-01-01T00:00:00Z)" in refused["error"]
        await renew(d, token, body, query="?force=1")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"server_uuid": "0" * 32}, "SERVER_CHANGED"),
        ({"org_id": "666"}, "ORGANIZATION_CHANGED"),
    ],
)
async def test_a_file_of_another_server_is_refused_even_by_force(
    change: dict[str, str], word: str
) -> None:
    async with desk() as d:
        token, certificate = await renewable(d)
        d.apple.say("GET /account", Say({**ACCOUNT, **change}))
        refused = await renew(d, token, d.token_file(certificate), expect=409, query="?force=1")
        assert word in refused["error"]


async def test_a_file_that_apple_does_not_take_is_refused_and_the_old_one_stays() -> None:
    async with desk() as d:
        token, certificate = await renewable(d)
        d.apple.say("GET /session", Say("token_rejected", status=401))
        refused = await renew(
            d, token, d.token_file(certificate, access_token="AT_old"), expect=409
        )
        assert "HTTP 401 token_rejected" in refused["error"]
        assert (await d.shown(token))["renewed_at"] is None


async def test_unsigned_terms_are_no_reason_to_refuse_a_renewal() -> None:
    async with desk() as d:
        token, certificate = await renewable(d)
        d.apple.say("GET /session", *[Say("T_C_NOT_SIGNED", status=403)] * 2)
        await renew(d, token, d.token_file(certificate))
        await d.settled()
        shown = await d.shown(token)
        assert (shown["state"], shown["error"]["word"]) == ("refused", "T_C_NOT_SIGNED")


async def test_a_token_may_be_renewed_with_a_new_key() -> None:
    async with desk() as d:
        token, _ = await renewable(d)
        key_id, certificate = await d.new_key(token_id=token)
        other, _ = await d.new_key()
        body = d.token_file(certificate)
        await renew(d, token, body, expect=400)  # made for another key than the token's own
        refused = await renew(d, token, body, expect=409, query=f"?key={other}")
        assert refused["error"] == f"key {other} is not for the renewal of token {token}"
        refused = await create(d, key_id, body, expect=409)
        assert refused["error"] == f"key {key_id} is for the renewal of token {token}"
        await renew(d, token, body, query=f"?key={key_id}")
        await d.call("GET", f"/v1/token-keys/{key_id}", expect=404)
        await d.clock.advance(DAY)
        await renew(d, token, d.token_file(certificate))  # the new key is the token's own now


async def test_a_change_of_the_apple_id_at_apple_is_taken_over() -> None:
    async with desk() as d:
        token = await d.token()
        d.apple.say("GET /account", Say({**ACCOUNT, "admin_id": "successor@example.com"}))
        await d.sync_now(token)
        assert (await d.shown(token))["admin_id"] == "successor@example.com"
