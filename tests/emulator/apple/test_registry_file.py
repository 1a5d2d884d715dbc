"""The registry's file: everything comes back, kill -9 loses nothing acknowledged, damage is named."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from certs.clock import SimulatedClock, SystemClock
from emulator.apple import portal as portals
from emulator.apple.app import AppleServices
from emulator.apple.operations import KEPT, PRUNE_AT
from emulator.apple.portal import Portal
from emulator.apple.records import ActivationLock, DeviceRecord, Organization, Server
from emulator.apple.registry import Registry
from emulator.apple.registry_file import RegistryFile
from emulator.errors import ConfigurationError
from tests.emulator.apple.assignment_support import (
    SERVER_UUID,
    URL,
    Ade,
    admin,
    good,
    issued,
    portal,
    serials,
    signed_up,
)
from tests.emulator.apple.support import Client, Device, full, pki, record_of

FIELDS = tuple(name for name in DeviceRecord.__dataclass_fields__ if name != "watcher")


def truth(registry: Registry) -> dict[str, Any]:
    """Everything that the registry knows, to compare."""
    return {
        "records": {
            serial: {name: _fact(getattr(record, name)) for name in FIELDS}
            for serial, record in registry.records.items()
        },
        "portal": portals.describe(registry),
        "secret": registry.secret,
        "ledgers": {
            uuid: (
                ledger.token,
                ledger.ended,
                ledger.former_keys,
                ledger.blocked,
                ledger.discovery_url,
                list(ledger.profiles.items()),
                list(ledger.operations.since(0)),
                list(ledger.roster.between(0, ledger.operations.end)),
            )
            for uuid, ledger in registry.ledgers.items()
        },
    }


def _fact(value: Any) -> Any:
    """Owners by name: a record may hold an organization as it was when the device came."""
    return value.name if isinstance(value, Organization | Server) else value


@asynccontextmanager
async def running(
    path: Path, clock: SimulatedClock, http: aiohttp.ClientSession, given: Portal | None = None
) -> AsyncIterator[Client]:
    async with AppleServices(pki=pki(), clock=clock, portal=given, state=path) as services:
        yield Client(services, http)


async def test_everything_comes_back(
    tmp_path: Path, clock: SimulatedClock, http: aiohttp.ClientSession
) -> None:
    path = tmp_path / "state" / "registry.sqlite3"
    async with running(path, clock, http, portal("SIM1", "SIM2", "SIM3")) as client:
        device = Device(1, clock)
        await client.provision(device)
        ade = await signed_up(client, clock)
        await ade.assign_in_portal(device.serial_number, asset_tag="A1", color="RED")
        uuid = await ade.define("SIM1", "SIM2", device.serial_number, org_magic="M")
        cursor = (await ade.fetch(limit=1))["cursor"]
        record_of(await client.activate(await full(client, device)))
        await client.configuration(device.envelope(device.configuration_request()))
        await ade.results("DELETE", "/profile/devices", devices=["SIM2"])
        await ade.results("POST", "/devices/disown", devices=["SIM3"])
        good(await ade.ask("POST", "/device/activationlock", {"device": "SIM1"}))
        key = "mdm_service_discovery_url"
        good(await ade.ask("POST", "/account-driven-enrollment/profile", {key: URL}))
        content = {"organization": "Example Inc", "serials": ["SIM8"], "server": "Test"}
        await admin(client, "POST", "/portal/devices/configurator", content)
        path_of_person = "/portal/organizations/Example%20Inc/people/p@example.com"
        await admin(client, "PUT", path_of_person, {"password": "secret"})
        ade.token = await issued(client)
        before = truth(client.services.registry)
    assert path.stat().st_mode & 0o777 == 0o600
    async with running(path, clock, http) as client:
        assert truth(client.services.registry) == before
        again = Ade(client, clock, ade.token)
        assert serials(await again.fetch(cursor)) == ["SIM2", device.serial_number]
        assert (await again.fetch())["devices"][0]["profile_uuid"] == uuid
        # The device is known by its key, and its state goes on where it was.
        record = client.services.registry.provisioned(device.serial_number, device.udid)
        assert record is not None
        assert record.profile_push_time == clock.now()
        assert (
            await client.configuration(device.envelope(device.configuration_request()))
        ).status == 200
    async with running(path, clock, http) as client:  # and a second time
        after = truth(client.services.registry)
        assert after["records"] == before["records"]


async def test_a_portal_counts_once_and_again_when_it_is_another(
    tmp_path: Path, clock: SimulatedClock, http: aiohttp.ClientSession
) -> None:
    path = tmp_path / "registry.sqlite3"
    first, second = portal("SIM1"), portal("SIM2")
    async with running(path, clock, http, first) as client:
        ade = await signed_up(client, clock)
        await ade.assign_in_portal("SIM9")
    async with running(path, clock, http, first) as client:
        assert set(client.services.registry.records) == {"SIM1", "SIM9"}
    async with running(path, clock, http, second) as client:
        assert set(client.services.registry.records) == {"SIM2"}
        # The server is the same one: its token is good.
        assert (await Ade(client, clock, ade.token).sign_in()).status == 200


async def test_a_server_that_left_is_gone_from_the_file_too(
    tmp_path: Path, clock: SimulatedClock, http: aiohttp.ClientSession
) -> None:
    path = tmp_path / "registry.sqlite3"
    async with running(path, clock, http, portal("SIM1")) as client:
        ade = await signed_up(client, clock)
        await ade.define("SIM1")
        await admin(client, "DELETE", f"/portal/servers/{SERVER_UUID}")
    async with running(path, clock, http) as client:
        registry = client.services.registry
        assert SERVER_UUID not in registry.ledgers
        assert await admin(client, "GET", "/portal")
        content = {"organization": "Example Inc", "name": "Production", "uuid": SERVER_UUID}
        assert (await admin(client, "POST", "/portal/servers", content)).status == 201
        ledger = registry.ledgers[SERVER_UUID]
        assert (ledger.operations.end, ledger.profiles, len(ledger.roster)) == (0, {}, 0)


async def test_the_file_forgets_operations_with_the_log(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    path = tmp_path / "registry.sqlite3"
    async with RegistryFile(path) as file:
        portal().apply(file.registry, clock.now())
        many = [f"S{number}" for number in range(PRUNE_AT)]
        file.registry.own(many, "Example Inc", "Test", clock.now())
        await file.commit()
        later = clock.now() + KEPT * 2
        file.registry.own(["LATER"], "Example Inc", "Test", later)
    async with RegistryFile(path) as file:
        (ledger,) = (one for one in file.registry.ledgers.values() if len(one.roster))
        assert (ledger.operations.base, ledger.operations.end) == (PRUNE_AT, PRUNE_AT + 1)
        assert len(ledger.roster) == PRUNE_AT + 1


async def test_requests_at_the_same_time_share_a_commit_and_none_is_early(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RegistryFile(tmp_path / "r.sqlite3") as file:
        portal().apply(file.registry, clock.now())
        await file.commit()
        writes = []
        write = file._write

        def counted(statements: Any) -> None:
            writes.append(statements)
            write(statements)

        monkeypatch.setattr(file, "_write", counted)

        async def assign(number: int) -> None:
            file.registry.own([f"S{number}"], "Example Inc", None, clock.now())
            await file.commit()
            assert not file.registry.unsaved.devices & {f"S{number}"}

        await asyncio.gather(*(assign(number) for number in range(50)))
        assert len(writes) <= 2


async def test_what_could_not_be_written_is_no_success_and_is_written_later(
    tmp_path: Path,
    clock: SimulatedClock,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "registry.sqlite3"
    async with running(path, clock, http, portal("SIM1")) as client:
        ade = await signed_up(client, clock)
        file = client.services._file
        assert file is not None

        def full(statements: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(file, "_write", full)
            content = {"organization": "Example Inc", "server": "Production", "serials": ["SIM9"]}
            assert (await admin(client, "POST", "/portal/devices", content)).status == 500
            reply = await ade.sign_in()
            assert reply.refusal == (500, "INTERNAL_SERVER_ERROR", "text/plain")
        assert (await ade.sign_in()).status == 200
    async with running(path, clock, http) as client:
        assert client.services.registry.get("SIM9") is not None


@pytest.mark.parametrize("damage", ["text", "version", "row"])
async def test_a_file_that_is_no_registry_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "registry.sqlite3"
    if damage == "text":
        path.write_text("no database, though long enough to be looked at " * 50)
    else:
        async with RegistryFile(path) as file:
            portal("SIM1").apply(file.registry, SimulatedClock().now())
        connection = sqlite3.connect(path)
        with connection:
            if damage == "version":
                connection.execute("UPDATE facts SET value = x'39' WHERE name = 'version'")
            else:
                connection.execute("UPDATE devices SET row = x'c1'")
        connection.close()
    with pytest.raises(ConfigurationError, match="registry.sqlite3"):
        await RegistryFile(path).__aenter__()


async def test_two_processes_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite3"
    async with RegistryFile(path) as file:
        portal("SIM1").apply(file.registry, SimulatedClock().now())
        await file.commit()
        other = RegistryFile(path)
        other_connect = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other_connect.execute("SELECT * FROM facts")
        other_connect.close()
        assert other.registry.records == {}


async def test_without_a_file_nothing_is_collected(client: Client, ade: Ade) -> None:
    await ade.define("SIM1")
    unsaved = client.services.registry.unsaved
    assert not unsaved.devices
    assert not unsaved.ledgers
    assert (unsaved.profiles, unsaved.operations, unsaved.gone) == ([], [], [])


# ---- kill -9 ----

PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
import structlog
from certs.clock import SystemClock
from emulator.apple.app import AppleServices
from emulator.apple.pki import SimPKI
from tests.emulator.apple.assignment_support import portal

structlog.configure(logger_factory=structlog.PrintLoggerFactory(open(os.devnull, "w")))

async def main():
    folder, clock = Path(sys.argv[1]), SystemClock()
    pki = await asyncio.to_thread(SimPKI.open, folder / "pki", clock)
    async with AppleServices(
        pki=pki, clock=clock, portal=portal("SIM1"), state=folder / "registry.sqlite3", token="t" * 32
    ) as services:
        print(json.dumps({"url": services.admin_url}), flush=True)
        await asyncio.sleep(120)

asyncio.run(main())
"""


