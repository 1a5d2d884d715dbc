"""Group `certs`: what a SCEP request costs its client, what answering one costs the server, and attested ACME on both sides.

A SCEP client is the device's own, stopped where it would send; a server gets requests that were made before the clock starts, each
with a key of its own: from the pkiMessage to the CertRep in this process, then with HTTP around it. For HTTP and ACME the server is
`mdm-certs serve` with its defaults in a process of its own.
"""

import asyncio
import gc
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from certs import cms, csr, names
from certs.acme.client import AcmeClient
from certs.attestation import AttestationAuthority
from certs.authorize import StaticChallenge
from certs.clock import SystemClock
from certs.folder import CaFolder
from certs.keys import FreshKeys, KeySpec, PrivateKey, generate, load_own
from certs.scep.capabilities import ADVERTISED
from certs.scep.client import ScepClient
from certs.scep.message import CA_RA_CERTIFICATES, CertRep, PkiStatus
from certs.scep.server import ScepServer
from certs.transport import HttpResponse, Transport
from emulator.http import HttpDoor, TrustSet
from tools.bench import primitives
from tools.bench.certs_server import CHALLENGE, CertsFacts
from tools.bench.counter import OperationCounter
from tools.bench.figure import Bound, Figure, Measurement, MeasurementFailed
from tools.bench.operation import Operations
from tools.bench.primitives import REFERENCE, Samples, reference_ms, reference_signature
from tools.bench.world import LoadedKeys, Servers, make_keys, process_running

REQUESTS: Final = 100
ENROLLMENTS: Final = 300
QUICK: Final = 3
AT_ONCE: Final = 8
WARM_UP: Final = 8
BATCHES: Final = 5
CA_KEY: Final[KeySpec] = "p256"
SUBJECT: Final = names.from_subject([[["O", "Bench"]], [["CN", "00008110-001A34D90E38801E"]]])
PKI_MESSAGE: Final = {"Content-Type": "application/x-pki-message"}

Signer = Literal["apple", "same-key"]


class Sent(Exception):
    """What stops a client where it would send."""


@dataclass
class Unsent:
    """A Transport that answers the two questions from memory and keeps the PKIOperation."""

    answers: Mapping[str, HttpResponse]
    messages: list[bytes] = field(default_factory=list)

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
        if step in self.answers:
            return self.answers[step]
        self.messages.append(body)
        raise Sent


@dataclass(frozen=True, slots=True)
class World:
    """The server, the devices' HTTP to it, and its answers to the two questions."""

    servers: Servers
    facts: CertsFacts
    transports: Sequence[Transport]  # a connection each
    authority: AttestationAuthority
    clock: SystemClock

    async def questions(self) -> dict[str, HttpResponse]:
        """GetCACert and GetCACaps, asked once."""
        url = f"{self.facts.scep_url}?operation="
        return {
            step: await self.transports[0].request("GET", url + operation, step=step)
            for step, operation in (("get_ca_cert", "GetCACert"), ("get_ca_caps", "GetCACaps"))
        }


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    """The server's process, and the connections to it."""
    clock = SystemClock()
    authority = AttestationAuthority.create(clock)
    async with process_running("tools.bench.certs_server", CA_KEY) as servers:
        await servers.tell(authority.root.public_bytes(Encoding.PEM).decode())
        facts = await servers.facts(CertsFacts)
        trust = TrustSet().with_roots(x509.load_pem_x509_certificate(facts.root_pem.encode()))
        door = HttpDoor(clock=clock)
        async with AsyncExitStack() as stack:
            sessions = [
                await stack.enter_async_context(door.session(trust=trust)) for _ in range(AT_ONCE)
            ]
            yield World(servers, facts, sessions, authority, clock)


async def _together(
    world: World, numbers: Iterable[int], work: Callable[[Transport, int], Awaitable[None]]
) -> None:
    """Each number once, over as many connections as a busy server has at the same time."""
    waiting = iter(numbers)

    async def one_of_many(transport: Transport) -> None:
        for number in waiting:
            await work(transport, number)

    async with asyncio.TaskGroup() as group:
        for transport in world.transports:
            group.create_task(one_of_many(transport))


async def pkcs_req(quick: bool) -> list[Figure]:
    """From the key to the bytes of the PKCSReq: CSR, self-signed certificate, envelope, signature."""
    count = QUICK if quick else REQUESTS
    async with running() as world:
        answers = await world.questions()
        signers: tuple[Signer, ...] = ("same-key", "apple")
        return [await _pkcs_req(world, answers, signer, count) for signer in signers]


