"""Our ACME client at pebble, which refuses one nonce in five, decides late and wants its answers polled (certificates.md 4.4)."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import csr, names
from certs.acme.client import AcmeClient
from certs.acme.inner_jws import ExternalAccount
from certs.acme.jws import base64url
from certs.ca import CertificateAuthority, issue_server_identity
from certs.clock import SystemClock
from certs.errors import AcmeProblem
from certs.keys import FreshKeys, KeySpec, generate, spki_der, to_pem
from certs.tls import client_context
from certs.transport import HttpResponse
from tests.certs.acme.world import SocketTransport
from tests.peers.programs import free_ports, listening, needed
from tests.support import rsa_key

pytestmark = pytest.mark.peer

EXTERNAL = ExternalAccount("key-1", bytes(range(32)))
NAME = "localhost"


class HurriedClock(SystemClock):
    """Waits a twentieth of what it is told, and notes what that was."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await super().sleep(seconds / 20)


@dataclass
class Pebble:
    directory: str
    management: str
    transport: SocketTransport
    files: dict[str, str] = field(default_factory=dict)  # what the web server for http-01 shows
    clock: HurriedClock = field(default_factory=HurriedClock)

    async def publish(self, token: str, authorization: str) -> None:
        self.files[token] = authorization

    def client(self, **settings: Any) -> AcmeClient:
        # A fifth of the nonces is refused: five retries are not enough once in three thousand requests.
        return AcmeClient(
            self.transport,
            self.directory,
            clock=self.clock,
            keys=FreshKeys(),
            bad_nonce_retries=20,
            **settings,
        )

    async def root(self, number: int) -> x509.Certificate:
        """The first, or one of the alternate ones."""
        answer = await self.transport.request(
            "GET", f"{self.management}/roots/{number}", step="root"
        )
        return x509.load_pem_x509_certificate(answer.body)

    async def enroll(self, client: AcmeClient, key: Any) -> tuple[x509.Certificate, ...]:
        request = csr.build(key, x509.Name([]), alternative_names=[x509.DNSName(NAME)])
        return await client.enroll_names(request, names=[NAME], publish=self.publish)


