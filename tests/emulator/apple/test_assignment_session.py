"""`GET /session` and what it gives: OAuth 1.0a, its windows and its strictness, session tokens (apple-services.md 4.1, 4.2)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from authlib.oauth1 import ClientAuth  # type: ignore[import-untyped]

from certs.clock import SimulatedClock, SystemClock
from emulator.apple.answer import Refusal
from emulator.apple.app import AppleServices
from emulator.apple.assignment_settings import AssignmentSettings
from emulator.apple.ledger import IssuedToken, Ledger
from emulator.apple.oauth import OAuth
from emulator.apple.records import Organization, Server
from emulator.apple.registry import Registry
from emulator.apple.tokens import BUILT_IN
from emulator.wire import token as wire
from emulator.wire.cloudconfig import Organization as Facts
from emulator.wire.token import ServerToken
from tests.emulator.apple.assignment_support import (
    OTHER_UUID,
    SERVER_UUID,
    Ade,
    Started,
    admin,
    good,
    issued,
    portal,
    signed_up,
)
from tests.emulator.apple.support import Client, pki

BAD_REQUEST = (400, "oauth_problem_adviceBad Request", "text/plain")
UNAUTHORIZED = (401, "oauth_problem_adviceUnauthorized", "text/plain")


# ---- the signature ----


async def test_a_signed_request_gets_a_session_that_other_requests_show(ade: Ade) -> None:
    reply = await ade.sign_in()
    assert set(good(reply)) == {"auth_session_token"}
    assert len(ade.session) <= 168
    account = good(await ade.ask("GET", "/account"))
    assert account["server_uuid"] == SERVER_UUID


def test_the_published_vector_is_accepted() -> None:
    """apple-services.md 4.2: computed by another library for a URL without TLS."""
    clock, registry = SimulatedClock(), Registry()
    facts = Organization(facts=Facts(name="A"))
    registry.set_organization(facts)
    ledger = registry.add_server("A", Server(name="S", uuid=SERVER_UUID))
    token = ServerToken(
        consumer_key="CK_demo",
        consumer_secret="CS_demo",
        access_token="AT_demo",
        access_secret="AS_demo",
        access_token_expiry=clock.now().replace(year=2099),
    )
    registry.issue(ledger, IssuedToken(token=token, issued_at=clock.now(), issued_by="a"))
    url = "http://127.0.0.1:8080"
    oauth = OAuth(registry, AssignmentSettings(), lambda: ["https://other", url])
    now = clock.now().fromtimestamp(1700000000, clock.now().tzinfo)

    def verify(signature: str, version: str) -> Ledger:
        header = (
            'OAuth realm="ADM", oauth_consumer_key="CK_demo", oauth_token="AT_demo", '
            'oauth_signature_method="HMAC-SHA1", oauth_timestamp="1700000000", '
            f'oauth_nonce="n0nce"{version}, oauth_signature="{signature}"'
        )
        return oauth.verify(header, "127.0.0.1:8080", now)

    with pytest.raises(Refusal, match="signature"):
        verify("X6b7wWf0GvqxzRKEh4CMlCUZoaE%3D", ', oauth_version="1.0"')
    assert verify("Y6b7wWf0GvqxzRKEh4CMlCUZoaE%3D", ', oauth_version="1.0"') is ledger
    with pytest.raises(Refusal, match="nonce"):
        verify("n5lmBruMnPUo%2Ba4duPh234GfKHQ%3D", "")
    fresh = OAuth(registry, AssignmentSettings(), lambda: [url])
    oauth = fresh
    assert verify("n5lmBruMnPUo%2Ba4duPh234GfKHQ%3D", "") is ledger


@pytest.mark.peer
@pytest.mark.parametrize("realm", [None, "ADM"])
async def test_authlib_signs_for_us(http: aiohttp.ClientSession, realm: str | None) -> None:
    clock = SystemClock()  # authlib reads the machine's
    async with AppleServices(pki=pki(), clock=clock, portal=portal("SIM1")) as services:
        ade = await signed_up(Client(services, http), SimulatedClock(clock.now()))
        token = ade.token
        signer = ClientAuth(
            token.consumer_key,
            token.consumer_secret,
            token.access_token,
            token.access_secret,
            realm=realm,
        )
        _, headers, _ = signer.prepare("GET", services.url + "/session", {}, b"")
        assert (await ade.sign_in(headers["Authorization"])).status == 200
        assert (await ade.sign_in(headers["Authorization"])).refusal == UNAUTHORIZED
        assert good(await ade.ask("GET", "/account"))["org_name"] == "Example Inc"


@pytest.mark.parametrize("name", ["consumer_secret", "access_secret"])
async def test_a_signature_of_another_secret_is_unauthorized(ade: Ade, name: str) -> None:
    changed: dict[str, Any] = {name: "XX_secret"}
    ade.token = replace(ade.token, **changed)
    assert (await ade.sign_in()).refusal == UNAUTHORIZED


async def test_an_altered_signature_is_unauthorized_and_uses_up_no_nonce(ade: Ade) -> None:
    header = ade.authorization()
    broken = header.replace('oauth_signature="', 'oauth_signature="A')
    assert (await ade.sign_in(broken)).refusal == UNAUTHORIZED
    assert (await ade.sign_in(header)).status == 200


@pytest.mark.parametrize("name", ["consumer_key", "access_token"])
async def test_credentials_of_nobody_are_unauthorized(ade: Ade, name: str) -> None:
    changed: dict[str, Any] = {name: "XX_unknown"}
    ade.token = replace(ade.token, **changed)
    assert (await ade.sign_in()).refusal == UNAUTHORIZED


async def test_a_signature_for_another_url_is_unauthorized(ade: Ade) -> None:
    header = ade.authorization(url="https://elsewhere.example.com")
    assert (await ade.sign_in(header)).refusal == UNAUTHORIZED


@pytest.mark.parametrize("url", ["https://mdmenrollment.apple.com", "https://localhost:{port}"])
async def test_other_names_of_ours_may_be_signed_for(ade: Ade, url: str) -> None:
    port = ade.services.url.rpartition(":")[2]
    header = ade.authorization(url=url.format(port=port))
    assert (await ade.sign_in(header)).status == 200


async def test_a_url_of_the_settings_may_be_signed_for(started: Started) -> None:
    async with started(public_urls=("https://proxy.example.com",)) as ade:
        header = ade.authorization(url="https://proxy.example.com")
        assert (await ade.sign_in(header)).status == 200


# ---- nonce and time ----


async def test_a_replayed_request_is_unauthorized_for_fifteen_minutes(ade: Ade) -> None:
    assert (await ade.sign_in(ade.authorization(nonce="n"))).status == 200
    await ade.clock.advance(899)
    assert (await ade.sign_in(ade.authorization(nonce="n"))).refusal == UNAUTHORIZED
    await ade.clock.advance(1)
    assert (await ade.sign_in(ade.authorization(nonce="n"))).status == 200


async def test_two_servers_may_use_the_same_nonce(ade: Ade) -> None:
    other = await signed_up(ade.client, ade.clock, OTHER_UUID)
    for one in (ade, other):
        assert (await one.sign_in(one.authorization(nonce="same"))).status == 200


@pytest.mark.parametrize(("off_s", "status"), [(300, 200), (301, 401), (-300, 200), (-301, 401)])
async def test_a_clock_may_be_off_by_five_minutes(ade: Ade, off_s: int, status: int) -> None:
    timestamp = str(int(ade.clock.now().timestamp()) + off_s)
    assert (await ade.sign_in(ade.authorization(timestamp=timestamp))).status == status


# ---- what is no OAuth ----


@pytest.mark.parametrize(
    "change",
    [
        lambda header: "",
        lambda header: "Bearer abc",
        lambda header: "OAuth",
        lambda header: "OAuth x",
        lambda header: header.replace("HMAC-SHA1", "HMAC-SHA256"),
        lambda header: header.replace("HMAC-SHA1", "PLAINTEXT"),
        lambda header: header.replace('oauth_version="1.0"', 'oauth_version="2.0"'),
        lambda header: header.replace("oauth_nonce", "oauth_once"),
        lambda header: header.replace("oauth_timestamp", "oauth_time"),
        lambda header: header.replace("oauth_token", "oauth_tok"),
        lambda header: header.replace("oauth_signature=", "oauth_sig="),
        lambda header: header + ', oauth_nonce="again"',
        lambda header: header + ', oauth_callback="oob"',
        lambda header: header.replace('oauth_timestamp="1', 'oauth_timestamp="x'),
        lambda header: header.replace('oauth_nonce="', 'oauth_nonce="' + "n" * 600),
    ],
)
async def test_what_breaks_the_form_is_a_bad_request(
    ade: Ade, change: Callable[[str], str]
) -> None:
    header = change(ade.authorization())
    reply = await ade.send("GET", "/session", headers={"Authorization": header} if header else {})
    assert reply.refusal == BAD_REQUEST


async def test_headers_beyond_every_size_are_refused_and_nothing_else_happens(ade: Ade) -> None:
    reply = await ade.send("GET", "/session", headers={"Authorization": "OAuth " + "x" * 70_000})
    assert reply.status == 400
    assert (await ade.sign_in()).status == 200


# ---- whose token it is ----


@pytest.mark.ade(120)
async def test_a_new_token_ends_the_old_one_and_its_session_at_once(ade: Ade) -> None:
    await ade.sign_in()
    new = await issued(ade.client)
    assert new.consumer_key == ade.token.consumer_key
    assert (await ade.sign_in()).refusal == (401, "token_rejected", "text/plain")
    assert (await ade.ask("GET", "/account")).refusal == (403, "FORBIDDEN", "text/plain")
    ade.token = new
    assert (await ade.sign_in()).status == 200


@pytest.mark.parametrize("answer", ["403 token_rejected", "403 signature_invalid"])
async def test_a_token_that_is_over_is_answered_as_the_switch_says(
    started: Started, answer: str
) -> None:
    async with started(replaced_token=answer) as ade:
        await issued(ade.client)
        status, _, word = answer.partition(" ")
        assert (await ade.sign_in()).refusal == (int(status), word, "text/plain")


async def test_a_token_of_another_consumer_key_ends_the_old_key_too(ade: Ade) -> None:
    new = await issued(ade.client, new_consumer_key=True)
    assert new.consumer_key != ade.token.consumer_key
    assert (await ade.sign_in()).refusal == (401, "token_rejected", "text/plain")


@pytest.mark.ade(118)
async def test_a_token_is_good_for_a_year(ade: Ade) -> None:
    await ade.clock.advance(365 * 86400 - 1)
    assert (await ade.sign_in()).status == 200
    await ade.clock.advance(1)
    assert (await ade.sign_in()).refusal == (403, "token_expiredForbidden", "text/plain")


async def test_unsigned_terms_stop_everything_until_they_are_signed(ade: Ade) -> None:
    await ade.sign_in()
    path = "/portal/organizations/Example%20Inc"
    assert (await admin(ade.client, "PATCH", path, {"terms_signed": False})).status == 200
    assert (await ade.sign_in()).refusal == (403, "T_C_NOT_SIGNED", "text/plain")
    assert (await ade.ask("GET", "/account")).refusal == (403, "T_C_NOT_SIGNED", "text/plain")
    await admin(ade.client, "PATCH", path, {"terms_signed": True})
    assert (await ade.ask("GET", "/account")).status == 200


async def test_a_blocked_server_is_denied_access(ade: Ade) -> None:
    await admin(ade.client, "PATCH", f"/portal/servers/{SERVER_UUID}", {"blocked": True})
    assert (await ade.sign_in()).refusal == (403, "ACCESS_DENIED", "text/plain")


# ---- strictness ----


async def test_keys_alone_are_enough_where_the_switch_says_so(started: Started) -> None:
    async with started(oauth="keys") as ade:
        ade.token = replace(ade.token, consumer_secret="wrong")
        assert (await ade.sign_in(ade.authorization(nonce="n"))).status == 200
        old = ade.authorization(nonce="n", timestamp="1000000000")
        assert (await ade.sign_in(old)).status == 200
        ade.token = replace(ade.token, access_token="wrong")
        assert (await ade.sign_in()).refusal == UNAUTHORIZED


async def test_an_open_api_takes_anybody_and_knows_its_own_keys(started: Started) -> None:
    async with started(oauth="open") as ade:
        assert (await ade.send("GET", "/session", headers={})).status == 200
        other = await signed_up(ade.client, ade.clock, OTHER_UUID)
        other.token = replace(other.token, consumer_secret="wrong")
        await other.sign_in()
        assert good(await other.ask("GET", "/account"))["server_uuid"] == OTHER_UUID


# ---- sessions ----


async def test_without_a_session_nothing_is_told(ade: Ade) -> None:
    reply = await ade.send("GET", "/account", headers={})
    assert reply.refusal == (401, "UNAUTHORIZED", "text/plain")


@pytest.mark.parametrize(
    "change",
    [
        lambda token: "made-up",
        lambda token: token + "0",
        lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"),
        lambda token: "9" + token[1:],
        lambda token: token.replace(SERVER_UUID, OTHER_UUID),
        lambda token: "1" * 5000,
        lambda token: "xOxOxOx",
    ],
)
async def test_a_session_of_no_making_of_ours_is_forbidden(
    ade: Ade, change: Callable[[str], str]
) -> None:
    await ade.sign_in()
    ade.session = change(ade.session)
    assert (await ade.ask("GET", "/account")).refusal == (403, "FORBIDDEN", "text/plain")


async def test_a_session_is_over_after_five_minutes(ade: Ade) -> None:
    await ade.sign_in()
    await ade.clock.advance(299)
    assert (await ade.ask("GET", "/account")).status == 200
    await ade.clock.advance(1)
    assert (await ade.ask("GET", "/account")).refusal == (401, "UNAUTHORIZED", "text/plain")


async def test_an_answer_brings_the_next_session_and_the_old_one_stays_good(ade: Ade) -> None:
    await ade.sign_in()
    await ade.clock.advance(29)
    await ade.ask("GET", "/account")
    assert ade.adopted == [ade.session]  # not yet
    await ade.clock.advance(1)
    await ade.ask("GET", "/account")
    old, new = ade.session, ade.adopted[-1]
    assert new != old
    await ade.clock.advance(200)
    for token in (old, new):
        ade.session = token
        assert (await ade.ask("GET", "/account")).status == 200
    await ade.clock.advance(70)
    ade.session = old
    assert (await ade.ask("GET", "/account")).status == 401
    ade.session = new
    assert (await ade.ask("GET", "/account")).status == 200


async def test_sessions_that_do_not_rotate_stay(started: Started) -> None:
    async with started(rotate_sessions=False) as ade:
        await ade.sign_in()
        await ade.clock.advance(250)
        await ade.ask("GET", "/account")
        assert ade.adopted == [ade.session]


# ---- agents, types, quotes ----


async def test_an_agent_is_needed(ade: Ade) -> None:
    ade.agent = ""
    assert (await ade.sign_in()).refusal == (400, "USER_AGENT_MISSING", "text/plain")


async def test_an_agent_may_be_refused(started: Started) -> None:
    """Bug D07."""
    async with started(refused_user_agents=("Go-http-client/",)) as ade:
        await ade.sign_in()
        ade.agent = "Go-http-client/1.1"
        answer = await ade.ask("GET", "/account")
        assert answer.refusal == (400, "USER_AGENT_INVALID", "text/plain")


async def test_words_may_stand_in_quotes(started: Started) -> None:
    async with started(quoted_errors=True) as ade:
        reply = await ade.send("GET", "/account", headers={})
        assert reply.refusal == (401, '"UNAUTHORIZED"', "text/plain")


async def test_the_simulators_content_type_may_be_asked_for(started: Started) -> None:
    async with started(strict_content_type=True) as ade:
        assert (await ade.sign_in()).status == 200
        reply = await ade.sign_in(**{"Content-Type": "application/json;charset=utf-8"})
        assert reply.status == 400


async def test_another_method_is_a_405_and_another_path_a_404(ade: Ade) -> None:
    assert (await ade.ask("POST", "/account")).refusal[0] == 405
    assert (await ade.ask("HEAD", "/account")).refusal[0] == 405
    assert (await ade.ask("GET", "/profile/nowhere")).refusal[0] == 404


# ---- MicroMDM's own credentials ----


async def test_a_server_may_have_the_credentials_that_micromdm_has_built_in(
    client: Client, clock: SimulatedClock
) -> None:
    servers = [{"name": "M", "credentials": "micromdm", "devices": ["SIM1"]}]
    client.services.apply(portal(servers=servers))
    ade = Ade(client, clock, await _built_in(client))
    assert (await ade.sign_in()).status == 200
    assert (await ade.fetch())["devices"][0]["serial_number"] == "SIM1"


async def _built_in(client: Client) -> ServerToken:
    ade = Ade(client, SimulatedClock(), BUILT_IN)
    reply = await ade.send("GET", "/token", headers={})
    assert wire.decode(reply.body) == BUILT_IN
    return BUILT_IN


async def test_without_such_a_server_there_is_no_token_to_read(ade: Ade) -> None:
    assert (await ade.send("GET", "/token", headers={})).refusal[:2] == (404, "NOT_FOUND")
