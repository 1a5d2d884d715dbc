"""The cloud configuration service: one test for each of C1 to C8, and the document (apple-services.md 3.3, 9.2)."""

import base64
import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from certs.attestation import ROOT_NAME, SUB_CA_NAME, AttestationAuthority
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from emulator.apple.app import AppleServices
from emulator.apple.portal import Portal
from emulator.apple.records import ProfileStatus
from emulator.wire import cloudconfig, envelope
from tests.emulator.apple.support import Client, Device, der, ec_key, pki
from tests.support import GOLDENS, rsa_key

INVALID_DEVICE = (400, "INVALID_DEVICE", "text/plain")
INVALID_SIGNATURE = (401, "INVALID_SIGNATURE", "text/plain")
SERVER_UUID = "F6E1E81A93837E1E87D6F4D99E235117"
PROFILE = {
    "url": "https://mdm.example.com/enroll",
    "is_supervised": "true",
    "is_mandatory": "true",
    "is_mdm_removable": "false",
    "await_device_configured": "true",
    "skip_setup_items": ["Siri", "Privacy"],
    "org_magic": "0729093D-5F2C-4E55-9C2E-6A6E9E0E7A11",
    "department": "IT",
}


def own(client: Client, device: Device, profile: dict[str, Any] | None = None) -> None:
    """The portal says that the device belongs to Example Inc, and to its server when there is a profile."""
    organization: dict[str, Any] = {
        "name": "Example Inc",
        "phone": "555-0100",
        "email": "it@example.com",
    }
    if profile is None:
        organization["unassigned"] = [device.serial_number]
    else:
        server = {"name": "MDM", "uuid": SERVER_UUID, "profile": profile}
        organization["servers"] = [{**server, "devices": [device.serial_number]}]
    client.services.apply(Portal.from_content({"organizations": [organization]}))


async def ask(client: Client, device: Device, **changes: Any) -> Any:
    return await client.configuration(device.envelope(device.configuration_request(), **changes))


# ---- C8 ----


async def test_c8_serves_the_document_of_the_golden(client: Client, device: Device) -> None:
    own(client, device, PROFILE)
    answer = await ask(client, device)
    assert (answer.status, answer.content_type) == (200, "application/json")
    golden = GOLDENS / "apple" / "cloud-configuration.json"
    assert answer.json() == json.loads(golden.read_bytes())


async def test_c8_sends_only_keys_that_have_a_value(client: Client, device: Device) -> None:
    own(client, device, {"url": "https://mdm.example.com/enroll"})
    config = (await ask(client, device)).json()["config"]
    assert config == {
        "url": "https://mdm.example.com/enroll",
        "is-supervised": False,
        "is-mandatory": False,
        "is-mdm-removable": True,
        "allow-pairing": True,
        "await-device-configured": False,
        "skip-buddy-items": [],
        "anchor-certs": [],
        "server-uid": SERVER_UUID,
    }


async def test_c8_renames_keys_and_carries_certificates(client: Client, device: Device) -> None:
    certificate = base64.b64encode(der(pki().tls_ca.certificate)).decode()
    profile = {
        **PROFILE,
        "configuration_web_url": "https://mdm.example.com/login",
        "anchor_certs": [certificate],
        "supervising_host_certs": [certificate],
        "is_multi_user": "true",
        "auto_advance_setup": "true",
        "do_not_use_profile_from_backup": "true",
        "language": "de",
        "region": "DE",
        "support_phone_number": "555-0199",
        "support_email_address": "help@example.com",
    }
    own(client, device, profile)
    document = (await ask(client, device)).json()
    config, org = document["config"], document["org"]
    assert config["anchor-certs"] == config["supervision-host-certs"] == [certificate]
    assert config["configuration-web-url"] == "https://mdm.example.com/login"
    assert config["is-multi-user"] is True
    assert config["auto-advance-setup"] is True
    assert config["do-not-use-profile-from-backup"] is True
    assert (config["language"], config["region"]) == ("de", "DE")
    assert org["support-phone-number"] == "555-0199"
    assert org["support-email-address"] == "help@example.com"


