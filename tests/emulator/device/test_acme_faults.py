"""Every fault of ACME and of attestation on a whole device at a real server: who is refused, by which words, and who gets through."""

import pytest

from certs.acme.faults import DeviceFault, ServerFault
from certs.acme.policy import AcmePolicy
from certs.attestation_faults import LeafFault
from certs.faults import FaultPoint, no_faults
from emulator.device.device import Device
from emulator.device.install_errors import chain_of
from emulator.device.setup_assistant import ProfileEnrollment, set_up
from emulator.device.state import State
from emulator.errors import EmulatorError, PeerRefused
from emulator.wire import profile
from tests.certs.acme.test_faults import DEVICE_FAULTS, LEAF_FAULTS, STATEMENT, once
from tests.certs.acme.test_slow_server import NotingClock
from tests.emulator.device.enrollment_profiles import acme_profile
from tests.emulator.device.world import (
    ScriptedMdm,
    apple_services,
    grant,
    make_device,
    pki,
    scripted_mdm,
    surroundings,
)


async def enroll(
    device: Device,
    mdm: ScriptedMdm,
    *,
    faults: FaultPoint = no_faults,
    leaf_faults: FaultPoint = no_faults,
) -> None:
    """By a profile with attested ACME; the waits of simulated time are over at once."""
    mdm.devices.devices["one-time-code"] = grant(device)
    served = profile.encode(acme_profile(mdm.url))
    async with apple_services(device) as apple:
        pki().attestation.misbehave(leaf_faults)
        try:
            await set_up(
                device,
                surroundings(apple=apple, faults=faults, clock=NotingClock()),
                ProfileEnrollment(served),
            )
        finally:
            pki().attestation.misbehave(no_faults)


async def refused(device: Device, mdm: ScriptedMdm, **faults: FaultPoint) -> EmulatorError:
    """What became of the device: nothing was issued, and the profile is not installed."""
    with pytest.raises(EmulatorError) as caught:
        await enroll(device, mdm, **faults)
    assert device.state is State.FAILED
    assert device.enrollment is None
    assert mdm.devices.issued_to == []
    return caught.value


def told(error: EmulatorError, type_: str, words: str) -> None:
    assert isinstance(error, PeerRefused)
    assert str(error).startswith(f"acme: {type_}"), str(error)
    assert words in str(error)
    assert [code for _, code, _ in chain_of(error)] == [4001, 4001]


@pytest.mark.parametrize("fault", sorted(DEVICE_FAULTS))
async def test_each_fault_of_the_device_ends_its_enrollment(fault: DeviceFault) -> None:
    step, type_, words = DEVICE_FAULTS[fault]
    async with scripted_mdm(acme_checks_names=True) as mdm:
        told(await refused(make_device(), mdm, faults=once("device", step, fault)), type_, words)
        honest = make_device(1)
        await enroll(honest, mdm)
    assert honest.state is State.ENROLLED


@pytest.mark.parametrize("fault", sorted(LeafFault))
async def test_each_fault_of_the_attestation_service_ends_the_enrollment(fault: LeafFault) -> None:
    async with scripted_mdm() as mdm:
        error = await refused(
            make_device(), mdm, leaf_faults=once("server", "attestation_leaf", fault)
        )
    told(error, STATEMENT, LEAF_FAULTS[fault])


SURVIVED = [
    ("finalize", ServerFault.BAD_NONCE, {}),
    ("challenge", ServerFault.NO_REPLAY_NONCE, {}),
    ("challenge", ServerFault.PROCESSING, {"polls": 2}),
    ("finalize", ServerFault.PROCESSING, {"polls": 2}),
    ("new_order", ServerFault.RATE_LIMITED, {"retry_after_s": 5}),
    ("new_order", ServerFault.DELAY, {"seconds": 0}),
    ("certificate", ServerFault.EXPIRE_ORDER, {}),
]
ENDED = [
    ("new_order", ServerFault.RATE_LIMITED, {"retry_after_s": 3600}, "acme: rateLimited"),
    ("new_account", ServerFault.EAB_REQUIRED, {}, "acme: externalAccountRequired"),
    ("directory", ServerFault.PROBLEM, {}, "acme: serverInternal: refused on purpose"),
    ("new_nonce", ServerFault.STATUS, {"status": 503}, "HTTP 503"),
    ("challenge", ServerFault.EXPIRE_ORDER, {}, "acme: malformed: the authorization is expired"),
    ("order", ServerFault.EXPIRE_ORDER, {}, "acme: malformed: the order expired"),
    ("finalize", ServerFault.EXPIRE_ORDER, {}, "acme: orderNotReady: the order is invalid"),
    ("certificate", ServerFault.CHAIN_IN_WRONG_ORDER, {}, "first the one for the key of the CSR"),
]


@pytest.mark.parametrize(("step", "fault", "arguments"), SURVIVED)
async def test_a_device_gets_through_what_a_server_may_do(
    step: str, fault: ServerFault, arguments: dict[str, object]
) -> None:
    device = make_device()
    faults = once("server", step, fault, **arguments)
    async with scripted_mdm(acme_faults=faults) as mdm:
        await enroll(device, mdm)
        assert len(mdm.devices.issued_to) == 1
    assert device.state is State.ENROLLED


@pytest.mark.parametrize(("step", "fault", "arguments", "words"), ENDED)
async def test_a_device_fails_with_what_a_server_must_not_do(
    step: str, fault: ServerFault, arguments: dict[str, object], words: str
) -> None:
    device = make_device()
    async with scripted_mdm(acme_faults=once("server", step, fault, **arguments)) as mdm:
        with pytest.raises(EmulatorError) as caught:
            await enroll(device, mdm)
        assert len(mdm.devices.issued_to) == (step == "certificate")
    assert words in str(caught.value)
    assert device.state is State.FAILED


async def test_a_refusal_inside_a_good_answer_is_a_refusal_on_a_device_too() -> None:
    """As step-ca: status 200, and the error in the challenge (certificates.md 0.16)."""
    faults = once("server", "challenge", ServerFault.CHALLENGE_WITH_ERROR)
    async with scripted_mdm(acme_faults=faults) as mdm:
        device_faults = once("device", "challenge", DeviceFault.FORMAT_NONE)
        error = await refused(make_device(), mdm, faults=device_faults)
    told(error, STATEMENT, "an attestation is required")


async def test_a_device_that_does_not_wait_for_its_order_is_refused() -> None:
    faults = once("device", "await_order", DeviceFault.FINALIZE_EARLY)
    async with scripted_mdm(acme_policy=AcmePolicy(slow_validation=1)) as mdm:
        told(await refused(make_device(), mdm, faults=faults), "orderNotReady", "is pending")


def test_every_fault_of_a_server_is_met_by_a_device() -> None:
    met = {fault for _, fault, _ in SURVIVED} | {fault for _, fault, *_ in ENDED}
    assert met | {ServerFault.CHALLENGE_WITH_ERROR} == set(ServerFault)
