"""X.509 certificates by a DER template (RFC 5280, section 4.1), as a CA that issues thousands writes them.

What a certificate says has been decided before; here it becomes bytes and is signed. Names, keys and extension values are encoded
by cryptography; a CA keeps those that its certificates share.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from certs import algorithms, der
from certs.keys import PrivateKey

V3: Final = der.context(0, der.integer(2))
OLDEST: Final = datetime(1950, 1, 1, tzinfo=UTC)  # before it no UTCTime can say the year


class EncodedExtension(NamedTuple):
    """One extension as it stands in a certificate."""

    oid: x509.ObjectIdentifier
    der: bytes


def encode_extension(extension: x509.ExtensionType, critical: bool) -> EncodedExtension:
    """Raises ValueError for what cannot be encoded."""
    written = der.sequence(
        der.oid(extension.oid.dotted_string),
        der.boolean(True) if critical else b"",
        der.octet_string(extension.public_bytes()),
    )
    return EncodedExtension(extension.oid, written)


SKI: Final = x509.SubjectKeyIdentifier.oid


def encode_key_identifier(key_identifier: bytes) -> EncodedExtension:
    """SubjectKeyIdentifier of 20 bytes, which every certificate has another one of."""
    return EncodedExtension(SKI, b"0\x1d\x06\x03U\x1d\x0e\x04\x16\x04\x14" + key_identifier)


def write_certificate(
    *,
    issuer: bytes,
    subject: bytes,
    spki: bytes,
    serial_number: int,
    start: datetime,
    end: datetime,
    extensions: Sequence[EncodedExtension],
    key: PrivateKey,
    digest: str,
) -> bytes:
    """The certificate, signed by `key` with this digest; names and key as DER.

    Raises ValueError for what no certificate can say.
    """
    if end < start or start < OLDEST:
        raise ValueError(f"a certificate cannot be valid from {start} to {end}")
    if len({extension.oid for extension in extensions}) < len(extensions):
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
        issuer,
        der.sequence(der.time(start), der.time(end)),
        subject,
        spki,
        der.context(3, der.sequence(*(extension.der for extension in extensions))),
    )
    signature = algorithms.sign(key, to_sign, digest)
    return der.sequence(to_sign, algorithm, der.bit_string(signature))
