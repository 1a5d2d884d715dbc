"""From a downloaded enrollment profile to a managed device: identity, Authenticate, the rest, TokenUpdate (mdm.md 3.7).

Each function takes one step of the state table and ends where a checkpoint may be made. A device that is switched off in
between goes on with the identity that it has; a failure takes everything back.
"""

import secrets
import uuid
from dataclasses import replace

from certs.transport import HttpResponse
from emulator.device.channel import open_channel
from emulator.device.device import Device, Enrollment, PendingProfile
from emulator.device.profile_checks import check_dates, check_enrollment, read_profile
from emulator.device.profile_installation import (
    enrollment_of,
    install_payloads,
    unchanged_on_failure,
)
from emulator.device.profiles import InstalledProfile
from emulator.device.state import Event
from emulator.device.surroundings import Surroundings
from emulator.device.typed_errors import refusal
from emulator.errors import IllegalTransition
from emulator.wire import checkin

LOCK_AND_PASSCODE = 4  # access rights (mdm.md 2.2)
DEVICE_INFORMATION = 16
PUSH_TOKEN_BYTES = 32
UNLOCK_TOKEN_BYTES = 1288  # as captured (mdm.md 3.2)


async def identify(device: Device, surroundings: Surroundings) -> None:
    """Check the profile and get its certificates and identities; the server does not know yet."""
    pending = _pending(device)
    profile = read_profile(pending.data, device)
    check_dates(profile, surroundings.clock.now())
    mdm = check_enrollment(profile, device)
    with unchanged_on_failure(device):
        await install_payloads(device, surroundings, profile)
        device.enrollment = enrollment_of(device, profile, mdm, automated=pending.automated)
    device.pending = replace(
        pending,
        data=b"",
        installed=InstalledProfile.of(profile, managed=False, enrollment=True),
    )
    device.apply(Event.IDENTITY_ISSUED)


async def authenticate(device: Device, surroundings: Surroundings) -> None:
    """Announce the enrollment; once it is accepted, the rest of the profile is installed."""
    message = authenticate_message(device)
    async with open_channel(device, surroundings, check_in=True) as channel:
        _require_accepted("authenticate", await channel.check_in("authenticate", message))
    installed = _pending(device).installed
    assert installed is not None
    device.profiles.install(installed)
    enrollment = _enrollment(device)
    device.enrollment = replace(
        enrollment,
        push_token=secrets.token_bytes(PUSH_TOKEN_BYTES),
        push_magic=str(uuid.uuid4()).upper(),
        unlock_token=secrets.token_bytes(UNLOCK_TOKEN_BYTES)
        if enrollment.allows(LOCK_AND_PASSCODE)
        else None,
        awaiting_configuration=_awaits(device, enrollment),
    )
    device.apply(Event.AUTHENTICATE_ACCEPTED)


async def complete(device: Device, surroundings: Surroundings) -> None:
    """The first TokenUpdate: with its acceptance the device is managed."""
    _require_accepted("token_update", await send_token_update(device, surroundings))
    device.pending = None
    awaiting = _enrollment(device).awaiting_configuration
    device.apply(Event.TOKEN_UPDATE_ACCEPTED_AWAITING if awaiting else Event.TOKEN_UPDATE_ACCEPTED)


async def send_token_update(device: Device, surroundings: Surroundings) -> HttpResponse:
    """Tell the server where to push to; what its answer means depends on where the device stands."""
    message = token_update_message(device)
    if surroundings.push is not None:
        # The server may push as soon as it knows the token.
        await surroundings.push.register(device)
    async with open_channel(device, surroundings, check_in=True) as channel:
        return await channel.check_in("token_update", message)


def authenticate_message(device: Device) -> checkin.Authenticate:
    """The identifying keys go along only with access right 16 (mdm.md 3.1)."""
    enrollment, hardware = _enrollment(device), device.hardware
    if not enrollment.allows(DEVICE_INFORMATION):
        return checkin.Authenticate(udid=hardware.udid, topic=enrollment.topic)
    return checkin.Authenticate(
        udid=hardware.udid,
        topic=enrollment.topic,
        os_version=hardware.os_version,
        build_version=hardware.build,
        product_name=hardware.model.product_type,
        serial_number=hardware.serial_number,
        imei=hardware.printed_imei,
        meid=hardware.meid,
    )


def token_update_message(device: Device) -> checkin.TokenUpdate:
    enrollment = _enrollment(device)
    return checkin.TokenUpdate(
        udid=device.hardware.udid,
        topic=enrollment.topic,
        token=enrollment.push_token,
        push_magic=enrollment.push_magic,
        unlock_token=enrollment.unlock_token,
        awaiting_configuration=enrollment.awaiting_configuration,
    )


def roll_back(device: Device) -> None:
    """Take back a started enrollment: nothing of its profile stays (mdm.md 2.6)."""
    if device.enrollment is not None:
        identifier = device.enrollment.profile_identifier
        device.keychain.remove_profile(identifier)
        device.profiles.remove(identifier)
    device.enrollment = None
    device.pending = None


def _awaits(device: Device, enrollment: Enrollment) -> bool:
    configuration = device.cloud_configuration
    return (
        enrollment.automated and configuration is not None and configuration.await_device_configured
    )


def _pending(device: Device) -> PendingProfile:
    if device.pending is None:
        raise IllegalTransition("there is no enrollment profile to install")
    return device.pending


def _enrollment(device: Device) -> Enrollment:
    if device.enrollment is None:
        raise IllegalTransition("the device has no MDM payload")
    return device.enrollment


def _require_accepted(step: str, response: HttpResponse) -> None:
    """Anything but 200 fails the installation (mdm.md 3.7, 4.3)."""
    if response.status != 200:
        raise refusal(step, response)
