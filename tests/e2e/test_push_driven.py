"""Fleets that nothing wakes but pushes: mdmserver enqueues, APNs delivers, devices answer (mdm.md 7; bugs P01-P05)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from certs.identity import Identity
from certs.keys import generate
from emulator.device.device import Device
from emulator.device.push import rotate_token
from emulator.device.surroundings import Surroundings
from emulator.fleet.run import FleetRun
from emulator.fleet.wake import Waker
from emulator.wire.push import Reason
from tests.e2e.conftest import OpenRoad, Road

GUARD_S = 60.0
PERSONA = {"model": ["iPhone14,5"], "os_version": ["18.1"]}


@dataclass(frozen=True, kw_only=True)
class Asleep:
    """An enrolled fleet, asleep; whatever happens from here on is a push's doing."""

    road: Road
    run: FleetRun
    waker: Waker
    udids: dict[str, str]  # by serial number

    async def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        server = self.road.server
        client = self.run.admin_client(server.admin_url, server.token, step="mdmserver_admin")
        return await client.call(method, path, body)

    async def enqueue(self, serial: str, request_type: str = "SecurityInfo") -> str:
        """Queue a command; the server pushes by itself. Returns its CommandUUID."""
        path = f"/v1/devices/{self.udids[serial]}/commands"
        answer = await self.admin("POST", path, {"request_type": request_type})
        return str(answer["command_uuid"])

    async def state_of(self, command_uuid: str) -> str:
        """What the server says became of a command."""
        command = await self.admin("GET", f"/v1/commands/{command_uuid}")
        return str(command["state"])

    async def quiet(self) -> None:
        """Until no push is under way and nobody is awake."""
        assert self.road.server.pusher is not None
        await self.road.server.pusher.settled()
        async with asyncio.timeout(GUARD_S):
            await self.waker.wait_until_idle()

    def connections(self) -> int:
        """Sessions that devices began; a device that is not woken begins none."""
        return self.run.stats.summary()["idle"]["count"]


@asynccontextmanager
async def asleep(open_road: OpenRoad, count: int, **changes: object) -> AsyncIterator[Asleep]:
    """A fleet that enrolled, fell asleep, and whose first commands are done."""
    async with open_road() as road:
        key = generate("p256")
        certificate = road.services.pki.issue_push_certificate(key.public_key(), road.server.topic)
        await road.server.use_push(
            Identity(key, certificate),
            road.services.push_url,
            [road.services.pki.tls_ca.certificate],
        )
        group = {**PERSONA, "count": str(count), "organization": "Example Hospital"}
        apple = road.apple() | {"activation": "off"}  # the road is shown elsewhere
        fleet = road.fleet(1, groups=[{**group, "server": "main"}], apple=apple, **changes)
        async with FleetRun(fleet, road.options()) as run:
            rows = await run.manufacture()
            outcomes = await run.runner.enroll(rows, run.way)
            assert [one.error for one in outcomes if one.error] == []
            assert run.waker is not None
            assert await run.waker.listen(await run.store.rows()) == count
            udids = {one.serial: one.udid for one in outcomes}
            fleet_asleep = Asleep(road=road, run=run, waker=run.waker, udids=udids)
            await fleet_asleep.quiet()
            run.waker.woken.clear()
            yield fleet_asleep


async def test_two_hundred_devices_are_driven_by_pushes_alone(open_road: OpenRoad) -> None:
    async with asleep(open_road, 200) as fleet:
        before = fleet.connections()
        fleet.waker.begin_wave()
        commands = {serial: await fleet.enqueue(serial) for serial in fleet.udids}
        woken = await fleet.waker.wait_for(fleet.udids, GUARD_S)
        await fleet.quiet()
        assert len(woken) == 200
        assert [one.error for one in woken.values() if one.error] == []
        states = {await fleet.state_of(command) for command in commands.values()}
        assert states == {"acknowledged"}
        # Each session that began was begun by a push: none polled.
        assert fleet.connections() - before == fleet.waker.woken.total() >= 200
        assert fleet.waker.ignored == 0


async def rotate(fleet: Asleep, serial: str) -> None:
    """The device gets another token and tells its server; nothing else changes."""
    row = await fleet.run.store.find(serial)
    assert row is not None

    async def act(device: Device, surroundings: Surroundings) -> None:
        await rotate_token(device, surroundings)

    await fleet.run.runner.act(row, act)


async def push_state(fleet: Asleep, serial: str) -> dict[str, Any]:
    return dict(await fleet.admin("GET", f"/v1/devices/{fleet.udids[serial]}/push"))


