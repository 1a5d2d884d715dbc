"""Administration of push: certificates, tokens, GOAWAY, statistics and the Prometheus page."""

import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client.parser import text_string_to_metric_families

from certs import csr
from certs.identity import Identity
from certs.keys import load_checked, spki_der
from emulator.apple.push_certificate import provider_of
from tests.emulator.apple.push_support import TOKEN, TOPIC, Listener, provider
from tests.emulator.apple.support import Client, ec_key, pki
from tests.support import rsa_key


async def issue(client: Client, **fields: object) -> tuple[int, dict[str, str]]:
    reply = await client.admin("POST", "/push/certificates", json.dumps(fields).encode())
    return reply.status, reply.json()


async def test_a_push_certificate_comes_with_its_key(client: Client) -> None:
    status, answer = await issue(client, topic=TOPIC)
    assert status == 201
    certificate = x509.load_pem_x509_certificate(answer["certificate"].encode())
    judged = provider_of(
        certificate, root=pki().push_ca.certificate, is_revoked=lambda _: False, required=True
    )
    assert (judged.topics, judged.refusal) == ((TOPIC,), None)
    assert answer["private_key"].startswith("-----BEGIN PRIVATE KEY-----")
    assert answer["topic"] == TOPIC


def test_the_key_and_the_certificate_belong_together() -> None:
    # `load_checked` has to stay off the event loop.
    key = rsa_key(1)
    certificate = pki().issue_push_certificate(key.public_key(), TOPIC)
    pem = Identity(key, certificate).to_pem()
    assert spki_der(load_checked(pem).public_key()) == spki_der(key.public_key())
    days = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert 365 <= days.days <= 366


async def test_a_csr_gets_a_certificate_and_no_key(client: Client) -> None:
    request = csr.build(ec_key(1), x509.Name([]))
    pem = x509.load_der_x509_csr(request).public_bytes(Encoding.PEM).decode()
    status, answer = await issue(client, topic=TOPIC, csr=pem, days=5)
    assert (status, "private_key" in answer) == (201, False)
    certificate = x509.load_pem_x509_certificate(answer["certificate"].encode())
    assert certificate.public_key() == ec_key(1).public_key()


@pytest.mark.parametrize(
    "fields", [{}, {"topic": "com.example.app"}, {"topic": TOPIC, "csr": "x"}, {"topic": 7}]
)
async def test_a_request_that_makes_no_sense_is_refused(
    client: Client, fields: dict[str, object]
) -> None:
    status, answer = await issue(client, **fields)
    assert status == 400
    assert answer["error"]


async def test_a_token_can_be_looked_at_and_ended(client: Client) -> None:
    device = Listener(client.services)
    path = f"/push/tokens/{TOKEN.hex()}"
    known = (await client.admin("GET", path)).json()
    assert known == {
        "token": TOKEN.hex(),
        "topic": TOPIC,
        "device": None,
        "online": False,
        "pending": False,
    }
    device.online()
    assert (await client.admin("GET", path)).json()["online"] is True
    assert (await client.admin("DELETE", path + "?reason=ExpiredToken")).status == 200
    gone = (await client.admin("GET", path)).json()
    assert (gone["gone"], gone["token"]) == ("ExpiredToken", TOKEN.hex())
    async with provider(client.services) as raw:
        answer = await raw.push()
        assert (answer.status, answer.reason) == (410, "ExpiredToken")
    assert (await client.admin("DELETE", path)).status == 404
    assert (await client.admin("GET", "/push/tokens/00")).status == 404
    assert (await client.admin("GET", "/push/tokens/zz")).status == 400
    assert (await client.admin("DELETE", path + "?reason=Bored")).status == 400


async def test_providers_can_be_sent_away(client: Client) -> None:
    Listener(client.services)
    async with provider(client.services) as raw:
        await raw.push()
        reply = await client.admin("POST", "/push/goaway", b'{"reason":"ServiceUnavailable"}')
        assert reply.json() == {"closed": 1}
        await raw.until_closed()
        assert raw.goaway is not None
        assert raw.goaway.additional_data == b'{"reason":"ServiceUnavailable"}'
    assert (await client.admin("POST", "/push/goaway")).json() == {"closed": 0}
    assert (await client.admin("POST", "/push/goaway", b'{"reason":"Bored"}')).status == 400


async def test_the_statistics_add_up(client: Client) -> None:
    Listener(client.services)
    async with provider(client.services) as raw:
        await raw.push()
        await raw.push()
        await raw.push(bytes(32))
        facts = (await client.admin("GET", "/push/stats")).json()
        assert (facts["pushes"], facts["stored"], facts["coalesced"]) == (2, 2, 1)
        assert facts["refused"] == {"BadDeviceToken": 1}
        assert (facts["tokens"], facts["pending"], facts["online"]) == (1, 1, 0)
        assert facts["provider_connections"] == 1


async def test_prometheus_reads_the_same(client: Client) -> None:
    Listener(client.services)
    async with provider(client.services) as raw:
        await raw.push()
        await raw.push(bytes(32))
    reply = await client.admin("GET", "/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, sample.labels.get("reason")): sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }
    assert samples["sim_apns_pushes_total", None] == 1
    assert samples["sim_apns_refused_total", "BadDeviceToken"] == 1
    assert samples["sim_apns_tokens", None] == 1
    assert samples["sim_apns_pending", None] == 1


@pytest.mark.parametrize("path", ["/metrics", "/push/stats", "/push/tokens/00"])
async def test_nobody_looks_without_the_token(client: Client, path: str) -> None:
    assert (await client.admin("GET", path, token=None)).status == 401
