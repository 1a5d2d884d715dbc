"""A CA, an attestation authority, known devices, a TLS server on a free port, and the Transport to reach it."""

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs import csr
from certs.acme.client import AcmeClient
from certs.acme.device_attest import freshness, response
from certs.acme.jws import base64url, encode_json, sign
from certs.acme.server import AcmeServer
from certs.attestation import AttestationAuthority
from certs.authorize import Grant, KnownDevices
from certs.ca import CertificateAuthority, issue_server_identity
from certs.clock import SimulatedClock
from certs.errors import TransportError
from certs.faults import FaultPoint, no_faults
from certs.keys import FreshKeys, PrivateKey, generate
from certs.tls import client_context, server_context
from certs.transport import HttpResponse

SERIAL = "SIM0000001"
UDID = "00008120-000000000000001E"
CODE = "one-time-code-1"


@dataclass
class SocketTransport:
    """One connection pool of aiohttp's; counts the steps and may change what is sent or received."""

    context: ssl.SSLContext
    steps: list[str] = field(default_factory=list)
    sent: list[tuple[str, str, bytes]] = field(default_factory=list)
    change_request: Callable[[str, dict[str, str], bytes], tuple[dict[str, str], bytes]] | None = (
        None
    )
    change_response: Callable[[str, HttpResponse], HttpResponse] | None = None
    session: aiohttp.ClientSession | None = None

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
        if self.session is None:
            self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))
        named = dict(headers or {})
        if self.change_request is not None:
            named, body = self.change_request(step, named, body)
        self.steps.append(step)
        self.sent.append((method, url, body))
        try:
            async with self.session.request(
                method, url, headers=named, data=body or None, ssl=self.context
            ) as answer:
                received = HttpResponse(
                    status=answer.status,
                    body=await answer.read(),
                    headers={
                        name.lower(): ", ".join(answer.headers.getall(name))
                        for name in answer.headers
                    },
                    url=str(answer.url),
                )
        except aiohttp.ClientError as error:
            raise TransportError(url, str(error)) from error
        return self.change_response(step, received) if self.change_response else received

    async def close(self) -> None:
        if self.session is not None:
            await self.session.close()


@dataclass
class World:
    """Everything an enrollment needs; tests bend one piece at a time."""

    clock: SimulatedClock
    ca: CertificateAuthority
    authority: AttestationAuthority
    devices: KnownDevices
    server: AcmeServer
    transport: SocketTransport
    base: str

    @property
    def directory(self) -> str:
        return f"{self.base}/acme/directory"

    def client(self, faults: FaultPoint = no_faults, **settings: Any) -> AcmeClient:
        settings.setdefault("clock", self.clock)
        return AcmeClient(
            self.transport, self.directory, keys=FreshKeys(), faults=faults, **settings
        )

    def attest(
        self, key: PrivateKey, *, authority: AttestationAuthority | None = None, **changed: Any
    ) -> Callable[[bytes], Awaitable[Sequence[bytes]]]:
        """What an honest device's attestation service does, or with something changed."""

        async def ask(freshness: bytes) -> Sequence[bytes]:
            facts: dict[str, Any] = {
                "serial_number": SERIAL,
                "udid": UDID,
                "freshness": freshness,
                "os_version": "18.5",
            }
            chain = (authority or self.authority).issue(key.public_key(), **{**facts, **changed})
            return [certificate.public_bytes(Encoding.DER) for certificate in chain]

        return ask

    async def enroll(self, key: PrivateKey, **changed: Any) -> tuple[x509.Certificate, ...]:
        return await self.client().enroll(
            csr.build(key, name(SERIAL)),
            identifier=changed.pop("identifier", SERIAL),
            attest=self.attest(key, **changed),
        )


