"""The portal over the admin API: organisations, people and terms, servers and their tokens, devices (rules 33 to 36, 45, 118 to 120)."""

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from certs import cms
from certs.clock import SimulatedClock
from emulator.apple.ledger import ADVISED_DEVICES
from emulator.apple.registry import MAX_SERVERS, LimitReached, Registry
from emulator.apple.tokens import unseal
from emulator.wire import token as wire
from tests.emulator.apple.assignment_support import (
    OTHER_UUID,
    SERVER_UUID,
    URL,
    Ade,
    admin,
    good,
    issued,
    key_pair,
    pem,
    portal,
    serials,
    signed_up,
)
from tests.emulator.apple.support import Client, Device, Reply, der, pki

ORGANIZATION = "/portal/organizations/Example%20Inc"
SERVERS = "/portal/servers"
SERVER = f"{SERVERS}/{SERVER_UUID}"


async def person(client: Client, apple_id: str, role: str = "administrator") -> None:
    assert (
        await admin(client, "PUT", f"{ORGANIZATION}/people/{apple_id}", {"role": role})
    ).status == 200


async def event(client: Client, who: str, **content: Any) -> Reply:
    return await admin(client, "POST", f"{ORGANIZATION}/people/{who}/events", content)


# ---- servers and their token files ----


@pytest.mark.ade(34)
async def test_a_new_server_answers_with_the_token_file_for_its_key(
    client: Client, clock: SimulatedClock, ade: Ade
) -> None:
    content = {
        "organization": "Example Inc",
        "name": "Neuer Server 2",
        "certificate": pem(key_pair().certificate),
    }
    reply = await admin(client, "POST", SERVERS, content)
    assert (reply.status, reply.content_type) == (201, "application/pkcs7-mime")
    assert reply.headers["Content-Disposition"] == (
        'attachment; filename="Neuer_Server_2_Token_2026-01-01T00-00-00Z_smime.p7m"'
    )
    made = Ade(client, clock, unseal(reply.body, key_pair()))
    account = good(await made.ask("GET", "/account"))
    assert reply.headers["Location"] == f"{SERVERS}/{account['server_uuid']}"
    assert account["server_name"] == "Neuer Server 2"
    assert made.token.access_token_expiry == clock.now().replace(year=2027)


async def test_a_file_is_made_in_the_form_that_is_asked_for(client: Client, ade: Ade) -> None:
    certificate = base64.b64encode(der(key_pair().certificate)).decode()
    content = {"certificate": certificate, "cipher": "des3", "lengths": "definite"}
    reply = await admin(client, "POST", f"{SERVER}/token", content)
    envelope = wire.decode_message(reply.body)
    assert cms.cipher_of(envelope) == "des3"
    assert envelope[1] != 0x80
    # The certificate is remembered: the next file needs none.
    again = await admin(client, "POST", f"{SERVER}/token", {})
    assert unseal(again.body, key_pair()).consumer_key == ade.token.consumer_key


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        ({}, "certificate"),
        ({"certificate": "AAAA"}, "certificate"),
        ({"certificate": "-----BEGIN CERTIFICATE-----"}, "certificate"),
        ({"certificate": "EC"}, "RSA"),
        ({"format": "pdf"}, "format"),
        ({"format": "json", "cipher": "rot13"}, "cipher"),
        ({"format": "json", "lengths": "short"}, "lengths"),
        ({"format": "json", "new_consumer_key": 1}, "new_consumer_key"),
    ],
)
async def test_a_token_that_cannot_be_made_leaves_the_old_one(
    client: Client, ade: Ade, content: Any, mistake: str
) -> None:
    if content.get("certificate") == "EC":
        content = {"certificate": pem(pki().tls_ca.certificate)}
    reply = await admin(client, "POST", f"{SERVER}/token", content)
    assert reply.status == 400
    assert mistake in reply.json()["error"]
    assert (await ade.sign_in()).status == 200


async def test_a_token_is_taken_back_and_the_next_keeps_the_consumer_key(
    client: Client, ade: Ade
) -> None:
    assert (await admin(client, "DELETE", f"{SERVER}/token")).json() == {"invalidated": True}
    assert (await admin(client, "DELETE", f"{SERVER}/token")).json() == {"invalidated": False}
    assert (await ade.sign_in()).refusal == (401, "token_rejected", "text/plain")
    assert (await issued(client)).consumer_key == ade.token.consumer_key


