"""Activation locks, deactivation and the provisional period, as the command line's users meet them."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from certs.clock import SystemClock
from emulator.apple.records import ActivationLock, ActivationState
from emulator.fleet.run import FleetRun
from emulator.wire import bypass_code
from tests.e2e.conftest import Road
from tests.e2e.test_cli import cli, invoke

OWNER = ("owner@example.com", "correct horse")
RAW = bytes(range(16))


@pytest.mark.parametrize("command", ["unlock", "activate", "deactivate", "join", "leave"])
def test_every_command_has_help(command: str) -> None:
    result = invoke("device", command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize("options", [(), ("--login", "a", "--bypass-code", "b")])
def test_unlocking_takes_an_account_or_a_code(options: tuple[str, ...], tmp_path: Path) -> None:
    result = invoke("device", "unlock", "SIM1", *options, "--state", tmp_path)
    assert result.exit_code == 2
    assert "give --login or --bypass-code" in result.stderr


async def enrolled_file(road: Road, count: int, **changes: object) -> tuple[Path, tuple[Any, ...]]:
    """A fleet file, and the options that every command takes; the devices are registered."""
    file, state = road.folder / "fleet.yaml", road.folder / "state"
    fleet = road.fleet(count, **changes)
    file.write_text(yaml.safe_dump(fleet.model_dump(mode="json", exclude_defaults=True)))
    async with FleetRun(fleet, road.options(state=state)) as run:
        await run.remember()
        await run.manufacture()
    return file, ("--state", state, "--ca", road.ca_file())


async def test_a_locked_device_reports_it_and_is_opened_from_the_shell(road: Road) -> None:
    file, kept = await enrolled_file(road, 2)
    first, second = sorted(road.services.registry.records)
    for serial in (first, second):
        record = road.services.registry.get(serial)
        assert record is not None
        record.activation_lock = ActivationLock(
            account=OWNER, escrow_hash=bypass_code.escrow_hash(RAW)
        )
    code, out, err = await cli("enroll", file, *kept, "--json", "-")
    devices = json.loads(out)["devices"]
    assert code == 1
    assert "2 devices, 2 failed" in err
    assert {device["state"] for device in devices} == {"locked_out"}
    assert all("activation lock: This device is linked" in device["error"] for device in devices)

    wrong = ("--login", OWNER[0], "--password", "wrong")
    code, _, err = await cli("device", "unlock", first, *wrong, *kept)
    assert (code, "password is incorrect" in err) == (1, True)
    code, out, _ = await cli("device", "list", *kept[:2])
    assert out.count("locked_out") == 2
    right = ("--login", OWNER[0], "--password", OWNER[1])
    code, out, err = await cli("device", "unlock", first, *right, *kept)
    assert (code, "activated" in out) == (0, True), err
    bypass = ("--bypass-code", bypass_code.encode(RAW))
    code, out, err = await cli("device", "unlock", second, *bypass, *kept)
    assert code == 0, err
    code, _, err = await cli("device", "unlock", second, *bypass, *kept)
    assert (code, "is not locked out, but activated" in err) == (2, True)

    code, out, err = await cli("enroll", file, *kept, "--json", "-")
    assert code == 0, err
    assert [device["state"] for device in json.loads(out)["devices"]] == ["home"] * 2
    code, _, err = await cli("device", "deactivate", first, *kept)
    assert (code, "DEACTIVATED is not possible while ENROLLED" in err) == (1, True)


async def test_a_device_of_nobody_is_deactivated_and_activated_again(road: Road) -> None:
    _, kept = await enrolled_file(road, 1)
    (serial,) = road.services.registry.records
    record = road.services.registry.get(serial)
    assert record is not None
    for state in (ActivationState.ACTIVATED, ActivationState.UNACTIVATED):
        command = "activate" if state is ActivationState.ACTIVATED else "deactivate"
        code, out, err = await cli("device", command, serial, *kept)
        assert code == 0, err
        assert ("activated" if command == "activate" else "unactivated") in out
        assert record.activation_state is state
    await cli("device", "activate", serial, *kept)
    code, _, err = await cli("device", "activate", serial, *kept)
    assert (code, f"{serial}: acknowledged" in err) == (0, True)


@pytest.mark.ade(45)
async def test_a_user_leaves_within_thirty_days_and_the_server_hears_of_it(road: Road) -> None:
    file, kept = await enrolled_file(road, 2)
    early, late = sorted(road.services.registry.records)
    for serial in (early, late):
        record = road.services.registry.get(serial)
        assert record is not None
        days = timedelta(days=31 if serial == late else 1)
        record.add_provisionally(SystemClock().now() - days, from_activation=False)
    code, out, err = await cli("enroll", file, *kept, "--json", "-")
    assert code == 0, err
    locked = {device["serial"]: device["locked"] for device in json.loads(out)["devices"]}
    assert locked == {early: False, late: True}
    code, _, err = await cli("device", "leave", late, *kept)
    assert (code, "the provisional period ended at" in err) == (1, True)
    code, out, err = await cli("device", "leave", early, *kept)
    assert (code, "not_assigned" in out) == (0, True), err
    record = road.services.registry.get(early)
    assert record is not None
    assert record.organization is None
    shown = json.loads((await cli("device", "show", late, *kept[:2]))[1])
    assert (shown["state"], shown["locked"]) == ("enrolled", True)
    async with FleetRun(None, road.options(state=kept[1])) as run:
        known = await road.server_devices(run)
    assert (known[early]["state"], known[late]["state"]) == ("checked_out", "enrolled")
