"""Group `apple`: the device assignment API with two hundred thousand devices, its delta, and OAuth.

The stand-in runs in a process of its own; devices and servers come to it through its portal, requests over TLS.
"""

import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from oauthlib.oauth1 import Client as Signer

from certs.clock import SystemClock
from certs.transport import HttpResponse, Transport
from emulator.apple.assignment_settings import AssignmentSettings
from emulator.apple.oauth import OAuth
from emulator.apple.portal import Portal
from emulator.apple.registry import Registry
from emulator.apple.tokens import issue
from emulator.fleet.admin_client import AdminClient
from emulator.http import HttpDoor, TrustSet
from emulator.wire import assignment, json_object
from emulator.wire.token import ServerToken
from emulator.wire.token import decode as decode_token
from tools.bench.figure import Bound, Figure, Measurement, MeasurementFailed
from tools.bench.primitives import reference_ms
from tools.bench.servers import ORGANIZATION, ServerFacts
from tools.bench.world import Servers, process_running

DEVICES: Final = 200_000
QUICK_DEVICES: Final = 2_000
PAGE: Final = 1000
BATCH: Final = 5000  # serial numbers in one request to the portal
NEW: Final = 10  # devices of a delta
SYNCS: Final = 300
QUICK: Final = 5
VERIFICATIONS: Final = 1000
WARM_UP: Final = 20
BATCHES: Final = 5
AGENT: Final = "bench/1"
HOST: Final = "localhost"


@dataclass
class AdeServer:
    """One MDM server of the portal, and its session."""

    transport: Transport
    url: str
    token: ServerToken
    session: str = ""

    async def ask(self, path: str, content: dict[str, object]) -> dict[str, Any]:
        """One POST under the session, which is made where there is none, or where it is over."""
        answer = await self._send(path, content) if self.session else None
        if answer is None or answer.status == 401:
            await self._sign_in()
            answer = await self._send(path, content)
        self.session = answer.header(assignment.SESSION) or self.session
        if answer.status != 200:
            raise MeasurementFailed(f"{path}: HTTP {answer.status} {answer.body[:80]!r}")
        return json_object.loads(answer.body, path)

    async def _send(self, path: str, content: dict[str, object]) -> HttpResponse:
        return await self.transport.request(
            "POST",
            self.url + path,
            step=path,
            headers={
                "User-Agent": AGENT,
                "Content-Type": assignment.CONTENT_TYPE,
                assignment.SESSION: self.session,
                assignment.VERSION: "3",
            },
            body=json_object.dumps(content),
        )

    async def _sign_in(self) -> None:
        answer = await self.transport.request(
            "GET",
            self.url + assignment.SESSION_PATH,
            step="session",
            headers={"User-Agent": AGENT, "Authorization": signed(self.token, self.url)},
        )
        self.session = json_object.loads(answer.require(200).body, "session")["auth_session_token"]

    async def fetch_all(self) -> tuple[str, int]:
        """Every page; the last cursor, and how many devices came."""
        wanted: dict[str, object] = {"limit": PAGE}
        count = 0
        while True:
            page = await self.ask(assignment.FETCH_PATH, wanted)
            count += len(page["devices"])
            if not page["more_to_follow"]:
                return page["cursor"], count
            wanted = {"limit": PAGE, "cursor": page["cursor"]}

    async def sync(self, cursor: str) -> int:
        """How many devices a delta from this cursor has."""
        page = await self.ask(assignment.SYNC_PATH, {"cursor": cursor, "limit": PAGE})
        return len(page["devices"])


def signed(token: ServerToken, url: str) -> str:
    """The Authorization header of `GET /session`, as MDM servers make it."""
    signer = Signer(
        token.consumer_key,
        client_secret=token.consumer_secret,
        resource_owner_key=token.access_token,
        resource_owner_secret=token.access_secret,
    )
    _, headers, _ = signer.sign(url + assignment.SESSION_PATH)
    return str(headers["Authorization"])


