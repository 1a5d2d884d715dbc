"""Certificate revocation lists (RFC 5280, section 5): which certificates of one CA are no longer good, signed by it.

In come the CA's revocations, out goes DER; `read` opens a list that somebody else made. `crl_door` serves them.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs.certificate_profile import signature_hash
from certs.errors import MalformedMessage
from certs.identity import Identity
from certs.issued_index import Revocation
from certs.trust import UNREADABLE

CONTENT_TYPE: Final = "application/pkix-crl"  # RFC 2585, section 4.2
MAX_CRL_BYTES: Final = 16 * 1024 * 1024


def encode(
    issuer: Identity,
    authority_key_identifier: x509.AuthorityKeyIdentifier,
    revocations: Iterable[Revocation],
    *,
    number: int,
    this_update: datetime,
    next_update: datetime,
) -> bytes:
    """A whole list, signed; the work grows with the number of entries."""
    builder = (
        # Entries go in at once: added one by one, each would copy all before it.
        x509.CertificateRevocationListBuilder(
            revoked_certificates=[_entry(revocation) for revocation in revocations]
        )
        .issuer_name(issuer.certificate.subject)
        .last_update(this_update)
        .next_update(next_update)
        .add_extension(authority_key_identifier, critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    signed = builder.sign(issuer.key, signature_hash(issuer.key))
    return signed.public_bytes(serialization.Encoding.DER)


def _entry(revocation: Revocation) -> x509.RevokedCertificate:
    entry = (
        x509.RevokedCertificateBuilder()
        .serial_number(revocation.serial_number)
        .revocation_date(revocation.revoked_at)
    )
    if revocation.reason is not x509.ReasonFlags.unspecified:  # RFC 5280, section 5.3.1
        entry = entry.add_extension(x509.CRLReason(revocation.reason), critical=False)
    return entry.build()


def read(data: bytes) -> x509.CertificateRevocationList:
    """Somebody's list, DER or PEM, with every part that we use readable. Raises MalformedMessage."""
    if len(data) > MAX_CRL_BYTES:
        raise MalformedMessage("CRL", f"at most {MAX_CRL_BYTES} bytes", len(data))
    load = (
        x509.load_pem_x509_crl
        if data.lstrip().startswith(b"-----BEGIN")
        else x509.load_der_x509_crl
    )
    try:
        crl = load(data)
        # cryptography parses these only when they are asked for.
        _ = crl.issuer, crl.last_update_utc, crl.next_update_utc, crl.extensions, len(crl)
    except UNREADABLE as error:
        raise MalformedMessage("CRL", "a revocation list, DER or PEM", str(error)) from error
    return crl
