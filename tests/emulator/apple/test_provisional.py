"""Devices added with Apple Configurator: login, nonces, joining and leaving (apple-services.md 3.2, 3.6, 9.2)."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from certs.clock import SimulatedClock
from certs.tls import client_context
from emulator.apple.app import AppleServices
from emulator.apple.cloudconfig import CloudConfigurationSettings
from emulator.apple.portal import Portal
from emulator.wire.device_request import (
    DeviceRequest,
    Operation,
    PushRegistration,
    encode_request,
)
from emulator.wire.envelope import encode
from emulator.wire.provisional import CONFIGURATOR_SERVER, NonceRequest
from tests.emulator.apple.support import Client, Device, Reply, full, pki

URL = "https://mdm.example.com/enroll"
PORTAL = Portal.from_content(
    {"organizations": [{"name": "Example Inc"}, {"name": "Örtliche Schule"}]}
)


@pytest.fixture
async def joining(client: Client, device: Device) -> Device:
    """A device of nobody, while the portal has two organizations."""
    client.services.apply(PORTAL)
    return device


async def get(client: Client, path: str, headers: dict[str, str]) -> Reply:
    context = client_context([pki().tls_ca.certificate])
    url = client.services.url + path
    async with client.http.get(url, headers=headers, ssl=context) as response:
        return Reply(response.status, await response.read(), dict(response.headers))


async def login(client: Client, token: str = "Example%20Inc") -> Reply:
    return await get(
        client, "/v2/login", {"X-Apple-GS-Token": token, "X-Profile-Protocol-Version": "1"}
    )


async def post_nonce(client: Client, body: bytes, session: str) -> Reply:
    context = client_context([pki().tls_ca.certificate])
    url, headers = client.services.url + "/v2/nonce", {"X-ADM-Auth-Session": session}
    async with client.http.post(url, data=body, headers=headers, ssl=context) as response:
        return Reply(response.status, await response.read(), dict(response.headers))


def nonce_body(*devices: Device, **changes: Any) -> bytes:
    facts: dict[str, Any] = {
        "devices": tuple((device.serial_number, device.udid) for device in devices),
        "profile": {"url": URL, "is_supervised": True, "is_mdm_removable": False, "later_key": 1},
    }
    return json.dumps(NonceRequest(**{**facts, **changes}).to_fields()).encode()


async def nonce_for(client: Client, device: Device, **changes: Any) -> str:
    session = (await login(client)).body.decode()
    answer = await post_nonce(client, nonce_body(device, **changes), session)
    assert answer.status == 200, answer.body
    (entry,) = answer.json()["nonces"]
    return str(entry["value"])


async def ask(client: Client, device: Device, operation: Operation, **facts: Any) -> Reply:
    request = DeviceRequest(
        **{
            "serial_number": device.serial_number,
            "udid": device.udid,
            "action": operation.action,
            **facts,
        }
    )
    return await client.post(operation.path, encode(device.envelope(encode_request(request))))


async def enroll(client: Client, device: Device, nonce: str) -> Reply:
    return await ask(client, device, Operation.ENROLL, nonce=nonce)


def ms(clock: SimulatedClock, **later: float) -> int:
    return int((clock.now() + timedelta(**later)).timestamp() * 1000)


# ---- Configurator ----


async def test_configurator_logs_in_with_the_name_of_an_organization(
    client: Client, joining: Device
) -> None:
    answer = await login(client, "%C3%96rtliche%20Schule")
    assert (answer.status, answer.content_type) == (200, "text/plain")
    nonces = await post_nonce(client, nonce_body(joining), answer.body.decode())
    (entry,) = nonces.json()["nonces"]
    assert entry.pop("value")
    expected = {"status": "SUCCESS", "serialNumber": joining.serial_number, "udid": joining.udid}
    assert entry == expected


@pytest.mark.parametrize("token", ["", "Nobody"])
async def test_a_token_of_nobody_is_unauthorized(
    client: Client, joining: Device, token: str
) -> None:
    assert (await login(client, token)).refusal == (401, "UNAUTHORIZED", "text/plain")


async def test_with_one_organization_any_token_is_its(client: Client, device: Device) -> None:
    client.services.apply(Portal.from_content({"organizations": [{"name": "Example Inc"}]}))
    assert (await login(client, "whatever")).status == 200
    assert (await login(client, "")).status == 401


async def test_a_nonce_needs_a_session(client: Client, joining: Device) -> None:
    answer = await post_nonce(client, nonce_body(joining), "made up")
    assert answer.refusal == (401, "UNAUTHORIZED", "text/plain")


@pytest.mark.parametrize(
    "change",
    [
        {"devices": (("S", "U"),) * 1001},
        {"profile": {"url": "http://plain.example.com"}},
        {"profile": {"url": URL, "is_mdm_removable": False}},
        {"server_name": ""},
    ],
)
async def test_a_nonce_request_that_breaks_a_limit_is_malformed(
    client: Client, joining: Device, change: dict[str, Any]
) -> None:
    session = (await login(client)).body.decode()
    answer = await post_nonce(client, nonce_body(joining, **change), session)
    assert answer.refusal == (400, "MALFORMED", "text/plain")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"devices":[]}', b'{"devices":[1]}'])
async def test_a_nonce_request_of_another_shape_is_malformed(
    client: Client, joining: Device, body: bytes
) -> None:
    session = (await login(client)).body.decode()
    answer = await post_nonce(client, body, session)
    assert answer.refusal == (400, "MALFORMED", "text/plain")


# ---- joining ----


async def test_a_device_joins_with_its_nonce_and_gets_configurators_profile(
    client: Client, joining: Device, clock: SimulatedClock
) -> None:
    answer = await enroll(client, joining, await nonce_for(client, joining))
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.json() == {
        "enrollment_type": "PROVISIONAL_ENROLLMENT",
        "ce_expiry_ts": ms(clock, days=30),
    }
    document = (
        await client.configuration(joining.envelope(joining.configuration_request()))
    ).json()
    assert document["config"]["url"] == URL
    assert document["config"]["is-mdm-removable"] is False
    assert document["enrollment"] == {"expiry": ms(clock, days=30)}
    record = client.services.registry.get(joining.serial_number)
    assert record is not None
    assert record.server is not None
    assert record.server.name == CONFIGURATOR_SERVER
    owner = client.services.registry.organizations["Example Inc"]
    assert CONFIGURATOR_SERVER in owner.servers


async def test_without_a_profile_the_device_waits_to_be_assigned(
    client: Client, joining: Device
) -> None:
    nonce = await nonce_for(client, joining, profile={})
    assert (await enroll(client, joining, nonce)).status == 200
    record = client.services.registry.get(joining.serial_number)
    assert record is not None
    assert record.organization is not None
    assert record.server is None


@pytest.mark.ade(45)
async def test_the_period_is_counted_from_the_next_activation(
    client: Client, joining: Device, clock: SimulatedClock
) -> None:
    await enroll(client, joining, await nonce_for(client, joining))
    await clock.advance(5 * 86400)
    assert (await client.activate(await full(client, joining))).status == 200
    record = client.services.registry.get(joining.serial_number)
    assert record is not None
    assert record.provisional_until == clock.now() + timedelta(days=30)


@asynccontextmanager
async def started(
    clock: SimulatedClock, http: aiohttp.ClientSession, settings: CloudConfigurationSettings
) -> AsyncIterator[tuple[Client, Device]]:
    async with AppleServices(pki=pki(), clock=clock, cloud_settings=settings) as services:
        client, device = Client(services, http), Device(1, clock)
        await client.provision(device)
        services.apply(PORTAL)
        yield client, device


@pytest.mark.ade(45)
async def test_a_setting_counts_the_period_from_the_enrollment(
    clock: SimulatedClock, http: aiohttp.ClientSession
) -> None:
    settings = CloudConfigurationSettings(provisional_start="enrollment")
    async with started(clock, http, settings) as (client, device):
        await enroll(client, device, await nonce_for(client, device))
        joined = clock.now()
        await clock.advance(5 * 86400)
        await client.activate(await full(client, device))
        record = client.services.registry.get(device.serial_number)
        assert record is not None
        assert record.provisional_until == joined + timedelta(days=30)


async def test_a_nonce_serves_once_for_an_hour_and_for_one_device(
    client: Client, joining: Device, other: Device, clock: SimulatedClock
) -> None:
    expired = (401, "NONCE_EXPIRED", "text/plain")
    assert (await enroll(client, joining, "made up")).refusal == expired
    nonce = await nonce_for(client, joining)
    assert (await enroll(client, other, nonce)).refusal == expired
    assert (await enroll(client, joining, nonce)).status == 200
    client.services.registry.release(joining.serial_number, clock.now())
    assert (await enroll(client, joining, nonce)).refusal == expired
    nonce = await nonce_for(client, joining)
    await clock.advance(3600)
    assert (await enroll(client, joining, nonce)).refusal == expired


async def test_a_device_that_somebody_owns_cannot_enroll(client: Client, joining: Device) -> None:
    nonce = await nonce_for(client, joining)
    await enroll(client, joining, await nonce_for(client, joining))
    answer = await enroll(client, joining, nonce)
    assert answer.refusal == (401, "CANNOT_ENROLL", "text/plain")


async def test_an_organization_that_left_the_portal_takes_nobody(
    client: Client, joining: Device
) -> None:
    nonce = await nonce_for(client, joining)
    client.services.apply(Portal())
    assert (await enroll(client, joining, nonce)).refusal[1] == "NONCE_EXPIRED"


async def test_an_enrollment_without_a_nonce_is_an_invalid_device(
    client: Client, joining: Device
) -> None:
    answer = await ask(client, joining, Operation.ENROLL)
    assert answer.refusal == (400, "INVALID_DEVICE", "text/plain")


# ---- leaving ----


@pytest.mark.ade(45)
async def test_a_device_leaves_on_day_29_and_belongs_to_nobody(
    client: Client, joining: Device, clock: SimulatedClock
) -> None:
    await enroll(client, joining, await nonce_for(client, joining))
    await clock.advance(29 * 86400)
    answer = await ask(client, joining, Operation.UNENROLL)
    assert (answer.status, answer.body, answer.content_type) == (200, b"{}", "application/json")
    configuration = await client.configuration(joining.envelope(joining.configuration_request()))
    assert configuration.refusal == (400, "DEVICE_NOT_ENROLLED", "text/plain")


@pytest.mark.ade(45)
async def test_a_device_cannot_leave_on_day_31(
    client: Client, joining: Device, clock: SimulatedClock
) -> None:
    await enroll(client, joining, await nonce_for(client, joining))
    await clock.advance(30 * 86400)
    answer = await ask(client, joining, Operation.UNENROLL)
    assert answer.refusal == (400, "CANNOT_ENROLL", "text/plain")
    record = client.services.registry.get(joining.serial_number)
    assert record is not None
    assert record.organization is not None


async def test_a_device_that_was_bought_cannot_leave(client: Client, device: Device) -> None:
    owner = {"name": "Example Inc", "unassigned": [device.serial_number]}
    client.services.apply(Portal.from_content({"organizations": [owner]}))
    answer = await ask(client, device, Operation.UNENROLL)
    assert answer.refusal == (400, "CANNOT_ENROLL", "text/plain")


# ---- registration and migration ----

REQUESTS: list[tuple[Operation, dict[str, Any]]] = [
    (Operation.REGISTER, {"push": PushRegistration(app_push_token=bytes(32), push_topic="t")}),
    (Operation.START_MIGRATION, {}),
    (Operation.END_MIGRATION, {"server_uid": "A" * 32, "status": "success"}),
]


@pytest.mark.parametrize(("operation", "facts"), REQUESTS)
async def test_the_other_operations_are_checked_and_answered_with_nothing(
    client: Client, device: Device, operation: Operation, facts: dict[str, Any]
) -> None:
    answer = await ask(client, device, operation, **facts)
    assert (answer.status, answer.body, answer.content_type) == (200, b"{}", "application/json")


@pytest.mark.parametrize("operation", list(Operation))
async def test_every_operation_makes_the_checks_c1_to_c5(
    client: Client, device: Device, other: Device, operation: Operation
) -> None:
    facts: dict[str, Any] = dict(REQUESTS).get(operation, {})
    if operation is Operation.ENROLL:
        facts = {"nonce": "x"}
    invalid = (400, "INVALID_DEVICE", "text/plain")
    assert (await client.post(operation.path, b"{}")).refusal == invalid  # C1
    request = DeviceRequest(
        serial_number=device.serial_number, udid=device.udid, action=operation.action, **facts
    )
    payload = encode_request(request)
    forged = device.envelope(payload, payload_signature=other.envelope(payload).payload_signature)
    answer = await client.post(operation.path, encode(forged))  # C3
    assert answer.refusal == (401, "INVALID_SIGNATURE", "text/plain")
    answer = await ask(client, device, operation, **{**facts, "action": "Other"})  # C4
    assert answer.refusal == invalid
    answer = await ask(client, device, operation, **{**facts, "udid": other.udid})  # C5
    assert answer.refusal == invalid


@pytest.mark.parametrize(
    ("operation", "payload"),
    [
        (Operation.END_MIGRATION, {"status": "x"}),
        (Operation.END_MIGRATION, {"server_uid": "x"}),
        (Operation.REGISTER, {}),
    ],
)
async def test_c4_wants_the_members_of_the_operation(
    client: Client, device: Device, operation: Operation, payload: dict[str, str]
) -> None:
    who = {"serial_number": device.serial_number, "udid": device.udid}
    body = json.dumps({"device": who, "action": operation.action, **payload}).encode()
    answer = await client.post(operation.path, encode(device.envelope(body)))
    assert answer.refusal == (400, "INVALID_DEVICE", "text/plain")
