"""Waiting for the server, and a road taken up again: after a deadline, and after a kill at any moment."""

import pytest

from emulator.device.setup_assistant import (
    AutomatedEnrollment,
    set_up,
)
from emulator.device.snapshot import freeze, thaw
from emulator.device.state import State
from emulator.device.surroundings import Behaviour
from emulator.errors import PeerRefused, StepTimeout
from emulator.wire import profile
from emulator.wire.checkin import TokenUpdate
from tests.emulator.device.enrollment_profiles import acme_profile, profile_keys
from tests.emulator.device.world import (
    Killed,
    Memory,
    ScriptedMdm,
    apple_services,
    grant,
    make_device,
    scripted_mdm,
    surroundings,
    with_command,
)


def _serve(mdm: ScriptedMdm, served: profile.Profile) -> None:
    mdm.profile_answer = (200, profile.encode(served), profile.CONTENT_TYPE)


async def test_waiting_for_configuration_ends_at_the_deadline_and_can_be_taken_up_again() -> None:
    device = make_device()
    behaviour = Behaviour(awaiting_deadline_s=0.0)
    async with (
        scripted_mdm() as mdm,
        apple_services(device, profile_keys=profile_keys(mdm.url)) as apple,
    ):
        mdm.devices.devices["one-time-code"] = grant(device)
        _serve(mdm, acme_profile(mdm.url))
        around = surroundings(apple=apple, behaviour=behaviour)
        with pytest.raises(StepTimeout, match="awaiting_configuration"):
            await set_up(device, around, AutomatedEnrollment())
        assert device.state.name == "AWAITING_CONFIGURATION"
        mdm.commands.append(with_command("DeviceConfigured"))
        await set_up(device, around, AutomatedEnrollment())
    assert device.state is State.ENROLLED
    assert mdm.names_of() == ["Authenticate", "TokenUpdate", "TokenUpdate"]


async def test_without_the_second_token_update_acknowledging_device_configured_is_all() -> None:
    device = make_device()
    behaviour = Behaviour(token_update_after_configured=False)
    async with (
        scripted_mdm() as mdm,
        apple_services(device, profile_keys=profile_keys(mdm.url)) as apple,
    ):
        mdm.devices.devices["one-time-code"] = grant(device)
        _serve(mdm, acme_profile(mdm.url))
        mdm.commands.append(with_command("DeviceConfigured"))
        await set_up(device, surroundings(apple=apple, behaviour=behaviour), AutomatedEnrollment())
    assert device.state is State.ENROLLED
    assert mdm.names_of() == ["Authenticate", "TokenUpdate"]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("kill_at", range(1, 12))
async def test_a_device_killed_at_any_checkpoint_goes_on_where_it_was(
    kill_at: int, stored: bool
) -> None:
    """Killed right after a checkpoint, and right before: then the server is one step ahead of the store."""
    device, memory = make_device(), Memory(kill_at=kill_at, keeps_the_last=stored)
    memory.snapshots.append(freeze(device))
    async with (
        scripted_mdm() as mdm,
        apple_services(device, profile_keys=profile_keys(mdm.url)) as apple,
    ):
        mdm.devices.devices["one-time-code"] = grant(device)
        _serve(mdm, acme_profile(mdm.url))
        mdm.commands.append(with_command("DeviceConfigured"))
        try:
            await set_up(device, surroundings(memory, apple=apple), AutomatedEnrollment())
            ran_through = True
        except Killed:
            ran_through = False
        resumed, second = thaw(memory.snapshots[-1]), Memory()
        had_identity = resumed.identity is not None
        issued_before = list(mdm.devices.issued_to)
        if not mdm.results:
            mdm.commands.append(with_command("DeviceConfigured"))  # delivered again
        await set_up(resumed, surroundings(second, apple=apple), AutomatedEnrollment())
    assert ran_through is (kill_at > 10)
    assert (resumed.state, resumed.outbox) == (State.ENROLLED, None)
    assert resumed.enrollment is not None
    assert resumed.enrollment.awaiting_configuration is False
    assert resumed.identity is not None
    # An identity that was stored is the one that is used, and no other was asked for.
    if had_identity:
        assert mdm.devices.issued_to == issued_before
    assert resumed.identity.certificate == mdm.devices.issued_to[-1]
    certificates = {item.certificate for item in mdm.received}
    assert certificates == {resumed.identity.certificate}
    assert len([name for name in mdm.names_of() if name == "Authenticate"]) <= 2
    assert {item.status.value for item in mdm.results if item.command_uuid == "C1"} == {
        "Acknowledged"
    }
    if stored:
        assert mdm.names_of().count("Authenticate") == 1
        tokens = {
            item.message.token for item in mdm.received if isinstance(item.message, TokenUpdate)
        }
        assert len(tokens) == 1


