"""SQL about the devices that syncs named: what a full list says, what an operation changes, what became of assignments."""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from mdmserver.store.assignment_base import Counts, ListedDevice, Listing
from mdmserver.store.rows import from_row, time_text, to_row

# What Apple says of a device; the rest of a row is ours.
FACTS: Final = (
    "model",
    "description",
    "color",
    "asset_tag",
    "os",
    "device_family",
    "profile_status",
    "profile_uuid",
    "profile_assign_time",
    "profile_push_time",
    "assigned_date",
    "assigned_by",
)
COLUMNS: Final = (*FACTS, "op_type", "op_date", "generation", "updated_at")
SHOWN: Final = "listing IN ('listed', 'removed')"
WITHOUT_PROFILE: Final = (  # as the partial index says it
    "listing = 'listed' AND held = 0"
    " AND (profile_uuid IS NULL OR profile_status IN ('empty', 'removed'))"
)
_TAKEN: Final = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS)
_INSERT: Final = (
    f"INSERT INTO assignment_devices (token_id, serial, listing, first_seen, {', '.join(COLUMNS)})"
    f" VALUES (:token_id, :serial, 'listed', :updated_at, {', '.join(f':{c}' for c in COLUMNS)})"
    f" ON CONFLICT (token_id, serial) DO UPDATE SET {_TAKEN},"
)
# A full list is the truth: whatever it names is listed, be it removed or deleted here before (rule 106).
_LISTED: Final = (
    f"{_INSERT} listing = 'listed', removed_at = NULL, held = iif(listing = 'listed', held, 0)"
)
# An operation older than what is known changes nothing. A device that was deleted here stays hidden, unless it was
# assigned anew since.
_CHANGED: Final = (
    f"{_INSERT}"
    " held = iif(excluded.op_type = 'added' AND listing <> 'listed', 0, held),"
    " removed_at = iif(listing = 'deleted' AND NOT (excluded.op_type = 'added'"
    " AND excluded.op_date > removed_at), removed_at, NULL),"
    " listing = iif(listing = 'deleted' AND NOT (excluded.op_type = 'added'"
    " AND excluded.op_date > removed_at), 'deleted', 'listed')"
    " WHERE coalesce(op_date, '') <= excluded.op_date"
)


def list_all(
    connection: sqlite3.Connection,
    devices: Sequence[ListedDevice],
    generation: int,
    at: datetime,
) -> None:
    connection.executemany(_LISTED, [_row(device, generation, at) for device in devices])


def apply_operations(
    connection: sqlite3.Connection,
    devices: Sequence[ListedDevice],
    generation: int,
    at: datetime,
) -> None:
    # A page may name a serial number more than once, in any order; those of one moment stay in the order of the page.
    for row in sorted(
        (_row(device, generation, at) for device in devices), key=lambda row: str(row["op_date"])
    ):
        if row["op_type"] == "deleted":
            _remove(connection, row)
        else:
            connection.execute(_CHANGED, row)


def _remove(connection: sqlite3.Connection, row: dict[str, object]) -> None:
    where = "token_id = :token_id AND serial = :serial AND coalesce(op_date, '') <= :op_date"
    connection.execute(f"DELETE FROM assignment_devices WHERE {where} AND listing = 'deleted'", row)
    connection.execute(
        "UPDATE assignment_devices SET listing = 'removed', op_type = 'deleted',"
        " op_date = :op_date, updated_at = :updated_at,"
        f" removed_at = coalesce(removed_at, :updated_at) WHERE {where}",
        row,
    )


def remove_unseen(
    connection: sqlite3.Connection, token_id: str, generation: int, at: datetime
) -> int:
    unseen = "token_id = ? AND generation < ?"
    connection.execute(
        f"DELETE FROM assignment_devices WHERE {unseen} AND listing = 'deleted'",
        (token_id, generation),
    )
    return connection.execute(
        "UPDATE assignment_devices SET listing = 'removed', removed_at = ?, updated_at = ?"
        f" WHERE {unseen} AND listing = 'listed'",
        (time_text(at), time_text(at), token_id, generation),
    ).rowcount


def listed_devices(
    connection: sqlite3.Connection,
    token_id: str,
    listing: Listing | None,
    after: str,
    limit: int,
) -> Sequence[ListedDevice]:
    where = SHOWN if listing is None else "listing = ?"
    given = () if listing is None else (listing.value,)
    rows = connection.execute(
        f"SELECT * FROM assignment_devices WHERE token_id = ? AND serial > ? AND {where}"
        " ORDER BY serial LIMIT ?",
        (token_id, after, *given, limit),
    )
    return [from_row(ListedDevice, row) for row in rows]


