"""The Apple stand-ins in a process of their own, for the group `push`.

`python -m tools.bench.push_server TOPIC` prints where they are and a push certificate for TOPIC as one JSON line
(`PushFacts`), and then speaks as `tools.bench.servers` does.
"""

import asyncio
import sys

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from certs.clock import SystemClock
from certs.identity import Identity
from certs.keys import generate
from emulator.apple.app import AppleServices
from emulator.apple.pki import SimPKI
from tools.bench.servers import ServerUse, run_server, say


class PushFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The provider API, the services with the wake channel, and what one needs for both."""

    push_url: str
    url: str
    token: str
    root_pem: str
    identity_pem: str  # push certificate and key


async def serve(topic: str) -> None:
    """Run until stdin ends."""
    clock = SystemClock()
    pki = await asyncio.to_thread(SimPKI.open, None, clock)
    key = generate("p256")
    identity = Identity(key, pki.issue_push_certificate(key.public_key(), topic))
    async with AppleServices(pki=pki, clock=clock) as services:
        say(
            PushFacts(
                push_url=services.push_url,
                url=services.url,
                token=services.token,
                root_pem=pki.tls_ca.certificate.public_bytes(Encoding.PEM).decode(),
                identity_pem=identity.to_pem().decode(),
            )
        )
        while await asyncio.to_thread(sys.stdin.readline):
            say(ServerUse.now())


if __name__ == "__main__":
    run_server(serve(sys.argv[1]))
