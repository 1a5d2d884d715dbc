"""Whom a device trusts: chains, names, dates by the injected clock, and alerts in words."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import uvloop
from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.ca import CertificateAuthority, issue_server_identity
from certs.clock import SimulatedClock
from certs.errors import TransportError
from certs.hosts import HostMap
from certs.keys import generate
from certs.tls import server_context
from emulator.http import HttpDoor, TrustSet
from emulator.http.tls import MAX_CONTEXTS, TlsContexts, tls_reason
from tests.emulator.http_peers import START, World, make_world, raw_server, says, web_server

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


async def fetch(world: World, url: str, trust: TrustSet, hosts: HostMap | None = None) -> bytes:
    door = HttpDoor(clock=world.clock, hosts=hosts or HostMap())
    async with door.session(trust=trust) as session:
        return (await session.request("GET", url, step="test")).body


async def refusal(world: World, url: str, trust: TrustSet, hosts: HostMap | None = None) -> str:
    with pytest.raises(TransportError) as caught:
        await fetch(world, url, trust, hosts)
    assert caught.value.timeout_s is None
    return caught.value.reason


async def test_a_server_of_the_trusted_ca_is_accepted(world: World) -> None:
    async with raw_server(says(OK), world.context) as peer:
        assert await fetch(world, peer.url(), world.trust) == b"ok"


async def test_a_server_of_a_foreign_ca_is_refused_before_anything_is_sent(world: World) -> None:
    foreign = make_world()
    async with raw_server(says(OK), foreign.context) as peer:
        reason = await refusal(world, peer.url(), world.trust)
        assert peer.connections == 0  # asyncio's server never got as far as the handler
    assert reason == ("server certificate refused: self-signed certificate in certificate chain")


async def test_an_empty_trust_set_trusts_nobody(world: World) -> None:
    async with raw_server(says(OK), world.context) as peer:
        reason = await refusal(world, peer.url(), TrustSet())
    assert reason.startswith("server certificate refused: ")


async def test_the_machines_own_roots_do_not_include_a_test_ca(world: World) -> None:
    async with raw_server(says(OK), world.context) as peer:
        reason = await refusal(world, peer.url(), TrustSet(system=True))
        assert (
            await fetch(world, peer.url(), TrustSet(system=True).with_roots(world.ca.certificate))
            == b"ok"
        )
    assert reason.startswith("server certificate refused: ")


async def test_a_pinned_server_certificate_is_an_anchor_too(world: World) -> None:
    async with raw_server(says(OK), world.context) as peer:
        trust = TrustSet().with_roots(world.server.certificate)
        assert await fetch(world, peer.url(), trust) == b"ok"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (
            "other.example.test",
            "Hostname mismatch, certificate is not valid for 'other.example.test'.",
        ),
        ("127.0.0.2", "IP address mismatch, certificate is not valid for '127.0.0.2'."),
    ],
)
async def test_a_certificate_for_another_name_is_refused(
    world: World, host: str, reason: str
) -> None:
    """The name is that of the URL, wherever the HostMap connects."""
    async with raw_server(says(OK), world.context) as peer:
        hosts = HostMap.parse([f"{host}=127.0.0.1:{peer.port}"])
        assert await refusal(world, f"https://{host}/", world.trust, hosts) == (
            f"server certificate refused: {reason}"
        )


async def test_a_mapped_host_is_verified_under_the_name_in_the_url(world: World) -> None:
    async with raw_server(says(OK), world.context) as peer:
        hosts = HostMap.parse([f"mdm.example.test=127.0.0.1:{peer.port}"])
        assert await fetch(world, "https://mdm.example.test/", world.trust, hosts) == b"ok"


async def test_a_common_name_alone_names_no_server(world: World) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mdm.example.test")])
    nameless = world.ca.issue_identity(
        generate("p256"), subject, extended_key_usage=[ExtendedKeyUsageOID.SERVER_AUTH]
    )
    async with raw_server(says(OK), server_context(nameless)) as peer:
        hosts = HostMap.parse([f"mdm.example.test=127.0.0.1:{peer.port}"])
        reason = await refusal(world, "https://mdm.example.test/", world.trust, hosts)
    assert reason.startswith("server certificate refused: Hostname mismatch")


async def test_a_server_certificate_expires_by_the_injected_clock() -> None:
    world = make_world()
    last_day = world.server.certificate.not_valid_after_utc
    async with raw_server(says(OK), world.context) as peer:
        await world.clock.advance((last_day - START).total_seconds())
        assert await fetch(world, peer.url(), world.trust) == b"ok"
        await world.clock.advance(1)
        reason = await refusal(world, peer.url(), world.trust)
    assert reason == f"server certificate expired on {last_day:%Y-%m-%d %H:%M:%S} UTC"


async def test_a_server_certificate_of_tomorrow_is_not_valid_yet() -> None:
    world = make_world()
    early = SimulatedClock(START - timedelta(days=2))
    async with raw_server(says(OK), world.context) as peer:
        door = HttpDoor(clock=early)
        async with door.session(trust=world.trust) as session:
            with pytest.raises(TransportError, match="server certificate is not valid before 2026"):
                await session.request("GET", peer.url(), step="test")


async def test_an_expired_issuer_spoils_the_chain() -> None:
    world = make_world()
    short = CertificateAuthority.create(
        "Short CA", clock=world.clock, parent=world.ca, lifetime_days=10
    )
    server = issue_server_identity(short, ["127.0.0.1"], generate("p256"))
    later = SimulatedClock(START + timedelta(days=11))
    async with raw_server(says(OK), server_context(server)) as peer:
        assert await fetch(world, peer.url(), world.trust) == b"ok"
        async with HttpDoor(clock=later).session(trust=world.trust) as session:
            with pytest.raises(TransportError) as caught:
                await session.request("GET", peer.url(), step="test")
    assert "expired on" in caught.value.reason


def test_the_machines_date_plays_no_part() -> None:
    """Simulated time far from real time: the real clock would refuse this certificate."""
    long_ago = SimulatedClock(START - timedelta(days=365 * 20))
    ca = CertificateAuthority.create("Old CA", clock=long_ago, lifetime_days=30)
    server = issue_server_identity(ca, ["127.0.0.1"], generate("p256"))
    world = World(long_ago, ca, server)

    async def meet() -> bytes:
        async with raw_server(says(OK), world.context) as peer:
            return await fetch(world, peer.url(), world.trust)

    assert asyncio.run(meet()) == b"ok"


@contextlib.contextmanager
def blocking_tls_server(context: ssl.SSLContext) -> Iterator[int]:
    """A server on OpenSSL's own blocking sockets, as asyncio's servers swallow the alerts of a failed handshake.

    It reads on until the client is gone: if it just left, a reset could overtake its alert.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            raw, _ = listener.accept()
            with raw.dup() as plain:
                with (
                    contextlib.suppress(OSError),
                    context.wrap_socket(raw, server_side=True) as tls,
                ):
                    tls.recv(65536)
                    tls.sendall(OK)
                while plain.recv(65536):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_of_a_foreign_ca_earns_an_alert_in_words(
    world: World, version: ssl.TLSVersion, loop_factory: LoopFactory
) -> None:
    context = server_context(world.server, client_roots=[world.ca.certificate])
    context.minimum_version = context.maximum_version = version
    stranger = make_world().device("stranger")

    async def meet(port: int) -> str:
        door = HttpDoor(clock=world.clock)
        async with door.session(trust=world.trust, identity=stranger) as session:
            with pytest.raises(TransportError) as caught:
                await session.request("GET", f"https://127.0.0.1:{port}/", step="idle")
        return caught.value.reason

    with blocking_tls_server(context) as port, asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(meet(port)) == "TLS alert: unknown CA"


