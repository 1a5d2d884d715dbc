"""An MDM server as the device assignment API sees it: a token from the portal, a session, and JSON."""

import io
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from oauthlib.oauth1 import Client as Signer

from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.identity import Identity
from certs.tls import client_context
from emulator.apple.app import AppleServices
from emulator.apple.portal import Portal
from emulator.apple.records import DeviceRecord
from emulator.wire import token as wire
from emulator.wire.assignment import CONTENT_TYPE, SESSION, VERSION
from emulator.wire.token import ServerToken
from tests.emulator.apple.support import Client, Reply, pki
from tests.support import rsa_key

Started = Callable[..., AbstractAsyncContextManager["Ade"]]  # with settings of the test's own
URL = "https://mdm.example.com/enroll"
AGENT = "mdm-test/1"
SERVER_UUID = "F6E1E81A93837E1E87D6F4D99E235117"
OTHER_UUID = "00112233445566778899AABBCCDDEEFF"


def portal(*serials: str, **organization: Any) -> Portal:
    """Two servers of one organization; the first has these devices."""
    servers = [
        {"name": "Production", "uuid": SERVER_UUID, "devices": list(serials)},
        {"name": "Test", "uuid": OTHER_UUID},
    ]
    facts = {"name": "Example Inc", "email": "it@example.com", "servers": servers}
    return Portal.from_content({"organizations": [{**facts, **organization}]})


@cache
def key_pair() -> Identity:
    """What an MDM server makes for its token file: RSA-2048, self-signed."""
    authority = CertificateAuthority.create(
        "depserver", key=rsa_key(4), clock=SimulatedClock(), lifetime_days=2
    )
    return authority.identity


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


@dataclass
class Ade:
    """One server; `token` and `session` may be changed by a test."""

    client: Client
    clock: SimulatedClock
    token: ServerToken
    session: str = ""
    version: int | None = 10
    agent: str = AGENT
    nonces: int = 0
    adopted: list[str] = field(default_factory=list)  # session tokens that answers brought

    @property
    def services(self) -> AppleServices:
        return self.client.services

    def authorization(self, *, url: str = "", **changes: Any) -> str:
        """The Authorization header of `GET /session`."""
        self.nonces += 1
        facts: dict[str, Any] = {
            "client_key": self.token.consumer_key,
            "client_secret": self.token.consumer_secret,
            "resource_owner_key": self.token.access_token,
            "resource_owner_secret": self.token.access_secret,
            "nonce": f"nonce{id(self)}x{self.nonces}",
            "timestamp": str(int(self.clock.now().timestamp())),
            **changes,
        }
        _, headers, _ = Signer(**facts).sign((url or self.services.url) + "/session")
        return str(headers["Authorization"])

    async def sign_in(self, authorization: str = "", **headers: str) -> Reply:
        sent = {"Authorization": authorization or self.authorization(), **headers}
        reply = await self.send("GET", "/session", headers=sent)
        if reply.status == 200:
            self.session = reply.json()["auth_session_token"]
        return reply

    async def ask(self, method: str, path: str, content: Any = None, **headers: str) -> Reply:
        """A request under the session, which is begun where there is none."""
        if not self.session:
            answer = await self.sign_in()
            assert answer.status == 200, answer.body
        reply = await self.send(
            method,
            path,
            b"" if content is None else json.dumps(content).encode(),
            headers={SESSION: self.session, **headers},
        )
        if SESSION in reply.headers:
            self.adopted.append(reply.headers[SESSION])
        return reply

    async def send(
        self, method: str, path: str, body: bytes = b"", *, headers: dict[str, str]
    ) -> Reply:
        sent = {"User-Agent": self.agent, "Content-Type": CONTENT_TYPE, **headers}
        if self.version is not None:
            sent.setdefault(VERSION, str(self.version))
        return await self.client._request(
            method,
            self.services.url + path,
            data=io.BytesIO(body) if body else None,
            headers=sent,
            ssl=client_context([pki().tls_ca.certificate]),
        )

    # ---- what servers do every day ----

    async def fetch(self, cursor: str | None = None, limit: int | None = None) -> Any:
        """One page; asserts that it came."""
        return good(await self.ask("POST", "/server/devices", page_request(cursor, limit)))

    async def sync(self, cursor: str | None, limit: int | None = None) -> Any:
        return good(await self.ask("POST", "/devices/sync", page_request(cursor, limit)))

    async def caught_up(self) -> str:
        """The cursor of a finished fetch."""
        page = await self.fetch(limit=1000)
        assert page["more_to_follow"] is False
        return str(page["cursor"])

    async def told_since(self, cursor: str) -> list[tuple[str, str]]:
        """Serial number and op_type of everything that a sync tells."""
        page = await self.sync(cursor)
        return [(device["serial_number"], device["op_type"]) for device in page["devices"]]

    async def define(self, *serials: str, **keys: Any) -> str:
        content = {"profile_name": "P", "url": URL, "devices": list(serials), **keys}
        return str(good(await self.ask("POST", "/profile", content))["profile_uuid"])

    async def results(self, method: str, path: str, **content: Any) -> dict[str, str]:
        devices = good(await self.ask(method, path, content))["devices"]
        assert isinstance(devices, dict)
        return devices

    def record(self, serial: str) -> DeviceRecord:
        record = self.services.registry.get(serial)
        assert record is not None
        return record

    async def assign_in_portal(
        self, *serials: str, server: str | None = "Production", **more: Any
    ) -> None:
        content = {"organization": "Example Inc", "server": server, "serials": serials, **more}
        reply = await admin(self.client, "POST", "/portal/devices", content)
        assert reply.status == 200, reply.body


async def admin(client: Client, method: str, path: str, content: Any = None) -> Reply:
    body = b"" if content is None else json.dumps(content).encode()
    return await client.admin(method, path, body, headers={"Content-Type": "application/json"})


async def issued(client: Client, uuid: str = SERVER_UUID, **options: Any) -> ServerToken:
    """A fresh token of a server, without a file around it."""
    content = {"format": "json", **options}
    reply = await admin(client, "POST", f"/portal/servers/{uuid}/token", content)
    assert reply.status == 200, reply.body
    return wire.decode(reply.body)


async def signed_up(client: Client, clock: SimulatedClock, uuid: str = SERVER_UUID) -> Ade:
    return Ade(client, clock, await issued(client, uuid))


def page_request(cursor: str | None, limit: int | None) -> dict[str, Any]:
    return {
        **({} if cursor is None else {"cursor": cursor}),
        **({} if limit is None else {"limit": limit}),
    }


def good(reply: Reply) -> Any:
    assert reply.status == 200, reply.refusal
    assert reply.content_type == CONTENT_TYPE
    return reply.json()


def serials(page: Any) -> list[str]:
    return [device["serial_number"] for device in page["devices"]]
