"""ACME in group `certs`: a whole attested enrollment, client and server with TLS between them."""

import gc
import time
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from certs import csr, names
from certs.acme.client import AcmeClient
from certs.keys import FreshKeys, KeySpec, generate
from certs.transport import Transport
from tools.bench.certs_world import QUICK, WARM_UP, World, rounds_of, running, together
from tools.bench.figure import Bound, Figure, MeasurementFailed, calmest
from tools.bench.primitives import reference_ms

ENROLLMENTS: Final = 300


async def acme(quick: bool) -> list[Figure]:
    """A whole attested enrollment: account, order, challenge, finalize, certificate; several at once, over TLS."""
    count = QUICK if quick else ENROLLMENTS
    specs: tuple[KeySpec, ...] = ("p256", "p384")
    async with running() as world:
        return [
            calmest([await _acme(world, spec, count) for _ in range(rounds_of(quick))])
            for spec in specs
        ]


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

    await together(world, range(WARM_UP), enroll)
    gc.collect()
    attesting_s = 0.0
    server_before_s, before_s = await world.servers.cpu_s(), time.process_time()
    await together(world, range(WARM_UP, WARM_UP + count), enroll)
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