@asynccontextmanager
async def killed(folder: Path) -> AsyncIterator[str]:
    """Stand-ins in a process of their own, which is killed at the end; gives the admin URL."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, str(folder)),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        yield json.loads(line)["url"]
    finally:
        process.send_signal(signal.SIGKILL)
        await process.communicate()


async def test_a_killed_process_loses_nothing_that_was_acknowledged(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    headers = {"Authorization": "Bearer " + "t" * 32}
    acknowledged: list[str] = []

    async def assign(url: str, worker: int) -> None:
        """One device after the other, until the process is gone."""
        for number in range(10_000):
            serial = f"W{worker}N{number}"
            content = {"organization": "Example Inc", "server": "Test", "serials": [serial]}
            try:
                async with http.post(
                    f"{url}/portal/devices", json=content, headers=headers
                ) as reply:
                    await reply.read()
                    if reply.status == 200:
                        acknowledged.append(serial)
            except aiohttp.ClientError:
                return

    workers = []
    async with killed(tmp_path) as url:
        workers = [asyncio.create_task(assign(url, number)) for number in range(4)]
        async with asyncio.timeout(60):
            while len(acknowledged) < 120:  # noqa: ASYNC110 - some are in flight at any moment
                await asyncio.sleep(0.001)
    await asyncio.gather(*workers)
    async with RegistryFile(tmp_path / "registry.sqlite3") as file:
        registry = file.registry
        (ledger,) = (one for one in registry.ledgers.values() if one.name == "Test")
        told = [entry.serial_number for entry in ledger.operations.since(0)]
        listed = list(ledger.roster)
        assert set(acknowledged) <= set(registry.records)
        assert set(acknowledged) <= set(listed)
        assert told == listed  # in the order in which they came, none twice
        lock = ActivationLock(account=("a", "b"))
        registry.records["SIM1"].lock(lock)
        assert SystemClock().now() >= (
            registry.records["SIM1"].assigned_date or SystemClock().now()
        )