async def _pkcs_req(
    world: World, answers: Mapping[str, HttpResponse], signer: Signer, count: int
) -> Figure:
    ahead = [load_own(der) for der in await asyncio.to_thread(make_keys, count + WARM_UP)]
    throw_away = LoadedKeys(await asyncio.to_thread(make_keys, count + WARM_UP))
    counter = OperationCounter()
    spent_s = 0.0
    with counter.counting():
        for number, key in enumerate(ahead):
            if number == WARM_UP:
                counter.reset()
                gc.collect()
            started = time.thread_time()
            await _message(world.clock, answers, key, throw_away, signer)
            if number >= WARM_UP:
                spent_s += time.thread_time() - started
    floor_ms, signature_ms = await _floor(counter.done, count)
    return Figure(
        name=f"pkcsreq {signer}",
        value=spent_s / count * 1000,
        unit="ms",
        primitive=_words(counter.done, count),
        primitive_value=floor_ms,
        reference_ms=signature_ms,
        bound=Bound("ratio", 1.6),
    )


async def _message(
    clock: SystemClock,
    answers: Mapping[str, HttpResponse],
    key: PrivateKey,
    throw_away: LoadedKeys,
    signer: Signer,
) -> bytes:
    """What the device's client would send for this key."""
    assert isinstance(key, rsa.RSAPrivateKey)
    transport = Unsent(answers)
    client = ScepClient(transport, "http://ca/scep", clock=clock, keys=throw_away, signer=signer)
    try:
        await client.enroll(key, csr.build(key, SUBJECT, challenge=CHALLENGE))
    except Sent:
        return transport.messages[0]
    raise MeasurementFailed("the client sent nothing")


async def pki_operation(quick: bool) -> list[Figure]:
    """One PKCSReq answered with a certificate, below the CA of mdmserver (P-256) and an RSA one; then with HTTP around it."""
    count = QUICK if quick else REQUESTS
    ders = await asyncio.to_thread(make_keys, count + WARM_UP)
    figures = [
        await _answered("pkioperation", CA_KEY, ders, Bound("scaled", 1.2)),
        await _answered("pkioperation rsa-ca", "rsa2048", ders, None),
    ]
    async with running() as world:
        answers = await world.questions()
        messages = await _messages(world.clock, answers, ders)

        async def issue(transport: Transport, number: int) -> None:
            await _issued(world, transport, messages[number])

        await _together(world, range(WARM_UP), issue)
        before_s = await world.servers.cpu_s()
        await _together(world, range(WARM_UP, len(messages)), issue)
        spent_s = await world.servers.cpu_s() - before_s
    signature_ms = await reference_ms()
    figures.append(_pki_figure("pkioperation http", CA_KEY, spent_s / count, signature_ms, None))
    return figures


async def _answered(
    name: str, ca_key: KeySpec, ders: Sequence[bytes], bound: Bound | None
) -> Figure:
    """From the pkiMessage to the CertRep, by the server of a CA folder in this process, one after the other."""
    clock, count = SystemClock(), len(ders) - WARM_UP
    with tempfile.TemporaryDirectory(prefix="mdm-bench-") as made:
        folder = await asyncio.to_thread(
            CaFolder.open, Path(made), "Bench CA", ["127.0.0.1"], clock=clock, ca_key=ca_key
        )
        folder.ca.crl_url = "http://127.0.0.1/crl/bench.crl"
        server = ScepServer(folder.ca, folder.ra, StaticChallenge(CHALLENGE), clock=clock)
        certificates = cms.certs_only([folder.ra.certificate, folder.ca.certificate])
        answers = {
            "get_ca_cert": HttpResponse(
                status=200, body=certificates, headers={"content-type": CA_RA_CERTIFICATES}
            ),
            "get_ca_caps": HttpResponse(status=200, body=ADVERTISED.encode()),
        }
        messages = await _messages(clock, answers, ders)
        # Each beside a signature: what else the machine does just then slows down both.
        signature, signatures_s = await reference_signature(), 0.0
        spent_s = 0.0
        for number, message in enumerate(messages):
            if number == WARM_UP:
                gc.collect()
                spent_s = signatures_s = 0.0
            signatures_s += signature()
            started = time.thread_time()
            answer = await server.pki_operation(message)
            spent_s += time.thread_time() - started
            assert isinstance(answer.body, bytes)
            _check_success(answer.body)
    return _pki_figure(name, ca_key, spent_s / count, signatures_s / count * 1000, bound)


