"""A11 of apple-services.md 9.1: the record, the certificates in it, and the lite form of both."""

import base64
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.certificate_profile import SIMULATED, SIMULATED_OID
from certs.clock import SimulatedClock
from certs.keys import spki_der
from certs.trust import verify_chain
from emulator.apple.app import AppleServices
from emulator.apple.device_services import OLDER_ACTIVATION_PATH
from emulator.apple.portal import Portal
from emulator.apple.records import ActivationState
from emulator.wire import account_token, plist
from tests.emulator.apple.support import (
    Client,
    Device,
    full,
    pki,
    record_of,
)
from tests.support import openssl, rsa_key

MALFORMED = (400, "MALFORMED", "text/plain")
BAD_SIGNATURE = (401, "BAD_SIGNATURE", "text/plain")


# ---- A11: the record ----


async def test_a_device_gets_a_record_that_it_can_verify(client: Client, device: Device) -> None:
    info = device.info()
    request = device.activation_request(await client.session(device), info)
    answer = await client.activate(request)
    record = record_of(answer)
    assert plist.loads(answer.body).keys() == {"ActivationRecord"}
    anchors = device.certificates.anchors

    signer = x509.load_pem_x509_certificate(record.account_token_certificate)
    verify_chain(signer, (), [anchors.sim_apple_root], at=None)
    key = signer.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    key.verify(
        record.account_token_signature, record.account_token, padding.PKCS1v15(), hashes.SHA256()
    )
    token = account_token.decode(record.account_token)
    assert token.serial_number == device.serial_number
    assert token.udid == device.udid
    assert token.imei == device.imei
    assert token.activation_randomness == info.activation_randomness
    assert token.wildcard_ticket is not None
    assert len(token.wildcard_ticket) == 916
    assert token.activity_url == f"{client.services.url}/deviceservices/activity"

    certificates = x509.load_pem_x509_certificates(record.unique_device_certificate or b"")
    assert certificates[0] == device.certificates.attestation_certificate
    assert certificates[1] == device.certificates.attestation_sub_ca
    assert record.device_configuration_flags == "0"
    assert record.unbrick is True
    assert (record.fair_play_key_data or b"").startswith(b"-----BEGIN CONTAINER-----\n")
    assert len(base64.b64decode(answer.headers["ARS"])) == 16


async def test_the_device_certificate_has_the_captured_profile(
    client: Client, device: Device
) -> None:
    record = record_of(await client.activate(await full(client, device)))
    certificate = x509.load_pem_x509_certificate(record.device_certificate)
    verify_chain(
        certificate, [pki().device_ca.certificate], [pki().root], at=client.services._clock.now()
    )
    assert certificate.public_key() == device.factory_key.public_key()
    assert [attribute.oid for attribute in certificate.subject] == [
        NameOID.COMMON_NAME,
        NameOID.COUNTRY_NAME,
        NameOID.STATE_OR_PROVINCE_NAME,
        NameOID.LOCALITY_NAME,
        NameOID.ORGANIZATION_NAME,
        NameOID.ORGANIZATIONAL_UNIT_NAME,
    ]
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert usage.value.key_encipherment
    assert not usage.value.content_commitment
    extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert extended.critical
    assert list(extended.value) == [
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    ]
    mark = extensions.get_extension_for_oid(x509.ObjectIdentifier("1.2.840.113635.100.6.10.2"))
    assert (mark.critical, mark.value.public_bytes()) == (False, b"\x05\x00")
    assert extensions.get_extension_for_oid(SIMULATED_OID).value == SIMULATED
    extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert 1095 <= lifetime.days <= 1097


@pytest.mark.peer
async def test_openssl_accepts_the_device_certificate(
    client: Client, device: Device, tmp_path: Path
) -> None:
    folder = tmp_path
    record = record_of(await client.activate(await full(client, device)))
    (folder / "leaf.pem").write_bytes(record.device_certificate)
    pki().export(folder)
    words = openssl(
        "verify",
        "-no_check_time",
        "-CAfile",
        str(folder / "sim-apple-root-ca.pem"),
        "-untrusted",
        str(folder / "sim-iphone-device-ca.pem"),
        str(folder / "leaf.pem"),
    )
    assert words.endswith(b"OK\n")


