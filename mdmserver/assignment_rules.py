"""When a token may sync, and how: the limits of rules 29-32 and 105-110 as plain functions of time.

Comes in: how far the syncs of a token are, the time, who asks for what. Goes out: what to do, or since when it may be done.

| sync | how often |
|---|---|
| full | every 7 days, unless a delta failed or its cursor expired; one that ran out of time goes on from its cursor |
| delta | every 12 hours by itself |
| asked for by an admin | every 15 minutes; above 45,000 devices a warning names the minutes that Apple needs |
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from mdmserver.assignment_errors import SyncTooSoon
from mdmserver.store.assignment_base import Position, SyncKind, SyncState, Trigger

FULL_EVERY: Final = timedelta(days=7)
DELTA_EVERY: Final = timedelta(hours=12)
MANUAL_EVERY: Final = timedelta(minutes=15)
SYNC_LIMIT: Final = timedelta(minutes=15)  # a sync that takes longer is ended
RESUME_AFTER: Final = timedelta(minutes=15)  # a full sync that ran out of time goes on then
DEVICES_PER_MINUTE: Final = 3000  # what Apple's service takes
MAX_DEVICES: Final = 200_000  # per token and per profile
MAX_PROFILES: Final = 1000  # per token
MAX_TOKENS: Final = 2000
MAX_SERIALS: Final = 1000  # in one request
REMOVED_AT_LEAST: Final = timedelta(days=30)  # what was removed is shown that long
REMOVED_AT_MOST: Final = timedelta(days=45)
PURGE_EVERY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """The sync that is to run."""

    kind: SyncKind
    fresh: bool = False  # a full one without a cursor
    resumed: bool = False  # a full one that goes on from its cursor
    warning: str | None = None


def plan(
    position: Position,
    *,
    now: datetime,
    trigger: Trigger,
    wanted: SyncKind | None = None,
    devices: int = 0,
) -> Plan:
    """What runs when `trigger` asks for `wanted` (None: whatever is due). Raises SyncTooSoon."""
    manual = trigger == "manual"
    if manual and position.last_manual_at is not None:
        until = position.last_manual_at + MANUAL_EVERY
        if now < until:
            raise _too_soon("an admin may sync every 15 minutes", until, now)
    warning = _pace(position, now, devices) if manual else None
    if position.phase == "full" and position.cursor is not None:
        return Plan("full", resumed=True, warning=warning)
    if position.cursor is None or position.force_full:
        return Plan("full", fresh=True, warning=warning)
    due = full_due(position)
    if wanted == "full" and due is not None and now < due:
        raise _too_soon("a full sync may run every 7 days", due, now)
    if wanted == "full" or (wanted is None and (due is None or now >= due)):
        return Plan("full", fresh=True, warning=warning)
    return Plan("delta", warning=warning)


def full_due(position: Position) -> datetime | None:
    """From when on the 7 days allow a full sync; None when there has been none."""
    if position.full_started_at is None:
        return None
    return position.full_started_at + FULL_EVERY


def next_due(position: Position, latest: SyncState | None) -> datetime | None:
    """When the next sync runs by itself; None: at once, as there was none, or the process ended in the middle of it."""
    started = position.last_started_at
    if started is None or latest is SyncState.INTERRUPTED:
        return None
    if latest is SyncState.TIMED_OUT and position.phase == "full":
        return started + SYNC_LIMIT + RESUME_AFTER
    return started + DELTA_EVERY


def _too_soon(reason: str, until: datetime, now: datetime) -> SyncTooSoon:
    return SyncTooSoon(reason, until=until, seconds=(until - now).total_seconds())


def _pace(position: Position, now: datetime, devices: int) -> str | None:
    """Rule 32: the wait that the number of devices asks for; its neglect is flagged, not refused."""
    if position.last_started_at is None:
        return None
    minutes = -(-devices // DEVICES_PER_MINUTE)
    until = position.last_started_at + timedelta(minutes=minutes)
    if now >= until:
        return None
    return (
        f"{devices} devices take {minutes} minutes at {DEVICES_PER_MINUTE} a minute: "
        f"the sync before may still be at work until {until:%FT%TZ}"
    )
