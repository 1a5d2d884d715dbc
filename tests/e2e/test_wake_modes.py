"""What makes devices check in where no push does, and a fleet that listens in a process of its own."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from certs.identity import Identity
from certs.keys import generate
from emulator.fleet.run import FleetRun
from tests.e2e.conftest import Road

GUARD_S = 60.0


async def use_push(road: Road) -> None:
    """Give the server a push certificate."""
    key = generate("p256")
    certificate = road.services.pki.issue_push_certificate(key.public_key(), road.server.topic)
    roots = [road.services.pki.tls_ca.certificate]
    await road.server.use_push(Identity(key, certificate), road.services.push_url, roots)


async def admin(road: Road, run: FleetRun, method: str, path: str, body: object = None) -> Any:
    client = run.admin_client(road.server.admin_url, road.server.token, step="admin")
    return await client.call(method, path, body)


async def enqueue(road: Road, run: FleetRun, udid: str) -> str:
    path = f"/v1/devices/{udid}/commands"
    answer = await admin(road, run, "POST", path, {"request_type": "SecurityInfo"})
    return str(answer["command_uuid"])


async def state_of(road: Road, run: FleetRun, command: str) -> str:
    return str((await admin(road, run, "GET", f"/v1/commands/{command}"))["state"])


async def test_without_push_a_device_has_no_token_at_the_stand_in_and_waits_for_its_user(
    road: Road,
) -> None:
    await use_push(road)
    fleet = road.fleet(1, wake={"push": "false"})
    async with FleetRun(fleet, road.options()) as run:
        assert run.waker is None
        rows = await run.manufacture()
        (outcome,) = await run.runner.enroll(rows, run.way)
        assert outcome.error is None
        command = await enqueue(road, run, outcome.udid)
        assert road.server.pusher is not None
        await road.server.pusher.settled()
        assert len(road.services.push.tokens) == 0
        assert road.services.push.stats.refused["BadDeviceToken"] >= 1
        assert await state_of(road, run, command) == "queued"
        await run.runner.check_in(await run.store.rows())
        assert await state_of(road, run, command) == "acknowledged"


async def test_devices_that_poll_fetch_their_commands_without_a_push(road: Road) -> None:
    fleet = road.fleet(3, wake={"poll_s": "0.01"})
    async with FleetRun(fleet, road.options()) as run:
        assert run.fleet.wake.mode == "poll"
        outcomes = await run.runner.enroll(await run.manufacture(), run.way)
        commands = [await enqueue(road, run, outcome.udid) for outcome in outcomes]
        poll_s = run.fleet.wake.poll_s
        assert poll_s is not None
        after = await run.runner.keep_checking_in(await run.store.rows(), poll_s, rounds=2)
        assert [outcome.error for outcome in after] == [None] * 3
        assert {await state_of(road, run, command) for command in commands} == {"acknowledged"}
        assert road.services.push.stats.pushes == 0


async def test_a_fleet_listens_in_a_process_of_its_own_until_it_is_interrupted(
    road: Road, tmp_path: Path
) -> None:
    await use_push(road)
    async with FleetRun(road.fleet(2), road.options()) as run:
        await run.remember()
        outcomes = await run.runner.enroll(await run.manufacture(), run.way)
        assert [outcome.error for outcome in outcomes] == [None] * 2
    result = tmp_path / "result.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "emulator", "listen", "--state", str(tmp_path / "fleet")),
        *("--ca", str(road.ca_file()), "--json", str(result)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        # A store is of one process at a time: what is asked of the server goes another way.
        async with (
            asyncio.timeout(GUARD_S),
            FleetRun(road.fleet(1), road.options(state=tmp_path / "other")) as asking,
        ):
            while road.services.push.gauges().online < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
            commands = [await enqueue(road, asking, outcome.udid) for outcome in outcomes]
            states: set[str] = set()
            while states != {"acknowledged"}:
                states = {await state_of(road, asking, command) for command in commands}
        process.send_signal(signal.SIGINT)
        stdout, stderr = await asyncio.wait_for(process.communicate(), GUARD_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, stderr
    assert b"sleeping until pushed" in stderr
    content = json.loads(result.read_text())
    assert [device["error"] for device in content["devices"]] == [None] * 2
    assert content["steps"]["push_to_connect"]["count"] >= 2
    assert b"push_to_connect" in stdout
