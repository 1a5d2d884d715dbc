"""Nonces are good once, for a while, and the oldest make room."""

from certs.acme.nonce_store import NONCE_LIFETIME, NonceStore
from certs.clock import SimulatedClock


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
