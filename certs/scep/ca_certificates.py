"""What GetCACert gives a SCEP client: whom to encrypt to, whom to believe (certificates.md 1.3)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from certs import cms, der, names
from certs.errors import MalformedMessage, UntrustedCertificate

FINGERPRINTS: Final = {16: "md5", 20: "sha1", 32: "sha256"}  # by length


@dataclass(frozen=True, slots=True)
class CaCertificates:
    """What GetCACert gave: one certificate, or several with an RA among them."""

    certificates: tuple[x509.Certificate, ...]

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """By content, as announced types are often wrong. Raises MalformedMessage."""
        node = der.read(body, "GetCACert")
        if node.items(der.SEQUENCE, 2)[0].tag == der.OID:
            certificates = tuple(cms.decode_certs_only(node.raw))
        else:
            certificates = (cms.load_certificate(node.raw, "GetCACert"),)
        if not certificates:
            raise MalformedMessage("GetCACert", "at least one certificate", 0)
        return cls(certificates)

    @property
    def recipient(self) -> x509.Certificate:
        """Whom to encrypt to, found by keyUsage: an RA before the CA, keyEncipherment before anything else."""
        rsa_only = [
            certificate for certificate in self.certificates if cms.rsa_public_key(certificate)
        ]
        if not rsa_only:
            raise MalformedMessage("GetCACert", "a certificate with an RSA key")
        return min(rsa_only, key=lambda one: (not _may_encipher(one), _is_ca(one)))

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
            if not _is_ca(above) or cms.issuer_der(above) == cms.subject_der(above):
                break
            if not _issued(above, below):
                break
            path.append(above)
            below = above
        return tuple(path)

    def check_fingerprint(self, expected: bytes) -> None:
        """The payload's CAFingerprint; its length says which digest. Raises UntrustedCertificate."""
        name = FINGERPRINTS.get(len(expected))
        if name is None:
            raise MalformedMessage("CAFingerprint", "16, 20 or 32 bytes", len(expected))
        for certificate in self.certificates:
            data = certificate.public_bytes(serialization.Encoding.DER)
            if hashlib.new(name, data, usedforsecurity=False).digest() == expected:
                return
        subject = names.text(self.certificates[0].subject)
        raise UntrustedCertificate(subject, "does not have the payload's CAFingerprint")

    def check_signer(self, signer: x509.Certificate) -> None:
        """The signer of a CertRep must be one of these, or issued by one of these CAs."""
        if signer in self.certificates:
            return
        for issuer in self.certificates:
            if _is_ca(issuer) and _issued(issuer, signer):
                return
        raise UntrustedCertificate(
            names.text(signer.subject), "signed the CertRep, and GetCACert does not know it"
        )

    def check_ca(self, signer: x509.Certificate) -> None:
        """Only a CA among these may say who comes after it. Raises UntrustedCertificate."""
        if signer not in self.certificates or not _is_ca(signer):
            raise UntrustedCertificate(
                names.text(signer.subject), "signed GetNextCACert and is no CA of GetCACert"
            )


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


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
