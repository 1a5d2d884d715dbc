"""NanoMDM pushes through our proxy, and the devices that a push wakes answer it (apple-services.md 7; README of emulator/apple)."""

import asyncio
import base64
import json
import plistlib
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from certs.authorize import StaticChallenge
from certs.clock import SystemClock
from certs.devices_file import AnyAttestedDevice
from certs.folder import CaFolder
from certs.hosts import HostMap
from certs.identity import Identity
from certs.keys import generate
from certs.serving import CertsServer, ServeOptions
from emulator.apple.app import AppleServices
from emulator.apple.pki import SimPKI
from emulator.fleet import fleet as fleet_file
from emulator.fleet.run import FleetRun, RunOptions
from tests.peers.programs import free_ports, listening, server_on_path

pytestmark = pytest.mark.peer_server

TOPIC = "com.apple.mgmt.External.b5d7a1f2-11aa-4c3d-9a77-0123456789ab"
CHALLENGE = "nanomdm"
KEY = "supersecret"
BASIC = base64.b64encode(f"nanomdm:{KEY}".encode()).decode()
DEVICES = 5
PATIENCE_S = 60.0
NAME = "mdm.example.org"


@cache
def pki() -> SimPKI:
    """Of the machine's clock, as Go looks at dates."""
    return SimPKI.open(None, SystemClock())


@pytest.fixture(autouse=True)
def keys() -> None:
    """Made before the loop runs."""
    pki()


def enrollment_profile(scep_url: str) -> bytes:
    """NanoMDM's documented profile: SCEP, MDM, nothing else."""
    identity = str(uuid.uuid4()).upper()
    common = {"PayloadVersion": 1}
    return plistlib.dumps(
        {
            **common,
            "PayloadType": "Configuration",
            "PayloadIdentifier": "com.github.micromdm.nanomdm",
            "PayloadUUID": str(uuid.uuid4()).upper(),
            "PayloadDisplayName": "Enrollment Profile",
            "PayloadContent": [
                {
                    **common,
                    "PayloadType": "com.apple.security.scep",
                    "PayloadIdentifier": "com.github.micromdm.scep",
                    "PayloadUUID": identity,
                    "PayloadContent": {
                        "URL": scep_url,
                        "Challenge": CHALLENGE,
                        "Key Type": "RSA",
                        "Key Usage": 5,
                        "Keysize": 2048,
                        "Subject": [[["CN", "device"]]],
                    },
                },
                {
                    **common,
                    "PayloadType": "com.apple.mdm",
                    "PayloadIdentifier": "com.github.micromdm.nanomdm.mdm",
                    "PayloadUUID": str(uuid.uuid4()).upper(),
                    "IdentityCertificateUUID": identity,
                    "Topic": TOPIC,
                    "ServerURL": f"https://{NAME}/mdm",
                    "SignMessage": True,
                    "AccessRights": 8191,
                    "CheckOutWhenRemoved": True,
                },
            ],
        }
    )


@dataclass(frozen=True, kw_only=True)
class World:
    """NanoMDM with a push certificate, and a fleet that sleeps."""

    services: AppleServices
    http: aiohttp.ClientSession
    url: str
    run: FleetRun
    udids: list[str]
    said: Path  # NanoMDM's log

    async def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        async with self.http.request(method, self.url + path, data=body or None) as answer:
            return json.loads(await answer.read())

    async def enqueue(self, request_type: str) -> tuple[str, Any]:
        """One command for all devices; NanoMDM pushes by itself."""
        command_uuid = str(uuid.uuid4())
        command = {"CommandUUID": command_uuid, "Command": {"RequestType": request_type}}
        path = f"/v1/enqueue/{','.join(self.udids)}"
        return command_uuid, await self.ask("PUT", path, plistlib.dumps(command))

    def acknowledged(self, command_uuid: str) -> int:
        """How often NanoMDM's log says so."""
        lines = self.said.read_text().splitlines()
        return sum(command_uuid in line and "status=Acknowledged" in line for line in lines)


async def eventually(done: Callable[[], bool]) -> None:
    """The program gets there in its own time."""
    async with asyncio.timeout(PATIENCE_S):
        while not done():  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.02)