async def test_a_token_that_ended_is_410_and_the_next_token_update_mends_it(
    open_road: OpenRoad,
) -> None:
    """P01: a server that does not recognise the 410 pushes in vain for ever."""
    async with asleep(open_road, 1) as fleet:
        (serial,) = fleet.udids
        tokens = fleet.road.services.push.tokens
        sleeper = fleet.waker._by_serial[serial]
        tokens.forget(sleeper.token)
        command = await fleet.enqueue(serial)
        await fleet.quiet()
        refused = fleet.road.services.push.stats.refused
        assert refused == {"Unregistered": 1}
        assert (await push_state(fleet, serial))["off"] == "Unregistered"
        assert await fleet.state_of(command) == "queued"
        await rotate(fleet, serial)
        assert (await push_state(fleet, serial))["off"] is None
        await fleet.enqueue(serial, "DeviceInformation")
        await fleet.quiet()
        assert refused == {"Unregistered": 1}
        assert await fleet.state_of(command) == "acknowledged"


async def test_an_erased_device_is_410_until_it_enrolls_again(open_road: OpenRoad) -> None:
    """P01, as it happens in the field: erase gives the old token up, the next enrollment brings another."""
    async with asleep(open_road, 1) as fleet:
        (serial,) = fleet.udids
        tokens, refused = fleet.road.services.push.tokens, fleet.road.services.push.stats.refused
        old = fleet.waker._by_serial[serial].token
        erase = await fleet.enqueue(serial, "EraseDevice")
        await fleet.quiet()
        assert await fleet.state_of(erase) == "acknowledged"
        await fleet.enqueue(serial)
        await fleet.quiet()
        assert refused == {"Unregistered": 1}
        assert (await push_state(fleet, serial))["off"] == "Unregistered"

        row = await fleet.run.store.find(serial)
        assert row is not None
        (outcome,) = await fleet.run.runner.enroll([row], fleet.run.way)
        assert outcome.error is None
        assert (await push_state(fleet, serial))["off"] is None
        gone = tokens.gone(old)
        assert gone is not None
        assert gone.reason is Reason.UNREGISTERED
        command = await fleet.enqueue(serial)
        await fleet.quiet()
        assert await fleet.state_of(command) == "acknowledged"
        assert refused == {"Unregistered": 1}  # nothing was ever pushed to the old one again


async def test_a_token_may_change_without_another_enrollment(open_road: OpenRoad) -> None:
    """P03: a server that keeps the first token loses the device."""
    async with asleep(open_road, 1) as fleet:
        (serial,) = fleet.udids
        old = fleet.waker._by_serial[serial].token
        await rotate(fleet, serial)
        new = fleet.waker._by_serial[serial].token
        assert new != old
        command = await fleet.enqueue(serial)
        await fleet.quiet()
        assert await fleet.state_of(command) == "acknowledged"
        tokens = fleet.road.services.push.tokens
        assert tokens.gone(old) is not None  # APNs says 410 to whoever still pushes there


async def test_a_fleet_that_was_away_comes_back_as_a_herd_with_one_push_each(
    open_road: OpenRoad,
) -> None:
    """P04: all offline, several pushes each, then all back at once."""
    async with asleep(open_road, 12) as fleet:
        fleet.waker.offline(fleet.udids)
        stats = fleet.road.services.push.stats
        before = (stats.stored, stats.coalesced, stats.delivered_on_connect)
        commands = []
        for _ in range(3):
            commands += [await fleet.enqueue(serial) for serial in fleet.udids]
            await fleet.quiet()
        assert {await fleet.state_of(command) for command in commands} == {"queued"}
        assert fleet.waker.woken.total() == 0
        assert (stats.stored - before[0], stats.coalesced - before[1]) == (36, 24)
        fleet.waker.begin_wave()
        fleet.waker.online(fleet.udids)
        assert len(await fleet.waker.wait_for(fleet.udids, GUARD_S)) == 12
        await fleet.quiet()
        assert {await fleet.state_of(command) for command in commands} == {"acknowledged"}
        assert set(fleet.waker.woken.values()) == {1}
        assert stats.delivered_on_connect - before[2] == 12


async def test_a_push_to_all_is_an_idle_from_all_and_then_an_answer_from_all(
    open_road: OpenRoad,
) -> None:
    """P05: the herd that a push to everybody brings, and the second one when there are commands."""
    async with asleep(open_road, 12) as fleet:
        before = fleet.connections()
        fleet.waker.begin_wave()
        assert await fleet.admin("POST", "/v1/push") == {"devices": 12}
        assert len(await fleet.waker.wait_for(fleet.udids, GUARD_S)) == 12
        assert fleet.connections() - before == 12
        histogram = fleet.run.stats.summary()["push_to_connect"]
        assert histogram["count"] >= 12


async def test_a_push_with_another_magic_wakes_nobody(open_road: OpenRoad) -> None:
    async with asleep(open_road, 1) as fleet:
        (serial,) = fleet.udids
        sleeper = fleet.waker._by_serial[serial]
        sleeper.push_magic = "another"  # of an enrollment that the server has not heard of
        command = await fleet.enqueue(serial)
        await fleet.quiet()
        assert (fleet.waker.ignored, fleet.waker.woken.total()) == (1, 0)
        assert await fleet.state_of(command) == "queued"
