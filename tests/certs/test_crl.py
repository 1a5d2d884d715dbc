"""Revocation lists: what they say, where they are served, and what openssl makes of them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import crl
from certs.ca import CertificateAuthority
from certs.ca_certificate import ca_name
from certs.clock import SimulatedClock
from certs.crl_door import CrlDoor
from certs.errors import MalformedMessage
from certs.issued_index import Revocation
from certs.keys import generate
from certs.revocation import OwnRevocations
from tests.support import openssl

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")])


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(NOW)


@pytest.fixture
def ca(clock: SimulatedClock) -> CertificateAuthority:
    return CertificateAuthority.create("Test CA", clock=clock)


@pytest.fixture
async def served(ca: CertificateAuthority) -> AsyncIterator[str]:
    """The URL of a server with the CA's list, and the CA writes it into what it issues."""
    door = CrlDoor({"test": ca})
    app = web.Application()
    door.add_routes(app)
    async with TestServer(app) as server:
        url = f"http://127.0.0.1:{server.port}"
        door.publish(url)
        yield url


def issue(ca: CertificateAuthority) -> x509.Certificate:
    return ca.issue(generate("p256").public_key(), NAME)


def test_nothing_points_anywhere_before_a_list_is_published(ca: CertificateAuthority) -> None:
    with pytest.raises(x509.ExtensionNotFound):
        issue(ca).extensions.get_extension_for_class(x509.CRLDistributionPoints)


async def test_a_certificate_leads_to_the_list_that_tells_whether_it_is_good(
    ca: CertificateAuthority, served: str
) -> None:
    good, bad = issue(ca), issue(ca)
    ca.revoke(bad, x509.ReasonFlags.key_compromise)
    extension = good.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    assert not extension.critical
    (point,) = extension.value
    assert point.full_name is not None
    (uri,) = point.full_name
    assert uri.value == f"{served}/crl/test.crl"
    async with ClientSession() as session, session.get(uri.value) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/pkix-crl"
        found = crl.read(await answer.read())
    assert found.is_signature_valid(ca.certificate.public_key())  # type: ignore[arg-type]
    assert found.get_revoked_certificate_by_serial_number(bad.serial_number) is not None
    assert found.get_revoked_certificate_by_serial_number(good.serial_number) is None


async def test_a_list_is_the_same_until_something_changes(
    ca: CertificateAuthority, clock: SimulatedClock, served: str
) -> None:
    url = f"{served}/crl/test.crl"
    async with ClientSession() as session:

        async def fetch(known: str = "") -> tuple[int, bytes, str]:
            headers = {"If-None-Match": known} if known else {}
            async with session.get(url, headers=headers) as answer:
                return answer.status, await answer.read(), answer.headers["ETag"]

        _, first, tag = await fetch()
        assert await fetch(tag) == (304, b"", tag)
        ca.revoke(issue(ca))
        status, second, newer = await fetch(tag)
        assert (status, len(crl.read(second))) == (200, 1)
        assert newer != tag
        assert second != first
        await clock.advance(timedelta(days=4).total_seconds())
        status, third, _ = await fetch(newer)
        assert status == 200  # before the old one ends on day 7
        read_second, read_third = crl.read(second), crl.read(third)
        assert read_third.next_update_utc == clock.now() + timedelta(days=7)
        numbers = [
            one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            for one in (read_second, read_third)
        ]
        assert numbers[0] < numbers[1]


def test_two_lists_of_one_moment_have_two_numbers(ca: CertificateAuthority) -> None:
    numbers = []
    for _ in range(3):
        ca.revoke(issue(ca))
        extensions = crl.read(ca.crl()).extensions
        numbers.append(extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    assert numbers == sorted(set(numbers))


async def test_an_unknown_ca_has_no_list(served: str) -> None:
    async with ClientSession() as session, session.get(f"{served}/crl/other.crl") as answer:
        assert answer.status == 404


async def test_revocation_status_is_that_of_the_issuing_ca(
    ca: CertificateAuthority, clock: SimulatedClock
) -> None:
    other = CertificateAuthority.create("Other CA", clock=clock)
    status = OwnRevocations([other, ca])
    leaf, foreign = issue(ca), issue(CertificateAuthority.create("Third", clock=clock))
    assert not await status.is_revoked(leaf)
    assert status.revoke(crl_fingerprint(leaf), x509.ReasonFlags.superseded)
    assert await status.is_revoked(leaf)
    assert ca.index.revoked[leaf.serial_number].reason is x509.ReasonFlags.superseded
    assert not status.revoke(crl_fingerprint(foreign))
    assert not await status.is_revoked(foreign)


def crl_fingerprint(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives import hashes

    return certificate.fingerprint(hashes.SHA256())


def test_a_certificate_is_found_by_its_fingerprint_after_a_restart(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    leaf = issue(CertificateAuthority.open(tmp_path, "A", clock=clock))
    again = CertificateAuthority.open(tmp_path, "A", clock=clock)
    assert again.revoke_fingerprint(crl_fingerprint(leaf))
    assert again.is_revoked(leaf)
    assert CertificateAuthority.open(tmp_path, "A", clock=clock).is_revoked(leaf)


def test_a_list_of_ten_thousand_is_made_in_one_go(
    ca: CertificateAuthority, clock: SimulatedClock
) -> None:
    for serial in range(1, 10_001):
        ca.index.revoke(Revocation(serial, NOW, x509.ReasonFlags.unspecified))
    assert len(crl.read(ca.crl())) == 10_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a list",
        b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
        bytes.fromhex("3003020101"),
    ],
)
def test_what_is_no_list_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage, match="CRL: expected a revocation list"):
        crl.read(data)


def test_a_list_cut_anywhere_is_malformed(ca: CertificateAuthority) -> None:
    ca.revoke(issue(ca))
    whole = ca.crl()
    for length in range(len(whole)):
        with pytest.raises(MalformedMessage):
            crl.read(whole[:length])


def test_a_list_that_is_too_large_is_not_read() -> None:
    with pytest.raises(MalformedMessage, match="at most"):
        crl.read(bytes(crl.MAX_CRL_BYTES + 1))


@pytest.mark.peer
def test_openssl_refuses_what_the_list_names(ca: CertificateAuthority, tmp_path: Path) -> None:
    good, bad = issue(ca), issue(ca)
    ca.revoke(bad, x509.ReasonFlags.key_compromise)
    shown = openssl("crl", "-inform", "DER", "-noout", "-text", stdin=ca.crl()).decode()
    assert "Key Compromise" in shown
    assert "X509v3 CRL Number" in shown
    files = tmp_path / "ca.pem", tmp_path / "crl.pem", tmp_path / "good.pem", tmp_path / "bad.pem"
    files[0].write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(crl.read(ca.crl()).public_bytes(Encoding.PEM))
    files[2].write_bytes(good.public_bytes(Encoding.PEM))
    files[3].write_bytes(bad.public_bytes(Encoding.PEM))
    check = ["verify", "-crl_check", "-attime", str(int(NOW.timestamp()) + 60)]
    check += ["-CAfile", str(files[0]), "-CRLfile", str(files[1])]
    openssl(*check, str(files[2]))
    with pytest.raises(AssertionError, match="certificate revoked"):
        openssl(*check, str(files[3]))


def test_a_ca_name_stays_with_its_list(ca: CertificateAuthority) -> None:
    assert crl.read(ca.crl()).issuer == ca_name("Test CA")
