"""SQL about devices and the policy kept for each."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime

from mdmserver.store import command_table, identity_tables, push_tables
from mdmserver.store.base import (
    DeviceRecord,
    DeviceState,
    IssuedCertificate,
    PushInfo,
    Report,
    RuleRecord,
    Setup,
)
from mdmserver.store.rows import from_row, insert, time_text


def device(connection: sqlite3.Connection, udid: str) -> DeviceRecord | None:
    row = connection.execute("SELECT * FROM devices WHERE udid = ?", (udid,)).fetchone()
    return from_row(DeviceRecord, row) if row is not None else None


def devices(connection: sqlite3.Connection) -> Sequence[DeviceRecord]:
    rows = connection.execute("SELECT * FROM devices ORDER BY rowid").fetchall()
    return [from_row(DeviceRecord, row) for row in rows]


def begin(connection: sqlite3.Connection, record: DeviceRecord) -> None:
    connection.execute("DELETE FROM commands WHERE udid = ?", (record.udid,))
    connection.execute("DELETE FROM policy WHERE udid = ?", (record.udid,))
    push_tables.turn_on(connection, record.udid)
    insert(connection, "devices", record, replace=True)
    identity_tables.end_renewals(connection, record.udid)
    bound = identity_tables.certificate(connection, record.certificate_sha256 or b"")
    if bound is not None:
        identity_tables.supersede_before(connection, record.udid, bound)


def complete(
    connection: sqlite3.Connection,
    udid: str,
    push: PushInfo,
    state: DeviceState,
    at: datetime,
    setup: Setup,
) -> None:
    first = connection.execute(
        "UPDATE devices SET enrolled_at = ? WHERE udid = ? AND enrolled_at IS NULL",
        (time_text(at), udid),
    ).rowcount
    connection.execute(
        # A TokenUpdate without UnlockToken does not revoke the earlier one (mdm.md 3.2).
        "UPDATE devices SET topic = ?, push_token = ?, push_magic = ?,"
        " unlock_token = coalesce(?, unlock_token), state = ?, last_seen = ? WHERE udid = ?",
        (push.topic, push.token, push.magic, push.unlock_token, state.value, time_text(at), udid),
    )
    push_tables.turn_on(connection, udid)
    if first:
        for command in setup.commands:
            insert(connection, "commands", command)


def end(connection: sqlite3.Connection, udid: str, at: datetime) -> None:
    connection.execute(
        "UPDATE devices SET state = ?, last_seen = ? WHERE udid = ?",
        (DeviceState.CHECKED_OUT.value, time_text(at), udid),
    )
    command_table.withdraw_all(connection, udid, at)


def rebind(connection: sqlite3.Connection, udid: str, certificate: IssuedCertificate) -> None:
    connection.execute(
        "UPDATE devices SET certificate_sha256 = ?, kind = ?, issuer = ? WHERE udid = ?",
        (certificate.sha256, certificate.kind, certificate.issuer, udid),
    )
    identity_tables.supersede_before(connection, udid, certificate)


def touch(connection: sqlite3.Connection, udid: str, at: datetime) -> None:
    connection.execute("UPDATE devices SET last_seen = ? WHERE udid = ?", (time_text(at), udid))


def report(connection: sqlite3.Connection, udid: str, said: Report) -> None:
    at = time_text(said.at)
    connection.execute(
        "UPDATE devices SET name = coalesce(?, name), supervised = coalesce(?, supervised),"
        " locked = coalesce(?, locked), os_version = coalesce(?, os_version),"
        " build = coalesce(?, build), reported_at = ?, last_seen = ?,"
        " profiles_listed_at = coalesce(?, profiles_listed_at) WHERE udid = ?",
        (
            said.name,
            said.supervised,
            said.locked,
            said.os_version,
            said.build,
            at,
            at,
            at if said.profiles_listed else None,
            udid,
        ),
    )


def configured(connection: sqlite3.Connection, udid: str) -> None:
    connection.execute(
        "UPDATE devices SET state = ? WHERE udid = ? AND state = ?",
        (DeviceState.ENROLLED.value, udid, DeviceState.AWAITING_CONFIGURATION.value),
    )


def mark_unenroll(connection: sqlite3.Connection, udid: str) -> bool:
    marked = connection.execute("UPDATE devices SET unenroll = 1 WHERE udid = ?", (udid,))
    return marked.rowcount == 1


def rules(connection: sqlite3.Connection, udid: str) -> dict[str, RuleRecord]:
    rows = connection.execute("SELECT * FROM policy WHERE udid = ? ORDER BY rule", (udid,))
    return {row["rule"]: _rule(row) for row in rows}


def record_rules(connection: sqlite3.Connection, udid: str, records: Iterable[RuleRecord]) -> None:
    for record in records:
        enforced = record.last_enforced
        connection.execute(
            "REPLACE INTO policy (udid, rule, wanted, reported, state, last_enforced, failures)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                udid,
                record.rule,
                json.dumps(record.wanted),
                json.dumps(record.reported),
                record.state,
                time_text(enforced) if enforced is not None else None,
                record.failures,
            ),
        )


def _rule(row: sqlite3.Row) -> RuleRecord:
    enforced = row["last_enforced"]
    return RuleRecord(
        rule=row["rule"],
        wanted=json.loads(row["wanted"]),
        reported=json.loads(row["reported"]),
        state=row["state"],
        last_enforced=datetime.fromisoformat(enforced) if enforced is not None else None,
        failures=row["failures"],
    )
