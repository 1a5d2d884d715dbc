"""The end of management, whoever wants it: the user, a command, or the server's 401 (mdm.md 3.3, 4.3)."""

from typing import Final

import structlog

from certs.transport import HttpResponse
from emulator.device.channel import open_channel
from emulator.device.device import Device
from emulator.device.state import Event
from emulator.device.surroundings import Surroundings
from emulator.device.typed_errors import UNRECOGNIZED_DEVICE, typed_error
from emulator.errors import EmulatorError
from emulator.wire.checkin import CheckOut

log = structlog.get_logger()


UNENROLLED_BY_403_SINCE: Final = "17.0"


def ends_management(device: Device, response: HttpResponse) -> bool:
    """Whether an answer on an established enrollment unenrolls the device (mdm.md 4.3)."""
    if response.status == 401:
        return True
    typed = typed_error(response)
    return (
        typed is not None
        and typed.code == UNRECOGNIZED_DEVICE
        and device.runs(UNENROLLED_BY_403_SINCE)
    )


async def leave(device: Device, surroundings: Surroundings) -> None:
    """Say goodbye where the profile asks for it, then remove everything that management brought."""
    if device.enrollment is not None and device.enrollment.check_out_when_removed:
        await _check_out(device, surroundings)
    unenroll(device)


def unenroll(device: Device) -> None:
    """Remove it without a word, as after 401 or an unrecognized device."""
    log.warning("unenrolled", **device.facts())
    device.forget_management()
    device.apply(Event.PROFILE_REMOVED)


async def _check_out(device: Device, surroundings: Surroundings) -> None:
    """Once and best effort: neither the status nor silence changes anything."""
    assert device.enrollment is not None
    message = CheckOut(udid=device.hardware.udid, topic=device.enrollment.topic)
    try:
        async with open_channel(device, surroundings, check_in=True) as channel:
            response = await channel.check_in("check_out", message)
        log.info("check_out", status=response.status, **device.facts())
    except EmulatorError as error:
        log.warning("check_out_failed", error=str(error), **device.facts())
