"""revokeCert, by whoever may and by nobody else, and the chains that a certificate is downloaded with."""

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import csr
from certs.acme.jws import base64url
from certs.acme.order_book import OrderBook
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.errors import AcmeProblem
from certs.keys import PrivateKey, generate
from tests.certs.acme.world import SERIAL, RawClient, World, name, open_world, problem_of

KEY = generate("p384")
UNAUTHORIZED = (403, "unauthorized", "neither the certificate's account nor its key signed")


async def issued(client: RawClient, key: PrivateKey = KEY) -> x509.Certificate:
    order = await client.order()
    await order.attested(key)
    assert (await order.finalize(csr.build(key, name(SERIAL)))).status == 200
    certificate: x509.Certificate = client.world.devices.issued_to[-1]
    return certificate


def named(certificate: x509.Certificate, **more: Any) -> dict[str, Any]:
    return {"certificate": base64url(certificate.public_bytes(Encoding.DER)), **more}


def revoked(world: World) -> dict[int, x509.ReasonFlags]:
    return {serial: entry.reason for serial, entry in world.ca.index.revoked.items()}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (None, x509.ReasonFlags.unspecified),
        (0, x509.ReasonFlags.unspecified),
        (1, x509.ReasonFlags.key_compromise),
        (3, x509.ReasonFlags.affiliation_changed),
        (4, x509.ReasonFlags.superseded),
        (5, x509.ReasonFlags.cessation_of_operation),
    ],
)
async def test_the_account_revokes_what_it_ordered(
    code: int | None, reason: x509.ReasonFlags
) -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        certificate = await issued(client)
        payload = named(certificate) if code is None else named(certificate, reason=code)
        response = await client.post("revoke-cert", payload)
        assert (response.status, response.body) == (200, b"")
        assert revoked(world) == {certificate.serial_number: reason}
        again = problem_of(await client.post("revoke-cert", payload))
        crl = x509.load_der_x509_crl(world.ca.crl())
    assert again == (400, "alreadyRevoked", "the certificate is revoked already")
    assert crl.get_revoked_certificate_by_serial_number(certificate.serial_number)


async def test_the_key_of_the_certificate_revokes_it_without_an_account() -> None:
    async with open_world() as world:
        certificate = await issued(await RawClient(world).register())
        holder, stranger = RawClient(world, KEY), RawClient(world)
        payload = named(certificate, reason=1)
        assert problem_of(await stranger.post("revoke-cert", payload)) == UNAUTHORIZED
        assert (await holder.post("revoke-cert", payload)).status == 200
        assert list(revoked(world)) == [certificate.serial_number]


async def test_another_account_revokes_nothing_until_it_proves_the_same_device() -> None:
    async with open_world() as world:
        certificate = await issued(await RawClient(world).register())
        other = await RawClient(world).register()
        payload = named(certificate)
        assert problem_of(await other.post("revoke-cert", payload)) == UNAUTHORIZED
        assert revoked(world) == {}
        await (await other.order()).attested(generate("p256"))
        assert (await other.post("revoke-cert", payload)).status == 200


async def test_a_certificate_whose_order_is_forgotten_is_revoked_by_its_key_alone() -> None:
    clock = SimulatedClock()
    async with open_world(clock=clock, book=OrderBook(clock, max_ended=0)) as world:
        client = await RawClient(world).register()
        certificate = await issued(client)
        assert problem_of(await client.post("revoke-cert", named(certificate))) == UNAUTHORIZED
        assert (await RawClient(world, KEY).post("revoke-cert", named(certificate))).status == 200


@pytest.mark.parametrize("reason", [2, 6, 7, 8, 9, 10, 11, -1])
async def test_a_reason_that_no_holder_may_give_is_refused(reason: int) -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        payload = named(await issued(client), reason=reason)
        answer = problem_of(await client.post("revoke-cert", payload))
        assert revoked(world) == {}
    assert answer == (400, "badRevocationReason", f"reason {reason} is none of 0, 1, 3, 4, 5")


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"certificate": 1},
        {"certificate": "eA=="},
        {"certificate": base64url(b"no certificate")},
        {"certificate": "", "reason": 1},
        b"",
    ],
)
async def test_what_names_no_certificate_is_malformed(payload: Any) -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        assert problem_of(await client.post("revoke-cert", payload))[:2] == (400, "malformed")


async def test_the_reason_is_a_number() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        payload = named(await issued(client), reason="keyCompromise")
        answer = problem_of(await client.post("revoke-cert", payload))
    assert answer[:2] == (400, "malformed")


async def test_a_certificate_of_another_ca_is_not_found() -> None:
    async with open_world() as world:
        same_name = CertificateAuthority.create("Test Device CA", clock=world.clock)
        foreign = same_name.issue(KEY.public_key(), name(SERIAL))
        answer = problem_of(await RawClient(world, KEY).post("revoke-cert", named(foreign)))
    assert answer == (404, "malformed", "this CA did not issue it")


async def test_our_client_revokes_in_both_ways() -> None:
    async with open_world() as world:
        client = world.client()
        for key in None, KEY:
            chain = await client.enroll(
                csr.build(KEY, name(SERIAL)), identifier=SERIAL, attest=world.attest(KEY)
            )
            await client.revoke(chain[0], reason=4, key=key)
            with pytest.raises(AcmeProblem) as caught:
                await client.revoke(chain[0])
            assert caught.value.type == "alreadyRevoked"
        assert set(revoked(world).values()) == {x509.ReasonFlags.superseded}
        assert len(revoked(world)) == 2


async def test_a_certificate_that_names_nothing_belongs_to_no_other_account() -> None:
    """Its order is not known here, and it has no name that an account could prove."""
    async with open_world() as world:
        nameless = world.ca.issue(KEY.public_key(), x509.Name([]))
        client = await RawClient(world).register()
        answer = problem_of(await client.post("revoke-cert", named(nameless)))
        assert revoked(world) == {}
    assert answer[:2] == (403, "unauthorized")
