"""Who decides on SCEP requests that wait: a person, or the clock (certificates.md 1.9)."""

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

from certs.authorize import Decision, WaitingRequest
from certs.clock import Clock

MAX_WAITING: Final = 10_000


class ManualApproval:
    """Everything waits until somebody says `approve` or `deny`; the oldest of too many are no longer asked about."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, WaitingRequest] = OrderedDict()  # by their id
        self._decisions: OrderedDict[str, Decision] = OrderedDict()

    @property
    def waiting(self) -> tuple[WaitingRequest, ...]:
        """Those nobody has decided on, oldest first."""
        return tuple(self._waiting.values())

    def approve(self, request_id: str) -> None:
        """The next poll brings the certificate. Raises LookupError when no request of this id waits."""
        self._decide(request_id, Decision.APPROVE)

    def deny(self, request_id: str) -> None:
        """The next poll brings badRequest. Raises LookupError as `approve` does."""
        self._decide(request_id, Decision.DENY)

    def forget(self, before: datetime) -> None:
        """Those that came before then, as the server does; an approval would lead to nothing."""
        for one in self.waiting:
            if one.since < before:
                del self._waiting[one.id]

    async def decide(self, waiting: WaitingRequest) -> Decision:
        decision = self._decisions.pop(waiting.id, Decision.WAIT)
        if decision is Decision.WAIT:
            self._waiting[waiting.id] = waiting
            if len(self._waiting) > MAX_WAITING:
                self._waiting.popitem(last=False)
        return decision

    def _decide(self, request_id: str, decision: Decision) -> None:
        """Not by transactionID, which is the client's own choice: what was seen is what gets the certificate."""
        if self._waiting.pop(request_id, None) is None:
            raise LookupError(f"no request {request_id!r} waits")
        self._decisions[request_id] = decision
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
