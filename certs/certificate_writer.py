"""X.509 certificates by a DER template (RFC 5280, section 4.1), as a CA that issues thousands writes them.

What a certificate says has been decided before; here it becomes bytes and is signed. Names, keys and extension values are encoded
by cryptography, those extensions that many certificates share once.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from certs import algorithms, der
from certs.keys import PrivateKey, PublicKey, spki_der

V3: Final = der.context(0, der.integer(2))
OLDEST: Final = datetime(1950, 1, 1, tzinfo=UTC)  # before it no UTCTime can say the year
Extension = tuple[x509.ExtensionType, bool]  # with the critical flag


def write_certificate(
    *,
    issuer: x509.Name,
    subject: x509.Name,
    public_key: PublicKey,
    serial_number: int,
    start: datetime,
    end: datetime,
    extensions: Sequence[Extension],
    key: PrivateKey,
    digest: str,
) -> x509.Certificate:
    """The certificate, signed by `key` with this digest. Raises ValueError for what no certificate can say."""
    if end < start or start < OLDEST:
        raise ValueError(f"a certificate cannot be valid from {start} to {end}")
    if len({extension.oid for extension, _ in extensions}) < len(extensions):
        raise ValueError("an extension stands twice")
    if serial_number <= 0 or serial_number.bit_length() >= 160:
        raise ValueError("a serial number is positive and has at most 20 octets")
    algorithm = algorithms.signature_identifier(
        "rsa" if isinstance(key, rsa.RSAPrivateKey) else "ec", digest
    )
    to_sign = der.sequence(
        V3,
        der.integer(serial_number),
        algorithm,
        _name(issuer),
        der.sequence(der.time(start), der.time(end)),
        subject.public_bytes(),
        spki_der(public_key),
        der.context(3, der.sequence(*_encoded(extensions))),
    )
    signature = algorithms.sign(key, to_sign, digest)
    return x509.load_der_x509_certificate(
        der.sequence(to_sign, algorithm, der.bit_string(signature))
    )


@lru_cache(maxsize=64)
def _name(name: x509.Name) -> bytes:
    return name.public_bytes()


def _encoded(extensions: Iterable[Extension]) -> Iterable[bytes]:
    for extension, critical in extensions:
        if isinstance(extension, x509.SubjectKeyIdentifier | x509.SubjectAlternativeName):
            yield _extension(extension, critical)  # another one in each certificate
        else:
            yield _shared(extension, critical)


@lru_cache(maxsize=256)
def _shared(extension: x509.ExtensionType, critical: bool) -> bytes:
    return _extension(extension, critical)


def _extension(extension: x509.ExtensionType, critical: bool) -> bytes:
    return der.sequence(
        der.oid(extension.oid.dotted_string),
        der.boolean(True) if critical else b"",
        der.octet_string(extension.public_bytes()),
    )
