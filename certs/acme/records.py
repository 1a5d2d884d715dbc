"""What an ACME server knows of one account, one authorization, one order, and how each goes through its states.

States are those of RFC 8555, section 7.1.6. Where the server is slow on purpose, the outcome is settled at once and
shown after as many polls as it shall take.
"""

from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509

from certs.acme.account import AccountStatus
from certs.acme.jws import Json
from certs.acme.message import (
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    Identifier,
    OrderStatus,
)
from certs.acme.problem import Problem
from certs.attestation import Attestation
from certs.authorize import Grant
from certs.keys import PublicKey, spki_der


@dataclass(slots=True, eq=False)
class AccountRecord:
    """One account and the key that it has now."""

    id: str
    key: PublicKey
    contact: tuple[str, ...] = ()
    terms_of_service_agreed: bool = False
    external_account_binding: Json | None = None
    status: AccountStatus = AccountStatus.VALID
    orders: dict[str, None] = field(default_factory=dict)  # ids of those remembered, oldest first
    ordered_at: list[datetime] = field(default_factory=list)  # within the window of the rate limit
    # how often it did what, for the fault point
    steps: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class AuthorizationRecord:
    """Whether an account may have a certificate for one identifier, and the one challenge that shows it."""

    id: str
    account: AccountRecord
    identifier: Identifier
    grant: Grant | None  # None where no host was asked: a DNS name
    challenge_type: str
    token: str
    expires: datetime
    challenge_status: ChallengeStatus = ChallengeStatus.PENDING
    deactivated: bool = False
    validated: datetime | None = None
    attested_spki: bytes | None = None  # the key in the attestation leaf; None while unattested
    names: tuple[str, ...] = ()  # what the device may call itself in a CSR
    error: Problem | None = None
    polls_left: int = 0  # while the challenge is processing
    orders: int = 0  # how many of those remembered have it

    def status(self, now: datetime) -> AuthorizationStatus:
        if self.challenge_status is ChallengeStatus.INVALID:
            return AuthorizationStatus.INVALID
        if self.deactivated:
            return AuthorizationStatus.DEACTIVATED
        if now >= self.expires:
            return AuthorizationStatus.EXPIRED
        if self.challenge_status is ChallengeStatus.VALID:
            return AuthorizationStatus.VALID
        return AuthorizationStatus.PENDING

    def is_open(self, now: datetime) -> bool:
        """Whether its challenge may be answered."""
        return (
            self.challenge_status is ChallengeStatus.PENDING
            and self.status(now) is AuthorizationStatus.PENDING
        )

    def is_for(self, grant: Grant | None) -> bool:
        """Whether it was judged for the device that the host has in mind now."""
        if self.grant is None or grant is None:
            return self.grant is grant
        judged, now = self.grant, grant
        return (judged.serial_number, judged.udid) == (now.serial_number, now.udid)

    def prove(self, found: Attestation | None, now: datetime, polls: int = 0) -> None:
        """The challenge is met: by an attestation, by a web server's answer, or by policy without either."""
        facts = [self.identifier.value]
        if self.grant is not None:
            facts += [self.grant.serial_number or "", self.grant.udid or ""]
        if found is not None:
            self.attested_spki = spki_der(found.public_key)
            facts += [found.serial_number or "", found.udid or ""]
        self.names = tuple(fact for fact in facts if fact)
        self.validated = now
        self._decided(polls)

    def fail(self, error: Problem, polls: int = 0) -> None:
        """The challenge is not met, for good."""
        self.error = error
        self._decided(polls)

    def polled(self) -> None:
        """Somebody looks: after enough looks, what has been decided shows."""
        if self.challenge_status is ChallengeStatus.PROCESSING and (self.validated or self.error):
            self._decided(self.polls_left - 1)

    def _decided(self, polls: int) -> None:
        self.polls_left = max(0, polls)
        if polls > 0:
            self.challenge_status = ChallengeStatus.PROCESSING
        elif self.error is not None:
            self.challenge_status = ChallengeStatus.INVALID
        else:
            self.challenge_status = ChallengeStatus.VALID

    def to_challenge(self, url: str) -> Challenge:
        failed = self.challenge_status is ChallengeStatus.INVALID
        valid = self.challenge_status is ChallengeStatus.VALID
        return Challenge(
            type=self.challenge_type,
            url=url,
            status=self.challenge_status,
            token=self.token,
            validated=self.validated if valid else None,
            error=self.error if failed else None,
        )

    def to_authorization(self, challenge: Challenge, now: datetime) -> Authorization:
        return Authorization(
            identifier=self.identifier,
            status=self.status(now),
            challenges=(challenge,),
            expires=self.expires,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class OrderRecord:
    """One order, for one device or for some DNS names."""

    id: str
    account: AccountRecord
    authorizations: tuple[AuthorizationRecord, ...]
    expires: datetime
    status: OrderStatus = OrderStatus.PENDING
    error: Problem | None = None
    certificate: x509.Certificate | None = None
    polls_left: int = 0  # while the certificate is there, but not shown yet

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        return tuple(authorization.identifier for authorization in self.authorizations)

    @property
    def device(self) -> AuthorizationRecord | None:
        """The one authorization of an order for a device; None in an order for DNS names."""
        first = self.authorizations[0]
        return first if first.grant is not None else None

    @property
    def has_ended(self) -> bool:
        return self.status in (OrderStatus.VALID, OrderStatus.INVALID)

    @property
    def reference(self) -> str:
        """What the log calls it: the host's word for the device, else the names."""
        device = self.device
        if device is not None and device.grant is not None:
            return device.grant.reference
        return ",".join(identifier.value for identifier in self.identifiers)