async def test_every_activation_issues_a_new_device_certificate(
    client: Client, device: Device
) -> None:
    first = record_of(await client.activate(await full(client, device)))
    second = record_of(await client.activate(await full(client, device)))
    assert first.device_certificate != second.device_certificate


async def test_an_activated_device_is_remembered(client: Client, device: Device) -> None:
    await client.activate(await full(client, device))
    record = client.services.registry.get(device.serial_number)
    assert record is not None
    assert record.activation_state is ActivationState.ACTIVATED


async def test_an_assigned_profile_shows_in_the_configuration_flags(
    client: Client, device: Device
) -> None:
    server = {
        "name": "MDM",
        "profile": {"url": "https://mdm.example.com/enroll"},
        "devices": [device.serial_number],
    }
    client.services.apply(
        Portal.from_content({"organizations": [{"name": "Example", "servers": [server]}]})
    )
    record = record_of(await client.activate(await full(client, device)))
    assert record.device_configuration_flags == "1"


async def test_the_older_path_and_an_itunes_client_are_served(
    client: Client, device: Device
) -> None:
    answer = await client.activate(
        await full(client, device),
        path=OLDER_ACTIVATION_PATH + "?device=iPhone",
        user_agent="iTunes/11.1.4 (Macintosh; OS X 10.9.1) AppleWebKit/537.73.11",
    )
    record_of(answer)


async def test_activation_answers_carry_the_headers_of_the_real_service(
    client: Client, device: Device
) -> None:
    for request in (await full(client, device), replace(await full(client, device), session=None)):
        headers = (await client.activate(request)).headers
        cache = "private, no-cache, no-store, must-revalidate, max-age=0"
        assert headers["Cache-Control"] == cache
        assert headers["Server"] == "Apple"
        assert len(headers["x-client-request-id"]) == 36
        assert "Pragma" not in headers


# ---- lite ----


async def test_lite_needs_no_session_and_answers_the_legacy_root(
    client: Client, device: Device
) -> None:
    answer = await client.activate(device.activation_request(None))
    root = plist.loads(answer.body)["iphone-activation"]
    assert (root["ack-received"], root["show-settings"]) == (True, True)
    record = record_of(answer)
    assert record.unique_device_certificate is None
    assert "ARS" in answer.headers


@pytest.mark.parametrize(("mode", "served"), [("full", "full"), ("lite", "lite")])
async def test_a_mode_serves_only_its_own_form(
    clock: SimulatedClock, http: aiohttp.ClientSession, mode: str, served: str
) -> None:
    device = Device(1, clock)
    async with AppleServices(pki=pki(), clock=clock) as both:
        client = Client(both, http)
        await client.provision(device)
        requests = {
            "full": await full(client, device),
            "lite": device.activation_request(None),
        }
    async with AppleServices(pki=pki(), clock=clock, activation_mode=mode) as services:  # type: ignore[arg-type]
        client = Client(services, http)
        await client.provision(device)
        for form, request in requests.items():
            refused = (await client.activate(request)).refusal == MALFORMED
            assert refused == (form != served)


async def test_lite_checks_the_factory_signature(client: Client, device: Device) -> None:
    request = replace(device.activation_request(None), fair_play_signature=bytes(256))
    assert (await client.activate(request)).refusal == BAD_SIGNATURE


async def test_the_csr_key_may_be_a_new_one(client: Client, device: Device) -> None:
    request = await full(client, device, device_cert_request=device.certificate_request(rsa_key(3)))
    record = record_of(await client.activate(request))
    certificate = x509.load_pem_x509_certificate(record.device_certificate)
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert spki_der(key) == spki_der(rsa_key(3).public_key())
