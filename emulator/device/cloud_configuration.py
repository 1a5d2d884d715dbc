"""Asking whose device this is: the cloud configuration of Setup Assistant (apple-services.md 3.2 to 3.5, 9.2)."""

import secrets
from dataclasses import replace
from typing import Final

from certs.errors import MalformedMessage
from certs.transport import HttpResponse
from emulator.config import CLOUD_CONFIGURATION_RETRIES
from emulator.device.cloud_service import CloudRequest, open_cloud_service
from emulator.device.device import Device
from emulator.device.legacy_configuration import LegacyRequest
from emulator.device.state import Event
from emulator.device.surroundings import Surroundings
from emulator.wire import cloudconfig
from emulator.wire.bypass_code import CODE_BYTES
from emulator.wire.cloud_errors import INVALID_CONFIGURATION, STEP
from emulator.wire.cloudconfig import CloudConfiguration, CloudConfigurationError, NoConfiguration
from emulator.wire.device_request import Operation

FORCED_SINCE: Final = "13.0"  # from here on automated enrollment is always supervised and mandatory
NOT_ENROLLED: Final = "DEVICE_NOT_ENROLLED"
RETRY_DELAY_S: Final = 5.0
MAX_RETRY_DELAY_S: Final = 60.0


async def fetch_cloud_configuration(device: Device, surroundings: Surroundings) -> None:
    """Ask, store the answer, and move on: to the enrollment profile, or home when nobody owns the device."""
    answer = await _ask(device, surroundings)
    if isinstance(answer, NoConfiguration) or answer.url is None:
        device.apply(Event.NO_CLOUD_CONFIGURATION)
        return
    receive(device, answer)


def receive(device: Device, answer: CloudConfiguration) -> None:
    """Store a configuration that names a server, and stand before its enrollment profile."""
    device.cloud_configuration = as_stored(device, answer)
    if device.supervised and device.bypass_code is None:
        device.bypass_code = secrets.token_bytes(CODE_BYTES)  # supervision makes one (3.5)
    device.apply(Event.CLOUD_CONFIGURATION_RECEIVED)


def as_stored(device: Device, received: CloudConfiguration) -> CloudConfiguration:
    """What the device makes of the document (3.3, 3.5): forces, and drops what it forbids itself."""
    stored = received
    if device.runs(FORCED_SINCE):
        stored = replace(stored, is_supervised=True, is_mandatory=True)
    if not stored.is_supervised:
        stored = replace(stored, is_mdm_removable=True, await_device_configured=False)
    if stored.is_multi_user:  # no device here is a Shared iPad
        stored = replace(stored, is_multi_user=False)
    return stored


async def _ask(device: Device, surroundings: Surroundings) -> CloudConfiguration | NoConfiguration:
    response = await _exchange(device, surroundings)
    try:
        return cloudconfig.decode_answer(response.status, response.content_type, response.body)
    except MalformedMessage as error:
        raise CloudConfigurationError(
            "", INVALID_CONFIGURATION, status=response.status, reason=str(error)
        ) from error
    except CloudConfigurationError as error:
        if error.word == NOT_ENROLLED:
            return NoConfiguration(word=error.word)
        raise


async def _exchange(device: Device, surroundings: Surroundings) -> HttpResponse:
    """Ask today's way or the older one; a busy service is asked again a few times."""
    base = surroundings.apple.cloud_configuration_url if surroundings.apple else None
    request: CloudRequest | LegacyRequest
    if surroundings.behaviour.cloud_configuration == "legacy":
        request = LegacyRequest(device, surroundings, base)
    else:
        request = CloudRequest(device, base, Operation.PROFILE, step=STEP)
    async with open_cloud_service(device, surroundings) as service:
        for _ in range(CLOUD_CONFIGURATION_RETRIES):
            response = await request.send(service)
            if response.status != 503:
                return response
            await surroundings.clock.sleep(_delay(response))
        return await request.send(service)


def _delay(response: HttpResponse) -> float:
    wanted = response.header("retry-after") or ""
    return min(float(wanted), MAX_RETRY_DELAY_S) if wanted.isdigit() else RETRY_DELAY_S
