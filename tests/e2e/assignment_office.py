"""mdmserver at the device assignment stand-in over TLS, and an administrator of both."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certs.clock import SimulatedClock
from emulator.apple.app import AppleServices
from emulator.apple.assignment_settings import AssignmentSettings
from emulator.apple.portal import Portal
from emulator.http import HttpDoor, TrustSet
from mdmserver.app import MdmServer
from mdmserver.settings import Settings
from tests.emulator.apple.support import pki

ORGANIZATION = "Example Inc"
SERVER = "Production"
HOUR = 3600.0
DELTA = 12 * HOUR
DAY = 24 * HOUR


@dataclass(kw_only=True)
class Office:
    """An administrator with both windows open."""

    clock: SimulatedClock
    services: AppleServices
    server: MdmServer
    uuid: str = ""  # of the server, in the portal
    token: str = ""  # of the token, at the server
    profile: str = ""  # the default profile

    async def _call(
        self, url: str, bearer: str, method: str, path: str, content: Any, expect: int
    ) -> Any:
        headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        async with HttpDoor(clock=self.clock).session(trust=TrustSet()) as session:
            answer = await session.request(
                method,
                url + path,
                step="admin",
                headers=headers,
                body=b"" if content is None else body,
            )
        assert answer.status == expect, answer.body
        return json.loads(answer.body) if answer.content_type == "application/json" else answer.body

    async def portal(
        self, method: str, path: str, content: Any = None, *, expect: int = 200
    ) -> Any:
        services = self.services
        return await self._call(
            services.admin_url, services.token, method, f"/portal{path}", content, expect
        )

    async def ask(self, method: str, path: str, content: Any = None, *, expect: int = 200) -> Any:
        server = self.server
        return await self._call(
            server.admin_url, server.token, method, f"/v1{path}", content, expect
        )

    async def new_key(self, **fields: Any) -> tuple[str, str]:
        """A key pair of the server: its id, and its certificate for the portal."""
        key = await self.ask("POST", "/token-keys", {"consent": True, **fields}, expect=201)
        pem: bytes = await self.ask("GET", f"/token-keys/{key['key_id']}/certificate.pem")
        return key["key_id"], pem.decode()

    async def sign_up(self, *serials: str) -> None:
        """From nothing to a token whose first sync is over."""
        key, pem = await self.new_key()
        wanted = {"organization": ORGANIZATION, "name": SERVER, "certificate": pem}
        file = await self.portal("POST", "/servers", wanted, expect=201)
        (server,) = (await self.portal("GET", "/servers"))["servers"]
        self.uuid = server["uuid"]
        await self.own(*serials)
        answer = await self.ask("POST", f"/token-keys/{key}/token", file, expect=201)
        self.token = answer["token_id"]
        await self.settled()

    async def own(self, *serials: str) -> None:
        """The portal assigns these to the server."""
        wanted = {"organization": ORGANIZATION, "server": SERVER, "serials": serials}
        if serials:
            await self.portal("POST", "/devices", wanted)

    async def define(self, **fields: Any) -> Any:
        """A profile; `default=True` makes it the one that devices get by themselves."""
        answer = await self.ask("POST", f"/tokens/{self.token}/profiles", fields, expect=201)
        self.profile = answer["profile_uuid"]
        return answer

    async def settled(self) -> None:
        """Until nothing happens any more that does not wait for time."""
        await self.clock.advance(0)

    async def sync(self, kind: str | None = None) -> tuple[str, str, str | None]:
        """An administrator's sync, to its end: kind, state, error word."""
        await self.clock.advance(16 * 60)  # the least time between two of them
        wanted = {"kind": kind} if kind else {}
        await self.ask("POST", f"/tokens/{self.token}/sync", wanted, expect=202)
        await self.settled()
        return await self.latest()

    async def refused(self) -> str:
        """The word that ends a sync."""
        _, state, error = await self.sync()
        assert state == "failed"
        assert error is not None
        return error.rpartition(" ")[2]

    async def latest(self) -> tuple[str, str, str | None]:
        sync = (await self.ask("GET", f"/tokens/{self.token}/syncs"))["syncs"][0]
        return sync["kind"], sync["state"], sync["error"]

    async def syncs(self) -> list[tuple[str, str]]:
        """Kind and state of each, the first one first."""
        syncs = (await self.ask("GET", f"/tokens/{self.token}/syncs"))["syncs"]
        return [(sync["kind"], sync["state"]) for sync in reversed(syncs)]

    async def status(self) -> Any:
        return await self.ask("GET", f"/tokens/{self.token}")

    async def devices(self) -> dict[str, tuple[str, str | None]]:
        """State and profile of each device, as the server has them."""
        devices = (await self.ask("GET", f"/tokens/{self.token}/devices"))["devices"]
        return {one["serial"]: (one["state"], one["profile_uuid"]) for one in devices}

    def at_apple(self, serial: str) -> tuple[str, str | None]:
        """Status and profile of a device, as the registry has them."""
        record = self.services.registry.record(serial)
        profile = record.profile
        return record.profile_status.value, None if profile is None else profile.uuid

    async def fail(self, endpoint: str, *responses: dict[str, Any]) -> None:
        """Canned failures, each said once."""
        entries = [{"count": 1, "response": response} for response in responses]
        await self.portal("PUT", "/faults", {"faults": {endpoint: entries}})


@asynccontextmanager
async def office(
    *serials: str, state: Path | None = None, settings: AssignmentSettings | None = None
) -> AsyncIterator[Office]:
    """Running services and server, the token exchanged, these devices synced."""
    clock = SimulatedClock()
    portal = Portal.from_content({"organizations": [{"name": ORGANIZATION}]})
    async with (
        AppleServices(pki=pki(), clock=clock, portal=portal, assignment=settings) as services,
        MdmServer(
            Settings(organization=ORGANIZATION, assignment_url=services.url),
            clock=clock,
            state=state,
            machine_info_roots=[pki().root],
            attestation_roots=[pki().attestation.root],
            assignment_roots=[pki().tls_ca.certificate],
        ) as server,
    ):
        made = Office(clock=clock, services=services, server=server)
        await made.sign_up(*serials)
        yield made
