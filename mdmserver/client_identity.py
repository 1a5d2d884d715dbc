"""Who sends a request: the device certificate from the TLS handshake, from `Mdm-Signature`, or from both (mdm.md 4.4).

Both are verified; both present must be the same certificate. What comes out is a certificate that this server issued, that is
still good at the injected clock's time, and the device it was issued to.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs import cms, tls, trust
from certs.authorize import RevocationStatus
from certs.clock import Clock
from certs.errors import MalformedMessage, UntrustedCertificate
from mdmserver.errors import CertificateRefused
from mdmserver.store.base import IssuedCertificate, Store

log = structlog.get_logger()

HEADER: Final = "Mdm-Signature"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A certificate of ours whose key signed this request, and what it was issued for."""

    certificate: x509.Certificate
    issued: IssuedCertificate


class ClientIdentities:
    """Recognises callers."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        revocation: RevocationStatus,
        client_roots: Sequence[x509.Certificate],
    ) -> None:
        self._store = store
        self._revocation = revocation
        self._client_roots = client_roots
        self._clock = clock

    async def identify(self, request: web.Request, body: bytes) -> Caller:
        """Raises CertificateRefused, UntrustedCertificate, MalformedMessage or InvalidSignature: all of them 400."""
        certificate = self._proven(request, body)
        issued = await self._store.certificate(certificate.fingerprint(hashes.SHA256()))
        if issued is None:
            raise CertificateRefused(self._why_unknown(certificate))
        if await self._revocation.is_revoked(certificate):
            raise CertificateRefused(f"that of {issued.udid} is revoked")
        if issued.superseded:
            raise CertificateRefused(f"that of {issued.udid} was replaced by a later one")
        trust.check_dates(certificate, self._clock.now())
        return Caller(certificate=certificate, issued=issued)

    def _proven(self, request: web.Request, body: bytes) -> x509.Certificate:
        shown = tls.peer_certificate(request)
        header = request.headers.get(HEADER)
        if header is None:
            if shown is None:
                raise CertificateRefused(f"none came, neither by TLS nor as {HEADER}")
            return shown
        signer = verify_signature(header, body, shown)
        if shown is not None and signer != shown:
            raise CertificateRefused(
                f"TLS shows {trust.name_of(shown)}, {HEADER} {trust.name_of(signer)}: "
                "both must be the same"
            )
        return signer

    def _why_unknown(self, certificate: x509.Certificate) -> str:
        name = trust.name_of(certificate)
        try:
            trust.verify_chain(certificate, [], self._client_roots, at=None)
        except UntrustedCertificate as error:
            return f"not one of this server's: {error}"
        return f"{name} was issued to no device"


def verify_signature(
    header: str, body: bytes, shown: x509.Certificate | None = None
) -> x509.Certificate:
    """The certificate whose key signed exactly `body`. Raises MalformedMessage or InvalidSignature."""
    try:
        der = base64.b64decode(header, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedMessage(HEADER, "base64 of a CMS signature", header) from None
    signed = cms.decode_signed(der)
    return cms.verify_signed(signed, content=body, candidates=() if shown is None else (shown,))
