"""The admin port: guarded, exact about mistakes, all or nothing, and silent about secrets."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from structlog.testing import capture_logs

from tests.emulator.apple.support import Client, Device, pki

Fields = dict[str, Any]
JSON = {"Content-Type": "application/json"}
PORTAL = b"""
organizations:
  - name: A
    servers:
      - {name: S, profile: {url: https://mdm.example.com}, devices: [SIM0000001]}
    unassigned: ["0123456"]
"""


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