@dataclass(frozen=True, slots=True)
class World:
    """The stand-in and its portal."""

    servers: Servers
    facts: ServerFacts
    transport: Transport
    portal: AdminClient

    async def server(self, name: str, devices: int) -> AdeServer:
        """A server of the portal with so many devices."""
        wanted = {"organization": ORGANIZATION, "name": name, "format": "json"}
        token = await self.portal.fetch("POST", "/portal/servers", wanted)
        for start in range(0, devices, BATCH):
            end = min(devices, start + BATCH)
            await self.own(name, [f"{name[:1]}{number:09}" for number in range(start, end)])
        return AdeServer(self.transport, self.facts.url, decode_token(token.body))

    async def own(self, name: str, serials: list[str]) -> None:
        """The portal assigns these to a server."""
        wanted = {"organization": ORGANIZATION, "server": name, "serials": serials}
        await self.portal.call("POST", "/portal/devices", wanted)


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    """The process, and a client of both its ports."""
    async with process_running("tools.bench.apple_server") as servers:
        facts = await servers.facts(ServerFacts)
        trust = TrustSet().with_roots(x509.load_pem_x509_certificate(facts.root_pem.encode()))
        async with HttpDoor(clock=SystemClock()).session(trust=trust) as transport:
            portal = AdminClient(
                transport=transport, url=facts.admin_url, token=facts.token, step="portal"
            )
            yield World(servers, facts, transport, portal)


async def syncs(quick: bool) -> list[Figure]:
    """A full sync of everything, and a delta after it, beside the same delta of an account that had nothing."""
    devices, times = (QUICK_DEVICES, QUICK) if quick else (DEVICES, SYNCS)
    async with running() as world:
        empty_mb = (await world.servers.use()).resident_mb
        big = await world.server("Big", devices)
        small = await world.server("Small", 0)
        before = await world.servers.use()
        cursor, count = await big.fetch_all()
        after = await world.servers.use()
        if count != devices:
            raise MeasurementFailed(f"{count} of {devices} devices came")
        nothing, _ = await small.fetch_all()
        await world.own("Big", [f"NEWB{number:06}" for number in range(NEW)])
        await world.own("Small", [f"NEWS{number:06}" for number in range(NEW)])
        await _delta(world, big, cursor, WARM_UP)
        await _delta(world, small, nothing, WARM_UP)
        big_ms, small_ms = 0.0, 0.0
        for _ in range(BATCHES):  # by turns, so that whatever else the machine does hits both
            big_ms += await _delta(world, big, cursor, times)
            small_ms += await _delta(world, small, nothing, times)
    signature_ms = await reference_ms()
    spent_ms = (after.cpu_s - before.cpu_s) * 1000
    return [
        Figure(
            name="full sync memory",
            value=after.resident_mb,
            unit="MB",
            primitive="the same without devices",
            primitive_value=empty_mb,
            reference_ms=signature_ms,
            bound=Bound("value", 300),
            note=f"{devices} devices, {spent_ms / devices * 1000:.1f} µs of the server's CPU each",
        ),
        Figure(
            name="delta of 10",
            value=big_ms / BATCHES,
            unit="ms",
            primitive="the same in an account that was empty",
            primitive_value=small_ms / BATCHES,
            reference_ms=signature_ms,
            bound=Bound("ratio", 1.5),
        ),
    ]


async def _delta(world: World, server: AdeServer, cursor: str, times: int) -> float:
    """The server's CPU of one delta, in ms."""
    before_s = await world.servers.cpu_s()
    for _ in range(times):
        if await server.sync(cursor) != NEW:
            raise MeasurementFailed("a delta had not the devices that are new")
    return (await world.servers.cpu_s() - before_s) / times * 1000


async def oauth(quick: bool) -> list[Figure]:
    """One verification: header, credentials, time, signature, nonce."""
    count = QUICK if quick else VERIFICATIONS
    registry, now = Registry(), datetime.now(UTC)
    portal = {"name": ORGANIZATION, "email": "it@example.com", "servers": [{"name": "Bench"}]}
    Portal.from_content({"organizations": [portal]}).apply(registry, now)
    (ledger,) = registry.ledgers.values()
    token = issue(registry, ledger, registry.organizations[ORGANIZATION], now)
    url = f"https://{HOST}"
    door = OAuth(registry, AssignmentSettings(), lambda: [url])
    headers = [signed(token, url) for _ in range(count + WARM_UP)]
    for header in headers[:WARM_UP]:
        door.verify(header, HOST, now)
    gc.collect()
    started = time.thread_time()
    for header in headers[WARM_UP:]:
        door.verify(header, HOST, now)
    spent_s = time.thread_time() - started
    signature_ms = await reference_ms()
    return [
        Figure(
            name="oauth verification",
            value=spent_s / count * 1000,
            unit="ms",
            primitive="rsa2048 private",
            primitive_value=signature_ms,
            reference_ms=signature_ms,
            bound=Bound("scaled", 0.3),
        )
    ]


MEASUREMENTS: Final = (
    Measurement(name="syncs", what="200,000 devices: full sync and delta", measure=syncs),
    Measurement(name="oauth", what="OAuth of GET /session", measure=oauth),
)
