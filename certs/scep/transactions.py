"""What a SCEP server remembers of requests: those that wait, and the answers of the last hour.

So one sent again does not issue twice, and a poll finds its request. The key is (transactionID, digest of all that is asked
for): another key, challenge or subject under a known transactionID is another transaction, judged by itself, and never
sees the first one's certificate (certificates.md 1.7, 1.9). A poll holds none of it; it belongs to whoever signed the request.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from certs.authorize import WaitingRequest
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import ScepFailure
from certs.keys import PublicKey, spki_der

REMEMBERED_FOR: Final = timedelta(hours=1)
WAITING_FOR: Final = timedelta(days=1)  # longer than any client polls
MAX_REMEMBERED: Final = 100_000
MAX_WAITING: Final = 10_000

TransactionKey = tuple[str, bytes]
Answer = x509.Certificate | ScepFailure


def key_of(transaction_id: str, public_key: PublicKey) -> TransactionKey:
    return transaction_id, hashlib.sha256(spki_der(public_key)).digest()


def request_key(transaction_id: str, request: CertificateRequest) -> TransactionKey:
    """What makes two requests one: who asks for what, for which key, and by which right."""
    return transaction_id, hashlib.sha256(request.information).digest()


class Transactions:
    """By transaction: requests that wait for a decision, and answers given within the last hour."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answered: OrderedDict[TransactionKey, tuple[datetime, Answer]] = OrderedDict()
        self._waiting: OrderedDict[TransactionKey, WaitingRequest] = OrderedDict()
        self._signers: OrderedDict[TransactionKey, TransactionKey] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answered) + len(self._waiting)

    def find(self, key: TransactionKey) -> x509.Certificate | WaitingRequest | None:
        """What was issued to it, or the request that waits. Raises the ScepFailure with which one that waited ended."""
        if key not in self._answered and key not in self._waiting:
            return None
        self._forget_old(self._clock.now())
        found = self._answered.get(key)
        if found is None:
            return self._waiting.get(key)
        if isinstance(found[1], ScepFailure):
            raise ScepFailure(found[1].fail_info, found[1].text)
        return found[1]

    def remember(self, key: TransactionKey, answer: Answer) -> None:
        """The decision, kept for an hour from now; the transaction waits no longer."""
        self._waiting.pop(key, None)
        now = self._clock.now()
        self._answered[key] = (now, answer)
        self._forget_old(now)

    def wait(self, key: TransactionKey, request: WaitingRequest, signer: rsa.RSAPublicKey) -> None:
        """Keep it until it is decided; polls for it are signed by `signer`."""
        self._waiting[key] = request
        self._signers[key_of(request.transaction_id, signer)] = key
        if len(self._signers) > MAX_REMEMBERED:
            self._signers.popitem(last=False)
        self._forget_old(self._clock.now())

    def polled(self, transaction_id: str, signer: rsa.RSAPublicKey) -> TransactionKey | None:
        """The transaction that a poll is about."""
        return self._signers.get(key_of(transaction_id, signer))

    def _forget_old(self, now: datetime) -> None:
        """Oldest first, as they were put in."""
        while self._answered:
            key, (moment, _) = next(iter(self._answered.items()))
            if moment >= now - REMEMBERED_FOR and len(self._answered) <= MAX_REMEMBERED:
                break
            del self._answered[key]
        while self._waiting:
            key, request = next(iter(self._waiting.items()))
            if request.since >= now - WAITING_FOR and len(self._waiting) <= MAX_WAITING:
                break
            del self._waiting[key]


class Turns:
    """One at a time per key, so that what is checked is still true when it is acted upon."""

    def __init__(self) -> None:
        self._turns: dict[Hashable, _Turn] = {}

    def take(self, key: Hashable) -> "_Turn":
        """An async context manager; it waits until all that took the same key before have left."""
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = _Turn(self._turns, key)
        return turn


class _Turn:
    """Of one key, while anybody has or awaits it."""

    __slots__ = ("_key", "_lock", "_turns", "_users")

    def __init__(self, turns: "dict[Hashable, _Turn]", key: Hashable) -> None:
        self._turns = turns
        self._key = key
        self._lock = asyncio.Lock()
        self._users = 0

    async def __aenter__(self) -> None:
        self._users += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *exc: object) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            del self._turns[self._key]