async def test_the_first_fetch_moves_the_profile_to_pushed(
    client: Client, device: Device, clock: SimulatedClock
) -> None:
    own(client, device, PROFILE)
    record = client.services.registry.get(device.serial_number)
    assert record is not None
    assigned = clock.now()
    assert record.profile_status.value == ProfileStatus.ASSIGNED
    assert (record.profile_assign_time, record.profile_push_time) == (assigned, None)
    await clock.advance(60)
    await ask(client, device)
    fetched = clock.now()
    assert record.profile_status.value == ProfileStatus.PUSHED
    await clock.advance(60)
    await ask(client, device)
    assert record.profile_push_time == fetched
    own(client, device, PROFILE)  # the same portal again changes nothing
    assert (record.profile_assign_time, record.profile_push_time) == (assigned, fetched)
    own(client, device, {**PROFILE, "department": "HR"})
    assert record.profile_status.value == ProfileStatus.ASSIGNED
    assert record.profile_push_time is None


# ---- C1 ----


@pytest.mark.parametrize(
    "member", ["payload", "payload_signature", "sign_cert", "intermediate_cert"]
)
@pytest.mark.parametrize("value", [None, 7, "not base64!"])
async def test_c1_refuses_a_member_that_is_missing_or_no_base64(
    client: Client, device: Device, member: str, value: object
) -> None:
    own(client, device, PROFILE)
    fields = device.envelope(device.configuration_request()).to_fields()
    fields[member] = value
    if value is None:
        del fields[member]
    answer = await client.post(cloudconfig.PATH, json.dumps(fields).encode())
    assert answer.refusal == INVALID_DEVICE


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff\xfe"])
async def test_c1_refuses_a_body_that_is_no_json_object(client: Client, body: bytes) -> None:
    assert (await client.post(cloudconfig.PATH, body)).refusal == INVALID_DEVICE


async def test_c1_tolerates_line_breaks_in_base64(client: Client, device: Device) -> None:
    own(client, device, PROFILE)
    message = device.envelope(device.configuration_request())
    fields = {
        name: base64.encodebytes(base64.b64decode(text)).decode()
        for name, text in message.to_fields().items()
    }
    assert "\n" in fields["sign_cert"][:-1]
    answer = await client.post(cloudconfig.PATH, json.dumps(fields).encode())
    assert answer.status == 200


# ---- C2 ----


async def test_c2_refuses_certificates_that_do_not_parse(client: Client, device: Device) -> None:
    for member in ("sign_cert", "intermediate_cert"):
        answer = await ask(client, device, **{member: b"\x30\x03abc"})
        assert answer.refusal == INVALID_SIGNATURE


async def test_c2_refuses_another_intermediate(client: Client, device: Device) -> None:
    for certificate in (pki().root, pki().attestation.root, pki().device_ca.certificate):
        answer = await ask(client, device, intermediate_cert=der(certificate))
        assert answer.refusal == INVALID_SIGNATURE


async def test_c2_refuses_a_sign_cert_of_another_authority(client: Client, device: Device) -> None:
    foreign = CertificateAuthority.create("Foreign", clock=SimulatedClock(), key=ec_key(7))
    certificate = foreign.issue(
        device.attestation_key.public_key(),
        device.certificates.attestation_certificate.subject,
    )
    assert (await ask(client, device, sign_cert=der(certificate))).refusal == INVALID_SIGNATURE


async def test_c2_refuses_a_certified_key_that_is_not_registered(
    client: Client, device: Device
) -> None:
    certificate = pki().attestation.issue_device_identity(
        ec_key(3).public_key(), serial_number=device.serial_number, udid=device.udid
    )
    payload = device.configuration_request()
    device.number = 3  # signs with the unregistered key
    message = replace(device.envelope(payload), sign_cert=der(certificate))
    assert (await client.configuration(message)).refusal == INVALID_SIGNATURE


async def test_c2_refuses_a_key_that_is_not_on_p256(client: Client, device: Device) -> None:
    certificate = pki().attestation.issue_device_identity(
        rsa_key(1).public_key(), serial_number=device.serial_number, udid=device.udid
    )
    assert (await ask(client, device, sign_cert=der(certificate))).refusal == INVALID_SIGNATURE


# ---- C3 ----


async def test_c3_refuses_a_signature_of_another_device(
    client: Client, device: Device, other: Device
) -> None:
    payload = device.configuration_request()
    theirs = other.envelope(payload).payload_signature
    answer = await ask(client, device, payload_signature=theirs)
    assert answer.refusal == INVALID_SIGNATURE


