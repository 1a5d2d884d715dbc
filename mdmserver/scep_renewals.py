"""Renewal by SCEP itself: the certificate that a device uses asks for its successor (RFC 8894, section 3.3.1.2).

The door has checked the signer by then: of one of our CAs, not revoked, in its dates, the same subject. Here it must be the one
that an enrolled device is bound to. The successor counts from its first use on, as after a profile that was sent again.
"""

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs import names
from certs.authorize import Grant
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import ChallengeRefused
from mdmserver.store.base import DeviceState, IssuedCertificate, Store

log = structlog.get_logger()


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
        record = IssuedCertificate(
            sha256=certificate.fingerprint(hashes.SHA256()),
            udid=bound.udid,
            serial=bound.serial,
            product=bound.product,
            os_version=bound.os_version,
            build=bound.build,
            kind=bound.kind,
            purpose="renewal",
            issuer=names.common_name(certificate.issuer) or names.text(certificate.issuer),
            profile_version=bound.profile_version,
            issued_at=self._clock.now(),
            not_after=certificate.not_valid_after_utc,
        )
        await self._store.add_certificate(record)
        log.info(
            "identity_issued",
            udid=record.udid,
            serial=record.serial,
            kind=record.kind,
            purpose=record.purpose,
            certificate=record.sha256.hex()[:16],
        )

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
