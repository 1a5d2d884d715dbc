"""The wizard of a token, its renewal and its end, as an administrator meets them."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from certs.clock import SimulatedClock
from certs.identity import Identity
from mdmserver import assignment_rules, assignment_tokens
from mdmserver.assignment_answers import credentials_of
from tests.mdmserver.scripted_apple import (
    ACCOUNT,
    Say,
    create,
    desk,
    device,
    operation,
    page,
    renew,
    renewable,
    token_file,
)
from tests.support import VECTORS, needs_vectors, openssl

DAY = 86400


@pytest.mark.ade(33)
async def test_a_key_needs_consent_a_download_and_a_page_that_stays_open() -> None:
    async with desk() as d:
        refused = await d.call("POST", "/v1/token-keys", {}, expect=400)
        assert refused["error"].startswith("consent: expected true")

        key = await d.call("POST", "/v1/token-keys", {"consent": True}, expect=201)
        assert key["ready"] is False
        refused = await create(d, key["key_id"], b"early", expect=409)
        assert refused["error"] == f"the certificate of key {key['key_id']} has not been downloaded"

        closed, certificate = await d.new_key()
        assert (await d.call("GET", f"/v1/token-keys/{closed}"))["ready"] is True
        await d.call("DELETE", f"/v1/token-keys/{closed}")
        body = d.token_file(certificate)
        refused = await create(d, closed, body, expect=404)
        assert refused["error"] == f"there is no key {closed}"
        other, _ = await d.new_key()
        refused = await create(d, other, body, expect=400)
        assert "EnvelopedData: cannot decrypt" in refused["error"]
        assert "of a page that was closed?" in refused["error"]
        assert (await d.call("GET", "/v1/tokens"))["tokens"] == []


@pytest.mark.ade(36)
async def test_the_apple_id_is_kept_with_the_token() -> None:
    async with desk() as d:
        token = await d.token()
        assert (await d.shown(token))["apple_id"] == "admin@example.com"
        await d.call("PATCH", f"/v1/tokens/{token}", {"apple_id": "new@example.com"})
        shown = await d.shown(token)
        assert (shown["apple_id"], shown["name"]) == ("new@example.com", "Production")


@pytest.mark.ade(37)
async def test_after_the_upload_the_sync_starts_by_itself() -> None:
    async with desk() as d:
        await d.token()
        assert [asked.call for asked in d.apple.asked] == [
            "GET /session",
            "GET /account",
            "POST /server/devices",
        ]


async def test_no_answer_holds_a_secret() -> None:
    async with desk() as d:
        token = await d.token()
        everything = json.dumps([await d.shown(token), await d.call("GET", "/v1/tokens")])
        assert not [s for s in ("CS_1", "AT_1", "AS_1", "PRIVATE") if s in everything]
        assert "CK_1" in everything


async def test_a_token_shows_its_account_and_is_active() -> None:
    async with desk() as d:
        shown = await d.shown(await d.token())
        assert shown["state"] == "active"
        assert {key: shown[key] for key in ACCOUNT} == ACCOUNT
        assert shown["expires_at"] == "2027-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda body: body[: len(body) // 2], "cannot be read with this key"),
        (lambda body: body.replace(b"M", b"N"), "EnvelopedData"),
        (lambda body: b"", "a message of type application/pkcs7-mime"),
        (lambda body: b"\xff" * 100, "a message of type application/pkcs7-mime"),
        (lambda body: body + b"A" * 70_000, "more than 65536"),
    ],
)
async def test_a_damaged_token_file_is_refused_and_the_key_goes_on_waiting(
    damage: Any, words: str
) -> None:
    async with desk() as d:
        key_id, certificate = await d.new_key()
        body = d.token_file(certificate)
        refused = await create(d, key_id, damage(body), expect=400)
        assert words in refused["error"]
        await create(d, key_id, body, expect=201)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"consumer_key": 7}, "consumer_key: expected string, got 'integer'"),
        ({"access_token_expiry": "tomorrow"}, "access_token_expiry: expected an RFC 3339 time"),
        ({"access_token_expiry": "2025-12-31T23:59:59Z"}, "expired at 2025-12-31T23:59:59Z"),
    ],
)
async def test_a_token_file_with_unusable_content_is_refused(
    fields: dict[str, Any], words: str
) -> None:
    async with desk() as d:
        key_id, certificate = await d.new_key()
        refused = await create(d, key_id, d.token_file(certificate, **fields), expect=400)
        assert words in refused["error"]


async def test_a_file_of_a_token_that_is_here_already_makes_no_second_one() -> None:
    async with desk() as d:
        token = await d.token()
        key_id, certificate = await d.new_key()
        refused = await create(d, key_id, d.token_file(certificate), expect=409)
        assert refused["error"] == f"this is a file of token {token}: renew that one"


@pytest.mark.ade(31)
async def test_one_token_more_than_an_account_may_have_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert assignment_rules.MAX_TOKENS == 2000
    monkeypatch.setattr(assignment_tokens, "MAX_TOKENS", 2)
    async with desk() as d:
        late, certificate = await d.new_key()
        for number in (1, 2):
            await d.token(consumer_key=f"CK_{number}")
        refused = await create(d, late, d.token_file(certificate, consumer_key="CK_3"), expect=409)
        assert refused["error"] == "no more than 2 tokens per account"
        await d.call("POST", "/v1/token-keys", {"consent": True}, expect=409)


async def test_an_expired_token_is_not_used_and_a_renewal_ends_that() -> None:
    async with desk() as d:
        token, certificate = await renewable(d, access_token_expiry="2026-01-04T06:00:00Z")
        await d.clock.advance(2 * DAY)
        shown = await d.shown(token)
        assert shown["state"] == "expired"
        asked = len(d.apple.asked)
        refused = await d.call("POST", f"/v1/tokens/{token}/sync", {}, expect=409)
        assert "TOKEN_EXPIRED (expired at 2026-01-04T06:00:00Z" in refused["error"]
        await d.clock.advance(2 * DAY)
        assert len(d.apple.asked) == asked
        await renew(d, token, d.token_file(certificate))
        await d.settled()
        assert (await d.shown(token))["state"] == "active"
        assert (await d.syncs(token))[-1][1:] == ("done", "upload")


async def test_a_server_starts_with_an_expired_token_and_says_so(tmp_path: Path) -> None:
    clock = SimulatedClock()
    async with desk(clock=clock, state=tmp_path) as d:
        token = await d.token()
    late = SimulatedClock(clock.now() + timedelta(days=400))
    async with desk(clock=late, state=tmp_path) as d:
        await d.settled()
        assert (await d.shown(token))["state"] == "expired"
        assert (await d.call("GET", "/v1/readiness"))["problems"][0] == (
            f"TOKEN_EXPIRED: token 'Production' ({token}) at 2027-01-01T00:00:00Z"
        )
        assert d.apple.asked == []


@pytest.mark.ade(10)
async def test_readiness_names_what_is_missing() -> None:
    async with desk() as d:

        async def names() -> list[str]:
            problems = (await d.call("GET", "/v1/readiness"))["problems"]
            return [problem.partition(":")[0] for problem in problems]

        assert await names() == ["NO_TOKEN", "NO_PUSH_CERTIFICATE"]
        token = await d.token()
        assert await names() == ["NO_DEFAULT_PROFILE", "NO_PUSH_CERTIFICATE"]
        await d.call("POST", f"/v1/tokens/{token}/profiles", {"default": True}, expect=201)
        assert await names() == ["NO_PUSH_CERTIFICATE"]
        d.apple.say("POST /devices/sync", Say("ACCESS_DENIED", status=403))
        await d.sync_now(token)
        assert await names() == ["ACCESS_DENIED", "NO_PUSH_CERTIFICATE"]


async def test_the_same_file_twice_at_once_makes_one_token() -> None:
    async with desk() as d:
        keys = [await d.new_key() for _ in range(2)]
        both = await asyncio.gather(
            *(
                d.call("POST", f"/v1/token-keys/{key}/token", d.token_file(cert), expect=None)
                for key, cert in keys
            )
        )
        assert sorted("token_id" in answer for answer in both) == [False, True]
        assert len((await d.call("GET", "/v1/tokens"))["tokens"]) == 1


@pytest.mark.ade(121)
async def test_a_token_goes_after_its_devices_its_default_profile_and_its_profiles() -> None:
    async with desk() as d:
        d.apple.say("POST /server/devices", Say(page("c", device("A"), device("B"))))
        token = await d.token()
        defined = await d.call(
            "POST", f"/v1/tokens/{token}/profiles", {"default": True}, expect=201
        )
        uuid = defined["profile_uuid"]
        path = f"/v1/tokens/{token}"

        refused = await d.call("DELETE", path, expect=409)
        assert refused["error"] == f"token {token} has 2 devices: delete them first"
        refused = await d.call("DELETE", f"{path}/profiles/{uuid}", expect=409)
        assert refused["error"].startswith(f"{uuid} is the default profile")
        await d.call("DELETE", f"{path}/devices/A")
        released = operation("B", "deleted", "2026-01-02T00:00:00Z")
        d.apple.say("POST /devices/sync", Say(page("d", released)))
        await d.sync_now(token)
        refused = await d.call("DELETE", path, expect=409)
        assert refused["error"] == f"token {token} has 1 devices: delete them first"
        await d.call("DELETE", f"{path}/devices/B")

        refused = await d.call("DELETE", path, expect=409)
        assert refused["error"].startswith(f"token {token} has the default profile {uuid}")
        await d.call("DELETE", f"{path}/default-profile")
        refused = await d.call("DELETE", path, expect=409)
        assert refused["error"] == f"token {token} has 1 profiles: delete them first"
        await d.call("DELETE", f"{path}/profiles/{uuid}")

        await d.call("DELETE", path)
        await d.call("GET", path, expect=404)
        asked = len(d.apple.asked)
        await d.clock.advance(2 * DAY)
        assert len(d.apple.asked) == asked


async def test_a_token_cannot_go_while_it_syncs() -> None:
    async with desk() as d:
        d.apple.say("GET /session", Say("later", status=503, headers={"Retry-After": "60"}))
        token = await d.token()
        refused = await d.call("DELETE", f"/v1/tokens/{token}", expect=409)
        assert refused["error"] == f"a sync of token {token} runs"


@pytest.mark.peer
def test_openssl_reads_the_certificate_and_its_token_files_are_read(tmp_path: Path) -> None:
    clock = SimulatedClock()
    identity = assignment_tokens.Tokens(None, None, clock)._identity()  # type: ignore[arg-type]
    certificate = tmp_path / "server.pem"
    certificate.write_bytes(identity.certificates_pem())
    text = openssl("x509", "-in", str(certificate), "-noout", "-subject", "-text").decode()
    assert "CN=mdm-server" in text.replace(" = ", "=")
    assert "Key Encipherment" in text
    fields = {
        "consumer_key": "CK_o",
        "consumer_secret": "CS_o",
        "access_token": "AT_o",
        "access_secret": "AS_o",
        "access_token_expiry": "2027-07-01T22:18:53Z",
    }
    inner = (
        "Content-Type: text/plain;charset=UTF-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
        f"-----BEGIN MESSAGE-----\n{json.dumps(fields)}\n-----END MESSAGE-----\n"
    )
    body = openssl(
        "smime", "-encrypt", "-aes128", "-binary", str(certificate), stdin=inner.encode()
    )
    credentials = credentials_of(body, identity)
    assert credentials.consumer_key == "CK_o"
    assert f"{credentials.expires_at:%FT%TZ}" == "2027-07-01T22:18:53Z"


@needs_vectors
@pytest.mark.vectors
def test_the_portals_own_token_file_is_read() -> None:
    dep = VECTORS / "dep"
    pem = (dep / "petarov-dep.pem").read_bytes() + (dep / "petarov-dep.crt").read_bytes()
    credentials = credentials_of(
        (dep / "petarov-dep-server-token.p7m").read_bytes(), Identity.from_own_pem(pem)
    )
    assert credentials.consumer_key.startswith("CK_75b2eb")
    assert f"{credentials.expires_at:%FT%TZ}" == "2026-01-17T11:02:21Z"


def test_the_scripted_token_file_has_the_shape_of_the_portals() -> None:
    """Else the tests above would prove little."""
    identity = assignment_tokens.Tokens(None, None, SimulatedClock())._identity()  # type: ignore[arg-type]
    first = token_file({}, identity.certificate).splitlines()[0]
    assert first.startswith(b"Content-Type: application/pkcs7-mime")
