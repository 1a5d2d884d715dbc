"""`mdm-certs inspect` on certificates with something odd in them: each oddity is told, and the rest is read."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from certs import attestation, csr, der, names
from certs.acme.device_attest import permanent_identifier_name
from certs.inspection.report import Report
from certs.keys import generate
from tests.certs.inspection.told import CA, CLOCK, has, tell

KEY = generate("p256").public_key()
NAME = names.from_subject([[["CN", "odd"]]])


def told(
    *extensions: tuple[x509.ObjectIdentifier, bytes],
    alternative_names: Sequence[x509.GeneralName] = (),
) -> Report:
    one = CA.issue(
        KEY,
        NAME,
        alternative_names=alternative_names,
        extensions=[(x509.UnrecognizedExtension(oid, value), False) for oid, value in extensions],
    )
    return tell(one.public_bytes(Encoding.DER))


def test_an_extension_that_cannot_be_read_is_told_and_the_rest_too() -> None:
    report = told((x509.ObjectIdentifier("2.5.29.17"), b"\xff\xff"))
    has(report, "certificate: CN=odd", "key: EC, secp256r1", "SHA-256: ")
    (problem,) = report.problems
    assert problem.startswith("certificate CN=odd: unreadable extensions: ")


def test_an_attested_value_that_is_no_text_is_told() -> None:
    report = told((attestation.SERIAL_NUMBER, b"\xff\xfe"), (attestation.UDID, b""))
    has(report, "attested serial number: 2 bytes fffe", "attested UDID: blank")
    (problem,) = report.problems
    assert "expected text in UTF-8" in problem


def test_a_leaf_without_freshness_proves_no_moment() -> None:
    report = told((attestation.SERIAL_NUMBER, b"SIM1"))
    has(report, "attested serial number: SIM1", "no freshness: proves a device, not a moment")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (permanent_identifier_name("SIM1"), "permanent identifier SIM1"),
        (x509.OtherName(x509.ObjectIdentifier("1.2.3"), der.utf8("x")), "other name 1.2.3 x"),
        (
            x509.OtherName(x509.ObjectIdentifier("1.2.3"), der.integer(5)),
            "other name 1.2.3 3 bytes 020105",
        ),
        (x509.DirectoryName(names.from_subject([[["CN", "y"]]])), "CN=y"),
        (x509.RFC822Name("a@b.c"), "a@b.c"),
    ],
)
def test_alternative_names_of_each_kind_are_told(name: x509.GeneralName, text: str) -> None:
    report = told(alternative_names=[name])
    has(report, f"alternative names: {text}")
    assert report.problems == []


def test_a_key_that_no_device_has_is_named_by_its_kind() -> None:
    odd = ed25519.Ed25519PrivateKey.generate()
    one = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(odd.public_key())
        .serial_number(1)
        .not_valid_before(CLOCK.now() - timedelta(days=1))
        .not_valid_after(CLOCK.now() + timedelta(days=1))
        .sign(odd, None)
    )
    has(tell(one.public_bytes(Encoding.DER)), "key: Ed25519", "self-signed")


def test_a_request_that_names_nobody_is_told() -> None:
    (problem,) = tell(csr.build(generate("p256"), x509.Name([]))).problems
    assert problem == "the request names nobody: neither subject nor alternative names"
