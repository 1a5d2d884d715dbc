"""Factory provisioning: certificates that verify, exact mistakes, all of a batch or nothing."""

import json
from typing import Any

import pytest

from certs.certificate_profile import SIMULATED_OID
from certs.clock import SimulatedClock
from certs.keys import spki_der
from certs.trust import verify_chain
from emulator.apple.records import ActivationState
from emulator.wire import factory
from emulator.wire.json_object import text_of
from tests.emulator.apple.support import Client, Device, Reply, pki
from tests.support import rsa_key

Fields = dict[str, Any]


async def provision(client: Client, *devices: Fields, query: str = "") -> Reply:
    body = json.dumps({"devices": list(devices)}).encode()
    return await client.admin("POST", f"/registry/devices{query}", body)


async def test_provisioning_issues_certificates_that_verify(
    client: Client, clock: SimulatedClock
) -> None:
    device = Device(1, clock)
    answer = await client.provision(device)
    assert (answer.status, answer.content_type) == (200, "application/json")
    own = device.certificates
    now = clock.now()
    verify_chain(
        own.factory_certificate, [own.device_ca_certificate], [own.anchors.sim_apple_root], at=now
    )
    verify_chain(
        own.attestation_certificate,
        [own.attestation_sub_ca],
        [own.anchors.attestation_root],
        at=now,
    )
    assert own.factory_certificate.public_key() == device.factory_key.public_key()
    assert own.attestation_certificate.public_key() == device.attestation_key.public_key()
    assert own.device_certificate is None
    for certificate in (own.factory_certificate, own.attestation_certificate):
        certificate.extensions.get_extension_for_oid(SIMULATED_OID)


async def test_an_activated_device_comes_with_a_device_certificate(
    client: Client, clock: SimulatedClock
) -> None:
    device = Device(1, clock)
    assert (await client.provision(device, activated=True)).status == 200
    first = device.certificates.device_certificate
    assert first is not None
    verify_chain(first, [pki().device_ca.certificate], [pki().root], at=clock.now())
    record = client.services.registry.get(device.serial_number)
    assert record is not None
    assert record.activation_state is ActivationState.ACTIVATED
    # Asked again, as after an erase, it is another certificate: another activation.
    await client.provision(device, activated=True)
    assert device.certificates.device_certificate != first


async def test_the_same_devices_again_get_certificates_for_the_same_keys(
    client: Client, clock: SimulatedClock
) -> None:
    device = Device(1, clock)
    await client.provision(device)
    first = device.certificates
    assert (await client.provision(device)).status == 200
    again = device.certificates.factory_certificate
    assert again.public_key() == first.factory_certificate.public_key()
    assert again.subject == first.factory_certificate.subject
    assert len(client.services.registry.records) == 1
    device.certificates = first  # those of the first answer are as good
    request = device.activation_request(await client.session(device))
    assert (await client.activate(request)).status == 200


async def test_another_udid_for_a_known_serial_is_a_409(
    client: Client, device: Device, clock: SimulatedClock
) -> None:
    impostor = Device(1, clock, udid="00008110-0000000000000099")
    answer = await client.provision(impostor)
    assert answer.status == 409
    conflict = (
        "SIM0000001: registered with UDID 00008110-0000000000000001, not 00008110-0000000000000099"
    )
    assert answer.json() == {"error": conflict, "conflicts": [conflict]}


async def test_other_keys_for_a_known_serial_are_a_409(
    client: Client, device: Device, clock: SimulatedClock
) -> None:
    impostor = Device(2, clock, serial_number=device.serial_number, udid=device.udid)
    answer = await client.provision(impostor)
    assert answer.status == 409
    assert answer.json()["conflicts"] == [
        "SIM0000001: registered with another factory_public_key",
        "SIM0000001: registered with another attestation_public_key",
    ]


async def test_a_batch_with_one_conflict_registers_nothing(
    client: Client, device: Device, clock: SimulatedClock
) -> None:
    impostor = Device(1, clock, udid="00008110-0000000000000099")
    assert (await client.provision(Device(2, clock), impostor)).status == 409
    assert client.services.registry.get("SIM0000002") is None


async def test_every_mistake_of_a_batch_is_listed_and_nothing_registered(
    client: Client, clock: SimulatedClock
) -> None:
    good = Device(1, clock).factory_request().to_fields()
    answer = await provision(
        client,
        good,
        {**good, "udid": ""},
        {**good, "factory_public_key": good["attestation_public_key"]},
        {**good, "attestation_public_key": "AAAA"},
        {key: value for key, value in good.items() if key != "serial_number"},
        {**good, "ecid": "12"},
    )
    assert answer.status == 400
    assert answer.json()["mistakes"] == [
        "devices[1].udid: expected 1 to 64 ASCII characters, got ''",
        "devices[2].factory_public_key: expected an RSA key of 2048 bits or more",
        answer.json()["mistakes"][2],
        "devices[4].serial_number: expected string",
        "devices[5].ecid: expected integer, got 'string'",
    ]
    assert answer.json()["mistakes"][2].startswith(
        "devices[3].attestation_public_key: expected SubjectPublicKeyInfo in DER"
    )
    assert client.services.registry.records == {}


async def test_keys_must_be_of_the_right_kind(client: Client, clock: SimulatedClock) -> None:
    good = Device(1, clock).factory_request().to_fields()
    short, long = rsa_key(1, 1024).public_key(), rsa_key(1).public_key()
    for key, wrong, words in (
        ("factory_public_key", short, "an RSA key of 2048 bits"),
        ("attestation_public_key", long, "a key on P-256"),
    ):
        answer = await provision(client, {**good, key: text_of(spki_der(wrong))})
        assert answer.status == 400
        assert words in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"devices": 7}', b'{"devices": [7]}', b"\xff"])
async def test_a_body_that_is_no_batch_is_a_400(client: Client, body: bytes) -> None:
    answer = await client.admin("POST", "/registry/devices", body)
    assert answer.status == 400
    assert answer.json()["error"].startswith("factory request: 1 mistake")


async def test_an_empty_batch_is_an_empty_answer(client: Client) -> None:
    answer = await provision(client)
    assert factory.decode_replies(answer.body) == ()
