"""A locked device: what it reports, and who opens it (apple-services.md 2.6, 9.1)."""

from dataclasses import replace

import pytest

from emulator.apple.app import AppleServices
from emulator.apple.records import ActivationLock
from emulator.device.activation import ActivationLocked, Credentials, activate
from emulator.device.device import Device
from emulator.device.setup_assistant import AutomatedEnrollment, set_up
from emulator.device.state import State
from emulator.device.surroundings import Behaviour
from emulator.errors import PeerRefused
from emulator.wire import bypass_code
from tests.emulator.device.world import apple_services, make_device, surroundings

RAW = bytes(range(16))
OWNER = ("owner@example.com", "correct horse")


def lock(apple: AppleServices, device: Device) -> None:
    record = apple.registry.get(device.hardware.serial_number)
    assert record is not None
    record.activation_lock = ActivationLock(
        account=OWNER, escrow_hash=bypass_code.escrow_hash(RAW), message="Lost by Ann."
    )


def stands(device: Device) -> State:
    return device.state


@pytest.mark.parametrize("mode", ["full", "lite"])
@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(login=OWNER[0], password=OWNER[1]),
        Credentials.bypass(bypass_code.encode(RAW)),
        Credentials.bypass(bypass_code.encode(RAW).lower().replace("-", "")),
    ],
)
async def test_the_owner_or_the_bypass_code_opens_a_locked_device(
    mode: str, credentials: Credentials
) -> None:
    device = make_device()
    async with apple_services(device) as apple:
        lock(apple, device)
        behaviour = replace(Behaviour(), activation=mode)  # type: ignore[arg-type]
        around = surroundings(apple=apple, behaviour=behaviour)
        with pytest.raises(ActivationLocked, match="activation lock: Lost by Ann"):
            await activate(device, around)
        assert stands(device) is State.LOCKED_OUT
        assert device.keychain.device is None
        await activate(device, around, credentials)
        assert stands(device) is State.ACTIVATED
        assert device.keychain.device is not None
        await set_up(device, around, AutomatedEnrollment())
    assert device.state is State.HOME_UNMANAGED


async def test_wrong_credentials_leave_the_device_locked_out() -> None:
    device = make_device()
    async with apple_services(device) as apple:
        lock(apple, device)
        around = surroundings(apple=apple)
        with pytest.raises(ActivationLocked, match="password is incorrect") as caught:
            await activate(device, around, Credentials(login=OWNER[0], password="wrong"))
        assert caught.value.alert
        assert "wrong" not in repr(Credentials(password="wrong"))
        assert device.state is State.LOCKED_OUT
        assert device.keychain.device is None


async def test_credentials_are_not_needed_where_there_is_no_lock() -> None:
    device = make_device()
    async with apple_services(device) as apple:
        await activate(device, surroundings(apple=apple), Credentials(password="x"))
    assert device.state is State.ACTIVATED


async def test_a_locked_out_device_stays_so_when_the_service_fails() -> None:
    device = make_device()
    async with apple_services(device) as apple:
        lock(apple, device)
        around = surroundings(apple=apple)
        with pytest.raises(ActivationLocked):
            await set_up(device, around, AutomatedEnrollment())
    with pytest.raises(PeerRefused):
        await set_up(device, around, AutomatedEnrollment())
    assert device.state is State.LOCKED_OUT
