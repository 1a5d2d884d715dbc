"""The Apple stand-ins in a process of their own, for the group `apple`: an organization, and nothing in it.

`python -m tools.bench.apple_server` prints where they are as one JSON line (`ServerFacts`), and then speaks as
`tools.bench.servers` does.
"""

import asyncio
import sys

from cryptography.hazmat.primitives.serialization import Encoding

from certs.clock import SystemClock
from emulator.apple.app import AppleServices
from emulator.apple.pki import SimPKI
from emulator.apple.portal import Portal
from tools.bench.servers import ORGANIZATION, ServerFacts, ServerUse, run_server, say


async def serve() -> None:
    """Run until stdin ends."""
    clock = SystemClock()
    pki = await asyncio.to_thread(SimPKI.open, None, clock)
    portal = Portal.from_content(
        {"organizations": [{"name": ORGANIZATION, "email": "it@example.com"}]}
    )
    async with AppleServices(pki=pki, clock=clock, portal=portal) as services:
        say(
            ServerFacts(
                url=services.url,
                admin_url=services.admin_url,
                token=services.token,
                root_pem=pki.tls_ca.certificate.public_bytes(Encoding.PEM).decode(),
            )
        )
        while await asyncio.to_thread(sys.stdin.readline):
            say(ServerUse.now())


if __name__ == "__main__":
    run_server(serve())
