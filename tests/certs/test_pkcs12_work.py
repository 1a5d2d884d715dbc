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


HMAC = der.sequence(der.oid("1.2.840.113549.2.9"), der.null())
AES = der.sequence(der.oid("2.16.840.1.101.3.4.1.42"), der.octet_string(bytes(16)))
SALT = der.octet_string(bytes(8))
DATA = der.oid("1.2.840.113549.1.7.1")


def pbkdf2(iterations: int) -> bytes:
    parameters = der.sequence(SALT, der.integer(iterations), der.integer(32), HMAC)
    return der.sequence(der.oid("1.2.840.113549.1.5.12"), parameters)


def scrypt(*costs: int) -> bytes:
    parameters = der.sequence(SALT, *(der.integer(cost) for cost in costs))
    return der.sequence(der.oid("1.3.6.1.4.1.11591.4.11"), parameters)


def key_under(derivation: bytes) -> bytes:
    """A bag whose key is encrypted by PBES2."""
    algorithm = der.sequence(der.oid("1.2.840.113549.1.5.13"), der.sequence(derivation, AES))
    encrypted = der.sequence(algorithm, der.octet_string(bytes(64)))
    return der.sequence(der.oid("1.2.840.113549.1.12.10.1.2"), der.context(0, encrypted))


def file_of(*bags: bytes, mac: bytes = b"") -> bytes:
    return file_of_contents(der.sequence(*bags), mac)


def file_of_contents(contents: bytes, mac: bytes = b"") -> bytes:
    content = der.sequence(DATA, der.context(0, der.octet_string(contents)))
    whole = der.sequence(DATA, der.context(0, der.octet_string(der.sequence(content))))
    return der.sequence(der.integer(3), whole, mac)


def test_a_mac_by_pbmac1_has_its_iterations_within() -> None:
    algorithm = der.sequence(der.oid("1.2.840.113549.1.5.14"), der.sequence(pbkdf2(1 << 31), HMAC))
    digest = der.sequence(algorithm, der.octet_string(bytes(32)))
    with pytest.raises(MalformedMessage, match="at most 3000000 iterations"):
        check_work(file_of(mac=der.sequence(digest, SALT, der.integer(1))))


def test_the_costs_of_scrypt_multiply() -> None:
    check_work(file_of(key_under(scrypt(16384, 8, 1))))
    with pytest.raises(MalformedMessage, match=f"at most 3000000 iterations, got {16384 * 200}"):
        check_work(file_of(key_under(scrypt(16384, 1, 200))))


def test_work_does_not_hide_behind_many_elements() -> None:
    secret = der.context(0, der.sequence(*[der.null()] * pkcs12_work.MAX_ELEMENTS))
    padding = der.sequence(der.oid("1.2.840.113549.1.12.10.1.5"), secret)
    with pytest.raises(MalformedMessage, match="a readable file"):
        check_work(file_of(key_under(pbkdf2(1 << 31)), padding))


@pytest.mark.parametrize("size", [8, 9])
def test_work_does_not_hide_in_an_encoding_that_openssl_alone_reads(size: int) -> None:
    bag = key_under(pbkdf2(1 << 31))
    contents = b"\x30" + bytes((0x80 | size,)) + len(bag).to_bytes(size, "big") + bag
    with pytest.raises(MalformedMessage, match="at most 3000000 iterations|a readable file"):
        check_work(file_of_contents(contents))


def test_no_number_makes_up_for_another() -> None:
    bags = key_under(pbkdf2(1 << 31)), key_under(pbkdf2(-(1 << 31))), key_under(scrypt(-9, 9, 9))
    with pytest.raises(MalformedMessage, match=f"at most 3000000 iterations, got {1 << 31}"):
        check_work(file_of(*bags))


def test_what_lies_deeper_than_a_pkcs12_goes_is_not_followed() -> None:
    data = der.sequence(der.oid("1.2.3"))
    for _ in range(100):
        data = der.sequence(DATA, der.context(0, der.octet_string(data)))
    check_work(file_of(data))


@pytest.mark.parametrize("data", [b"", b"\x30\x80", b"<html>", FILE[:-1], der.sequence(der.null())])
def test_what_cannot_be_read_is_left_to_others(data: bytes) -> None:
    check_work(data)
