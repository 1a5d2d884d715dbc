"""What is read of certificates once: right, bounded, and of the certificate that is asked about."""

import pytest
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import certificate_parts
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.keys import generate, spki_der

CLOCK = SimulatedClock()
CA = CertificateAuthority.create("Parts CA", clock=CLOCK)


def leaf(name: str) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    return CA.issue(generate("p256").public_key(), subject)


def test_the_parts_are_those_that_asn1crypto_finds() -> None:
    certificate = leaf("device")
    found = certificate_parts.parts(certificate)
    theirs = asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))
    tbs = theirs["tbs_certificate"]
    assert found.issuer == tbs["issuer"].dump()
    assert found.subject == tbs["subject"].dump()
    assert found.spki == tbs["subject_public_key_info"].dump()
    assert found.issuer_and_serial.endswith(found.issuer + tbs["serial_number"].dump())
    key = certificate_parts.public_key(certificate)
    assert key == certificate.public_key()
    assert spki_der(certificate.public_key()) == found.spki  # type: ignore[arg-type]


def test_the_bytes_are_those_that_were_loaded() -> None:
    data = leaf("device").public_bytes(Encoding.DER)
    loaded = certificate_parts.load(data)
    assert certificate_parts.der_of(loaded) is data
    again = x509.load_der_x509_certificate(data)
    assert certificate_parts.der_of(again) == data


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certs.certificate_parts.MAX_KEPT", 4)
    monkeypatch.setattr("certs.certificate_parts._kept", {})
    made = [leaf(f"device {number}") for number in range(10)]
    for certificate in made:
        assert certificate_parts.subject_der(certificate) == certificate.subject.public_bytes()
    assert len(certificate_parts._kept) <= 4


def test_a_large_certificate_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certs.certificate_parts.MAX_KEPT_BYTES", 100)
    monkeypatch.setattr("certs.certificate_parts._kept", {})
    certificate = leaf("device")
    assert certificate_parts.subject_der(certificate) == certificate.subject.public_bytes()
    assert certificate_parts._kept == {}


def test_a_certificate_with_the_id_of_one_that_went_is_read_anew() -> None:
    for number in range(1000):  # each may get the memory of the one before
        name = f"device {number}"
        assert name.encode() in certificate_parts.subject_der(leaf(name))
