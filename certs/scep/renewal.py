"""May this certificate be renewed? The checks of a RenewalReq's signer (RFC 8894, section 3.3.1.2; certificates.md 1.10)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from certs.authorize import RenewalVerifier
from certs.ca import CertificateAuthority
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import ScepFailure
from certs.scep.message import FailInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewals:
    """Which certificates may sign for their successor: those of `authorities`, up to `grace` after their end."""

    authorities: Sequence[CertificateAuthority]
    verifier: RenewalVerifier
    clock: Clock
    grace: timedelta = timedelta(0)

    def check(self, certificate: x509.Certificate, wanted: CertificateRequest) -> None:
        """Raises ScepFailure: badCertId for a certificate of somebody else, badRequest for one that may not renew."""
        issuer = next((one for one in self.authorities if _issued(one, certificate)), None)
        if issuer is None:
            raise ScepFailure(FailInfo.BAD_CERT_ID, "the signer is no certificate of this CA")
        if issuer.is_revoked(certificate):
            raise ScepFailure(FailInfo.BAD_REQUEST, "the signer's certificate is revoked")
        now = self.clock.now()
        if now < certificate.not_valid_before_utc:
            raise ScepFailure(FailInfo.BAD_REQUEST, "the signer's certificate is not valid yet")
        if now > certificate.not_valid_after_utc + self.grace:
            ended = f"{certificate.not_valid_after_utc:%FT%TZ}"
            raise ScepFailure(FailInfo.BAD_REQUEST, f"the signer's certificate ended at {ended}")
        if wanted.subject != certificate.subject:
            raise ScepFailure(FailInfo.BAD_REQUEST, "the subject is not that of the signer")
        if not set(wanted.alternative_names) <= set(_alternative_names(certificate)):
            # Else whoever holds one certificate could get another for any name.
            text = "an alternative name is not among those of the signer"
            raise ScepFailure(FailInfo.BAD_REQUEST, text)


def _issued(authority: CertificateAuthority, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _alternative_names(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    kind = x509.SubjectAlternativeName
    try:
        return tuple(certificate.extensions.get_extension_for_class(kind).value)
    except x509.ExtensionNotFound:
        return ()
