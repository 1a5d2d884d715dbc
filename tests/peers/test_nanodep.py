"""NanoDEP's depserver and depsyncer at our device assignment API: token exchange, syncs, profiles, refusals (apple-services.md 4, 5, 7).

Both keep their state in one folder; depserver is asked over its own HTTP API, and passes requests on to ours.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from certs.clock import SystemClock
from emulator.apple import tokens
from emulator.apple.app import AppleServices
from emulator.apple.assignment_settings import AssignmentSettings
from emulator.apple.ledger import Ledger
from emulator.apple.pki import SimPKI
from emulator.apple.portal import Portal
from emulator.apple.tokens import Lengths, TokenCipher
from emulator.wire import bypass_code
from emulator.wire import token as wire
from tests.peers.programs import free_ports, listening, run, running, server_on_path

pytestmark = pytest.mark.peer_server

ORGANIZATION = "Example Inc"
NAME = "production"
KEY = "supersecret"
BASIC = base64.b64encode(f"depserver:{KEY}".encode()).decode()
SYNCER = ("depsyncer", "-storage", "filekv", "-storage-dsn", "db", "-debug")
PATIENCE_S = 30.0
PROFILE = {
    "profile_name": "NanoDEP",
    "url": "https://mdm.example.org/mdm/enroll",
    "is_supervised": True,
    "is_mdm_removable": False,
    "await_device_configured": True,
    "skip_setup_items": ["AppleID", "Siri"],
}


@dataclass(frozen=True, kw_only=True)
class World:
    """The stand-ins, depserver beside them, and where both programs keep what they know."""

    services: AppleServices
    http: aiohttp.ClientSession
    url: str  # of depserver
    folder: Path
    trust: str  # PEM file with the roots of the stand-ins

    @property
    def ledger(self) -> Ledger:
        (ledger,) = self.services.registry.ledgers.values()
        return ledger

    async def ask(self, method: str, path: str, data: Any = None) -> tuple[int, bytes]:
        async with self.http.request(method, self.url + path, data=data) as answer:
            return answer.status, await answer.read()

    async def call(self, method: str, endpoint: str, content: object = None) -> Any:
        """One endpoint of the assignment API, by way of depserver."""
        data = None if content is None else json.dumps(content).encode()
        status, body = await self.ask(method, f"/proxy/{NAME}{endpoint}", data)
        assert status == 200, body
        return json.loads(body)

    async def exchange(
        self, cipher: TokenCipher = "aes128", lengths: Lengths = "indefinite", **options: Any
    ) -> tuple[int, bytes]:
        """depserver's certificate to the portal, the portal's .p7m to depserver."""
        _, pem = await self.ask("GET", f"/v1/tokenpki/{NAME}")
        certificate = tokens.recipient(pem)
        registry = self.services.registry
        owner = registry.organizations[ORGANIZATION]
        force = options.pop("force", "")
        token = tokens.issue(registry, self.ledger, owner, SystemClock().now(), **options)
        sealed = tokens.seal(token, certificate, cipher=cipher, lengths=lengths)
        return await self.ask("PUT", f"/v1/tokenpki/{NAME}{force}", sealed)

    def assign(self, *serials: str) -> None:
        self.services.registry.own(serials, ORGANIZATION, "main", SystemClock().now())

    async def sync(self, *options: str, name: str = NAME, proxy: str = "") -> str:
        """One sync to its end; what depsyncer says."""
        command = (*SYNCER, "-duration", "0", *options, name)
        ran = await run(*command, folder=self.folder, SSL_CERT_FILE=self.trust, HTTPS_PROXY=proxy)
        assert ran.status == 0
        return ran.said

    def calls(self) -> list[tuple[str, str, int]]:
        """Of the assignment API: step, outcome, devices."""
        return [(call.step, call.outcome, call.devices) for call in self.ledger.calls]


@cache
def pki() -> SimPKI:
    """Of this clock, as the programs look at the dates of certificates."""
    return SimPKI.open(None, SystemClock())


@pytest.fixture(autouse=True)
def keys() -> None:
    """Made before the loop runs."""
    pki()


@asynccontextmanager
async def nanodep(folder: Path, **settings: Any) -> AsyncIterator[World]:
    """depserver with its base URL set to ours and the first token exchanged."""
    depserver, _ = server_on_path("depserver"), server_on_path("depsyncer")
    portal = Portal.from_content(
        {
            "organizations": [
                {"name": ORGANIZATION, "email": "it@example.com", "servers": [{"name": "main"}]}
            ]
        }
    )
    trust = folder / "trust.pem"
    (port,) = free_ports(1)
    arguments = ("-api", KEY, "-listen", f"127.0.0.1:{port}", "-storage-dsn", "db")
    async with AppleServices(
        pki=pki(),
        clock=SystemClock(),
        portal=portal,
        assignment=AssignmentSettings(**settings),
        proxy_port=0,
    ) as services:
        assert services.proxy_authority is not None
        trust.write_text(pki().pems()["sim-tls-ca.pem"] + services.proxy_authority.pem())
        async with (
            listening(depserver, *arguments, port=port, folder=folder, SSL_CERT_FILE=str(trust)),
            aiohttp.ClientSession(headers={"Authorization": f"Basic {BASIC}"}) as http,
        ):
            world = World(
                services=services,
                http=http,
                url=f"http://127.0.0.1:{port}",
                folder=folder,
                trust=str(trust),
            )
            base = json.dumps({"base_url": f"{services.url}/"}).encode()
            status, _body = await world.ask("PUT", f"/v1/config/{NAME}", base)
            assert status == 200
            status, body = await world.exchange()
            assert status == 200, body
            yield world


async def eventually(done: Callable[[], bool]) -> None:
    """The program gets there in its own time."""
    async with asyncio.timeout(PATIENCE_S):
        while not done():  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.02)


async def test_the_token_exchange_and_the_account(tmp_path: Path) -> None:
    async with nanodep(tmp_path) as world:
        account = await world.call("GET", "/account")
        assert account["server_name"] == "main"
        assert account["server_uuid"] == world.ledger.uuid
        assert (account["org_name"], account["admin_id"]) == (ORGANIZATION, "it@example.com")
        token = world.ledger.token
        assert token is not None
        status, body = await world.ask("GET", f"/v1/tokens/{NAME}")
        assert (status, wire.decode(body)) == (200, token.token)


@pytest.mark.parametrize("cipher", ["aes128", "aes256", "des3"])
@pytest.mark.parametrize("lengths", ["indefinite", "definite"])
async def test_it_opens_each_form_of_a_token_file(
    tmp_path: Path, cipher: TokenCipher, lengths: Lengths
) -> None:
    async with nanodep(tmp_path) as world:
        status, body = await world.exchange(cipher, lengths)
        assert status == 200, body
        token = world.ledger.token
        assert token is not None
        assert wire.decode(body) == token.token


async def test_a_renewal_is_taken_and_another_consumer_key_only_by_force(tmp_path: Path) -> None:
    async with nanodep(tmp_path) as world:
        status, _ = await world.exchange()
        assert status == 200
        assert (await world.call("GET", "/account"))["server_name"] == "main"
        status, body = await world.exchange(new_consumer_key=True)
        assert status != 200
        assert b"mismatched consumer key" in body
        status, body = await world.exchange(new_consumer_key=True, force="?force=1")
        assert status == 200, body
        assert (await world.call("GET", "/account"))["server_name"] == "main"


async def test_a_full_sync_pages_and_a_later_one_begins_where_it_ended(tmp_path: Path) -> None:
    async with nanodep(tmp_path) as world:
        world.assign(*(f"SIM{number:07}" for number in range(250)))
        said = await world.sync("-limit", "100")
        assert [devices for step, _, devices in world.calls() if step == "assignment_fetch"] == [
            100,
            100,
            50,
        ]
        assert "phase=sync more=false" in said
        world.services.registry.release("SIM0000001", SystemClock().now())
        said = await world.sync()
        assert world.calls()[-2:] == [
            ("assignment_fetch", "EXHAUSTED_CURSOR", 0),
            ("assignment_sync", "delta", 1),
        ]
        assert "cursor returned all devices previously" in said
        assert "op_type_deleted=1" in said


async def test_the_assigner_gives_each_new_device_its_profile(tmp_path: Path) -> None:
    async with nanodep(tmp_path) as world:
        defined = await world.call("POST", "/profile", PROFILE)
        uuid = defined["profile_uuid"]
        status, _ = await world.ask("PUT", f"/v1/assigner/{NAME}?profile_uuid={uuid}")
        assert status == 200
        await world.sync()  # the fetch, which names nobody as added
        serials = [f"SIM{number:07}" for number in range(150)]
        world.assign(*serials)
        records = world.services.registry.records

        def assigned() -> bool:
            return all(
                (profile := records[serial].profile) is not None and profile.uuid == uuid
                for serial in serials
            )

        command = (*SYNCER, "-duration", "3600", "-limit", "100", NAME)
        async with running(*command, folder=tmp_path, SSL_CERT_FILE=world.trust):
            await eventually(assigned)
        assert ("assignment_assign", "assigned", 100) in world.calls()


async def test_profiles_assignments_details_and_locks_by_way_of_depserver(tmp_path: Path) -> None:
    async with nanodep(tmp_path) as world:
        world.assign("SIM1", "SIM2")
        defined = await world.call("POST", "/profile", {**PROFILE, "devices": ["SIM1", "OTHER"]})
        assert defined["devices"] == {"SIM1": "SUCCESS", "OTHER": "NOT_ACCESSIBLE"}
        uuid = defined["profile_uuid"]
        stored = await world.call("GET", f"/profile?profile_uuid={uuid}")
        assert PROFILE.items() <= stored.items()
        body = {"profile_uuid": uuid, "devices": ["SIM2"]}
        assert (await world.call("PUT", "/profile/devices", body))["devices"] == {"SIM2": "SUCCESS"}
        gone = await world.call("DELETE", "/profile/devices", {"devices": ["SIM1"]})
        assert gone["devices"] == {"SIM1": "SUCCESS"}
        details = (await world.call("POST", "/devices", {"devices": ["SIM1", "SIM2"]}))["devices"]
        assert {serial: one["profile_status"] for serial, one in details.items()} == {
            "SIM1": "removed",
            "SIM2": "assigned",
        }
        locked = await world.call("POST", "/device/activationlock", {"device": "SIM2"})
        assert locked == {"serial_number": "SIM2", "response_status": "SUCCESS"}
        released = await world.call("POST", "/devices/disown", {"devices": ["SIM1"]})
        assert released["devices"] == {"SIM1": "SUCCESS"}


async def test_a_lost_cursor_makes_it_fetch_everything_again(tmp_path: Path) -> None:
    async with nanodep(tmp_path) as world:
        world.assign("SIM1")
        await world.sync()
        # Another secret seals no cursor that was given out before.
        world.services.registry.secret = bytes(32)
        said = await world.sync()
        assert "cursor error, retrying with empty cursor" in said
        assert "INVALID_CURSOR" in said
        assert world.calls()[-1] == ("assignment_sync", "delta", 0)
        assert ("assignment_fetch", "full", 1) in world.calls()[-3:]


async def test_it_says_why_it_may_not(tmp_path: Path) -> None:
    async with nanodep(tmp_path) as world:
        assert world.ledger.end_token("invalidated")
        assert "401 Unauthorized: token_rejected" in await world.sync()
        await world.exchange()
        world.ledger.blocked = True
        assert "403 Forbidden: ACCESS_DENIED" in await world.sync()
        world.ledger.blocked = False
        assert "error" not in (await world.sync()).replace("cursor error", "")


async def test_an_agent_that_is_not_liked_is_refused(tmp_path: Path) -> None:
    async with nanodep(tmp_path, refused_user_agents=("godep",)) as world:
        said = await world.sync("-user-agent", "godep/0")
        assert "USER_AGENT_INVALID" in said
        assert "phase=fetch" in await world.sync("-user-agent", "another/1")


async def test_without_a_base_url_the_proxy_leads_it_here(tmp_path: Path) -> None:
    """It signs for https://mdmenrollment.apple.com and sees a certificate of that name."""
    async with nanodep(tmp_path) as world:
        world.assign("SIM1")
        token, proxy = world.ledger.token, world.services.proxy
        assert token is not None
        assert proxy is not None
        status, _ = await world.ask("PUT", "/v1/tokens/plain", wire.encode(token.token))
        assert status == 200
        said = await world.sync(name="plain", proxy=proxy.url)
        assert "phase=fetch more=false" in said
        assert "devices=1" in said
        assert proxy.connected > 0


async def test_both_know_a_bypass_code_by_the_same_hash(tmp_path: Path) -> None:
    async with nanodep(tmp_path) as world:
        for raw in (bytes(range(16)), bytes(16), bytes([255] * 16)):
            _, body = await world.ask("GET", f"/v1/bypasscode?raw={raw.hex()}")
            theirs = json.loads(body)
            assert theirs["code"] == bypass_code.encode(raw)
            assert theirs["hash"] == bypass_code.escrow_hash(raw).hex()
        _, body = await world.ask("GET", "/v1/bypasscode")
        made = json.loads(body)
        assert bypass_code.decode(made["code"]).hex() == made["raw"]

        # Locked with its hash, the device opens with its code.
        world.assign("SIM1")
        lock = {"device": "SIM1", "escrow_key": made["hash"], "lost_message": "Ward 3"}
        locked = await world.call("POST", "/device/activationlock", lock)
        assert locked["response_status"] == "SUCCESS"
        held = world.services.registry.record("SIM1").activation_lock
        assert held is not None
        assert held.escrow_hash == bypass_code.escrow_hash(bypass_code.decode(made["code"]))
