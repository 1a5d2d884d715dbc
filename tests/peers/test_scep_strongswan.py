"""strongSwan's `pki` at our SCEP server: with RA and without, polling, renewal, and each refusal (certificates.md 4.1).

It fetches by curl, which Debian has in libstrongswan-extra-plugins.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authorize import StaticChallenge
from certs.ca import CertificateAuthority
from certs.clock import SystemClock
from certs.scep.approval import ManualApproval, TimedApproval
from certs.scep.capabilities import ADVERTISED
from tests.certs.scep.support import door
from tests.peers.programs import Finished, needed, run
from tests.peers.scep_world import CHALLENGE, key_file, our_server
from tests.support import rsa_key

pytestmark = pytest.mark.peer

SUBJECT = "C=US, O=Test, CN=dev1"
SAN = "dev1.example.com"
OLD, NEW = 71, 72


@pytest.fixture(autouse=True)
def keys() -> None:
    """Made before the loop runs."""
    for number in (OLD, NEW):
        rsa_key(number)


@dataclass
class StrongSwan:
    """One client with its files."""

    program: str
    url: str
    folder: Path
    ca: CertificateAuthority
    encrypt_to: str = "ca.der"

    async def fetch_certificates(self, *, ra: bool) -> None:
        more = ("--raout", "ra.der") if ra else ()
        finished = await run(
            *(self.program, "--scepca", "--url", self.url, "--caout", "ca.der"),
            *(*more, "--force"),
            folder=self.folder,
        )
        assert finished.status == 0, finished.said
        self.encrypt_to = "ra.der" if ra else "ca.der"

    async def enroll(self, *more: str, key: int = OLD, password: str = CHALLENGE) -> Finished:
        secret = ("--password", password) if password else ()
        return await run(
            *(self.program, "--scep", "--url", self.url, "--in", key_file(self.folder, key)),
            *("--dn", SUBJECT, "--cacert-enc", self.encrypt_to, "--cacert-sig", "ca.der"),
            *(*secret, *more),
            folder=self.folder,
        )

    def check(self, finished: Finished, key: int = OLD) -> x509.Certificate:
        """What it printed is a certificate of our CA for its key."""
        assert finished.status == 0, finished.said
        leaf = x509.load_der_x509_certificate(finished.output)
        leaf.verify_directly_issued_by(self.ca.certificate)
        assert leaf.public_key() == rsa_key(key).public_key()
        assert leaf.subject.rfc4514_string() == "CN=dev1,O=Test,C=US"
        return leaf


@asynccontextmanager
async def served(folder: Path, **options: Any) -> AsyncIterator[StrongSwan]:
    program = needed("pki")
    async with our_server(folder, **options) as server:
        client = StrongSwan(program, server.scep_url, folder, server.folder.ca)
        await client.fetch_certificates(ra=True)
        yield client


@pytest.mark.parametrize(
    "algorithms",
    [(), ("--cipher", "des3"), ("--digest", "sha384"), ("--digest", "sha512")],
)
async def test_it_enrolls_through_the_ra(tmp_path: Path, algorithms: tuple[str, ...]) -> None:
    async with served(tmp_path) as client:
        # A SAN and a challenge together are written in an order that DER does not have.
        leaf = client.check(await client.enroll("--san", SAN, *algorithms))
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [SAN]


async def test_it_enrolls_where_the_ca_is_its_own_recipient(tmp_path: Path) -> None:
    program = needed("pki")
    async with door(StaticChallenge(CHALLENGE), with_ra=False, clock=SystemClock()) as scep:
        client = StrongSwan(program, scep.url, tmp_path, scep.ca)
        await client.fetch_certificates(ra=False)
        client.check(await client.enroll())


async def test_it_polls_until_it_is_approved(tmp_path: Path) -> None:
    approval = TimedApproval(SystemClock(), polls=1)
    async with served(tmp_path, approval=approval) as client:
        finished = await client.enroll("--interval", "1", "--maxpolltime", "10")
        client.check(finished)
        assert "PENDING" in finished.said or "pending" in finished.said


async def test_it_gives_up_when_nobody_approves(tmp_path: Path) -> None:
    approval = ManualApproval()
    async with served(tmp_path, approval=approval) as client:
        finished = await client.enroll("--interval", "1", "--maxpolltime", "1")
        assert finished.status != 0
        (waiting,) = approval.waiting
        approval.approve(waiting.id)
        client.check(await client.enroll())  # the same key is the same transaction


async def test_it_renews_with_the_old_certificate(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        old = client.check(await client.enroll("--san", SAN))
        (tmp_path / "old.der").write_bytes(old.public_bytes(Encoding.DER))
        renewal = ("--cert", "old.der", "--key", key_file(tmp_path, OLD))
        new = client.check(await client.enroll(*renewal, key=NEW, password=""), key=NEW)
        assert new.serial_number != old.serial_number
        client.ca.revoke(old)
        refused = await client.enroll(*renewal, key=NEW, password="")
        assert refused.status == 1
        assert "badRequest" in refused.said


@pytest.mark.parametrize("password", ["wrong", ""])
async def test_it_reads_our_refusal(tmp_path: Path, password: str) -> None:
    async with served(tmp_path) as client:
        finished = await client.enroll(password=password)
        assert finished.status == 1
        assert "badRequest - transaction not permitted" in finished.said
        assert client.ca.index.count == 2  # RA, TLS and nothing else


async def test_what_is_encrypted_to_somebody_else_is_bad_message_check(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        other = CertificateAuthority.create("Other", key=rsa_key(NEW), clock=SystemClock())
        der = other.certificate.public_bytes(Encoding.DER)
        (tmp_path / "other.der").write_bytes(der)
        client.encrypt_to = "other.der"
        finished = await client.enroll()
        assert finished.status == 1
        assert "badMessageCheck" in finished.said


async def test_it_renews_nothing_where_renewal_is_not_advertised(tmp_path: Path) -> None:
    program = needed("pki")
    async with door(StaticChallenge(CHALLENGE), with_ra=False, clock=SystemClock()) as scep:
        assert not ADVERTISED.supports("Renewal")
        client = StrongSwan(program, scep.url, tmp_path, scep.ca)
        await client.fetch_certificates(ra=False)
        old = client.check(await client.enroll())
        (tmp_path / "old.der").write_bytes(old.public_bytes(Encoding.DER))
        renewal = ("--cert", "old.der", "--key", key_file(tmp_path, OLD))
        assert (await client.enroll(*renewal, key=NEW, password="")).status != 0
