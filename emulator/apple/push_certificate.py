"""Who pushes: the topics of a push certificate, and whether it may push at all (apple-services.md 6.1).

A certificate of another CA never gets this far: it ends the handshake with an alert. Dates are those of the injected
clock, so that an expired certificate gets an answer with a reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from certs.errors import CertsError
from certs.trust import verify_chain
from emulator.wire.push import Reason

TOPIC_PREFIX: Final = "com.apple.mgmt."
# Marks of Apple's push certificates: which environments they are for. Without any, both.
DEVELOPMENT: Final = x509.ObjectIdentifier("1.2.840.113635.100.6.3.1")
PRODUCTION: Final = x509.ObjectIdentifier("1.2.840.113635.100.6.3.2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What one connection's certificate entitles to."""

    topics: tuple[str, ...] = ()
    refusal: Reason | None = None  # of every request, whatever it asks
    not_before: datetime | None = None
    not_after: datetime | None = None
    certificate: x509.Certificate | None = None

    def problem(self, now: datetime) -> Reason | None:
        """Why it may not push at `now`."""
        if self.refusal is not None:
            return self.refusal
        if self.not_before is not None and now < self.not_before:
            return Reason.BAD_CERTIFICATE
        if self.not_after is not None and now > self.not_after:
            return Reason.BAD_CERTIFICATE
        return None


ANYBODY: Final = Provider()  # compat mode without a certificate: any topic
NOBODY: Final = Provider(refusal=Reason.MISSING_PROVIDER_TOKEN)


def provider_of(
    certificate: x509.Certificate | None,
    *,
    root: x509.Certificate,
    is_revoked: Callable[[x509.Certificate], bool],
    required: bool,
) -> Provider:
    """Judge a connection's certificate once; `required` is the strict mode."""
    if certificate is None:
        return NOBODY if required else ANYBODY
    try:
        verify_chain(certificate, (), (root,), at=None)
        topics = _topics(certificate)
    except (CertsError, ValueError):
        return Provider(refusal=Reason.BAD_CERTIFICATE)
    if not topics or is_revoked(certificate):
        return Provider(refusal=Reason.BAD_CERTIFICATE)
    if not _for_production(certificate):
        return Provider(refusal=Reason.BAD_CERTIFICATE_ENVIRONMENT)
    return Provider(
        topics=topics,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        certificate=certificate,
    )


def _topics(certificate: x509.Certificate) -> tuple[str, ...]:
    """The UIDs of the subject: an MDM certificate has one."""
    found = (
        str(attribute.value)
        for attribute in certificate.subject.get_attributes_for_oid(NameOID.USER_ID)
    )
    return tuple(topic for topic in found if topic.startswith(TOPIC_PREFIX))


def _for_production(certificate: x509.Certificate) -> bool:
    marks = {extension.oid for extension in certificate.extensions}
    return PRODUCTION in marks or DEVELOPMENT not in marks
