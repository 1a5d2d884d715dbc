"""The server's memory: nonces are good once, every table has its limit."""

from datetime import timedelta

import pytest

from certs.acme.message import ChallengeStatus, Identifier, OrderStatus
from certs.acme.order_book import NONCE_LIFETIME, NonceStore, OrderBook, OrderRecord
from certs.authorize import Grant
from certs.clock import SimulatedClock
from certs.errors import AcmeProblem
from certs.keys import generate

GRANT = Grant(reference="device")


def order(book: OrderBook) -> OrderRecord:
    account = book.add_account(generate("p256").public_key(), ())
    return book.add_order(account, Identifier("permanent-identifier", "S"), GRANT)


def test_a_nonce_is_good_once() -> None:
    nonces = NonceStore(SimulatedClock())
    nonce = nonces.new()
    assert nonces.use(nonce)
    assert not nonces.use(nonce)
    assert not nonces.use("bm9uY2U")


async def test_an_old_nonce_is_not_good() -> None:
    clock = SimulatedClock()
    nonces = NonceStore(clock)
    young, old = nonces.new(), nonces.new()
    await clock.advance(NONCE_LIFETIME.total_seconds())
    assert nonces.use(young)
    await clock.advance(1)
    assert not nonces.use(old)


def test_the_oldest_nonce_makes_room() -> None:
    nonces = NonceStore(SimulatedClock(), limit=3)
    given = [nonces.new() for _ in range(5)]
    assert len(nonces) == 3
    assert [nonces.use(nonce) for nonce in given] == [False, False, True, True, True]


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
    assert book.sizes()[1:] == (2, 1)


async def test_an_order_found_too_late_is_invalid() -> None:
    clock = SimulatedClock()
    book = OrderBook(clock)
    record = order(book)
    assert book.order(record.id) is record
    await clock.advance(book.lifetime.total_seconds())
    assert book.order(record.id) is record
    assert record.status is OrderStatus.INVALID
    assert record.error is not None
    assert record.error.detail == "the order expired"
    assert record.authorization_status(clock.now()) == "expired"


def test_the_order_that_ended_first_is_forgotten() -> None:
    book = OrderBook(SimulatedClock(), max_ended=2)
    records = [order(book) for _ in range(3)]
    for record in records:
        book.end(record, OrderStatus.VALID)
    assert [book.order(record.id) is not None for record in records] == [False, True, True]
    assert book.sizes()[1:] == (0, 2)


def test_tokens_hold_256_bits_and_differ() -> None:
    book = OrderBook(SimulatedClock())
    tokens = {order(book).token for _ in range(20)}
    assert len(tokens) == 20
    assert {len(token) for token in tokens} == {43}


def test_a_proof_lists_what_the_device_may_call_itself() -> None:
    book = OrderBook(SimulatedClock())
    account = book.add_account(generate("p256").public_key(), ())
    grant = Grant(reference="r", serial_number="SER")
    record = book.add_order(account, Identifier("permanent-identifier", "code"), grant)
    record.prove(None, book.clock.now())
    assert record.names == ("code", "SER")
    assert record.attested_spki is None
    assert (record.status, record.challenge_status) == (OrderStatus.READY, ChallengeStatus.VALID)
