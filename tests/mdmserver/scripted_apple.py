"""An assignment API that says what a test tells it to, over real sockets, and remembers what it was asked and when."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web
from cryptography import x509

from certs import cms
from certs.clock import SimulatedClock
from certs.faults import FaultPoint, no_faults
from emulator.http import HttpDoor, TrustSet
from mdmserver.app import MdmServer
from mdmserver.settings import Settings

ACCOUNT: dict[str, Any] = {
    "server_name": "Production",
    "server_uuid": "F6E1E81A93837E1E87D6F4D99E235117",
    "admin_id": "admin@example.com",
    "org_name": "Example Inc",
    "org_id": "12345",
}


@dataclass(frozen=True)
class Asked:
    """One request."""

    at: datetime
    call: str  # such as "POST /server/devices"
    body: Any
    headers: dict[str, str]  # by lower-case names


@dataclass(frozen=True)
class Say:
    """One answer."""

    content: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class ScriptedApple:
    """What is scripted for a call is said once, in order; after that the honest answer of an empty account."""

    clock: SimulatedClock
    url: str = ""
    scripts: dict[str, list[Say]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    sessions: int = 0
    honest: dict[str, Callable[[Any], Any]] = field(default_factory=dict)

    def say(self, call: str, *answers: Say) -> None:
        self.scripts.setdefault(call, []).extend(answers)

    def calls(self, *, without: tuple[str, ...] = ("GET /session", "GET /account")) -> list[str]:
        return [asked.call for asked in self.asked if asked.call not in without]

    async def handle(self, request: web.Request) -> web.Response:
        call = f"{request.method} {request.path}"
        text = await request.text()
        body = json.loads(text) if text else None
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(self.clock.now(), call, body, headers))
        script = self.scripts.get(call)
        said = script.pop(0) if script else Say(self._honestly(call, body))
        content = said.content
        text = content if isinstance(content, str) else json.dumps(content)
        return web.Response(
            text=text, status=said.status, headers=said.headers, content_type="application/json"
        )

    def _honestly(self, call: str, body: Any) -> Any:
        if call in self.honest:
            return self.honest[call](body)
        match call:
            case "GET /session":
                self.sessions += 1
                return {"auth_session_token": f"SESSION{self.sessions}"}
            case "GET /account":
                return ACCOUNT
            case "POST /server/devices":
                return page("full-end")
            case "POST /devices/sync":
                return page(f"delta-{len(self.asked)}")
            case "POST /profile":
                return {"profile_uuid": f"{len(self.asked):032X}", "devices": {}}
            case "POST /profile/devices" | "DELETE /profile/devices" | "POST /devices/disown":
                return {"devices": dict.fromkeys(body["devices"], "SUCCESS")}
        raise AssertionError(call)


def page(cursor: str, *devices: dict[str, Any], more: bool = False) -> dict[str, Any]:
    return {
        "devices": list(devices),
        "cursor": cursor,
        "more_to_follow": more,
        "fetched_until": "2026-01-01T00:00:00Z",
    }


def device(serial: str, **facts: Any) -> dict[str, Any]:
    return {
        "serial_number": serial,
        "model": "iPhone 15",
        "profile_status": "empty",
        **facts,
    }


def operation(serial: str, op_type: str, op_date: str, **facts: Any) -> dict[str, Any]:
    return device(serial, op_type=op_type, op_date=op_date, **facts)


@dataclass
class Desk:
    """An administrator at a server whose Apple side is scripted."""

    clock: SimulatedClock
    server: MdmServer
    apple: ScriptedApple

    async def call(
        self, method: str, path: str, content: Any = None, *, expect: int | None = 200
    ) -> Any:
        """JSON (or bytes as they are) to the management API; the answer's JSON, or bytes where it is none."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Authorization": f"Bearer {self.server.token}"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        door = HttpDoor(clock=self.clock)
        async with door.session(trust=TrustSet()) as session:
            answer = await session.request(
                method,
                self.server.admin_url + path,
                step="admin",
                headers=headers,
                body=b"" if content is None else body,
            )
        if expect is not None:
            assert answer.status == expect, answer.body
        if answer.content_type != "application/json":
            return answer.body
        return json.loads(answer.body)

    async def new_key(self, **fields: Any) -> tuple[str, x509.Certificate]:
        key = await self.call("POST", "/v1/token-keys", {"consent": True, **fields}, expect=201)
        key_id: str = key["key_id"]
        pem = await self.call("GET", f"/v1/token-keys/{key_id}/certificate.pem")
        return key_id, x509.load_pem_x509_certificate(pem)

    def token_file(self, certificate: x509.Certificate, **changes: Any) -> bytes:
        """What the portal would hand out: S/MIME around JSON around four secrets."""
        fields = {
            "consumer_key": "CK_1",
            "consumer_secret": "CS_1",
            "access_token": "AT_1",
            "access_secret": "AS_1",
            "access_token_expiry": f"{self.clock.now() + timedelta(days=365):%FT%TZ}",
            **changes,
        }
        return token_file(fields, certificate)

    async def token(self, **changes: Any) -> str:
        """The whole wizard; the first sync is over when this returns."""
        key_id, certificate = await self.new_key()
        token = await self.call(
            "POST",
            f"/v1/token-keys/{key_id}/token?name=Production&apple_id=admin@example.com",
            self.token_file(certificate, **changes),
            expect=201,
        )
        token_id: str = token["token_id"]
        await self.settled()
        return token_id

    async def settled(self) -> None:
        """Until nothing happens any more that does not wait for time."""
        await self.clock.advance(0)

    async def shown(self, token_id: str) -> Any:
        return await self.call("GET", f"/v1/tokens/{token_id}")

    async def syncs(self, token_id: str) -> list[tuple[str, str, str]]:
        """Kind, state and trigger of each sync, the first one first."""
        syncs = (await self.call("GET", f"/v1/tokens/{token_id}/syncs"))["syncs"]
        return [(sync["kind"], sync["state"], sync["trigger"]) for sync in reversed(syncs)]

    async def listing(self, token_id: str) -> dict[str, str]:
        devices = (await self.call("GET", f"/v1/tokens/{token_id}/devices"))["devices"]
        return {device["serial"]: device["state"] for device in devices}

    async def sync_now(self, token_id: str, kind: str | None = None) -> Any:
        """An admin's sync, to its end."""
        started = await self.call(
            "POST", f"/v1/tokens/{token_id}/sync", {"kind": kind} if kind else {}, expect=202
        )
        await self.settled()
        return started


