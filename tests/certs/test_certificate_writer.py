"""Certificates by our template say what cryptography's builder says, and openssl reads them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs import names
from certs.certificate_profile import SIMULATED, distribution_point, key_identifier, usages
from certs.certificate_writer import (
    encode_extension,
    encode_key_identifier,
    write_certificate,
)
from certs.keys import PrivateKey, generate, spki_der
from tests.support import openssl, rsa_key

START = datetime(2026, 1, 1, tzinfo=UTC)
ISSUER = names.from_subject([[["O", "Simulated"]], [["CN", "Test CA"]]])
SUBJECT = names.from_subject([[["CN", "Gerät 5"], ["O", "Test"]]])
KEYS: dict[str, PrivateKey] = {
    "rsa": rsa_key(1),
    "p256": generate("p256"),
    "p384": generate("p384"),
    "p521": generate("p521"),
}
DIGESTS: dict[str, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


def facts(key: PrivateKey, **changes: Any) -> dict[str, Any]:
    alternative = x509.SubjectAlternativeName([x509.DNSName("device.example.com")])
    return {
        "issuer": ISSUER,
        "subject": SUBJECT,
        "public_key": rsa_key(2).public_key(),
        "serial_number": 1 << 127,
        "start": START,
        "end": START + timedelta(days=365),
        "extensions": [
            *usages(True, False, None, ()),
            identifier(rsa_key(2)),
            (SIMULATED, False),
            (distribution_point("http://ca.example.com/crl/a.crl"), False),
            (alternative, True),
        ],
        "key": key,
        "digest": "sha256",
    } | changes


def identifier(key: PrivateKey) -> tuple[x509.ExtensionType, bool]:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False


def by_template(said: dict[str, Any]) -> x509.Certificate:
    written = write_certificate(
        issuer=said["issuer"].public_bytes(),
        subject=said["subject"].public_bytes(),
        spki=spki_der(said["public_key"]),
        serial_number=said["serial_number"],
        start=said["start"],
        end=said["end"],
        extensions=[encode_extension(*extension) for extension in said["extensions"]],
        key=said["key"],
        digest=said["digest"],
    )
    return x509.load_der_x509_certificate(written)


def by_builder(said: dict[str, Any]) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .issuer_name(said["issuer"])
        .subject_name(said["subject"])
        .public_key(said["public_key"])
        .serial_number(said["serial_number"])
        .not_valid_before(said["start"])
        .not_valid_after(said["end"])
    )
    for extension, critical in said["extensions"]:
        builder = builder.add_extension(extension, critical)
    return builder.sign(said["key"], DIGESTS[said["digest"]])


@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize("kind", KEYS)
def test_the_signed_part_is_that_of_the_builder_byte_for_byte(kind: str, digest: str) -> None:
    said = facts(KEYS[kind], digest=digest)
    ours, theirs = by_template(said), by_builder(said)
    assert ours.tbs_certificate_bytes == theirs.tbs_certificate_bytes
    assert ours.signature_algorithm_oid == theirs.signature_algorithm_oid
    assert ours.signature_hash_algorithm is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": x509.Name([])},
        {"end": datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)},
        {"end": datetime(2050, 1, 1, tzinfo=UTC)},
        {"end": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)},
        {"start": datetime(1950, 1, 1, tzinfo=UTC)},
        {"serial_number": 1},
        {"serial_number": (1 << 159) - 1},
        {"public_key": KEYS["p384"].public_key()},
        {"start": START + timedelta(microseconds=999_999)},
    ],
    ids=["empty", "2049", "2050", "9999", "1950", "one", "twenty octets", "ec", "microseconds"],
)
def test_each_corner_is_that_of_the_builder(changes: dict[str, Any]) -> None:
    said = facts(KEYS["p256"], **changes)
    ours, theirs = by_template(said), by_builder(said)
    assert ours.tbs_certificate_bytes == theirs.tbs_certificate_bytes


@pytest.mark.peer
@pytest.mark.parametrize("kind", KEYS)
def test_openssl_verifies_the_signature(kind: str, tmp_path: Path) -> None:
    key = KEYS[kind]
    root = facts(
        key,
        subject=ISSUER,
        public_key=key.public_key(),
        extensions=[*usages(kind == "rsa", True, None, ()), identifier(key)],
        start=datetime.now(UTC) - timedelta(days=1),
    )
    (tmp_path / "root.pem").write_bytes(by_template(root).public_bytes(serialization.Encoding.PEM))
    leaf = facts(key, extensions=[*usages(True, False, None, ()), identifier(rsa_key(2))])
    leaf["start"] = root["start"]
    (tmp_path / "leaf.pem").write_bytes(by_template(leaf).public_bytes(serialization.Encoding.PEM))
    said = openssl("verify", "-CAfile", str(tmp_path / "root.pem"), str(tmp_path / "leaf.pem"))
    assert said.endswith(b"OK\n")


@pytest.mark.parametrize(
    "changes",
    [
        {"end": START - timedelta(seconds=1)},
        {"start": datetime(1949, 12, 31, tzinfo=UTC)},
        {"serial_number": 0},
        {"serial_number": 1 << 160},
        {"extensions": [(SIMULATED, False), (SIMULATED, True)]},
    ],
    ids=["ends before it begins", "before UTCTime", "zero", "too long", "twice"],
)
def test_what_no_certificate_can_say_is_a_value_error(changes: dict[str, Any]) -> None:
    assert isinstance(KEYS["p256"], ec.EllipticCurvePrivateKey)
    with pytest.raises(ValueError, match=r"valid|serial|twice"):
        by_template(facts(KEYS["p256"], **changes))


@pytest.mark.parametrize("kind", KEYS)
def test_the_key_identifier_is_that_of_cryptography(kind: str) -> None:
    public = KEYS[kind].public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    assert key_identifier(spki_der(public)) == identifier.digest
    assert encode_key_identifier(identifier.digest) == encode_extension(identifier, False)
