"""The attestation service: leaves that verify, and every refusal (certificates.md 2.5, apple-services.md 9.2)."""

import base64
import json
from typing import Any

import pytest
from cryptography import x509

from certs import attestation as leaves
from certs.clock import SimulatedClock
from certs.keys import spki_der
from emulator.wire import attestation
from tests.emulator.apple.support import Client, Device, Reply, der, ec_key, pki
from tests.support import rsa_key

INVALID_DEVICE = (400, "INVALID_DEVICE", "text/plain")
INVALID_SIGNATURE = (401, "INVALID_SIGNATURE", "text/plain")


async def ask(client: Client, device: Device, **changes: Any) -> Reply:
    return await client.attestation(device.envelope(device.attestation_request(**changes)))


def leaf_of(client: Client, answer: Reply) -> leaves.Attestation:
    assert (answer.status, answer.content_type) == (200, "application/json")
    chain = [der(certificate) for certificate in attestation.decode_answer(answer.body).x5c]
    assert len(chain) == 2
    roots: list[x509.Certificate] = [pki().attestation.root]
    return leaves.verify(chain, roots, at=SimulatedClock().now())


async def test_a_leaf_names_the_device_the_key_and_the_freshness(
    client: Client, device: Device
) -> None:
    leaf = leaf_of(client, await ask(client, device))
    assert leaf.serial_number == device.serial_number
    assert leaf.udid == device.udid
    assert leaf.freshness == bytes(range(32))
    assert leaf.os_version == leaf.sep_os_version == "18.1"
    assert leaf.software_update_device_id == device.product_type
    assert spki_der(leaf.public_key) == spki_der(ec_key(900).public_key())


async def test_freshness_may_be_absent_or_short(client: Client, device: Device) -> None:
    assert leaf_of(client, await ask(client, device, freshness=None)).freshness is None
    assert leaf_of(client, await ask(client, device, freshness=b"\x01")).freshness == b"\x01"


async def test_a_user_enrollment_leaf_names_no_device(client: Client, device: Device) -> None:
    leaf = leaf_of(client, await ask(client, device, user_enrollment=True))
    assert (leaf.serial_number, leaf.udid, leaf.software_update_device_id) == (None, None, None)
    assert leaf.freshness == bytes(range(32))


async def test_the_registrys_os_version_stands_in_for_one_that_is_not_told(
    client: Client, device: Device
) -> None:
    assert leaf_of(client, await ask(client, device, os_version=None)).os_version == "18.1"


async def test_a_chip_that_cannot_attest_is_refused(client: Client, clock: SimulatedClock) -> None:
    device = Device(3, clock, product_type="iPad7,11", imei=None)  # A10
    await client.provision(device)
    answer = await ask(client, device)
    assert answer.refusal == (403, "UNSUPPORTED", "text/plain")


async def test_a_product_type_that_nobody_knows_counts_as_attesting(
    client: Client, clock: SimulatedClock
) -> None:
    device = Device(3, clock, product_type="iPhone99,9")
    await client.provision(device)
    leaf_of(client, await ask(client, device))


@pytest.mark.parametrize("changes", [{"serial_number": "SIM0000002"}, {"udid": "another"}])
async def test_c5_refuses_to_attest_for_another_device(
    client: Client, device: Device, other: Device, changes: dict[str, str]
) -> None:
    assert (await ask(client, device, **changes)).refusal == INVALID_DEVICE


async def test_c4_refuses_what_cannot_be_attested(client: Client, device: Device) -> None:
    for changes in (
        {"public_key": b"\x30\x00"},
        {"public_key": spki_der(rsa_key(1).public_key())},
        {"freshness": bytes(33)},
        {"action": "RequestProfileConfiguration"},
    ):
        assert (await ask(client, device, **changes)).refusal == INVALID_DEVICE


async def test_c3_refuses_a_signature_of_another_device(
    client: Client, device: Device, other: Device
) -> None:
    payload = device.attestation_request()
    theirs = other.envelope(payload).payload_signature
    answer = await client.attestation(device.envelope(payload, payload_signature=theirs))
    assert answer.refusal == INVALID_SIGNATURE


async def test_c1_refuses_a_body_that_is_no_envelope(client: Client) -> None:
    body = json.dumps({"payload": base64.b64encode(b"{}").decode()}).encode()
    assert (await client.post(attestation.PATH, body)).refusal == INVALID_DEVICE
