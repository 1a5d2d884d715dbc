"""The certificate of a CA itself: self-signed, or issued by its parent."""

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from certs import certificate_parts
from certs.certificate_profile import (
    SIMULATED,
    Extensions,
    key_identifier,
    random_serial,
    signature_hash,
    usages,
)
from certs.certificate_writer import (
    encode_extension,
    encode_key_identifier,
    write_certificate,
)
from certs.clock import Clock
from certs.keys import PrivateKey, spki_der

if TYPE_CHECKING:
    from certs.ca import CertificateAuthority

ORGANIZATION: Final = "Simulated MDM"
CA_SKEW: Final = timedelta(days=1)  # a CA's own start lies before that of anything it issues


def ca_certificate(
    subject: x509.Name,
    key: PrivateKey,
    *,
    clock: Clock,
    parent: "CertificateAuthority | None",
    lifetime_days: float,
    simulated: bool,
) -> x509.Certificate:
    marks: Extensions = ((SIMULATED, False),) if simulated else ()
    now = clock.now()
    start = now - CA_SKEW
    if parent is not None:
        start = max(start, parent.certificate.not_valid_before_utc)
        end = min(now + timedelta(days=lifetime_days), parent.certificate.not_valid_after_utc)
        lifetime = (end - start) / timedelta(days=1)
        return parent.issue(
            key.public_key(), subject, days=lifetime, ca=True, not_before=start, extensions=marks
        )
    end = now + timedelta(days=lifetime_days)
    name, spki = subject.public_bytes(), spki_der(key.public_key())
    wanted = [
        *usages(isinstance(key, rsa.RSAPrivateKey), True, None, ()),
        *marks,
    ]
    extensions = [encode_extension(extension, critical) for extension, critical in wanted]
    written = write_certificate(
        issuer=name,
        subject=name,
        spki=spki,
        serial_number=random_serial(),
        start=start,
        end=end,
        extensions=[*extensions, encode_key_identifier(key_identifier(spki))],
        key=key,
        digest=signature_hash(key).name,
    )
    return certificate_parts.load(written)


def ca_name(common_name: str, organization: str = ORGANIZATION) -> x509.Name:
    """Raises ValueError for a name that no certificate can hold."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
