"""What an ACME server remembers: nonces, accounts, orders. Every table has a limit, so that load cannot grow it for ever.

The oldest nonce, the account that was silent longest and the order that ended first are forgotten; live orders are not, so
when they fill their table, newOrder is answered with rateLimited until some end or expire.
"""

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from certs.acme.device_attest import CHALLENGE_TYPE
from certs.acme.jws import base64url, thumbprint
from certs.acme.message import (
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    Identifier,
    OrderStatus,
    Problem,
)
from certs.attestation import Attestation
from certs.authorize import Grant
from certs.clock import Clock
from certs.errors import AcmeProblem
from certs.keys import PublicKey, spki_der

NONCE_LIFETIME: Final = timedelta(hours=1)
ORDER_LIFETIME: Final = timedelta(hours=1)
MAX_NONCES: Final = 100_000
MAX_ACCOUNTS: Final = 20_000
MAX_LIVE_ORDERS: Final = 20_000
MAX_ENDED_ORDERS: Final = 20_000
ORDERS_FULL_RETRY_S: Final = 60.0


@dataclass(slots=True)
class Account:
    """One account key."""

    id: str
    key: PublicKey
    contact: tuple[str, ...] = ()
    steps: dict[str, int] = field(
        default_factory=dict
    )  # how often it did what, for the fault point


@dataclass(slots=True, kw_only=True)
class OrderRecord:
    """An order with its one authorization and its one challenge; all three share an id."""

    id: str
    account: Account
    identifier: Identifier
    grant: Grant
    token: str
    expires: datetime
    status: OrderStatus = OrderStatus.PENDING
    challenge_status: ChallengeStatus = ChallengeStatus.PENDING
    validated: datetime | None = None
    attested_spki: bytes | None = None  # the key in the attestation leaf; None while unattested
    names: tuple[str, ...] = ()  # what the device may call itself in a CSR
    error: Problem | None = None
    certificate: x509.Certificate | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in (OrderStatus.VALID, OrderStatus.INVALID)

    def authorization_status(self, now: datetime) -> AuthorizationStatus:
        if self.challenge_status is ChallengeStatus.INVALID:
            return AuthorizationStatus.INVALID
        if now >= self.expires:
            return AuthorizationStatus.EXPIRED
        return AuthorizationStatus(self.challenge_status.value)

    def prove(self, found: Attestation | None, now: datetime) -> None:
        """The challenge is met: by an attestation, or by policy without one."""
        facts = [self.identifier.value, self.grant.serial_number, self.grant.udid]
        if found is not None:
            self.attested_spki = spki_der(found.public_key)
            facts += [found.serial_number, found.udid]
        self.names = tuple(fact for fact in facts if fact)
        self.challenge_status = ChallengeStatus.VALID
        self.validated = now
        self.status = OrderStatus.READY

    def challenge(self, url: str) -> Challenge:
        failed = self.challenge_status is ChallengeStatus.INVALID
        return Challenge(
            type=CHALLENGE_TYPE,
            url=url,
            status=self.challenge_status,
            token=self.token,
            validated=self.validated,
            error=self.error if failed else None,
        )

    def authorization(self, challenge: Challenge, now: datetime) -> Authorization:
        return Authorization(
            identifier=self.identifier,
            status=self.authorization_status(now),
            challenges=(challenge,),
            expires=self.expires,
        )


class NonceStore:
    """Each nonce is good once, for an hour, and while at most `limit` newer ones have been given out."""

    def __init__(self, clock: Clock, limit: int = MAX_NONCES) -> None:
        self._clock = clock
        self._limit = limit
        self._given: OrderedDict[str, datetime] = OrderedDict()

    def __len__(self) -> int:
        return len(self._given)

    def new(self) -> str:
        nonce = base64url(secrets.token_bytes(16))
        self._given[nonce] = self._clock.now()
        if len(self._given) > self._limit:
            self._given.popitem(last=False)
        return nonce

    def use(self, nonce: str) -> bool:
        """True the first time for a nonce of ours that is not too old."""
        given = self._given.pop(nonce, None)
        return given is not None and self._clock.now() - given <= NONCE_LIFETIME


@dataclass(slots=True)
class OrderBook:
    """Accounts and orders, found by id."""

    clock: Clock
    max_accounts: int = MAX_ACCOUNTS
    max_live: int = MAX_LIVE_ORDERS
    max_ended: int = MAX_ENDED_ORDERS
    lifetime: timedelta = ORDER_LIFETIME
    _accounts: OrderedDict[str, Account] = field(default_factory=OrderedDict)
    _by_key: dict[str, Account] = field(default_factory=dict)
    _live: OrderedDict[str, OrderRecord] = field(default_factory=OrderedDict)
    _ended: OrderedDict[str, OrderRecord] = field(default_factory=OrderedDict)

    def account(self, id_: str) -> Account | None:
        account = self._accounts.get(id_)
        if account is not None:
            self._accounts.move_to_end(id_)
        return account

    def account_of_key(self, key: PublicKey) -> Account | None:
        known = self._by_key.get(thumbprint(key))
        return None if known is None else self.account(known.id)

    def add_account(self, key: PublicKey, contact: tuple[str, ...]) -> Account:
        account = Account(_new_id(), key, contact)
        self._accounts[account.id] = account
        self._by_key[thumbprint(key)] = account
        if len(self._accounts) > self.max_accounts:
            _, silent = self._accounts.popitem(last=False)
            del self._by_key[thumbprint(silent.key)]
        return account

    def order(self, id_: str) -> OrderRecord | None:
        """An order, turned invalid if its time is over."""
        record = self._live.get(id_) or self._ended.get(id_)
        if record is not None and not record.has_ended and self.clock.now() >= record.expires:
            self._expire(record)
        return record

    def add_order(self, account: Account, identifier: Identifier, grant: Grant) -> OrderRecord:
        """Raises AcmeProblem rateLimited while the table is full of live orders."""
        now = self.clock.now()
        if len(self._live) >= self.max_live:
            self._expire_old(now)
        if len(self._live) >= self.max_live:
            raise AcmeProblem(
                "rateLimited",
                f"{self.max_live} orders are open already",
                status=429,
                retry_after_s=ORDERS_FULL_RETRY_S,
            )
        record = OrderRecord(
            id=_new_id(),
            account=account,
            identifier=identifier,
            grant=grant,
            token=base64url(secrets.token_bytes(32)),
            expires=now + self.lifetime,
        )
        self._live[record.id] = record
        return record

    def end(self, record: OrderRecord, status: OrderStatus) -> None:
        """Move an order to those that ended, forgetting the oldest of them where there are too many."""
        record.status = status
        self._live.pop(record.id, None)
        self._ended[record.id] = record
        if len(self._ended) > self.max_ended:
            self._ended.popitem(last=False)

    def sizes(self) -> tuple[int, int, int]:
        """How many accounts, live and ended orders are held."""
        return len(self._accounts), len(self._live), len(self._ended)

    def _expire_old(self, now: datetime) -> None:
        """All orders live equally long, so those that are over stand first."""
        while self._live:
            oldest = next(iter(self._live.values()))
            if now < oldest.expires:
                return
            self._expire(oldest)

    def _expire(self, record: OrderRecord) -> None:
        record.error = Problem(type="malformed", detail="the order expired", status=400)
        self.end(record, OrderStatus.INVALID)


def _new_id() -> str:
    return secrets.token_urlsafe(12)
