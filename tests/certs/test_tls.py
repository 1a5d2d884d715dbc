"""Identities in TLS contexts, by memory file and by temporary file, over real handshakes."""

import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientConnectorError, ClientSession, web
from cryptography import x509
from cryptography.x509.oid import NameOID

from certs import tls
from certs.ca import CertificateAuthority, issue_server_identity
from certs.clock import SimulatedClock, SystemClock
from certs.identity import Identity
from certs.keys import generate
from certs.tls import NO_CHECK_TIME, client_context, load_identity, peer_certificate, server_context
from tests.support import rsa_key

FORMS = [True, False] if sys.platform == "linux" else [False]


@pytest.fixture(params=FORMS, ids=lambda memory: "memory" if memory else "temporary-file")
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(tls, "use_memory_files", request.param)
    return bool(request.param)


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[str]:
    async def who(request: web.Request) -> web.Response:
        certificate = peer_certificate(request)
        return web.Response(text=certificate.subject.rfc4514_string() if certificate else "nobody")

    app = web.Application()
    app.router.add_get("/", who)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def ask(url: str, context: ssl.SSLContext) -> str:
    async with ClientSession() as session, session.get(url, ssl=context) as response:
        return await response.text()


async def test_a_client_is_known_by_its_certificate(form: bool) -> None:
    ca = CertificateAuthority.create("Test CA", clock=SystemClock())
    server = issue_server_identity(ca, ["127.0.0.1"], generate("p256"))
    devices = [
        ca.issue_identity(generate("p256"), named("an EC device")),
        ca.issue_identity(rsa_key(), named("an RSA device")),
    ]
    async with serving(server_context(server, client_roots=[ca.certificate])) as url:
        assert await ask(url, client_context([ca.certificate])) == "nobody"
        for device in devices:
            name = device.certificate.subject.rfc4514_string()
            assert await ask(url, client_context([ca.certificate], device)) == name


async def test_a_reloaded_identity_takes_the_place_of_the_first(form: bool) -> None:
    ca = CertificateAuthority.create("Test CA", clock=SystemClock())
    server = issue_server_identity(ca, ["127.0.0.1"], generate("p256"))
    context = client_context(
        [ca.certificate], ca.issue_identity(generate("p256"), named("the first"))
    )
    load_identity(context, ca.issue_identity(generate("p384"), named("the second")))
    async with serving(server_context(server, client_roots=[ca.certificate])) as url:
        assert await ask(url, context) == "CN=the second"


def test_a_context_takes_one_kind_of_key_only() -> None:
    """OpenSSL would hold both and show the EC one, which is another device's."""
    ca = CertificateAuthority.create("Test CA", clock=SystemClock())
    context = client_context([ca.certificate], ca.issue_identity(rsa_key(), named("RSA")))
    with pytest.raises(ValueError, match="another kind of key"):
        load_identity(context, ca.issue_identity(generate("p256"), named("EC")))


async def test_a_foreign_client_certificate_ends_the_handshake() -> None:
    ca = CertificateAuthority.create("Test CA", clock=SystemClock())
    foreign = CertificateAuthority.create("Foreign CA", clock=SystemClock())
    server = issue_server_identity(ca, ["127.0.0.1"], generate("p256"))
    device = foreign.issue_identity(generate("p256"), named("a stranger"))
    async with serving(server_context(server, client_roots=[ca.certificate])) as url:
        with pytest.raises((ClientConnectionError, ssl.SSLError)):
            await ask(url, client_context([ca.certificate], device))


async def test_no_handshake_looks_at_dates() -> None:
    """The machine's clock says that all three certificates are long over."""
    clock = SimulatedClock(datetime(2001, 1, 1, tzinfo=UTC))
    ca = CertificateAuthority.create("Old CA", clock=clock, lifetime_days=30)
    server = issue_server_identity(ca, ["127.0.0.1"], generate("p256"))
    device = ca.issue_identity(generate("p256"), named("an old device"))
    async with serving(server_context(server, client_roots=[ca.certificate])) as url:
        assert await ask(url, client_context([ca.certificate], device)) == "CN=an old device"


async def test_a_server_of_another_name_or_root_is_refused() -> None:
    ca = CertificateAuthority.create("Test CA", clock=SystemClock())
    server = issue_server_identity(ca, ["elsewhere.example"], generate("p256"))
    async with serving(server_context(server)) as url:
        with pytest.raises(ClientConnectorError, match="IP address mismatch"):
            await ask(url, client_context([ca.certificate]))
        with pytest.raises(ClientConnectorError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(url, client_context([]))


def test_server_contexts_give_no_tickets_and_start_at_tls_1_2() -> None:
    ca = CertificateAuthority.create("Test CA", clock=SystemClock())
    identity = issue_server_identity(ca, ["localhost"], generate("p256"))
    for context in (
        server_context(identity),
        server_context(identity, client_roots=[ca.certificate]),
    ):
        assert context.num_tickets == 0
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.verify_flags & NO_CHECK_TIME
    assert server_context(identity).verify_mode is ssl.CERT_NONE
    assert context.verify_mode is ssl.CERT_OPTIONAL


def test_no_key_stays_on_the_disk(
    form: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ca = CertificateAuthority.create("Test CA", clock=SystemClock())
    identity: Identity = ca.issue_identity(generate("p256"), named("x"), days=timedelta(1).days)
    client_context([ca.certificate], identity)
    assert list(tmp_path.iterdir()) == []


async def test_a_plain_request_has_no_peer() -> None:
    seen: list[x509.Certificate | None] = []

    async def who(request: web.Request) -> web.Response:
        seen.append(peer_certificate(request))
        return web.Response()

    app = web.Application()
    app.router.add_get("/", who)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with ClientSession() as session, session.get(url) as response:
        assert response.status == 200
    await runner.cleanup()
    assert seen == [None]
