"""Foreign providers push to us: aioapns, httpx and @parse/node-apn, each with its own idea of HTTP/2 (apple-services.md 6)."""

import asyncio
import json
import os
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aioapns import APNs, NotificationRequest, PushType
from aioapns.connection import APNsProductionClientProtocol
from cryptography.hazmat.primitives.serialization import Encoding

from certs.clock import SystemClock
from certs.identity import Identity
from certs.keys import to_pem
from certs.tls import client_context
from emulator.apple.app import AppleServices
from emulator.apple.push_settings import PushSettings
from emulator.wire.push import APNS_ID, MAX_PAYLOAD_BYTES
from tests.emulator.apple.push_support import PAYLOAD, TOKEN, TOPIC, Listener, push_identity
from tests.emulator.apple.support import pki
from tests.peers.programs import needed, run

pytestmark = pytest.mark.peer

GONE = bytes(reversed(range(32)))  # of a device that has another token now
UNKNOWN = bytes(32)
MAGIC = json.loads(PAYLOAD)["mdm"]
MANY = 300
NODE_SCRIPT = Path(__file__).with_name("node_apn.js")
NODE_FOLDER = Path(__file__).parents[2] / ".node"


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


class Pushed:
    """The stand-ins, one device that is awake, and one token that is gone."""

    def __init__(self, services: AppleServices) -> None:
        self.services = services
        self.device = Listener(services)
        self.device.online()
        Listener(services, GONE)
        services.push.tokens.forget(GONE)

    @property
    def payloads(self) -> list[bytes]:
        return [notification.payload for notification in self.device.got]


@asynccontextmanager
async def pushed(**more: Any) -> AsyncIterator[Pushed]:
    async with AppleServices(
        pki=pki(), clock=SystemClock(), push=PushSettings(mode="strict"), **more
    ) as services:
        yield Pushed(services)


def context_of(services: AppleServices, identity: Identity | None = None) -> ssl.SSLContext:
    context = client_context([services.pki.tls_ca.certificate], identity or push_identity(TOPIC))
    context.set_alpn_protocols(["h2"])
    return context


def pem_file(folder: Path, identity: Identity) -> Path:
    path = folder / "push.pem"
    path.write_bytes(identity.to_pem())
    return path


# --- httpx: a plain HTTP client, no header of APNs but what the test gives


@asynccontextmanager
async def client(
    services: AppleServices, identity: Identity | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        http1=False,
        http2=True,
        verify=context_of(services, identity),
        base_url=f"https://localhost:{services.push.port}",
        trust_env=False,
    ) as http:
        yield http


async def test_httpx_pushes_without_a_topic_as_most_servers_do() -> None:
    async with pushed() as p, client(p.services) as http:
        answer = await http.post(f"/3/device/{TOKEN.hex()}", content=PAYLOAD)
        assert (answer.status_code, answer.http_version, answer.content) == (200, "HTTP/2", b"")
        assert len(answer.headers[APNS_ID]) == 36
        assert p.payloads == [PAYLOAD]


