"""Renewal by SCEP itself: the certificate that a device uses asks for its successor (RFC 8894, section 3.3.1.2).

The door has checked the signer by then: of one of our CAs, not revoked, in its dates, the same subject. Here it must be the one
that an enrolled device is bound to. The successor counts from its first use on, as after a profile that was sent again.
"""

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs.authorize import Grant
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import ChallengeRefused
from mdmserver.authority import issued_certificate, log_issued
from mdmserver.store.base import DeviceState, IssuedCertificate, Store


class ScepRenewals:
    """The RenewalVerifier of our SCEP door."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def renew(self, certificate: x509.Certificate, request: CertificateRequest) -> Grant:
        bound = await self._bound(certificate.fingerprint(hashes.SHA256()))
        return Grant(reference=bound.sha256.hex(), serial_number=bound.serial, udid=bound.udid)

    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        """Keep the successor; raises ChallengeRefused if the device has another certificate meanwhile."""
        bound = await self._bound(bytes.fromhex(grant.reference))
        record = issued_certificate(certificate, bound, "renewal", self._clock.now())
        await self._store.add_certificate(record)
        log_issued(record)

    async def _bound(self, sha256: bytes) -> IssuedCertificate:
        issued = await self._store.certificate(sha256)
        if issued is None:
            raise ChallengeRefused("the signer's certificate was issued to no device")
        device = await self._store.device(issued.udid)
        if device is None or device.certificate_sha256 != sha256:
            raise ChallengeRefused(f"the signer's certificate is not the one of {issued.udid} now")
        if device.state is DeviceState.CHECKED_OUT or device.unenroll:
            raise ChallengeRefused(f"{issued.udid} is no longer enrolled")
        return issued
