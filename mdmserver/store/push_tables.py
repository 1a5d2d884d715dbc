"""SQL about pushing: whom a push reaches, and which tokens APNs has turned down."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from mdmserver.store.base import DeviceState, PushTarget
from mdmserver.store.rows import time_text

_TARGET = (
    "SELECT d.udid, d.topic, d.push_token, d.push_magic, o.reason, o.since"
    " FROM devices d LEFT JOIN push_off o ON o.udid = d.udid"
    " WHERE d.push_token IS NOT NULL AND d.state NOT IN (?, ?)"
)
_GONE = (DeviceState.AUTHENTICATED.value, DeviceState.CHECKED_OUT.value)


def target(connection: sqlite3.Connection, udid: str) -> PushTarget | None:
    row = connection.execute(f"{_TARGET} AND d.udid = ?", (*_GONE, udid)).fetchone()
    return None if row is None else _target(row)


def targets(connection: sqlite3.Connection) -> Sequence[str]:
    rows = connection.execute(f"{_TARGET} AND o.udid IS NULL ORDER BY d.rowid", _GONE)
    return [row["udid"] for row in rows]


def waiting(connection: sqlite3.Connection, queued_before: datetime) -> Sequence[str]:
    rows = connection.execute(
        "SELECT DISTINCT c.udid FROM commands c LEFT JOIN push_off o ON o.udid = c.udid"
        " WHERE c.state IN ('queued', 'delivered') AND c.queued_at <= ? AND o.udid IS NULL",
        (time_text(queued_before),),
    )
    return [row["udid"] for row in rows]


def turn_off(
    connection: sqlite3.Connection, udid: str, token: bytes, reason: str, at: datetime
) -> bool:
    turned = connection.execute(
        # A refusal of an earlier token says nothing about the one that came meanwhile.
        "INSERT OR REPLACE INTO push_off (udid, reason, since)"
        " SELECT udid, ?, ? FROM devices WHERE udid = ? AND push_token = ?",
        (reason, time_text(at), udid, token),
    )
    return turned.rowcount == 1


def turn_on(connection: sqlite3.Connection, udid: str) -> None:
    """A TokenUpdate, or a new life."""
    connection.execute("DELETE FROM push_off WHERE udid = ?", (udid,))


def _target(row: sqlite3.Row) -> PushTarget:
    since = row["since"]
    return PushTarget(
        udid=row["udid"],
        topic=row["topic"],
        token=row["push_token"],
        magic=row["push_magic"],
        off_reason=row["reason"],
        off_since=datetime.fromisoformat(since) if since is not None else None,
    )