@pytest.mark.parametrize(
    ("token", "payload", "headers", "status", "reason"),
    [
        (UNKNOWN, PAYLOAD, {}, 400, "BadDeviceToken"),
        (GONE, PAYLOAD, {}, 410, "Unregistered"),
        (TOKEN, b"", {}, 400, "PayloadEmpty"),
        (TOKEN, bytes(MAX_PAYLOAD_BYTES + 1), {}, 413, "PayloadTooLarge"),
        (TOKEN, PAYLOAD, {"apns-topic": "com.apple.mgmt.Other"}, 400, "TopicDisallowed"),
        (TOKEN, PAYLOAD, {"apns-push-type": "alert"}, 400, "InvalidPushType"),
        (TOKEN, PAYLOAD, {"apns-id": "7"}, 400, "BadMessageId"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_httpx_reads_each_refusal(
    token: bytes, payload: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    async with pushed() as p, client(p.services) as http:
        answer = await http.post(f"/3/device/{token.hex()}", content=payload, headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)
        assert ("timestamp" in answer.json()) is (status == 410)
        assert p.payloads == []


async def test_httpx_without_a_certificate_is_told_so() -> None:
    nobody = push_identity()  # no UID
    async with pushed() as p, client(p.services, nobody) as http:
        answer = await http.post(f"/3/device/{TOKEN.hex()}", content=PAYLOAD)
        assert (answer.status_code, answer.json()["reason"]) == (403, "BadCertificate")


async def test_httpx_has_many_pushes_under_way_at_once() -> None:
    async with pushed() as p, client(p.services) as http:
        answers = await asyncio.gather(
            *(http.post(f"/3/device/{TOKEN.hex()}", content=PAYLOAD) for _ in range(MANY))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.headers[APNS_ID] for answer in answers}) == MANY
        assert p.services.push.stats.pushes == MANY


async def test_httpx_reaches_us_under_apples_name_through_the_proxy() -> None:
    async with pushed(proxy_port=0) as p:
        assert p.services.proxy is not None
        assert p.services.proxy_authority is not None
        context = client_context([p.services.proxy_authority.certificate], push_identity(TOPIC))
        context.set_alpn_protocols(["h2"])
        async with httpx.AsyncClient(
            http1=False, http2=True, verify=context, proxy=p.services.proxy.url, trust_env=False
        ) as http:
            answer = await http.post(
                f"https://api.push.apple.com/3/device/{TOKEN.hex()}", content=PAYLOAD
            )
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        assert p.payloads == [PAYLOAD]
        assert p.services.proxy.connected == 1


# --- aioapns: topic, push type and id in every push


# The package asks pyOpenSSL for the subject in a way that pyOpenSSL wants nobody to use any more.
AIOAPNS = pytest.mark.filterwarnings("ignore:X509.get_subject is deprecated:DeprecationWarning")


def aioapns(services: AppleServices, folder: Path) -> APNs:
    """The package as its users have it, but for the host, which it has as a constant."""
    identity = push_identity(TOPIC)
    apns = APNs(
        client_cert=str(pem_file(folder, identity)),
        ssl_context=context_of(services, identity),
        max_connections=2,
    )
    apns.pool.protocol_class = type(
        "Local",
        (APNsProductionClientProtocol,),
        {"APNS_SERVER": "localhost", "APNS_PORT": services.push.port},
    )
    return apns


def request(token: bytes, **more: Any) -> NotificationRequest:
    return NotificationRequest(token.hex(), {"mdm": MAGIC}, push_type=PushType.MDM, **more)


@AIOAPNS
async def test_aioapns_pushes_and_reads_the_refusals(tmp_path: Path) -> None:
    async with pushed() as p:
        apns = aioapns(p.services, tmp_path)
        sent, gone, unknown = [
            await apns.send_notification(request(token)) for token in (TOKEN, GONE, UNKNOWN)
        ]
        assert (sent.status, sent.is_successful) == ("200", True)
        assert (gone.status, gone.description) == ("410", "Unregistered")
        assert gone.timestamp is not None
        assert int(gone.timestamp) > 1_600_000_000_000  # milliseconds
        assert (unknown.status, unknown.description) == ("400", "BadDeviceToken")
        assert [json.loads(payload) for payload in p.payloads] == [{"mdm": MAGIC}]
        apns.pool.close()


@AIOAPNS
async def test_aioapns_loses_nothing_of_a_burst(tmp_path: Path) -> None:
    async with pushed() as p:
        apns = aioapns(p.services, tmp_path)
        results = await asyncio.gather(
            *(apns.send_notification(request(TOKEN, time_to_live=60)) for _ in range(MANY))
        )
        assert {result.status for result in results} == {"200"}
        assert p.services.push.stats.pushes == MANY
        apns.pool.close()


# --- @parse/node-apn: Node's own HTTP/2


def node_modules() -> Path:
    """Where the package is: MDM_NODE_MODULES, else what `.ci/run` installs beside the sources."""
    folder = Path(os.environ.get("MDM_NODE_MODULES") or NODE_FOLDER / "node_modules")
    if not (folder / "@parse" / "node-apn").is_dir():
        pytest.skip(f"@parse/node-apn is not installed in {folder}")
    return folder


@pytest.mark.parametrize("topic", [TOPIC, None])
async def test_node_apn_pushes_and_reads_the_refusals(tmp_path: Path, topic: str | None) -> None:
    node, identity = needed("node"), push_identity(TOPIC)
    async with pushed() as p:
        wanted = {
            "modules": str(node_modules()),
            "address": "localhost",
            "port": p.services.push.port,
            "cert": identity.certificate.public_bytes(Encoding.PEM).decode(),
            "key": to_pem(identity.key).decode(),
            "ca": p.services.pki.tls_ca.certificate.public_bytes(Encoding.PEM).decode(),
            "topic": topic,
            "magic": MAGIC,
            "tokens": [TOKEN.hex(), GONE.hex(), UNKNOWN.hex()],
        }
        finished = await run(
            node, str(NODE_SCRIPT), folder=tmp_path, stdin=json.dumps(wanted).encode()
        )
        assert finished.status == 0, finished.said
        result = json.loads(finished.output)
        assert [one["device"] for one in result["sent"]] == [TOKEN.hex()]
        refused = {one["device"]: one for one in result["failed"]}
        assert refused[GONE.hex()]["response"]["reason"] == "Unregistered"
        assert str(refused[GONE.hex()]["status"]) == "410"
        assert re.fullmatch(r"\d{13}", str(refused[GONE.hex()]["response"]["timestamp"]))
        assert refused[UNKNOWN.hex()]["response"]["reason"] == "BadDeviceToken"
        assert [json.loads(payload) for payload in p.payloads] == [{"mdm": MAGIC}]