def token_file(fields: dict[str, Any], certificate: x509.Certificate) -> bytes:
    inner = (
        "Content-Type: text/plain;charset=UTF-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
        f"-----BEGIN MESSAGE-----\n{json.dumps(fields)}\n-----END MESSAGE-----\n"
    )
    header = (
        'Content-Type: application/pkcs7-mime; name="smime.p7m"; smime-type=enveloped-data\n'
        "Content-Transfer-Encoding: base64\n"
        'Content-Disposition: attachment; filename="smime.p7m"\n'
        "Content-Description: S/MIME Encrypted Message\n\n"
    )
    return header.encode() + base64.encodebytes(cms.encrypt(inner.encode(), [certificate]))


async def create(d: Desk, key_id: str, body: bytes, *, expect: int) -> Any:
    return await d.call("POST", f"/v1/token-keys/{key_id}/token", body, expect=expect)


async def renew(d: Desk, token: str, body: bytes, *, expect: int = 200, query: str = "") -> Any:
    return await d.call("PUT", f"/v1/tokens/{token}/token{query}", body, expect=expect)


async def renewable(d: Desk, **changes: str) -> tuple[str, Any]:
    """A token of two days ago, and the certificate that its next file is encrypted to."""
    key_id, certificate = await d.new_key()
    created = await create(d, key_id, d.token_file(certificate, **changes), expect=201)
    await d.settled()
    await d.clock.advance(2 * 86400)
    return created["token_id"], certificate


@asynccontextmanager
async def desk(
    *,
    clock: SimulatedClock | None = None,
    apple: ScriptedApple | None = None,
    state: Any = None,
    faults: FaultPoint = no_faults,
    **settings: Any,
) -> AsyncIterator[Desk]:
    """A server whose assignment API is scripted."""
    clock = clock or SimulatedClock()
    apple = apple or ScriptedApple(clock)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", apple.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    apple.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        server = MdmServer(
            Settings(assignment_url=apple.url, **settings), state=state, clock=clock, faults=faults
        )
        async with server:
            yield Desk(clock, server, apple)
    finally:
        await runner.cleanup()
