"""One request to the cloud configuration service: the signed envelope, the daemon's headers, TLS (apple-services.md 3.2)."""

from typing import Any, Final
from urllib.parse import urlsplit

from certs.errors import TransportError
from certs.transport import HttpResponse
from emulator.config import CLOUD_CONFIGURATION_TIMEOUT_S
from emulator.device import user_agent
from emulator.device.apple_services import open_service, service_url
from emulator.device.device import Device
from emulator.device.envelope import sign_envelope
from emulator.device.surroundings import Surroundings, peer_errors
from emulator.http import HttpSession
from emulator.wire import cloudconfig
from emulator.wire.cloud_errors import BAD_URL, SERVER_TRUST, CloudConfigurationError
from emulator.wire.device_request import DeviceRequest, Operation

FORM: Final = (
    "application/x-www-form-urlencoded"  # what the URL loader sends for a body without a type
)


def open_cloud_service(device: Device, surroundings: Surroundings) -> HttpSession:
    """A session for the requests below."""
    return open_service(device, surroundings, user_agent.cloud_configuration(device))


def service_address(base: str | None, path: str, step: str) -> str:
    """The full URL. Raises CloudConfigurationError (33012) for a base that is none."""
    url = service_url(base, path, step)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise CloudConfigurationError("", BAD_URL, step=step, reason="not the URL of a service")
    return url


async def exchange(
    service: HttpSession,
    method: str,
    url: str,
    *,
    step: str,
    headers: dict[str, str],
    body: bytes = b"",
) -> HttpResponse:
    """Send and wait 30 s at most; a server that is not trusted is the device's own code 34011."""
    with peer_errors(step):
        try:
            return await service.request(
                method,
                url,
                step=step,
                headers=headers,
                body=body,
                timeout_s=CLOUD_CONFIGURATION_TIMEOUT_S,
            )
        except TransportError as error:
            if not error.untrusted_server:
                raise
            raise CloudConfigurationError(
                "", SERVER_TRUST, step=step, reason=error.reason
            ) from error


class CloudRequest:
    """One operation, signed once and sent as often as the caller likes; `members` are those of `DeviceRequest`."""

    def __init__(
        self, device: Device, base: str | None, operation: Operation, *, step: str, **members: Any
    ) -> None:
        self._url = service_address(base, operation.path, step)
        self._step = step
        request = DeviceRequest(
            serial_number=device.hardware.serial_number,
            udid=device.hardware.udid,
            action=operation.action,
            **members,
        )
        envelope = sign_envelope(device, cloudconfig.encode_request(request), step)
        self._body = cloudconfig.encode_envelope(envelope)

    async def send(self, service: HttpSession) -> HttpResponse:
        headers = {
            "Content-Type": FORM,
            "X-Profile-Protocol-Version": cloudconfig.PROTOCOL_VERSION,
        }
        return await exchange(
            service, "POST", self._url, step=self._step, headers=headers, body=self._body
        )


async def ask_once(
    device: Device,
    surroundings: Surroundings,
    base: str | None,
    operation: Operation,
    *,
    step: str,
    **members: Any,
) -> HttpResponse:
    """One operation, one answer; what its status means is the caller's to judge."""
    request = CloudRequest(device, base, operation, step=step, **members)
    async with open_cloud_service(device, surroundings) as service:
        return await request.send(service)
