"""drmHandshake: one test for each of H1 to H5, and what a good one brings (apple-services.md 9.1)."""

from dataclasses import replace
from datetime import timedelta

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from certs.clock import SimulatedClock
from certs.errors import MalformedMessage
from emulator.apple.activation import ActivationSettings
from emulator.apple.activation_session import HandshakeService
from emulator.apple.answer import Received, Refusal
from emulator.apple.app import AppleServices
from emulator.apple.registry import Registry
from emulator.wire import activation, plist
from tests.emulator.apple.support import ECDSA, Client, Device, pki

MALFORMED = (400, "MALFORMED", "text/plain")


async def test_a_handshake_is_answered_with_a_signed_session(
    client: Client, device: Device
) -> None:
    request = device.handshake_request()
    answer = await client.handshake(request)
    assert answer.status == 200
    assert answer.content_type == "application/xml"
    reply = activation.decode_handshake_reply(answer.body)
    assert (len(reply.server_kp), len(reply.fdr_blob), len(reply.su_info)) == (85, 32, 366)
    assert reply.server_kp[0] == 1
    signature = activation.handshake_signature(reply.handshake_response_message)
    key = device.certificates.anchors.load_activation_service_key()
    key.verify(signature, reply.tbs(request.handshake_request_message), ECDSA)


async def test_handshake_answers_carry_the_headers_of_the_real_service(
    client: Client, device: Device
) -> None:
    headers = (await client.handshake(device.handshake_request())).headers
    assert headers["Cache-Control"] == "no-cache, no-store, max-age=0, must-revalidate"
    assert headers["Pragma"] == "no-cache"
    assert headers["Expires"] == "0"
    assert headers["Server"] == "Apple"
    assert len(bytes.fromhex(headers["X-B3-TraceId"])) == 8
    assert "ARS" not in headers


@pytest.mark.parametrize("key", ["CollectionBlob", "HandshakeRequestMessage", "UniqueDeviceID"])
async def test_h1_refuses_a_handshake_without_one_of_its_keys(
    client: Client, device: Device, key: str
) -> None:
    fields = device.handshake_request().to_fields()
    del fields[key]
    answer = await client.post(activation.HANDSHAKE_PATH, plist.dumps(fields))
    assert answer.refusal == MALFORMED


@pytest.mark.parametrize("message", [b"\x02" + bytes(20), b"\x01" + bytes(19), b"\x01" + bytes(21)])
async def test_h1_refuses_a_message_of_another_shape(
    client: Client, device: Device, message: bytes
) -> None:
    request = device.handshake_request(handshake_request_message=message)
    assert (await client.handshake(request)).refusal == MALFORMED


async def test_h1_refuses_a_time_more_than_ten_minutes_off(
    client: Client, device: Device, clock: SimulatedClock
) -> None:
    for minutes in (-10.1, 10.1):
        made = clock.now() + timedelta(minutes=minutes)
        assert (await client.handshake(device.handshake_request(made=made))).refusal == MALFORMED
    for minutes in (-9.9, 9.9):
        made = clock.now() + timedelta(minutes=minutes)
        assert (await client.handshake(device.handshake_request(made=made))).status == 200


async def test_h1_takes_any_time_when_the_check_is_off(
    clock: SimulatedClock, http: aiohttp.ClientSession
) -> None:
    settings = ActivationSettings(check_time=False)
    device = Device(1, clock)
    async with AppleServices(pki=pki(), clock=clock, activation_settings=settings) as services:
        client = Client(services, http)
        await client.provision(device)
        made = clock.now() - timedelta(days=400)
        assert (await client.handshake(device.handshake_request(made=made))).status == 200


async def test_h2_refuses_an_ingest_body_of_another_device(client: Client, device: Device) -> None:
    body = device.ingest_body(udid="00008110-0000000000000099")
    assert (await client.handshake(device.handshake_request(ingest_body=body))).refusal == MALFORMED


async def test_h2_refuses_an_ingest_body_that_is_not_json(client: Client, device: Device) -> None:
    request = device.handshake_request(ingest_body=b"<json/>")
    assert (await client.handshake(request)).refusal == MALFORMED


async def test_h3_refuses_a_device_that_is_not_registered(
    client: Client, device: Device, clock: SimulatedClock
) -> None:
    stranger = Device(3, clock)
    answer = await client.handshake(stranger.handshake_request())
    assert answer.refusal == (403, "UNKNOWN_DEVICE", "text/plain")


async def test_h3_refuses_a_registered_serial_with_another_udid(
    client: Client, device: Device
) -> None:
    udid = "00008110-0000000000000099"
    request = device.handshake_request(udid=udid, ingest_body=device.ingest_body(udid=udid))
    assert (await client.handshake(request)).refusal == (403, "UNKNOWN_DEVICE", "text/plain")


async def test_h4_refuses_a_key_that_is_not_the_registered_one(
    client: Client, device: Device, other: Device
) -> None:
    request = device.handshake_request(key=other.attestation_key)
    assert (await client.handshake(request)).refusal == (401, "BAD_SIGNATURE", "text/plain")


async def test_h4_refuses_a_key_that_is_no_point_of_the_curve(
    client: Client, device: Device
) -> None:
    request = device.handshake_request(sig_key=b"\x04" + bytes(64))
    assert (await client.handshake(request)).refusal == (401, "BAD_SIGNATURE", "text/plain")


async def test_h4_refuses_a_signature_over_other_bytes(client: Client, device: Device) -> None:
    request = device.handshake_request()
    padded = replace(request, ingest_body=request.ingest_body + b" ")
    assert (await client.handshake(padded)).refusal == (401, "BAD_SIGNATURE", "text/plain")


async def test_h5_refuses_the_same_message_within_ten_minutes(
    client: Client, device: Device, clock: SimulatedClock
) -> None:
    request = device.handshake_request()
    assert (await client.handshake(request)).status == 200
    await clock.advance(9 * 60)
    assert (await client.handshake(request)).refusal == (409, "REPLAY", "text/plain")


async def test_a_refused_handshake_does_not_use_up_its_message(
    client: Client, device: Device
) -> None:
    request = device.handshake_request()
    broken = replace(request, ingest_body=request.ingest_body + b" ")
    assert (await client.handshake(broken)).status == 401
    assert (await client.handshake(request)).status == 200


async def test_lite_only_services_refuse_a_handshake(
    clock: SimulatedClock, http: aiohttp.ClientSession
) -> None:
    device = Device(1, clock)
    async with AppleServices(pki=pki(), clock=clock, activation_mode="lite") as services:
        client = Client(services, http)
        await client.provision(device)
        assert (await client.handshake(device.handshake_request())).refusal == MALFORMED


@given(st.binary(max_size=200))
def test_garbage_is_only_ever_malformed(body: bytes) -> None:
    service = HandshakeService(
        Registry(), ec.generate_private_key(ec.SECP256R1()), SimulatedClock()
    )
    with pytest.raises(Refusal) as refused:
        service.decode(Received(body=body))
    assert refused.value.word == "MALFORMED"
    assert isinstance(refused.value.__cause__, MalformedMessage)
