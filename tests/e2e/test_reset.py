"""A profile that comes after the activation waits for a reset, and a reset brings whatever is assigned then (rules 115, 117)."""

import json
from dataclasses import replace
from typing import Any

import pytest

from certs.clock import SystemClock
from emulator.apple.records import DeviceRecord
from emulator.fleet.run import FleetRun
from tests.e2e.conftest import ORGANIZATION, SERVER, Road
from tests.e2e.test_activation import enrolled_file
from tests.e2e.test_cli import cli

NEWER = "0" * 31 + "1"
NOBODYS: dict[str, object] = {
    "groups": [{"model": ["iPhone14,5"], "os_version": ["18.1"], "count": 1}]
}


def record_of(road: Road, serial: str) -> DeviceRecord:
    record = road.services.registry.get(serial)
    assert record is not None
    return record


async def enrolled(*arguments: Any) -> dict[str, Any]:
    """What became of the one device of a fleet file."""
    _, out, err = await cli("enroll", *arguments, "--json", "-")
    assert out, err
    (device,) = json.loads(out)["devices"]
    return dict(device)


@pytest.mark.ade(115)
async def test_an_activated_device_is_wiped_before_it_gets_the_profile(road: Road) -> None:
    file, kept = await enrolled_file(road, 1, **NOBODYS)
    (serial,) = road.services.registry.records
    assert (await enrolled(file, *kept))["state"] == "not_assigned"
    road.services.registry.own([serial], ORGANIZATION, SERVER, SystemClock().now())
    record = record_of(road, serial)
    assert record.profile_status.value == "assigned"

    assert (await enrolled(file, *kept))["state"] == "not_assigned"
    assert record_of(road, serial).profile_status.value == "assigned"  # it has not even asked

    code, _, err = await cli("device", "erase", serial, *kept[:2])
    assert code == 0, err
    device = await enrolled(file, *kept)
    assert (device["state"], device["supervised"], device["locked"]) == ("home", True, True)
    assert record_of(road, serial).profile_status.value == "pushed"


@pytest.mark.ade(117)
@pytest.mark.parametrize("way", ["console", "settings"])
async def test_a_wiped_device_fetches_its_configuration_again(road: Road, way: str) -> None:
    """By EraseDevice from the server, or by the device's own Settings."""
    file, kept = await enrolled_file(road, 1)
    (serial,) = road.services.registry.records
    assert (await enrolled(file, *kept))["state"] == "home"
    record = record_of(road, serial)
    assert record.profile is not None
    record.give(replace(record.profile, uuid=NEWER), SystemClock().now())
    assert (await enrolled(file, *kept))["state"] == "home"
    assert record_of(road, serial).profile_status.value == "assigned"  # no reset, no new profile

    if way == "console":
        async with FleetRun(None, road.options(state=kept[1])) as run:
            admin = run.admin_client(road.server.admin_url, road.server.token, step="admin")
            udid = (await road.server_devices(run))[serial]["udid"]
            erase = {"request_type": "EraseDevice"}
            await admin.call("POST", f"/v1/devices/{udid}/commands", erase)
        code, _, err = await cli("check-in", *kept)
        assert code == 0, err
    else:
        code, _, err = await cli("device", "erase", serial, *kept[:2])
        assert code == 0, err
    code, out, _ = await cli("device", "show", serial, *kept[:2])
    assert json.loads(out)["state"] == "unactivated"

    assert (await enrolled(file, *kept))["state"] == "home"
    record = record_of(road, serial)
    assert record.profile is not None
    assert (record.profile_status.value, record.profile.uuid) == ("pushed", NEWER)
