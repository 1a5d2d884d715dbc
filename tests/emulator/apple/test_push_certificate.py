"""Who may push: each thing that can be wrong with a push certificate, and its answer (apple-services.md 6.1)."""

from datetime import timedelta

import pytest
from cryptography import x509

from certs.clock import SimulatedClock
from emulator.apple.push_certificate import DEVELOPMENT, PRODUCTION
from tests.emulator.apple.push_support import (
    TOPIC,
    Listener,
    provider,
    push_identity,
    push_services,
)
from tests.emulator.apple.support import pki

NULL = b"\x05\x00"
modes = pytest.mark.parametrize("mode", ["strict", "compat"])


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


async def test_without_a_certificate_the_provider_token_is_missing() -> None:
    async with push_services() as services, provider(services, None) as raw:
        Listener(services)
        answer = await raw.push()
        assert (answer.status, answer.reason) == (403, "MissingProviderToken")


@modes
@pytest.mark.parametrize("topics", [(), ("com.example.app",)], ids=["no UID", "not for MDM"])
async def test_a_certificate_without_an_mdm_topic_is_bad(
    mode: str, topics: tuple[str, ...]
) -> None:
    async with (
        push_services(mode=mode) as services,
        provider(services, push_identity(*topics)) as raw,
    ):
        Listener(services)
        answer = await raw.push()
        assert (answer.status, answer.reason) == (403, "BadCertificate")


async def test_an_expired_certificate_gets_an_answer_by_the_injected_clock() -> None:
    clock = SimulatedClock(pki().push_ca.certificate.not_valid_before_utc + timedelta(days=2))
    identity = push_identity(TOPIC, days=10, not_before=clock.now())
    async with push_services(clock) as services, provider(services, identity) as raw:
        Listener(services)
        assert (await raw.push()).status == 200
        await clock.advance(11 * 86400)
        assert (await raw.push()).reason == "BadCertificate"


async def test_a_certificate_that_is_not_valid_yet_is_bad() -> None:
    clock = SimulatedClock()
    identity = push_identity(TOPIC, not_before=clock.now() + timedelta(days=1))
    async with push_services(clock) as services, provider(services, identity) as raw:
        assert (await raw.push()).reason == "BadCertificate"


@modes
async def test_a_revoked_certificate_is_bad(mode: str) -> None:
    identity = push_identity(TOPIC)
    pki().push_ca.revoke(identity.certificate)
    async with push_services(mode=mode) as services, provider(services, identity) as raw:
        assert (await raw.push()).reason == "BadCertificate"


async def test_a_certificate_for_development_is_for_the_other_environment() -> None:
    development = (x509.UnrecognizedExtension(DEVELOPMENT, NULL), False)
    production = (x509.UnrecognizedExtension(PRODUCTION, NULL), False)
    only = push_identity(TOPIC, extensions=[development])
    both = push_identity(TOPIC, extensions=[development, production])
    async with push_services() as services:
        Listener(services)
        async with provider(services, only) as raw:
            answer = await raw.push()
            assert (answer.status, answer.reason) == (403, "BadCertificateEnvironment")
        async with provider(services, both) as raw:
            assert (await raw.push()).status == 200
