"""Activation as the programs on a USB host ask for it: their forms, headers and names, byte by byte (apple-services.md 2.1, 2.4)."""

import asyncio
from urllib.parse import quote_plus

import aiohttp
import pytest

from certs.clock import SimulatedClock
from certs.tls import client_context
from emulator.apple.activation import ActivationSettings
from emulator.apple.app import AppleServices
from emulator.wire import activation
from emulator.wire.activation import Acknowledgement, ActivationRecord, ActivationRequest
from tests.emulator.apple.support import Client, Device, Reply, full, pki, record_of

PYMOBILEDEVICE3 = "iOS Device Activator (MobileActivation-20 built on Jan 15 2012 at 19:07:28)"
LEGACY_FIELDS = {
    "InStoreActivation": "False",
    "AppleSerialNumber": "SIM0000001",
    "IMEI": "353918051234561",
    "IMSI": "001010123456789",
    "ICCID": "89014103211118510720",
}


def urlencoded(request: ActivationRequest, **fields: str) -> bytes:
    """A complete plist document, quoted as Python's requests does."""
    document = activation.encode_activation_info(request)
    pairs = {"activation-info": document, **{k: v.encode() for k, v in fields.items()}}
    return "&".join(f"{key}={quote_plus(value)}" for key, value in pairs.items()).encode()


def multipart(request: ActivationRequest, **fields: str) -> bytes:
    """A bare <dict>, stripped of everything around it, as libideviceactivation does."""
    document = activation.encode_activation_info(request)
    bare = document[document.index(b"<dict>") : document.rindex(b"</plist>")].rstrip()
    parts = {**{key: value.encode() for key, value in fields.items()}, "activation-info": bare}
    return (
        b"".join(
            b'--BOUNDARY\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
            % (name.encode(), value)
            for name, value in parts.items()
        )
        + b"--BOUNDARY--\r\n"
    )


async def test_pymobiledevice3_waits_for_100_continue_before_it_sends(
    client: Client, device: Device
) -> None:
    """Its whole request by hand: the body goes only after the interim answer."""
    body = urlencoded(await full(client, device))
    port = int(client.services.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=client_context([pki().tls_ca.certificate])
    )
    head = (
        "POST /deviceservices/deviceActivation HTTP/1.1\r\nHost: albert.apple.com\r\n"
        f"User-Agent: {PYMOBILEDEVICE3}\r\nAccept: application/xml\r\nExpect: 100-continue\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode())
    interim = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert interim.startswith(b"HTTP/1.1 100 ")
    writer.write(body)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head_of_answer, _, content = answer.partition(b"\r\n\r\n")
    assert head_of_answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nContent-Type: text/xml\r\n" in head_of_answer + b"\r\n"  # and no parameters
    assert isinstance(activation.decode_answer("text/xml", content), ActivationRecord)


@pytest.mark.parametrize(
    "agent",
    [
        PYMOBILEDEVICE3,
        "iOS Device Activator (MobileActivation-592.103.2)",
        "iOS Device Activator (MobileActivation-286.30.34 built on Nov  2 2017 at 22:43:42)",
        "iTunes/11.1.4 (Macintosh; OS X 10.9.1) AppleWebKit/537.73.11",
    ],
)
async def test_every_known_agent_is_served(client: Client, device: Device, agent: str) -> None:
    answer = await client.post(
        activation.ACTIVATION_PATH,
        urlencoded(await full(client, device)),
        content_type=activation.FORM_CONTENT_TYPE,
        user_agent=agent,
    )
    record_of(answer)


async def test_the_legacy_path_sends_fields_beside_the_request(
    client: Client, device: Device
) -> None:
    request = device.activation_request(None)
    for body, content_type in (
        (urlencoded(request, **LEGACY_FIELDS), activation.FORM_CONTENT_TYPE),
        (multipart(request, **LEGACY_FIELDS), "multipart/form-data; boundary=BOUNDARY"),
    ):
        answer = await client.post(activation.ACTIVATION_PATH, body, content_type=content_type)
        assert b"<key>iphone-activation</key>" in answer.body
        record_of(answer)


async def test_handshakes_come_with_either_content_type(client: Client, device: Device) -> None:
    for content_type in ("application/xml", "application/x-apple-plist"):
        body = activation.encode_handshake_request(device.handshake_request())
        answer = await client.post(activation.HANDSHAKE_PATH, body, content_type=content_type)
        assert b"HandshakeResponseMessage" in answer.body


async def in_html(
    clock: SimulatedClock, http: aiohttp.ClientSession, *, session: bool
) -> tuple[Reply, Reply]:
    """The answers to an activation and to its repetition, where pages are the setting."""
    settings = ActivationSettings(answer="html")
    async with AppleServices(pki=pki(), clock=clock, activation_settings=settings) as services:
        client, device = Client(services, http), Device(1, clock)
        await client.provision(device)
        replies = []
        for state in ("Unactivated", "Activated"):
            info = device.info(activation_state=state)
            opened = await client.session(device) if session else None
            replies.append(await client.activate(device.activation_request(opened, info)))
        return replies[0], replies[1]


@pytest.mark.parametrize(("session", "root"), [(True, b"ActivationRecord"), (False, b"iphone-act")])
async def test_a_setting_answers_with_a_page(
    clock: SimulatedClock, http: aiohttp.ClientSession, session: bool, root: bytes
) -> None:
    record, acknowledgement = await in_html(clock, http, session=session)
    assert record.content_type == acknowledgement.content_type == "text/html"
    assert b'<script id="protocol" type="text/x-apple-plist"><plist' in record.body
    assert b"<?xml" not in record.body
    assert b"<key>" + root in record.body
    assert "ARS" in record.headers
    assert isinstance(activation.decode_answer("text/html", record.body), ActivationRecord)
    assert activation.decode_answer("text/html", acknowledgement.body) == Acknowledgement()
    assert "ARS" not in acknowledgement.headers
