"""SCEP in group `certs`: what a PKCSReq costs its client, and what answering one costs the server.

The client is the device's own, stopped where it would send; the server gets requests that were made before the clock starts, each
with a key of its own.
"""

import asyncio
import gc
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric import rsa

from certs import cms, csr, names
from certs.authorize import StaticChallenge
from certs.clock import SystemClock
from certs.folder import CaFolder
from certs.keys import KeySpec, PrivateKey, forget_spkis, load_own
from certs.scep.capabilities import ADVERTISED
from certs.scep.client import ScepClient
from certs.scep.message import CA_RA_CERTIFICATES, CertRep, PkiStatus
from certs.scep.server import ScepServer
from certs.transport import HttpResponse, Transport
from tools.bench import primitives
from tools.bench.certs_server import CHALLENGE
from tools.bench.certs_world import CA_KEY, QUICK, WARM_UP, World, rounds_of, running, together
from tools.bench.core import on_one_core
from tools.bench.counter import OperationCounter
from tools.bench.figure import Bound, Figure, MeasurementFailed, calmest
from tools.bench.operation import Operations
from tools.bench.primitives import REFERENCE, Samples, reference_ms, reference_signature
from tools.bench.world import LoadedKeys, make_keys

REQUESTS: Final = 100
BATCHES: Final = 5
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


async def pkcs_req(quick: bool) -> list[Figure]:
    """From the key to the bytes of the PKCSReq: CSR, self-signed certificate, envelope, signature."""
    count = QUICK if quick else REQUESTS
    ders = await asyncio.to_thread(make_keys, count + WARM_UP)
    others = await asyncio.to_thread(make_keys, count + WARM_UP)
    async with running() as world:
        answers = await world.questions()
        signers: tuple[Signer, ...] = ("same-key", "apple")
        return [
            calmest(
                [
                    await _pkcs_req(world, answers, signer, ders, others)
                    for _ in range(rounds_of(quick))
                ]
            )
            for signer in signers
        ]


async def _pkcs_req(
    world: World,
    answers: Mapping[str, HttpResponse],
    signer: Signer,
    ders: Sequence[bytes],
    others: Sequence[bytes],
) -> Figure:
    """Each key is loaded anew, so that its first use counts; `others` are those thrown away."""
    forget_spkis()
    ahead, throw_away = [load_own(der) for der in ders], LoadedKeys(others)
    count = len(ders) - WARM_UP
    counter = OperationCounter()
    spent_s = 0.0
    with counter.counting(), on_one_core():
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
    rounds = rounds_of(quick)
    return [
        await _answered("pkioperation", CA_KEY, ders, rounds, Bound("scaled", 1.2)),
        await _answered("pkioperation rsa-ca", "rsa2048", ders, rounds, None),
        calmest([await _answered_over_http(ders) for _ in range(rounds)]),
    ]


async def _answered_over_http(ders: Sequence[bytes]) -> Figure:
    """The same by the server's process, which knows none of the requests yet."""
    async with running() as world:
        answers = await world.questions()
        messages = await _messages(world.clock, answers, ders)

        async def issue(transport: Transport, number: int) -> None:
            await _issued(world, transport, messages[number])

        await together(world, range(WARM_UP), issue)
        before_s = await world.servers.cpu_s()
        await together(world, range(WARM_UP, len(messages)), issue)
        spent_s = await world.servers.cpu_s() - before_s
    each_s, signature_ms = spent_s / (len(ders) - WARM_UP), await reference_ms()
    return _pki_figure("pkioperation http", CA_KEY, each_s, signature_ms, None)


async def _answered(
    name: str, ca_key: KeySpec, ders: Sequence[bytes], rounds: int, bound: Bound | None
) -> Figure:
    """From the pkiMessage to the CertRep, by the server of a CA folder in this process, one after the other."""
    clock, figures = SystemClock(), []
    with tempfile.TemporaryDirectory(prefix="mdm-bench-") as made:
        folder = await asyncio.to_thread(
            CaFolder.open, Path(made), "Bench CA", ["127.0.0.1"], clock=clock, ca_key=ca_key
        )
        folder.ca.crl_url = "http://127.0.0.1/crl/bench.crl"
        certificates = cms.certs_only([folder.ra.certificate, folder.ca.certificate])
        answers = {
            "get_ca_cert": HttpResponse(
                status=200, body=certificates, headers={"content-type": CA_RA_CERTIFICATES}
            ),
            "get_ca_caps": HttpResponse(status=200, body=ADVERTISED.encode()),
        }
        messages = await _messages(clock, answers, ders)
        for _ in range(rounds):
            server = ScepServer(folder.ca, folder.ra, StaticChallenge(CHALLENGE), clock=clock)
            forget_spkis()
            with on_one_core():
                spent_s, signatures_s = await _answer_all(server, messages)
            count = len(messages) - WARM_UP
            signature_ms = signatures_s / count * 1000
            figures.append(_pki_figure(name, ca_key, spent_s / count, signature_ms, bound))
    return calmest(figures)


async def _answer_all(server: ScepServer, messages: Sequence[bytes]) -> tuple[float, float]:
    """CPU seconds for all behind the warm-up, and for a signature beside each: what slows down one slows down both."""
    signature, signatures_s, spent_s = await reference_signature(), 0.0, 0.0
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
    return spent_s, signatures_s


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
