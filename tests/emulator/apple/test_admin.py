"""The admin port: guarded, exact about mistakes, all or nothing, and silent about secrets."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from structlog.testing import capture_logs

from certs.certificate_profile import SIMULATED_OID
from certs.clock import SimulatedClock
from certs.keys import spki_der
from certs.trust import verify_chain
from emulator.apple.registry import ActivationState
from emulator.wire import factory
from emulator.wire.json_object import text_of
from tests.emulator.apple.support import Client, Device, Reply, pki
from tests.support import rsa_key

Fields = dict[str, Any]
JSON = {"Content-Type": "application/json"}
PORTAL = b"""
organizations:
  - name: A
    servers:
      - {name: S, profile: {url: https://mdm.example.com}, devices: [SIM0000001]}
    unassigned: ["0123456"]
"""


async def provision(client: Client, *devices: Fields, query: str = "") -> Reply:
    body = json.dumps({"devices": list(devices)}).encode()
    return await client.admin("POST", f"/registry/devices{query}", body)


# ---- the guard ----


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/registry/devices"),
        ("POST", "/registry/devices"),
        ("GET", "/registry/devices/SIM0000001"),
        ("DELETE", "/registry/devices/SIM0000001"),
        ("POST", "/registry/devices/SIM0000001/activation-lock"),
        ("GET", "/portal"),
        ("PUT", "/portal"),
        ("POST", "/portal/devices"),
        ("GET", "/anchors"),
        ("GET", "/nowhere"),
    ],
)
async def test_every_path_but_healthz_needs_the_token(
    client: Client, method: str, path: str
) -> None:
    assert (await client.admin(method, path, token=None)).status == 401
    assert (await client.admin(method, path, token="wrong" * 8)).status == 401


async def test_healthz_is_open(client: Client) -> None:
    answer = await client.admin("GET", "/healthz", token=None)
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


async def test_a_foreign_host_or_origin_is_refused(client: Client) -> None:
    for headers, status in (
        ({"Host": "attacker.example"}, 421),
        ({"Origin": "https://attacker.example"}, 403),
        ({"Host": client.services.admin_url.replace("http://127.0.0.1", "localhost")}, 200),
    ):
        assert (await client.admin("GET", "/anchors", headers=headers)).status == status


# ---- factory provisioning ----


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


# ---- reading and removing devices ----


async def test_a_device_is_described_without_keys_or_secrets(
    client: Client, device: Device
) -> None:
    await client.admin("PUT", "/portal", PORTAL)
    answer = (await client.admin("GET", f"/registry/devices/{device.serial_number}")).json()
    profile_uuid, server_uuid = answer.pop("profile_uuid"), answer.pop("server_uuid")
    assert (len(profile_uuid), len(server_uuid)) == (32, 32)
    assert answer == {
        "serial_number": "SIM0000001",
        "provisioned": True,
        "profile_status": "assigned",
        "profile_assign_time": "2026-01-01T00:00:00Z",
        "udid": device.udid,
        "product_type": "iPhone14,5",
        "os_version": "18.1",
        "build": "22B83",
        "imei": device.imei,
        "activation_state": "Unactivated",
        "activation_locked": False,
        "organization": "A",
        "server": "S",
    }


async def test_devices_are_listed_in_pages(client: Client, device: Device, other: Device) -> None:
    await client.admin("PUT", "/portal", PORTAL)
    answer = (await client.admin("GET", "/registry/devices")).json()
    serials = [item["serial_number"] for item in answer["devices"]]
    assert (answer["total"], serials) == (3, ["0123456", "SIM0000001", "SIM0000002"])
    page = (await client.admin("GET", "/registry/devices?offset=1&limit=1")).json()
    assert [item["serial_number"] for item in page["devices"]] == ["SIM0000001"]
    wrong = await client.admin("GET", "/registry/devices?limit=-1")
    assert (wrong.status, wrong.json()["error"]) == (
        400,
        "limit: expected a whole number, got '-1'",
    )


async def test_an_unknown_serial_is_a_404(client: Client) -> None:
    for method, path in (
        ("GET", "/registry/devices/NOBODY"),
        ("DELETE", "/registry/devices/NOBODY"),
        ("POST", "/registry/devices/NOBODY/activation-lock"),
        ("DELETE", "/registry/devices/NOBODY/activation-lock"),
    ):
        answer = await client.admin(method, path, b"{}")
        assert (answer.status, answer.json()["error"]) == (
            404,
            "no device has serial number NOBODY",
        )


async def test_a_removed_device_is_unknown_to_the_services(client: Client, device: Device) -> None:
    answer = await client.admin("DELETE", f"/registry/devices/{device.serial_number}")
    assert answer.json() == {"removed": device.serial_number}
    refused = await client.handshake(device.handshake_request())
    assert refused.refusal == (403, "UNKNOWN_DEVICE", "text/plain")


# ---- activation locks ----


@pytest.mark.parametrize(
    "lock",
    [
        {"login": "owner@example.com", "password": "secret words"},
        {"bypass_code": "000H4-0R40M-30F2-0918-5HR3-8F17", "message": "Lost"},
        {"escrow_key": "c5ced1d0c51459c1a887866a5868dd3e9e6f4fc4a8c244f3f9eb9383c0f8aecb"},
    ],
)
async def test_a_lock_is_set_and_lifted_and_its_secrets_stay_unsaid(
    client: Client, device: Device, lock: dict[str, str]
) -> None:
    path = f"/registry/devices/{device.serial_number}/activation-lock"
    with capture_logs() as lines:
        answer = await client.admin("POST", path, json.dumps(lock).encode())
        assert answer.json()["activation_locked"] is True
        request = device.activation_request(await client.session(device))
        assert b"Activation Lock" in (await client.activate(request)).body
    for secret in lock.values():
        assert secret.encode() not in answer.body
        assert secret not in str(lines)
    answer = await client.admin("DELETE", path)
    assert answer.json()["activation_locked"] is False


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        ({}, "expected login and password, bypass_code or escrow_key"),
        ({"login": "a"}, "expected login and password together"),
        ({"bypass_code": "123"}, "expected 26 characters of its alphabet"),
        ({"escrow_key": "zz"}, "expected hexadecimal digits"),
        ({"login": 7, "password": "x"}, "login: expected string"),
    ],
)
async def test_a_lock_that_nobody_could_open_is_refused(
    client: Client, device: Device, lock: Fields, words: str
) -> None:
    path = f"/registry/devices/{device.serial_number}/activation-lock"
    answer = await client.admin("POST", path, json.dumps(lock).encode())
    assert answer.status == 400
    assert words in answer.json()["error"]
    record = client.services.registry.get(device.serial_number)
    assert record is not None
    assert record.activation_lock is None


# ---- the portal ----


async def test_a_portal_is_put_as_yaml_or_json_and_read_back(client: Client) -> None:
    as_yaml = (await client.admin("PUT", "/portal", PORTAL)).json()
    assert (await client.admin("GET", "/portal")).json() == as_yaml
    body = json.dumps(as_yaml).encode()
    as_json = await client.admin("PUT", "/portal", body, headers=JSON)
    assert (as_json.status, as_json.json()) == (200, as_yaml)
    assert client.services.portal.organizations[0].unassigned == ("0123456",)


async def test_a_portal_with_mistakes_changes_nothing(client: Client) -> None:
    before = (await client.admin("PUT", "/portal", PORTAL)).json()
    wrong = PORTAL.replace(b"https", b"http").replace(b"0123456", b"SIM0000001")
    answer = await client.admin("PUT", "/portal", wrong + b"extra: 1\n")
    assert answer.status == 400
    assert len(answer.json()["mistakes"]) == 3
    assert (await client.admin("PUT", "/portal", b"\xff")).status == 400
    assert (await client.admin("PUT", "/portal", b"{", headers=JSON)).status == 400
    assert (await client.admin("GET", "/portal")).json() == before


async def test_devices_are_assigned_without_touching_the_rest(
    client: Client, device: Device
) -> None:
    await client.admin("PUT", "/portal", PORTAL)
    body = json.dumps({"organization": "A", "server": "S", "serials": ["sim0000009"]}).encode()
    assert (await client.admin("POST", "/portal/devices", body)).json() == {"assigned": 1}
    body = json.dumps({"organization": "A", "server": None, "serials": ["SIM0000001"]}).encode()
    await client.admin("POST", "/portal/devices", body)
    portal = (await client.admin("GET", "/portal")).json()
    (organization,) = portal["organizations"]
    assert organization["servers"][0]["devices"] == ["SIM0000009"]
    assert organization["unassigned"] == ["0123456", "SIM0000001"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"organization": "B", "serials": ["SIM1"]}, 404),
        ({"organization": "A", "server": "T", "serials": ["SIM1"]}, 404),
        ({"organization": "A", "serials": "SIM1"}, 400),
        ({"organization": "A", "serials": ["SIM 1"]}, 400),
        ({"organization": "A"}, 400),
    ],
)
async def test_an_assignment_that_cannot_be_is_refused(
    client: Client, content: Fields, status: int
) -> None:
    before = (await client.admin("PUT", "/portal", PORTAL)).json()
    answer = await client.admin("POST", "/portal/devices", json.dumps(content).encode())
    assert answer.status == status
    assert (await client.admin("GET", "/portal")).json() == before


# ---- the rest ----


async def test_anchors_are_pem_and_hold_no_private_key(client: Client) -> None:
    answer = await client.admin("GET", "/anchors")
    assert answer.json() == pki().pems()
    assert b"PRIVATE" not in answer.body
    load_pem_public_key(answer.json()["sim-activation-service-key.pem"].encode())


async def test_wrong_paths_methods_and_sizes_are_answered_in_json(client: Client) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("PATCH", "/portal", 405),
    ):
        answer = await client.admin(method, path)
        assert answer.status == status
        assert "error" in answer.json()
    answer = await client.admin("PUT", "/portal", b"#" * (10 * 1024 * 1024 + 1))
    assert answer.status == 413
