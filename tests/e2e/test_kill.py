"""A fleet process that is killed, at whatever step, goes on where it was and loses nothing."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from pathlib import Path

import pytest
import yaml

from certs.faults import Action
from emulator.fleet.run import FleetRun
from tests.e2e.conftest import OpenRoad, Road

DEVICES = 6


def write_fleet(road: Road) -> Path:
    file = road.folder / "fleet.yaml"
    fleet = road.fleet(DEVICES).model_dump(mode="json", exclude_defaults=True)
    file.write_text(yaml.safe_dump(fleet))
    return file


async def start(road: Road, file: Path) -> Process:
    """The command line as a user starts it, in a process of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "emulator", "enroll", str(file), "--state", str(road.folder / "fleet")),
        *(
            "--ca",
            str(road.ca_file()),
            "--concurrency",
            "3",
            "--json",
            str(road.folder / "out.json"),
        ),
        stdout=DEVNULL,
        stderr=PIPE,
    )


class Killer:
    """A FaultPoint that ends the fleet process the n-th time the server meets a step."""

    def __init__(self, step: str, at: int, number: signal.Signals) -> None:
        self._step = step
        self._at = at
        self._signal = number
        self._seen = 0
        self.process: Process | None = None
        self.fired = False

    def __call__(self, side: str, step: str, message: object, n: int) -> Action | None:
        if side == "server" and step == self._step and not self.fired:
            self._seen += 1
            if self._seen == self._at and self.process is not None:
                self.fired = True
                self.process.send_signal(self._signal)
                return Action(name="drop", arguments={})
        return None


async def all_is_well(road: Road, file: Path) -> None:
    process = await start(road, file)
    _, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    outcomes = json.loads((road.folder / "out.json").read_text())["devices"]
    assert [(o["state"], o["error"]) for o in outcomes] == [("home", None)] * DEVICES
    async with FleetRun(road.fleet(DEVICES), road.options()) as run:
        server = await road.server_devices(run)
    assert Counter(device["state"] for device in server.values()) == {"enrolled": DEVICES}
    assert {o["serial"]: o["name"] for o in outcomes} == {
        serial: device["name"] for serial, device in server.items()
    }


@pytest.mark.parametrize(
    ("step", "at"),
    [
        ("enrollment_profile", 2),
        ("pki_operation", 2),
        ("authenticate", 3),
        ("token_update", 4),
        ("command", 7),
    ],
)
async def test_a_killed_run_resumes(open_road: OpenRoad, step: str, at: int) -> None:
    killer = Killer(step, at, signal.SIGKILL)
    async with open_road(server_faults=killer) as road:
        file = write_fleet(road)
        killer.process = await start(road, file)
        await killer.process.communicate()
        assert killer.fired
        assert killer.process.returncode == -signal.SIGKILL
        await all_is_well(road, file)


async def test_an_interrupted_run_says_how_to_go_on(open_road: OpenRoad) -> None:
    killer = Killer("authenticate", 2, signal.SIGINT)
    async with open_road(server_faults=killer) as road:
        file = write_fleet(road)
        killer.process = await start(road, file)
        _, stderr = await killer.process.communicate()
        assert killer.process.returncode == 1
        assert "the same command goes on where it was" in stderr.decode()
        assert "Traceback" not in stderr.decode()
        await all_is_well(road, file)
