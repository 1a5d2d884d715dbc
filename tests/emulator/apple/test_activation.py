"""deviceActivation: sessions, keys and identifiers, one test for each of A3 to A7 and A9 (apple-services.md 9.1)."""

from dataclasses import replace

import aiohttp
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from certs.attestation import AttestationAuthority
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from emulator.apple.activation import ActivationSettings
from emulator.apple.app import AppleServices
from emulator.wire import plist
from tests.emulator.apple.support import (
    Client,
    Device,
    der,
    ec_key,
    full,
    is_device_unknown,
    pki,
    record_of,
)
from tests.support import rsa_key

SESSION = (401, "SESSION", "text/plain")
BAD_SIGNATURE = (401, "BAD_SIGNATURE", "text/plain")


# ---- A3: the session ----


async def test_a3_refuses_a_session_that_was_never_opened(client: Client, device: Device) -> None:
    session = await client.session(device)
    invented = replace(session, server_kp=b"\x01" + bytes(84))
    assert (await client.activate(device.activation_request(invented))).refusal == SESSION


async def test_a3_refuses_a_server_kp_of_another_shape(client: Client, device: Device) -> None:
    session = await client.session(device)
    for kp in (b"\x02" + session.server_kp[1:], b"\x01", b""):
        request = device.activation_request(replace(session, server_kp=kp))
        assert (await client.activate(request)).refusal == SESSION


async def test_a3_refuses_a_session_older_than_five_minutes(
    client: Client, device: Device, clock: SimulatedClock
) -> None:
    young, old = await full(client, device), await full(client, device)
    await clock.advance(299)
    record_of(await client.activate(young))
    await clock.advance(1)
    assert (await client.activate(old)).refusal == SESSION


async def test_a3_refuses_a_session_that_was_used(client: Client, device: Device) -> None:
    request = await full(client, device)
    record_of(await client.activate(request))
    assert (await client.activate(request)).refusal == SESSION


async def test_a3_refuses_a_request_that_has_not_seen_the_handshake_reply(
    client: Client, device: Device
) -> None:
    session = await client.session(device)
    unseen = replace(session, handshake_response_message=bytes(508))
    assert (await client.activate(device.activation_request(unseen))).refusal == SESSION


async def test_a_refused_request_leaves_its_session_open(client: Client, device: Device) -> None:
    request = await full(client, device)
    broken = replace(request, fair_play_signature=bytes(256))
    assert (await client.activate(broken)).refusal == BAD_SIGNATURE
    record_of(await client.activate(request))


# ---- A4, A5: the factory key ----


async def test_a4_refuses_a_chain_that_is_not_two_certificates(
    client: Client, device: Device
) -> None:
    request = await full(client, device)
    leaf = der(device.certificates.factory_certificate)
    root = der(pki().root)
    for chain in (leaf, request.fair_play_cert_chain + root, b"", b"\x30\x03abc", leaf[:-1]):
        answer = await client.activate(replace(request, fair_play_cert_chain=chain))
        assert answer.refusal == BAD_SIGNATURE


async def test_a4_refuses_a_factory_certificate_of_another_ca(
    client: Client, device: Device
) -> None:
    foreign = CertificateAuthority.create(
        "Sim iPhone Device CA", clock=SimulatedClock(), key=ec_key(7), organization="Sim Apple Inc."
    )
    leaf = foreign.issue(
        device.factory_key.public_key(), device.certificates.factory_certificate.subject
    )
    request = await full(client, device)
    for issuer in (foreign.certificate, pki().device_ca.certificate):
        chain = der(leaf) + der(issuer)
        answer = await client.activate(replace(request, fair_play_cert_chain=chain))
        assert answer.refusal == BAD_SIGNATURE


async def test_a4_refuses_a_good_factory_certificate_beside_another_issuer(
    client: Client, device: Device
) -> None:
    request = await full(client, device)
    chain = der(device.certificates.factory_certificate) + der(pki().root)
    answer = await client.activate(replace(request, fair_play_cert_chain=chain))
    assert answer.refusal == BAD_SIGNATURE


