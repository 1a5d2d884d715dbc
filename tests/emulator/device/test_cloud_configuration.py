"""Asking whose device it is: every answer of the service and what becomes of the device (apple-services.md 3.3, 3.4)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from certs.tls import server_context
from emulator.device.cloud_configuration import as_stored, fetch_cloud_configuration
from emulator.device.device import Device
from emulator.device.state import State
from emulator.device.surroundings import AppleEndpoints, Surroundings
from emulator.errors import PeerRefused, StepTimeout
from emulator.wire import cloudconfig
from emulator.wire.cloudconfig import CloudConfiguration, CloudConfigurationError, Organization
from tests.emulator.device.world import Memory, make_device, pki, surroundings

DOCUMENT = (
    b'{"org":{"name":"Example Inc"},"config":{"url":"https://mdm.example.com/enroll",'
    b'"is-supervised":true,"is-mdm-removable":false,"await-device-configured":true}}'
)


@dataclass
class Service:
    """Answers with the next of its answers; the last one stays."""

    answers: list[tuple[int, bytes, str]]
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        headers = {key.lower(): value for key, value in request.headers.items()}
        self.requests.append((headers, await request.read()))
        status, body, kind = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(
            status=status, body=body, headers={"Content-Type": kind, **self.headers}
        )


@asynccontextmanager
async def service(*answers: tuple[int, bytes, str]) -> AsyncIterator[Service]:
    stand_in = Service(list(answers))
    app = web.Application()
    app.router.add_post("/v2/profile", stand_in.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    context = server_context(pki().issue_tls_identity(["127.0.0.1"]))
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    stand_in.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield stand_in
    finally:
        await runner.cleanup()


class NoWaiting:
    """A clock whose sleeps are noted and over at once."""

    def __init__(self, clock: object) -> None:
        self._clock = clock
        self.slept: list[float] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._clock, name)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def _around(stand_in: Service, memory: Memory | None = None) -> tuple[Surroundings, NoWaiting]:
    plain = surroundings(memory)
    clock = NoWaiting(plain.clock)
    endpoints = AppleEndpoints(
        activation_url=stand_in.url,
        cloud_configuration_url=stand_in.url,
        attestation_url=stand_in.url,
    )
    return replace(plain, apple=endpoints, clock=clock), clock  # type: ignore[arg-type]


def _activated(**hardware: str) -> Device:
    device = make_device(**hardware)  # type: ignore[arg-type]
    device.state = State.ACTIVATED
    return device


async def test_the_request_is_the_signed_envelope_with_the_daemons_headers() -> None:
    device = _activated()
    async with service((200, DOCUMENT, "application/json")) as stand_in:
        around, _ = _around(stand_in)
        await fetch_cloud_configuration(device, around)
    ((headers, body),) = stand_in.requests
    build = device.hardware.build
    assert headers["user-agent"] == f"ConfigClient/1.0 (iPhone; iPhone OS; {build}; {build})"
    assert headers["x-profile-protocol-version"] == "3"
    envelope = cloudconfig.decode_envelope(body)
    leaf = x509.load_der_x509_certificate(envelope.sign_cert)
    issuer = x509.load_der_x509_certificate(envelope.intermediate_cert)
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(envelope.payload_signature, envelope.payload, ec.ECDSA(hashes.SHA256()))
    leaf.verify_directly_issued_by(issuer)
    request = cloudconfig.decode_request(envelope.payload)
    assert (request.serial_number, request.udid) == (
        device.hardware.serial_number,
        device.hardware.udid,
    )
    assert device.state is State.CLOUD_CONFIGURED


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"PROFILE_NOT_FOUND", "text/plain"),
        (200, b" DEVICE_NOT_FOUND\n", "text/plain; charset=utf-8"),
        (200, b"PROFILE_NOT_ACTIVE", "text/plain"),
        (200, b"SOMETHING_ELSE", "text/plain"),
        (400, b"DEVICE_NOT_ENROLLED", "text/plain"),
        (200, b'{"org":{"name":"Example Inc"}}', "application/json"),
    ],
)
async def test_every_form_of_no_configuration_leads_home_unmanaged(
    answer: tuple[int, bytes, str],
) -> None:
    device = _activated()
    async with service(answer) as stand_in:
        await fetch_cloud_configuration(device, _around(stand_in)[0])
    assert device.state is State.HOME_UNMANAGED
    assert device.cloud_configuration is None


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((200, b"not json", "application/json"), 34003),
        ((204, b"", "application/json"), 34003),
        ((200, b'{"config":{"url":"https://x"}}', "application/json"), 34003),
        ((200, b'{"org":{"name":"x"},"config":{}}', "application/json"), 34003),
        (
            (
                200,
                b'{"org":{"name":"x"},"config":{"url":"https://x","is-multi-user":true,"is-return-to-service":true}}',
                "application/json",
            ),
            34003,
        ),
        (
            (
                200,
                b'{"org":{"name":"x"},"config":{"url":"https://x","is-supervised":1}}',
                "text/json",
            ),
            34003,
        ),
        ((400, b"INVALID_DEVICE", "text/plain"), 33023),
        ((401, b"INVALID_SIGNATURE", "text/plain"), 33016),
        ((401, b"WHATEVER", "text/plain"), 34000),
        ((400, b"WHATEVER", "text/plain"), 34004),
        ((500, b"", "text/plain"), 34004),
        ((503, b"", "text/plain"), 34006),
    ],
)
async def test_every_refusal_has_its_code_and_stops_setup(
    answer: tuple[int, bytes, str], code: int
) -> None:
    device = _activated()
    async with service(answer) as stand_in:
        with pytest.raises(CloudConfigurationError) as caught:
            await fetch_cloud_configuration(device, _around(stand_in)[0])
    assert caught.value.code == code
    assert caught.value.status == answer[0]
    assert device.state is State.ACTIVATED
    assert device.cloud_configuration is None


async def test_a_busy_service_is_asked_again_after_the_delay_it_names() -> None:
    device, memory = _activated(), Memory()
    busy = (503, b"", "text/plain")
    async with service(busy, busy, (200, DOCUMENT, "application/json")) as stand_in:
        stand_in.headers["Retry-After"] = "7"
        around, clock = _around(stand_in, memory)
        await fetch_cloud_configuration(device, around)
    assert clock.slept == [7.0, 7.0]
    assert memory.steps == ["cloud_configuration"] * 3
    assert device.state is State.CLOUD_CONFIGURED


async def test_a_service_that_stays_busy_is_given_up() -> None:
    async with service((503, b"", "text/plain")) as stand_in:
        around, clock = _around(stand_in)
        with pytest.raises(CloudConfigurationError):
            await fetch_cloud_configuration(_activated(), around)
    assert clock.slept == [5.0, 5.0, 5.0]
    assert len(stand_in.requests) == 4


async def test_a_service_behind_another_tls_root_is_refused() -> None:
    device = _activated()
    own = device.factory.anchors
    device.factory = replace(device.factory, anchors=replace(own, tls_root=own.sim_apple_root))
    async with service((200, DOCUMENT, "application/json")) as stand_in:
        with pytest.raises(PeerRefused, match="cloud_configuration: .*server certificate refused"):
            await fetch_cloud_configuration(device, _around(stand_in)[0])
    assert stand_in.requests == []


async def test_without_apple_services_there_is_nobody_to_ask() -> None:
    with pytest.raises(PeerRefused, match="no Apple services are configured"):
        await fetch_cloud_configuration(_activated(), surroundings())


def test_a_step_timeout_names_its_step() -> None:
    assert (
        str(StepTimeout("cloud_configuration", 30)) == "cloud_configuration: no answer within 30 s"
    )


@pytest.mark.parametrize(
    ("os_version", "supervised", "removable", "awaits"),
    [
        ("12.5.5", False, True, False),
        ("13.0", True, False, True),
        ("18.1", True, False, True),
    ],
)
def test_the_device_forces_supervision_from_13_and_drops_flags_that_need_it(
    os_version: str, supervised: bool, removable: bool, awaits: bool
) -> None:
    device = make_device()
    device.hardware = replace(device.hardware, os_version=os_version)
    received = CloudConfiguration(
        organization=Organization(name="x"),
        url="https://x",
        is_supervised=False,
        is_mdm_removable=False,
        await_device_configured=True,
        is_multi_user=True,
    )
    stored = as_stored(device, received)
    assert (stored.is_supervised, stored.is_mandatory) == (supervised, supervised)
    assert (stored.is_mdm_removable, stored.await_device_configured) == (removable, awaits)
    assert not stored.is_multi_user