def test_a_reset_that_overtook_the_alert_still_hints_at_the_certificate(world: World) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async def meet() -> str:
        door = HttpDoor(clock=world.clock)
        async with (
            raw_server(hang_up, world.context) as peer,
            door.session(trust=world.trust, identity=world.device("someone")) as session,
        ):
            with pytest.raises(TransportError) as caught:
                await session.request("GET", peer.url(), step="idle")
        return caught.value.reason

    assert asyncio.run(meet()) == (
        "the server closed the connection without an answer"
        " (perhaps it refuses the client certificate)"
    )


def test_a_server_that_insists_on_a_certificate_says_so_in_an_alert(world: World) -> None:
    context = server_context(world.server, client_roots=[world.ca.certificate])
    context.verify_mode = ssl.CERT_REQUIRED
    with blocking_tls_server(context) as port:
        reason = asyncio.run(refusal(world, f"https://127.0.0.1:{port}/", world.trust))
    assert reason == "TLS alert: certificate required"


@pytest.mark.filterwarnings("ignore:.*TLSv1.*is deprecated:DeprecationWarning")
def test_a_server_of_old_tls_is_refused(world: World) -> None:
    context = server_context(world.server)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with blocking_tls_server(context) as port:
        reason = asyncio.run(refusal(world, f"https://127.0.0.1:{port}/", world.trust))
    assert reason == "TLS alert: protocol version"


async def test_a_plain_server_behind_an_https_url_is_told_apart(world: World) -> None:
    async def answer_anything(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_server(answer_anything) as peer:
        reason = await refusal(world, f"https://127.0.0.1:{peer.port}/", world.trust)
    assert reason == "the server does not speak TLS on this port"


async def test_alpn_names_http_1_1(world: World) -> None:
    chosen: list[str | None] = []

    async def note(request: web.Request) -> web.Response:
        assert request.transport is not None
        chosen.append(request.transport.get_extra_info("ssl_object").selected_alpn_protocol())
        return web.Response()

    context = world.context
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with web_server(note, context) as peer:
        await fetch(world, peer.url(), world.trust)
    assert chosen == ["http/1.1"]


def test_one_context_serves_each_trust_set_and_kind_of_identity(world: World) -> None:
    contexts = TlsContexts()
    trust, equal = world.trust, TrustSet().with_roots(world.ca.certificate)
    one, two = world.device("one"), world.device("two")
    shared = contexts.for_connection(trust, one).context
    assert contexts.for_connection(equal, two).context is shared
    assert contexts.for_connection(trust, None).context is not shared
    assert contexts.for_connection(TrustSet(), one).context is not shared


def test_contexts_are_bounded() -> None:
    contexts = TlsContexts()
    first = contexts.for_connection(TrustSet(), None).context
    # What the roots are does not matter here, only that the sets differ.
    world = make_world()
    certificates = [world.device(f"root {n}").certificate for n in range(MAX_CONTEXTS)]
    for certificate in certificates:
        contexts.for_connection(TrustSet().with_roots(certificate), None)
    assert contexts.for_connection(TrustSet(), None).context is not first


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", "TLS alert: unknown CA"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "TLS alert: bad certificate"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLS alert: certificate required"),
        ("WRONG_VERSION_NUMBER", "the server does not speak TLS on this port"),
        ("UNEXPECTED_EOF_WHILE_READING", "TLS: unexpected eof while reading"),
    ],
)
def test_openssl_words_become_readable(reason: str, words: str) -> None:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    assert tls_reason(error) == words