async def test_a_server_is_shown_without_its_secrets(client: Client, ade: Ade) -> None:
    uuid = await ade.define()
    shown = await admin(client, "GET", SERVER)
    facts = shown.json()
    assert (facts["devices"], facts["profiles"], facts["blocked"]) == (3, [uuid], False)
    assert facts["token"]["expires"] == "2027-01-01T00:00:00Z"
    for secret in (ade.token.consumer_secret, ade.token.access_secret, ade.token.access_token):
        assert secret.encode() not in shown.body
    listed = (await admin(client, "GET", f"{SERVERS}?offset=1&limit=1")).json()
    assert (listed["total"], [one["name"] for one in listed["servers"]]) == (2, ["Test"])


async def test_no_secret_of_a_token_is_in_the_log(client: Client, ade: Ade) -> None:
    with capture_logs() as lines:
        token = await issued(client)
        ade.token = token
        await ade.sign_in()
    text = repr(lines)
    for secret in (token.consumer_secret, token.access_secret, token.access_token, ade.session):
        assert secret not in text


async def test_what_a_server_asked_can_be_read(client: Client, ade: Ade) -> None:
    await ade.fetch()
    await ade.ask("POST", "/devices/sync", {})
    calls = (await admin(client, "GET", f"{SERVER}/calls")).json()["calls"]
    assert [(call["step"], call["outcome"], call["devices"]) for call in calls] == [
        ("assignment_session", "session", 0),
        ("assignment_fetch", "full", 3),
        ("assignment_sync", "CURSOR_REQUIRED", 0),
    ]


async def test_a_removed_server_leaves_its_devices_to_the_organization(
    client: Client, ade: Ade
) -> None:
    await ade.sign_in()
    assert (await admin(client, "DELETE", SERVER)).status == 200
    assert (await ade.ask("GET", "/account")).refusal == (403, "FORBIDDEN", "text/plain")
    assert (await ade.sign_in()).status == 401
    record = ade.record("SIM1")
    assert record.organization is not None
    assert record.server is None
    assert (await admin(client, "GET", SERVER)).status == 404


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"organization": "Example Inc"}, 400),
        ({"organization": "Nobody", "name": "S"}, 404),
        ({"organization": "Example Inc", "name": "Production"}, 409),
        ({"organization": "Example Inc", "name": "S", "uuid": SERVER_UUID}, 409),
        ({"organization": "Example Inc", "name": "S", "uuid": "xyz"}, 400),
        ({"organization": "Example Inc", "name": "S", "profile": {"url": "http://x"}}, 400),
    ],
)
async def test_a_server_that_cannot_be_is_refused(
    client: Client, ade: Ade, content: Any, status: int
) -> None:
    assert (await admin(client, "POST", SERVERS, content)).status == status
    assert (await admin(client, "GET", SERVERS)).json()["total"] == 2


@pytest.mark.ade(31)
def test_an_account_has_two_thousand_tokens_and_not_one_more() -> None:
    names = [{"name": f"S{number}"} for number in range(MAX_SERVERS + 1)]
    registry, now = Registry(), SimulatedClock().now()
    portal(servers=names[:-1]).apply(registry, now)
    assert len(registry.ledgers) == MAX_SERVERS
    server = portal(servers=names[-1:]).organizations[0].servers[0].to_server("Example Inc")
    with pytest.raises(LimitReached, match="no more than 2000 MDM servers in Example Inc"):
        registry.add_server("Example Inc", server)
    with pytest.raises(LimitReached):
        portal(servers=names).apply(registry, now)
    assert len(registry.ledgers) == MAX_SERVERS


@pytest.mark.ade(30)
def test_more_than_two_hundred_thousand_devices_of_a_token_are_a_warning() -> None:
    registry, now = Registry(), SimulatedClock().now()
    portal().apply(registry, now)
    registry.own((f"S{number}" for number in range(ADVISED_DEVICES)), "Example Inc", "Test", now)
    with capture_logs() as lines:
        registry.own(["ONE"], "Example Inc", "Test", now)
        registry.own(["TWO"], "Example Inc", "Test", now)
    assert [line["event"] for line in lines] == ["server_over_limit"]


