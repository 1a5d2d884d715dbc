"""What a SCEP or ACME server asks its host: may this one have a certificate, and is that one still good?

`mdmserver` implements these against its devices; `mdm-certs serve` uses the simple ones at the end.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final, Protocol

from cryptography import x509

from certs.csr import CertificateRequest
from certs.errors import ChallengeRefused

MAX_REMEMBERED: Final = 1000  # certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Permission to get one certificate, and for whom; the host recognises its own `reference` again."""

    reference: str  # opaque to the server: a UDID, a serial number, an order of the host
    serial_number: str | None = None  # the device's, where the host knows it
    udid: str | None = None


class ChallengeVerifier(Protocol):
    """Judges SCEP challenge passwords."""

    async def verify(self, challenge: str | None, request: CertificateRequest) -> Grant:
        """Say for whom `challenge` stands, without using it up. Raises ChallengeRefused."""
        ...

    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        """The certificate exists now: a one-time challenge ends here."""
        ...


class Decision(Enum):
    """What becomes of a request that somebody has to look at."""

    WAIT = "wait"
    APPROVE = "approve"
    DENY = "deny"


@dataclass(slots=True, kw_only=True)
class WaitingRequest:
    """A SCEP request with a good challenge, which the client polls for."""

    transaction_id: str
    request: CertificateRequest
    since: datetime
    polls: int = 0  # CertPolls so far
    held_for: int = 0  # polls that a fault leaves undecided, whatever the Approval says

    @property
    def id(self) -> str:
        """Of exactly this request: all it asks for, under its transactionID; 32 hexadecimal digits."""
        digest = hashlib.sha256(self.request.information)
        digest.update(self.transaction_id.encode())
        return digest.hexdigest()[:32]


class Approval(Protocol):
    """Decides on SCEP requests that have a good challenge; without one they are all approved."""

    async def decide(self, waiting: WaitingRequest) -> Decision:
        """Asked when the request comes, and again at each poll while the answer is WAIT."""
        ...


class RenewalVerifier(Protocol):
    """Judges SCEP RenewalReqs, whose signer the server found to be a good certificate of its own CA."""

    async def renew(self, certificate: x509.Certificate, request: CertificateRequest) -> Grant:
        """Say for whom `certificate` stands. Raises ChallengeRefused."""
        ...

    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        """The successor exists now. Raises ChallengeRefused; the successor is revoked then."""
        ...


class DeviceAuthorizer(Protocol):
    """Judges ACME permanent-identifiers (the payload's ClientIdentifier)."""

    async def authorize(self, identifier: str) -> Grant:
        """Say which device may prove that it is `identifier`. Raises ChallengeRefused."""
        ...

    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        """The certificate exists now: a one-time identifier ends here."""
        ...


class RevocationStatus(Protocol):
    """Knows which of our certificates are no longer good."""

    async def is_revoked(self, certificate: x509.Certificate) -> bool: ...


@dataclass(slots=True)
class StaticChallenge:
    """One shared password for everybody, as many MDM servers use; None lets everyone in."""

    password: str | None
    issued_to: list[x509.Certificate] = field(default_factory=list)  # the last of them

    async def verify(self, challenge: str | None, request: CertificateRequest) -> Grant:
        if self.password is not None and not hmac.compare_digest(
            (challenge or "").encode(), self.password.encode()
        ):
            raise ChallengeRefused("the challenge password is wrong")
        return Grant(reference=request.common_name or "")

    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        _remember(self.issued_to, certificate)


@dataclass(slots=True)
class AnyHolder:
    """Whoever has a good certificate may renew it."""

    issued_to: list[x509.Certificate] = field(default_factory=list)  # the last of them

    async def renew(self, certificate: x509.Certificate, request: CertificateRequest) -> Grant:
        return Grant(reference=f"{certificate.serial_number:x}")

    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        _remember(self.issued_to, certificate)


@dataclass(slots=True)
class KnownDevices:
    """A fixed table: which identifier stands for which device (serial number, UDID)."""

    devices: dict[str, Grant]
    issued_to: list[x509.Certificate] = field(default_factory=list)  # the last of them

    async def authorize(self, identifier: str) -> Grant:
        try:
            return self.devices[identifier]
        except KeyError:
            raise ChallengeRefused("no device has this identifier") from None

    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        _remember(self.issued_to, certificate)


def _remember(issued_to: list[x509.Certificate], certificate: x509.Certificate) -> None:
    """A server may run for months: what it issued stands in the CA's index."""
    issued_to.append(certificate)
    if len(issued_to) > MAX_REMEMBERED:
        del issued_to[0]
