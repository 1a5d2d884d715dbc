"""`mdm-certs serve` in a process of its own, so that its CPU is told apart from the clients'.

`python -m tools.bench.certs_server CA_KEY` makes a CA folder that goes when it stops, prints where the doors are as one JSON line
(`CertsFacts`), and then speaks as `tools.bench.servers` does: a line on stdin is answered with what it used so far,
the end of stdin stops it. Its ACME door trusts the attestation root that comes as PEM on the first line of stdin, in JSON.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import cast

import msgspec
from cryptography import x509

from certs.authorize import StaticChallenge
from certs.clock import SystemClock
from certs.devices_file import AnyAttestedDevice
from certs.folder import CaFolder
from certs.keys import KeySpec
from certs.serving import CertsServer, ServeOptions
from tools.bench.servers import ServerUse, run_server, say

CHALLENGE = "bench"


class CertsFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the doors are, and what to trust."""

    scep_url: str
    acme_directory: str
    root_pem: str


async def serve(folder: Path, ca_key: KeySpec) -> None:
    """Run until stdin ends."""
    clock = SystemClock()
    line = await asyncio.to_thread(sys.stdin.readline)
    root = x509.load_pem_x509_certificate(msgspec.json.decode(line, type=str).encode())
    ca = await asyncio.to_thread(
        CaFolder.open, folder, "Bench CA", ["127.0.0.1"], clock=clock, ca_key=ca_key
    )
    options = ServeOptions(
        challenges=StaticChallenge(CHALLENGE),
        devices=AnyAttestedDevice(),
        attestation_roots=(root,),
    )
    async with CertsServer(ca, options, clock=clock) as server:
        say(
            CertsFacts(
                scep_url=server.scep_url,
                acme_directory=server.acme_directory,
                root_pem=ca.root.read_text(),
            )
        )
        while await asyncio.to_thread(sys.stdin.readline):
            say(ServerUse.now())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="mdm-bench-") as made:
        run_server(serve(Path(made), cast(KeySpec, sys.argv[1])))
