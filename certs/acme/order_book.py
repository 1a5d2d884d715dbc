"""What an ACME server remembers: accounts, authorizations, orders. Every table has a limit, so that load cannot grow it for ever.

The account that was silent longest and the order that ended first are forgotten, an authorization with the last order that has
it; live orders are not, so when they fill their table, newOrder is answered with rateLimited until some end or expire.
"""

import secrets
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from certs.acme.jws import base64url, thumbprint
from certs.acme.message import AuthorizationStatus, Identifier, OrderStatus
from certs.acme.problem import Problem
from certs.acme.records import AccountRecord, AuthorizationRecord, OrderRecord
from certs.authorize import Grant
from certs.clock import Clock
from certs.errors import AcmeProblem
from certs.keys import PublicKey

ORDER_LIFETIME: Final = timedelta(hours=1)
MAX_ACCOUNTS: Final = 20_000
MAX_LIVE_ORDERS: Final = 20_000
MAX_ENDED_ORDERS: Final = 20_000
ORDERS_FULL_RETRY_S: Final = 60.0
EXPIRED: Final = Problem(type="malformed", detail="the order expired", status=400)

Key = tuple[str, Identifier]


@dataclass(slots=True)
class OrderBook:
    """Accounts, authorizations and orders, found by id."""

    clock: Clock
    max_accounts: int = MAX_ACCOUNTS
    max_live: int = MAX_LIVE_ORDERS
    max_ended: int = MAX_ENDED_ORDERS
    lifetime: timedelta = ORDER_LIFETIME
    _accounts: OrderedDict[str, AccountRecord] = field(default_factory=OrderedDict)
    _by_key: dict[str, AccountRecord] = field(default_factory=dict)
    _authorizations: dict[str, AuthorizationRecord] = field(default_factory=dict)
    _proved: dict[Key, AuthorizationRecord] = field(default_factory=dict)
    _by_serial: dict[int, OrderRecord] = field(default_factory=dict)
    _live: OrderedDict[str, OrderRecord] = field(default_factory=OrderedDict)
    _ended: OrderedDict[str, OrderRecord] = field(default_factory=OrderedDict)

    def account(self, id_: str) -> AccountRecord | None:
        account = self._accounts.get(id_)
        if account is not None:
            self._accounts.move_to_end(id_)
        return account

    def account_of_key(self, key: PublicKey) -> AccountRecord | None:
        known = self._by_key.get(thumbprint(key))
        return None if known is None else self.account(known.id)

    def add_account(self, key: PublicKey, contact: tuple[str, ...]) -> AccountRecord:
        account = AccountRecord(_new_id(), key, contact)
        self._accounts[account.id] = account
        self._by_key[thumbprint(key)] = account
        if len(self._accounts) > self.max_accounts:
            _, silent = self._accounts.popitem(last=False)
            del self._by_key[thumbprint(silent.key)]
        return account

    def change_key(self, account: AccountRecord, key: PublicKey) -> None:
        """From now on the account is found by this key alone."""
        del self._by_key[thumbprint(account.key)]
        account.key = key
        self._by_key[thumbprint(key)] = account

    def authorization(self, id_: str) -> AuthorizationRecord | None:
        return self._authorizations.get(id_)

    def proved(self, account: AccountRecord, identifier: Identifier) -> AuthorizationRecord | None:
        """The newest authorization of this account for this identifier, as long as it is valid."""
        found = self._proved.get((account.id, identifier))
        if found is None or found.status(self.clock.now()) is not AuthorizationStatus.VALID:
            return None
        return found

    def order(self, id_: str) -> OrderRecord | None:
        """An order in the state that its authorizations and the time put it in."""
        order = self._live.get(id_) or self._ended.get(id_)
        if order is not None and not order.has_ended:
            self._settle(order, self.clock.now())
        return order

    def order_of_certificate(self, serial_number: int) -> OrderRecord | None:
        """The order that ended with this certificate, while it is remembered."""
        return self._by_serial.get(serial_number)

    def orders(self, account: AccountRecord) -> Iterator[OrderRecord]:
        """Those of an account that are not invalid, oldest first (RFC 8555, section 7.1.2.1)."""
        for id_ in tuple(account.orders):
            order = self.order(id_)
            if order is not None and order.status is not OrderStatus.INVALID:
                yield order

    def make_room(self) -> None:
        """Raises AcmeProblem rateLimited while the table is full of live orders."""
        if len(self._live) >= self.max_live:
            self._expire_old(self.clock.now())
        if len(self._live) >= self.max_live:
            raise AcmeProblem(
                "rateLimited",
                f"{self.max_live} orders are open already",
                status=429,
                retry_after_s=ORDERS_FULL_RETRY_S,
            )

    def new_authorization(
        self,
        account: AccountRecord,
        identifier: Identifier,
        challenge_type: str,
        grant: Grant | None = None,
    ) -> AuthorizationRecord:
        """One to be proved; it is remembered together with the order it is for."""
        return AuthorizationRecord(
            id=_new_id(),
            account=account,
            identifier=identifier,
            grant=grant,
            challenge_type=challenge_type,
            token=base64url(secrets.token_bytes(32)),
            expires=self.clock.now() + self.lifetime,
        )

    def add_order(
        self, account: AccountRecord, authorizations: Sequence[AuthorizationRecord]
    ) -> OrderRecord:
        """Raises AcmeProblem rateLimited."""
        self.make_room()
        now = self.clock.now()
        order = OrderRecord(
            id=_new_id(),
            account=account,
            authorizations=tuple(authorizations),
            expires=now + self.lifetime,
        )
        self._live[order.id] = order
        account.orders[order.id] = None
        for authorization in authorizations:
            authorization.orders += 1
            self._authorizations[authorization.id] = authorization
        self._settle(order, now)
        return order

    def remember_proof(self, authorization: AuthorizationRecord) -> None:
        self._proved[authorization.account.id, authorization.identifier] = authorization

    def end(self, order: OrderRecord, status: OrderStatus) -> None:
        """Move an order to those that ended, forgetting the oldest of them where there are too many."""
        order.status = status
        self._live.pop(order.id, None)
        self._ended[order.id] = order
        if order.certificate is not None:
            self._by_serial[order.certificate.serial_number] = order
        if len(self._ended) > self.max_ended:
            _, oldest = self._ended.popitem(last=False)
            self._forget(oldest)

    def expire(self, order: OrderRecord) -> None:
        """Its time is over."""
        order.error = EXPIRED
        self.end(order, OrderStatus.INVALID)

    def sizes(self) -> tuple[int, int, int, int]:
        """How many accounts, live orders, ended orders and authorizations are held."""
        return (
            len(self._accounts),
            len(self._live),
            len(self._ended),
            len(self._authorizations),
        )

    def _settle(self, order: OrderRecord, now: datetime) -> None:
        """RFC 8555, section 7.1.6: an order follows its authorizations until it is finalized."""
        if order.status not in (OrderStatus.PENDING, OrderStatus.READY):
            return
        if now >= order.expires:
            self.expire(order)
            return
        states = {authorization.status(now) for authorization in order.authorizations}
        lost = states - {AuthorizationStatus.PENDING, AuthorizationStatus.VALID}
        if order.status is OrderStatus.READY:
            lost.discard(AuthorizationStatus.EXPIRED)  # it was valid when it counted
        if lost:
            order.error = next((one.error for one in order.authorizations if one.error), None)
            if order.error is None:
                detail = f"an authorization is {', '.join(sorted(lost))}"
                order.error = Problem(type="unauthorized", detail=detail, status=403)
            self.end(order, OrderStatus.INVALID)
        elif order.status is OrderStatus.PENDING and states == {AuthorizationStatus.VALID}:
            order.status = OrderStatus.READY

    def _forget(self, order: OrderRecord) -> None:
        order.account.orders.pop(order.id, None)
        if order.certificate is not None:
            self._by_serial.pop(order.certificate.serial_number, None)
        for authorization in order.authorizations:
            authorization.orders -= 1
            if authorization.orders == 0:
                del self._authorizations[authorization.id]
                key = authorization.account.id, authorization.identifier
                if self._proved.get(key) is authorization:
                    del self._proved[key]

    def _expire_old(self, now: datetime) -> None:
        """All orders live equally long, so those that are over stand first."""
        while self._live:
            oldest = next(iter(self._live.values()))
            if now < oldest.expires:
                return
            self.expire(oldest)


def _new_id() -> str:
    return secrets.token_urlsafe(12)
