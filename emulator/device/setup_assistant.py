"""Drives a device along the road of `state`: from power-on to its home screen, from wherever it stands.

Every step ends in a state change and a checkpoint, so that a device switched off at any moment goes on where it was. A
step that fails leaves a device in FAILED, which the next call takes up again.
"""

from dataclasses import dataclass, replace
from typing import Final

import structlog

from emulator.config import MAX_AWAITING_FAILURES
from emulator.device.activation import activate
from emulator.device.channel import one_line
from emulator.device.cloud_configuration import fetch_cloud_configuration, receive
from emulator.device.device import Device, Enrollment, Failure, PendingProfile
from emulator.device.enrollment import (
    authenticate,
    complete,
    identify,
    roll_back,
    send_token_update,
)
from emulator.device.enrollment_profile import STEP as FETCH_STEP
from emulator.device.enrollment_profile import fetch_profile
from emulator.device.session import check_in
from emulator.device.state import CAN_FAIL, Event, State
from emulator.device.surroundings import Surroundings
from emulator.device.typed_errors import refusal
from emulator.device.unenrollment import ends_management, unenroll
from emulator.errors import EmulatorError, IllegalTransition, PeerRefused, StepTimeout
from emulator.wire.cloudconfig import CloudConfiguration

log = structlog.get_logger()

AWAITING_STEP: Final = "awaiting_configuration"


@dataclass(frozen=True, slots=True)
class AutomatedEnrollment:
    """Ask the cloud configuration, and do what it says."""


@dataclass(frozen=True, slots=True)
class ProfileEnrollment:
    """Install this enrollment profile, as a user does who was given the file."""

    profile: bytes


@dataclass(frozen=True, slots=True)
class UrlEnrollment:
    """POST MachineInfo to this URL and install what comes back.

    `assigned` stands for the cloud configuration that nobody was asked for: with it the device enrolls as one that is
    assigned to this server, supervised and all; without it, as one that was only given a URL.
    """

    url: str
    assigned: CloudConfiguration | None = None


EnrollmentWay = AutomatedEnrollment | ProfileEnrollment | UrlEnrollment

# Where a retry starts when the device fails in this state; from a downloaded profile on, the profile knows it.
RETRY_FROM: Final = {
    State.UNACTIVATED: Event.BACK_TO_UNACTIVATED,
    State.ACTIVATED: Event.BACK_TO_ACTIVATED,
    State.CLOUD_CONFIGURED: Event.BACK_TO_CLOUD_CONFIGURED,
    State.WEB_AUTHENTICATED: Event.BACK_TO_CLOUD_CONFIGURED,
    State.HOME_UNMANAGED: Event.BACK_TO_HOME_UNMANAGED,
}


class ManagementEnded(PeerRefused):
    """The server ended the management while the device was still in Setup Assistant."""


async def set_up(device: Device, surroundings: Surroundings, way: EnrollmentWay) -> None:
    """Take the device home, managed or not. Raises EmulatorError; the device then knows why (`Device.failure`)."""
    try:
        async with one_line(surroundings) as on_the_way:
            await _walk(device, on_the_way, way)
    except EmulatorError as error:
        if device.state in CAN_FAIL and not isinstance(error, ManagementEnded):
            _fail(device, error)
            await surroundings.checkpoint(device)
        raise


async def _walk(device: Device, surroundings: Surroundings, way: EnrollmentWay) -> None:
    if device.state is State.FAILED and device.failure is not None:
        device.apply(device.failure.retry)
        device.failure = None
        await surroundings.checkpoint(device)
    if device.state is State.PROFILE_FETCHED:
        # Switched off between download and identity: what one-time codes the profile held may be used up.
        await _take_profile(device, surroundings, way)
        await surroundings.checkpoint(device)
    while not _is_home(device, way):
        await _step(device, surroundings, way)
        await surroundings.checkpoint(device)
    if device.state is State.ENROLLED:
        await _settle(device, surroundings)


def _is_home(device: Device, way: EnrollmentWay) -> bool:
    """Managed; or unmanaged, where nobody asked for more."""
    return device.state is State.ENROLLED or (
        device.state is State.HOME_UNMANAGED and isinstance(way, AutomatedEnrollment)
    )


async def _step(device: Device, surroundings: Surroundings, way: EnrollmentWay) -> None:
    """One arrow of the road."""
    match device.state:
        case State.UNACTIVATED | State.LOCKED_OUT:
            await activate(device, surroundings)
        case State.ACTIVATED if isinstance(way, AutomatedEnrollment):
            await fetch_cloud_configuration(device, surroundings)
        case State.ACTIVATED if isinstance(way, UrlEnrollment) and way.assigned is not None:
            receive(device, way.assigned)
        case (
            State.ACTIVATED
            | State.CLOUD_CONFIGURED
            | State.WEB_AUTHENTICATED
            | State.HOME_UNMANAGED
        ):
            await _take_profile(device, surroundings, way)
        case State.PROFILE_FETCHED:
            await identify(device, surroundings)
        case State.IDENTIFIED:
            await authenticate(device, surroundings)
        case State.AUTHENTICATED:
            await complete(device, surroundings)
        case State.AWAITING_CONFIGURATION:
            await _await_configuration(device, surroundings)
        case _:
            raise IllegalTransition(f"a device that is {device.state.value} cannot be set up")


