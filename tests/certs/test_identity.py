"""Identities in PEM and PKCS#12."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from certs.ca import CertificateAuthority
from certs.clock import SystemClock
from certs.errors import MalformedMessage
from certs.identity import Identity, is_pkcs12
from certs.keys import KeyWorkOnEventLoop, PrivateKey, generate, load_checked, spki_der, to_pem
from tests.support import openssl, rsa_key

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])


def issued(key: PrivateKey) -> Identity:
    root = CertificateAuthority.create("Root", clock=SystemClock())
    sub = CertificateAuthority.create("Sub", clock=SystemClock(), parent=root)
    return sub.issue_identity(key, NAME)


@pytest.mark.parametrize(
    "key", [generate("p256"), generate("p521"), rsa_key()], ids=["p256", "p521", "rsa"]
)
def test_pem_round_trip(key: PrivateKey) -> None:
    identity = issued(key)
    again = Identity.from_own_pem(identity.to_pem())
    assert again.certificate == identity.certificate
    assert again.chain == identity.chain
    assert len(again.chain) == 1
    assert spki_der(again.key.public_key()) == spki_der(key.public_key())


@pytest.mark.parametrize("key", [generate("p256"), rsa_key()], ids=["p256", "rsa"])
def test_pkcs12_round_trip(key: PrivateKey) -> None:
    identity = issued(key)
    again = Identity.from_pkcs12(identity.to_pkcs12("geheim"), "geheim")
    assert (again.certificate, again.chain) == (identity.certificate, identity.chain)
    assert spki_der(again.key.public_key()) == spki_der(key.public_key())


def test_a_wrong_password_and_damage_look_alike() -> None:
    stored = issued(generate("p256")).to_pkcs12("geheim")
    damaged = bytearray(stored)
    damaged[len(stored) // 2] ^= 1
    messages = set()
    for data, password in (
        (stored, "falsch"),
        (bytes(damaged), "geheim"),
        (stored, "geheim\0"),
        (stored, "\ud800"),
    ):
        with pytest.raises(MalformedMessage) as caught:
            Identity.from_pkcs12(data, password)
        messages.add(str(caught.value))
    assert messages == {"PKCS#12: expected a readable file and its password"}


@pytest.mark.parametrize("data", [b"", b"PFX", bytes.fromhex("3003020103"), bytes(40)])
def test_what_is_no_pkcs12_is_told_apart_from_a_wrong_password(data: bytes) -> None:
    for password in ("geheim", None):
        with pytest.raises(MalformedMessage, match="^PKCS#12: expected a PKCS#12 file$"):
            Identity.from_pkcs12(data, password)
    whole = issued(generate("p256")).to_pkcs12("geheim")
    assert is_pkcs12(whole)
    assert not any(is_pkcs12(whole[:length]) for length in range(len(whole)))


def test_a_key_that_is_not_the_certificates_is_refused() -> None:
    identity = issued(generate("p256"))
    mixed = to_pem(generate("p256")) + identity.certificates_pem()
    with pytest.raises(MalformedMessage, match="a certificate for this key"):
        Identity.from_own_pem(mixed)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    odd = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    mixed = odd + issued(generate("p256")).certificates_pem()
    with pytest.raises(MalformedMessage, match="an RSA or EC key, got 'Ed25519PrivateKey'"):
        Identity.from_own_pem(mixed)
    with pytest.raises(MalformedMessage, match="RSA or EC, got 'Ed25519PrivateKey'"):
        load_checked(odd)
    CertificateAuthority.open(tmp_path, "A", clock=SystemClock())
    (tmp_path / "key.pem").write_bytes(odd)
    with pytest.raises(MalformedMessage, match="key.pem: expected an RSA or EC key"):
        CertificateAuthority.open(tmp_path, "A", clock=SystemClock())


@pytest.mark.parametrize("data", [b"", b"-----BEGIN", to_pem(generate("p256"))])
def test_what_is_no_identity_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Identity.from_own_pem(data)


async def test_a_pkcs12_is_not_loaded_on_the_event_loop() -> None:
    with pytest.raises(KeyWorkOnEventLoop):
        Identity.from_pkcs12(b"", None)


def test_der_and_fingerprint_are_the_certificates() -> None:
    identity = issued(generate("p256"))
    assert identity.der == identity.certificate.public_bytes(Encoding.DER)
    assert x509.load_der_x509_certificate(identity.der).not_valid_after_utc > datetime.now(UTC)
    assert len(identity.sha256) == 32


@pytest.mark.peer
def test_openssl_reads_our_pkcs12() -> None:
    stored = issued(generate("p256")).to_pkcs12("geheim")
    shown = openssl("pkcs12", "-passin", "pass:geheim", "-nodes", stdin=stored).decode()
    assert shown.count("BEGIN CERTIFICATE") == 2
    assert "BEGIN PRIVATE KEY" in shown
