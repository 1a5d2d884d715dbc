"""The server's memory: every table has its limit, and an order follows its authorizations."""

from datetime import timedelta

import pytest

from certs.acme.message import Identifier, OrderStatus
from certs.acme.order_book import OrderBook
from certs.acme.problem import Problem
from certs.acme.records import AccountRecord, AuthorizationRecord, OrderRecord
from certs.authorize import Grant
from certs.clock import SimulatedClock
from certs.errors import AcmeProblem
from certs.keys import generate

GRANT = Grant(reference="device")
DEVICE = Identifier("permanent-identifier", "S")


def account(book: OrderBook) -> AccountRecord:
    return book.add_account(generate("p256").public_key(), ())


def authorization(book: OrderBook, owner: AccountRecord) -> AuthorizationRecord:
    return book.new_authorization(owner, DEVICE, "device-attest-01", GRANT)


def order(book: OrderBook, owner: AccountRecord | None = None) -> OrderRecord:
    owner = owner or account(book)
    return book.add_order(owner, [authorization(book, owner)])


def test_the_account_silent_longest_makes_room() -> None:
    book = OrderBook(SimulatedClock(), max_accounts=2)
    keys = [generate("p256").public_key() for _ in range(3)]
    first, second = (book.add_account(key, ()) for key in keys[:2])
    assert book.account(first.id) is first
    book.add_account(keys[2], ())
    assert book.account(second.id) is None
    assert book.account_of_key(keys[1]) is None
    assert book.account_of_key(keys[0]) is first
    assert book.sizes()[0] == 2


def test_a_table_full_of_live_orders_limits_the_rate() -> None:
    book = OrderBook(SimulatedClock(), max_live=2)
    first = order(book)
    order(book)
    with pytest.raises(AcmeProblem) as caught:
        order(book)
    assert (caught.value.type, caught.value.status) == ("rateLimited", 429)
    assert caught.value.retry_after_s
    book.end(first, OrderStatus.VALID)
    assert order(book)


async def test_expired_orders_make_room() -> None:
    clock = SimulatedClock()
    book = OrderBook(clock, max_live=2, lifetime=timedelta(minutes=5))
    first = order(book)
    await clock.advance(200)
    order(book)
    await clock.advance(100)
    order(book)
    assert first.status is OrderStatus.INVALID
    assert book.sizes()[1:3] == (2, 1)


async def test_an_order_found_too_late_is_invalid() -> None:
    clock = SimulatedClock()
    book = OrderBook(clock)
    record = order(book)
    assert book.order(record.id) is record
    await clock.advance(book.lifetime.total_seconds())
    assert book.order(record.id) is record
    assert record.status == "invalid"
    assert record.error is not None
    assert record.error.detail == "the order expired"
    assert record.authorizations[0].status(clock.now()) == "expired"


def test_the_order_that_ended_first_is_forgotten() -> None:
    book = OrderBook(SimulatedClock(), max_ended=2)
    records = [order(book) for _ in range(3)]
    for record in records:
        book.end(record, OrderStatus.VALID)
    assert [book.order(record.id) is not None for record in records] == [False, True, True]
    assert book.sizes()[1:] == (0, 2, 2)


def test_tokens_hold_256_bits_and_differ() -> None:
    book = OrderBook(SimulatedClock())
    tokens = {order(book).authorizations[0].token for _ in range(20)}
    assert len(tokens) == 20
    assert {len(token) for token in tokens} == {43}


def test_a_proof_lists_what_the_device_may_call_itself() -> None:
    book = OrderBook(SimulatedClock())
    grant = Grant(reference="r", serial_number="SER")
    code = Identifier("permanent-identifier", "code")
    found = book.new_authorization(account(book), code, "device-attest-01", grant)
    found.prove(None, book.clock.now())
    assert found.names == ("code", "SER")
    assert found.attested_spki is None


def test_an_order_follows_its_authorizations() -> None:
    book = OrderBook(SimulatedClock())
    owner = account(book)
    both = [authorization(book, owner), authorization(book, owner)]
    record = book.add_order(owner, both)
    assert record.status == "pending"
    both[0].prove(None, book.clock.now())
    book.order(record.id)
    assert record.status == "pending"
    both[1].prove(None, book.clock.now())
    book.order(record.id)
    assert record.status == "ready"
    both[1].deactivated = True
    book.order(record.id)
    assert record.status == "invalid"
    assert record.error == Problem(
        type="unauthorized", detail="an authorization is deactivated", status=403
    )


def test_a_failed_authorization_says_why_the_order_is_invalid() -> None:
    book = OrderBook(SimulatedClock())
    record = order(book)
    why = Problem(type="badAttestationStatement", detail="no", status=400)
    record.authorizations[0].fail(why)
    found = book.order(record.id)
    assert found is record
    assert (found.status, found.error) == (OrderStatus.INVALID, why)


async def test_a_ready_order_outlives_its_authorization() -> None:
    clock = SimulatedClock()
    book = OrderBook(clock)
    owner = account(book)
    old = authorization(book, owner)
    old.prove(None, clock.now())
    await clock.advance(3000)
    record = book.add_order(owner, [old])
    assert record.status == "ready"
    await clock.advance(1000)
    assert old.status(clock.now()) == "expired"
    found = book.order(record.id)
    assert found is not None
    assert found.status is OrderStatus.READY


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_decided_shows_after_as_many_looks(fails: bool) -> None:
    book = OrderBook(SimulatedClock())
    record = order(book).authorizations[0]
    if fails:
        record.fail(Problem(type="caa"), 2)
    else:
        record.prove(None, book.clock.now(), 2)
    seen = []
    for _ in range(3):
        seen.append(record.to_challenge("u").status)
        record.polled()
    assert seen == ["processing", "processing", "invalid" if fails else "valid"]


def test_only_a_valid_authorization_of_the_same_account_counts_as_proved() -> None:
    book = OrderBook(SimulatedClock())
    mine, other = account(book), account(book)
    record = order(book, mine).authorizations[0]
    book.remember_proof(record)
    assert book.proved(mine, DEVICE) is None
    record.prove(None, book.clock.now())
    assert book.proved(mine, DEVICE) is record
    assert book.proved(other, DEVICE) is None
    record.deactivated = True
    assert book.proved(mine, DEVICE) is None


def test_an_authorization_is_remembered_as_long_as_an_order_has_it() -> None:
    book = OrderBook(SimulatedClock(), max_ended=1)
    owner = account(book)
    shared = authorization(book, owner)
    shared.prove(None, book.clock.now())
    book.remember_proof(shared)
    first, second = book.add_order(owner, [shared]), book.add_order(owner, [shared])
    book.end(first, OrderStatus.VALID)
    book.end(second, OrderStatus.VALID)  # the first is forgotten
    assert book.order(first.id) is None
    assert book.authorization(shared.id) is shared
    assert list(owner.orders) == [second.id]
    book.end(order(book), OrderStatus.INVALID)  # and now the second
    assert book.authorization(shared.id) is None
    assert book.proved(owner, DEVICE) is None
    assert book.sizes() == (2, 0, 1, 1)


def test_an_account_is_found_by_its_present_key_alone() -> None:
    book = OrderBook(SimulatedClock())
    old, new = generate("p256").public_key(), generate("p384").public_key()
    owner = book.add_account(old, ())
    book.change_key(owner, new)
    assert book.account_of_key(old) is None
    assert book.account_of_key(new) is owner