async def test_a_profile_downloaded_before_a_restart_is_downloaded_again() -> None:
    """Its one-time codes may be used up: the server gives new ones for the asking."""
    device, memory = make_device(), Memory(kill_at=3)
    async with (
        scripted_mdm() as mdm,
        apple_services(device, profile_keys=profile_keys(mdm.url)) as apple,
    ):
        mdm.devices.devices["one-time-code"] = grant(device)
        _serve(mdm, acme_profile(mdm.url))
        mdm.commands.append(with_command("DeviceConfigured"))
        with pytest.raises(Killed):
            await set_up(device, surroundings(memory, apple=apple), AutomatedEnrollment())
        resumed = thaw(memory.snapshots[-1])
        assert resumed.state is State.PROFILE_FETCHED
        await set_up(resumed, surroundings(apple=apple), AutomatedEnrollment())
    assert len(mdm.machine_infos) == 2


@pytest.mark.parametrize(("failures", "gives_up"), [(2, False), (3, True)])
async def test_a_few_failed_check_ins_do_not_end_the_waiting(failures: int, gives_up: bool) -> None:
    device = make_device()
    async with (
        scripted_mdm() as mdm,
        apple_services(device, profile_keys=profile_keys(mdm.url)) as apple,
    ):
        mdm.devices.devices["one-time-code"] = grant(device)
        _serve(mdm, acme_profile(mdm.url))
        mdm.commands += [(503, b"")] * failures
        mdm.commands.append(with_command("DeviceConfigured"))
        around = surroundings(apple=apple)
        if gives_up:
            with pytest.raises(PeerRefused, match="idle: HTTP 503"):
                await set_up(device, around, AutomatedEnrollment())
            assert device.state.name == "AWAITING_CONFIGURATION"
        await set_up(device, around, AutomatedEnrollment())
    assert device.state is State.ENROLLED


async def test_a_second_token_update_that_fails_is_sent_again() -> None:
    device = make_device()
    async with (
        scripted_mdm() as mdm,
        apple_services(device, profile_keys=profile_keys(mdm.url)) as apple,
    ):
        mdm.devices.devices["one-time-code"] = grant(device)
        _serve(mdm, acme_profile(mdm.url))
        around = surroundings(apple=apple, behaviour=Behaviour(awaiting_deadline_s=0.0))
        with pytest.raises(StepTimeout):
            await set_up(device, around, AutomatedEnrollment())
        mdm.statuses["TokenUpdate"] = (500, b"")
        mdm.commands.append(with_command("DeviceConfigured"))
        with pytest.raises(PeerRefused, match="token_update: HTTP 500"):
            await set_up(device, around, AutomatedEnrollment())
        assert device.state is State.ENROLLED
        del mdm.statuses["TokenUpdate"]
        await set_up(device, around, AutomatedEnrollment())
        await set_up(device, around, AutomatedEnrollment())
    assert mdm.names_of() == ["Authenticate", *["TokenUpdate"] * 3]


@pytest.mark.parametrize("during", ["waiting", "token_update"])
async def test_a_server_that_ends_the_management_in_setup_leaves_the_device_unmanaged(
    during: str,
) -> None:
    device, memory = make_device(), Memory()
    async with (
        scripted_mdm() as mdm,
        apple_services(device, profile_keys=profile_keys(mdm.url)) as apple,
    ):
        mdm.devices.devices["one-time-code"] = grant(device)
        _serve(mdm, acme_profile(mdm.url))
        around = surroundings(memory, apple=apple, behaviour=Behaviour(awaiting_deadline_s=0.0))
        with pytest.raises(StepTimeout):
            await set_up(device, around, AutomatedEnrollment())
        mdm.statuses["TokenUpdate"] = (401, b"")
        answer = (401, b"") if during == "waiting" else with_command("DeviceConfigured")
        mdm.commands.append(answer)
        with pytest.raises(PeerRefused, match="the server ended the management"):
            await set_up(device, around, AutomatedEnrollment())
    assert device.state is State.HOME_UNMANAGED
    assert device.enrollment is None
    assert memory.snapshots[-1] == freeze(device)


async def test_a_device_erased_while_it_waits_starts_anew_when_set_up_again() -> None:
    device = make_device()
    async with (
        scripted_mdm() as mdm,
        apple_services(device, profile_keys=profile_keys(mdm.url)) as apple,
    ):
        mdm.devices.devices["one-time-code"] = grant(device)
        _serve(mdm, acme_profile(mdm.url))
        mdm.commands.append(with_command("EraseDevice"))
        with pytest.raises(PeerRefused, match="the server erased the device"):
            await set_up(device, surroundings(apple=apple), AutomatedEnrollment())
        assert device.state.name == "UNACTIVATED"
        mdm.commands += [(200, b""), with_command("DeviceConfigured")]
        await set_up(device, surroundings(apple=apple), AutomatedEnrollment())
    assert device.state is State.ENROLLED
    assert len(mdm.devices.issued_to) == 2