async def _messages(
    clock: SystemClock, answers: Mapping[str, HttpResponse], ders: Sequence[bytes]
) -> list[bytes]:
    """A PKCSReq for each key."""
    return [
        await _message(clock, answers, load_own(der), LoadedKeys([]), "same-key") for der in ders
    ]


def _pki_figure(
    name: str, ca_key: KeySpec, spent_s: float, signature_ms: float, bound: Bound | None
) -> Figure:
    """Beside its RSA operations: the envelope, the answer, and the certificate where the CA is RSA."""
    private = 3 if ca_key == "rsa2048" else 2
    return Figure(
        name=name,
        value=spent_s * 1000,
        unit="ms",
        primitive=f"{private} × rsa2048 private",
        primitive_value=private * signature_ms,
        reference_ms=signature_ms,
        bound=bound,
    )


async def _issued(world: World, transport: Transport, message: bytes) -> None:
    answer = await transport.request(
        "POST",
        f"{world.facts.scep_url}?operation=PKIOperation",
        step="pki_operation",
        headers=PKI_MESSAGE,
        body=message,
    )
    _check_success(answer.require(200).body)


def _check_success(body: bytes) -> None:
    reply = CertRep.decode(body)
    if reply.status is not PkiStatus.SUCCESS:
        raise MeasurementFailed(f"pkiStatus {reply.status}: {reply.fail_info_text}")


async def acme(quick: bool) -> list[Figure]:
    """A whole attested enrollment: account, order, challenge, finalize, certificate; several at once, over TLS."""
    count = QUICK if quick else ENROLLMENTS
    specs: tuple[KeySpec, ...] = ("p256", "p384")
    async with running() as world:
        return [await _acme(world, spec, count) for spec in specs]


async def _acme(world: World, spec: KeySpec, count: int) -> Figure:
    attesting_s = 0.0

    async def enroll(transport: Transport, number: int) -> None:
        key = generate(spec)
        serial = f"BENCH{number:05d}"

        async def attest(freshness: bytes) -> Sequence[bytes]:
            """Apple's service, whose CPU is nobody's here."""
            nonlocal attesting_s
            started = time.process_time()
            chain = world.authority.issue(
                key.public_key(), serial_number=serial, udid=serial, freshness=freshness
            )
            made = [certificate.public_bytes(Encoding.DER) for certificate in chain]
            attesting_s += time.process_time() - started
            return made

        client = AcmeClient(
            transport, world.facts.acme_directory, clock=world.clock, keys=FreshKeys()
        )
        request = csr.build(key, names.from_subject([[["CN", serial]]]))
        leaf, *_ = await client.enroll(request, identifier=serial, attest=attest)
        if leaf.public_key() != key.public_key():
            raise MeasurementFailed("the certificate has another key")

    await _together(world, range(WARM_UP), enroll)
    gc.collect()
    attesting_s = 0.0
    server_before_s, before_s = await world.servers.cpu_s(), time.process_time()
    await _together(world, range(WARM_UP, WARM_UP + count), enroll)
    client_s = time.process_time() - before_s - attesting_s
    server_s = await world.servers.cpu_s() - server_before_s
    signature_ms = await reference_ms()
    return Figure(
        name=f"acme {spec}",
        value=count / (client_s + server_s),
        unit="per s and core",
        primitive="rsa2048 private",
        primitive_value=1000 / signature_ms,
        reference_ms=signature_ms,
        bound=Bound("scaled", 150, at_least=True) if spec == "p256" else None,
        note=f"client {client_s / count * 1000:.2f} ms, server {server_s / count * 1000:.2f} ms",
    )


async def _floor(operations: Operations, count: int) -> tuple[float, float]:
    """What the RSA operations of one of `count` passes cost, and one RSA-2048 signature; both in ms."""
    samples: Samples = {}
    await asyncio.to_thread(primitives.measure, operations, BATCHES, samples)
    prices = primitives.prices(samples)
    spent_s = sum(times * prices[operation] for operation, times in operations.items())
    return spent_s / count * 1000, prices[REFERENCE] * 1000


def _words(operations: Operations, count: int) -> str:
    """Such as `3 × rsa2048 private + 1 × rsa2048 public`."""
    return " + ".join(f"{times // count} × {one}" for one, times in sorted(operations.items()))


MEASUREMENTS: Final = (
    Measurement(name="pkcsreq", what="client: key to PKCSReq", measure=pkcs_req),
    Measurement(name="pkioperation", what="server: PKCSReq to CertRep", measure=pki_operation),
    Measurement(name="acme", what="attested ACME, both sides with TLS", measure=acme),
)
