"""What a user may do in Settings, and what a locked device denies."""

from dataclasses import replace

import pytest

from emulator.device.profiles import InstalledProfile
from emulator.device.snapshot import freeze
from emulator.device.state import State
from emulator.device.user import RemovalDenied, erase, remove_profile, rename
from tests.emulator.device.managed import managed_device
from tests.emulator.device.world import (
    PROFILE_IDENTIFIER,
    Memory,
    make_device,
    scripted_mdm,
    surroundings,
)


def test_a_user_may_rename_a_supervised_device() -> None:
    device = managed_device()
    rename(device, "My phone")
    assert device.name == "My phone"


async def test_the_locked_enrollment_profile_cannot_be_removed() -> None:
    device, memory = managed_device(), Memory()
    with pytest.raises(RemovalDenied, match="locked to its management") as caught:
        await remove_profile(device, PROFILE_IDENTIFIER, surroundings(memory))
    assert caught.value.identifier == PROFILE_IDENTIFIER
    assert device.managed
    assert memory.snapshots == []


async def test_the_profiles_own_flag_denies_removal_on_a_supervised_device_only() -> None:
    for supervised in (True, False):
        device = managed_device(
            supervised=supervised, unremovable=False, check_out_when_removed=False
        )
        enrollment = device.profiles.enrollment
        assert enrollment is not None
        device.profiles.install(replace(enrollment, removal_disallowed=True))
        if supervised:
            with pytest.raises(RemovalDenied):
                await remove_profile(device, PROFILE_IDENTIFIER, surroundings())
        else:
            await remove_profile(device, PROFILE_IDENTIFIER, surroundings())
        assert device.managed is supervised


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_a_removable_enrollment_ends_with_a_check_out_where_the_profile_wants_one(
    says_goodbye: bool,
) -> None:
    memory = Memory()
    async with scripted_mdm() as mdm:
        device = managed_device(url=mdm.url, supervised=False, check_out_when_removed=says_goodbye)
        await remove_profile(device, PROFILE_IDENTIFIER, surroundings(memory))
    assert mdm.names_of() == (["CheckOut"] if says_goodbye else [])
    assert memory.steps == (["check_out"] if says_goodbye else [])
    assert device.state is State.HOME_UNMANAGED
    assert device.profiles.all() == ()
    assert memory.snapshots[-1] == freeze(device)


async def test_a_server_that_is_gone_does_not_keep_the_profile_on_the_device() -> None:
    device = managed_device(url="https://127.0.0.1:1", supervised=False)
    await remove_profile(device, PROFILE_IDENTIFIER, surroundings())
    assert device.state is State.HOME_UNMANAGED


async def test_other_profiles_come_and_go() -> None:
    device = managed_device()
    device.profiles.install(InstalledProfile(identifier="a", uuid="A"))
    device.profiles.install(InstalledProfile(identifier="b", uuid="B", removal_disallowed=True))
    await remove_profile(device, "a", surroundings())
    with pytest.raises(RemovalDenied, match="b: the profile forbids its removal"):
        await remove_profile(device, "b", surroundings())
    with pytest.raises(RemovalDenied, match="c: no such profile is installed"):
        await remove_profile(device, "c", surroundings())
    assert [profile.identifier for profile in device.profiles.all()] == [PROFILE_IDENTIFIER, "b"]
    assert device.managed


def test_erasing_tells_nobody_and_takes_everything() -> None:
    device = managed_device()
    erase(device)
    assert device == make_device()
