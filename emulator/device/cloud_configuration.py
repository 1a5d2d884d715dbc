"""Asking whose device this is: the cloud configuration of Setup Assistant (apple-services.md 3.2 to 3.5, 9.2)."""

from dataclasses import replace
from typing import Final

from certs.errors import MalformedMessage
from certs.transport import HttpResponse
from emulator.config import CLOUD_CONFIGURATION_RETRIES, CLOUD_CONFIGURATION_TIMEOUT_S
from emulator.device import user_agent
from emulator.device.apple_services import open_service, service_url
from emulator.device.device import Device
from emulator.device.envelope import sign_envelope
from emulator.device.state import Event
from emulator.device.surroundings import Surroundings, peer_errors
from emulator.errors import PeerRefused
from emulator.wire import cloudconfig
from emulator.wire.cloudconfig import CloudConfiguration, CloudConfigurationError, NoConfiguration

STEP: Final = "cloud_configuration"
FORCED_SINCE: Final = "13.0"  # from here on automated enrollment is always supervised and mandatory
NOT_ENROLLED: Final = "DEVICE_NOT_ENROLLED"
RETRY_DELAY_S: Final = 5.0
MAX_RETRY_DELAY_S: Final = 60.0
SERVER_TRUST: Final = 34011


async def fetch_cloud_configuration(device: Device, surroundings: Surroundings) -> None:
    """Ask, store the answer, and move on: to the enrollment profile, or home when nobody owns the device."""
    answer = await _ask(device, surroundings)
    if isinstance(answer, NoConfiguration) or answer.url is None:
        device.apply(Event.NO_CLOUD_CONFIGURATION)
        return
    device.cloud_configuration = as_stored(device, answer)
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
        code = cloudconfig.INVALID_CONFIGURATION
        raise CloudConfigurationError("", code, status=response.status) from error
    except CloudConfigurationError as error:
        if error.word == NOT_ENROLLED:
            return NoConfiguration(word=error.word)
        raise


async def _exchange(device: Device, surroundings: Surroundings) -> HttpResponse:
    """Send the signed envelope; a busy service is asked again a few times."""
    apple = surroundings.apple
    url = service_url(apple.cloud_configuration_url if apple else None, cloudconfig.PATH, STEP)
    hardware = device.hardware
    request = cloudconfig.DeviceRequest(serial_number=hardware.serial_number, udid=hardware.udid)
    envelope = sign_envelope(device, cloudconfig.encode_request(request), STEP)
    body = cloudconfig.encode_envelope(envelope)
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Profile-Protocol-Version": cloudconfig.PROTOCOL_VERSION,
    }
    agent = user_agent.cloud_configuration(device)
    async with open_service(device, surroundings, agent) as service:
        for attempt in range(CLOUD_CONFIGURATION_RETRIES + 1):
            with peer_errors(STEP):
                response = await service.request(
                    "POST",
                    url,
                    step=STEP,
                    headers=headers,
                    body=body,
                    timeout_s=CLOUD_CONFIGURATION_TIMEOUT_S,
                )
            if response.status != 503 or attempt == CLOUD_CONFIGURATION_RETRIES:
                return response
            await surroundings.clock.sleep(_delay(response))
    raise PeerRefused(STEP, "never asked")


def _delay(response: HttpResponse) -> float:
    wanted = response.header("retry-after") or ""
    return min(float(wanted), MAX_RETRY_DELAY_S) if wanted.isdigit() else RETRY_DELAY_S