async def test_c3_judges_the_payload_bytes_as_received(client: Client, device: Device) -> None:
    own(client, device, PROFILE)
    payload = device.configuration_request()
    spaced = payload.replace(b":", b" : ")
    assert json.loads(spaced) == json.loads(payload)
    message = device.envelope(payload)
    changed = await client.configuration(replace(message, payload=spaced))
    assert changed.refusal == INVALID_SIGNATURE
    assert (await client.configuration(device.envelope(spaced))).status == 200


# ---- C4 ----


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b"[]",
        b'{"action":"RequestProfileConfiguration"}',
        b'{"device":{"serial_number":"SIM0000001"},"action":"RequestProfileConfiguration"}',
        b'{"device":{"serial_number":"SIM0000001","udid":7},"action":"RequestProfileConfiguration"}',
        b'{"device":{"serial_number":"SIM0000001","udid":"00008110-0000000000000001"}}',
    ],
)
async def test_c4_refuses_a_signed_payload_without_its_members(
    client: Client, device: Device, payload: bytes
) -> None:
    own(client, device, PROFILE)
    assert (await client.configuration(device.envelope(payload))).refusal == INVALID_DEVICE


async def test_c4_refuses_the_action_of_another_path(client: Client, device: Device) -> None:
    own(client, device, PROFILE)
    payload = device.configuration_request(action="RequestUnenrollProvisionalDevice")
    assert (await client.configuration(device.envelope(payload))).refusal == INVALID_DEVICE


# ---- C5 ----


@pytest.mark.parametrize(
    "changes", [{"serial_number": "SIM0000002"}, {"udid": "00008110-0000000000000002"}]
)
async def test_c5_refuses_a_device_that_asks_for_another(
    client: Client, device: Device, other: Device, changes: dict[str, str]
) -> None:
    own(client, device, PROFILE)
    payload = device.configuration_request(**changes)
    assert (await client.configuration(device.envelope(payload))).refusal == INVALID_DEVICE


async def test_c5_refuses_a_certificate_with_other_identifiers(
    client: Client, device: Device
) -> None:
    own(client, device, PROFILE)
    certificate = pki().attestation.issue_device_identity(
        device.attestation_key.public_key(), serial_number=device.serial_number, udid="X"
    )
    assert (await ask(client, device, sign_cert=der(certificate))).refusal == INVALID_DEVICE


# ---- C6, C7 ----


async def test_c6_says_device_not_enrolled_when_nobody_owns_it(
    client: Client, device: Device
) -> None:
    assert (await ask(client, device)).refusal == (400, "DEVICE_NOT_ENROLLED", "text/plain")


async def test_c7_says_profile_not_found_with_200_when_nothing_is_assigned(
    client: Client, device: Device
) -> None:
    own(client, device)
    answer = await ask(client, device)
    assert answer.refusal == (200, "PROFILE_NOT_FOUND", "text/plain")
    word = cloudconfig.decode_answer(answer.status, answer.content_type, answer.body)
    assert word == cloudconfig.NoConfiguration(word="PROFILE_NOT_FOUND")


async def test_paths_of_no_operation_are_not_found(client: Client, device: Device) -> None:
    message = envelope.encode(device.envelope(device.configuration_request()))
    for path in ("/v2/other", "/macProfile", "/"):
        assert (await client.post(path, message)).refusal == (404, "NOT_FOUND", "text/plain")


async def test_c2_takes_any_certificate_that_the_root_issued_to_the_sub_ca(
    clock: SimulatedClock, http: aiohttp.ClientSession
) -> None:
    root = CertificateAuthority.create(ROOT_NAME, clock=clock, simulated=True)
    sub_ca = CertificateAuthority.create(SUB_CA_NAME, clock=clock, parent=root, simulated=True)
    own_pki = replace(pki(), attestation=AttestationAuthority(root, sub_ca, clock))
    again = root.issue(sub_ca.identity.key.public_key(), sub_ca.certificate.subject, ca=True)
    self_signed = CertificateAuthority.create(
        SUB_CA_NAME, clock=clock, key=sub_ca.identity.key, simulated=True
    ).certificate
    device = Device(1, clock)
    async with AppleServices(pki=own_pki, clock=clock) as services:
        client = Client(services, http)
        await client.provision(device)
        own(client, device, PROFILE)
        assert (await ask(client, device, intermediate_cert=der(again))).status == 200
        refused = await ask(client, device, intermediate_cert=der(self_signed))
        assert refused.refusal == INVALID_SIGNATURE