# ---- people ----


@pytest.mark.ade(120)
@pytest.mark.parametrize(
    ("role", "status"),
    [
        ("administrator", 200),
        ("device_enrollment_manager", 200),
        ("people_manager", 403),
        ("staff", 403),
    ],
)
async def test_downloading_a_token_needs_a_role(
    client: Client, ade: Ade, role: str, status: int
) -> None:
    await person(client, "p@example.com", role)
    content = {"by": "p@example.com", "format": "json"}
    reply = await admin(client, "POST", f"{SERVER}/token", content)
    assert reply.status == status
    assert (await ade.sign_in()).status == (401 if status == 200 else 200)
    stranger = {"by": "x@example.com", "format": "json"}
    assert (await admin(client, "POST", f"{SERVER}/token", stranger)).status == 403


@pytest.mark.ade(118)
@pytest.mark.parametrize("what", ["password_changed", "left"])
async def test_a_token_dies_with_the_password_or_the_leaving_of_its_person(
    client: Client, ade: Ade, what: str
) -> None:
    await person(client, "p@example.com")
    ade.token = await issued(client, by="p@example.com")
    assert (await ade.sign_in()).status == 200
    assert (await event(client, "q@example.com", event=what)).json()["tokens_ended"] == []
    assert (await ade.ask("GET", "/account")).status == 200
    assert (await event(client, "p@example.com", event=what)).json()["tokens_ended"] == [
        "Production"
    ]
    assert (await ade.sign_in()).refusal == (401, "token_rejected", "text/plain")
    people = (await admin(client, "PATCH", ORGANIZATION, {})).json()["people"]
    assert (people == []) is (what == "left")


@pytest.mark.ade(119)
async def test_another_apple_id_of_the_same_person_leaves_the_token_as_it_is(
    client: Client, ade: Ade
) -> None:
    await person(client, "old@example.com")
    ade.token = await issued(client, by="old@example.com")
    await event(client, "old@example.com", event="renamed", apple_id="new@example.com")
    account = good(await ade.ask("GET", "/account"))
    assert account["admin_id"] == account["facilitator_id"] == "new@example.com"


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("PUT", f"{ORGANIZATION}/people/a", {"role": "king"}, 400),
        ("POST", f"{ORGANIZATION}/people/a/events", {"event": "danced"}, 400),
        ("POST", f"{ORGANIZATION}/people/a/events", {"event": "renamed"}, 400),
        ("PATCH", ORGANIZATION, {"org_type": "club"}, 400),
        ("PATCH", ORGANIZATION, {"terms_signed": "yes"}, 400),
        ("PATCH", "/portal/organizations/Nobody", {}, 404),
        ("POST", "/portal/organizations", {"name": ""}, 400),
        ("POST", "/portal/devices/release", {}, 400),
        ("POST", "/portal/devices/release", {"serials": ["S-1"]}, 400),
        ("POST", "/portal/devices/configurator", {"serials": ["A"]}, 400),
        ("POST", "/portal/devices/configurator", {"serials": [], "organization": "X"}, 404),
        (
            "POST",
            "/portal/devices/configurator",
            {"serials": ["A"], "organization": "Example Inc", "start": "never"},
            400,
        ),
        ("PATCH", "/portal/devices/NOBODY", {}, 404),
        ("PATCH", "/portal/devices/SIM1", {"migration_deadline": "soon"}, 400),
        ("PATCH", "/portal/devices/SIM1", {"asset_tag": 1}, 400),
    ],
)
async def test_what_cannot_be_is_refused(
    client: Client, ade: Ade, method: str, path: str, content: Any, status: int
) -> None:
    reply = await admin(client, method, path, content)
    assert reply.status == status, reply.body
    assert reply.json()["error"]


