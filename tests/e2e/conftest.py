"""The whole road on loopback: Apple stand-ins, mdmserver and a portal that sends every device to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs.clock import SystemClock
from certs.faults import FaultPoint, no_faults
from emulator.apple.app import AppleServices
from emulator.apple.pki import SimPKI
from emulator.apple.portal import Portal
from emulator.fleet import fleet as fleet_file
from emulator.fleet.fleet import FleetFile
from emulator.fleet.run import FleetRun, RunOptions
from mdmserver.app import MdmServer
from mdmserver.settings import Settings

ORGANIZATION = "Example Hospital"
SERVER = "main"
PERSONAS = [("iPhone14,5", "18.1"), ("iPhone10,6", "14.8.1"), ("iPad7,5", "17.7.2")]


@dataclass(frozen=True, kw_only=True)
class Road:
    """Everything that a fleet meets."""

    services: AppleServices
    server: MdmServer
    folder: Path

    def fleet(self, count: int, **changes: object) -> FleetFile:
        """`count` devices, dealt out over the personas, all assigned to the server."""
        groups = [
            {
                "model": [PERSONAS[number % len(PERSONAS)][0]],
                "os_version": [PERSONAS[number % len(PERSONAS)][1]],
                "organization": ORGANIZATION,
                "server": SERVER,
            }
            for number in range(count)
        ]
        content: dict[str, object] = {
            "seed": 7,
            "apple": self.apple(),
            "behaviour": {"awaiting_poll_s": "0.05", "awaiting_deadline_s": "30"},
            "groups": groups,
        }
        return fleet_file.validate(content | changes, source="test")

    def apple(self) -> dict[str, object]:
        """The section of a fleet file that names the stand-ins."""
        token_file = self.folder / "apple-token"
        token_file.write_text(self.services.token)
        return {
            "url": self.services.url,
            "admin_url": self.services.admin_url,
            "token_file": token_file,
        }

    def options(self, **changes: Any) -> RunOptions:
        """A state folder of this test, and trust in the stand-ins."""
        facts: dict[str, Any] = {
            "state": self.folder / "fleet",
            "authorities": (self.services.pki.tls_ca.certificate,),
            "system_trust": False,
        }
        return RunOptions(**(facts | changes))

    def ca_file(self) -> Path:
        """The trust in the stand-ins and the server, for `--ca`."""
        file = self.folder / "ca.pem"
        roots = [self.services.pki.tls_ca.certificate, *self.server.tls_roots]
        file.write_bytes(b"".join(root.public_bytes(Encoding.PEM) for root in roots))
        return file

    async def server_devices(self, run: FleetRun) -> dict[str, dict[str, Any]]:
        """What the server's admin API says, by serial number."""
        admin = run.admin_client(self.server.admin_url, self.server.token, step="admin")
        answer = await admin.call("GET", "/v1/devices")
        return {device["serial"]: device for device in answer["devices"]}


OpenRoad = Callable[..., Any]


@pytest.fixture(scope="session")
def pki_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One simulated PKI for all tests of a process: its RSA keys take a while to make."""
    folder = tmp_path_factory.mktemp("pki")
    SimPKI.open(folder, SystemClock())
    return folder


@pytest.fixture
async def open_road(tmp_path: Path, pki_folder: Path) -> OpenRoad:
    """Opens the road with settings and faults of the test's own."""

    @asynccontextmanager
    async def opened(
        *, settings: Settings | None = None, server_faults: FaultPoint = no_faults
    ) -> AsyncIterator[Road]:
        clock = SystemClock()
        async with AsyncExitStack() as stack:
            pki = await asyncio.to_thread(SimPKI.open, pki_folder, clock)
            server = await stack.enter_async_context(
                MdmServer(
                    settings or Settings(organization=ORGANIZATION),
                    state=tmp_path / "server",
                    clock=clock,
                    machine_info_roots=[pki.root],
                    attestation_roots=[pki.attestation.root],
                    faults=server_faults,
                )
            )
            assigned = {"name": SERVER, "profile": server.assignment_profile()}
            portal = Portal.from_content(
                {"organizations": [{"name": ORGANIZATION, "servers": [assigned]}]}
            )
            services = await stack.enter_async_context(
                AppleServices(pki=pki, clock=clock, portal=portal)
            )
            yield Road(services=services, server=server, folder=tmp_path)

    return opened


@pytest.fixture
async def road(open_road: OpenRoad) -> AsyncIterator[Road]:
    """The road with its defaults."""
    async with open_road() as opened:
        yield opened
