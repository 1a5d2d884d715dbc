"""The CONNECT proxy: Apple's names lead to the stand-ins, everything else is refused, and its CA can do no harm."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from certs.ca import SERVER_AUTH, CertificateAuthority
from certs.clock import SimulatedClock, SystemClock
from certs.identity import Identity
from certs.keys import generate
from certs.tls import client_context, server_context
from emulator.apple.app import AppleServices
from emulator.apple.proxy import NAMES, PUSH_NAMES, SERVICE_NAMES, ConnectProxy, _relay
from emulator.apple.proxy_authority import KEY_FILE, PUBLIC_FILE, ProxyAuthority
from emulator.errors import ConfigurationError
from tests.emulator.apple.push_support import GUARD_S, TOPIC, push_identity
from tests.emulator.apple.support import pki
from tests.support import openssl


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


@asynccontextmanager
async def proxied(folder: Path | None = None) -> AsyncIterator[AppleServices]:
    async with AppleServices(
        pki=pki(), clock=SystemClock(), proxy_port=0, proxy_folder=folder
    ) as services:
        yield services


async def ask(services: AppleServices, request: bytes) -> tuple[int, str]:
    """Raw bytes to the proxy; status and head of its answer."""
    assert services.proxy is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", services.proxy.port)
    writer.write(request)
    async with asyncio.timeout(GUARD_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), head


async def test_the_proxy_leads_apples_services_to_the_stand_ins() -> None:
    async with proxied() as services, aiohttp.ClientSession() as http:
        assert services.proxy is not None
        assert services.proxy_authority is not None
        trust = client_context([services.proxy_authority.certificate])
        for name in SERVICE_NAMES:
            async with http.get(
                f"https://{name}/nothing", proxy=services.proxy.url, ssl=trust
            ) as response:
                assert response.status == 404
        assert services.proxy.connected == len(SERVICE_NAMES)


@pytest.mark.parametrize("port", [443, 2197])
@pytest.mark.parametrize("name", PUSH_NAMES)
async def test_the_stand_in_shows_a_certificate_for_the_name_that_was_asked(
    name: str, port: int
) -> None:
    async with proxied() as services:
        assert services.proxy is not None
        assert services.proxy_authority is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", services.proxy.port)
        writer.write(f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        context = client_context([services.proxy_authority.certificate], push_identity(TOPIC))
        context.set_alpn_protocols(["h2"])
        await writer.start_tls(context, server_hostname=name)
        tls = writer.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "h2"
        shown = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == list(NAMES)
        writer.close()


async def test_without_apples_names_the_stand_ins_show_their_own_certificate() -> None:
    async with proxied() as services, aiohttp.ClientSession() as http:
        own = client_context([services.pki.tls_ca.certificate])
        async with http.get(services.url + "/nothing", ssl=own) as response:
            assert response.status == 404


@pytest.mark.parametrize(
    "target",
    [
        "gdmf.apple.com:443",
        "apple.com:443",
        "api.push.apple.com:80",
        "mdmenrollment.apple.com:2197",
        "api.push.apple.com.evil.example:443",
        "localhost:22",
        "127.0.0.1:22",
        "[::1]:443",
        "example.com:443",
    ],
)
async def test_every_other_host_is_refused(target: str) -> None:
    async with proxied() as services:
        status, _ = await ask(services, f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
        assert status == 403
        assert services.proxy is not None
        assert (services.proxy.connected, services.proxy.refused) == (0, 1)


async def test_a_name_is_a_name_however_it_is_written() -> None:
    async with proxied() as services:
        status, _ = await ask(services, b"CONNECT API.push.Apple.com.:443 HTTP/1.1\r\n\r\n")
        assert status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 405),
        (b"CONNECT api.push.apple.com HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT api.push.apple.com:443:1 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT a b HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\r\n\r\n", 400),
        (b"CONNECT api.push.apple.com:443 HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
    ],
)
async def test_what_is_no_connect_is_told_so(request_bytes: bytes, status: int) -> None:
    async with proxied() as services:
        answered, head = await ask(services, request_bytes)
        assert answered == status
        assert ("Allow: CONNECT" in head) == (status == 405)


async def test_a_stand_in_that_is_not_there_is_a_bad_gateway() -> None:
    async with ConnectProxy({("api.push.apple.com", 443): ("127.0.0.1", 1)}) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"CONNECT api.push.apple.com:443 HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 502")
        writer.close()


def test_no_route_leaves_loopback() -> None:
    with pytest.raises(ConfigurationError, match="192.0.2.1:443 is not loopback"):
        ConnectProxy({("api.push.apple.com", 443): ("192.0.2.1", 443)})


async def test_without_the_proxy_no_certificate_has_apples_names() -> None:
    async with AppleServices(pki=pki(), clock=SystemClock()) as services:
        assert services.proxy is None
        context = client_context([services.pki.tls_ca.certificate])
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                "127.0.0.1",
                services.push.port,
                ssl=context,
                server_hostname="api.push.apple.com",
            )


# --- the CA


def test_the_ca_is_short_lived_and_its_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    clock = SimulatedClock()
    authority = ProxyAuthority.open(tmp_path, NAMES, clock)
    certificate = authority.certificate
    assert certificate.not_valid_after_utc - clock.now() == timedelta(days=30)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in (tmp_path / PUBLIC_FILE).read_bytes()
    again = ProxyAuthority.open(tmp_path, NAMES, clock)
    assert again.certificate == certificate
    leaf = authority.identity().certificate
    assert leaf.not_valid_after_utc <= certificate.not_valid_after_utc


async def test_the_ca_is_renewed_before_it_ends_and_for_other_names(tmp_path: Path) -> None:
    clock = SimulatedClock()
    first = ProxyAuthority.open(tmp_path, NAMES, clock).certificate
    assert ProxyAuthority.open(tmp_path, NAMES[:2], clock).certificate != first
    second = ProxyAuthority.open(tmp_path, NAMES, clock).certificate
    await clock.advance(29 * 86400)
    assert ProxyAuthority.open(tmp_path, NAMES, clock).certificate != second


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"nonsense")
    authority = ProxyAuthority.open(tmp_path, NAMES, SimulatedClock())
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert authority.pem().startswith("-----BEGIN CERTIFICATE-----")


def _forged(authority: ProxyAuthority, name: x509.GeneralName, clock: SystemClock) -> Identity:
    """What a thief of the key could sign."""
    signer = CertificateAuthority(authority._authority.identity, clock=clock)
    key = generate("p256")
    return signer.issue_identity(
        key,
        x509.Name([]),
        days=1,
        extended_key_usage=(SERVER_AUTH,),
        alternative_names=[name],
    )


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("api.push.apple.com", True), ("example.com", False), ("icloud.com", False)],
)
async def test_the_ca_can_sign_nothing_but_the_mapped_names(host: str, allowed: bool) -> None:
    clock = SystemClock()
    authority = ProxyAuthority.open(None, NAMES, clock)
    forged = _forged(authority, x509.DNSName(host), clock)
    server = await asyncio.start_server(
        lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=server_context(forged)
    )
    context = client_context([authority.certificate])
    port = server.sockets[0].getsockname()[1]

    async def connect() -> None:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=host
        )
        writer.close()

    if allowed:
        await connect()
    else:
        with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
            await connect()
    server.close()


@pytest.mark.peer
def test_openssl_sees_the_same_constraints(tmp_path: Path) -> None:
    authority = ProxyAuthority.open(tmp_path, NAMES, SystemClock())
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(authority.identity().to_pem())
    ca = str(tmp_path / PUBLIC_FILE)
    assert b"OK" in openssl("verify", "-CAfile", ca, str(leaf))
    text = openssl("x509", "-in", ca, "-noout", "-text").decode()
    assert "X509v3 Name Constraints: critical" in text
    assert "DNS:api.push.apple.com" in text
    assert "IP:0.0.0.0/0.0.0.0" in text
    assert "CA:TRUE, pathlen:0" in text


@pytest.mark.parametrize("rest", [b"what the other side still says", b""], ids=["data", "end"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_side_that_is_gone_ends_its_half_of_the_tunnel_quietly(loop: str, rest: bytes) -> None:
    factory = None if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    async def relay_to_nobody() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with listener:
            _, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
            writer.close()
            await writer.wait_closed()
            reader = asyncio.StreamReader()
            reader.feed_data(rest)
            reader.feed_eof()
            await _relay(reader, writer)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(relay_to_nobody(), GUARD_S))


async def test_a_side_that_resets_as_the_other_ends_is_no_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, writer = await asyncio.open_connection(*listener.getsockname())
        far, _ = listener.accept()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()  # a reset, which the transport cannot have read yet
        reader = asyncio.StreamReader()
        reader.feed_eof()
        await _relay(reader, writer)
        writer.close()