async def test_an_organization_comes_with_people_and_without_devices(client: Client) -> None:
    content = {
        "name": "School",
        "org_type": "edu",
        "people": [{"apple_id": "a@school", "role": "administrator", "password": "secret"}],
    }
    made = await admin(client, "POST", "/portal/organizations", content)
    assert made.status == 201
    assert (made.json()["org_type"], made.json()["servers"]) == ("edu", [])
    assert b"secret" not in made.body
    await admin(client, "POST", "/portal/devices", {"organization": "School", "serials": ["SIM1"]})
    again = {**content, "org_type": "org", "phone": "555-0100"}
    assert (await admin(client, "POST", "/portal/organizations", again)).status == 200
    record = client.services.registry.get("SIM1")
    assert record is not None
    assert record.organization is not None
    assert record.organization.facts.phone == "555-0100"  # what its devices will say


async def test_a_portal_read_back_and_sent_again_changes_nothing(client: Client, ade: Ade) -> None:
    await person(client, "p@example.com")
    await admin(client, "PUT", f"{ORGANIZATION}/people/q@example.com", {"password": "kept"})
    await admin(client, "PATCH", ORGANIZATION, {"org_version": "v1", "org_type": "edu"})
    await admin(client, "PATCH", SERVER, {"certificate": pem(key_pair().certificate)})
    cursor = await ade.caught_up()
    uuid = await ade.define("SIM1")
    read = await admin(client, "GET", "/portal")
    assert b"kept" not in read.body
    sent = await admin(client, "PUT", "/portal", read.json())
    assert json.loads(sent.body) == json.loads(read.body)
    people = client.services.registry.organizations["Example Inc"].people
    assert people["q@example.com"].password == "kept"
    assert await ade.told_since(cursor) == [("SIM1", "modified")]
    assert (await ade.fetch())["devices"][0]["profile_uuid"] == uuid


async def test_a_server_that_left_the_portal_takes_its_token_along(
    client: Client, clock: SimulatedClock, ade: Ade
) -> None:
    other = await signed_up(client, clock, OTHER_UUID)
    servers = [{"name": "Production", "uuid": SERVER_UUID, "devices": ["SIM1"]}]
    client.services.apply(portal(servers=servers))
    assert (await other.sign_in()).status == 401
    assert serials(await ade.fetch()) == ["SIM1"]


# ---- devices ----


@pytest.mark.ade(45)
@pytest.mark.parametrize(("start", "days"), [("enrollment", 30), ("activation", 30)])
async def test_a_device_added_by_configurator_may_leave_for_thirty_days(
    client: Client, clock: SimulatedClock, ade: Ade, start: str, days: int
) -> None:
    cursor = await ade.caught_up()
    content = {
        "organization": "Example Inc",
        "server": "Production",
        "serials": ["SIM9"],
        "start": start,
    }
    reply = await admin(client, "POST", "/portal/devices/configurator", content)
    until = clock.now() + timedelta(days=days)
    assert reply.json()["devices"][0]["provisional_until"] == f"{until:%FT%TZ}"
    assert ade.record("SIM9").provisional_from_activation is (start == "activation")
    assert await ade.told_since(cursor) == [("SIM9", "added")]


async def test_who_assigned_a_device_is_in_its_record(
    client: Client, ade: Ade, device: Device
) -> None:
    await person(client, "p@example.com")
    await ade.clock.advance(5)
    await ade.assign_in_portal("SIM9", by="p@example.com")
    found = (await ade.fetch())["devices"][-1]
    assert found["device_assigned_by"] == "p@example.com"
    assert found["device_assigned_date"] == "2026-01-01T00:00:05Z"
    await person(client, "q@example.com", "staff")
    content = {"organization": "Example Inc", "serials": ["A"], "by": "q@example.com"}
    assert (await admin(client, "POST", "/portal/devices", content)).status == 403
    assert client.services.registry.get("A") is None


async def test_profiles_of_the_portal_come_with_new_servers(
    client: Client, clock: SimulatedClock, ade: Ade
) -> None:
    content = {"organization": "Example Inc", "name": "P", "profile": {"url": URL}}
    reply = await admin(client, "POST", SERVERS, content)
    assert (reply.status, reply.json()["has_certificate"]) == (201, False)
    await ade.assign_in_portal("SIM1", server="P")
    made = await signed_up(client, clock, reply.json()["uuid"])
    assert (await made.fetch())["devices"][0]["profile_status"] == "assigned"
