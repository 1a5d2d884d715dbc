"""The stand-ins as a whole: TLS, ports, faults, errors into answers, one log line each, and a clean end."""

import asyncio
import io
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from structlog.testing import capture_logs

from certs.attestation_faults import Facts
from certs.clock import SimulatedClock, SystemClock
from certs.faults import Action
from certs.tls import client_context
from emulator.apple.app import AppleServices
from emulator.apple.cloudconfig import CloudConfigurationService
from emulator.apple.portal import Portal
from emulator.apple.records import ActivationState
from emulator.errors import CannotListen
from emulator.wire import activation, attestation, cloudconfig
from emulator.wire.activation import ActivationRequest, HandshakeRequest
from emulator.wire.envelope import Envelope
from tests.emulator.apple.support import Client, Device, Reply, pki


class OneFault:
    """Misbehaves once at one step, and remembers what it was asked."""

    def __init__(self, step: str, name: str, **arguments: Any) -> None:
        self.step = step
        self.action = Action(name=name, arguments=arguments)
        self.asked: list[tuple[str, str, type, int]] = []

    def __call__(self, side: str, step: str, message: object, n: int) -> Action | None:
        self.asked.append((side, step, type(message), n))
        return self.action if (step, n) == (self.step, 1) else None


async def activation_reply(client: Client, device: Device) -> Reply:
    return await client.activate(device.activation_request(None))


async def handshake_reply(client: Client, device: Device) -> Reply:
    return await client.handshake(device.handshake_request())


async def configuration_reply(client: Client, device: Device) -> Reply:
    return await client.configuration(device.envelope(device.configuration_request()))


async def attestation_reply(client: Client, device: Device) -> Reply:
    return await client.attestation(device.envelope(device.attestation_request()))


STEPS = {
    "drm_handshake": handshake_reply,
    "device_activation": activation_reply,
    "cloud_configuration": configuration_reply,
    "attestation": attestation_reply,
}
Start = Callable[[OneFault], AppleServices]


@pytest.fixture
def start(clock: SimulatedClock) -> Start:
    def with_fault(fault: OneFault) -> AppleServices:
        return AppleServices(pki=pki(), clock=clock, faults=fault)

    return with_fault


async def prepared(
    services: AppleServices, http: aiohttp.ClientSession, clock: SimulatedClock
) -> tuple[Client, Device]:
    client, device = Client(services, http), Device(1, clock)
    await client.provision(device)
    server = {"name": "S", "profile": {"url": "https://x"}, "devices": [device.serial_number]}
    services.apply(Portal.from_content({"organizations": [{"name": "A", "servers": [server]}]}))
    return client, device


# ---- ports and TLS ----


async def test_the_tls_certificate_is_for_loopback_and_the_given_hosts(
    clock: SimulatedClock, http: aiohttp.ClientSession
) -> None:
    hosts = ("albert.apple.com", "iprofiles.apple.com")
    async with AppleServices(pki=pki(), clock=clock, hosts=hosts) as services:
        port = int(services.url.rpartition(":")[2])
        context = client_context([pki().tls_ca.certificate])
        for name in ("localhost", "127.0.0.1", *hosts):
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname=name
            )
            writer.close()
            await writer.wait_closed()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="other.example"
            )
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                "127.0.0.1",
                port,
                ssl=client_context([pki().root]),
                server_hostname="localhost",
            )


