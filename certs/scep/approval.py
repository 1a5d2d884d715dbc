"""Who decides on SCEP requests that wait: a person, or the clock (certificates.md 1.9)."""

import hashlib
from collections import OrderedDict
from datetime import timedelta
from typing import Final

from certs.authorize import Decision, WaitingRequest
from certs.clock import Clock
from certs.keys import spki_der

MAX_WAITING: Final = 10_000


class ManualApproval:
    """Everything waits until somebody says `approve` or `deny`; the oldest of too many are no longer asked about."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[str, bytes], WaitingRequest] = OrderedDict()
        self._decisions: OrderedDict[tuple[str, bytes], Decision] = OrderedDict()

    @property
    def waiting(self) -> tuple[WaitingRequest, ...]:
        """Those nobody has decided on, oldest first."""
        return tuple(self._waiting.values())

    def approve(self, transaction_id: str) -> None:
        """The next poll brings the certificate. Raises LookupError unless exactly one request waits under this name."""
        self._decide(transaction_id, Decision.APPROVE)

    def deny(self, transaction_id: str) -> None:
        """The next poll brings badRequest. Raises LookupError as `approve` does."""
        self._decide(transaction_id, Decision.DENY)

    async def decide(self, waiting: WaitingRequest) -> Decision:
        key = _key(waiting)
        decision = self._decisions.pop(key, Decision.WAIT)
        if decision is Decision.WAIT:
            self._waiting.setdefault(key, waiting)
            if len(self._waiting) > MAX_WAITING:
                self._waiting.popitem(last=False)
        return decision

    def _decide(self, transaction_id: str, decision: Decision) -> None:
        """A transactionID is the client's own choice: two keys under one name must not be approved as one."""
        found = [key for key in self._waiting if key[0] == transaction_id]
        if len(found) != 1:
            raise LookupError(f"{len(found)} requests wait as transaction {transaction_id!r}")
        del self._waiting[found[0]]
        self._decisions[found[0]] = decision
        if len(self._decisions) > MAX_WAITING:
            self._decisions.popitem(last=False)


class TimedApproval:
    """Approves at the n-th poll, or once the request has waited so many seconds, whichever comes first."""

    def __init__(
        self, clock: Clock, *, polls: int | None = None, seconds: float | None = None
    ) -> None:
        if polls is None and seconds is None:
            raise ValueError("an approval without polls and seconds would never come")
        self._clock = clock
        self._polls = polls
        self._seconds = seconds

    async def decide(self, waiting: WaitingRequest) -> Decision:
        if self._polls is not None and waiting.polls >= self._polls:
            return Decision.APPROVE
        if self._seconds is not None:
            waited = self._clock.now() - waiting.since
            if waited >= timedelta(seconds=self._seconds):
                return Decision.APPROVE
        return Decision.WAIT


def _key(waiting: WaitingRequest) -> tuple[str, bytes]:
    key = spki_der(waiting.request.public_key)
    return waiting.transaction_id, hashlib.sha256(key).digest()