async def test_a4_refuses_a_certified_key_that_is_not_registered(
    client: Client, device: Device
) -> None:
    """Lite, so that no attestation key stands in the way."""
    unknown = pki().issue_factory_certificate(rsa_key(3).public_key(), device.udid)
    request = device.activation_request(None)
    chain = der(unknown) + der(device.certificates.device_ca_certificate)
    signature = rsa_key(3).sign(request.activation_info_xml, padding.PKCS1v15(), hashes.SHA256())
    answer = await client.activate(
        replace(request, fair_play_cert_chain=chain, fair_play_signature=signature)
    )
    assert answer.refusal == BAD_SIGNATURE


async def test_a4_ignores_dates_unless_told_otherwise(
    clock: SimulatedClock, http: aiohttp.ClientSession
) -> None:
    device = Device(1, clock)
    for check_dates, status in ((False, 200), (True, 401)):
        settings = ActivationSettings(check_dates=check_dates)
        async with AppleServices(pki=pki(), clock=clock, activation_settings=settings) as services:
            client = Client(services, http)
            await client.provision(device)
            await clock.advance(15 * 365 * 86400)
            assert (await client.activate(await full(client, device))).status == status


async def test_a5_refuses_an_xml_that_was_changed_after_signing(
    client: Client, device: Device
) -> None:
    request = await full(client, device)
    changed = request.activation_info_xml.replace(b"iPhone14,5", b"iPhone14,4")
    answer = await client.activate(replace(request, activation_info_xml=changed))
    assert answer.refusal == BAD_SIGNATURE


# ---- A6: the attestation key ----


async def test_a6_refuses_the_attestation_certificate_of_another_device(
    client: Client, device: Device, other: Device
) -> None:
    request = await full(client, device)
    assert request.session is not None
    theirs = der(other.certificates.attestation_certificate)
    proof = replace(request.session, rk_certification=theirs)
    assert (await client.activate(replace(request, session=proof))).refusal == BAD_SIGNATURE


async def test_a6_refuses_an_attestation_certificate_for_other_identifiers(
    client: Client, device: Device
) -> None:
    request = await full(client, device)
    assert request.session is not None
    wrong = pki().attestation.issue_device_identity(
        device.attestation_key.public_key(), serial_number="SIM0000099", udid=device.udid
    )
    proof = replace(request.session, rk_certification=der(wrong))
    assert (await client.activate(replace(request, session=proof))).refusal == BAD_SIGNATURE


async def test_a6_refuses_an_attestation_certificate_of_another_ca(
    client: Client, device: Device
) -> None:
    request = await full(client, device)
    assert request.session is not None
    for certificate in (
        pki().device_ca.issue(
            device.attestation_key.public_key(), device.certificates.factory_certificate.subject
        ),
        pki().root,
    ):
        proof = replace(request.session, rk_certification=der(certificate))
        assert (await client.activate(replace(request, session=proof))).refusal == BAD_SIGNATURE
    proof = replace(request.session, rk_certification=b"\x30\x00")
    assert (await client.activate(replace(request, session=proof))).refusal == BAD_SIGNATURE


async def test_a6_refuses_the_right_words_of_a_foreign_authority(
    client: Client, device: Device
) -> None:
    request = await full(client, device)
    assert request.session is not None
    foreign = AttestationAuthority.create(SimulatedClock()).issue_device_identity(
        device.attestation_key.public_key(), serial_number=device.serial_number, udid=device.udid
    )
    proof = replace(request.session, rk_certification=der(foreign))
    assert (await client.activate(replace(request, session=proof))).refusal == BAD_SIGNATURE


