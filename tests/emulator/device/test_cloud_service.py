"""What a device finds out by itself about the cloud configuration service: trust, address, signer (apple-services.md 3.4)."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.clock import SimulatedClock
from certs.identity import Identity
from certs.tls import server_context
from emulator.apple.planned_faults import PlannedFault
from emulator.device.cloud_configuration import fetch_cloud_configuration
from emulator.device.device import Device
from emulator.device.setup_assistant import AutomatedEnrollment, set_up
from emulator.device.state import State
from emulator.device.surroundings import AppleEndpoints, Behaviour, Surroundings
from emulator.errors import PeerRefused
from emulator.wire import bypass_code
from emulator.wire.cloudconfig import CloudConfigurationError
from tests.emulator.device.world import (
    CLOCK,
    apple_services,
    make_device,
    mdm_authority,
    pki,
    surroundings,
)

URL = "https://mdm.example.com/enroll"


def activated() -> Device:
    device = make_device()
    device.state = State.ACTIVATED
    device.keychain.device = device.factory.factory
    return device


@asynccontextmanager
async def behind(identity: Identity, *, certificate: bytes = b"") -> AsyncIterator[str]:
    """A service with this TLS identity, which would give no configuration."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"PROFILE_NOT_FOUND", content_type="text/plain")

    async def show(request: web.Request) -> web.Response:
        return web.Response(body=certificate, content_type="application/x-x509-ca-cert")

    app = web.Application()
    app.router.add_post("/v2/profile", answer)
    app.router.add_get("/resource/certificate.cer", show)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(identity)).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def around(url: str) -> Surroundings:
    endpoints = AppleEndpoints(activation_url=url, cloud_configuration_url=url, attestation_url=url)
    return replace(surroundings(trusted=False), apple=endpoints)


async def code_of(url: str, clock: SimulatedClock | None = None) -> int:
    world, device = around(url), activated()
    if clock is not None:
        world = replace(world, clock=clock, door=world.door.seen_by(clock))
    with pytest.raises(CloudConfigurationError) as caught:
        await fetch_cloud_configuration(device, world)
    assert device.state is State.ACTIVATED
    return caught.value.code


async def test_a_server_of_another_ca_is_34011() -> None:
    _, _, identity = mdm_authority()
    async with behind(identity) as url:
        assert await code_of(url) == 34011


async def test_a_certificate_for_another_name_is_34011() -> None:
    async with behind(pki().issue_tls_identity(["other.example.com"])) as url:
        assert await code_of(url) == 34011


async def test_a_certificate_outside_its_dates_is_34011() -> None:
    later = SimulatedClock(CLOCK.now() + timedelta(days=500))
    async with behind(pki().issue_tls_identity(["127.0.0.1"])) as url:
        assert await code_of(url, later) == 34011


async def test_a_server_that_is_not_there_is_no_question_of_trust() -> None:
    with pytest.raises(PeerRefused, match="connection refused") as caught:
        await fetch_cloud_configuration(activated(), around("https://127.0.0.1:1"))
    assert not isinstance(caught.value, CloudConfigurationError)


@pytest.mark.parametrize("url", ["iprofiles", "ftp://127.0.0.1", "https://"])
async def test_an_address_that_is_none_is_33012(url: str) -> None:
    assert await code_of(url) == 33012


async def test_without_its_two_certificates_a_device_does_not_ask() -> None:
    device = activated()
    alone = replace(device.factory.attestation, chain=())
    device.factory = replace(device.factory, attestation=alone)
    with pytest.raises(CloudConfigurationError) as caught:
        await fetch_cloud_configuration(device, around("https://127.0.0.1:1"))
    assert caught.value.code == 33013


# ---- the older way ----


def legacy(apple: object) -> Surroundings:
    return surroundings(apple=apple, behaviour=Behaviour(cloud_configuration="legacy"))  # type: ignore[arg-type]


