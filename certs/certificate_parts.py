"""What messages repeat of certificates: their bytes, issuer and serial number, names, key.

One message asks for these several times of the same few certificates, and cryptography encodes a certificate anew each time it is
asked. So what was read is kept for the last few hundred, unless they are unusually large.
"""

from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from certs import der
from certs.keys import load_spki

MAX_KEPT: Final = 256
MAX_KEPT_BYTES: Final = 16 * 1024  # of one certificate


class CertificateParts(NamedTuple):
    """Cut out of the certificate's own bytes, so that no name is encoded anew."""

    issuer_and_serial: bytes  # IssuerAndSerialNumber
    issuer: bytes
    subject: bytes
    spki: bytes


class _Kept:
    """A certificate, which keeps its id its own, and what is known of it."""

    __slots__ = ("certificate", "der", "key", "parts")

    def __init__(self, certificate: x509.Certificate, data: bytes) -> None:
        self.certificate = certificate
        self.der = data
        self.parts: CertificateParts | None = None
        self.key: object | None = None


_kept: dict[int, _Kept] = {}  # by id: hashing a certificate means encoding it


def load(data: bytes) -> x509.Certificate:
    """A certificate of exactly these DER bytes; raises what cryptography raises."""
    certificate = x509.load_der_x509_certificate(data)
    _keep(certificate, data)
    return certificate


def der_of(certificate: x509.Certificate) -> bytes:
    """The certificate's own bytes."""
    return _known(certificate).der


def parts(certificate: x509.Certificate) -> CertificateParts:
    """Raises MalformedMessage for what cryptography reads and we do not."""
    return _parts(_known(certificate))


def issuer_and_serial(certificate: x509.Certificate) -> bytes:
    """IssuerAndSerialNumber, by which messages name a certificate."""
    return parts(certificate).issuer_and_serial


def issuer_der(certificate: x509.Certificate) -> bytes:
    """The issuer's name as it stands in the certificate."""
    return parts(certificate).issuer


def subject_der(certificate: x509.Certificate) -> bytes:
    """The subject's name as it stands in the certificate."""
    return parts(certificate).subject


def public_key(certificate: x509.Certificate) -> object | None:
    """The certificate's key; None when cryptography does not know it."""
    known = _known(certificate)
    if known.key is None:
        try:
            known.key = load_spki(_parts(known).spki)
        except Exception:  # a bad point, a bad modulus, an unknown algorithm: half a dozen types
            return None
    return known.key


def rsa_public_key(certificate: x509.Certificate) -> rsa.RSAPublicKey | None:
    """The certificate's key when it is RSA."""
    key = public_key(certificate)
    return key if isinstance(key, rsa.RSAPublicKey) else None


def subject_key_identifier(certificate: x509.Certificate) -> bytes | None:
    """The extension's value; None without one, or when the extensions cannot be read."""
    try:
        return certificate.extensions.get_extension_for_class(
            x509.SubjectKeyIdentifier
        ).value.digest
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return None


def _parts(known: _Kept) -> CertificateParts:
    if known.parts is None:
        known.parts = _read(known.der)
    return known.parts


def _known(certificate: x509.Certificate) -> _Kept:
    known = _kept.get(id(certificate))
    if known is None:
        known = _keep(certificate, certificate.public_bytes(serialization.Encoding.DER))
    return known


def _keep(certificate: x509.Certificate, data: bytes) -> _Kept:
    known = _Kept(certificate, data)
    if len(data) <= MAX_KEPT_BYTES:
        if len(_kept) >= MAX_KEPT:
            _kept.clear()
        _kept[id(certificate)] = known
    return known


def _read(data: bytes) -> CertificateParts:
    fields = der.read(der.read(data, "certificate").content, "certificate").children()
    start = 1 if fields[0].tag == 0xA0 else 0  # version
    serial, _, issuer, _, subject, spki = (field.raw for field in fields[start : start + 6])
    return CertificateParts(der.sequence(issuer, serial), issuer, subject, spki)
