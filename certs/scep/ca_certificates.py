"""What GetCACert gives a SCEP client: whom to encrypt to, whom to believe (certificates.md 1.3)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs import cms, der, trust
from certs.errors import MalformedMessage, UntrustedCertificate

MAX_KEPT_BYTES: Final = 64 * 1024  # of one answer
FINGERPRINTS: Final = {16: "md5", 20: "sha1", 32: "sha256"}  # by length


@dataclass(frozen=True, slots=True)
class CaCertificates:
    """What GetCACert gave: one certificate, or several with an RA among them."""

    certificates: tuple[x509.Certificate, ...]

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """By content, as announced types are often wrong. Raises MalformedMessage."""
        return cls(_certificates(body) if len(body) <= MAX_KEPT_BYTES else _read(body))

    @property
    def recipient(self) -> x509.Certificate:
        """Whom to encrypt to, found by keyUsage: an RA before the CA, keyEncipherment before anything else."""
        return _recipient(self.certificates)

    @property
    def issuer_der(self) -> bytes:
        """The name of the CA that will issue, for CertPoll."""
        for certificate in self.certificates:
            if _is_ca(certificate):
                return cms.subject_der(certificate)
        return cms.issuer_der(self.recipient)

    def path(
        self, leaf: x509.Certificate, others: Sequence[x509.Certificate] = ()
    ) -> tuple[x509.Certificate, ...]:
        """The issuers of `leaf`, nearest first and without the root, from these certificates and `others`."""
        known = {
            cms.subject_der(certificate): certificate
            for certificate in (*others, *self.certificates)
        }
        path: list[x509.Certificate] = []
        below = leaf
        while (above := known.pop(cms.issuer_der(below), None)) is not None:
            if cms.issuer_der(above) == cms.subject_der(above) or not _issued(above, below):
                break
            path.append(above)
            below = above
        return tuple(path)

    def pinned(self, fingerprint: bytes) -> "CaCertificates":
        """The certificate of the payload's CAFingerprint, whose length says which digest, and those that hang together with it.

        Others are left out: over plain HTTP anybody can put an RA of his own beside a CA that everybody knows, and read
        the challenge then. Raises UntrustedCertificate.
        """
        if len(fingerprint) not in FINGERPRINTS:
            raise MalformedMessage("CAFingerprint", "16, 20 or 32 bytes", len(fingerprint))
        pinned = _pinned(self.certificates, fingerprint)
        if not pinned:
            subject = trust.name_of(self.certificates[0])
            raise UntrustedCertificate(subject, "does not have the payload's CAFingerprint")
        return CaCertificates(pinned)

    def check_signer(self, signer: x509.Certificate) -> None:
        """The signer of a CertRep must be one of these, as devices want it (certificates.md 1.11).

        A later certificate for the same key will do; another one below the CA will not: every device has such a one.
        """
        key = cms.public_key(signer)
        if any(cms.public_key(known) == key for known in self.certificates):
            return
        raise UntrustedCertificate(
            trust.name_of(signer), "signed the CertRep, and GetCACert does not know it"
        )

    def check_ca(self, signer: x509.Certificate) -> None:
        """Only a CA among these may say who comes after it. Raises UntrustedCertificate."""
        if signer not in self.certificates or not _is_ca(signer):
            raise UntrustedCertificate(
                trust.name_of(signer), "signed GetNextCACert and is no CA of GetCACert"
            )


@lru_cache(maxsize=16)  # a whole fleet is given the same
def _certificates(body: bytes) -> tuple[x509.Certificate, ...]:
    return _read(body)


def _read(body: bytes) -> tuple[x509.Certificate, ...]:
    node = der.read(body, "GetCACert")
    if node.items(der.SEQUENCE, 2)[0].tag == der.OID:
        certificates = tuple(cms.decode_certs_only(node.raw))
    else:
        certificates = (cms.load_certificate(node.raw, "GetCACert"),)
    if not 1 <= len(certificates) <= trust.MAX_CANDIDATES:
        raise MalformedMessage(
            "GetCACert", f"1 to {trust.MAX_CANDIDATES} certificates", len(certificates)
        )
    return certificates


@lru_cache(maxsize=16)
def _recipient(certificates: tuple[x509.Certificate, ...]) -> x509.Certificate:
    rsa_only = [certificate for certificate in certificates if cms.rsa_public_key(certificate)]
    if not rsa_only:
        raise MalformedMessage("GetCACert", "a certificate with an RSA key")
    return min(rsa_only, key=lambda one: (not _may_encipher(one), _is_ca(one)))


@lru_cache(maxsize=16)
def _pinned(
    certificates: tuple[x509.Certificate, ...], fingerprint: bytes
) -> tuple[x509.Certificate, ...]:
    """Those that signatures tie to the one with that fingerprint, in either direction; none without that one."""
    kept: list[x509.Certificate] = []
    others: list[x509.Certificate] = []
    for certificate in certificates:
        data = certificate.public_bytes(serialization.Encoding.DER)
        found = hashlib.new(FINGERPRINTS[len(fingerprint)], data, usedforsecurity=False).digest()
        (kept if found == fingerprint else others).append(certificate)
    for known in kept:  # grows meanwhile
        beside = [one for one in others if _issued(known, one) or _issued(one, known)]
        kept += beside
        others = [one for one in others if one not in beside]
    return tuple(one for one in certificates if one in kept)


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    return _is_ca(issuer) and trust.is_issued_by(certificate, issuer)


def _may_encipher(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return certificate.version is x509.Version.v1