async def test_the_older_way_brings_the_same_configuration() -> None:
    device = activated()
    async with apple_services(device, profile_keys={"url": URL}, legacy=True) as apple:
        await fetch_cloud_configuration(device, legacy(apple))
        other = activated()
        await fetch_cloud_configuration(other, surroundings(apple=apple))
    assert device.state is State.CLOUD_CONFIGURED
    assert device.cloud_configuration == other.cloud_configuration


async def test_a_device_of_nobody_goes_home_the_older_way_too() -> None:
    device = make_device()
    async with apple_services(device, legacy=True) as apple:
        await set_up(device, legacy(apple), AutomatedEnrollment())
    assert device.state is State.HOME_UNMANAGED


async def test_a_service_without_the_older_way_is_down() -> None:
    device = activated()
    async with apple_services(device) as apple:
        with pytest.raises(CloudConfigurationError) as caught:
            await fetch_cloud_configuration(device, legacy(apple))
    assert (caught.value.code, caught.value.status) == (34004, 404)


@pytest.mark.parametrize(
    ("step", "body", "code"),
    [
        ("legacy_certificate", "no certificate", 34003),
        ("legacy_session", "no plist", 34003),
        ("legacy_cloud_configuration", "no JSON", 34003),
    ],
)
async def test_each_answer_of_the_older_way_is_read_or_refused(
    step: str, body: str, code: int
) -> None:
    device = activated()
    entry = {"step": step, "action": "body", "body": body, "content_type": "application/json"}
    async with apple_services(device, profile_keys={"url": URL}, legacy=True) as apple:
        apple.planned_faults.plan("*", [PlannedFault.model_validate(entry)])
        with pytest.raises(CloudConfigurationError) as caught:
            await fetch_cloud_configuration(device, legacy(apple))
    assert caught.value.code == code


def foreign_certificate() -> bytes:
    return mdm_authority()[2].der


def expired_certificate() -> bytes:
    then = CLOCK.now() - timedelta(days=500)
    subject = pki().issue_tls_identity(["127.0.0.1"])
    return der_of(
        pki().tls_ca.issue(
            subject.certificate.public_key(),  # type: ignore[arg-type]
            subject.certificate.subject,
            days=100,
            not_before=then,
        )
    )


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


@pytest.mark.parametrize("make", [foreign_certificate, expired_certificate])
async def test_a_certificate_that_leads_nowhere_is_34011(make: Callable[[], bytes]) -> None:
    device = activated()
    own = pki().issue_tls_identity(["127.0.0.1"])
    async with behind(own, certificate=make()) as url:
        world = replace(around(url), behaviour=Behaviour(cloud_configuration="legacy"))
        with pytest.raises(CloudConfigurationError) as caught:
            await fetch_cloud_configuration(device, world)
    assert caught.value.code == 34011


# ---- what supervision brings ----


async def test_supervision_makes_a_bypass_code_and_an_erased_device_another() -> None:
    device = activated()
    async with apple_services(device, profile_keys={"url": URL}) as apple:
        await fetch_cloud_configuration(device, surroundings(apple=apple))
        code = device.bypass_code
        assert code is not None
        assert bypass_code.decode(bypass_code.encode(code)) == code
        assert code.hex() not in repr(device)
        device.erase()
        assert device.bypass_code is None
        await set_up_to_configuration(device, surroundings(apple=apple))
    assert device.bypass_code not in (None, code)


async def set_up_to_configuration(device: Device, world: Surroundings) -> None:
    device.state = State.ACTIVATED
    await fetch_cloud_configuration(device, world)


async def test_an_unsupervised_device_has_no_bypass_code() -> None:
    device = activated()
    device.hardware = replace(device.hardware, os_version="12.5.5")
    async with apple_services(device, profile_keys={"url": URL}) as apple:
        await fetch_cloud_configuration(device, surroundings(apple=apple))
    assert not device.supervised
    assert device.bypass_code is None
