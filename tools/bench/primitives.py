"""What each operation costs by itself on this machine, now: the median of several short batches of CPU time.

A handshake is the client's side of a full TLS 1.3 handshake with an EC P-256 server, through memory BIOs, without sockets or
event loop, its SSL object included. A client identity is loaded into the context before the clock starts, so its key
is used for the first time in the handshake, as on every connection of a device.
"""

import asyncio
import ssl
import statistics
import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Final, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from certs import keys, names
from certs.ca import CertificateAuthority, issue_server_identity
from certs.clock import SystemClock
from certs.identity import Identity
from certs.keys import KeySpec, PrivateKey
from certs.tls import client_context, load_identity, server_context
from tools.bench.counter import ANONYMOUS
from tools.bench.operation import Operation

REFERENCE: Final = Operation("rsa2048", "private")
REFERENCE_MS: Final = 0.30  # absolute figures hold where the reference takes this long
MESSAGE: Final = bytes(256)
HASHES: Final = {"p256": hashes.SHA256(), "p384": hashes.SHA384(), "p521": hashes.SHA512()}

Samples = dict[Operation, list[float]]


def measure(operations: Iterable[Operation], batches: int, into: Samples) -> None:
    """Add `batches` samples of each operation, in seconds. RSA generation is timed in the run itself."""
    for operation in sorted({*operations, REFERENCE}):
        if operation.verb == "generate" and operation.key.startswith("rsa"):
            continue
        batch = _batch(operation)
        into.setdefault(operation, []).extend(batch() for _ in range(batches))


async def reference_ms(batches: int = 5) -> float:
    """One RSA-2048 signature now, in ms; off the event loop."""
    samples: Samples = {}
    await asyncio.to_thread(measure, [REFERENCE], batches, samples)
    return prices(samples)[REFERENCE] * 1000


async def reference_signature() -> Callable[[], float]:
    """Times one RSA-2048 signature, in seconds: for work that wants its reference from the very same moments."""
    key = await asyncio.to_thread(_key, REFERENCE.key)

    def signature() -> float:
        started = time.thread_time()
        _sign(key)
        return time.thread_time() - started

    return signature


def prices(samples: Samples) -> dict[Operation, float]:
    """The median of each."""
    return {operation: statistics.median(taken) for operation, taken in samples.items()}


def _batch(operation: Operation) -> Callable[[], float]:
    """A function that gives one sample."""
    match operation.verb:
        case "handshake":
            return lambda: _handshake(operation.key)
        case "first use":
            return lambda: _first_use(operation.key)
        case "private":
            key = _key(operation.key)
            return lambda: _repeated(lambda: _sign(key), 20)
        case "public":
            verify = _verification(operation.key)
            return lambda: _repeated(verify, 50)
        case "generate":
            return lambda: _repeated(lambda: keys.generate(cast(KeySpec, operation.key)), 20)


def _repeated(work: Callable[[], object], times: int) -> float:
    work()
    started = time.thread_time()
    for _ in range(times):
        work()
    return (time.thread_time() - started) / times


@cache
def _key(name: str) -> PrivateKey:
    return keys.generate(cast(KeySpec, name))


def _sign(key: PrivateKey) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(MESSAGE, ec.ECDSA(_hash(key)))


def _hash(key: ec.EllipticCurvePrivateKey) -> hashes.HashAlgorithm:
    return HASHES[f"p{key.curve.key_size}"]


def _verification(name: str) -> Callable[[], None]:
    key = _key(name)
    signature = _sign(key)
    if isinstance(key, rsa.RSAPrivateKey):
        public = key.public_key()
        return lambda: public.verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    public_ec, digest = key.public_key(), _hash(key)
    return lambda: public_ec.verify(signature, MESSAGE, ec.ECDSA(digest))


def _first_use(name: str) -> float:
    """What the first private operation of a key object costs over a later one."""
    key = keys.load_own(keys.to_der(_key(name)))
    started = time.thread_time()
    _sign(key)
    between = time.thread_time()
    _sign(key)
    return max(0.0, 2 * between - started - time.thread_time())


@cache
def _authority() -> CertificateAuthority:
    return CertificateAuthority.create("Bench Root CA", clock=SystemClock())


@cache
def _server() -> ssl.SSLContext:
    root = _authority()
    identity = issue_server_identity(root, ["127.0.0.1"], keys.generate("p256"))
    return server_context(identity, client_roots=[root.certificate])


@cache
def _client_identity(name: str) -> Identity:
    return _authority().issue_identity(_key(name), names.from_subject([[["CN", "Bench"]]]))


@cache
def _client(name: str) -> ssl.SSLContext:
    return client_context([_authority().certificate])


def _handshake(name: str) -> float:
    """One full handshake; the client's part of it."""
    context = _client(name)
    if name != ANONYMOUS:
        load_identity(context, _client_identity(name))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = _server().wrap_bio(to_server, to_client, server_side=True)
    started = time.thread_time()
    client = context.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    spent = time.thread_time() - started
    done = {client: False, server: False}
    while not all(done.values()):
        for side in (client, server):
            started = time.thread_time()
            try:
                side.do_handshake()
                done[side] = True
            except ssl.SSLWantReadError:
                pass
            if side is client:
                spent += time.thread_time() - started
    return spent
