"""RevocationStatus of our own CAs, by what they recorded themselves; their CRLs say the same to others."""

from collections.abc import Sequence

from cryptography import x509

from certs.ca import CertificateAuthority


class OwnRevocations:
    """Implements `authorize.RevocationStatus`. Certificates of other CAs count as not revoked."""

    def __init__(self, authorities: Sequence[CertificateAuthority]) -> None:
        self._authorities = tuple(authorities)

    async def is_revoked(self, certificate: x509.Certificate) -> bool:
        return any(authority.is_revoked(certificate) for authority in self._authorities)

    def is_revoked_fingerprint(self, sha256: bytes) -> bool:
        """The same of a certificate that is not at hand. May read the indexes: off the event loop."""
        return any(
            sha256 in authority.index.revoked_fingerprints() for authority in self._authorities
        )

    def revoke(
        self, sha256: bytes, reason: x509.ReasonFlags = x509.ReasonFlags.unspecified
    ) -> bool:
        """Withdraw the certificate of this fingerprint; False when none of the CAs issued it. Reads their indexes: off the loop."""
        return any(authority.revoke_fingerprint(sha256, reason) for authority in self._authorities)
