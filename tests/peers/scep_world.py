"""Our SCEP server as `mdm-certs serve` starts it, for foreign clients; and what they need as files."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from certs.authorize import KnownDevices, StaticChallenge
from certs.clock import SystemClock
from certs.folder import CaFolder
from certs.serving import CertsServer, ServeOptions
from tests.support import rsa_key

CHALLENGE = "s3cret"


@asynccontextmanager
async def our_server(folder: Path, **options: Any) -> AsyncIterator[CertsServer]:
    """In its one default configuration but for `options`; all clients are served by the same."""
    clock = SystemClock()
    opened = await asyncio.to_thread(
        CaFolder.open, folder / "certs", "Test CA", ["127.0.0.1", "localhost"], clock=clock
    )
    chosen = {"challenges": StaticChallenge(CHALLENGE), "devices": KnownDevices({}), **options}
    async with CertsServer(opened, ServeOptions(**chosen), clock=clock) as server:
        yield server


def key_file(folder: Path, number: int, encoding: Encoding = Encoding.DER) -> str:
    """A cached RSA key as a PKCS#1 file; its name."""
    name = f"key-{number}.{'der' if encoding is Encoding.DER else 'pem'}"
    data = rsa_key(number).private_bytes(encoding, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (folder / name).write_bytes(data)
    return name
