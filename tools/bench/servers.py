"""The servers that the bench measures against, in a process of their own so that their CPU is never counted as a device's.

`python -m tools.bench.servers KIND` starts the Apple stand-ins and one `mdmserver` on loopback and prints where they are as
one JSON line (`ServerFacts`). A line on stdin is answered with one JSON line that holds what it used so far; the
end of stdin stops everything.
"""

import asyncio
import resource
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, Literal, Self, cast, get_args

import msgspec
import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from certs.clock import SystemClock
from certs.event_loop import run_program
from emulator.apple.app import AppleServices
from emulator.apple.pki import SimPKI
from emulator.apple.portal import Portal
from mdmserver.app import MdmServer
from mdmserver.settings import Settings

ORGANIZATION: Final = "Bench"
SELDOM_S: Final = 10 * 365 * 86400.0

SERVER: Final = "mdmserver"
Kind = Literal["p256", "p384", "unsigned"]


def settings(kind: Kind) -> Settings:
    """The key that ACME asks for, and whether messages carry Mdm-Signature beside the client certificate.

    After the first session a session asks DeviceInformation alone, so that a cycle is Idle, one command, its result, the
    empty answer.
    """
    return Settings(
        organization=ORGANIZATION,
        acme_key_size=384 if kind == "p384" else 256,
        sign_message=kind != "unsigned",
        profile_list_every_s=SELDOM_S,
    )


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the Apple stand-ins are; they know the way to the rest."""

    url: str
    admin_url: str
    token: str
    root_pem: str  # of the stand-ins' TLS certificate


class ServerUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the whole process used: CPU seconds since its start, and the memory that is resident now."""

    cpu_s: float
    resident_mb: float

    @classmethod
    def now(cls) -> Self:
        return cls(cpu_s=time.process_time(), resident_mb=_resident_mb())


def _resident_mb() -> float:
    """From /proc where there is one; elsewhere the most that was ever resident."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return pages * resource.getpagesize() / (1 << 20)


async def serve(kind: Kind) -> None:
    """Run until stdin ends."""
    clock = SystemClock()
    pki = await asyncio.to_thread(SimPKI.open, None, clock)
    async with (
        MdmServer(
            settings(kind),
            clock=clock,
            machine_info_roots=[pki.root],
            attestation_roots=[pki.attestation.root],
        ) as server,
        AppleServices(pki=pki, clock=clock, portal=_portal(server)) as services,
    ):
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


def _portal(server: MdmServer) -> Portal:
    assigned = {"name": SERVER, "profile": server.assignment_profile()}
    return Portal.from_content({"organizations": [{"name": ORGANIZATION, "servers": [assigned]}]})


def say(answer: msgspec.Struct) -> None:
    """Write one JSON line to whoever started this process."""
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()


def run_server(serving: Coroutine[Any, Any, None]) -> None:
    """Log refusals to stderr, serve, stop."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        cache_logger_on_first_use=True,
    )
    run_program(serving)


def main() -> None:
    """The kind is the one argument."""
    kind = sys.argv[1]
    if kind not in get_args(Kind):
        sys.exit(f"tools.bench.servers: {kind} is none of {', '.join(get_args(Kind))}")
    run_server(serve(cast(Kind, kind)))


if __name__ == "__main__":
    main()
