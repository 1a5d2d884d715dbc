"""The SQLite store: work is atomic, commits are shared, the schema moves in whole steps."""

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmserver.store import rows
from mdmserver.store.base import (
    Challenge,
    CommandState,
    DeviceRecord,
    DeviceState,
    IssuedCertificate,
    PushInfo,
    QueuedCommand,
    Setup,
)
from mdmserver.store.sqlite import SqliteStore
from mdmserver.store.writer import Writer, migrate

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def device(udid: str = "U1") -> DeviceRecord:
    return DeviceRecord(
        udid=udid,
        serial="S1",
        product="iPhone14,5",
        os_version="18.1",
        build="22B83",
        state=DeviceState.AUTHENTICATED,
        certificate_sha256=b"\x01" * 32,
        kind="acme",
        issuer="CA",
        profile_version=1,
        authenticated_at=NOW,
    )


def command(uuid: str, udid: str = "U1") -> QueuedCommand:
    return QueuedCommand(uuid=uuid, udid=udid, request_type="X", body=b"<plist/>", queued_at=NOW)


def insert(name: str, value: str = "v") -> Callable[[sqlite3.Connection], str]:
    def work(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO meta (name, value) VALUES (?, ?)", (name, value))
        return name

    return work


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM meta").fetchone()[0])


async def test_work_that_fails_undoes_only_itself() -> None:
    w = await asyncio.to_thread(Writer, None)
    results = await asyncio.gather(
        w.do(insert("a")), w.do(insert("a")), w.do(insert("b")), return_exceptions=True
    )
    assert results[0] == "a"
    assert isinstance(results[1], sqlite3.IntegrityError)
    assert results[2] == "b"
    assert await w.do(count) == 2
    await w.close()


async def test_work_that_fails_half_way_leaves_nothing_of_itself() -> None:
    w = await asyncio.to_thread(Writer, None)

    def half(connection: sqlite3.Connection) -> None:
        insert("half")(connection)
        raise ValueError("the second half")

    results = await asyncio.gather(
        w.do(insert("a")), w.do(half), w.do(insert("b")), return_exceptions=True
    )
    assert [type(result) for result in results] == [str, ValueError, str]
    assert await w.do(count) == 2
    await w.close()


async def test_closing_finishes_what_was_handed_in(tmp_path: Path) -> None:
    w = await asyncio.to_thread(Writer, tmp_path / "db")
    pending = [asyncio.ensure_future(w.do(insert(str(n)))) for n in range(50)]
    await asyncio.sleep(0)
    await w.close()
    assert await asyncio.gather(*pending) == [str(n) for n in range(50)]
    with pytest.raises(RuntimeError, match="closed"):
        await w.do(count)
    again = await asyncio.to_thread(Writer, tmp_path / "db")
    assert await again.do(count) == 50
    await again.close()
    await again.close()


async def test_a_caller_that_gives_up_does_not_undo_the_work() -> None:
    w = await asyncio.to_thread(Writer, None)
    task = asyncio.ensure_future(w.do(insert("a")))
    await asyncio.sleep(0)
    task.cancel()
    assert await w.do(count) == 1
    await w.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(sqlite3.DatabaseError, match="schema 999"):
        Writer(tmp_path / "db")


def test_a_migration_that_fails_leaves_the_schema_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "0001_good.sql").write_text("CREATE TABLE one (x);")
    (tmp_path / "migrations" / "0002_bad.sql").write_text("CREATE TABLE two (x); nonsense;")
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        migrate(connection)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
    assert tables == ["one"]
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
    assert not connection.in_transaction
    connection.close()


async def test_the_file_is_written_as_decided(tmp_path: Path) -> None:
    w = await asyncio.to_thread(Writer, tmp_path / "db")
    assert await w.do(lambda c: c.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"
    assert await w.do(lambda c: c.execute("PRAGMA synchronous").fetchone()[0]) == 1  # NORMAL
    await w.close()


async def test_a_challenge_is_used_once_and_in_time() -> None:
    store = await SqliteStore.open(None)
    challenge = Challenge(
        secret_sha256=b"c",
        kind="scep",
        purpose="enrollment",
        udid="U1",
        serial="S1",
        product="p",
        os_version=None,
        build="b",
        profile_version=1,
        deadline=NOW,
    )

    def certificate(sha256: bytes, at: datetime) -> IssuedCertificate:
        return IssuedCertificate(
            sha256=sha256,
            udid="U1",
            serial="S1",
            product="p",
            os_version=None,
            build="b",
            kind="scep",
            purpose="enrollment",
            issuer="CA",
            profile_version=1,
            issued_at=at,
            not_after=at,
        )

    await store.add_challenge(challenge)
    late = NOW + timedelta(microseconds=1)
    assert not await store.use_challenge(b"c", certificate(b"1", late))
    used = await asyncio.gather(
        *(store.use_challenge(b"c", certificate(bytes([n]), NOW)) for n in range(9))
    )
    assert used.count(True) == 1
    kept = [await store.certificate(bytes([n])) for n in range(9)]
    assert sum(c is not None for c in kept) == 1
    await store.close()


async def test_setup_commands_are_queued_with_the_first_token_update_only() -> None:
    store = await SqliteStore.open(None)
    await store.begin(device())
    push = PushInfo(topic="t", token=b"t", magic="m", unlock_token=None)
    for uuid in ("first", "second"):
        setup = Setup(commands=(command(uuid),))
        await store.complete("U1", push, DeviceState.ENROLLED, NOW, setup)
    assert [c.uuid for c in await store.commands("U1")] == ["first"]
    await store.close()


async def test_of_many_sessions_at_once_each_device_gets_its_own_commands() -> None:
    store = await SqliteStore.open(None)
    for n in range(40):
        await store.begin(device(f"U{n}"))
        await store.enqueue(command(f"C{n}", f"U{n}"))
    given_ = await asyncio.gather(
        *(store.next_command(f"U{n}", skip=(), origins=("admin",), at=NOW) for n in range(40))
    )
    assert [c.uuid if c else None for c in given_] == [f"C{n}" for n in range(40)]
    done = CommandState.ACKNOWLEDGED
    await asyncio.gather(
        *(store.record_result(f"U{n}", f"C{n}", done, b"", NOW) for n in range(40))
    )
    for n in range(40):
        assert await store.next_command(f"U{n}", skip=(), origins=("admin",), at=NOW) is None
    await store.close()


async def test_a_command_uuid_is_taken_once() -> None:
    store = await SqliteStore.open(None)
    assert await store.enqueue(command("C"))
    assert not await store.enqueue(command("C", "U2"))
    await store.close()


@settings(max_examples=30)
@given(st.datetimes(timezones=st.timezones() | st.just(UTC)))
def test_times_come_back_and_sort_as_they_are(at: datetime) -> None:
    try:
        text = rows.time_text(at)
    except OverflowError:
        return
    assert datetime.fromisoformat(text) == at.astimezone(UTC)  # in a fold no zone equals another
    assert len(text) == len(rows.time_text(NOW))
