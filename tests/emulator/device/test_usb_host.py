"""Deactivation and activation again, as a program on a USB host asks for them (apple-services.md 2.2, 2.5, 2.7)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from emulator.apple.activation import ActivationSettings
from emulator.apple.app import AppleServices
from emulator.apple.planned_faults import PlannedFault
from emulator.apple.records import ActivationState
from emulator.device.activation import ActivationLocked, activate
from emulator.device.device import Device
from emulator.device.setup_assistant import AutomatedEnrollment, set_up
from emulator.device.state import MANAGED, State
from emulator.device.usb_host import activation_state, deactivate, reactivate
from emulator.errors import IllegalTransition, PeerRefused
from tests.emulator.device.managed import managed_device
from tests.emulator.device.world import (
    CLOCK,
    apple_services,
    make_device,
    pki,
    register,
    surroundings,
)


def plan(apple: AppleServices, device: Device, outcome: Any) -> None:
    fault = PlannedFault(step="device_activation", action="outcome", outcome=outcome)
    apple.planned_faults.plan(device.hardware.serial_number, [fault])


@asynccontextmanager
async def activated(
    settings: ActivationSettings | None = None,
) -> AsyncIterator[tuple[Device, AppleServices, Any]]:
    device = make_device()
    async with AppleServices(pki=pki(), clock=CLOCK, activation_settings=settings) as apple:
        register(apple, device)
        around = surroundings(apple=apple)
        await activate(device, around)
        yield device, apple, around


async def test_a_deactivated_device_starts_anew_and_gets_another_certificate() -> None:
    async with activated() as (device, _, around):
        assert activation_state(device) == "Activated"
        first = device.keychain.device
        await set_up(device, around, AutomatedEnrollment())
        deactivate(device)
        assert (device.state, activation_state(device)) == (State.UNACTIVATED, "Unactivated")
        await set_up(device, around, AutomatedEnrollment())
        assert device.state is State.HOME_UNMANAGED
        assert device.keychain.device is not None
        assert device.keychain.device != first


async def test_deactivation_takes_a_failure_and_the_configuration_with_it() -> None:
    device = make_device()
    async with apple_services() as apple:  # which does not know the device
        with pytest.raises(PeerRefused):
            await set_up(device, surroundings(apple=apple), AutomatedEnrollment())
    deactivate(device)
    assert (device.state, device.failure, device.cloud_configuration) == (
        State.UNACTIVATED,
        None,
        None,
    )


@pytest.mark.parametrize("state", sorted(MANAGED))
def test_a_managed_device_is_not_deactivated(state: State) -> None:
    device = managed_device()
    device.state = state
    with pytest.raises(IllegalTransition, match="DEACTIVATED is not possible"):
        deactivate(device)
    assert device.cloud_configuration is not None


async def test_an_activated_device_that_asks_again_is_acknowledged() -> None:
    async with activated() as (device, _, around):
        before = device.keychain.device
        assert await reactivate(device, around) is False
        assert device.keychain.device is before
        assert device.state is State.ACTIVATED


async def test_a_registry_that_forgot_the_activation_sends_a_new_record() -> None:
    async with activated() as (device, apple, around):
        record = apple.registry.get(device.hardware.serial_number)
        assert record is not None
        record.activation_state = ActivationState.UNACTIVATED
        before = device.keychain.device
        assert await reactivate(device, around) is True
        assert device.keychain.device != before


async def test_where_reactivation_is_an_error_the_device_stays_activated() -> None:
    async with activated(ActivationSettings(reactivation="error")) as (device, _, around):
        with pytest.raises(PeerRefused, match="Device Unknown"):
            await reactivate(device, around)
        assert activation_state(device) == "Activated"


async def test_a_lock_met_while_activated_locks_nobody_out() -> None:
    async with activated() as (device, apple, around):
        plan(apple, device, "locked")
        with pytest.raises(ActivationLocked):
            await reactivate(device, around)
        assert device.state is State.ACTIVATED


async def test_a_device_without_a_record_cannot_be_activated_again() -> None:
    with pytest.raises(IllegalTransition, match="only an activated device"):
        await reactivate(make_device(), surroundings())


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("server_error", "device_activation: HTTP 500: SERVER_ERROR"),
        ("device_unknown", "device_activation: Device Unknown"),
        ("acknowledged", "device_activation: acknowledged without an activation record"),
        ("locked", "device_activation: activation lock: This device is linked to an account."),
    ],
)
async def test_every_outcome_of_activation_has_its_words_on_the_device(
    outcome: str, words: str
) -> None:
    device = make_device()
    async with apple_services(device) as apple:
        plan(apple, device, outcome)
        with pytest.raises(PeerRefused) as caught:
            await set_up(device, surroundings(apple=apple), AutomatedEnrollment())
        assert str(caught.value) == words
        assert device.keychain.device is None


async def test_an_answer_in_a_page_activates_as_well() -> None:
    async with activated(ActivationSettings(answer="html")) as (device, _, around):
        assert device.state is State.ACTIVATED
        assert await reactivate(device, around) is False


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"action": "truncate"}, "activation answer: expected"),
        ({"action": "cut"}, "the answer ends early"),
        (
            {"action": "content_type", "content_type": "image/png"},
            "Content-Type: expected text/xml",
        ),
        ({"action": "status", "status": 429, "body": "SLOW"}, "HTTP 429: SLOW"),
        ({"action": "drop"}, "closed|hung up|reset"),
    ],
)
async def test_every_spoilt_answer_is_one_refusal_and_no_activation(
    fault: dict[str, Any], words: str
) -> None:
    device = make_device()
    async with apple_services(device) as apple:
        entry = PlannedFault.model_validate({"step": "device_activation", **fault})
        apple.planned_faults.plan(device.hardware.serial_number, [entry])
        with pytest.raises(PeerRefused, match=f"device_activation: .*({words})"):
            await activate(device, surroundings(apple=apple))
        assert device.state is State.UNACTIVATED
