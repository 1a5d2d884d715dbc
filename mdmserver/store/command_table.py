"""SQL about the queue: one row a command, delivered in the order of its position."""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from mdmserver.store.base import (
    CommandState,
    DeviceState,
    Origin,
    QueuedCommand,
    Recorded,
)
from mdmserver.store.rows import from_row, insert, time_text

OPEN = "state IN ('queued', 'delivered', 'not_now')"  # as the partial index says it


def enqueue(connection: sqlite3.Connection, command: QueuedCommand) -> bool:
    if one(connection, command.uuid) is not None:
        return False
    insert(connection, "commands", command)
    return True


def enqueue_device_configured(connection: sqlite3.Connection, command: QueuedCommand) -> bool:
    still_open = connection.execute(
        f"SELECT 1 FROM commands WHERE udid = ? AND {OPEN} LIMIT 1", (command.udid,)
    ).fetchone()
    if still_open is not None:
        return False
    first = connection.execute(
        "UPDATE devices SET configured_uuid = ?"
        " WHERE udid = ? AND configured_uuid IS NULL AND state = ?",
        (command.uuid, command.udid, DeviceState.AWAITING_CONFIGURATION.value),
    ).rowcount
    if first:
        insert(connection, "commands", command)
    return bool(first)


def next_command(
    connection: sqlite3.Connection,
    udid: str,
    skip: Collection[str],
    origins: Iterable[Origin],
    at: datetime,
) -> QueuedCommand | None:
    wanted = tuple(origins)
    marks = ", ".join("?" * len(wanted))
    rows = connection.execute(
        f"SELECT * FROM commands WHERE udid = ? AND origin IN ({marks}) AND {OPEN}"
        " ORDER BY position",
        (udid, *wanted),
    )
    row = next((row for row in rows if row["uuid"] not in skip), None)
    rows.close()
    if row is None:
        return None
    connection.execute(
        "UPDATE commands SET state = ?, delivered_at = ?, deliveries = deliveries + 1"
        " WHERE position = ?",
        (CommandState.DELIVERED.value, time_text(at), row["position"]),
    )
    return from_row(QueuedCommand, row)


def record_result(
    connection: sqlite3.Connection,
    udid: str,
    uuid: str,
    state: CommandState,
    result: bytes,
    at: datetime,
) -> Recorded | None:
    command = one(connection, uuid)
    if command is None or command.udid != udid:
        return None
    if state is CommandState.NOT_NOW:
        changed = connection.execute(
            f"UPDATE commands SET state = ? WHERE uuid = ? AND {OPEN}", (state.value, uuid)
        )
    else:
        # A withdrawn command that ran after all keeps its state, so that it counts for nothing.
        changed = connection.execute(
            "UPDATE commands SET state = iif(state = 'withdrawn', state, ?), result = ?,"
            " finished_at = ? WHERE uuid = ? AND result IS NULL",
            (state.value, result, time_text(at), uuid),
        )
    return Recorded(command=command, first=changed.rowcount == 1)


def open_commands(connection: sqlite3.Connection, udid: str) -> Sequence[QueuedCommand]:
    rows = connection.execute(
        f"SELECT * FROM commands WHERE udid = ? AND {OPEN} ORDER BY position", (udid,)
    )
    return [from_row(QueuedCommand, row) for row in rows]


def withdraw(connection: sqlite3.Connection, uuids: Iterable[str], at: datetime) -> None:
    connection.executemany(
        f"UPDATE commands SET state = 'withdrawn', finished_at = ? WHERE uuid = ? AND {OPEN}",
        [(time_text(at), uuid) for uuid in uuids],
    )


def withdraw_all(connection: sqlite3.Connection, udid: str, at: datetime) -> None:
    connection.execute(
        f"UPDATE commands SET state = 'withdrawn', finished_at = ? WHERE udid = ? AND {OPEN}",
        (time_text(at), udid),
    )


def of_device(connection: sqlite3.Connection, udid: str) -> Sequence[QueuedCommand]:
    rows = connection.execute("SELECT * FROM commands WHERE udid = ? ORDER BY position", (udid,))
    return [from_row(QueuedCommand, row) for row in rows]


def one(connection: sqlite3.Connection, uuid: str) -> QueuedCommand | None:
    row = connection.execute("SELECT * FROM commands WHERE uuid = ?", (uuid,)).fetchone()
    return from_row(QueuedCommand, row) if row is not None else None