async def _take_profile(device: Device, surroundings: Surroundings, way: EnrollmentWay) -> None:
    """Get the enrollment profile the way that was chosen."""
    automated = not isinstance(way, ProfileEnrollment) and device.cloud_configuration is not None
    match way:
        case ProfileEnrollment(profile=data):
            pass
        case UrlEnrollment(url=url):
            data = await fetch_profile(device, surroundings, url)
        case AutomatedEnrollment():
            data = await _fetch_assigned(device, surroundings)
    retry = device.pending.retry if device.pending else RETRY_FROM[device.state]
    device.pending = PendingProfile(data=data, retry=retry, automated=automated)
    device.apply(Event.PROFILE_RECEIVED)


async def _fetch_assigned(device: Device, surroundings: Surroundings) -> bytes:
    configuration = device.cloud_configuration
    if configuration is None or configuration.url is None:
        raise PeerRefused(FETCH_STEP, "the cloud configuration names no URL")
    if configuration.configuration_web_url:
        raise PeerRefused(
            FETCH_STEP, "the cloud configuration wants a web login (configuration-web-url)"
        )
    return await fetch_profile(
        device, surroundings, configuration.url, anchors=configuration.anchor_certs
    )


async def _await_configuration(device: Device, surroundings: Surroundings) -> None:
    """Ask for commands until the server lets the device go on; a few failed check-ins in a row end the wait."""
    behaviour, clock = surroundings.behaviour, surroundings.clock
    started, failures = clock.now(), 0
    while device.state is State.AWAITING_CONFIGURATION:
        try:
            await check_in(device, surroundings)
            failures = 0
        except (PeerRefused, StepTimeout) as error:
            failures += 1
            log.warning("check_in_failed", error=str(error), failures=failures, **device.facts())
            if failures >= MAX_AWAITING_FAILURES:
                raise
        if device.state is not State.AWAITING_CONFIGURATION:
            break
        if (clock.now() - started).total_seconds() >= behaviour.awaiting_deadline_s:
            raise StepTimeout(AWAITING_STEP, behaviour.awaiting_deadline_s)
        await clock.sleep(behaviour.awaiting_poll_s)
    if device.state is not State.ENROLLED:
        ended = "erased the device" if device.state is State.UNACTIVATED else "ended the management"
        raise ManagementEnded(AWAITING_STEP, f"the server {ended}")


async def _settle(device: Device, surroundings: Surroundings) -> None:
    """What is left to say once home: an undelivered result, and the TokenUpdate that the pane's end changes."""
    if device.outbox is not None:
        await check_in(device, surroundings)
    enrollment = device.enrollment
    if enrollment is None or not enrollment.awaiting_configuration:
        return
    if surroundings.behaviour.token_update_after_configured:
        await _say_that_it_waits_no_more(device, surroundings, enrollment)
    else:
        device.enrollment = replace(enrollment, awaiting_configuration=False)
    await surroundings.checkpoint(device)


async def _say_that_it_waits_no_more(
    device: Device, surroundings: Surroundings, enrollment: Enrollment
) -> None:
    """The second TokenUpdate; one that fails is sent again when the device is next taken up."""
    device.enrollment = replace(enrollment, awaiting_configuration=False)
    accepted = False
    try:
        response = await send_token_update(device, surroundings)
        if ends_management(device, response):
            unenroll(device)
            await surroundings.checkpoint(device)
            raise ManagementEnded(
                "token_update", "the server ended the management", status=response.status
            )
        if response.status != 200:
            raise refusal("token_update", response)
        accepted = True
    finally:
        if not accepted and device.enrollment is not None:
            device.enrollment = enrollment
    device.apply(Event.TOKEN_UPDATE_ACCEPTED)


def _fail(device: Device, error: EmulatorError) -> None:
    """Take back what was begun and remember why; a locked device stays locked."""
    if device.state is State.LOCKED_OUT:
        return
    retry = device.pending.retry if device.pending else RETRY_FROM[device.state]
    step = error.step if isinstance(error, PeerRefused | StepTimeout) else "install_profile"
    roll_back(device)
    device.failure = Failure(step=step, reason=str(error), retry=retry)
    device.apply(Event.STEP_FAILED)
    log.info("setup_failed", step=step, error=str(error), **device.facts())
