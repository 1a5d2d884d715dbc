"""The fleet store keeps what was committed, and only one process at a time has it."""

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest

from emulator.errors import ConfigurationError
from emulator.fleet.store import DeviceRow, FleetStore


def row(number: int, **changes: str | bytes | None) -> DeviceRow:
    facts: dict[str, object] = {
        "serial": f"SIM{number:07}",
        "position": number,
        "udid": f"00008110-{number:016X}",
        "state": "UNACTIVATED",
        "snapshot": b"one",
    }
    return DeviceRow(**(facts | changes))  # type: ignore[arg-type]


async def test_rows_survive_a_reopen_in_fleet_order(tmp_path: Path) -> None:
    path = tmp_path / "fleet.sqlite"
    async with FleetStore(path) as store:
        await store.save_all([row(2), row(0), row(1)])
        await store.save(row(1, state="ENROLLED", snapshot=b"two"))
        await store.remember(server="https://127.0.0.1:1")
        await store.finish("SIM0000000", "home", None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with FleetStore(path) as store:
        rows = await store.rows()
        assert [r.position for r in rows] == [0, 1, 2]
        assert rows[0].outcome == "home"
        assert (rows[1].state, rows[1].snapshot) == ("ENROLLED", b"two")
        assert await store.find("00008110-0000000000000002") == rows[2]
        assert await store.find("nobody") is None
        assert await store.facts() == {"server": "https://127.0.0.1:1"}


async def test_many_savers_at_once_are_all_committed(tmp_path: Path) -> None:
    async with FleetStore(tmp_path / "fleet.sqlite") as store:
        await asyncio.gather(*(store.save(row(n)) for n in range(300)))
        assert len(await store.rows()) == 300


async def test_one_bad_row_does_not_take_the_batch_with_it(tmp_path: Path) -> None:
    async with FleetStore(tmp_path / "fleet.sqlite") as store:
        same_udid = row(2, udid=row(1).udid)
        results = await asyncio.gather(
            store.save(row(1)), store.save(same_udid), store.save(row(3)), return_exceptions=True
        )
        assert isinstance(results[1], sqlite3.IntegrityError)
        assert [r.position for r in await store.rows()] == [1, 3]


async def test_a_second_process_is_told_that_the_store_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "fleet.sqlite"
    async with FleetStore(path) as store:
        await store.save(row(1))
        with pytest.raises(ConfigurationError, match="in use by another process"):
            async with FleetStore(path):
                pass


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be one" * 30])
async def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fleet.sqlite"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="not a fleet store"):
        async with FleetStore(path):
            pass
    assert path.read_bytes() == content


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fleet.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigurationError, match="schema 99"):
        async with FleetStore(path):
            pass
