"""micromdm's scepclient at our server, and our client at its scepserver (certificates.md 4.3)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs.clock import SystemClock
from certs.errors import ScepFailure, UnexpectedAnswer
from certs.identity import Identity
from certs.keys import FreshKeys
from certs.scep.capabilities import Capabilities
from certs.scep.client import ScepClient
from certs.scep.message import FailInfo
from tests.certs.scep.support import SocketTransport, request_for
from tests.peers.programs import free_ports, listening, needed, run
from tests.peers.scep_world import CHALLENGE, our_server
from tests.support import rsa_key

pytestmark = pytest.mark.peer


@pytest.fixture(autouse=True)
def keys() -> None:
    """Made before the loop runs."""
    for number in (1, 2):
        rsa_key(number)


@pytest.mark.parametrize("pinned", [False, True])
async def test_scepclient_enrolls_and_renews(tmp_path: Path, pinned: bool) -> None:
    scepclient = needed("scepclient")
    async with our_server(tmp_path) as server:
        ra, ca = server.folder.ra.certificate, server.folder.ca.certificate
        pin = ("-ca-fingerprint", ra.fingerprint(hashes.SHA256()).hex()) if pinned else ()

        async def ask(*more: str) -> x509.Certificate:
            said = await run(
                *(scepclient, "-server-url", server.scep_url, "-private-key", "client.key"),
                *("-certificate", "client.crt", "-cn", "scepdev", "-keySize", "2048"),
                *(*pin, *more),
                folder=tmp_path,
            )
            assert said.status == 0, said.said
            leaf = x509.load_pem_x509_certificate((tmp_path / "client.crt").read_bytes())
            leaf.verify_directly_issued_by(ca)
            return leaf

        first = await ask("-challenge", CHALLENGE)
        second = await ask()  # signed with the first, so nobody asks for the challenge
        assert first != second
        assert first.subject == second.subject


async def test_scepclient_reads_our_refusal(tmp_path: Path) -> None:
    scepclient = needed("scepclient")
    async with our_server(tmp_path) as server:
        said = await run(
            *(scepclient, "-server-url", server.scep_url, "-private-key", "client.key"),
            *("-certificate", "client.crt", "-cn", "scepdev", "-challenge", "wrong"),
            folder=tmp_path,
        )
        assert said.status != 0
        assert b"failInfo: badRequest (2)" in said.output
        assert not (tmp_path / "client.crt").exists()


@asynccontextmanager
async def scepserver(folder: Path) -> AsyncIterator[tuple[str, SocketTransport]]:
    program = needed("scepserver")
    made = await run(
        *(program, "ca", "-init", "-depot", "depot", "-organization", "T", "-country", "US"),
        *("-keySize", "2048"),
        folder=folder,
    )
    assert made.status == 0, made.said
    (port,) = free_ports(1)
    arguments = ("-depot", "depot", "-port", str(port), f"-challenge={CHALLENGE}")
    async with (
        listening(program, *arguments, "-allowrenew", "0", port=port, folder=folder),
        aiohttp.ClientSession() as session,
    ):
        yield f"http://127.0.0.1:{port}/scep", SocketTransport(session)


def client(url: str, transport: SocketTransport, **settings: Any) -> ScepClient:
    return ScepClient(transport, url, clock=SystemClock(), keys=FreshKeys(), **settings)


POST = "POSTPKIOperation"


@pytest.mark.parametrize("signer", ["apple", "same-key"])
@pytest.mark.parametrize("keywords", [None, ("AES", "SHA-256", POST), ("DES3", "SHA-1", POST)])
async def test_we_enroll_at_scepserver(
    tmp_path: Path, signer: str, keywords: tuple[str, ...] | None
) -> None:
    async with scepserver(tmp_path) as (url, transport):
        capabilities = None if keywords is None else Capabilities(keywords)
        asking = client(url, transport, signer=signer, capabilities=capabilities)
        leaf, *_ = await asking.enroll(rsa_key(1), request_for(1, challenge=CHALLENGE))
        assert leaf.public_key() == rsa_key(1).public_key()
        assert transport.sent[-1][0] == "POST"


async def test_scepserver_cannot_read_a_get_as_apple_sends_it(tmp_path: Path) -> None:
    """It takes the bare plus for a space; Apple's client is no better off there (certificates.md 1.1)."""
    async with scepserver(tmp_path) as (url, transport):
        asking = client(url, transport, capabilities=Capabilities(("AES", "SHA-256")))
        with pytest.raises(UnexpectedAnswer, match="HTTP 500"):
            await asking.enroll(rsa_key(1), request_for(1, challenge=CHALLENGE))
        assert transport.answers[-1].body.startswith(b"illegal base64")


async def test_we_renew_at_scepserver(tmp_path: Path) -> None:
    async with scepserver(tmp_path) as (url, transport):
        asking = client(url, transport)
        assert (await asking.get_ca_caps()).supports("Renewal")
        leaf, *_ = await asking.enroll(rsa_key(1), request_for(1, challenge=CHALLENGE))
        current = Identity(rsa_key(1), leaf)
        renewed, *_ = await asking.renew(current, rsa_key(2), request_for(2, challenge=CHALLENGE))
        assert renewed.public_key() == rsa_key(2).public_key()


@pytest.mark.parametrize("challenge", ["wrong", None])
async def test_scepserver_refuses_a_wrong_challenge(tmp_path: Path, challenge: str | None) -> None:
    async with scepserver(tmp_path) as (url, transport):
        with pytest.raises(ScepFailure) as failure:
            await client(url, transport).enroll(rsa_key(1), request_for(1, challenge=challenge))
        assert failure.value.fail_info == FailInfo.BAD_REQUEST