@dataclass
class RawClient:
    """Signs whatever a test wants said, with one account; each answer is an aiohttp response already read."""

    world: World
    key: PrivateKey = field(default_factory=lambda: generate("p256"))
    kid: str | None = None

    async def get(self, method: str, path: str, **headers: str) -> HttpResponse:
        return await self.world.transport.request(
            method, f"{self.world.base}/acme/{path}", step=path, headers=headers
        )

    async def nonce(self) -> str:
        response = await self.get("HEAD", "new-nonce")
        return response.headers["replay-nonce"]

    async def post(
        self,
        path: str,
        payload: Any,
        *,
        key: PrivateKey | None = None,
        with_jwk: bool = False,
        nonce: str | None = None,
        signed_url: str | None = None,
        content_type: str = "application/jose+json",
        body: bytes | None = None,
    ) -> HttpResponse:
        """`payload` None is POST-as-GET, bytes go as they are; a whole URL may stand for the path."""
        url = path if "://" in path else f"{self.world.base}/acme/{path}"
        content = b"" if payload is None else payload
        message = sign(
            key or self.key,
            content if isinstance(content, bytes) else encode_json(content),
            url=signed_url or url,
            nonce=nonce or await self.nonce(),
            kid=None if with_jwk else self.kid,
        )
        return await self.world.transport.request(
            "POST",
            url,
            step=path,
            headers={"Content-Type": content_type},
            body=message if body is None else body,
        )

    async def register(self) -> "RawClient":
        response = await self.post("new-account", {"termsOfServiceAgreed": True}, with_jwk=True)
        assert response.status in (200, 201), response.body
        self.kid = response.headers["location"]
        return self

    async def order(self, identifier: str = SERIAL) -> "RawOrder":
        wanted = {"identifiers": [{"type": "permanent-identifier", "value": identifier}]}
        response = await self.post("new-order", wanted)
        assert response.status == 201, response.body
        order = json.loads(response.body)
        authorization = json.loads((await self.post(order["authorizations"][0], None)).body)
        (challenge,) = authorization["challenges"]
        return RawOrder(
            self,
            response.headers["location"],
            order["authorizations"][0],
            challenge["url"],
            challenge["token"],
            order["finalize"],
        )


@dataclass
class RawOrder:
    """The URLs of one order, and what can be asked of it."""

    client: RawClient
    url: str
    authorization: str
    challenge: str
    token: str
    finalize_url: str

    async def answer(self, payload: Any) -> HttpResponse:
        return await self.client.post(self.challenge, payload)

    async def attested(self, key: PrivateKey, **changed: Any) -> HttpResponse:
        chain = await self.client.world.attest(key, **changed)(freshness(self.token))
        return await self.answer(response(chain))

    async def finalize(self, request: bytes) -> HttpResponse:
        return await self.client.post(self.finalize_url, {"csr": base64url(request)})

    async def states(self) -> tuple[str, str, str]:
        """Of the order, the authorization and the challenge."""
        order = json.loads((await self.client.post(self.url, None)).body)
        authorization = json.loads((await self.client.post(self.authorization, None)).body)
        return order["status"], authorization["status"], authorization["challenges"][0]["status"]


def problem_of(response: HttpResponse) -> tuple[int, str, str]:
    """Status, type and detail, once it is certain that the answer is a complete problem document."""
    assert response.content_type == "application/problem+json", response.body
    fields = json.loads(response.body)
    assert fields["status"] == response.status
    assert response.header("replay-nonce")
    assert 'rel="index"' in (response.header("link") or "")
    prefix, _, type_ = fields["type"].rpartition(":")
    assert prefix == "urn:ietf:params:acme:error"
    return response.status, type_, fields["detail"]


def fields(response: HttpResponse) -> dict[str, Any]:
    """The members of an answer that is no problem."""
    assert response.content_type == "application/json", response.body
    value: dict[str, Any] = json.loads(response.body)
    return value


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@asynccontextmanager
async def open_world(**settings: Any) -> AsyncIterator[World]:
    """A world on 127.0.0.1; `settings` go to AcmeServer."""
    clock = settings.pop("clock", None) or SimulatedClock()
    tls_ca = CertificateAuthority.create("Test TLS CA", clock=clock)
    ca = settings.pop("ca", None) or CertificateAuthority.create("Test Device CA", clock=clock)
    authority = AttestationAuthority.create(clock)
    grant = Grant(reference="device 1", serial_number=SERIAL, udid=UDID)
    devices = settings.pop("devices", None) or KnownDevices(
        {SERIAL: grant, UDID: grant, CODE: grant}
    )
    roots = settings.pop("attestation_roots", [authority.root])
    server = AcmeServer(ca, devices, attestation_roots=roots, clock=clock, **settings)
    app = web.Application()
    server.add_routes(app)
    runner = web.AppRunner(app)
    await runner.setup()
    identity = issue_server_identity(tls_ca, ["127.0.0.1", "localhost"], generate("p256"))
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(identity))
    await site.start()
    port = runner.addresses[0][1]
    transport = SocketTransport(client_context([tls_ca.certificate]))
    try:
        yield World(clock, ca, authority, devices, server, transport, f"https://127.0.0.1:{port}")
    finally:
        await transport.close()
        await runner.cleanup()
