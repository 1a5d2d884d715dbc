"""What a device tells the cloud configuration service around a change of its MDM server (apple-services.md 3.2, 9.2)."""

from typing import Final

from emulator.device.cloud_service import ask_once
from emulator.device.device import Device
from emulator.device.surroundings import Surroundings
from emulator.wire import provisional
from emulator.wire.device_request import Operation, PushRegistration

REGISTER: Final = "device_register"
START: Final = "start_migration"
END: Final = "end_migration"
MIGRATES_SINCE: Final = "26.0"


async def register_push_token(
    device: Device, surroundings: Surroundings, *, token: bytes, topic: str
) -> None:
    """Where the service may push to, and whether the device can migrate. Raises CloudConfigurationError."""
    registration = PushRegistration(
        app_push_token=token,
        push_topic=topic,
        is_mdm_migration_capable=device.runs(MIGRATES_SINCE),
    )
    await _tell(device, surroundings, Operation.REGISTER, REGISTER, push=registration)


async def start_migration(device: Device, surroundings: Surroundings) -> None:
    """The device begins to move to another server. Raises CloudConfigurationError."""
    await _tell(device, surroundings, Operation.START_MIGRATION, START)


async def end_migration(
    device: Device, surroundings: Surroundings, *, server_uid: str, status: str
) -> None:
    """How the move ended, and at which server. Raises CloudConfigurationError."""
    await _tell(
        device, surroundings, Operation.END_MIGRATION, END, server_uid=server_uid, status=status
    )


async def _tell(
    device: Device, surroundings: Surroundings, operation: Operation, step: str, **members: object
) -> None:
    apple = surroundings.apple
    base = apple.cloud_configuration_url if apple else None
    answer = await ask_once(device, surroundings, base, operation, step=step, **members)
    provisional.require_done(answer.status, answer.body, step)
