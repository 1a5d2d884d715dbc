"""SQL about syncs and how far they are: a page and the cursor behind it are one piece of work."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from mdmserver.store import assignment_device_table
from mdmserver.store.assignment_base import (
    ListedDevice,
    SyncKind,
    SyncRecord,
    SyncState,
    Trigger,
)
from mdmserver.store.rows import from_row, time_text

KEPT = 200  # syncs remembered per token


def begin_sync(
    connection: sqlite3.Connection,
    token_id: str,
    kind: SyncKind,
    trigger: Trigger,
    at: datetime,
    resumed: bool,
    fresh: bool,
) -> SyncRecord:
    now = time_text(at)
    if fresh:
        connection.execute(
            "UPDATE assignment_tokens SET phase = 'full', cursor = NULL, force_full = 0,"
            " generation = generation + 1, full_started_at = ? WHERE token_id = ?",
            (now, token_id),
        )
    connection.execute(
        "UPDATE assignment_tokens SET last_started_at = ?,"
        " last_manual_at = iif(?, ?, last_manual_at) WHERE token_id = ?",
        (now, trigger == "manual", now, token_id),
    )
    row = connection.execute(
        'INSERT INTO assignment_syncs (token_id, kind, "trigger", state, started_at, resumed)'
        " VALUES (?, ?, ?, ?, ?, ?) RETURNING *",
        (token_id, kind, trigger, SyncState.RUNNING.value, now, resumed),
    ).fetchone()
    connection.execute(
        "DELETE FROM assignment_syncs WHERE token_id = ? AND sync_id <= ("
        " SELECT sync_id FROM assignment_syncs WHERE token_id = ?"
        " ORDER BY sync_id DESC LIMIT 1 OFFSET ?)",
        (token_id, token_id, KEPT),
    )
    return from_row(SyncRecord, row)


def store_page(
    connection: sqlite3.Connection,
    sync_id: int,
    token_id: str,
    devices: Sequence[ListedDevice],
    kind: SyncKind,
    cursor: str,
    at: datetime,
) -> None:
    generation = _generation(connection, token_id)
    if kind == "full":
        assignment_device_table.list_all(connection, devices, generation, at)
    else:
        assignment_device_table.apply_operations(connection, devices, generation, at)
    _advance(connection, sync_id, token_id, len(devices), cursor)


def _advance(
    connection: sqlite3.Connection, sync_id: int, token_id: str, records: int, cursor: str
) -> None:
    connection.execute(
        "UPDATE assignment_tokens SET cursor = ? WHERE token_id = ?", (cursor, token_id)
    )
    connection.execute(
        "UPDATE assignment_syncs SET pages = pages + 1, records = records + ? WHERE sync_id = ?",
        (records, sync_id),
    )


def end_full(connection: sqlite3.Connection, token_id: str, at: datetime) -> int:
    generation = _generation(connection, token_id)
    connection.execute(
        "UPDATE assignment_tokens SET phase = 'delta', full_done_at = ? WHERE token_id = ?",
        (time_text(at), token_id),
    )
    return assignment_device_table.remove_unseen(connection, token_id, generation, at)


def end_sync(
    connection: sqlite3.Connection,
    sync_id: int,
    token_id: str,
    state: SyncState,
    at: datetime,
    error: str | None,
    force_full: bool,
    drop_cursor: bool,
) -> None:
    connection.execute(
        "UPDATE assignment_syncs SET state = ?, finished_at = ?, error = ? WHERE sync_id = ?",
        (state.value, time_text(at), error, sync_id),
    )
    connection.execute(
        "UPDATE assignment_tokens SET force_full = max(force_full, ?),"
        " cursor = iif(?, NULL, cursor) WHERE token_id = ?",
        (force_full, drop_cursor, token_id),
    )


def interrupt_syncs(connection: sqlite3.Connection, at: datetime) -> int:
    return connection.execute(
        "UPDATE assignment_syncs SET state = ?, finished_at = ? WHERE state = ?",
        (SyncState.INTERRUPTED.value, time_text(at), SyncState.RUNNING.value),
    ).rowcount


def syncs(connection: sqlite3.Connection, token_id: str, limit: int) -> Sequence[SyncRecord]:
    rows = connection.execute(
        "SELECT * FROM assignment_syncs WHERE token_id = ? ORDER BY sync_id DESC LIMIT ?",
        (token_id, limit),
    )
    return [from_row(SyncRecord, row) for row in rows]


def _generation(connection: sqlite3.Connection, token_id: str) -> int:
    row = connection.execute(
        "SELECT generation FROM assignment_tokens WHERE token_id = ?", (token_id,)
    ).fetchone()
    return int(row["generation"])
