"""What a program on a USB host asks of the activation daemon (apple-services.md 2.2, 2.7): the same steps without the cable."""

from typing import Literal

import structlog

from emulator.device.activation import ask_again
from emulator.device.device import Device
from emulator.device.state import Event
from emulator.device.surroundings import Surroundings

log = structlog.get_logger()

ActivationState = Literal["Unactivated", "Activated"]


def activation_state(device: Device) -> ActivationState:
    """`GetActivationStateRequest`."""
    return "Unactivated" if device.keychain.device is None else "Activated"


def deactivate(device: Device) -> None:
    """`DeactivateRequest`: the record is gone, and Setup Assistant starts anew. Raises IllegalTransition while managed.

    Apple's side hears nothing of it. Lock, owner and identifiers stay.
    """
    device.apply(Event.DEACTIVATED)
    device.keychain.device = None
    device.cloud_configuration = None
    device.pending = None
    device.failure = None
    log.info("deactivated", **device.facts())


async def reactivate(device: Device, surroundings: Surroundings) -> bool:
    """Ask for activation while activated; True: a new record came, False: a bare acknowledgement. Raises PeerRefused.

    Whatever the answer, the device stays activated.
    """
    return await ask_again(device, surroundings)
