"""Certificates and identities that the wire tests need: cached, self-signed, of no special shape."""

from datetime import UTC, datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from certs.identity import Identity
from certs.keys import PrivateKey
from tests.support import rsa_key


@cache
def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """One P-256 key per number and process."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def identity(kind: str = "rsa", number: int = 0) -> Identity:
    """A self-signed identity."""
    key: PrivateKey = rsa_key(number) if kind == "rsa" else ec_key(number)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{kind} {number}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1000 + number)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    return Identity(key, certificate)


def certificate(number: int = 0) -> x509.Certificate:
    """A self-signed EC certificate."""
    return identity("ec", number).certificate
