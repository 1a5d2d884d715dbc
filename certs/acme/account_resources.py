"""The account's resources of an ACME server: newAccount, the account itself, its orders, keyChange (RFC 8555, section 7.3)."""

from typing import Final

import structlog
from aiohttp import web

from certs.acme import inner_jws
from certs.acme.account import (
    NOT_VALID,
    Account,
    AccountStatus,
    AccountUpdate,
    NewAccount,
    OrdersList,
    check_contacts,
)
from certs.acme.door import Call, Door, json_answer, problem_answer
from certs.acme.order_book import OrderBook
from certs.acme.policy import AcmePolicy
from certs.acme.problem import problem
from certs.acme.records import AccountRecord
from certs.errors import AcmeProblem, MalformedMessage

log = structlog.get_logger()

JWS_MEMBERS: Final = ("protected", "payload", "signature")
CURSOR: Final = "cursor"  # of a page of orders: how many come before it


class AccountResources:
    """Who may ask for certificates."""

    def __init__(self, door: Door, book: OrderBook, policy: AcmePolicy) -> None:
        self._door = door
        self._book = book
        self._policy = policy

    def add_routes(self, app: web.Application) -> None:
        door = self._door
        door.key_route(app, "new-account", "new_account", self._new_account)
        door.account_route(app, "account/{id}", "account", self._account)
        door.read_route(app, "account/{id}/orders", "orders", self._orders)
        door.account_route(app, "key-change", "key_change", self._key_change)

    async def _new_account(self, call: Call) -> web.Response:
        """The same key finds its account again."""
        wanted = NewAccount.from_fields(call.signed.fields())
        account = self._book.account_of_key(call.key)
        if account is not None:
            if account.status is not AccountStatus.VALID:
                reason = f"the account of this key is {account.status}"
                raise AcmeProblem("unauthorized", reason, status=NOT_VALID)
            return self._show(call, account)
        if wanted.only_return_existing:
            raise problem("accountDoesNotExist", "no account has this key")
        check_contacts(wanted.contact)
        key_id = self._external_account(call, wanted)
        account = self._book.add_account(call.key, wanted.contact)
        account.terms_of_service_agreed = wanted.terms_of_service_agreed
        binding = wanted.external_account_binding
        if key_id is not None and binding is not None:
            # Without what else a client wrote there: it would be kept, and shown, as long as the account.
            account.external_account_binding = {name: binding[name] for name in JWS_MEMBERS}
            log.info("acme_account", account=account.id, external_key_id=key_id)
        return self._show(call, account, status=201)

    def _external_account(self, call: Call, wanted: NewAccount) -> str | None:
        """Nothing is asked, and nothing read, where no external accounts are known."""
        if not self._policy.eab_keys:
            return None
        if wanted.external_account_binding is None:
            raise problem("externalAccountRequired", "newAccount needs externalAccountBinding")
        return inner_jws.check_binding(
            wanted.external_account_binding,
            call.key,
            url=call.signed.url,
            keys=self._policy.eab_keys,
        )

    async def _account(self, call: Call) -> web.Response:
        account = _own(call)
        if not call.signed.is_post_as_get:
            update = AccountUpdate.from_fields(call.signed.fields())
            if update.contact is not None:
                check_contacts(update.contact)
                account.contact = update.contact
            if update.deactivate:
                account.status = AccountStatus.DEACTIVATED
                log.info("acme_account", account=account.id, status=account.status.value)
        return self._show(call, account)

    async def _orders(self, call: Call) -> web.Response:
        """One page; a Link names the next (RFC 8555, section 7.1.2.1)."""
        account = _own(call)
        cursor = call.request.query.get(CURSOR, "0")
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
            raise MalformedMessage(CURSOR, "a number", cursor)
        start, size = int(cursor), self._policy.orders_per_page
        ids = [order.id for order in self._book.orders(account)]
        page = ids[start : start + size]
        headers = {}
        if start + size < len(ids):
            url = self._door.url(call.request, f"account/{account.id}/orders")
            headers["Link"] = f'<{url}?{CURSOR}={start + size}>;rel="next"'
        orders = OrdersList(tuple(self._door.url(call.request, f"order/{id_}") for id_ in page))
        return json_answer(orders.to_fields(), headers=headers)

    async def _key_change(self, call: Call) -> web.Response:
        new = inner_jws.check_key_change(call.signed, call.key)
        taken = self._book.account_of_key(new)
        if taken is not None:
            # RFC 8555, section 7.3.5: who has the key already is said by Location.
            refused = problem_answer(
                AcmeProblem("malformed", "the new key belongs to an account already", status=409)
            )
            refused.headers["Location"] = self._door.url(call.request, f"account/{taken.id}")
            return refused
        self._book.change_key(call.owner, new)
        log.info("acme_account", account=call.owner.id, key="changed")
        return self._show(call, call.owner)

    def _show(self, call: Call, account: AccountRecord, *, status: int = 200) -> web.Response:
        url = self._door.url(call.request, f"account/{account.id}")
        shown = Account(
            status=account.status,
            contact=account.contact,
            terms_of_service_agreed=account.terms_of_service_agreed,
            orders=f"{url}/orders",
            external_account_binding=account.external_account_binding,
        )
        return json_answer(shown.to_fields(), status=status, headers={"Location": url})


def _own(call: Call) -> AccountRecord:
    if call.id != call.owner.id:
        raise problem("unauthorized", "this is another account")
    return call.owner