async def test_both_ports_are_chosen_by_the_system_and_closed_at_the_end(
    clock: SimulatedClock,
) -> None:
    services = AppleServices(pki=pki(), clock=clock)
    async with services:
        assert services.url.startswith("https://127.0.0.1:")
        assert services.admin_url.startswith("http://127.0.0.1:")
        ports = [int(url.rpartition(":")[2]) for url in (services.url, services.admin_url)]
        assert 0 not in ports
        assert len(services.token) >= 32
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_a_taken_port_leaves_nothing_open(clock: SimulatedClock) -> None:
    async with AppleServices(pki=pki(), clock=clock) as first:
        admin_port = int(first.admin_url.rpartition(":")[2])
        second = AppleServices(pki=pki(), clock=clock, admin_port=admin_port)
        with pytest.raises(CannotListen, match="administration: .* in use"):
            await second.__aenter__()
        port = int(second.url.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_a_given_token_and_portal_are_used(
    clock: SimulatedClock, http: aiohttp.ClientSession
) -> None:
    portal = Portal.from_content({"organizations": [{"name": "A", "unassigned": ["SIM1"]}]})
    token = "a-token-of-my-own-choice"
    async with AppleServices(pki=pki(), clock=clock, portal=portal, token=token) as services:
        client = Client(services, http)
        answer = await client.admin("GET", "/registry/devices", token=token)
        assert answer.json()["devices"][0]["organization"] == "A"
        assert services.portal == portal


async def test_the_system_clock_serves_as_well(http: aiohttp.ClientSession) -> None:
    clock = SystemClock()
    async with AppleServices(pki=pki(), clock=clock) as services:
        client = Client(services, http)
        device = Device(1, SimulatedClock(clock.now()))
        await client.provision(device)
        assert (await client.handshake(device.handshake_request())).status == 200


# ---- faults ----


@pytest.mark.parametrize("step", STEPS)
async def test_a_status_is_answered_instead_of_acting(
    start: Start, http: aiohttp.ClientSession, clock: SimulatedClock, step: str
) -> None:
    fault = OneFault(step, "status", status=503)
    async with start(fault) as services:
        client, device = await prepared(services, http, clock)
        answer = await STEPS[step](client, device)
        assert answer.refusal == (503, "", "text/plain")
        record = services.registry.get(device.serial_number)
        assert record is not None
        assert record.activation_state is ActivationState.UNACTIVATED
        assert record.profile_push_time is None
        assert (await STEPS[step](client, device)).status == 200


async def test_a_body_is_answered_instead_of_acting(
    start: Start, http: aiohttp.ClientSession, clock: SimulatedClock
) -> None:
    fault = OneFault(
        "cloud_configuration", "body", body="<html>", content_type="text/html", status=200
    )
    async with start(fault) as services:
        client, device = await prepared(services, http, clock)
        answer = await configuration_reply(client, device)
        assert answer.refusal == (200, "<html>", "text/html")


async def test_a_dropped_answer_was_acted_upon(
    start: Start, http: aiohttp.ClientSession, clock: SimulatedClock
) -> None:
    async with start(OneFault("device_activation", "drop")) as services:
        client, device = await prepared(services, http, clock)
        with pytest.raises(aiohttp.ClientError):
            await activation_reply(client, device)
        record = services.registry.get(device.serial_number)
        assert record is not None
        assert record.activation_state is ActivationState.ACTIVATED
        assert (await activation_reply(client, device)).status == 200


class WatchedClock(SimulatedClock):
    """Tells when somebody begins to sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeping = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.sleeping.set()
        await super().sleep(seconds)


async def test_a_delay_holds_the_answer_back_by_the_injected_clock(
    http: aiohttp.ClientSession,
) -> None:
    clock, fault = WatchedClock(), OneFault("attestation", "delay", seconds=3600)
    async with AppleServices(pki=pki(), clock=clock, faults=fault) as services:
        client, device = await prepared(services, http, clock)
        waiting = asyncio.create_task(attestation_reply(client, device))
        await clock.sleeping.wait()
        await clock.advance(3599)
        assert not waiting.done()
        await clock.advance(1)
        assert (await waiting).status == 200


async def test_a_fault_point_sees_side_step_message_and_how_often(
    start: Start, http: aiohttp.ClientSession, clock: SimulatedClock
) -> None:
    fault = OneFault("none", "drop")
    async with start(fault) as services:
        client, device = await prepared(services, http, clock)
        for reply in (*STEPS.values(), handshake_reply):
            await reply(client, device)
    assert fault.asked == [
        ("server", "drm_handshake", HandshakeRequest, 1),
        ("server", "device_activation", ActivationRequest, 1),
        ("server", "cloud_configuration", Envelope, 1),
        ("server", "attestation", Envelope, 1),
        ("server", "attestation_leaf", Facts, 1),
        ("server", "drm_handshake", HandshakeRequest, 2),
    ]


async def test_a_fault_that_does_not_exist_is_our_own_mistake(
    start: Start, http: aiohttp.ClientSession, clock: SimulatedClock
) -> None:
    async with start(OneFault("attestation", "explode")) as services:
        client, device = await prepared(services, http, clock)
        answer = await attestation_reply(client, device)
        assert answer.refusal == (500, "INTERNAL_SERVER_ERROR", "text/plain")


# ---- errors and logs ----


@pytest.mark.parametrize(
    "path",
    [activation.HANDSHAKE_PATH, activation.ACTIVATION_PATH, cloudconfig.PATH, attestation.PATH],
)
async def test_a_body_over_the_limit_is_a_413(client: Client, path: str) -> None:

    context = client_context([pki().tls_ca.certificate])
    body = io.BytesIO(b"a" * (10 * 1024 * 1024 + 1))
    answer = await client._request("POST", client.services.url + path, data=body, ssl=context)
    assert answer.status == 413
    assert answer.content_type == "text/plain"


async def test_a_body_that_ends_too_early_is_one_log_line_and_no_failure(client: Client) -> None:
    port = int(client.services.url.rpartition(":")[2])
    context = client_context([pki().tls_ca.certificate])
    with capture_logs() as lines:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
        writer.write(b"POST /attestation HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(10):
            while not lines:  # noqa: ASYNC110 - nothing but the log tells
                await asyncio.sleep(0.001)
    assert [(line["event"], line["outcome"]) for line in lines] == [
        ("attestation", "INCOMPLETE_BODY")
    ]


async def test_another_method_is_a_405_that_names_the_right_one(client: Client) -> None:
    context = client_context([pki().tls_ca.certificate])
    url = client.services.url + cloudconfig.PATH
    answer = await client._request("GET", url, ssl=context)
    assert answer.refusal == (405, "METHOD_NOT_ALLOWED", "text/plain")
    assert answer.headers["Allow"] == "POST"


async def test_a_failure_of_our_own_is_a_500_and_tells_nothing(
    client: Client, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: object, message: object) -> None:
        raise RuntimeError("details")

    monkeypatch.setattr(CloudConfigurationService, "answer", fail)
    answer = await configuration_reply(client, device)
    assert answer.refusal == (500, "INTERNAL_SERVER_ERROR", "text/plain")


async def test_each_request_is_one_log_line(client: Client, device: Device) -> None:
    with capture_logs() as lines:
        await handshake_reply(client, device)
        device.number = 2
        await handshake_reply(client, device)
        await configuration_reply(client, device)
    assert lines[0] == {
        "event": "drm_handshake",
        "log_level": "info",
        "outcome": "session",
        "status": 200,
        "serial": device.serial_number,
    }
    facts = [(line["event"], line["check"], line["outcome"], line["status"]) for line in lines[1:]]
    assert facts == [
        ("drm_handshake", "H4", "BAD_SIGNATURE", 401),
        ("cloud_configuration", "C3", "INVALID_SIGNATURE", 401),
    ]


async def test_activations_at_the_same_time_are_not_mixed_up(
    client: Client, clock: SimulatedClock
) -> None:
    """A hundred sessions in flight: every record is for the device that asked."""
    devices = [Device(number, clock) for number in (1, 2, 3)]
    for device in devices:
        await client.provision(device)

    async def activate(device: Device) -> None:
        request = device.activation_request(await client.session(device))
        answer = await client.activate(request)
        record = activation.decode_answer(answer.content_type or "", answer.body)
        assert isinstance(record, activation.ActivationRecord)
        certificate = x509.load_pem_x509_certificate(record.device_certificate)
        assert certificate.public_key() == device.factory_key.public_key()
        assert device.serial_number.encode() in record.account_token

    await asyncio.gather(*(activate(device) for device in devices * 34))
