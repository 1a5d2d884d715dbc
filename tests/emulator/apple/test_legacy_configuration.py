"""The older way to the cloud configuration: one test for each refusal of apple-services.md 9.2, "Legacy option"."""

import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from cryptography import x509

from certs import cms
from certs.clock import SimulatedClock
from certs.identity import Identity
from certs.tls import client_context
from certs.trust import verify_chain
from emulator.apple.app import AppleServices
from emulator.apple.cloudconfig import CloudConfigurationSettings
from emulator.wire import legacy_cloudconfig as legacy
from emulator.wire.legacy_cloudconfig import MacProfileRequest
from tests.emulator.apple.support import Client, Device, Reply, pki
from tests.emulator.apple.test_cloud_configuration import PROFILE, own
from tests.support import rsa_key

INVALID_DEVICE = (400, "INVALID_DEVICE", "text/plain")
INVALID_SIGNATURE = (401, "INVALID_SIGNATURE", "text/plain")
NONCE_EXPIRED = (401, "NONCE_EXPIRED", "text/plain")


@pytest.fixture
async def client(clock: SimulatedClock, http: aiohttp.ClientSession) -> AsyncIterator[Client]:
    settings = CloudConfigurationSettings(legacy=True)
    async with AppleServices(pki=pki(), clock=clock, cloud_settings=settings) as services:
        yield Client(services, http)


async def session(client: Client) -> bytes:
    answer = await client.post(legacy.SESSION_PATH, legacy.encode_session_request(bytes(32)))
    assert (answer.status, answer.content_type) == (200, "application/xml")
    return legacy.decode_session(answer.body)


def signed(device: Device, request: MacProfileRequest, identity: Identity | None = None) -> bytes:
    own_identity = Identity(device.factory_key, device.certificates.factory_certificate)
    return cms.sign(legacy.encode_request(request), identity or own_identity)


async def ask(client: Client, device: Device, **changes: Any) -> Reply:
    identity = changes.pop("identity", None)
    facts = {"serial_number": device.serial_number, "session": b""}
    request = MacProfileRequest(**{**facts, "session": await session(client), **changes})
    body = legacy.encode_body(signed(device, request, identity))
    return await client.post(legacy.PROFILE_PATH, body)


async def test_the_certificate_is_the_stand_ins_own(client: Client) -> None:
    url, context = client.services.url, client_context([pki().tls_ca.certificate])
    async with client.http.get(url + legacy.CERTIFICATE_PATH, ssl=context) as response:
        assert response.headers["Content-Type"] == "application/x-x509-ca-cert"
        certificate = x509.load_der_x509_certificate(await response.read())
    verify_chain(certificate, (), [pki().tls_ca.certificate], at=None)


async def test_a_signed_request_gets_the_document(client: Client, device: Device) -> None:
    own(client, device, PROFILE)
    answer = await ask(client, device)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.json()["config"]["url"] == PROFILE["url"]
    record = client.services.registry.get(device.serial_number)
    assert record is not None
    assert record.profile_status == "pushed"


async def test_c6_and_c7_are_those_of_the_present_way(client: Client, device: Device) -> None:
    assert (await ask(client, device)).refusal == (400, "DEVICE_NOT_ENROLLED", "text/plain")
    own(client, device)
    assert (await ask(client, device)).refusal == (200, "PROFILE_NOT_FOUND", "text/plain")


@pytest.mark.parametrize("body", [b"", b"<plist/>", legacy.encode_session(bytes(32))])
async def test_a_session_request_of_another_shape_is_refused(client: Client, body: bytes) -> None:
    assert (await client.post(legacy.SESSION_PATH, body)).refusal == INVALID_DEVICE


async def test_a_session_request_of_another_length_is_refused(client: Client) -> None:
    body = legacy.encode_session_request(bytes(31))
    assert (await client.post(legacy.SESSION_PATH, body)).refusal == INVALID_DEVICE


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"!!", base64.b64encode(b"no CMS"), base64.b64encode(b"\x30\x03abc")]
)
async def test_a_body_that_is_no_signed_message_is_refused(client: Client, body: bytes) -> None:
    assert (await client.post(legacy.PROFILE_PATH, body)).refusal == INVALID_DEVICE


async def test_a_signed_text_that_is_no_request_is_refused(client: Client, device: Device) -> None:
    identity = Identity(device.factory_key, device.certificates.factory_certificate)
    body = legacy.encode_body(cms.sign(b'{"sn":1}', identity))
    assert (await client.post(legacy.PROFILE_PATH, body)).refusal == INVALID_DEVICE


def _self_signed(device: Device) -> Identity:
    certificate = pki().root_ca.issue(device.factory_key.public_key(), x509.Name([]))
    return Identity(device.factory_key, certificate)


def _unregistered(device: Device) -> Identity:
    key = rsa_key(3)
    return Identity(key, pki().issue_factory_certificate(key.public_key(), device.udid))


def _wrong_key(device: Device) -> Identity:
    return Identity(rsa_key(3), device.certificates.factory_certificate)


@pytest.mark.parametrize("make", [_self_signed, _unregistered, _wrong_key])
async def test_a_signer_that_is_not_the_registered_factory_key_is_refused(
    client: Client, device: Device, make: Callable[[Device], Identity]
) -> None:
    answer = await ask(client, device, identity=make(device))
    assert answer.refusal == INVALID_SIGNATURE


async def test_a_session_serves_once_and_for_ten_minutes(
    client: Client, device: Device, clock: SimulatedClock
) -> None:
    own(client, device, PROFILE)
    assert (await ask(client, device, session=bytes(32))).refusal == NONCE_EXPIRED
    opened = await session(client)
    assert (await ask(client, device, session=opened)).status == 200
    assert (await ask(client, device, session=opened)).refusal == NONCE_EXPIRED
    opened = await session(client)
    await clock.advance(600)
    assert (await ask(client, device, session=opened)).refusal == NONCE_EXPIRED


@pytest.mark.parametrize("change", [{"serial_number": "OTHER"}, {"action": "Other"}])
async def test_a_request_for_another_device_or_action_is_refused(
    client: Client, device: Device, change: dict[str, str]
) -> None:
    assert (await ask(client, device, **change)).refusal == INVALID_DEVICE
