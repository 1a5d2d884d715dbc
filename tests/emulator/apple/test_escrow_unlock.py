"""Lifting an activation lock as an MDM server does: certificate, parameters, code (apple-services.md 2.8)."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography import x509

from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.identity import Identity
from certs.keys import generate
from certs.tls import client_context
from emulator.apple.escrow_unlock import PATH
from emulator.apple.records import ActivationLock
from tests.emulator.apple.support import Client, Device, Reply, pki
from tests.emulator.wire.test_bypass_code import CODE, HASH

TOPIC = "com.apple.mgmt.External.9a1e"
FORM = {"orgName": "Example Inc", "guid": "1", "escrowKey": CODE}


def push_identity(**changes: Any) -> Identity:
    key = generate("p256")
    return Identity(key, pki().issue_push_certificate(key.public_key(), TOPIC, **changes))


@pytest.fixture
def locked(client: Client, device: Device) -> Device:
    record = client.services.registry.get(device.serial_number)
    assert record is not None
    record.activation_lock = ActivationLock(escrow_hash=bytes.fromhex(HASH))
    return device


async def unlock(
    client: Client,
    device: Device,
    *,
    identity: Identity | None,
    query: dict[str, str] | None = None,
    form: dict[str, str] | bytes | None = None,
) -> Reply:
    context = client_context([pki().tls_ca.certificate], identity)
    asked = {"serial": device.serial_number, "productType": device.product_type, **(query or {})}
    url = f"{client.services.url}{PATH}?{urlencode(asked)}"
    body = FORM if form is None else form
    async with client.http.post(url, data=body, ssl=context) as response:
        return Reply(response.status, await response.read(), dict(response.headers))


def is_locked(client: Client, device: Device) -> bool:
    record = client.services.registry.get(device.serial_number)
    assert record is not None
    return record.activation_lock is not None


async def test_the_bypass_code_lifts_the_lock(client: Client, locked: Device) -> None:
    assert locked.imei is not None
    answer = await unlock(client, locked, identity=push_identity(), query={"imei": locked.imei})
    assert answer.status == 200
    assert not is_locked(client, locked)


async def test_a_caller_without_a_certificate_is_unauthorized(
    client: Client, locked: Device
) -> None:
    answer = await unlock(client, locked, identity=None)
    assert answer.refusal == (401, "UNAUTHORIZED", "text/plain")


async def test_an_expired_push_certificate_is_forbidden(
    client: Client, locked: Device, clock: SimulatedClock
) -> None:
    identity = push_identity(days=1)
    await clock.advance(timedelta(days=2).total_seconds())
    answer = await unlock(client, locked, identity=identity)
    assert answer.refusal == (403, "FORBIDDEN", "text/plain")


async def test_a_certificate_without_a_topic_is_forbidden(client: Client, locked: Device) -> None:
    key = generate("p256")
    certificate = pki().push_ca.issue(key.public_key(), x509.Name([]))
    answer = await unlock(client, locked, identity=Identity(key, certificate))
    assert answer.refusal == (403, "FORBIDDEN", "text/plain")


async def test_a_certificate_of_another_ca_ends_the_handshake(
    client: Client, locked: Device, clock: SimulatedClock
) -> None:
    ca = CertificateAuthority.create("Other CA", clock=clock)
    key = generate("p256")
    with pytest.raises(OSError, match=r"unknown ca|reset|[Cc]losed|disconnected"):
        await unlock(
            client, locked, identity=Identity(key, ca.issue(key.public_key(), x509.Name([])))
        )


@pytest.mark.parametrize("name", ["serial", "productType"])
async def test_a_query_parameter_that_is_missing_is_a_400(
    client: Client, locked: Device, name: str
) -> None:
    answer = await unlock(client, locked, identity=push_identity(), query={name: ""})
    assert answer.refusal == (400, "MISSING_PARAMETER", "text/plain")


@pytest.mark.parametrize("name", ["orgName", "guid", "escrowKey"])
async def test_a_form_field_that_is_missing_is_a_400(
    client: Client, locked: Device, name: str
) -> None:
    form = {key: value for key, value in FORM.items() if key != name}
    answer = await unlock(client, locked, identity=push_identity(), form=form)
    assert answer.refusal == (400, "MISSING_PARAMETER", "text/plain")


async def test_a_body_that_is_no_form_is_a_400(client: Client, locked: Device) -> None:
    answer = await unlock(client, locked, identity=push_identity(), form=b"%")
    assert answer.refusal == (400, "MALFORMED", "text/plain")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"serial": "OTHER"}, CODE),
        ({"productType": "iPad7,11"}, CODE),
        ({"imei": "353918051234579"}, CODE),
        ({"meid": "A0000000000001"}, CODE),
        ({}, "no code"),
        ({}, "00000-00000-0000-0000-0000-0000"),
    ],
)
async def test_another_device_or_code_is_a_404_and_the_lock_stays(
    client: Client, locked: Device, query: dict[str, str], code: str
) -> None:
    form = {**FORM, "escrowKey": code}
    answer = await unlock(client, locked, identity=push_identity(), query=query, form=form)
    assert answer.refusal == (404, "NOT_FOUND", "text/plain")
    assert is_locked(client, locked)


async def test_a_lock_of_an_account_alone_has_no_code(client: Client, locked: Device) -> None:
    record = client.services.registry.get(locked.serial_number)
    assert record is not None
    record.activation_lock = ActivationLock(account=("owner@example.com", "secret"))
    answer = await unlock(client, locked, identity=push_identity())
    assert answer.refusal == (404, "NOT_FOUND", "text/plain")
