"""What a device does with pushes: which one wakes it, and how it tells of a new token (mdm.md 3.2, 7).

The courier protocol between devices and Apple is not emulated: whoever runs the device holds a wake channel for it, knows its
token by `Surroundings.push`, and lets it check in for a push that `wakes` accepts.
"""

import hmac
import secrets
import uuid
from dataclasses import replace

import structlog

from certs.errors import MalformedMessage
from emulator.device.device import Device
from emulator.device.enrollment import PUSH_TOKEN_BYTES, send_token_update
from emulator.device.state import Event, State
from emulator.device.surroundings import Surroundings
from emulator.device.typed_errors import refusal
from emulator.device.unenrollment import ends_management, unenroll
from emulator.errors import IllegalTransition, PeerRefused
from emulator.wire.push import decode_payload

log = structlog.get_logger()

STEP = "token_update"


def wakes(push_magic: str, payload: bytes) -> bool:
    """Whether a push is for the management with this PushMagic; any other is ignored without a sign (mdm.md 7)."""
    try:
        magic = decode_payload(payload).push_magic
    except MalformedMessage:
        return False
    return bool(push_magic) and hmac.compare_digest(magic.encode(), push_magic.encode())


async def rotate_token(
    device: Device, surroundings: Surroundings, *, new_magic: bool = False
) -> None:
    """The device gets another push token without enrolling again, and says so by TokenUpdate.

    The old token is dead at once. A TokenUpdate that fails is sent again at the start of the next session.
    Raises PeerRefused or StepTimeout.
    """
    enrollment = device.enrollment
    if enrollment is None or not device.managed:
        raise IllegalTransition(f"a device that is {device.state.value} has no push token")
    device.enrollment = replace(
        enrollment,
        push_token=secrets.token_bytes(PUSH_TOKEN_BYTES),
        push_magic=str(uuid.uuid4()).upper() if new_magic else enrollment.push_magic,
        token_update_due=True,
    )
    log.info("push_token_rotated", **device.facts())
    await surroundings.checkpoint(device)
    await announce_token(device, surroundings)


async def announce_token(device: Device, surroundings: Surroundings) -> None:
    """Send the TokenUpdate that is due. Raises PeerRefused or StepTimeout; then it stays due."""
    response = await send_token_update(device, surroundings)
    if ends_management(device, response):
        unenroll(device)
        await surroundings.checkpoint(device)
        raise PeerRefused(STEP, "the server ended the management", status=response.status)
    if response.status != 200:
        raise refusal(STEP, response)
    if device.enrollment is not None:
        device.enrollment = replace(device.enrollment, token_update_due=False)
    waits = device.state is State.AWAITING_CONFIGURATION
    device.apply(Event.TOKEN_UPDATE_ACCEPTED_AWAITING if waits else Event.TOKEN_UPDATE_ACCEPTED)
    await surroundings.checkpoint(device)