async def test_a6_refuses_the_registered_key_of_another_device(
    client: Client, device: Device, other: Device
) -> None:
    """The certificate has this device's identifiers, the signature is good, but the key is the other's."""
    session = await client.session(device)
    request = device.activation_request(session)
    certificate = pki().attestation.issue_device_identity(
        other.attestation_key.public_key(), serial_number=device.serial_number, udid=device.udid
    )
    proof = replace(
        other.proof(request.activation_info_xml, session), rk_certification=der(certificate)
    )
    assert (await client.activate(replace(request, session=proof))).refusal == BAD_SIGNATURE


async def test_a6_refuses_a_proof_over_another_session(client: Client, device: Device) -> None:
    first, second = await client.session(device), await client.session(device)
    request = device.activation_request(first)
    other = device.proof(request.activation_info_xml, second)
    assert request.session is not None
    proof = replace(request.session, rk_signature=other.rk_signature)
    assert (await client.activate(replace(request, session=proof))).refusal == BAD_SIGNATURE


# ---- A7: who it is ----


@pytest.mark.parametrize(
    "changes",
    [{"serial_number": "SIM0000002"}, {"udid": "00008110-0000000000000002"}],
    ids=["serial", "udid"],
)
async def test_a6_comes_before_a7_when_the_xml_names_another_device(
    client: Client, device: Device, changes: dict[str, str]
) -> None:
    assert (await client.activate(await full(client, device, **changes))).refusal == BAD_SIGNATURE


async def test_a7_refuses_another_imei_than_the_registered_one(
    client: Client, device: Device
) -> None:
    device.imei = "353918051234579"
    session = await client.session(device)  # the session says the same wrong IMEI
    assert is_device_unknown(await client.activate(device.activation_request(session)))


async def test_a7_refuses_a_meid_that_the_registry_does_not_have(
    client: Client, device: Device
) -> None:
    device.meid = "35391805123456"
    assert is_device_unknown(await client.activate(await full(client, device)))


async def test_a7_refuses_a_cellular_device_that_shows_no_imei(
    client: Client, device: Device
) -> None:
    device.imei = None
    assert is_device_unknown(await client.activate(await full(client, device)))


async def test_a7_accepts_a_wifi_model_without_imei(client: Client, clock: SimulatedClock) -> None:
    device = Device(3, clock, product_type="iPad13,1", imei=None)
    await client.provision(device)
    record_of(await client.activate(await full(client, device)))


async def test_a7_refuses_a_session_that_another_device_opened(
    client: Client, device: Device, other: Device
) -> None:
    session = await client.session(other)
    assert is_device_unknown(await client.activate(device.activation_request(session)))


async def test_a7_refuses_the_factory_key_of_another_registered_device(
    client: Client, device: Device, other: Device
) -> None:
    """Lite: the other device signs with its own good factory key that it is this device."""
    other.serial_number, other.udid = device.serial_number, device.udid
    assert is_device_unknown(await client.activate(other.activation_request(None)))


# ---- A9: activated already ----


async def test_a9_acknowledges_a_device_that_is_activated_already(
    client: Client, device: Device
) -> None:
    record_of(await client.activate(await full(client, device)))
    request = await full(client, device, activation_state="Activated")
    answer = await client.activate(request)
    assert answer.status == 200
    assert answer.content_type == "text/xml"
    assert plist.loads(answer.body) == {
        "iphone-activation": {"ack-received": True, "show-settings": True}
    }
    assert "ARS" not in answer.headers
    assert (await client.activate(request)).refusal == SESSION  # it was used


async def test_a9_gives_a_record_when_the_registry_does_not_agree(
    client: Client, device: Device
) -> None:
    record_of(await client.activate(await full(client, device, activation_state="Activated")))


async def test_a9_says_device_unknown_where_reactivation_is_an_error(
    clock: SimulatedClock, http: aiohttp.ClientSession
) -> None:
    device = Device(1, clock)
    settings = ActivationSettings(reactivation="error")
    async with AppleServices(pki=pki(), clock=clock, activation_settings=settings) as services:
        client = Client(services, http)
        await client.provision(device, activated=True)
        request = await full(client, device, activation_state="Activated")
        assert is_device_unknown(await client.activate(request))
