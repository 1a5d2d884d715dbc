"""What a SCEP server remembers of the requests it answered, so that one sent again does not issue twice.

The key is (transactionID, digest of the public key): another key under a known transactionID is another transaction
and never sees the first one's certificate (certificates.md 1.7, 1.9).
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from certs.clock import Clock

REMEMBERED_FOR: Final = timedelta(hours=1)
MAX_REMEMBERED: Final = 100_000

TransactionKey = tuple[str, bytes]


class Transactions:
    """Certificates issued within the last hour, by transaction."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._issued: OrderedDict[TransactionKey, tuple[datetime, x509.Certificate]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._issued)

    def certificate(self, key: TransactionKey) -> x509.Certificate | None:
        self._forget_old()
        found = self._issued.get(key)
        return None if found is None else found[1]

    def remember(self, key: TransactionKey, certificate: x509.Certificate) -> None:
        self._issued[key] = (self._clock.now(), certificate)
        self._forget_old()

    def _forget_old(self) -> None:
        """Oldest first, as they were put in."""
        limit = self._clock.now() - REMEMBERED_FOR
        while self._issued:
            key, (moment, _) = next(iter(self._issued.items()))
            if moment >= limit and len(self._issued) <= MAX_REMEMBERED:
                return
            del self._issued[key]


class Turns:
    """One at a time per key, so that what is checked is still true when it is acted upon."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def take(self, key: Hashable) -> AsyncIterator[None]:
        lock, waiting = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[key]
            if waiting == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, waiting - 1)
