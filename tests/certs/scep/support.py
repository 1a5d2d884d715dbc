"""A SCEP server on a real socket, and the smallest Transport that can talk to it."""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from cryptography import x509
from yarl import URL

from certs import csr, names
from certs.authorize import ChallengeVerifier, Grant, StaticChallenge
from certs.ca import CertificateAuthority
from certs.clock import Clock, SimulatedClock
from certs.csr import CertificateRequest
from certs.errors import ChallengeRefused
from certs.identity import Identity
from certs.keys import KeySpec, PrivateKey
from certs.scep.client import ScepClient
from certs.scep.server import ScepServer
from certs.transport import HttpResponse
from tests.support import rsa_key

CHALLENGE = "s3cret, with spaces"


class CachedKeys:
    """A KeySource for tests: RSA keys that exist already, numbered from 50."""

    def __init__(self) -> None:
        self.taken = 50

    async def take(self, spec: KeySpec) -> PrivateKey:
        assert spec == "rsa2048"
        self.taken += 1
        return rsa_key(self.taken)


@dataclass
class SocketTransport:
    """HTTP by aiohttp's client; remembers what it sent, and may change what came."""

    session: aiohttp.ClientSession
    context: ssl.SSLContext | None = None
    sent: list[tuple[str, str, str, bytes]] = field(default_factory=list)  # method, URL, step, body
    answers: list[HttpResponse] = field(default_factory=list)

    async def request(
        self,
        method: str,
        url: str,
        *,
        step: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float | None = None,
    ) -> HttpResponse:
        self.sent.append((method, url, step, body))
        options: dict[str, Any] = {} if self.context is None else {"ssl": self.context}
        async with self.session.request(
            method,
            URL(url, encoded=True),
            headers=headers,
            data=io.BytesIO(body) if body else None,
            **options,
        ) as answer:
            response = HttpResponse(
                status=answer.status,
                body=await answer.read(),
                headers={name.lower(): value for name, value in answer.headers.items()},
                url=url,
            )
        self.answers.append(response)
        return response


@dataclass
class OneTimeChallenges:
    """Each password good for one certificate; a store that lets others run while it works."""

    unused: set[str]
    issued_to: list[x509.Certificate] = field(default_factory=list)

    async def verify(self, challenge: str | None, request: CertificateRequest) -> Grant:
        known = challenge in self.unused
        for _ in range(20):
            await asyncio.sleep(0)
        if challenge is None or not known:
            raise ChallengeRefused("the challenge password is wrong or was used")
        return Grant(reference=challenge)

    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        self.unused.discard(grant.reference)
        self.issued_to.append(certificate)


@dataclass
class Door:
    """One running server, and how to reach it."""

    ca: CertificateAuthority
    ra: Identity
    server: ScepServer
    challenges: Any
    clock: Clock
    url: str
    transport: SocketTransport

    def client(self, **settings: Any) -> ScepClient:
        url = settings.pop("url", self.url)
        transport = settings.pop("transport", self.transport)
        return ScepClient(transport, url, clock=self.clock, keys=CachedKeys(), **settings)


def certificate_authority(
    clock: Clock, *, with_ra: bool, parent: CertificateAuthority | None = None
) -> tuple[CertificateAuthority, Identity]:
    """An EC CA with an RSA RA, or an RSA CA that is its own recipient."""
    if not with_ra:
        ca = CertificateAuthority.create("SCEP CA", key=rsa_key(40), clock=clock)
        return ca, ca.identity
    ca = CertificateAuthority.create("SCEP CA", clock=clock, parent=parent)
    return ca, ca.issue_identity(
        rsa_key(41), names.from_subject([[["CN", "SCEP RA"]]]), extended_key_usage=()
    )


@asynccontextmanager
async def door(
    challenges: ChallengeVerifier | None = None,
    *,
    with_ra: bool = True,
    parent: CertificateAuthority | None = None,
    clock: Clock | None = None,
    context: ssl.SSLContext | None = None,
    client_context: ssl.SSLContext | None = None,
    **settings: Any,
) -> AsyncIterator[Door]:
    """A ScepServer on a free loopback port."""
    clock = clock or SimulatedClock()
    ca, ra = certificate_authority(clock, with_ra=with_ra, parent=parent)
    challenges = challenges or StaticChallenge(CHALLENGE)
    server = ScepServer(ca, ra, challenges, clock=clock, **settings)
    app = web.Application()
    server.add_routes(app)
    runner = web.AppRunner(app, max_line_size=32_768)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    scheme = "http" if context is None else "https"
    try:
        async with aiohttp.ClientSession() as session:
            yield Door(
                ca,
                ra,
                server,
                challenges,
                clock,
                f"{scheme}://127.0.0.1:{port}/scep",
                SocketTransport(session, client_context),
            )
    finally:
        await runner.cleanup()


def request_for(
    number: int, *, name: str | None = None, challenge: str | None = CHALLENGE, **wishes: Any
) -> bytes:
    """A PKCS#10 request for the cached key of that number."""
    subject = names.from_subject([[["O", "Test"]], [["CN", name or f"device {number}"]]])
    return csr.build(
        rsa_key(number),
        subject,
        challenge=challenge,
        key_usage=names.key_usage(5),
        alternative_names=names.alternative_names({"dNSName": f"device{number}.example.com"}),
        **wishes,
    )