@asynccontextmanager
async def pebble(
    folder: Path, *, alternate_roots: int = 0, **settings: Any
) -> AsyncIterator[Pebble]:
    """A fresh one whose validation really asks our web server."""
    program = needed("pebble")
    ca = CertificateAuthority.create("Pebble TLS CA", clock=SystemClock())
    identity = issue_server_identity(ca, ["127.0.0.1", "localhost"], generate("p256"))
    (folder / "tls.crt").write_bytes(identity.certificate.public_bytes(Encoding.PEM))
    (folder / "tls.key").write_bytes(to_pem(identity.key))
    port, management, tls_port = free_ports(3)
    files: dict[str, str] = {}
    async with _web_server(files) as http_port:
        config = {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": "tls.crt",
            "privateKey": "tls.key",
            "httpPort": http_port,
            "tlsPort": tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            **settings,
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
        transport = SocketTransport(client_context([ca.certificate]))
        async with listening(
            program,
            *("-config", "pebble.json"),
            port=port,
            folder=folder,
            PEBBLE_VA_NOSLEEP="1",
            PEBBLE_WFE_NONCEREJECT="20",
            PEBBLE_AUTHZREUSE="0",
            PEBBLE_ALTERNATE_ROOTS=str(alternate_roots),
        ):
            try:
                yield Pebble(
                    f"https://127.0.0.1:{port}/dir",
                    f"https://127.0.0.1:{management}",
                    transport,
                    files,
                )
            finally:
                await transport.close()


@asynccontextmanager
async def _web_server(files: dict[str, str]) -> AsyncIterator[int]:
    async def show(request: web.Request) -> web.Response:
        return web.Response(text=files[request.match_info["token"]])

    app = web.Application()
    app.router.add_get("/.well-known/acme-challenge/{token}", show)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_our_client_gets_certificates_again_and_again(tmp_path: Path) -> None:
    refused: list[str] = []

    def note(step: str, response: HttpResponse) -> HttpResponse:
        if response.status == 400 and b":badNonce" in response.body:
            refused.append(step)
        return response

    async with pebble(tmp_path) as server:
        server.transport.change_response = note
        client = server.client()
        for _ in range(8):
            key = generate("p256")
            leaf, *issuers = await server.enroll(client, key)
            assert spki_der(leaf.public_key()) == spki_der(key.public_key())  # type: ignore[arg-type]
            leaf.verify_directly_issued_by(issuers[0])
        steps = server.transport.steps
    assert refused  # one in five of more than fifty
    assert steps.count("certificate") == 8 + refused.count("certificate")
    assert steps.count("new_account") == 1 + refused.count("new_account")


@pytest.mark.parametrize("spec", ["p256", "p384", "p521", "rsa2048"])
async def test_an_account_key_of_each_kind_is_taken(tmp_path: Path, spec: KeySpec) -> None:
    key = rsa_key() if spec == "rsa2048" else generate(spec)
    async with pebble(tmp_path) as server:
        assert await server.enroll(server.client(account_key=key), rsa_key(1))


async def test_an_account_lives_its_whole_life(tmp_path: Path) -> None:
    async with pebble(tmp_path) as server:
        client, new = server.client(contact=["mailto:a@example.org"]), generate("p384")
        assert (await client.account()).contact == ("mailto:a@example.org",)
        changed = await client.update_contact(["mailto:b@example.org"])
        assert changed.contact == ("mailto:b@example.org",)
        await client.change_key(new)
        assert await server.enroll(client, generate("p256"))
        again = server.client(account_key=new)
        assert (await again.account()).contact == changed.contact
        assert (await client.deactivate()).status == "deactivated"
        with pytest.raises(AcmeProblem) as caught:
            await server.enroll(again, generate("p256"))
    assert caught.value.type == "unauthorized"


async def test_certificates_are_revoked_by_account_and_by_key(tmp_path: Path) -> None:
    async with pebble(tmp_path) as server:
        client, key = server.client(), generate("p256")
        first, second = [(await server.enroll(client, key))[0] for _ in range(2)]
        await client.revoke(first, reason=4)
        await client.revoke(second, reason=1, key=key)
        with pytest.raises(AcmeProblem) as caught:
            await client.revoke(first)
        assert caught.value.type == "alreadyRevoked"
        third = (await server.enroll(client, key))[0]
        with pytest.raises(AcmeProblem) as caught:
            await client.revoke(third, reason=7)
        assert caught.value.type == "badRevocationReason"


async def test_an_external_account_is_bound(tmp_path: Path) -> None:
    keys = {EXTERNAL.key_id: base64url(EXTERNAL.mac_key)}
    settings: dict[str, Any] = {
        "externalAccountBindingRequired": True,
        "externalAccountMACKeys": keys,
    }
    async with pebble(tmp_path, **settings) as server:
        assert await server.enroll(server.client(external=EXTERNAL), generate("p256"))
        for external in None, ExternalAccount("key-1", bytes(32)):
            with pytest.raises(AcmeProblem) as caught:
                await server.client(external=external).account()
            assert caught.value.type in ("externalAccountRequired", "unauthorized")


async def test_orders_are_listed(tmp_path: Path) -> None:
    async with pebble(tmp_path) as server:
        client = server.client()
        for _ in range(4):
            await server.enroll(client, generate("p256"))
        assert len(await client.orders()) == 4


async def test_the_chain_of_the_preferred_root_is_taken(tmp_path: Path) -> None:
    async with pebble(tmp_path, alternate_roots=2) as server:
        roots = [await server.root(number) for number in range(3)]
        for root in roots:
            client = server.client(preferred_issuer=names.common_name(root.subject))
            leaf, *issuers = await server.enroll(client, generate("p256"))
            leaf.verify_directly_issued_by(issuers[0])
            issuers[-1].verify_directly_issued_by(root)
        _, *usual = await server.enroll(server.client(preferred_issuer="Nobody"), generate("p256"))
        usual[-1].verify_directly_issued_by(roots[0])


async def test_a_name_that_is_not_shown_is_refused(tmp_path: Path) -> None:
    async def nothing(token: str, authorization: str) -> None:
        await asyncio.sleep(0)

    async with pebble(tmp_path) as server:
        request = csr.build(generate("p256"), x509.Name([]), alternative_names=[x509.DNSName(NAME)])
        with pytest.raises(AcmeProblem) as caught:
            await server.client().enroll_names(request, names=[NAME], publish=nothing)
    assert caught.value.type in ("unauthorized", "incorrectResponse")
