"""Device tokens and what waits for them: registration, store-and-forward, coalescing, expiry (apple-services.md 6.4, 6.5).

A token belongs to one device and topic. While its device listens, a push goes straight to its wake channel; otherwise one
push per token is kept, the newest. A token that was replaced or forgotten is remembered for 30 days, for the 410.
In memory: after a restart fleets register again, and what waited is lost, as may happen at Apple's.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from certs.clock import Clock
from emulator.apple.memory import Memory
from emulator.apple.push_stats import PushStats
from emulator.errors import EmulatorError
from emulator.wire.push import Reason

log = structlog.get_logger()

GONE_REMEMBERED: Final = timedelta(days=30)


class TooManyTokens(EmulatorError):
    """The registry is full (setting `max_tokens`)."""


@dataclass(slots=True, kw_only=True)
class Notification:
    """One accepted push on its way."""

    token: bytes
    apns_id: str
    payload: bytes
    accepted_at: datetime
    expires_at: datetime | None  # None: one attempt, never stored
    stored: bool = False  # it waited


class WakeChannel(Protocol):
    """A way to devices that listen; it holds at most one push per token that is not on the wire yet."""

    def deliver(self, push: Notification) -> None:
        """Take over the push; what cannot be delivered comes back by `PushTokens.give_back`."""
        ...

    def superseded(self, token: bytes) -> None:
        """Another channel has the token now."""
        ...


@dataclass(slots=True)
class TokenRecord:
    """One registered token."""

    topic: str | None  # None: only in compat mode, where a token may be known before its topic
    device: str | None
    channel: WakeChannel | None = None
    pending: Notification | None = None
    minute: int = 0  # the one that `in_minute` counts
    in_minute: int = 0
    asked: int = 0  # how often a fault was asked for


@dataclass(frozen=True, slots=True)
class GoneToken:
    """A token that is no more."""

    since: datetime
    reason: Reason


class PushTokens:
    """All tokens of one stand-in."""

    def __init__(self, clock: Clock, stats: PushStats, *, limit: int) -> None:
        self._clock = clock
        self._stats = stats
        self._limit = limit
        self._records: dict[bytes, TokenRecord] = {}
        self._by_device: dict[tuple[str, str], bytes] = {}  # (device, topic)
        self._gone: Memory[GoneToken] = Memory(GONE_REMEMBERED)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, token: bytes) -> bool:
        return token in self._records

    def get(self, token: bytes) -> TokenRecord | None:
        return self._records.get(token)

    def gone(self, token: bytes) -> GoneToken | None:
        """When and why a token ended, if it did."""
        return self._gone.get(token, self._clock.now())

    def tokens(self) -> list[bytes]:
        """All of them, in the order of their registration."""
        return list(self._records)

    def counts(self) -> tuple[int, int, int]:
        """How many listen, how many pushes wait, how many ended tokens are remembered; expired pushes go first."""
        now = self._clock.now()
        online = pending = 0
        for record in self._records.values():
            online += record.channel is not None
            pending += self._unexpired(record, now) is not None
        return online, pending, len(self._gone)

    # --- registration

    def register(self, token: bytes, topic: str | None, device: str | None = None) -> TokenRecord:
        """Make the token known; an earlier one of the same device and topic ends now. Raises TooManyTokens."""
        record = self._records.get(token)
        if record is None:
            if len(self._records) >= self._limit:
                raise TooManyTokens(f"{self._limit} tokens are registered already")
            self._gone.drop(token)
            record = self._records[token] = TokenRecord(topic, device)
        elif topic is not None and (record.topic, record.device) != (topic, device):
            self._unlink(token, record)
            record.topic, record.device = topic, device
        if topic is not None and device is not None:
            earlier = self._by_device.get((device, topic))
            if earlier is not None and earlier != token:
                self.forget(earlier)
                log.info("push_token_replaced", device=device, topic=topic)
            self._by_device[device, topic] = token
        return record

    def forget(self, token: bytes, reason: Reason = Reason.UNREGISTERED) -> bool:
        """The token ends: from now on a push to it is a 410. False: nobody knows it."""
        record = self._records.pop(token, None)
        if record is None:
            return False
        self._unlink(token, record)
        if record.channel is not None:
            record.channel.superseded(token)
        now = self._clock.now()
        self._gone.put(token, GoneToken(now, reason), now)
        return True

    def _unlink(self, token: bytes, record: TokenRecord) -> None:
        if record.device is not None and record.topic is not None:
            key = (record.device, record.topic)
            if self._by_device.get(key) == token:
                del self._by_device[key]

    # --- wake channels

    def connect(self, token: bytes, channel: WakeChannel) -> bool:
        """The device of this token listens here from now on; the newest channel wins. What waited is delivered.

        False: the token is not registered.
        """
        record = self._records.get(token)
        if record is None:
            return False
        earlier, record.channel = record.channel, channel
        if earlier is not None and earlier is not channel:
            earlier.superseded(token)
        push = self._unexpired(record, self._clock.now())
        if push is not None:
            record.pending = None
            channel.deliver(push)
        return True

    def disconnect(self, token: bytes, channel: WakeChannel) -> None:
        """The device listens here no more; pushes are stored from now on."""
        record = self._records.get(token)
        if record is not None and record.channel is channel:
            record.channel = None

    def listens(self, token: bytes, channel: WakeChannel) -> bool:
        """Whether the device of this token listens here at the moment."""
        record = self._records.get(token)
        return record is not None and record.channel is channel

    def disconnect_all(self, channel: WakeChannel) -> None:
        """The channel is no more."""
        for record in self._records.values():
            if record.channel is channel:
                record.channel = None

    # --- pushes

    def accept(self, push: Notification) -> None:
        """Deliver, store or drop a push for a registered token; one that has ended meanwhile swallows it."""
        record = self._records.get(push.token)
        if record is None:
            self._stats.discarded += 1
        elif record.channel is not None:
            record.channel.deliver(push)
        else:
            self._store(record, push)

    def give_back(self, push: Notification) -> None:
        """A channel could not deliver: to the device's new channel, or back into the store unless a newer one waits."""
        record = self._records.get(push.token)
        if record is None:
            return
        self._stats.returned += 1
        if record.channel is not None:
            record.channel.deliver(push)
        elif record.pending is None:
            self._store(record, push)

    def delivered(self, push: Notification) -> None:
        """A channel reports that the push has reached the device."""
        if push.stored:
            self._stats.delivered_on_connect += 1
        else:
            self._stats.delivered_live += 1

    def coalesced(self) -> None:
        """A channel reports that a newer push took the place of one that still waited."""
        self._stats.coalesced += 1

    def _store(self, record: TokenRecord, push: Notification) -> None:
        now = self._clock.now()
        if push.expires_at is None or push.expires_at <= now:
            self._stats.discarded += 1
            return
        if self._unexpired(record, now) is not None:
            self._stats.coalesced += 1
        push.stored = True
        record.pending = push
        self._stats.stored += 1

    def _unexpired(self, record: TokenRecord, now: datetime) -> Notification | None:
        push = record.pending
        if push is None or push.expires_at is None:
            return None
        if push.expires_at <= now:
            record.pending = None
            self._stats.expired += 1
            return None
        return push
