"""The ACME server at finalize: which request gets a certificate, and what becomes of the order otherwise."""

import asyncio

import pytest
import structlog
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs import csr, names
from certs.acme.device_attest import (
    permanent_identifier_name,
)
from certs.acme.policy import AcmePolicy
from certs.authorize import Grant, KnownDevices
from certs.ca import CertificateAuthority
from certs.certificate_profile import key_usage
from certs.clock import SimulatedClock
from certs.csr import CertificateRequest
from certs.errors import ChallengeRefused
from certs.keys import generate
from tests.certs.acme.world import (
    CODE,
    SERIAL,
    UDID,
    RawClient,
    fields,
    name,
    open_world,
    problem_of,
)
from tests.support import rsa_key

KEY = generate("p384")
CSR = csr.build(KEY, name(SERIAL), digest="sha384")


async def test_a_certificate_is_issued_recorded_and_told() -> None:
    async with open_world() as world:
        order = await (await RawClient(world).register()).order(CODE)
        await order.attested(KEY)
        with structlog.testing.capture_logs() as logs:
            shown = fields(await order.finalize(CSR))
        assert shown["status"] == "valid"
        response = await order.client.post(shown["certificate"], None)
        assert response.content_type == "application/pem-certificate-chain"
        leaf, *issuers = x509.load_pem_x509_certificates(response.body)
        assert world.devices.issued_to == [leaf]
    assert issuers == [world.ca.certificate]
    leaf.verify_directly_issued_by(world.ca.certificate)
    assert leaf.public_key() == KEY.public_key()
    assert leaf.subject == name(SERIAL)
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert [(line["event"], line["outcome"]) for line in logs] == [("acme_order", "valid")]


async def test_finalize_waits_for_the_challenge() -> None:
    async with open_world() as world:
        order = await (await RawClient(world).register()).order()
        answer = problem_of(await order.finalize(CSR))
    assert answer == (403, "orderNotReady", "the order is pending")


async def test_a_certificate_is_given_out_once() -> None:
    async with open_world() as world:
        order = await (await RawClient(world).register()).order()
        certificate = order.url.replace("/order/", "/certificate/")
        early = problem_of(await order.client.post(certificate, None))
        await order.attested(KEY)
        await order.finalize(CSR)
        answer = problem_of(await order.finalize(CSR))
    assert early == (404, "malformed", "this order has no certificate")
    assert answer == (403, "orderNotReady", "the order is valid")
    assert len(world.devices.issued_to) == 1


async def test_another_key_than_the_attested_one_ends_the_order() -> None:
    async with open_world() as world:
        order = await (await RawClient(world).register()).order()
        await order.attested(KEY)
        answer = problem_of(await order.finalize(csr.build(generate("p384"), name(SERIAL))))
        assert answer == (403, "unauthorized", "the key of the CSR is not the attested key")
        assert await order.states() == ("invalid", "invalid", "invalid")
        assert world.devices.issued_to == []


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


BAD_REQUESTS = {
    "signature": (_flipped(CSR), "signature is not valid"),
    "garbage": (b"no csr", "certificate request"),
    "empty": (b"", "certificate request"),
    "name": (csr.build(KEY, name("somebody")), "the common name is neither"),
    "serial-number": (
        csr.build(KEY, names.from_subject([[["CN", SERIAL]], [["2.5.4.5", "SIM0000002"]]])),
        "the serial number in the subject is not the device's",
    ),
    "name-before-its-own": (
        csr.build(KEY, x509.Name([*name("somebody"), *name(SERIAL)])),
        "the common name is neither",
    ),
    "alternative-name": (
        csr.build(KEY, name(SERIAL), alternative_names=[x509.DNSName("a.example")]),
        "a subject alternative name is not the order's identifier",
    ),
    "other-identifier": (
        csr.build(KEY, name(SERIAL), alternative_names=[permanent_identifier_name("another")]),
        "a subject alternative name is not the order's identifier",
    ),
    "ca": (
        csr.build(KEY, name(SERIAL), key_usage=key_usage("key_cert_sign")),
        "a device's key may not sign certificates",
    ),
}


@pytest.mark.parametrize("fault", BAD_REQUESTS)
async def test_a_bad_request_leaves_the_order_ready(fault: str) -> None:
    request, reason = BAD_REQUESTS[fault]
    async with open_world() as world:
        order = await (await RawClient(world).register()).order()
        await order.attested(KEY)
        status, type_, detail = problem_of(await order.finalize(request))
        assert (status, type_) == (400, "badCSR")
        assert reason in detail
        assert (await order.states())[0] == "ready"
        assert fields(await order.finalize(CSR))["status"] == "valid"


async def test_unattested_keys_must_still_be_fit() -> None:
    async with open_world(allow_unattested=True) as world:
        client = await RawClient(world).register()
        order = await client.order()
        await order.answer({})
        weak = problem_of(await order.finalize(csr.build(rsa_key(7, 1024), name(SERIAL))))
        own = problem_of(await order.finalize(csr.build(client.key, name(SERIAL))))
        missing = problem_of(await client.post(order.finalize_url, {"csr": None}))
        assert fields(await order.finalize(csr.build(rsa_key(), name(SERIAL))))["status"] == "valid"
    assert weak == (400, "badCSR", "an RSA key needs 2048 bits, not 1024")
    assert own == (400, "badCSR", "the key is the account's own (RFC 8555, section 11.1)")
    assert missing[:2] == (400, "malformed")