def listed_device(
    connection: sqlite3.Connection, token_id: str, serial: str
) -> ListedDevice | None:
    row = connection.execute(
        f"SELECT * FROM assignment_devices WHERE token_id = ? AND serial = ? AND {SHOWN}",
        (token_id, serial),
    ).fetchone()
    return from_row(ListedDevice, row) if row is not None else None


def counts(connection: sqlite3.Connection, token_id: str) -> Counts:
    by_listing: dict[str, int] = {}
    by_profile: dict[str, int] = {}
    unassigned = 0
    for row in connection.execute(
        "SELECT listing, profile_status, profile_uuid, count(*) AS number FROM assignment_devices"
        " WHERE token_id = ? GROUP BY listing, profile_status, profile_uuid",
        (token_id,),
    ):
        listing, number, uuid = row["listing"], row["number"], row["profile_uuid"]
        by_listing[listing] = by_listing.get(listing, 0) + number
        if listing != Listing.LISTED.value:
            continue
        if uuid is None or row["profile_status"] in ("empty", "removed"):
            unassigned += number
        else:
            by_profile[uuid] = by_profile.get(uuid, 0) + number
    return Counts(
        listed=by_listing.get(Listing.LISTED.value, 0),
        removed=by_listing.get(Listing.REMOVED.value, 0),
        deleted=by_listing.get(Listing.DELETED.value, 0),
        unassigned=unassigned,
        by_profile=by_profile,
    )


def without_profile(
    connection: sqlite3.Connection, token_id: str, after: str, limit: int
) -> Sequence[str]:
    rows = connection.execute(
        f"SELECT serial FROM assignment_devices WHERE token_id = ? AND serial > ?"
        f" AND {WITHOUT_PROFILE} ORDER BY serial LIMIT ?",
        (token_id, after, limit),
    )
    return [row["serial"] for row in rows]


def record_assignment(
    connection: sqlite3.Connection,
    token_id: str,
    uuid: str,
    results: Mapping[str, str],
    at: datetime,
) -> None:
    connection.executemany(
        "UPDATE assignment_devices SET profile_uuid = ?, profile_status = 'assigned',"
        " profile_assign_time = ?, profile_push_time = NULL, held = 0, assign_error = NULL"
        " WHERE token_id = ? AND serial = ?",
        [(uuid, time_text(at), token_id, serial) for serial in _successes(results)],
    )
    _record_errors(connection, token_id, results)


def record_unassignment(
    connection: sqlite3.Connection, token_id: str, results: Mapping[str, str], at: datetime
) -> None:
    connection.executemany(
        "UPDATE assignment_devices SET profile_status = 'removed', held = 1, assign_error = NULL,"
        " updated_at = ? WHERE token_id = ? AND serial = ?",
        [(time_text(at), token_id, serial) for serial in _successes(results)],
    )
    _record_errors(connection, token_id, results)


def record_disowning(
    connection: sqlite3.Connection, token_id: str, results: Mapping[str, str], at: datetime
) -> None:
    connection.executemany(
        "UPDATE assignment_devices SET listing = 'removed', removed_at = ?, updated_at = ?,"
        " assign_error = NULL WHERE token_id = ? AND serial = ? AND listing = 'listed'",
        [(time_text(at), time_text(at), token_id, serial) for serial in _successes(results)],
    )
    _record_errors(connection, token_id, results)


def delete_listed(connection: sqlite3.Connection, token_id: str, serial: str, at: datetime) -> bool:
    hidden = connection.execute(
        "UPDATE assignment_devices SET listing = 'deleted', removed_at = ?"
        " WHERE token_id = ? AND serial = ? AND listing = 'listed'",
        (time_text(at), token_id, serial),
    ).rowcount
    dropped = connection.execute(
        "DELETE FROM assignment_devices WHERE token_id = ? AND serial = ? AND listing = 'removed'",
        (token_id, serial),
    ).rowcount
    return bool(hidden or dropped)


def purge_removed(connection: sqlite3.Connection, before: datetime) -> int:
    return connection.execute(
        "DELETE FROM assignment_devices WHERE listing = 'removed' AND removed_at <= ?",
        (time_text(before),),
    ).rowcount


def _row(device: ListedDevice, generation: int, at: datetime) -> dict[str, object]:
    return {**to_row(device), "generation": generation, "updated_at": time_text(at)}


def _successes(results: Mapping[str, str]) -> list[str]:
    return [serial for serial, word in results.items() if word == "SUCCESS"]


def _record_errors(
    connection: sqlite3.Connection, token_id: str, results: Mapping[str, str]
) -> None:
    connection.executemany(
        "UPDATE assignment_devices SET assign_error = ? WHERE token_id = ? AND serial = ?",
        [(word, token_id, serial) for serial, word in results.items() if word != "SUCCESS"],
    )
