"""What pages, operations and results do to the stored list of devices; a page and its cursor are one transaction."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mdmserver.store import assignment_sync_tables
from mdmserver.store.assignment_base import (
    Counts,
    Credentials,
    ListedDevice,
    Listing,
    SyncState,
    Token,
    TokenKey,
)
from mdmserver.store.assignment_sqlite import SqliteAssignmentStore
from mdmserver.store.sqlite import SqliteStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = "token"
HOUR = timedelta(hours=1)


def key() -> TokenKey:
    return TokenKey(key_id="key", made_at=NOW, identity_pem=b"pem")


def token(token_id: str = TOKEN) -> Token:
    return Token(
        token_id=token_id,
        name="Production",
        description="",
        apple_id="admin@example.com",
        credentials=Credentials(
            consumer_key=f"CK_{token_id}",
            consumer_secret="CS",
            access_token="AT",
            access_secret="AS",
            expires_at=NOW + timedelta(days=365),
        ),
        identity_pem=b"pem",
        created_at=NOW,
    )


@pytest.fixture
async def store() -> AsyncIterator[SqliteAssignmentStore]:
    whole = await SqliteStore.open(None)
    await whole.assignment.add_key(key())
    await whole.assignment.add_token(token(), "key")
    yield whole.assignment
    await whole.close()


async def full(store: SqliteAssignmentStore, *serials: str, at: datetime = NOW) -> None:
    """One whole full sync of one page."""
    sync = await store.begin_sync(TOKEN, "full", "upload", at=at, resumed=False, fresh=True)
    page = [ListedDevice(token_id=TOKEN, serial=serial) for serial in serials]
    await store.store_page(sync.sync_id, TOKEN, page, kind="full", cursor="c", at=at)
    await store.end_full(TOKEN, at)
    await store.end_sync(sync.sync_id, TOKEN, SyncState.DONE, at=at, error=None, force_full=False)


async def delta(store: SqliteAssignmentStore, *devices: ListedDevice, at: datetime) -> None:
    sync = await store.begin_sync(TOKEN, "delta", "schedule", at=at, resumed=False, fresh=False)
    await store.store_page(sync.sync_id, TOKEN, devices, kind="delta", cursor="d", at=at)
    await store.end_sync(sync.sync_id, TOKEN, SyncState.DONE, at=at, error=None, force_full=False)


def operation(serial: str, op: str, at: datetime, **facts: str) -> ListedDevice:
    return ListedDevice(token_id=TOKEN, serial=serial, op_type=op, op_date=at, **facts)  # type: ignore[arg-type]


async def listing(store: SqliteAssignmentStore) -> dict[str, str]:
    devices = await store.listed_devices(TOKEN, listing=None, after="", limit=100)
    return {device.serial: device.listing.value for device in devices}


async def test_a_token_reads_back_as_it_was_kept_and_its_key_no_longer_waits(
    store: SqliteAssignmentStore,
) -> None:
    assert await store.token(TOKEN) == token()
    assert await store.key("key") is None


async def test_what_a_full_list_does_not_name_is_removed_and_returns_when_it_does(
    store: SqliteAssignmentStore,
) -> None:
    await full(store, "A", "B")
    await full(store, "B", at=NOW + HOUR)
    assert await listing(store) == {"A": "removed", "B": "listed"}
    removed = await store.listed_device(TOKEN, "A")
    assert removed is not None
    assert removed.removed_at == NOW + HOUR
    await full(store, "A", "B", at=NOW + 2 * HOUR)
    returned = await store.listed_device(TOKEN, "A")
    assert returned is not None
    assert (returned.listing, returned.removed_at) == (Listing.LISTED, None)
    assert returned.first_seen == NOW


async def test_the_latest_op_date_wins_whatever_the_order(store: SqliteAssignmentStore) -> None:
    await delta(
        store,
        operation("A", "modified", NOW + 2 * HOUR, color="BLACK"),
        operation("A", "added", NOW + HOUR, color="WHITE"),
        operation("B", "deleted", NOW + 2 * HOUR),
        operation("B", "added", NOW + HOUR),
        at=NOW + 3 * HOUR,
    )
    device = await store.listed_device(TOKEN, "A")
    assert device is not None
    assert (device.color, device.op_type) == ("BLACK", "modified")
    assert await listing(store) == {"A": "listed", "B": "removed"}
    await delta(store, operation("A", "deleted", NOW + HOUR), at=NOW + 4 * HOUR)
    assert await listing(store) == {"A": "listed", "B": "removed"}


async def test_operations_of_the_same_moment_apply_in_the_order_of_the_page(
    store: SqliteAssignmentStore,
) -> None:
    await delta(
        store,
        operation("A", "added", NOW),
        operation("A", "deleted", NOW),
        operation("A", "modified", NOW),
        at=NOW,
    )
    assert await listing(store) == {"A": "listed"}


async def test_a_deletion_of_a_serial_that_nobody_knows_changes_nothing(
    store: SqliteAssignmentStore,
) -> None:
    await delta(store, operation("A", "deleted", NOW), at=NOW)
    assert await listing(store) == {}


async def test_a_device_deleted_here_stays_hidden_from_modifications_but_not_from_a_new_assignment(
    store: SqliteAssignmentStore,
) -> None:
    await full(store, "A", "B")
    assert await store.delete_listed(TOKEN, "A", NOW + HOUR)
    assert not await store.delete_listed(TOKEN, "A", NOW + HOUR)
    await delta(
        store,
        operation("A", "added", NOW + timedelta(minutes=1)),  # of before the deletion
        operation("A", "modified", NOW + 2 * HOUR),
        at=NOW + 3 * HOUR,
    )
    assert await listing(store) == {"B": "listed"}
    await delta(store, operation("A", "added", NOW + 4 * HOUR), at=NOW + 5 * HOUR)
    assert await listing(store) == {"A": "listed", "B": "listed"}


async def test_a_device_deleted_here_and_released_in_the_portal_is_gone(
    store: SqliteAssignmentStore,
) -> None:
    await full(store, "A", "B")
    await store.delete_listed(TOKEN, "A", NOW)
    await store.delete_listed(TOKEN, "B", NOW)
    await delta(store, operation("A", "deleted", NOW + HOUR), at=NOW + HOUR)
    assert (await store.counts(TOKEN)).deleted == 1
    await full(store, at=NOW + 2 * HOUR)
    assert await store.counts(TOKEN) == Counts()


async def test_what_was_removed_before_a_moment_is_purged(store: SqliteAssignmentStore) -> None:
    await full(store, "A", "B")
    await full(store, "B", at=NOW + HOUR)
    assert await store.purge_removed(NOW) == 0
    assert await store.purge_removed(NOW + HOUR) == 1
    assert await listing(store) == {"B": "listed"}


async def test_the_default_profile_is_for_those_without_one_that_nobody_unassigned(
    store: SqliteAssignmentStore,
) -> None:
    await full(store, "A", "B", "C", "D")
    await store.record_assignment(TOKEN, "P", {"A": "SUCCESS", "D": "FAILED"}, NOW)
    await store.record_assignment(TOKEN, "P", {"B": "SUCCESS"}, NOW)
    await store.record_unassignment(TOKEN, {"B": "SUCCESS"}, NOW)
    assert await store.without_profile(TOKEN, after="", limit=10) == ["C", "D"]
    assert await store.without_profile(TOKEN, after="C", limit=10) == ["D"]
    counts = await store.counts(TOKEN)
    assert (counts.listed, counts.unassigned, counts.by_profile) == (4, 3, {"P": 1})
    failed = await store.listed_device(TOKEN, "D")
    assert failed is not None
    assert failed.assign_error == "FAILED"


async def test_a_disowned_device_is_removed_once(store: SqliteAssignmentStore) -> None:
    await full(store, "A", "B")
    await store.record_disowning(TOKEN, {"A": "SUCCESS", "B": "NOT_ACCESSIBLE"}, NOW)
    await store.record_disowning(TOKEN, {"A": "SUCCESS"}, NOW + HOUR)
    assert await listing(store) == {"A": "removed", "B": "listed"}
    assert await store.purge_removed(NOW) == 1


async def test_only_the_latest_syncs_are_remembered(store: SqliteAssignmentStore) -> None:
    for _ in range(assignment_sync_tables.KEPT + 5):
        await store.begin_sync(TOKEN, "delta", "schedule", at=NOW, resumed=False, fresh=False)
    syncs = await store.syncs(TOKEN, 1000)
    assert len(syncs) == assignment_sync_tables.KEPT
    assert syncs[0].sync_id == assignment_sync_tables.KEPT + 5


async def test_a_page_without_its_cursor_is_no_page(
    store: SqliteAssignmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = await store.begin_sync(TOKEN, "full", "upload", at=NOW, resumed=False, fresh=True)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(assignment_sync_tables, "_advance", fail)
    with pytest.raises(OSError, match="disk full"):
        await store.store_page(
            sync.sync_id,
            TOKEN,
            [ListedDevice(token_id=TOKEN, serial="A")],
            kind="full",
            cursor="behind A",
            at=NOW,
        )
    assert await listing(store) == {}
    kept = await store.token(TOKEN)
    assert kept is not None
    assert kept.position.cursor is None


KILLED = """
import asyncio, os, sys
from pathlib import Path
from mdmserver.store import assignment_sync_tables as tables
from mdmserver.store.assignment_base import ListedDevice
from mdmserver.store.sqlite import SqliteStore
from tests.mdmserver.test_assignment_store import NOW, TOKEN, key, token

async def main():
    store = (await SqliteStore.open(Path(sys.argv[1]))).assignment
    await store.add_key(key())
    await store.add_token(token(), "key")
    sync = await store.begin_sync(TOKEN, "full", "upload", at=NOW, resumed=False, fresh=True)
    async def page(serial):
        device = ListedDevice(token_id=TOKEN, serial=serial)
        await store.store_page(sync.sync_id, TOKEN, [device], kind="full", cursor=serial, at=NOW)
    await page("A")
    tables._advance = lambda *_: os._exit(9)
    await page("B")

asyncio.run(main())
"""


async def test_a_kill_between_page_and_cursor_leaves_both_where_they_were(tmp_path: Path) -> None:
    path = tmp_path / "server.sqlite"
    killed = subprocess.run(  # noqa: ASYNC221
        [sys.executable, "-c", KILLED, str(path)], env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert killed.returncode == 9
    store = await SqliteStore.open(path)
    try:
        kept = await store.assignment.token(TOKEN)
        assert kept is not None
        assert kept.position.cursor == "A"
        assert await listing(store.assignment) == {"A": "listed"}
        assert await store.assignment.interrupt_syncs(NOW) == 1
    finally:
        await store.close()