@asynccontextmanager
async def nanomdm(folder: Path) -> AsyncIterator[World]:
    program = server_on_path("nanomdm")
    clock = SystemClock()
    ca = await asyncio.to_thread(CaFolder.open, folder / "ca", "CA", ["127.0.0.1"], clock=clock)
    options = ServeOptions(challenges=StaticChallenge(CHALLENGE), devices=AnyAttestedDevice())
    (port,) = free_ports(1)
    async with (
        CertsServer(ca, options, clock=clock) as certs,
        AppleServices(pki=pki(), clock=clock, proxy_port=0) as services,
    ):
        assert services.proxy is not None
        assert services.proxy_authority is not None
        (folder / "trust.pem").write_text(services.proxy_authority.pem())
        (folder / "enroll.mobileconfig").write_bytes(enrollment_profile(certs.scep_url))
        (folder / "token").write_text(services.token)
        arguments = ("-ca", str(ca.root), "-api", KEY, "-listen", f"127.0.0.1:{port}", "-debug")
        storage = ("-storage", "filekv", "-storage-dsn", str(folder / "db"))
        environment = {
            "HTTPS_PROXY": services.proxy.url,
            "SSL_CERT_FILE": str(folder / "trust.pem"),
        }
        fleet = fleet_file.validate(
            {
                "profile": str(folder / "enroll.mobileconfig"),
                "apple": {
                    "url": services.url,
                    "admin_url": services.admin_url,
                    "token_file": str(folder / "token"),
                    "activation": "off",
                },
                "groups": [{"count": DEVICES, "model": ["iPhone14,5"], "os_version": ["18.1"]}],
            },
            source="test",
        )
        run_options = RunOptions(
            state=folder / "fleet",
            hosts=HostMap.parse([f"https://{NAME}=http://127.0.0.1:{port}"]),
            authorities=(services.pki.tls_ca.certificate,),
            system_trust=False,
        )
        async with (
            listening(
                program, *arguments, *storage, port=port, folder=folder, **environment
            ) as said,
            aiohttp.ClientSession(headers={"Authorization": f"Basic {BASIC}"}) as http,
            FleetRun(fleet, run_options) as run,
        ):
            outcomes = await run.runner.enroll(await run.manufacture(), run.way)
            assert [outcome.error for outcome in outcomes] == [None] * DEVICES
            world = World(
                services=services,
                http=http,
                url=f"http://127.0.0.1:{port}",
                run=run,
                udids=[outcome.udid for outcome in outcomes],
                said=said,
            )
            key = generate("p256")
            certificate = services.pki.issue_push_certificate(key.public_key(), TOPIC)
            answer = await world.ask("PUT", "/v1/pushcert", Identity(key, certificate).to_pem())
            assert answer["topic"] == TOPIC
            yield world


async def test_its_pushes_wake_the_devices_and_they_answer(tmp_path: Path) -> None:
    async with nanomdm(tmp_path) as world:
        waker = world.run.waker
        assert waker is not None
        assert await waker.listen(await world.run.store.rows()) == DEVICES
        command, answer = await world.enqueue("SecurityInfo")
        assert all("push_error" not in status for status in answer["status"].values())
        await eventually(lambda: world.acknowledged(command) == DEVICES)
        await waker.wait_until_idle()  # a session ends after its acknowledgement, by an empty 200
        assert waker.woken.total() == DEVICES
        stats = world.services.push.stats
        assert (stats.pushes, stats.delivered_live, dict(stats.refused)) == (DEVICES, DEVICES, {})
        assert world.services.proxy is not None
        assert world.services.proxy.connected >= 1  # under Apple's own name


async def test_pushes_for_devices_that_are_away_wait_for_them(tmp_path: Path) -> None:
    async with nanomdm(tmp_path) as world:
        commands = [(await world.enqueue(kind))[0] for kind in ("SecurityInfo", "ProfileList")]
        stats = world.services.push.stats
        assert (stats.stored, stats.coalesced) == (2 * DEVICES, DEVICES)
        waker = world.run.waker
        assert waker is not None
        await waker.listen(await world.run.store.rows())
        await eventually(lambda: all(world.acknowledged(one) == DEVICES for one in commands))
        assert stats.delivered_on_connect == DEVICES


async def test_it_reads_the_410_of_a_token_that_ended(tmp_path: Path) -> None:
    async with nanomdm(tmp_path) as world:
        tokens = world.services.push.tokens
        for token in tokens.tokens():
            tokens.forget(token)
        _, answer = await world.enqueue("SecurityInfo")
        errors = [status["push_error"] for status in answer["status"].values()]
        assert len(errors) == DEVICES
        assert all("410" in error and "Unregistered" in error for error in errors)
