"""deviceActivation: one test for each of A1 to A9 and A11, then the record (apple-services.md 9.1). A10 has its own file."""

import base64
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.attestation import AttestationAuthority
from certs.ca import CertificateAuthority
from certs.certificate_profile import SIMULATED, SIMULATED_OID
from certs.clock import SimulatedClock
from certs.keys import spki_der
from certs.trust import verify_chain
from emulator.apple.activation import ActivationSettings
from emulator.apple.app import OLDER_ACTIVATION_PATH, AppleServices
from emulator.apple.portal import Portal
from emulator.apple.registry import ActivationState
from emulator.wire import account_token, activation, plist
from emulator.wire.activation import ActivationRecord, ActivationRequest
from tests.emulator.apple.support import Client, Device, Reply, der, ec_key, pki
from tests.support import openssl, rsa_key

MALFORMED = (400, "MALFORMED", "text/plain")
SESSION = (401, "SESSION", "text/plain")
BAD_SIGNATURE = (401, "BAD_SIGNATURE", "text/plain")
FORM = activation.FORM_CONTENT_TYPE


def record_of(answer: Reply) -> ActivationRecord:
    assert answer.status == 200, answer.body
    assert answer.content_type == "text/xml"
    record = activation.decode_answer("text/xml", answer.body)
    assert isinstance(record, ActivationRecord)
    return record


def is_device_unknown(answer: Reply) -> bool:
    page = b'<navigationBar title="Device Unknown"/>'
    return (
        answer.status == 200
        and answer.content_type == "application/x-buddyml"
        and page in answer.body
        and b"<page" not in answer.body
    )


async def full(client: Client, device: Device, **info: object) -> ActivationRequest:
    return device.activation_request(await client.session(device), device.info(**info))


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


# ---- A1, A2 ----


async def test_a1_refuses_an_unknown_agent(client: Client, device: Device) -> None:
    answer = await client.activate(await full(client, device), user_agent="curl/8.5")
    assert answer.refusal == (403, "UNKNOWN_AGENT", "text/plain")


async def test_a2_takes_multipart_with_a_bare_dict_as_host_tools_send_it(
    client: Client, device: Device
) -> None:
    document = activation.encode_activation_info(await full(client, device))
    bare = document[document.index(b"<dict>") : document.rindex(b"</plist>")].rstrip()
    body = (
        b'--X\r\nContent-Disposition: form-data; name="InStoreActivation"\r\n\r\nfalse\r\n'
        b'--X\r\nContent-Disposition: form-data; name="activation-info"\r\n\r\n'
        + bare
        + b"\r\n--X--\r\n"
    )
    answer = await client.post(
        activation.ACTIVATION_PATH, body, content_type="multipart/form-data; boundary=X"
    )
    record_of(answer)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM, b"other=1"),
        (FORM, b""),
        (FORM, b"activation-info=%3Cdict%3E"),
        (FORM, b"activation-info=" + b"\xff"),
        ("multipart/form-data", b"--X\r\n\r\n--X--"),
        ("multipart/form-data; boundary=X", b"nothing"),
        ("multipart/form-data; boundary=X", b"--X\r\n\r\nno name\r\n--X--\r\n"),
        ("application/xml", b"<plist/>"),
    ],
)
async def test_a2_refuses_what_holds_no_activation_info(
    client: Client, content_type: str, body: bytes
) -> None:
    answer = await client.post(activation.ACTIVATION_PATH, body, content_type=content_type)
    assert answer.refusal == MALFORMED


@pytest.mark.parametrize(
    "key",
    [
        "ActivationInfoXML",
        "FairPlayCertChain",
        "FairPlaySignature",
        "RKCertification",
        "RKSignature",
        "signActRequest",
        "serverKP",
    ],
)
async def test_a2_refuses_a_request_without_one_of_the_seven_keys(
    client: Client, device: Device, key: str
) -> None:
    fields = (await full(client, device)).to_fields()
    del fields[key]
    body = urlencode({activation.FORM_FIELD: plist.dumps(fields)}).encode()
    answer = await client.post(activation.ACTIVATION_PATH, body, content_type=FORM)
    assert answer.refusal == MALFORMED


async def test_a2_refuses_a_body_over_256_kilobytes(client: Client) -> None:
    body = b"activation-info=" + b"a" * 256 * 1024
    answer = await client.post(activation.ACTIVATION_PATH, body, content_type=FORM)
    assert answer.refusal == (413, "TOO_LARGE", "text/plain")


async def test_a2_refuses_a_signed_xml_that_is_no_activation_info(
    client: Client, device: Device
) -> None:
    xml = plist.dumps({"DeviceID": {"SerialNumber": 7}})
    signature = device.factory_key.sign(xml, padding.PKCS1v15(), hashes.SHA256())
    request = replace(
        await full(client, device), activation_info_xml=xml, fair_play_signature=signature
    )
    assert (await client.activate(request)).refusal == MALFORMED


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


# ---- A8: the certificate request ----


# By `openssl genrsa 512` and `openssl req -new`: our own libraries make no key this short.
SHORT_KEY_REQUEST = b"""-----BEGIN CERTIFICATE REQUEST-----
MIHFMHECAQAwDDEKMAgGA1UEAwwBWDBcMA0GCSqGSIb3DQEBAQUAA0sAMEgCQQDU
bTXRShwACavuNFejrMh72+FBYXuOX/WHj63CnvhvlYtkiaQB8RbVnPsyU9zulGgL
pldEJBLQfHTnS9QnBQYLAgMBAAGgADANBgkqhkiG9w0BAQsFAANBAF6YdK8V0loL
pqEYzYfae9x6alPXvDmZ+AXfvKnAz4XJrcQrOXI1UgJw0Zqx5ynIvHuMmGhQaU5b
8byc/RXZ384=
-----END CERTIFICATE REQUEST-----
"""


@pytest.mark.parametrize("damage", ["der", "key", "short", "signature", "garbage"])
async def test_a8_refuses_a_certificate_request(
    client: Client, device: Device, damage: str
) -> None:
    good = device.certificate_request()
    middle = base64.b64decode(b"".join(good.splitlines()[1:-1]))
    requests = {
        "der": middle,
        "key": device.certificate_request(ec_key(3)),
        "short": SHORT_KEY_REQUEST,
        "signature": good.splitlines()[0]
        + b"\n"
        + base64.encodebytes(middle[:-1] + bytes([middle[-1] ^ 1]))
        + good.splitlines()[-1],
        "garbage": b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    }
    request = await full(client, device, device_cert_request=requests[damage])
    assert (await client.activate(request)).refusal == MALFORMED


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