@pytest.mark.parametrize("common_name", [SERIAL, UDID, CODE])
async def test_the_device_may_call_itself_by_what_is_known_of_it(common_name: str) -> None:
    async with open_world() as world:
        order = await (await RawClient(world).register()).order(CODE)
        await order.attested(KEY)
        assert (await order.finalize(csr.build(KEY, name(common_name)))).status == 200


async def test_the_device_may_write_its_serial_number_into_the_subject() -> None:
    subject = names.from_subject([[["CN", UDID]], [["2.5.4.5", SERIAL]]])
    async with open_world() as world:
        order = await (await RawClient(world).register()).order(CODE)
        await order.attested(KEY)
        assert (await order.finalize(csr.build(KEY, subject))).status == 200
        assert world.devices.issued_to[-1].subject == subject


async def test_the_identifier_is_written_when_the_request_asks_for_it() -> None:
    async with open_world() as world:
        order = await (await RawClient(world).register()).order()
        await order.attested(KEY)
        wanted = permanent_identifier_name(SERIAL)
        await order.finalize(csr.build(KEY, x509.Name([]), alternative_names=[wanted]))
        (leaf,) = world.devices.issued_to
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [wanted]
    assert names.critical


async def test_the_host_may_write_the_subject() -> None:
    def subject_for(grant: Grant, request: CertificateRequest) -> x509.Name:
        return name(f"{grant.udid} was {request.common_name}")

    async with open_world(subject_for=subject_for) as world:
        order = await (await RawClient(world).register()).order()
        await order.attested(KEY)
        await order.finalize(csr.build(KEY, name("anything")))
        (leaf,) = world.devices.issued_to
    assert leaf.subject == name(f"{UDID} was anything")


class OneTime(KnownDevices):
    """Identifiers that end with their first certificate."""

    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        if self.issued_to:
            raise ChallengeRefused("this code has been used")
        await super().issued(grant, certificate)
        await asyncio.sleep(0)
        self.devices.clear()


async def test_a_one_time_identifier_gives_one_certificate() -> None:
    grant = Grant(reference="device 1", serial_number=SERIAL, udid=UDID)
    async with open_world(devices=OneTime({CODE: grant})) as world:
        client = await RawClient(world).register()
        orders = [await client.order(CODE) for _ in range(2)]
        for order in orders:
            await order.attested(KEY)
        assert (await orders[0].finalize(CSR)).status == 200
        late = problem_of(await orders[1].finalize(CSR))
        assert late == (403, "unauthorized", "no device has this identifier")
        assert await orders[1].states() == ("invalid", "invalid", "invalid")


@pytest.mark.parametrize("reuse", [False, True])
async def test_an_attestation_counts_for_the_device_that_it_was_judged_for(reuse: bool) -> None:
    devices = KnownDevices({CODE: Grant(reference="x", serial_number=SERIAL, udid=UDID)})
    async with open_world(devices=devices, policy=AcmePolicy(authz_reuse=reuse)) as world:
        client = await RawClient(world).register()
        order = await client.order(CODE)
        await order.attested(KEY)
        devices.devices[CODE] = Grant(reference="x", serial_number="SIM0000002", udid="another")
        assert (await client.order(CODE)).authorization != order.authorization
        late = problem_of(await order.finalize(CSR))
        assert await order.states() == ("invalid", "invalid", "invalid")
    assert late == (403, "unauthorized", "the identifier stands for another device by now")
    assert (devices.issued_to, world.ca.index.count) == ([], 0)


async def test_a_certificate_that_the_host_refuses_is_revoked() -> None:
    grant = Grant(reference="device 1", serial_number=SERIAL, udid=UDID)
    devices = OneTime({CODE: grant})
    async with open_world(devices=devices) as world:
        order = await (await RawClient(world).register()).order(CODE)
        await order.attested(KEY)
        devices.issued_to.append(world.ca.certificate)
        late = problem_of(await order.finalize(CSR))
    assert late == (403, "unauthorized", "this code has been used")
    assert len(world.ca.index.revoked) == 1


async def test_two_finalizes_at_once_give_one_certificate() -> None:
    class Slow(KnownDevices):
        async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
            await asyncio.sleep(0.05)
            await super().issued(grant, certificate)

    grant = Grant(reference="device 1", serial_number=SERIAL, udid=UDID)
    async with open_world(devices=Slow({SERIAL: grant})) as world:
        order = await (await RawClient(world).register()).order()
        await order.attested(KEY)
        answers = await asyncio.gather(*(order.finalize(CSR) for _ in range(3)))
        assert sorted(answer.status for answer in answers) == [200, 403, 403]
        assert len(world.devices.issued_to) == 1


async def test_a_failure_of_ours_leaves_the_order_ready_and_revokes() -> None:
    class FailsOnce(KnownDevices):
        failed = False

        async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
            if not self.failed:
                self.failed = True
                raise OSError("disk full")
            await super().issued(grant, certificate)

    grant = Grant(reference="device 1", serial_number=SERIAL, udid=UDID)
    async with open_world(devices=FailsOnce({SERIAL: grant})) as world:
        order = await (await RawClient(world).register()).order()
        await order.attested(KEY)
        assert problem_of(await order.finalize(CSR))[:2] == (500, "serverInternal")
        assert (await order.states())[0] == "ready"
        assert fields(await order.finalize(CSR))["status"] == "valid"
        assert len(world.ca.index.revoked) == 1


async def test_the_chain_leads_to_the_root_of_a_sub_ca() -> None:
    clock = SimulatedClock()
    root = CertificateAuthority.create("Root", clock=clock)
    sub = CertificateAuthority.create("Sub", clock=clock, parent=root)
    async with open_world(clock=clock, ca=sub) as world:
        chain = await world.enroll(KEY)
    assert chain[1:] == (sub.certificate,)
