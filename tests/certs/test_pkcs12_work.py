"""A PKCS#12 says itself how long it takes to open; one that asks for minutes is refused before anything is hashed."""

from pathlib import Path

import pytest

from certs import der, pkcs12_work
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.errors import MalformedMessage
from certs.identity import Identity
from certs.keys import generate, to_pem
from certs.pkcs12_work import check_work
from tests.support import openssl

CA = CertificateAuthority.create("CA", clock=SimulatedClock())
IDENTITY = CA.issue_identity(generate("p256"), CA.certificate.subject)
FILE = IDENTITY.to_pkcs12("secret")


def with_mac_iterations(data: bytes, iterations: int) -> bytes:
    version, content, mac = der.read(data).children()
    digest, salt, *_ = mac.children()
    changed = der.sequence(digest.raw, salt.raw, der.integer(iterations))
    return der.sequence(version.raw, content.raw, changed)


def test_what_we_and_others_write_is_opened() -> None:
    check_work(FILE)
    assert Identity.from_pkcs12(FILE, "secret").der == IDENTITY.der


@pytest.mark.parametrize("iterations", [pkcs12_work.MAX_ITERATIONS, 1 << 31, 1 << 2000])
def test_a_mac_that_would_take_minutes_is_refused_at_once(iterations: int) -> None:
    data = with_mac_iterations(FILE, iterations)
    with pytest.raises(MalformedMessage, match="PKCS#12: expected at most 3000000 iterations"):
        Identity.from_pkcs12(data, "secret")


@pytest.mark.peer
@pytest.mark.parametrize(
    "algorithms",
    [
        ("-keypbe", "AES-256-CBC", "-certpbe", "AES-256-CBC"),
        ("-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES"),
        ("-keypbe", "AES-256-CBC", "-certpbe", "NONE"),
        ("-keypbe", "NONE", "-certpbe", "AES-128-CBC"),
    ],
)
def test_the_iterations_of_openssls_files_are_found(
    algorithms: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = to_pem(IDENTITY.key) + IDENTITY.to_pem()
    (tmp_path / "identity.pem").write_bytes(pem)
    said = ("-iter", "5000", "-nomac", "-passout", "pass:secret", *algorithms)
    data = openssl("pkcs12", "-export", "-in", str(tmp_path / "identity.pem"), *said)
    encrypted = 2 - algorithms.count("NONE")
    monkeypatch.setattr(pkcs12_work, "MAX_ITERATIONS", 5000 * encrypted)
    check_work(data)
    monkeypatch.setattr(pkcs12_work, "MAX_ITERATIONS", 5000 * encrypted - 1)
    with pytest.raises(MalformedMessage, match=f"iterations, got {5000 * encrypted}"):
        check_work(data)


@pytest.mark.parametrize("data", [b"", b"\x30\x80", b"<html>", FILE[:-1], der.sequence(der.null())])
def test_what_cannot_be_read_is_left_to_others(data: bytes) -> None:
    check_work(data)
