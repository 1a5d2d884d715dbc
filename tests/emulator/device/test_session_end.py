"""What ends a session, or the management: 401, an unrecognized device, removal, erase, restart (mdm.md 4.3, 5.8)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from emulator.device.device import After, Device
from emulator.device.profiles import InstalledProfile
from emulator.device.session import check_in
from emulator.device.snapshot import freeze, thaw
from emulator.device.state import State
from emulator.errors import IllegalTransition, PeerRefused
from emulator.wire.command import Status
from tests.emulator.device.managed import managed_device
from tests.emulator.device.world import (
    PROFILE_IDENTIFIER,
    Killed,
    Memory,
    ScriptedMdm,
    make_device,
    scripted_mdm,
    surroundings,
    with_command,
)

UNRECOGNIZED = (403, b'{"code":"com.apple.unrecognized.device"}', "application/json")


@pytest_asyncio.fixture
async def mdm() -> AsyncIterator[ScriptedMdm]:
    async with scripted_mdm() as server:
        yield server


def _device(mdm: ScriptedMdm, **changes: Any) -> Device:
    return managed_device(url=mdm.url, **changes)


@pytest.mark.parametrize(
    ("answer", "os_version", "ends"),
    [
        ((401, b""), "18.1", True),
        ((401, b""), "15.1", True),
        (UNRECOGNIZED, "18.1", True),
        (UNRECOGNIZED, "17.0", True),
        (UNRECOGNIZED, "16.1", False),
        ((403, UNRECOGNIZED[1], "text/plain"), "18.1", False),  # names no type that is read
        ((403, b'{"code":"com.example.other"}', "application/json"), "18.1", False),
        ((400, *UNRECOGNIZED[1:]), "18.1", False),
    ],
)
async def test_401_and_an_unrecognized_device_end_the_management(
    mdm: ScriptedMdm, answer: tuple[int, bytes], os_version: str, ends: bool
) -> None:
    device, memory = _device(mdm, hardware={"os_version": os_version}), Memory()
    device.profiles.install(InstalledProfile(identifier="com.example.w", uuid="W", managed=True))
    mdm.commands.append(answer)
    if not ends:
        with pytest.raises(PeerRefused, match="idle: HTTP 40[03]"):
            await check_in(device, surroundings(memory))
        assert device.managed
        return
    report = await check_in(device, surroundings(memory))
    assert report.unenrolled
    assert device.state is State.HOME_UNMANAGED
    assert (device.profiles.all(), device.enrollment) == ((), None)
    assert mdm.names_of() == []  # no CheckOut
    assert memory.snapshots[-1] == freeze(device)
    with pytest.raises(IllegalTransition, match="home_unmanaged has no MDM session"):
        await check_in(device, surroundings())


@pytest.mark.parametrize("says_goodbye", [True, False])
@pytest.mark.parametrize("status", [200, 500])
async def test_removing_the_enrollment_profile_acknowledges_and_then_checks_out(
    mdm: ScriptedMdm, says_goodbye: bool, status: int
) -> None:
    device, memory = _device(mdm, check_out_when_removed=says_goodbye), Memory()
    mdm.statuses["CheckOut"] = (status, b"")
    mdm.commands.append(with_command("RemoveProfile", "R", Identifier=PROFILE_IDENTIFIER))
    report = await check_in(device, surroundings(memory))
    assert report.unenrolled
    assert [type(item.message).__name__ for item in mdm.received] == [
        "Response",
        "Response",
        *(["CheckOut"] if says_goodbye else []),
    ]
    assert mdm.results[0].status is Status.ACKNOWLEDGED
    assert device.state is State.HOME_UNMANAGED
    assert memory.snapshots[-1] == freeze(device)


async def test_a_device_killed_before_it_left_leaves_when_it_wakes(mdm: ScriptedMdm) -> None:
    device, memory = _device(mdm), Memory(kill_at=1)
    mdm.commands.append(with_command("RemoveProfile", "R", Identifier=PROFILE_IDENTIFIER))
    with pytest.raises(Killed):
        await check_in(device, surroundings(memory))
    woken = thaw(memory.snapshots[-1])
    assert woken.outbox is not None
    assert woken.outbox.after is After.UNENROLL
    report = await check_in(woken, surroundings())
    assert report.unenrolled
    assert woken.state is State.HOME_UNMANAGED


@pytest.mark.parametrize("answer", [(200, b""), (500, b""), (401, b"")])
async def test_erase_is_acknowledged_first_and_done_whatever_the_server_says(
    mdm: ScriptedMdm, answer: tuple[int, bytes]
) -> None:
    device, memory = _device(mdm), Memory()
    device.name = "Ward 3"
    mdm.commands += [with_command("EraseDevice", "E"), answer]
    report = await check_in(device, surroundings(memory))
    assert report.unenrolled
    assert mdm.results[0].status is Status.ACKNOWLEDGED
    assert device == make_device()
    assert memory.snapshots[-1] == freeze(device)
    assert mdm.names_of() == []


async def test_a_restart_ends_the_session(mdm: ScriptedMdm) -> None:
    device = _device(mdm)
    mdm.commands += [with_command("RestartDevice", "R"), with_command("SecurityInfo", "S")]
    await check_in(device, surroundings())
    assert [item.command_uuid for item in mdm.results] == ["R"]
    assert device.settings.restarts == 1
    assert device.managed
